"""The command line from end to end: bad input, a small run, resuming it, refusing to mix runs."""

import dataclasses
import json
import re
import tomllib

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from command_line import IRIS, QUICK, assert_refused, invoke, jax_has_started  # noqa: F401
from metric_tables import long_table

from ntkbayes import cli
from ntkbayes.cli import tables
from ntkbayes.datasets import DATASETS, load_dataset
from ntkbayes.ensembles import ntk_ensemble
from ntkbayes.evaluation import load_predictions
from ntkbayes.experiment import (
    ComparisonConfig,
    directory,
    preset,
    run_comparison,
    running,
    tuning,
)
from ntkbayes.likelihoods import Gaussian
from ntkbayes.methods import METHODS
from ntkbayes.networks import dense_network


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of three quick methods on iris."""
    out = tmp_path_factory.mktemp("runs") / "iris"
    comparison = run_comparison(preset("iris", methods=QUICK, num_draws=50), out)
    return out, comparison


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["compare", "digit"], ["dataset", "digits"]),
        (["compare", "iris", "--methods", "laplas"], ["method", "laplace"]),
        (["compare", "iris", "--methods", "mode,hcm"], ["method", "hmc"]),
        (["compare", "iris", "--methods", ","], ["no method"]),
        (["compare", "iris", "--prior-precision", "0"], ["prior_precision", "0"]),
        (["compare", "iris", "--prior-precision", "-1"], ["prior_precision", "-1"]),
        (["compare", "iris", "--prior-precision", "nan"], ["prior_precision", "nan"]),
        (["compare", "iris", "--num-draws", "0"], ["num_draws", "at least 1"]),
        (["compare", "iris", "--num-train", "1"], ["num_train", "at least 2"]),
        (["compare", "iris", "--num-train", "9999"], ["num_train", "at most 90"]),
        (["compare", "iris", "--seed", "-1"], ["seed", "at least 0"]),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, words, tmp_path):
    out = tmp_path / "out"
    assert_refused(invoke(*arguments, "--out", out), *words)
    assert not out.exists()


def test_an_output_directory_that_is_a_file_is_refused(tmp_path):
    path = tmp_path / "results"
    path.write_text("mine")
    assert_refused(invoke(*IRIS, "--out", path), "is a file")
    assert path.read_text() == "mine"


@pytest.mark.parametrize("inside", ["a file", "a system folder"])
def test_an_output_directory_that_is_not_writable_is_refused_before_computing(
    inside, tmp_path, monkeypatch
):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    if inside == "a file":
        (tmp_path / "file").write_text("mine")
    else:
        monkeypatch.setattr(directory.tempfile, "TemporaryFile", refuse)
    monkeypatch.setattr(running, "_compute", lambda *a: pytest.fail("computed"))
    assert_refused(invoke(*IRIS, "--out", tmp_path / "file" / "results"), "not writable")


def test_the_floors_of_distances_stand_below_the_table_with_its_decimals(finished, capsys):
    distances = {"Laplace": (0.0105, 0.0004, 0.0018), "HMC": (np.nan, np.nan, np.nan)}
    metrics = long_table(total_variation=distances)
    shown = dataclasses.replace(finished[1], metrics=metrics)
    tables.show_comparison(shown)
    text = " ".join(capsys.readouterr().out.split())
    assert "0.0105 ±0.0004" in text
    assert text.count("would show): Laplace 0.0018.") == 1
    assert text.count("± is one standard error over the test points") == 1


def test_a_run_writes_everything_and_shows_every_method(tmp_path):
    out = tmp_path / "new" / "iris"
    result = invoke(*IRIS, "--out", out)
    assert result.exit_code == 0, result.output
    text = " ".join(result.stdout.split())
    for expected in ("Laplace", "Mode", "NLL", "standard error", "nats", "report.html"):
        assert expected in text
    assert max(len(line) for line in result.stdout.splitlines() if str(out) not in line) <= 80
    config = tomllib.loads((out / "config.toml").read_text())
    assert ComparisonConfig(**config | {"methods": tuple(config["methods"])}) == preset(
        "iris", methods=QUICK, num_draws=50
    )
    assert json.loads((out / "environment.json").read_text())["dtype"] == "float64"
    assert (out / "report.html").read_text().count("data:image/png;base64,") == 7
    names = {path.stem for path in (out / "figures").glob("*.png")}
    assert names == {
        *("reliability", "confidence", "risk_coverage", "convergence", "metrics"),
        *("distances", "energy_distances"),
    }
    tests = pd.read_csv(out / "calibration_tests.csv")
    assert set(tests["method"]) == {METHODS[name].title for name in QUICK}
    assert not (out / "joint_distances.csv").exists()  # there is no reference
    assert not list(out.rglob("*.tmp"))
    metrics = pd.read_parquet(out / "metrics.parquet")
    assert set(metrics["method"]) == {METHODS[name].title for name in QUICK}
    accuracy = metrics[metrics["metric"] == "accuracy"].set_index("method")["value"]
    assert accuracy["Mode"] > 0.8


def test_the_table_of_a_run_is_that_of_its_files(finished):
    out, comparison = finished
    saved = pd.read_parquet(out / "metrics.parquet")
    pd.testing.assert_frame_equal(saved, comparison.metrics, check_dtype=False)


@pytest.mark.parametrize(
    ("converged", "remark"),
    [
        ([True, True], "Deep ensemble: 2 of 2 networks trained to the end, largest residual"),
        ([True, False], "WARNING: Deep ensemble: 1 of 2 networks trained to the end, largest"),
    ],
)
def test_the_end_of_training_is_reported_below_the_table(finished, converged, remark):
    stats = {"converged": converged, "residual": [0.01, 0.2]}
    dims = ("chain", "draw")
    stats = xr.Dataset({name: (dims, [values]) for name, values in stats.items()})
    tree = xr.DataTree.from_dict({"sample_stats": stats})
    comparison = dataclasses.replace(finished[1], predictions={"Deep ensemble": tree})
    found = [text for text in comparison.remarks if "Deep ensemble: " in text]
    assert len(found) == 1
    assert found[0].startswith(remark)
    assert found[0].endswith("residual gradient 0.2.")


def test_resuming_a_complete_run_computes_nothing(finished, monkeypatch):
    out, before = finished
    times = {path: path.stat().st_mtime_ns for path in (out / "predictions").iterdir()}
    monkeypatch.setattr(running, "_compute", lambda *a: pytest.fail("computed"))
    result = invoke(*IRIS, "--out", out)
    assert result.exit_code == 0, result.output
    assert {path: path.stat().st_mtime_ns for path in (out / "predictions").iterdir()} == times
    pd.testing.assert_frame_equal(
        pd.read_parquet(out / "metrics.parquet"), before.metrics, check_dtype=False
    )


def test_a_truncated_file_is_redone_and_gives_the_same_numbers(finished):
    out, before = finished
    broken = out / "predictions" / "laplace.nc"
    others = [out / "predictions" / f"{name}.nc" for name in QUICK if name != "laplace"]
    times = [path.stat().st_mtime_ns for path in others]
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    with pytest.raises(ValueError, match="half written"):
        load_predictions(broken)
    result = invoke(*IRIS, "--out", out)
    assert result.exit_code == 0, result.output
    assert [path.stat().st_mtime_ns for path in others] == times
    again = load_predictions(broken)["posterior/latent"]
    assert again.equals(before.predictions["Laplace"]["posterior/latent"])


@pytest.mark.parametrize("change", [("--seed", 1), ("--prior-precision", 2), ("--num-draws", 60)])
def test_other_settings_in_the_same_directory_are_refused(finished, change):
    out, _ = finished
    before = (out / "config.toml").read_text()
    name = change[0].removeprefix("--").replace("-", "_")
    assert_refused(invoke(*IRIS, *change, "--out", out), "other settings", name)
    assert (out / "config.toml").read_text() == before


def test_predictions_of_other_settings_are_not_taken_for_ones_own(finished, monkeypatch):
    out, _ = finished
    config = preset("iris", methods=QUICK, num_draws=50, seed=1)
    fingerprint = directory.fingerprint(config)
    assert directory.read_predictions(out / "predictions" / "mode.nc", fingerprint) is None


def test_an_interrupt_keeps_the_finished_methods_and_says_how_to_go_on(tmp_path, monkeypatch):
    compute = running._compute

    def interrupted(name, *arguments):
        if name == "laplace":
            raise KeyboardInterrupt
        return compute(name, *arguments)

    monkeypatch.setattr(running, "_compute", interrupted)
    result = invoke(*IRIS, "--out", tmp_path)
    assert result.exit_code == 130
    assert "finished: mode." in result.stderr
    assert "same command continues" in result.stderr
    monkeypatch.setattr(running, "_compute", compute)
    kept = (tmp_path / "predictions" / "mode.nc").stat().st_mtime_ns
    assert invoke(*IRIS, "--out", tmp_path).exit_code == 0
    assert (tmp_path / "predictions" / "mode.nc").stat().st_mtime_ns == kept


def test_a_methods_numbers_do_not_depend_on_the_others(finished, tmp_path):
    _, before = finished
    alone = run_comparison(preset("iris", methods=("laplace",), num_draws=50), tmp_path)
    latent = [c.predictions["Laplace"]["posterior/latent"] for c in (before, alone)]
    assert latent[0].equals(latent[1])


def test_progress_never_goes_back_and_ends_at_one(tmp_path):
    fractions = []
    config = preset("moons", methods=("mode", "laplace"), num_draws=20, num_train=20)
    run_comparison(
        config, tmp_path, on_progress=lambda step, fraction, part: fractions.append(fraction)
    )
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert (tmp_path / "figures" / "maps.png").exists()


def test_a_regression_run_draws_bands_and_coverage(tmp_path):
    methods = "laplace,ntk-ensemble"
    result = invoke(
        *("compare", "sine", "--methods", methods, "--num-draws", 50, "--out", tmp_path)
    )
    assert result.exit_code == 0, result.output
    assert "standardised target units" in " ".join(result.stdout.split())
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == {
        *("bands", "coverage", "pit", "convergence", "metrics"),
        *("distances", "energy_distances"),
    }


SINE = ["compare", "sine", "--methods", "mode", "--num-draws", 20, "--num-train", 12, "--tune"]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A finished run with tuned hyperparameters; its directory and what it printed."""
    out = tmp_path_factory.mktemp("runs") / "sine"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "_start_jax", lambda: None)
        result = invoke(*SINE, "--out", out)
    assert result.exit_code == 0, result.output
    return out, result


