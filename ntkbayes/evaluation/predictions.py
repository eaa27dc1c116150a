"""Predictions as data: draws at test points in an ArviZ `DataTree`, on disk and in memory.

Groups and variables (dimensions ``chain, draw, obs_id, output, feature``):

- ``posterior_predictive``: ``latent`` (chain draw obs_id output), the latent function without
  noise (logits, or regression mean); ``y`` (chain draw obs_id), draws of new observations: class
  indices, or noisy targets (with an ``output`` dimension if there are several outputs);
- ``log_likelihood``: ``y`` (chain draw obs_id), log p(y | f) in nats, summed over outputs;
- ``observed_data``: ``y``; ``constant_data``: ``x`` (obs_id feature);
- ``sample_stats``: one number per draw (chain draw), such as ``residual`` or ``diverging``;
- ``closed_form`` (ours; only Gaussian predictors with Gaussian likelihood): ``mean`` and
  ``variance`` (obs_id output) of the latent function, noise excluded.

The root's attributes are text and numbers only; dictionaries are JSON text.
"""

import json
from importlib.metadata import version
from typing import Any

import jax
import numpy as np
import xarray as xr

from ntkbayes._checks import check_at_least, check_choice, check_finite, check_not_empty
from ntkbayes._types import Array, Float, Key, Progress, silent, typed
from ntkbayes.datasets import Dataset
from ntkbayes.likelihoods import Bernoulli, Categorical, Gaussian, Likelihood
from ntkbayes.predictors import Draws, GaussianPredictor, Predictor

__all__ = ["predict", "predictions_from_draws"]

DEFAULT_NUM_DRAWS = 1000
SPLITS = ("train", "val", "test")


def predict(
    predictor: Predictor,
    data: Dataset,
    *,
    key: Key,
    num_draws: int | None = None,
    split: str = "test",
    method: str | None = None,
    progress: Progress = silent,
) -> xr.DataTree:
    """Draw predictions at one split of a dataset.

    Parameters
    ----------
    predictor
        What a method returned.
    data
        Dataset whose inputs are predicted and whose observations are scored.
    key
        Random key, for the latent draws and the observation draws.
    num_draws
        Number of latent functions over all chains. Default: every distinct draw the predictor
        has, or 1,000 if there is no limit.
    split
        "train", "val" or "test".
    method
        Name of the method in tables. Default: the name in the predictor's settings.
    progress
        Called with the finished fraction of the draws.

    Returns
    -------
    DataTree
        The groups in the module's docstring.

    Raises
    ------
    ValueError
        If `split` is unknown or has no points, if more draws are asked for than there are, fewer
        than one, or a number that is no multiple of the number of chains, or if a draw is not
        finite.
    """
    check_choice("split", split, SPLITS)
    x = getattr(data, f"x_{split}")
    check_not_empty(f"x_{split}", x)
    if num_draws is None:
        num_draws = predictor.num_available or DEFAULT_NUM_DRAWS
    _check_num_draws(num_draws, predictor)
    key_latent, key_observation = jax.random.split(key)
    draws = predictor.draw(key_latent, x, num_draws=num_draws, progress=progress)
    closed_form = None
    if isinstance(predictor, GaussianPredictor) and isinstance(predictor.likelihood, Gaussian):
        closed_form = (predictor.mean(x), predictor.variance(x))
    return predictions_from_draws(
        draws,
        predictor.likelihood,
        data,
        key=key_observation,
        split=split,
        method=method,
        settings=predictor.settings,
        num_chains=predictor.num_chains,
        closed_form=closed_form,
    )


@typed
def predictions_from_draws(
    draws: Draws,
    likelihood: Likelihood,
    data: Dataset,
    *,
    key: Key,
    split: str = "test",
    method: str | None = None,
    settings: dict[str, Any] | None = None,
    num_chains: int = 1,
    closed_form: tuple[Float[Array, "m c"], Float[Array, "m c"]] | None = None,
) -> xr.DataTree:
    """Make a `DataTree` from latent draws, of this package or of another tool.

    Parameters
    ----------
    draws
        Latent functions (s m c) at the points of the split, ordered chain by chain.
    likelihood
        Turns latent functions into observations.
    data
        The `Dataset`.
    key
        Random key of the observation draws.
    split
        "train", "val" or "test".
    method
        Name of the method in tables. Default: ``settings["method"]``.
    settings
        Settings of the predictor, written into the attributes as JSON text.
    num_chains
        Number of Markov chains; 1 for independent draws.
    closed_form
        Mean and variance (m c) of the latent function, if they are known exactly.

    Raises
    ------
    ValueError
        If `split` is unknown, or the draws are not finite, do not match the split, or are no
        multiple of `num_chains`.
    """
    check_choice("split", split, SPLITS)
    x, y = np.asarray(getattr(data, f"x_{split}")), np.asarray(getattr(data, f"y_{split}"))
    check_finite("draws.latent", draws.latent)
    targets = _evaluation_targets(likelihood, y)
    if draws.latent.shape[1:] != targets.shape:
        raise ValueError(
            f"draws.latent must have shape (s, {targets.shape[0]}, {targets.shape[1]}) for the "
            f"{split} split of {data.name}, but has {draws.latent.shape}."
        )
    _check_chains(draws.latent.shape[0], num_chains)
    new_y = np.asarray(_sample_observations(likelihood, key, draws.latent))
    log_prob = np.asarray(_log_likelihood(likelihood, targets, draws.latent))
    attrs = _attributes(data, split, method, settings or {}, likelihood) | {
        "num_chains": num_chains
    }
    flat_x = x.reshape(len(x), -1)
    groups = {
        "posterior_predictive": _chained(
            {"latent": np.asarray(draws.latent), "y": _squeeze_single(new_y)}, num_chains
        ),
        "log_likelihood": _chained({"y": log_prob}, num_chains),
        "sample_stats": _chained({k: np.asarray(v) for k, v in draws.stats.items()}, num_chains),
        "observed_data": {
            "y": (("obs_id", "output")[: _squeeze_single(y).ndim], _squeeze_single(y))
        },
        "constant_data": {"x": (("obs_id", "feature"), flat_x)},
    }
    if closed_form is not None:
        pairs = zip(("mean", "variance"), closed_form, strict=True)
        groups["closed_form"] = {k: (("obs_id", "output"), np.asarray(v)) for k, v in pairs}
    return _tree(groups, _coordinates(data, draws.latent.shape, flat_x.shape[1], num_chains), attrs)


