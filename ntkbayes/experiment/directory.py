"""The directory of a run: whose results it holds, and which of them are complete."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import xarray as xr

from ntkbayes._files import atomic_path, locked, read_toml, remove_leftovers
from ntkbayes.evaluation import load_predictions
from ntkbayes.experiment.config import ComparisonConfig

__all__ = [
    "check_directory",
    "check_same_settings",
    "fingerprint",
    "holds_results",
    "make_directories",
    "own_directory",
    "predictions_path",
    "read_predictions",
    "write_text",
]

FOLDERS = ("predictions", "figures")
_RESULTS = ("predictions/*", "cells/*", "hyperparameters.json", "*.parquet")


def check_directory(directory: Path) -> None:
    """Refuse before anything is computed, and make no directory yet that was not there."""
    try:
        if directory.exists() and not directory.is_dir():
            raise ValueError(f"the output directory {directory} is a file; choose another.")
        existing = next(
            path for path in (directory, *directory.absolute().parents) if path.exists()
        )
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise ValueError(
            f"the output directory {directory} is not writable ({error.strerror}); choose another."
        ) from error


def make_directories(directory: Path) -> None:
    """Make the directory with its folders, and try each by writing to it."""
    try:
        for folder in FOLDERS:
            (directory / folder).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=directory / folder):
                pass
    except OSError as error:
        raise ValueError(
            f"the output directory {directory} is not writable ({error.strerror}); choose another."
        ) from error


@contextmanager
def own_directory(directory: Path) -> Iterator[None]:
    """Hold a run's directory for this process, without what killed ones have left half written.

    Raises
    ------
    ValueError
        If another process holds it.
    """
    with locked(directory):
        for folder in (directory, *(path for path in directory.iterdir() if path.is_dir())):
            remove_leftovers(folder)
        yield


def check_same_settings(directory: Path, now: Mapping[str, Any], *, free: str) -> None:
    """Refuse results of other settings than those of `now`; the one named `free` may differ.

    A run that failed before its first result does not count.
    """
    path = directory / "config.toml"
    if not path.exists() or not holds_results(directory):
        return
    try:
        before = read_toml(path)
    except ValueError as error:
        raise ValueError(f"{error} Choose another output directory.") from error
    for name in sorted((before.keys() | now.keys()) - {free}):
        if before.get(name) != now.get(name):
            raise ValueError(
                f"{directory} holds results of other settings ({name} was "
                f"{before.get(name, 'not set')}, now {now.get(name, 'not set')}); "
                "choose another output directory or delete it."
            )


def holds_results(directory: Path) -> bool:
    """Whether a run has come so far that something of it is kept."""
    found = (path for pattern in _RESULTS for path in directory.glob(pattern))
    return any(not path.name.startswith(".") for path in found)


def fingerprint(config: ComparisonConfig, selected: Mapping[str, float] | None = None) -> str:
    """Text that is the same for the same settings; the choice of methods aside.

    `selected` are the hyperparameters a tuned comparison found.
    """
    settings = config.settings()
    if selected is not None:
        settings["selected"] = dict(selected)
    del settings["methods"]
    dtype = str(jnp.result_type(float))
    return json.dumps(settings | {"dtype": dtype}, sort_keys=True)


def predictions_path(directory: Path, name: str) -> Path:
    """Where the predictions of the method with this name are kept."""
    return directory / "predictions" / f"{name}.nc"


def read_predictions(path: Path, settings: str) -> xr.DataTree | None:
    """Return complete predictions of the settings with this `fingerprint`, else None."""
    try:
        tree = load_predictions(path)
    except (FileNotFoundError, ValueError):
        return None
    return tree if tree.attrs.get("comparison") == settings else None


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