def contents(out):
    return json.loads((out / "hyperparameters.json").read_text())


def test_a_tuned_run_uses_shows_and_keeps_what_it_chose(tuned):
    out, result = tuned
    content, tree = contents(out), load_predictions(out / "predictions" / "mode.nc")
    values = content["values"]
    assert list(values) == ["prior_precision", "noise_variance", "bias_scale"]
    assert content["value"] == max(v for v in content["trace"]["value"] if v is not None)
    text = " ".join(result.stdout.split())
    assert "Hyperparameters chosen by log marginal likelihood" in text
    assert f"prior_precision {values['prior_precision']:.4g}" in text
    assert "choosing hyperparameters" in result.stderr
    assert json.loads(tree.attrs["comparison"])["selected"] == values
    report = (out / "report.html").read_text()
    assert "How the hyperparameters were chosen" in report
    assert (out / "figures" / "hyperparameters.png").exists()


def test_every_method_gets_the_tuned_model(tuned):
    """The mode as saved is the one fitted by hand with the values of the file."""
    out, _ = tuned
    values = contents(out)["values"]
    data = load_dataset("sine", seed=0, num_train=12)
    mode = ntk_ensemble(
        dense_network(bias_scale=values["bias_scale"]),
        Gaussian(values["noise_variance"]),
        data.x_train,
        data.y_train,
        prior_precision=values["prior_precision"],
        initial="zero",
    )
    saved = load_predictions(out / "predictions" / "mode.nc")["posterior/latent"]
    np.testing.assert_allclose(saved[0, 0, :, 0], mode.mean(data.x_test)[:, 0], rtol=1e-9)


