"""Leave-one-out cross-validation of a posterior, from one fit, at the points it was fitted to.

The score of a point is log p(yᵢ | y₋ᵢ), its predictive density had it been left out. With posterior
draws f_s it is importance sampling, p(yᵢ | y₋ᵢ) = 1 / E[1 / p(yᵢ | fᵢ)], whose weights
1 / p(yᵢ | f_s) ArviZ smooths (PSIS). Weights that are all equal, or whose largest are, have no tail
to smooth and are taken as they are: so a point whose log p is the same in all draws, such as one
that a classifier is sure of, has that for its score. Where the latent function is Gaussian with
moments m, v and the noise N(0, σ²), the same expectation has a closed form, the Gaussian cavity:

    v₋ᵢ = 1 / (1/vᵢ − 1/σ²),  m₋ᵢ = v₋ᵢ (mᵢ/vᵢ − yᵢ/σ²),  p(yᵢ | y₋ᵢ) = N(yᵢ | m₋ᵢ, v₋ᵢ + σ²).

With h = v/σ² this is yᵢ − m₋ᵢ = (yᵢ − mᵢ) / (1 − hᵢ) and v₋ᵢ + σ² = σ² / (1 − hᵢ), which stays
accurate for small v. It is what PSIS estimates, without Monte Carlo. If the moments are those of
the exact posterior (GP, Laplace and the perturbed ensemble are for Gaussian noise), it is leaving
out itself; of an approximation (inducing points, structured Hessians) it removes the point from
the approximation and does not fit that again.

References
----------
Rasmussen & Williams 2006, eqs. 5.10-5.12. Vehtari, Gelman, Gabry 2017, doi
10.1007/s11222-016-9696-4 (PSIS-LOO). Vehtari, Simpson, Gelman, Yao, Gabry 2024, JMLR 25(72) (the
threshold on k̂ and its dependence on the number of draws).
"""

import json
from typing import Any

import equinox as eqx
import numpy as np
import scipy.special
import scipy.stats
import xarray as xr
from arviz_stats.base.array import array_stats

from ntkbayes._arrays import more_digits
from ntkbayes._checks import warn_caller
from ntkbayes._types import Float, typed
from ntkbayes.evaluation.effective_size import effective_sample_size
from ntkbayes.evaluation.storage import observations, ordered, pooled

__all__ = ["LeaveOneOut", "leave_one_out"]

MIN_DRAWS = 100
"""Where the threshold on k̂, 1 − 1/log₁₀ s, is ½: fewer could not vouch for a finite variance."""
MIN_EFFECTIVE = 10
"""Effective number of weights without a tail that is enough: 10^(1/(1 − k)) for k = 0."""


class LeaveOneOut(eqx.Module):
    """Predictive log densities of points left out; in nats for standardised targets.

    Parameters
    ----------
    pointwise
        log p(yᵢ | y₋ᵢ) of each point, jointly over its outputs.
    p_loo
        Effective number of parameters: how much more the log densities are where no point is
        left out.
    pareto_k
        k̂ of each point's weights; above `good_k` its value is not reliable. −∞ of weights that are
        bounded by what many draws have (no tail to fit), +∞ if fewer than 10, effectively, have
        it. None in closed form.
    good_k
        min(1 − 1/log₁₀ s, 0.7) for s draws. None in closed form.
    obs_ids
        Identifiers of the points.
    """

    pointwise: Float[np.ndarray, "n"]
    p_loo: float
    pareto_k: Float[np.ndarray, "n"] | None
    good_k: float | None
    obs_ids: np.ndarray

    @property
    def elpd(self) -> float:
        """Expected log predictive density of n new points: the sum over points."""
        return float(self.pointwise.sum())

    @property
    def standard_error(self) -> float:
        """Of `elpd` over the choice of points: √(n var(pointwise)), with divisor n − 1.

        NaN of a single point, which says nothing of how points differ.
        """
        if len(self.pointwise) == 1:
            return np.nan
        return float(np.sqrt(len(self.pointwise) * self.pointwise.var(ddof=1)))

    @property
    def closed_form(self) -> bool:
        """Whether there is no Monte-Carlo error."""
        return self.pareto_k is None

    @property
    def num_unreliable(self) -> int:
        """Number of points with k̂ above its threshold."""
        return 0 if self.pareto_k is None else int(np.sum(self.pareto_k > self.good_k))


@typed
def leave_one_out(tree: xr.DataTree) -> LeaveOneOut:
    """Leave out every training point in turn, without fitting again.

    In closed form where the tree has the moments of independent outputs and Gaussian noise, which
    is linear in the number of points; else PSIS, linear in points × draws.

    Parameters
    ----------
    tree
        What ``predict(…, split="train")`` returned for a posterior.

    Warns
    -----
    UserWarning
        If k̂ is above its threshold for a point.

    Raises
    ------
    ValueError
        If the draws are not from a posterior or not at the training points, if fewer than 100 are
        to be reweighted, if a draw has no finite log p, or if moments are not those of a posterior
        with this noise.

    Examples
    --------
    >>> tree = nb.predict(predictors_sine["GP"], sine, key=key, num_draws=10, split="train")
    >>> left_out = nb.leave_one_out(tree)
    >>> left_out.closed_form, len(left_out.pointwise), round(left_out.elpd, 1)
    (True, 12, -3.1)
    """
    _check_posterior_at_training_points(tree)
    if _has_closed_form(tree):
        return _cavity(tree)
    return _psis(tree)


