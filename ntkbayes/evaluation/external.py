"""Predictions of other tools, as the same `DataTree` that `predict` makes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from ntkbayes._checks import warn_caller
from ntkbayes._types import AnyArray, Key, typed
from ntkbayes.evaluation._checked import as_array, checked_probabilities, pool_chains, storable
from ntkbayes.evaluation.metrics.inputs import check_variance
from ntkbayes.evaluation.schema import UNNAMED, ClosedForm, Labels, prediction_tree
from ntkbayes.likelihoods import Categorical, Gaussian, Likelihood

__all__ = ["from_draws", "from_normals", "from_probabilities"]


@typed
def from_draws(
    latent: Any,
    likelihood: Likelihood,
    y: Any,
    *,
    key: Key,
    method: str,
    x: AnyArray | None = None,
    num_chains: int = 1,
    output_names: Any = None,
    obs_ids: Any = None,
    dataset: str = UNNAMED,
    split: str = "test",
    stats: Mapping[str, AnyArray] | None = None,
    settings: Mapping[str, Any] | None = None,
    closed_form: tuple[AnyArray, AnyArray] | None = None,
    is_posterior: bool = False,
) -> xr.DataTree:
    """Make a `DataTree` from latent draws of another tool; no training data are needed.

    Parameters
    ----------
    latent
        Draws of the latent function (logits, or regression mean without noise) at m points:
        (s m c) ordered chain by chain, or (chain draw m c); (m c) of one network, or of a single
        output (s m).
    likelihood
        Turns latent functions into observations.
    y
        Observations at the points: integer class indices (m,), or targets (m,) or (m c).
    key
        Random key of the observation draws.
    method
        Name of the method in tables.
    x
        Inputs (m …), one row per point; they are only kept.
    num_chains
        Number of Markov chains; 1 for independent draws.
    output_names
        Names of the classes in the order of their indices, or of the c targets: a list, an array
        or an index of text.
    obs_ids
        Identifiers of the points, whole numbers or text, in a list, an array or an index. Default:
        row numbers.
    dataset, split
        Name of the dataset; "train", "val" or "test". Unnamed ones are compared with any that have
        the same observations.
    stats
        One number per draw each, (s,) or (chain draw): ``diverging`` and ``energy`` are known to
        `chain_diagnostics`.
    settings
        Settings of the method, written into the attributes as JSON text.
    closed_form
        Mean and variance (m c) of the latent function, where it is Gaussian and they are known;
        for a `Gaussian` likelihood only.
    is_posterior
        Whether these are draws of (an approximation to) the Bayesian posterior of a model with
        this likelihood, as `Predictor.is_posterior` says.

    Raises
    ------
    ValueError
        If an array does not fit the others, is empty or not finite, `y` does not fit the
        likelihood, names or identifiers repeat or are too few or too many, `split` is unknown,
        `closed_form` comes with another likelihood or a negative variance, or chains differ in
        length.

    Examples
    --------
    >>> logits = np.random.default_rng(0).normal(size=(100, 4, 3))
    >>> tree = nb.from_draws(
    ...     logits, nb.Categorical(3), np.array([0, 2, 1, 1]), key=key, method="mine"
    ... )
    >>> dict(tree["posterior/latent"].sizes)
    {'chain': 1, 'draw': 100, 'obs_id': 4, 'output': 3}
    """
    y, draws = as_array("y", y), as_array("latent", latent)
    if draws.ndim == 2:
        draws = _with_draws_and_outputs(draws, len(np.atleast_1d(y)), likelihood.num_outputs)
    pooled, num_chains = pool_chains("latent", draws, num_chains, axes=("points", "outputs"))
    labels = Labels(
        method, settings or {}, dataset, split, num_chains, is_posterior, output_names, obs_ids
    )
    moments = None
    if closed_form is not None:
        # Of several outputs their covariances are not known here.
        moments = ClosedForm(*closed_form, independent_outputs=likelihood.num_outputs == 1)
    return prediction_tree(
        pooled, likelihood, y, labels, key=key, x=x, stats=stats or {}, closed_form=moments
    )


def _with_draws_and_outputs(latent: np.ndarray, num_points: int, num_outputs: int) -> np.ndarray:
    """Return (s m c) of one network's latent functions (m c), or of those of one output (s m)."""
    if latent.shape == (num_points, num_outputs):
        return latent[None]
    if num_outputs == 1 and latent.shape[1] == num_points:
        return latent[..., None]
    single = f", or (draws, {num_points})" if num_outputs == 1 else ""
    raise ValueError(
        f"latent must have shape (draws, {num_points}, {num_outputs}), or ({num_points}, "
        f"{num_outputs}) of one network{single}, but has {latent.shape}."
    )


