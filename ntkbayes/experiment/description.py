"""A comparison in words: what was run, with which versions, and how to run it again."""

from pathlib import Path
from typing import Any

import pandas as pd

from ntkbayes.evaluation import pooled
from ntkbayes.experiment.comparison import Comparison
from ntkbayes.experiment.config import ComparisonConfig, preset
from ntkbayes.experiment.environment import read_environment
from ntkbayes.methods import METHODS

__all__ = ["facts", "methods_table", "reproduce", "versions"]

_OPTIONS = ("seed", "prior_precision", "num_draws", "num_train")
"""Settings that ``ntkbayes compare`` takes, besides methods and tune."""


def facts(comparison: Comparison) -> dict[str, str]:
    """Name → text: the dataset, its sizes and the model all methods share."""
    data, config = comparison.data, comparison.config
    classes = data.task == "classification"
    target = f"{data.num_classes} classes" if classes else ", ".join(data.target_names)
    noise = {} if config.noise_variance is None else {"noise variance": config.noise_variance}
    if config.noise_variance is None and data.noise_scale is not None:
        noise = {"noise variance": f"{data.noise_scale**2:.4g} (known)"}
    tuned = ", tuned from there" if config.tune else ""
    plural = "" if data.num_features == 1 else "s"
    return {
        "dataset": f"{data.name} ({data.task}, {target})",
        "points": f"{len(data.x_train)} training, {len(data.x_val)} validation, "
        f"{len(data.x_test)} test; {data.num_features} input feature{plural}",
        "network": f"dense, {config.depth} hidden layers, {config.activation}, "
        f"weight scale {config.weight_scale:.4g}, bias scale {config.bias_scale:.4g}, "
        f"readout scale {config.readout_scale:.4g}; "
        f"width {config.width} where it is finite",
        "prior precision": f"{config.prior_precision:.4g}{tuned}",
        **{name: str(value) for name, value in noise.items()},
        "seed": str(config.seed),
    }


def methods_table(comparison: Comparison) -> pd.DataFrame:
    """One row per method: what it is, its draws, chains and seconds."""
    titles = {method.title: method.description for method in METHODS.values()}
    rows = {
        title: {
            "what it is": titles[title],
            "draws": str(len(pooled(tree))),
            "chains": str(tree.attrs["num_chains"]),
            "seconds": f"{tree.attrs['seconds']:.1f}",
        }
        for title, tree in comparison.predictions.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def versions(directory: Path) -> dict[str, str]:
    """Name → text from a run's ``environment.json``."""
    content = read_environment(directory)
    content.pop("predictions", None)  # the notes name those of other versions
    content = content.pop("packages") | content
    return {name: _text(value) for name, value in content.items() if value is not None}


def reproduce(comparison: Comparison) -> dict[str, str]:
    """Say how to run it again: on the command line, where that has the options, and in Python."""
    config = comparison.config
    ways = {}
    command = _command(config)
    if command is not None:
        ways["On the command line:"] = command
    ways["In Python:"] = _script(config)
    ways["Figures and this report again, from the files of the run:"] = "ntkbayes report DIRECTORY"
    return ways


def _command(config: ComparisonConfig) -> str | None:
    """Return the command line of a comparison; None if a setting has no option."""
    changes = {name: getattr(config, name) for name in _OPTIONS}
    if preset(config.dataset, methods=config.methods, tune=config.tune, **changes) != config:
        return None
    default = preset(config.dataset)
    parts = ["ntkbayes compare", config.dataset]
    if config.methods != default.methods:
        parts.append(f"--methods {','.join(config.methods)}")
    parts += [
        f"--{name.replace('_', '-')} {value}"
        for name, value in changes.items()
        if value != getattr(default, name)
    ]
    return " ".join([*parts, *(["--tune"] if config.tune else []), "--out DIRECTORY"])


def _script(config: ComparisonConfig) -> str:
    settings = [f"    {name}={value!r},\n" for name, value in config.settings().items()]
    return (
        "import jax\n"
        "from ntkbayes.experiment import ComparisonConfig, run_comparison\n\n"
        'jax.config.update("jax_enable_x64", True)\n'
        f"config = ComparisonConfig(\n{''.join(settings)})\n"
        'run_comparison(config, "DIRECTORY")'
    )


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
