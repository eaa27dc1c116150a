"""What benchmarks measure, and where they write."""

import os
import runpy
import sys
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(p.stem for p in BENCHMARKS.glob("*.py") if '"__main__"' in p.read_text("utf-8"))


@pytest.fixture(autouse=True)
def modules(monkeypatch):
    """Let scripts import one another, in an environment that they may change."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    with mock.patch.dict(os.environ):
        yield


def test_memory_is_what_a_call_holds_at_its_peak_also_when_it_was_called_before():
    import common

    many = jax.jit(lambda start: [jnp.full(200_000, start + i) for i in range(50)])  # 80 MB
    found = [common.measured(lambda: many(1.0), warm_up=warm_up) for warm_up in (False, True, True)]
    if found[0].gigabytes is None:
        pytest.skip("this system does not say how much memory a process holds")
    for each in found[1:]:
        assert each.gigabytes == pytest.approx(0.08, rel=0.2)
        assert each.seconds > 0


@pytest.mark.parametrize("script", [name for name in SCRIPTS if name != "tables"])
def test_a_file_where_results_should_go_is_refused_before_any_work(
    script, tmp_path, monkeypatch, capsys
):
    if script == "finite_laplace":
        pytest.importorskip("laplace")
    path = tmp_path / "results"
    path.write_text("mine", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", [f"{script}.py", "--out", str(path)])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(str(BENCHMARKS / f"{script}.py"), run_name="__main__")
    assert capsys.readouterr().err == f"error: --out {path} is a file; give a directory.\n"
    assert path.read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("new.json", "is the name of a file; give a directory"),
        ("file/below", "is not a directory one can write to (Not a directory)"),
    ],
)
def test_what_cannot_be_a_directory_of_results_is_refused(tmp_path, capsys, out, message):
    import common

    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="2"):
        common.out_directory(str(tmp_path / out))
    assert capsys.readouterr().err == f"error: --out {tmp_path / out} {message}.\n"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_results_go_into_a_directory_that_is_made(tmp_path):
    import common

    directory = common.out_directory(str(tmp_path / "a" / "b"))
    common.write_results(directory, "speed", {"seconds": 1.0})
    assert (tmp_path / "a" / "b" / "speed.json").read_text() == '{\n  "seconds": 1.0\n}\n'