def _attributes(
    data: Dataset, split: str, method: str | None, settings: dict[str, Any], likelihood: Likelihood
) -> dict[str, Any]:
    return {
        "method": method or str(settings.get("method", "unnamed")),
        "settings": _json(settings),
        "likelihood": _json(likelihood.settings()),
        "dataset": data.name,
        "split": split,
        "task": data.task,
        **{f"{name}_version": version(name) for name in ("ntkbayes", "jax", "arviz")},
    }


def _check_num_draws(num_draws: int, predictor: Predictor) -> None:
    check_at_least("num_draws", num_draws, 1)
    available = predictor.num_available
    if available is not None and num_draws > available:
        raise ValueError(
            f"num_draws is {num_draws}, but this predictor has only {available} distinct draw(s); "
            "leave num_draws out to take them all."
        )
    _check_chains(num_draws, predictor.num_chains)


def _check_chains(num_draws: int, num_chains: int) -> None:
    if num_draws % num_chains:
        raise ValueError(
            f"num_draws must be a multiple of the {num_chains} chains, but is {num_draws}; "
            f"{num_draws - num_draws % num_chains or num_chains} would do."
        )


def _evaluation_targets(likelihood: Likelihood, y: np.ndarray) -> Float[Array, "m c"]:
    """Return targets (m c); unlike in training, test labels of a single class are fine."""
    classes = isinstance(likelihood, Bernoulli | Categorical)
    if classes and y.ndim == 1 and np.unique(y).size == 1:
        others = np.arange(max(likelihood.num_outputs, 2), dtype=y.dtype)
        return likelihood.targets(np.concatenate([y, others]))[: len(y)]
    return likelihood.targets(y)


@jax.jit
def _sample_observations(likelihood: Likelihood, key: Key, latent: Float[Array, "s m c"]) -> Array:
    keys = jax.random.split(key, latent.shape[:2])
    return jax.vmap(jax.vmap(likelihood.sample))(keys, latent)


@jax.jit
def _log_likelihood(
    likelihood: Likelihood, targets: Float[Array, "m c"], latent: Float[Array, "s m c"]
) -> Float[Array, "s m"]:
    return jax.vmap(jax.vmap(likelihood.log_prob), in_axes=(None, 0))(targets, latent)


def _squeeze_single(values: np.ndarray) -> np.ndarray:
    """Drop a trailing output dimension of length 1, as ArviZ expects of one observed variable."""
    return values[..., 0] if values.ndim > 1 and values.shape[-1] == 1 else values


def _chained(variables: dict[str, np.ndarray], num_chains: int) -> dict[str, Any]:
    dims = ("chain", "draw", "obs_id", "output")
    return {
        name: (dims[: v.ndim + 1], v.reshape(num_chains, -1, *v.shape[1:]))
        for name, v in variables.items()
    }


def _coordinates(
    data: Dataset, shape: tuple[int, ...], num_features: int, num_chains: int
) -> dict[str, Any]:
    num_draws, num_points, num_outputs = shape
    outputs = data.class_names if data.task == "classification" else (data.target_name,)
    return {
        "chain": np.arange(num_chains),
        "draw": np.arange(num_draws // num_chains),
        "obs_id": np.arange(num_points),
        "output": _names(outputs, num_outputs, "output"),
        "feature": _names(data.feature_names, num_features, "feature"),
    }


def _names(names: Any, length: int, fallback: str) -> list[str]:
    """Return the names as text, or numbered ones if there are not `length` of them."""
    if names is not None and len(names) == length and None not in names:
        return [str(name) for name in names]
    return [f"{fallback}_{i}" for i in range(length)]


def _tree(groups: dict[str, Any], coords: dict[str, Any], attrs: dict[str, Any]) -> xr.DataTree:
    datasets = {"/": xr.Dataset(attrs=attrs)}
    for name, variables in groups.items():
        used = {dim for dims, _ in variables.values() for dim in dims}
        datasets[name] = xr.Dataset(variables, {k: v for k, v in coords.items() if k in used})
    return xr.DataTree.from_dict(datasets)


def _json(settings: dict[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True, default=_plain)


def _plain(value: Any) -> Any:
    """Turn what JSON does not know (NumPy and JAX numbers, arrays, objects) into what it does."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