def test_a_tuned_run_that_resumes_does_not_choose_again(tuned, monkeypatch):
    out, before = tuned
    monkeypatch.setattr(tuning, "select_hyperparameters", lambda *a, **k: pytest.fail("chosen"))
    monkeypatch.setattr(running, "_compute", lambda *a: pytest.fail("computed"))
    result = invoke(*SINE, "--out", out)
    assert result.exit_code == 0, result.output
    assert result.stdout == before.stdout


def test_a_truncated_choice_is_redone_with_the_same_numbers(tuned, monkeypatch):
    out, before = tuned
    path = out / "hyperparameters.json"
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    monkeypatch.setattr(running, "_compute", lambda *a: pytest.fail("computed"))
    result = invoke(*SINE, "--out", out)
    assert result.exit_code == 0, result.output
    assert path.read_text() == text
    assert result.stdout == before.stdout


def test_predictions_with_other_hyperparameters_are_not_taken_for_ones_own(tuned):
    out, _ = tuned
    config = preset("sine", methods=("mode",), num_draws=20, num_train=12, tune=True)
    values, path = contents(out)["values"], out / "predictions" / "mode.nc"
    read = directory.read_predictions
    assert read(path, directory.fingerprint(config, values)) is not None
    others = values | {"bias_scale": 2 * values["bias_scale"]}
    for selected in (others, None):
        assert read(path, directory.fingerprint(config, selected)) is None


