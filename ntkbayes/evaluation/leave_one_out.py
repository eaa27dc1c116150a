"""Leave-one-out cross-validation of a posterior, from one fit, at the points it was fitted to.

The score of a point is log p(yᵢ | y₋ᵢ), its predictive density had it been left out. With posterior
draws f_s it is importance sampling, p(yᵢ | y₋ᵢ) = 1 / E[1 / p(yᵢ | fᵢ)], whose weights
1 / p(yᵢ | f_s) ArviZ smooths (PSIS). Where the latent function is Gaussian with moments m, v and
the noise N(0, σ²), the same expectation has a closed form, the Gaussian cavity:

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
import warnings
from typing import cast

import arviz as az
import equinox as eqx
import numpy as np
import scipy.stats
import xarray as xr

from ntkbayes._arrays import more_digits
from ntkbayes._types import Float, typed
from ntkbayes.evaluation.storage import pooled

__all__ = ["LeaveOneOut", "leave_one_out"]

MIN_DRAWS = 100
"""Where the threshold on k̂, 1 − 1/log₁₀ s, is ½: fewer could not vouch for a finite variance."""


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
        k̂ of each point's weights; above `good_k` its value is not reliable. None in closed form.
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

        Infinite for a single point, which says nothing of how points differ.
        """
        if len(self.pointwise) == 1:
            return np.inf
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
        By ArviZ, if k̂ is above its threshold for a point.

    Raises
    ------
    ValueError
        If the draws are not from a posterior or not at the training points, if fewer than 100 are
        to be reweighted, or if moments are not those of a posterior with this noise.

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
    num_draws = len(pooled(tree, "log_likelihood/y"))
    if num_draws < MIN_DRAWS:
        raise ValueError(
            f"PSIS needs {MIN_DRAWS} draws or more to judge its own weights, but "
            f"{tree.attrs['method']} has {num_draws}: raise num_draws."
        )
    with warnings.catch_warnings():
        if tree["observed_data"].sizes["obs_id"] == 1:  # then the sum is the point, and no mistake
            warnings.filterwarnings("ignore", message="The point-wise LOO is the same")
        found = cast(az.ELPDData, az.loo(tree, var_name="y", pointwise=True))
    return LeaveOneOut(
        pointwise=np.asarray(found.elpd_i, dtype=float),
        p_loo=float(found.p),
        pareto_k=np.asarray(found.pareto_k, dtype=float),
        good_k=float(found.good_k),
        obs_ids=_obs_ids(tree),
    )


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
        np.asarray(tree[f"closed_form/{name}"], dtype=float) for name in ("mean", "variance")
    )
    y = np.asarray(tree["observed_data/y"], dtype=float).reshape(mean.shape)
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


def _obs_ids(tree: xr.DataTree) -> np.ndarray:
    return np.asarray(tree["observed_data/obs_id"])
