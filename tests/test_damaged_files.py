"""Files that `test_fuzzing` has found to end in an error of no use, or in none at all."""

import json
import shutil
from functools import partial

import numpy as np
import pandas as pd
import pytest
from command_line import assert_refused, invoke, jax_has_started  # noqa: F401
from file_readers import (
    COLUMNS,
    IDENTITY,
    NUM_WARMUP,
    chains,
    continue_run,
    make_run,
    read_held,
)
from pyarrow import parquet

import ntkbayes as nb
from ntkbayes.experiment import load_comparison, preset
from ntkbayes.lazy.cells import Cells
from ntkbayes.posteriors.checkpoints import load, save

DEEP = "[" * 100_000


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("finished")
    make_run(directory)
    return directory


@pytest.fixture
def run(finished, tmp_path):
    directory = tmp_path / "moons-run"
    shutil.copytree(finished, directory)
    return directory


def changed(path, **entries):
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | entries), encoding="utf-8")


def test_the_whole_run_is_taken(run):
    load_comparison(run)
    continue_run(run)


def test_a_thousand_brackets_are_no_settings(tmp_path):
    path = tmp_path / "deep.toml"
    path.write_text(f"width = {DEEP}", encoding="utf-8")
    result = invoke("compare", "moons", "--config", path, "--out", tmp_path / "a")
    assert_refused(result, "deep.toml is not a readable TOML file")


@pytest.mark.parametrize("refuse", [partial(preset, "moons"), nb.dense_network])
def test_a_number_beyond_all_floating_numbers_is_refused_by_name(refuse):
    name = "bias_scale" if refuse is nb.dense_network else "prior_precision"
    with pytest.raises(ValueError, match=rf"{name} must be .* finite"):
        refuse(**{name: 10**400})


def test_settings_that_the_data_refuse_are_refused_with_their_file(run):
    text = (run / "config.toml").read_text(encoding="utf-8")
    (run / "config.toml").write_text(text.replace("seed = 0", "seed = -1"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"config\.toml does not hold the settings"):
        load_comparison(run)
    (run / "config.toml").write_text(text.replace("depth = 2", "depth = -2"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"config\.toml does not hold the settings"):
        load_comparison(run)


@pytest.mark.parametrize("content", [DEEP, "[]", "null", "{}", '{"packages": null}', "3"])
def test_an_environment_that_names_no_packages_is_refused(run, content):
    (run / "environment.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"moons-run is not complete: environment\.json"):
        load_comparison(run)


@pytest.mark.parametrize(
    "entries",
    [
        {"settings": "{}"},
        {"values": []},
        {"values": {"prior_precision": "a"}},
        {"bounds": {"prior_precision": [1.0]}},
        {"bounds": []},
        {"trace": {"value": [1.0]}},
        {"restarts": {}},
        {"restarts": 3},
        {"kernel": None},
        {"value": "a"},
    ],
)
def test_hyperparameters_that_are_none_are_chosen_again(run, entries):
    path = run / "hyperparameters.json"
    changed(path, **entries)
    continue_run(run)
    with pytest.raises(ValueError, match="moons-run is not complete: its hyperparameters"):
        load_comparison(run)


@pytest.mark.parametrize("content", [DEEP, "[]", '"text"'])
def test_a_file_of_something_else_holds_no_hyperparameters(run, content):
    (run / "hyperparameters.json").write_text(content, encoding="utf-8")
    continue_run(run)


@pytest.mark.parametrize("comparison", [DEEP, "[]", "null", "", 3])
def test_predictions_that_name_no_settings_are_not_those_of_the_run(run, comparison):
    path = run / "predictions" / "mode.nc"
    tree = nb.load_predictions(path)
    tree.attrs["comparison"] = comparison
    nb.save_predictions(tree, path)
    continue_run(run)
    with pytest.raises(ValueError, match=r"mode\.nc was made with other settings"):
        load_comparison(run)


@pytest.mark.parametrize(
    ("column", "value"), [("method", None), ("metric", 3), ("value", "a"), ("unit", None)]
)
def test_a_table_whose_columns_hold_what_they_cannot_is_refused(run, column, value):
    path = run / "metrics.parquet"
    table = pd.read_parquet(path)
    table.assign(**{column: pd.Series([value] * len(table), dtype=object)}).to_parquet(path)
    with pytest.raises(ValueError, match=r"metrics\.parquet is no table of metrics: columns hold"):
        load_comparison(run)


@pytest.mark.parametrize("content", [DEEP, "[]", "{}", '"ab"', "null"])
def test_a_lock_is_of_another_process_where_the_owner_is_unknown(tmp_path, content):
    (tmp_path / ".running.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match="is in use by another process"):
        read_held(tmp_path)


@pytest.mark.parametrize("attributes", [[], [1], 3, "a", None, {"settings": [0]}])
def test_a_table_of_other_attributes_is_made_again(tmp_path, attributes):
    cells = Cells(tmp_path, COLUMNS)
    table = pd.DataFrame([(8, 0.5)], columns=COLUMNS)
    cells.write("cells", {"seed": 0}, table)
    assert cells.read("cells", {"seed": 0}) is not None
    path = tmp_path / "cells.parquet"
    schema = parquet.read_table(path).schema
    content = json.loads(schema.metadata[b"pandas"]) | {"attributes": attributes}
    metadata = {b"pandas": json.dumps(content).encode()}
    parquet.write_table(parquet.read_table(path).replace_schema_metadata(metadata), path)
    assert cells.read("cells", {"seed": 0}) is None


@pytest.mark.parametrize(
    "damage",
    [
        {"num_steps": 5},  # draws that are not there
        {"num_steps": 10**9},
        {"num_steps": True},
        {"visited_position": np.zeros((1, 1, 1))},  # which NumPy would repeat
        {"visited_position": np.zeros((2, 1, 3), complex)},
        {"visited_position": np.full((2, 1, 3), "a")},
        {"header": np.frombuffer(DEEP.encode(), np.uint8)},
        {"header": np.zeros(3)},
    ],
    ids=str,
)
def test_a_checkpoint_that_does_not_hold_what_it_says_is_refused(tmp_path, damage):
    path = tmp_path / "run.npz"
    save(path, IDENTITY, chains(num_steps=3), num_warmup=NUM_WARMUP)
    assert load(path, IDENTITY, chains(num_steps=0), num_warmup=NUM_WARMUP).num_steps == 3
    with np.load(path) as file:
        arrays = dict(file)
    if "num_steps" in damage:
        header = json.loads(arrays["header"].tobytes()) | damage
        damage = {"header": np.frombuffer(json.dumps(header).encode(), np.uint8)}
    np.savez(path, **(arrays | damage))
    with pytest.raises(ValueError, match=r"run\.npz is damaged or no checkpoint"):
        load(path, IDENTITY, chains(num_steps=0), num_warmup=NUM_WARMUP)
