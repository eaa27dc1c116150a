"""The examples in the docstrings of all public functions and classes are run, and print what they
say; those of the packages' own docstrings are the set-up that the others go on from."""

import doctest
import functools
import inspect

import pytest

import ntkbayes as nb
from ntkbayes.evaluation import metrics

PACKAGES = {"ntkbayes": nb, "ntkbayes.evaluation": nb.evaluation, "ntkbayes.lazy": nb.lazy}

WITHOUT_EXAMPLE = {
    "ChainDiagnostics": "a record of results, in the example of chain_diagnostics",
    "LeaveOneOut": "a record of results, in the example of leave_one_out",
    "WidthSweep": "a record of results, in the example of width_sweep",
}
SLOW = {
    "ensemble_sweep": "trains forty networks",
    "hmc": "runs Markov chains",
    "plot_ensembles": "trains forty networks",
    "plot_variance_profile": "runs Markov chains",
    "variance_profile": "runs Markov chains",
}


def is_function_or_class(public):
    return inspect.isclass(public) or inspect.isroutine(public) or hasattr(public, "__wrapped__")


PUBLIC = {
    name: public
    for package in PACKAGES.values()
    for name in package.__all__
    if is_function_or_class(public := getattr(package, name))
}


def home(public):
    """The package in whose docstring the example's set-up is."""
    return max((name for name in PACKAGES if public.__module__.startswith(name)), key=len)


def find_examples(public, name):
    return [test for test in doctest.DocTestFinder().find(public, name) if test.examples]


def run(test):
    """Run a test in its own namespace, which keeps what it defines; fail with the report."""
    report = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    failed, _ = runner.run(test, out=report.append, clear_globs=False)
    assert not failed, "".join(report)


@functools.cache
def set_up(package):
    """Names that the set-up defines: that of the whole, and of the part if it is one."""
    names = {} if package == "ntkbayes" else set_up("ntkbayes")
    text = inspect.getdoc(PACKAGES[package])
    test = doctest.DocTestParser().get_doctest(text, names, package, package, 0)
    run(test)
    return test.globs


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name
        for name in PUBLIC
        if name not in WITHOUT_EXAMPLE
    ],
)
def test_the_example_prints_what_it_says(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for test in find_examples(PUBLIC[name], name):
        test.globs = dict(set_up(home(PUBLIC[name])))
        run(test)


def test_everything_public_has_an_example():
    there = {name for name, public in PUBLIC.items() if find_examples(public, name)}
    assert there == PUBLIC.keys() - WITHOUT_EXAMPLE.keys()


def test_everything_public_has_a_docstring():
    assert not [name for name, public in PUBLIC.items() if not inspect.getdoc(public)]


def test_what_is_public_but_neither_function_nor_class_is_a_module_or_a_table():
    others = {
        name: getattr(package, name)
        for package in PACKAGES.values()
        for name in package.__all__
        if name not in PUBLIC
    }
    assert all(inspect.ismodule(other) or isinstance(other, dict) for other in others.values())


@pytest.mark.parametrize("name", metrics.__all__)
def test_the_example_of_a_metric_prints_what_it_says(name):
    for test in find_examples(getattr(metrics, name), name):
        test.globs = dict(set_up("ntkbayes"))
        run(test)
