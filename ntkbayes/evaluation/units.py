"""Predictions of a regression in the units that its targets were measured in.

A `Dataset` standardises regression targets, y = (y_original − mean) / scale, and everything is
computed and scored in these units. The predictions that `predict` makes of one know mean and scale
of each target.
"""

import json

import numpy as np
import xarray as xr

from ntkbayes._types import typed
from ntkbayes.evaluation.schema import STANDARDISED
from ntkbayes.evaluation.storage import ordered

__all__ = ["UNITS", "original_units"]

ORIGINAL = "original"
UNITS = (STANDARDISED, ORIGINAL)


@typed
def original_units(tree: xr.DataTree) -> xr.DataTree:
    """Return predictions of a regression in their targets' own units.

    Draws and observations become y · scale + mean, variances are multiplied by scale², and
    log densities become those of the original targets, log p − Σ log scale over the outputs.

    Parameters
    ----------
    tree
        What `predict` returned, of a `Dataset`. Predictions that are in original units already, or
        in whatever units they were given (`from_normals`, `from_draws`), and those of classes and
        counts are returned as they are.

    Examples
    --------
    >>> original = nb.evaluation.original_units(trees_sine["GP"])
    >>> y = nb.evaluation.observations(original)[:, 0]
    >>> np.allclose(y, sine.original_targets(sine.y_test))
    True
    """
    if tree.attrs.get("units") != STANDARDISED:
        return tree
    scale, shift = (np.asarray(json.loads(tree.attrs[f"target_{k}"])) for k in ("scale", "mean"))
    changed = {
        "posterior/latent": lambda v: v * scale + shift,
        "posterior_predictive/y": lambda v: _of_outputs(v, scale, shift),
        "log_likelihood/y": lambda v: v - np.log(scale).sum(),
        "observed_data/y": lambda v: _of_outputs(v, scale, shift),
        "noise/variance": lambda v: v * scale**2,
        "closed_form/mean": lambda v: v * scale + shift,
        "closed_form/variance": lambda v: v * scale**2,
    }
    result = tree.copy()
    for path, change in changed.items():
        group, name = path.split("/")
        if group in tree.children:
            dims = [d for d in _DIMS if d in tree[path].dims]
            dataset = result[group].to_dataset()
            result[group] = xr.DataTree(dataset.assign({name: (dims, change(ordered(tree, path)))}))
    likelihood = json.loads(tree.attrs["likelihood"])
    if "noise_variance" in likelihood:
        noise = np.asarray(likelihood["noise_variance"]) * scale**2
        likelihood["noise_variance"] = noise.item() if noise.size == 1 else noise.tolist()
    result.attrs = {
        name: value for name, value in tree.attrs.items() if not str(name).startswith("target_")
    } | {"units": ORIGINAL, "likelihood": json.dumps(likelihood, sort_keys=True)}
    return result


_DIMS = ("chain", "draw", "obs_id", "output")


def _of_outputs(values: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Scale values whose axis of outputs is left out where there is one only."""
    factor, offset = (scale, shift) if scale.size > 1 else (scale[0], shift[0])
    return values * factor + offset
