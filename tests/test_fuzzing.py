"""Readers of files take what is damaged, foreign or hostile for what it is.

Whatever a file holds, a value comes back or an error of a documented kind that names the file:
nothing hangs, crashes, is unpickled, or written anywhere. `NUM_EXAMPLES` files for every reader
(40, always the same; or as many as the environment variable of this name says, by chance).
"""

import io
import json
import os
import shutil
import tomllib

import hypothesis
import numpy as np
import pandas as pd
import pytest
import tomli_w
import xarray as xr
from file_readers import READERS, ReaderProcess, make_files
from hypothesis import HealthCheck, Phase, settings, strategies as st

import ntkbayes as nb

NUM_EXAMPLES = int(os.environ.get("NUM_EXAMPLES", "40"))
DOCUMENTED = {"ValueError", "OSError", "ArgumentTypeError"}
TOKENS = (
    *(b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5000, b"-1", b"1e999", b"nan", b"null", b"[]"),
    *(b"\0", b"\xff\xfe", b"\xef\xbb\xbf", "ü\u202e😀".encode(), b'"', b"=", b"\n", b"a" * 70_000),
)
LEAVES = st.one_of(
    st.sampled_from(
        [None, True, "", "9" * 5000, "\0", "NaN", -1, 0, 10**30, 10**400, 2**63, 1e308, 5e-324]
    ),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


# Bytes


@st.composite
def damaged_bytes(draw, whole):
    """Change, cut off, insert, repeat or move parts of a file."""
    for _ in range(draw(st.integers(1, 3))):
        start, end = sorted(draw(st.tuples(*[st.integers(0, len(whole))] * 2)))
        part, there = whole[start:end], draw(st.integers(0, len(whole)))
        kind = draw(st.sampled_from(["flip", "cut", "remove", "insert", "repeat", "overwrite"]))
        if kind == "flip" and part:
            whole = whole[:start] + bytes([part[0] ^ 1 << there % 8]) + whole[start + 1 :]
        elif kind == "cut":
            whole = whole[:start]
        elif kind == "remove":
            whole = whole[:start] + whole[end:]
        elif kind == "insert":
            token = draw(st.sampled_from(TOKENS) | st.binary(max_size=30))
            whole = whole[:start] + token + whole[start:]
        elif kind == "repeat":
            whole = whole[:end] + part + whole[end:]
        else:
            whole = whole[:there] + part + whole[there + len(part) :]
    return whole


@st.composite
def repeated_lines(draw, whole):
    """Duplicated keys, in text."""
    lines = whole.splitlines(keepends=True)
    place, number = draw(st.tuples(*[st.integers(0, len(lines) - 1)] * 2))
    return b"".join([*lines[:place], lines[number], *lines[place:]])


# Content


@st.composite
def altered(draw, content):
    """A copy of nested lists and dictionaries, one entry of which is another, gone or new."""
    if not isinstance(content, dict | list) or not content or draw(st.integers(0, 4)) == 0:
        return draw(VALUES)
    content = content.copy()
    keys = list(content) if isinstance(content, dict) else list(range(len(content)))
    key, kind = draw(st.sampled_from(keys)), draw(st.integers(0, 5))
    if kind == 0:
        del content[key]
    elif kind == 1 and isinstance(content, dict):
        content[draw(st.text(max_size=5) | st.sampled_from(keys))] = draw(VALUES)
    else:
        content[key] = draw(altered(content[key]))
    return content


def altered_json(whole):
    return altered(json.loads(whole)).map(lambda content: json.dumps(content).encode())


def altered_toml(whole):
    content = tomllib.loads(whole.decode())
    return altered(content).filter(lambda c: isinstance(c, dict)).map(_toml)


def _toml(content):
    try:
        return tomli_w.dumps(content).encode("utf-8", "surrogatepass")
    except (TypeError, ValueError, AttributeError):  # what TOML has not, such as None
        return repr(content).encode("utf-8", "surrogatepass")


ARRAYS = st.one_of(
    LEAVES.map(lambda value: np.array([value])),  # of objects, too
    st.tuples(st.sampled_from("?bBiQefdFDSU"), st.lists(st.integers(0, 4), max_size=4)).map(
        lambda pair: np.zeros(pair[1], pair[0])
    ),
)


@st.composite
def altered_npz(draw, whole):
    with np.load(io.BytesIO(whole)) as file:
        arrays = dict(file)
    header = json.loads(arrays["header"].tobytes())
    if draw(st.booleans()):
        text = draw(altered_json(json.dumps(header).encode()))
        arrays["header"] = np.frombuffer(text, np.uint8)
    else:
        arrays[draw(st.sampled_from(sorted(arrays)))] = draw(ARRAYS)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


@st.composite
def altered_parquet(draw, whole):
    table = pd.read_parquet(io.BytesIO(whole))
    name, kind = draw(st.sampled_from(list(table.columns))), draw(st.integers(0, 3))
    if kind == 0:
        table = table.drop(columns=name)
    elif kind == 1:
        table = table.iloc[: draw(st.integers(0, len(table)))]
    elif kind == 2:
        table.attrs = draw(st.dictionaries(st.text(max_size=5), LEAVES, max_size=2))
    else:
        table[name] = draw(LEAVES.map(str) | st.floats() | st.booleans() | st.none())
    buffer = io.BytesIO()
    table.to_parquet(buffer)
    return buffer.getvalue()


@st.composite
def altered_csv(draw, whole):
    rows = [line.split(",") for line in whole.decode().splitlines()]
    for _ in range(draw(st.integers(1, 4))):
        row = draw(st.sampled_from(rows))
        row[draw(st.integers(0, len(row) - 1))] = draw(LEAVES.map(str))
    return "\n".join(",".join(row) for row in rows).encode("utf-8", "surrogatepass")


@st.composite
def altered_predictions(draw, tree, path):
    """Predictions without a variable, of another type or with another attribute, sealed."""
    tree = tree.copy(deep=True)
    kind = draw(st.integers(0, 2))
    if kind == 0:
        name = draw(st.sampled_from(sorted(tree.attrs)))
        value = draw(
            st.floats()
            | st.integers(-9, 9)
            | st.sampled_from(["", "[]", "null", '{"name": 3}', "[" * 100_000, "nan", "ü"])
        )
        tree.attrs[name] = value
    else:
        group = draw(st.sampled_from(sorted(tree.children)))
        content = tree[group].to_dataset()
        if kind == 1 and content.data_vars:
            content = content.drop_vars(draw(st.sampled_from(sorted(content.data_vars))))
        elif content.data_vars:
            name = draw(st.sampled_from(sorted(content.data_vars)))
            content[name] = (
                ("other",),
                draw(ARRAYS.filter(lambda a: a.dtype.char in "bBidU")).ravel(),
            )
        tree[group] = xr.DataTree(content)
    nb.save_predictions(tree, path)
    return path.read_bytes()


ALTERED = {
    ".json": altered_json,
    ".toml": altered_toml,
    ".npz": altered_npz,
    ".parquet": altered_parquet,
    ".csv": altered_csv,
}
TEXT = (".json", ".toml", ".csv")


def contents(path):
    """Files that are like the one at `path`, and some that are like none."""
    whole, kind = path.read_bytes(), path.suffix
    kinds = [damaged_bytes(whole), damaged_bytes(whole), st.binary(max_size=200)]
    if kind in TEXT:
        kinds += [repeated_lines(whole), st.text(max_size=200).map(str.encode)]
    if kind in ALTERED:
        kinds += [ALTERED[kind](whole)] * 3
    if kind == ".nc" and path.parent.name != "predictions":  # into a run, only it saves trees
        tree = nb.load_predictions(path)
        kinds += [altered_predictions(tree, path.with_name("altered.nc"))]
    return st.one_of(kinds)


# Claims


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    directory = tmp_path_factory.mktemp("files")
    make_files(directory)
    return directory


@pytest.fixture(scope="module")
def process():
    process = ReaderProcess()
    yield process
    process.end()


def prepared(reader, files, directory):
    """Copy what a reader is given; return the copy, and the file in it that is to be damaged."""
    given = directory / reader.given
    if (files / reader.given).is_dir():
        shutil.copytree(files / reader.given, given)
    else:
        shutil.copy(files / reader.given, given)
    return given, given / reader.damaged


def faults(outcome, given):
    """Say what is wrong with an outcome."""
    found = list(outcome.lapses)
    if outcome.kinds and not DOCUMENTED & set(outcome.kinds):
        found.append(f"raises {outcome.kinds[0]}")
    if outcome.kinds and given.name not in outcome.text.partition("\n")[0]:
        found.append("does not name the file")
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")  # of long files
@pytest.mark.parametrize("name", READERS)
def test_whatever_a_file_holds_a_value_or_an_error_that_names_it_comes_back(
    files, process, tmp_path, name
):
    reader = READERS[name]
    given, damaged = prepared(reader, files, tmp_path)
    assert process.read(name, given).lapses == ()  # it takes what is whole

    @settings(
        max_examples=NUM_EXAMPLES,
        derandomize="NUM_EXAMPLES" not in os.environ,
        database=None,
        deadline=None,
        phases=(Phase.generate,),  # files are read as they are found, not made smaller
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(contents(damaged))
    def reads(content):
        damaged.write_bytes(content)
        outcome = process.read(name, given)
        assert faults(outcome, given) == [], outcome.text

    reads()
