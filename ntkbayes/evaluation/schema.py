"""The tree of predictions: its groups, variables, dimensions, coordinates and attributes.

Groups and variables (dimensions ``chain, draw, obs_id, output, feature``), as ArviZ names them:

- ``posterior``: ``latent`` (chain draw obs_id output), draws of the latent function without noise
  (logits, or regression mean). ArviZ looks for draws of what a model does not know in a group of
  this name; whether they are draws of a posterior says the attribute ``is_posterior``;
- ``posterior_predictive``: ``y`` (chain draw obs_id), draws of new observations: class indices,
  or noisy targets (with an ``output`` dimension if there are several outputs);
- ``log_likelihood``: ``y`` (chain draw obs_id), log p(y | f) in nats, summed over outputs. At test
  points it is for scores; `arviz.loo` would reweight it as if the model had been fitted to them,
  which `ntkbayes.leave_one_out` refuses;
- ``observed_data``: ``y``; ``constant_data`` (where inputs are given): ``x`` (obs_id feature);
- ``sample_stats``: one number per draw (chain draw), such as ``error_bound`` or ``diverging``;
- ``log_prior`` (of Markov chains, or where ``stats`` holds ``log_prior``): ``latent`` (chain draw),
  log prior density of what was sampled, up to a constant: in weight space the weights, in function
  space the function at the training points;
- ``probabilities`` (ours; only where class probabilities were given instead of latent functions):
  ``p`` (chain draw obs_id output), what was given, which metrics read instead of the softmax of
  ``latent``, a logarithm that has been rounded;
- ``noise`` (ours; only of `from_normals`): ``variance`` (chain draw obs_id output), that of the
  observations around each draw of the mean, ``latent``;
- ``closed_form`` (ours; only where the latent function is Gaussian and so is the noise): ``mean``
  and ``variance`` (obs_id output) of the latent function, noise excluded. The group's attribute
  ``independent_outputs`` says whether the outputs of a point are known to be uncorrelated.

ArviZ' functions take the tree as it is, but for these:

- `arviz.residual_r2` knows no outputs: select one,
  ``az.residual_r2(tree.isel(output=0, missing_dims="ignore"), pred_mean="latent", obs_name="y")``.
- `arviz.psense` and `arviz.psense_summary` scale prior and likelihood by a power. They need the
  group ``log_prior``, which only draws of Markov chains have, and the likelihood of the data that
  were fitted: ``predict(…, split="train")``.
- ``arviz.metrics(tree, kind="acc")`` and ``"acc_balanced"`` average class indices over draws and
  round them, which means something for two classes only: 0 and 2 make 1. For more take the
  metric ``accuracy`` of `ntkbayes.compare`.
- `arviz.plot_ppc_pava` takes class indices for numbers, unless beyond two classes it is told
  ``data_type="categorical"``.

The coordinate ``output`` has the names of the classes (where one logit stands for two classes, of
the class 1) or of the targets, ``obs_id`` the identifiers of the points. The root's attributes are
text and whole numbers only, because netCDF has no others; dictionaries and lists are JSON text.
Of a regression that a `Dataset` has standardised they hold ``units``, "standardised" (or
"original", from `original_units`), ``target_scale`` and ``target_mean``.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import jax
import numpy as np
import scipy.stats
import xarray as xr

from ntkbayes._checks import check_choice, check_text
from ntkbayes._types import AnyArray, Array, Float, Key
from ntkbayes.evaluation._checked import (
    check_chains,
    checked_ids,
    checked_inputs,
    checked_latent,
    checked_moments,
    checked_names,
    checked_stats,
    class_targets,
    num_classes,
    storable,
)
from ntkbayes.likelihoods import Likelihood

__all__ = [
    "POINTWISE_GROUPS",
    "UNNAMED",
    "ClosedForm",
    "Labels",
    "output_names",
    "prediction_tree",
]

SPLITS = ("train", "val", "test")
POINTWISE_GROUPS = (
    *("posterior", "posterior_predictive", "log_likelihood", "observed_data"),
    *("constant_data", "probabilities", "noise", "closed_form"),
)
"""Groups whose variables have the dimension ``obs_id``."""
STANDARDISED = "standardised"
"""Units of targets, where they are known."""
UNNAMED = "unnamed"
"""Dataset of predictions that do not say theirs."""


@dataclass(frozen=True)
class Labels:
    """What predictions and their axes are called, and what kind of draws they are.

    Parameters
    ----------
    method, settings, dataset, split, num_chains, is_posterior
        Attributes of the root; draws are ordered chain by chain.
    output_names
        Names of the classes, or of the targets; None for numbers.
    obs_ids
        Identifiers of the points; None for their row numbers.
    feature_names
        Names of the input features; None for numbers.
    target_mean, target_scale
        Of each standardised target in original units; None of targets that are not standardised.
    """

    method: str
    settings: Mapping[str, Any]
    dataset: str
    split: str
    num_chains: int
    is_posterior: bool
    output_names: Sequence[str] | None = None
    obs_ids: Sequence[Any] | AnyArray | None = None
    feature_names: Sequence[str] | None = None
    target_mean: Sequence[float] | None = None
    target_scale: Sequence[float] | None = None


@dataclass(frozen=True)
class ClosedForm:
    """Mean and variance (m c) of the latent function; whether a point's outputs are independent."""

    mean: AnyArray
    variance: AnyArray
    independent_outputs: bool