def _check_posterior_at_training_points(tree: xr.DataTree) -> None:
    method, split = tree.attrs["method"], tree.attrs["split"]
    if not tree.attrs["is_posterior"]:
        raise ValueError(
            f"leave-one-out reweights draws of a posterior, but {method} is none: refit without "
            "each point, or score it on held-out data."
        )
    if split != "train":
        raise ValueError(
            f"leave-one-out needs predictions at the points {method} was fitted to, but these are "
            f'at the {split} split: use predict(..., split="train").'
        )


def _has_closed_form(tree: xr.DataTree) -> bool:
    return "closed_form" in tree.children and bool(tree["closed_form"].attrs["independent_outputs"])


def _cavity(tree: xr.DataTree) -> LeaveOneOut:
    """Evaluate the closed form, summed over the outputs of a point."""
    noise = json.loads(tree.attrs["likelihood"])["noise_variance"]
    precision = tree["closed_form/variance"].dtype
    mean, variance = (
        ordered(tree, f"closed_form/{name}").astype(float) for name in ("mean", "variance")
    )
    y = observations(tree).astype(float)
    left = 1 - variance / noise
    if left.min() <= 0:
        worst = int(np.argmin(left.min(axis=1)))
        raise ValueError(
            "a posterior variance must be below the noise variance at a training point, but at "
            f"{_obs_ids(tree)[worst]} it is {variance[worst].max():.3g} and the noise variance "
            f"{noise:.3g}: {tree.attrs['method']} is no posterior with this noise, or rounding "
            f"hides the difference: {more_digits(precision)}raise the noise variance."
        )
    cavity = scipy.stats.norm.logpdf((y - mean) / left, scale=np.sqrt(noise / left)).sum(axis=1)
    fitted = scipy.stats.norm.logpdf(y, mean, np.sqrt(variance + noise)).sum(axis=1)
    return LeaveOneOut(cavity, float(np.sum(fitted - cavity)), None, None, _obs_ids(tree))


def _psis(tree: xr.DataTree) -> LeaveOneOut:
    """Smooth the importance weights of every point whose log p is not the same in all draws."""
    log_likelihood = pooled(tree, "log_likelihood/y").astype(float)
    _check_log_likelihood(tree, log_likelihood)
    num_draws, num_points = log_likelihood.shape
    varying = np.flatnonzero(np.ptp(log_likelihood, axis=0) > 0)
    pointwise, pareto_k = log_likelihood[0].copy(), np.full(num_points, -np.inf)
    share = _effective_share(tree, varying)
    for i in varying:
        log_weights, pareto_k[i] = _smoothed(-log_likelihood[:, i], share)
        pointwise[i] = scipy.special.logsumexp(log_weights + log_likelihood[:, i])
    good_k = float(min(1 - 1 / np.log10(num_draws), 0.7))
    unreliable = int(np.sum(pareto_k > good_k))
    if unreliable:
        warn_caller(
            f"Estimated shape parameter of Pareto distribution is greater than {good_k:.2f} for "
            f"{unreliable} of {num_points} points of {tree.attrs['method']}: their value is not "
            "reliable; refit without them."
        )
    fitted = scipy.special.logsumexp(log_likelihood, axis=0) - np.log(num_draws)
    p_loo = float(np.sum(fitted - pointwise))
    return LeaveOneOut(pointwise, p_loo, pareto_k, good_k, _obs_ids(tree))


def _check_log_likelihood(tree: xr.DataTree, log_likelihood: np.ndarray) -> None:
    num_draws = len(log_likelihood)
    if num_draws < MIN_DRAWS:
        raise ValueError(
            f"PSIS needs {MIN_DRAWS} draws or more to judge its own weights, but "
            f"{tree.attrs['method']} has {num_draws}: raise num_draws."
        )
    wrong = np.sum(~np.isfinite(log_likelihood), axis=0)
    if wrong.any():
        point = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f"log_likelihood of {tree.attrs['method']} must be finite, but at "
            f"{_obs_ids(tree)[point]} it is not in {wrong[point]} of {num_draws} draws: a draw "
            "that excludes what was observed has no finite weight."
        )


def _effective_share(tree: xr.DataTree, points: np.ndarray) -> float:
    """Effective number of draws over their number: mean over the latent functions at points."""
    if int(tree.attrs["num_chains"]) == 1 or not len(points):
        return 1.0
    latent = pooled(tree)[:, points]
    return float(effective_sample_size(tree, latent, kind="mean").mean() / len(latent))


def _smoothed(log_ratios: np.ndarray, share: float) -> tuple[np.ndarray, float]:
    """Smoothed log weights (s,), normalised, and k̂; where there is no tail to fit, as they are."""
    raw = log_ratios - np.logaddexp.reduce(log_ratios)
    smooth: Any = array_stats.psislw  # annotated for whole shares only
    try:
        log_weights, k = smooth(-log_ratios, r_eff=share)
    except ValueError:  # all weights in the tail are equal
        log_weights, k = raw, np.nan
    if np.isnan(k):  # or too few are distinct
        effective = np.exp(-np.logaddexp.reduce(2 * raw))
        return raw, -np.inf if effective >= MIN_EFFECTIVE else np.inf
    return log_weights, float(k)


def _obs_ids(tree: xr.DataTree) -> np.ndarray:
    return np.asarray(tree["observed_data/obs_id"])
