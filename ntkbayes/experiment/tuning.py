"""Hyperparameters of a comparison: chosen once on the training split, and kept in its directory.

The weight scale stays as configured: scaled together with the prior precision it leaves the data's
log marginal likelihood all but unchanged (0.1 to 0.3 nats on sine, moons and diabetes), and the
optimum would run along that ridge to a bound.
"""

import hashlib
import json
import math
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import pandas as pd

from ntkbayes._files import read_json
from ntkbayes._problem import infinite_width
from ntkbayes._types import Progress
from ntkbayes.experiment.config import ComparisonConfig
from ntkbayes.experiment.directory import fingerprint, write_text
from ntkbayes.hyperparameters import HyperparameterSelection, select_hyperparameters
from ntkbayes.hyperparameters.objectives import Model
from ntkbayes.likelihoods import Gaussian
from ntkbayes.methods import Problem

__all__ = ["TUNING_FILE", "read_selection", "tune", "tuned_problem", "tuning_remarks"]

TUNING_FILE = "hyperparameters.json"
MAX_POINTS = 500
"""Training points the choice is made with, the first, a stratified sample; its cost grows as n³."""
NUM_RESTARTS = 3


def tune(
    config: ComparisonConfig, problem: Problem, directory: Path, progress: Progress
) -> HyperparameterSelection:
    """Return what an earlier run with the same settings selected, or select and write it."""
    path, settings = directory / TUNING_FILE, fingerprint(config)
    kept = read_selection(config, problem, directory)
    if kept is not None:
        return kept
    names = ["prior_precision", "bias_scale"]
    if isinstance(problem.likelihood, Gaussian):
        names.insert(1, "noise_variance")
    with warnings.catch_warnings():
        # They stand in the remarks.
        warnings.simplefilter("ignore", UserWarning)
        selection = select_hyperparameters(
            problem.network,
            problem.likelihood,
            problem.data.x_train[:MAX_POINTS],
            problem.data.y_train[:MAX_POINTS],
            prior_precision=problem.prior_precision,
            parameters=names,
            num_restarts=NUM_RESTARTS,
            key=jax.random.key(config.seed),
            progress=progress,
        )
    content = _content(selection, settings)
    content["sha256"] = _digest(content)
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
    return selection


def tuned_problem(problem: Problem, selection: HyperparameterSelection) -> Problem:
    """Return the problem with the selected hyperparameters."""
    return replace(
        problem,
        network=selection.network,
        likelihood=selection.likelihood,
        prior_precision=selection.prior_precision,
    )


def tuning_remarks(selection: HyperparameterSelection, num_train: int) -> list[str]:
    """Say what was chosen, from how many points, and repeat the warnings."""
    points = f" ({MAX_POINTS} of {num_train} training points)" if num_train > MAX_POINTS else ""
    return [
        f"Hyperparameters{points} {selection.description}",
        *(f"WARNING: hyperparameters: {text}" for text in selection.warnings),
    ]


def _content(selection: HyperparameterSelection, settings: str) -> dict[str, Any]:
    return {
        "settings": settings,
        "objective": selection.objective,
        "kernel": selection.kernel,
        "value": selection.value,
        "values": selection.values,
        "at_bound": selection.at_bound,
        "bounds": selection.bounds,
        "restarts": _columns(selection.restarts),
        "trace": _columns(selection.trace),
    }


def _columns(frame: pd.DataFrame) -> dict[str, list]:
    """Name → entries, None for NaN, which JSON does not know."""
    return {
        str(name): [None if isinstance(v, float) and math.isnan(v) else v for v in values]
        for name, values in frame.to_dict("list").items()
    }


def read_selection(
    config: ComparisonConfig, problem: Problem, directory: Path
) -> HyperparameterSelection | None:
    """Return the selection in a complete file of the same settings, else None."""
    try:
        content = read_json(directory / TUNING_FILE)
        whole = content.pop("sha256") == _digest(content)
    except (ValueError, KeyError, TypeError, AttributeError):  # of what is no JSON object, too
        return None
    same = whole and content["settings"] == fingerprint(config)
    return _selection(content, problem) if same else None


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _selection(content: dict[str, Any], problem: Problem) -> HyperparameterSelection:
    network, kernel = infinite_width(problem.network), content["kernel"]
    model = Model(network, problem.likelihood, problem.prior_precision, kernel)
    changed = model.replace(content["values"])
    return HyperparameterSelection(
        changed.network,
        changed.likelihood,
        float(changed.prior_precision),
        content["objective"],
        kernel,
        content["value"],
        content["values"],
        {name: (low, high) for name, (low, high) in content["bounds"].items()},
        pd.DataFrame(content["trace"]),
        pd.DataFrame(content["restarts"]).rename_axis("restart"),
    )