def prediction_tree(
    latent: AnyArray,
    likelihood: Likelihood,
    y: AnyArray,
    labels: Labels,
    *,
    key: Key,
    x: AnyArray | None,
    stats: Mapping[str, AnyArray],
    closed_form: ClosedForm | None,
    given: np.ndarray | None = None,
    variance: np.ndarray | None = None,
) -> xr.DataTree:
    """Check latent draws (s m c) and what comes with them, draw observations, lay everything out.

    `given` are the class probabilities (s m c) of which latent draws are the logarithm; `variance`
    (s m c) that of the observations around each draw, where the Gaussian likelihood has none.

    Raises
    ------
    ValueError
        If an array does not fit the others, is empty or not finite, or `y` does not fit the
        likelihood.
    """
    check_choice("split", labels.split, SPLITS)
    check_text("method", labels.method)
    check_text("dataset", labels.dataset)
    targets = (
        likelihood.targets(y) if num_classes(likelihood) == 0 else class_targets(likelihood, y)
    )
    values = checked_latent(latent, targets.shape)
    check_chains(len(values), labels.num_chains)
    y = _squeeze_single(storable(y), axis=1)
    if variance is not None:
        new_y, log_prob = _around(key, values, variance, np.asarray(targets))
    else:
        new_y = _new_observations(likelihood, key, values)
        log_prob = (
            _log_of_given(given, y)
            if given is not None
            else _checked_results(
                likelihood, values, "log likelihood", _log_likelihood(likelihood, targets, values)
            )
        )
    new_y = _squeeze_single(new_y, axis=2)
    per_sample = checked_stats(stats, len(values), labels.num_chains)
    log_prior = per_sample.pop("log_prior", None)
    per_draw = {
        "posterior": {"latent": values},
        "posterior_predictive": {"y": new_y},
        "log_likelihood": {"y": log_prob},
        "sample_stats": per_sample,
    }
    if log_prior is not None:
        per_draw["log_prior"] = {"latent": log_prior}
    if given is not None:
        per_draw["probabilities"] = {"p": given}
    settings = likelihood.settings()
    if variance is not None:
        per_draw["noise"] = {"variance": variance}
        settings = {"name": "Normal", "num_outputs": likelihood.num_outputs}
    groups = {name: _chained(group, labels.num_chains) for name, group in per_draw.items()}
    groups["observed_data"] = {"y": (("obs_id", "output")[: y.ndim], y)}
    num_features = 0
    if x is not None:
        inputs = checked_inputs(x, len(y))
        groups["constant_data"] = {"x": (("obs_id", "feature"), inputs)}
        num_features = inputs.shape[1]
    if closed_form is not None:
        moments = checked_moments(likelihood, closed_form.mean, closed_form.variance, targets.shape)
        groups["closed_form"] = {k: (("obs_id", "output"), v) for k, v in moments.items()}
    tree = _tree(groups, _coordinates(labels, likelihood, values.shape, num_features))
    tree.attrs = _attributes(labels, settings, _task(likelihood))
    if closed_form is not None:
        tree["closed_form"].attrs["independent_outputs"] = int(closed_form.independent_outputs)
    return tree


def _new_observations(likelihood: Likelihood, key: Key, latent: np.ndarray) -> np.ndarray:
    """Draw observations; counts become whole-number types where they fit one."""
    draws = _checked_results(
        likelihood, latent, "new observation", _sample_observations(likelihood, key, latent)
    )
    return draws.astype(np.int64) if likelihood.counts and draws.max() < 2.0**63 else draws


