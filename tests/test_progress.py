"""Progress: what is said of the time left, and bars in notebooks only."""

import io
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from rich.console import Console
from rich.progress import Progress
from tqdm import tqdm

import ntkbayes as nb
from ntkbayes import _progress
from ntkbayes._progress import TimeLeft, bar_in_notebooks, notebook_bar
from ntkbayes.cli.progress import progress_shown
from ntkbayes.experiment import preset, run_comparison, running


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def said(*reports):
    """What is said at each (seconds passed, step, part of it that is done)."""
    clock, texts = Clock(), []
    left = TimeLeft(clock)
    for seconds, step, part in reports:
        clock.now += seconds
        texts.append(left(step, part))
    return texts


def test_the_time_a_method_compiles_is_no_part_of_its_rate():
    assert said((0, "HMC", 0.0), (600, "HMC", 0.01), (10, "HMC", 0.21)) == [
        *("compiling", "", "40 s left"),  # 0.2 in 10 s, 0.79 to go
    ]


def test_no_time_is_named_before_enough_seconds_and_enough_of_the_method():
    assert said((0, "a", 0.0), (9, "a", 0.1), (4, "a", 0.5), (2, "a", 0.7)) == [
        *("compiling", "", "", "3 s left"),
    ]
    assert said((0, "a", 0.0), (9, "a", 0.1), (100, "a", 0.12)) == ["compiling", "", ""]


def test_every_method_has_a_time_of_its_own():
    first = ((0, "Mode", 0.0), (1, "Mode", 0.5), (10, "Mode", 0.9))
    second = ((1, "HMC", 0.0), (30, "HMC", 0.1), (60, "HMC", 0.2), (60, "HMC", 0.3))
    assert said(*first, *second) == [
        *("compiling", "", "2 s left"),
        *("compiling", "", "8 min left", "7 min left"),
    ]


def test_what_is_done_needs_no_time():
    assert said((0, "metrics", 1.0), (9, "a", 0.0), (9, "a", 0.5), (9, "a", 1.0)) == [
        *("", "compiling", "", ""),
    ]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 s"), (89, "89 s"), (100, "2 min"), (7300, "2.0 h")]
)
def test_times_are_named_with_few_digits(seconds, text):
    assert said((0, "a", 0.0), (1, "a", 0.1), (seconds * 8, "a", 0.9))[-1] in (
        f"{text} left",
        "",
    )


@pytest.fixture
def kernel(monkeypatch):
    """What a Jupyter kernel looks like, and where its bars are written."""
    shell = type("ZMQInteractiveShell", (), {})
    derived = type("Shell", (shell,), {})  # as Colab has it
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=derived))
    monkeypatch.delenv("NTKBAYES_PROGRESS", raising=False)
    monkeypatch.setattr(_progress, "DELAY", 0.0)
    written = io.StringIO()
    monkeypatch.setattr(_progress, "_tqdm", lambda: lambda **kw: tqdm(file=written, **kw))
    return written


@bar_in_notebooks
def slow(*, progress=lambda fraction: None):
    """Compute something."""
    progress(0.0)
    time.sleep(0.12)
    inner()
    progress(1.0)


@bar_in_notebooks
def inner(*, progress=lambda fraction: None):
    """Compute a part of it."""
    progress(0.5)
    time.sleep(0.12)
    progress(0.7)


def test_in_a_notebook_one_bar_is_shown_and_disappears(kernel):
    slow()
    assert "slow" in kernel.getvalue()
    assert "100 %" in kernel.getvalue()
    assert "inner" not in kernel.getvalue()
    assert kernel.getvalue().split("\r")[-2].strip() == ""


def test_a_bar_stands_there_while_the_first_step_compiles(kernel):
    with notebook_bar("hmc"):
        time.sleep(0.3)
        assert "hmc" in kernel.getvalue()
        assert "compiling" in kernel.getvalue()


def test_ones_own_progress_replaces_the_bar_inside_too(kernel):
    seen = []
    slow(progress=seen.append)
    assert seen == [0.0, 1.0]
    assert kernel.getvalue() == ""


def test_a_short_call_shows_nothing(kernel, monkeypatch):
    monkeypatch.setattr(_progress, "DELAY", 60.0)
    slow()
    assert kernel.getvalue() == ""


def test_bars_can_be_switched_off(kernel, monkeypatch):
    monkeypatch.setenv("NTKBAYES_PROGRESS", "off")
    slow()
    assert kernel.getvalue() == ""


def test_a_terminal_and_a_script_show_nothing(kernel, monkeypatch):
    shell = type("TerminalInteractiveShell", (), {})
    for module in (SimpleNamespace(get_ipython=shell), SimpleNamespace(get_ipython=lambda: None)):
        monkeypatch.setitem(sys.modules, "IPython", module)
        slow()
    monkeypatch.delitem(sys.modules, "IPython")
    slow()
    assert kernel.getvalue() == ""


LONG = {
    nb: ("hmc", "deep_ensemble", "linearized_ensemble", "map_estimate", "gp_posterior"),
    nb.evaluation: ("predict", "severity_curve"),
    nb.hyperparameters: ("select_hyperparameters",),
    nb.lazy: ("width_sweep", "ensemble_sweep", "variance_profile"),
}
NAMES = [(module, name) for module, names in LONG.items() for name in names]


class ShownError(Exception):
    pass


def shown_for(title):
    raise ShownError(title)


@pytest.mark.parametrize(("module", "name"), NAMES, ids=[name for _, name in NAMES])
def test_every_long_call_has_a_bar(module, name, kernel, monkeypatch):
    monkeypatch.setattr(_progress, "notebook_bar", shown_for)
    with pytest.raises(ShownError, match=name.replace("_", " ")):
        getattr(module, name)()


def test_a_comparison_has_a_bar_that_names_its_methods(kernel, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "write_figures_and_report", lambda comparison, **kwargs: None)
    run_comparison(preset("iris", methods=("mode",), num_draws=4, num_train=20), tmp_path)
    assert "Mode" in kernel.getvalue()


def test_the_bar_on_a_terminal_names_the_time_left_of_the_method(monkeypatch):
    written = io.StringIO()
    terminal = Console(file=written, force_terminal=True, width=100)
    monkeypatch.setattr("ntkbayes.cli.progress.Console", lambda **_: terminal)
    monkeypatch.setattr(Progress, "start", lambda self: None)
    clock = Clock()
    with progress_shown(clock) as on_progress:
        for now, part in ((0, 0.0), (100, 0.1), (110, 0.5)):
            clock.now = now
            on_progress("HMC", 0.5 + part / 2, part)
            terminal.print(on_progress.bar)
    lines = [line for line in written.getvalue().splitlines() if "HMC" in line]
    assert "compiling" in lines[0]
    assert "left" not in lines[1]
    assert "12 s left" in lines[2]


def test_importing_ntkbayes_imports_no_bars():
    code = "import sys, ntkbayes; print({'tqdm', 'rich', 'IPython'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
