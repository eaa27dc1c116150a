"""What a run is of: settings from files and options, and runs that share a directory."""

from io import StringIO

import pytest
from command_line import IRIS, assert_refused, invoke, jax_has_started  # noqa: F401
from rich.console import Console

from ntkbayes.cli.progress import _Lines
from ntkbayes.experiment import load_comparison, preset, run_comparison, running


def test_methods_that_are_finished_stay_when_others_are_asked_for(tmp_path):
    small = {"num_draws": 20, "num_train": 12}
    run_comparison(preset("sine", methods=("laplace", "mode"), **small), tmp_path)
    both = run_comparison(preset("sine", methods=("ntk-ensemble",), **small), tmp_path)
    assert set(both.predictions) == {"Laplace", "Mode", "NTK ensemble"}
    assert set(both.metrics["method"]) == set(both.predictions)
    again = load_comparison(tmp_path)
    assert list(again.predictions) == list(both.predictions)


def test_a_run_that_failed_before_its_first_result_does_not_fix_the_settings(tmp_path, monkeypatch):
    def fail(*arguments):
        raise ValueError("it does not fit")

    compute = running._compute
    monkeypatch.setattr(running, "_compute", fail)
    result = invoke(*IRIS, "--out", tmp_path)  # after the lines of progress
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (2, "error: it does not fit")
    monkeypatch.setattr(running, "_compute", compute)
    result = invoke(*IRIS, "--seed", 1, "--out", tmp_path)
    assert result.exit_code == 0, result.output


def test_a_file_sets_what_has_no_option_and_options_go_first(tmp_path):
    file = tmp_path / "settings.toml"
    file.write_text('activation = "erf"\nnum_draws = 30\nmethods = ["mode", "laplace"]\n')
    out = tmp_path / "out"
    result = invoke(
        *("compare", "sine", "--config", file, "--num-draws", 20, "--num-train", 12, "--out", out)
    )
    assert result.exit_code == 0, result.output
    config = load_comparison(out).config
    assert (config.activation, config.num_draws, config.num_train) == ("erf", 20, 12)
    assert config.methods == ("mode", "laplace")
    # The file that every run writes is one of these.
    assert_refused(invoke("compare", "iris", "--config", out / "config.toml"), "another dataset")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("activatoin = 'erf'", "did you mean activation?"),
        ("depth = 2.5", "depth must be int, but is 2.5"),
        ("depth =", "not a readable TOML file"),
        ("methods = 5", "methods must be tuple[str, ...], but is 5"),
        ("methods = [1]", "methods must be tuple[str, ...], but is (1,)"),
        ("prior_precision = '1'", "prior_precision must be float, but is '1'"),
        ("tune = 'no'", "tune must be bool, but is 'no'"),
        ("num_train = true", "num_train must be int | None, but is True"),
        ("product_dtype = 'float16'", "unknown product_dtype 'float16'"),
    ],
)
def test_a_file_of_settings_that_does_not_fit_is_refused(tmp_path, text, words):
    file = tmp_path / "settings.toml"
    file.write_text(text)
    assert_refused(invoke("compare", "iris", "--config", file, "--out", tmp_path / "out"), words)
    assert not (tmp_path / "out").exists()


def test_a_further_method_that_fails_leaves_the_finished_run_as_it_was(tmp_path, monkeypatch):
    small = {"num_draws": 20, "num_train": 12}
    before = run_comparison(preset("sine", methods=("mode", "laplace"), **small), tmp_path)

    def fail(*arguments):
        raise ValueError("it does not fit")

    monkeypatch.setattr(running, "_compute", fail)
    with pytest.raises(ValueError, match="it does not fit"):
        run_comparison(preset("sine", methods=("ntk-ensemble",), **small), tmp_path)
    assert load_comparison(tmp_path).config == before.config


def test_progress_never_goes_back_when_a_tuned_run_is_resumed_or_extended(tmp_path):
    small = {"num_draws": 20, "num_train": 12, "tune": True}
    for methods in (("mode",), ("mode",), ("mode", "laplace")):
        seen = []
        run_comparison(
            preset("sine", methods=methods, **small),
            tmp_path,
            on_progress=lambda step, fraction, part, seen=seen: seen.append(fraction),
        )
        assert seen == sorted(seen)
        assert seen[-1] == 1.0


def test_progress_in_a_pipe_is_a_line_for_every_step_and_every_tenth():
    written = StringIO()
    show = _Lines(Console(file=written))
    for step, fraction in [("a", 0.0), ("a", 0.05), ("a", 0.12), ("b", 0.13), ("b", 0.3)]:
        show(step, fraction, 0.5)
    assert written.getvalue().split() == ["0%", "a", "12%", "a", "13%", "b", "30%", "b"]
