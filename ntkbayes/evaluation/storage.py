"""Predictions on disk, and as plain arrays; `predictions` says what the groups hold."""

import os
from pathlib import Path

import numpy as np
import scipy.special
import xarray as xr

from ntkbayes._files import atomic_path
from ntkbayes._types import AnyArray, Float, typed

__all__ = [
    "class_probabilities",
    "load_predictions",
    "observations",
    "pooled",
    "probabilities",
    "save_predictions",
]

_GROUPS = ("posterior_predictive", "log_likelihood", "observed_data", "constant_data")
_UNREADABLE = (OSError, RuntimeError, ValueError, KeyError, AttributeError)


def save_predictions(tree: xr.DataTree, path: str | os.PathLike[str]) -> None:
    """Write predictions to one netCDF file, atomically: a killed run leaves no half file.

    Parameters
    ----------
    tree
        What `predict` returned.
    path
        File to write; its directory must exist. An older file is replaced.
    """
    with atomic_path(path) as temporary:
        tree.to_netcdf(temporary, engine="netcdf4")


def load_predictions(path: str | os.PathLike[str]) -> xr.DataTree:
    """Read predictions into memory; the file is closed again.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file cannot be read, for instance because it is half written, or if it holds
        something else.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of predictions {path}.")
    try:
        with xr.open_datatree(path, engine="netcdf4") as file:
            tree = file.load().copy(deep=True)
    except _UNREADABLE as error:
        raise ValueError(
            f"{path} is not a readable file of predictions ({type(error).__name__}); it may be "
            "half written: delete it and run again."
        ) from error
    missing = [name for name in _GROUPS if name not in tree.children]
    if missing:
        raise ValueError(f"{path} holds no predictions: {', '.join(missing)} missing.")
    return tree


def pooled(tree: xr.DataTree, variable: str = "posterior_predictive/latent") -> np.ndarray:
    """Return a variable with chains and draws pooled into one leading dimension (s …).

    Parameters
    ----------
    tree
        What `predict` returned.
    variable
        Path of a variable with dimensions (chain draw …).
    """
    values = np.asarray(tree[variable].transpose("chain", "draw", ...))
    return values.reshape(-1, *values.shape[2:])


def observations(tree: xr.DataTree) -> np.ndarray:
    """Return the observations: class indices (m,), or regression values (m c), also for c = 1."""
    y = np.asarray(tree["observed_data/y"])
    if tree.attrs["task"] == "classification":
        return y.astype(int)
    return y.reshape(len(y), -1)


def probabilities(tree: xr.DataTree) -> Float[np.ndarray, "s m c"]:
    """Return softmax(latent) of every draw, over all chains; a single logit f counts as (0, f).

    Raises
    ------
    ValueError
        If the task is not classification.
    """
    if tree.attrs["task"] != "classification":
        raise ValueError(
            f"class probabilities need a classification task, but {tree.attrs['dataset']} is "
            f"{tree.attrs['task']}."
        )
    return class_probabilities(pooled(tree))


@typed
def class_probabilities(latent: Float[AnyArray, "s m c"]) -> Float[np.ndarray, "s m c2"]:
    """Return softmax(latent) of every draw, in float64; a single logit f counts as (0, f)."""
    logits = np.asarray(latent, dtype=float)
    if logits.shape[-1] == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], axis=-1)
    return scipy.special.softmax(logits, axis=-1)