@typed
def from_probabilities(
    probabilities: Any,
    y: Any,
    *,
    key: Key,
    method: str,
    x: AnyArray | None = None,
    num_chains: int = 1,
    output_names: Any = None,
    obs_ids: Any = None,
    dataset: str = UNNAMED,
    split: str = "test",
    stats: Mapping[str, AnyArray] | None = None,
    settings: Mapping[str, Any] | None = None,
    is_posterior: bool = False,
) -> xr.DataTree:
    """Make a `DataTree` from class probabilities of another tool; no training data are needed.

    What is given is kept, in the group ``probabilities``: metrics and distances of class
    probabilities see these numbers and no others, so that equal ones stay equal. Rows that printing
    or half precision has moved from a sum of 1 are not divided by it, and the log likelihood is log
    p as given; only what rounding has left below 0 or above 1 is set to 0 or 1.

    The latent functions, for everything that is about functions, are log p. There, and in the log
    likelihood, zeros are the smallest positive normal number of their type, 2.2e-308 or 1.2e-38:
    log p is at least −708 or −87 nats.

    Parameters
    ----------
    probabilities
        Of every class at m points: (m c) of one predictor, (s m c) of s draws of a predictor or
        members of an ensemble, ordered chain by chain, or (chain draw m c). Rows must sum to 1, and
        numbers lie between 0 and 1, to within 1e-3.
    y
        Integer class indices (m,).
    key, method, x, num_chains, obs_ids, dataset, split, stats, settings, is_posterior
        As in `from_draws`.
    output_names
        Names of the classes, in the order of their indices.

    Warns
    -----
    UserWarning
        If there are zeros.

    Raises
    ------
    ValueError
        If a row is no distribution, and as in `from_draws`.

    Examples
    --------
    >>> p = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
    >>> y = np.array([0, 2])
    >>> tree = nb.from_probabilities(p, y, key=key, method="random forest")
    >>> np.exp(tree["log_likelihood/y"].values)
    array([[[0.7, 0.8]]])
    """
    y, draws = as_array("y", y), as_array("probabilities", probabilities)
    if draws.ndim == 1:
        raise ValueError(
            f"probabilities must have a column for each class, but has shape {draws.shape}; with p "
            "that of class 1, pass np.stack([1 - p, p], axis=-1)."
        )
    draws = draws[None] if draws.ndim == 2 else draws
    pooled, num_chains = pool_chains("probabilities", draws, num_chains, axes=("points", "classes"))
    p = checked_probabilities(pooled)
    tiny = np.finfo(p.dtype).tiny
    if (p < tiny).any():
        warn_caller(
            f"probabilities holds zeros ({np.sum(p < tiny)} of {p.size} numbers), which become "
            f"{tiny:.2g} in the log likelihood: the log probability of a class that is observed "
            f"all the same is {np.log(tiny):.0f} nats."
        )
    labels = Labels(
        method, settings or {}, dataset, split, num_chains, is_posterior, output_names, obs_ids
    )
    likelihood, latent = Categorical(p.shape[-1]), np.log(np.maximum(p, tiny))
    return prediction_tree(
        latent, likelihood, y, labels, key=key, x=x, stats=stats or {}, given=p, closed_form=None
    )


