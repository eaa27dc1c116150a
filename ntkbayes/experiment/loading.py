"""Reading a finished comparison back from its directory; nothing is fitted or predicted."""

import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from ntkbayes._files import read_toml
from ntkbayes.evaluation import chain_diagnostics, load_predictions
from ntkbayes.evaluation.diagnostics import from_markov_chains
from ntkbayes.experiment.comparison import Comparison
from ntkbayes.experiment.config import ComparisonConfig
from ntkbayes.experiment.directory import fingerprint, predictions_path
from ntkbayes.experiment.environment import read_environment
from ntkbayes.experiment.running import problem_of
from ntkbayes.experiment.tuning import read_selection
from ntkbayes.hyperparameters import HyperparameterSelection
from ntkbayes.methods import METHODS, Problem

__all__ = ["load_comparison"]

_TEXT = ("dataset", "split", "method", "metric", "unit")
_NUMBERS = (
    *("value", "standard_error", "from_best", "from_best_error", "monte_carlo_floor"),
    *("calibration_floor", "num_units"),
)
"""Columns of a table of metrics."""


def load_comparison(directory: str | os.PathLike[str]) -> Comparison:
    """Read what `run_comparison` wrote; refuse what is no run, or not a complete one.

    Only what follows from the files at once is derived again: the data, from the settings, and the
    diagnostics of Markov chains, from the draws.

    Parameters
    ----------
    directory
        Where the run was written.

    Raises
    ------
    ValueError
        If the directory holds no run, if a file of it is missing or unreadable, or if its files
        were not made with the settings it names.
    """
    directory = Path(directory)
    config, problem = _settings(directory)
    _check_environment(directory)
    selection = read_selection(config, problem, directory) if config.tune else None
    if config.tune and selection is None:
        raise _incomplete(directory, "its hyperparameters")
    predictions = _predictions(config, selection, directory)
    metrics = _metrics(directory, set(predictions))
    diagnostics = {
        title: chain_diagnostics(tree)
        for title, tree in predictions.items()
        if from_markov_chains(tree)
    }
    return Comparison(config, problem.data, predictions, metrics, diagnostics, directory, selection)


def _settings(directory: Path) -> tuple[ComparisonConfig, Problem]:
    path = directory / "config.toml"
    if directory.is_file():
        raise ValueError(f"{directory} is a file; give the directory of the run.")
    if not directory.is_dir():
        raise ValueError(f"there is no directory {directory}.")
    if not path.is_file():
        raise ValueError(f"{directory} holds no run of `ntkbayes compare`: it has no config.toml.")
    try:
        content = read_toml(path)
        if "methods" not in content:
            raise ValueError("it names no methods; is it of another command?")
        config = ComparisonConfig(**content)
        return config, problem_of(config)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} does not hold the settings of a comparison: {error}") from error


def _check_environment(directory: Path) -> None:
    try:
        read_environment(directory)
    except ValueError as error:
        raise _incomplete(directory, "environment.json") from error


def _predictions(
    config: ComparisonConfig, selection: HyperparameterSelection | None, directory: Path
) -> dict[str, xr.DataTree]:
    settings = _without_dtype(fingerprint(config, None if selection is None else selection.values))
    trees = {}
    for name in METHODS:
        if name not in config.methods:
            continue
        path = predictions_path(directory, name)
        try:
            tree = load_predictions(path)
        except FileNotFoundError as error:
            raise _incomplete(directory, f"predictions/{name}.nc") from error
        if _without_dtype(tree.attrs.get("comparison")) != settings:
            raise ValueError(f"{path} was made with other settings than config.toml names.")
        trees[METHODS[name].title] = tree
    return trees


def _without_dtype(settings: Any) -> dict | None:
    """Return a fingerprint's settings, without the precision, which today may be another."""
    try:
        content = json.loads(settings)
    except (TypeError, ValueError, RecursionError):
        return None
    return {k: content[k] for k in content if k != "dtype"} if isinstance(content, dict) else None


def _metrics(directory: Path, titles: set[str]) -> pd.DataFrame:
    path = directory / "metrics.parquet"
    if not path.is_file():
        raise _incomplete(directory, path.name)
    try:
        metrics = pd.read_parquet(path)
        methods = set(metrics["method"])
        sound = all(isinstance(v, str) for name in _TEXT for v in metrics[name])
        sound &= all(pd.api.types.is_numeric_dtype(metrics[name]) for name in _NUMBERS)
    except Exception as error:  # Arrow and pandas raise errors of any kind
        raise ValueError(f"{path} is not a readable table of metrics.") from error
    if not sound:
        raise ValueError(f"{path} is no table of metrics: columns hold what they cannot.")
    if methods != titles:
        raise _incomplete(directory, f"{path.name} for {', '.join(sorted(titles ^ methods))}")
    return metrics


def _incomplete(directory: Path, what: str) -> ValueError:
    return ValueError(
        f"{directory} is not complete: {what} missing or unreadable; the `ntkbayes compare` that "
        "made it, with the same options and --out, finishes it."
    )