def test_a_tuned_run_is_not_mixed_with_an_untuned_one(tuned):
    assert_refused(invoke(*SINE[:-1], "--out", tuned[0]), "other settings", "tune")


def test_a_choice_on_a_bound_is_a_warning_below_the_table(tuned, finished):
    out, _ = tuned
    config = preset("sine", methods=("mode",), num_draws=20, num_train=12, tune=True)
    problem = running.problem_of(config)
    chosen = tuning.tune(config, problem, out, lambda done: None)
    low, high = chosen.bounds["bias_scale"]
    edge = dataclasses.replace(chosen, values=chosen.values | {"bias_scale": high})
    comparison = dataclasses.replace(finished[1], selection=edge)
    warnings = [text for text in comparison.remarks if text.startswith("WARNING")]
    assert len(warnings) == 1
    assert f"bias_scale = {high:.4g}, its upper bound" in warnings[0]
    assert low < chosen.values["bias_scale"] < high


LISTS = {"datasets": DATASETS, "methods": METHODS}


@pytest.mark.parametrize("command", LISTS)
def test_lists_are_one_entry_a_line_in_a_pipe(command):
    lines = [line.split("\t") for line in invoke(command).stdout.splitlines()]
    assert [name for name, _, _ in lines] == list(LISTS[command])
    for name, _, text in lines:
        assert LISTS[command][name].description in text


@pytest.mark.parametrize("width", [30, 59, 60, 100])
@pytest.mark.parametrize("command", LISTS)
def test_lists_fit_the_terminal_and_show_every_name_whole(command, width, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # what Rich takes for a terminal
    monkeypatch.setenv("COLUMNS", str(width))
    shown = re.sub("\x1b\\[[0-9;]*m", "", invoke(command).stdout)
    assert max(map(len, shown.splitlines())) <= width
    assert set(LISTS[command]) <= {line.split()[0] for line in shown.splitlines()}


@pytest.mark.parametrize("command", ["", "compare", "report", "lazy", "datasets", "methods"])
def test_help_ends_with_examples_that_the_command_line_takes(command):
    shown = invoke(*command.split(), "--help").stdout
    examples = shown.split("Examples:\n")[1].splitlines()
    assert examples
    for example in examples:
        program, *words = example.split(" | ")[0].split()
        assert program == "ntkbayes"
        listed = invoke(words[0], "--help").stdout
        assert not [word for word in words if word.startswith("--") and word not in listed]


def test_version_is_shown():
    assert invoke("--version").stdout == "ntkbayes 0.1.0\n"


def test_what_solvers_may_be_off_by_has_a_table(finished):
    _, comparison = finished
    bounds = comparison.predictions["Laplace"]["sample_stats/error_bound"]
    table = pd.read_csv(comparison.out / "solver_errors.csv").set_index("method")
    assert table.loc["Laplace", "largest"] == pytest.approx(float(bounds.max()))
    assert "Accuracy of the solvers" in (comparison.out / "report.html").read_text("utf-8")