def _around(
    key: Key, means: np.ndarray, variance: np.ndarray, targets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Draw observations around means (s m c), and log p(y) (s m) summed over outputs."""
    scale = np.sqrt(variance)
    noise = np.asarray(jax.random.normal(key, means.shape, means.dtype))
    log_prob = scipy.stats.norm.logpdf(targets, means.astype(float), scale.astype(float))
    return means + scale * noise, log_prob.sum(axis=-1)


def _checked_results(
    likelihood: Likelihood, latent: np.ndarray, name: str, results: Array
) -> np.ndarray:
    """Refuse latent values that the likelihood makes numbers of that overflow."""
    values = np.asarray(results)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        draw, point = (int(i) for i in np.argwhere(~np.isfinite(values))[0][:2])
        raise ValueError(
            f"latent must be within reach of the {type(likelihood).__name__} likelihood, but at "
            f"draw {draw}, point {point} it is {latent[draw, point].max():g}, where the {name} "
            f"overflows {values.dtype}."
        )
    return values


def output_names(tree: xr.DataTree) -> list[str | None]:
    """Return the name of every class, or of every target; None for one that has only a number."""
    outputs = np.asarray(tree["posterior"]["output"]).tolist()
    names = [None if v in (i, f"output_{i}") else str(v) for i, v in enumerate(outputs)]
    one_logit = tree.attrs["task"] == "classification" and len(names) == 1
    return [None, *names] if one_logit else names


@jax.jit
def _sample_observations(likelihood: Likelihood, key: Key, latent: Float[Array, "s m c"]) -> Array:
    keys = jax.random.split(key, latent.shape[:2])
    return jax.vmap(jax.vmap(likelihood.sample))(keys, latent)


@jax.jit
def _log_likelihood(
    likelihood: Likelihood, targets: Float[Array, "m c"], latent: Float[Array, "s m c"]
) -> Float[Array, "s m"]:
    return jax.vmap(jax.vmap(likelihood.log_prob), in_axes=(None, 0))(targets, latent)


def _log_of_given(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Log probability (s m) of the observed classes, in double precision; zeros as the smallest."""
    observed = np.take_along_axis(p, y[None, :, None], axis=-1)[..., 0]
    return np.log(np.maximum(observed, np.finfo(p.dtype).tiny).astype(float))


def _squeeze_single(values: np.ndarray, *, axis: int) -> np.ndarray:
    """Drop the output dimension if it is of length 1, as ArviZ expects of one observed variable."""
    return values[..., 0] if values.ndim > axis and values.shape[axis] == 1 else values


def _chained(variables: Mapping[str, np.ndarray], num_chains: int) -> dict[str, Any]:
    dims = ("chain", "draw", "obs_id", "output")
    return {
        name: (dims[: v.ndim + 1], v.reshape(num_chains, -1, *v.shape[1:]))
        for name, v in variables.items()
    }


def _coordinates(
    labels: Labels, likelihood: Likelihood, shape: tuple[int, ...], num_features: int
) -> dict[str, Any]:
    num_draws, num_points, num_outputs = shape
    names = checked_names(labels.output_names, num_classes(likelihood) or num_outputs)
    return {
        "chain": np.arange(labels.num_chains),
        "draw": np.arange(num_draws // labels.num_chains),
        "obs_id": checked_ids(labels.obs_ids, num_points),
        "output": names[-num_outputs:] if names else _numbered("output", num_outputs),
        "feature": list(labels.feature_names or _numbered("feature", num_features)),
    }


def _numbered(name: str, length: int) -> list[str]:
    return [f"{name}_{i}" for i in range(length)]


def _tree(groups: Mapping[str, Any], coords: Mapping[str, Any]) -> xr.DataTree:
    datasets = {}
    for name, variables in groups.items():
        used = {dim for dims, _ in variables.values() for dim in dims}
        datasets[name] = xr.Dataset(variables, {k: v for k, v in coords.items() if k in used})
    return xr.DataTree.from_dict(datasets)


def _task(likelihood: Likelihood) -> str:
    if num_classes(likelihood):
        return "classification"
    return "counts" if likelihood.counts else "regression"


def _attributes(labels: Labels, likelihood: Mapping[str, Any], task: str) -> dict[str, Any]:
    return {
        "method": labels.method,
        "settings": _json(labels.settings),
        "likelihood": _json(likelihood),
        "dataset": labels.dataset,
        "split": labels.split,
        "task": task,
        "num_chains": labels.num_chains,
        "is_posterior": int(labels.is_posterior),
        **_units(labels),
        **{f"{name}_version": version(name) for name in ("ntkbayes", "jax", "arviz")},
    }


def _units(labels: Labels) -> dict[str, str]:
    if labels.target_scale is None:
        return {}
    scale, mean = (json.dumps(list(v)) for v in (labels.target_scale, labels.target_mean or ()))
    return {"units": STANDARDISED, "target_scale": scale, "target_mean": mean}


def _json(settings: Mapping[str, Any]) -> str:
    return json.dumps(dict(settings), sort_keys=True, default=_plain)


def _plain(value: Any) -> Any:
    """Turn what JSON does not know (NumPy and JAX numbers, arrays, objects) into what it does."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
