"""The grid over the plane on which classifiers of two features and two classes are mapped."""

import numpy as np
import xarray as xr

from ntkbayes._types import Key
from ntkbayes.datasets import Dataset
from ntkbayes.evaluation import grid_points
from ntkbayes.predictors import Predictor

__all__ = ["grid_axes", "grid_draws", "is_plane"]

GRID_SIZE = 40


def is_plane(data: Dataset) -> bool:
    """Whether a classifier can be shown as a map."""
    return data.task == "classification" and data.num_features == 2 and data.num_classes == 2


def grid_axes(data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Axes of a grid around the training points with a margin, in standardised units."""
    x = np.asarray(data.x_train)
    low, high = x.min(axis=0), x.max(axis=0)
    margin = 0.35 * (high - low)
    first, second = np.linspace(low - margin, high + margin, GRID_SIZE).T
    return first, second


def grid_draws(predictor: Predictor, data: Dataset, key: Key, *, num_draws: int) -> xr.Dataset:
    """Draw latent functions jointly over the grid: ``latent`` and its points ``x``."""
    x = grid_points(*grid_axes(data))
    latent = np.asarray(predictor.sample(key, x, num_draws=num_draws))
    return xr.Dataset(
        {
            "latent": (("sample", "grid_id", "output"), latent),
            "x": (("grid_id", "feature"), x),
        }
    )