@typed
def from_normals(
    means: Any,
    variances: Any,
    y: Any,
    *,
    key: Key,
    method: str,
    x: AnyArray | None = None,
    num_chains: int = 1,
    output_names: Any = None,
    obs_ids: Any = None,
    dataset: str = UNNAMED,
    split: str = "test",
    stats: Mapping[str, AnyArray] | None = None,
    settings: Mapping[str, Any] | None = None,
    is_posterior: bool = False,
) -> xr.DataTree:
    """Make a `DataTree` from normal predictive distributions, or from mixtures of them.

    For networks that predict a mean and a variance at every point: one of them, or an ensemble,
    whose predictive distribution is the mixture (1/s) Σ_s N(μ_s, σ_s²) of its members. Every score
    is that of this mixture, exactly; nothing is drawn but what `posterior_predictive` holds.

    The latent functions are the means: distances between latent functions, and what is said of
    epistemic uncertainty, are about them.

    Parameters
    ----------
    means, variances
        Of the observations at m points, noise included, in the units of y: shaped like y for one
        predictor; with members or draws in front (s …), ordered chain by chain, or (chain draw …).
    y
        Targets (m,), or (m c) of several, in the units that results are to have.
    key, method, x, num_chains, obs_ids, dataset, split, stats, settings, is_posterior
        As in `from_draws`.
    output_names
        Names of the c targets.

    Raises
    ------
    ValueError
        If a variance is not positive, shapes do not fit each other, and as in `from_draws`.

    References
    ----------
    Lakshminarayanan, Pritzel & Blundell (2017), arXiv 1612.01474, section 2.4.

    Examples
    --------
    >>> means, variances = np.array([[0.0, 1.0], [0.2, 0.8]]), np.full((2, 2), 0.25)
    >>> tree = nb.from_normals(means, variances, np.zeros(2), key=key, method="two members")
    >>> dict(tree["noise/variance"].sizes)
    {'chain': 1, 'draw': 2, 'obs_id': 2, 'output': 1}
    """
    y, means, variances = (
        _real_array(n, v) for n, v in (("y", y), ("means", means), ("variances", variances))
    )
    if means.shape != variances.shape:
        raise ValueError(
            f"means and variances must have the same shape, but have {means.shape} and "
            f"{variances.shape}."
        )
    pooled = {}
    for name, values in (("means", means), ("variances", variances)):
        pooled[name], chains = _like_observations(name, values, y, num_chains)
    check_variance("variances", pooled["variances"])
    labels = Labels(
        method, settings or {}, dataset, split, chains, is_posterior, output_names, obs_ids
    )
    likelihood = Gaussian(1.0, pooled["means"].shape[-1])
    return prediction_tree(
        pooled["means"],
        likelihood,
        y,
        labels,
        key=key,
        x=x,
        stats=stats or {},
        variance=pooled["variances"],
        closed_form=None,
    )


def _real_array(name: str, values: Any) -> np.ndarray:
    """Return real numbers in single or double precision; whole ones as double."""
    array = as_array(name, values)
    if array.dtype.kind in "iub":
        return array.astype(float)
    if array.dtype.kind not in "fV":
        raise ValueError(f"{name} must hold real numbers, but has dtype {array.dtype}.")
    return storable(array)


def _like_observations(
    name: str, values: np.ndarray, y: np.ndarray, num_chains: int
) -> tuple[np.ndarray, int]:
    """Return (s m c) and the number of chains, from numbers shaped like y behind up to two axes."""
    extra = values.ndim - y.ndim
    if y.ndim not in (1, 2) or not 0 <= extra <= 2 or values.shape[extra:] != y.shape:
        raise ValueError(
            f"{name} must be shaped like y, {y.shape}, or (draws, …) or (chains, draws, …) of "
            f"that, but has shape {values.shape}."
        )
    draws = values[None] if extra == 0 else values
    outputs = draws[..., None] if y.ndim == 1 else draws
    return pool_chains(name, outputs, num_chains, axes=("points", "outputs"))
