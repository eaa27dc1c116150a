"""The package as a whole: what its names are, and what importing it costs."""

import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ntkbayes as nb

HEAVY = {"jax", "numpy", "scipy", "pandas", "sklearn", "matplotlib", "arviz", "numpyro", "gpjax"}
RUN_AND_LIST_MODULES = """
import json, sys
from ntkbayes import cli
try:
    cli.app({arguments})
except SystemExit as stop:
    assert not stop.code, stop.code
print(json.dumps(sorted(sys.modules)))
"""


@pytest.mark.parametrize(
    ("argument", "shown"),
    [
        ("--help", "compare"),
        ("--version", "ntkbayes"),
        ("datasets", "digits"),
        ("methods", "laplace"),
    ],
)
def test_help_and_lists_do_not_wait_for_the_numerical_libraries(argument, shown):
    code = RUN_AND_LIST_MODULES.format(arguments=[argument])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    text, modules = done.stdout.rstrip().rsplit("\n", 1)
    assert shown in text
    assert not HEAVY & set(json.loads(modules))


CORE = {"jax", "numpy", "equinox", "jaxtyping", "beartype", "lazy_loader"}
SOLVERS = {"optax", "diffrax", "lineax", "optimistix"}
DATA = {"scipy", "pandas", "sklearn"}
ALL = CORE | SOLVERS | DATA | {"matplotlib", "arviz", "xarray", "jinja2", "rich", "typer"} | {
    *("numpyro.infer", "gpjax", "netCDF4", "neural_tangents", "flax", "blackjax", "zarr")
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("__version__", {"lazy_loader"}),
        ("make_dataset", CORE),
        ("dense_network", CORE),
        ("stax_network", CORE),
        ("Categorical", CORE),
        ("load_dataset", CORE | DATA | {"rich"}),
        ("ntk_ensemble", CORE | SOLVERS),
        ("laplace", CORE | SOLVERS | {"scipy"}),
        ("hmc", CORE | SOLVERS | {"scipy"}),
        ("compare", ALL - {"numpyro.infer", "gpjax", "netCDF4", "typer"}),
    ],
)
def test_libraries_are_imported_when_they_are_used(name, allowed):
    code = f"import ntkbayes, json, sys; ntkbayes.{name}; print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(json.loads(done.stdout)) & ALL <= allowed


@pytest.mark.parametrize("package", [nb, nb.datasets])
def test_every_public_name_is_listed_and_is_that_of_its_home(package):
    assert set(package.__all__) <= set(dir(package))
    for name in package.__all__:
        public = getattr(package, name)
        if hasattr(public, "__module__"):
            assert getattr(sys.modules[public.__module__], name) is public


def test_names_imported_from_the_package_are_the_functions_of_its_parts():
    from ntkbayes.datasets.loading import load_dataset
    from ntkbayes.posteriors.laplace import laplace

    assert nb.load_dataset is load_dataset is nb.datasets.load_dataset
    assert nb.laplace is laplace is nb.posteriors.laplace


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="ntk_ensembles"):
        nb.ntk_ensembles  # noqa: B018


def test_the_description_of_the_package_links_to_nothing_that_only_the_repository_has():
    text = importlib.metadata.metadata("ntkbayes")["Description"]
    assert re.findall(r"\]\((?!https?:)[^)]*\)", text) == []
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    links = r"\]\((https?:[^)]*)\)"
    assert re.findall(links, text) == re.findall(links, readme) != []
    code = r"```.*?```"
    assert re.findall(code, text, re.DOTALL) == re.findall(code, readme, re.DOTALL) != []
