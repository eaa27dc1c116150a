"""Where two methods put their variance: near the training data, and far from it.

A method that extrapolates with confidence, or one that does not learn, shows in the ratio of mean
variances far from the data or near it, though a mean over all test points may hide both.
"""

import equinox as eqx
import numpy as np
import sklearn.metrics

from ntkbayes._types import AnyArray, Bool, Float, typed
from ntkbayes.evaluation.distances.draws import BLOCK, Estimate, JointDraws
from ntkbayes.evaluation.effective_size import effective_draws

__all__ = ["VarianceRatio", "far_from_training", "variance_ratio"]


class VarianceRatio(eqx.Module):
    """Ratio of two methods' mean variances at test points near and far from the training data.

    Parameters
    ----------
    near, far
        Mean variance of a over that of b, over points and outputs; noise excluded.
    """

    near: Estimate
    far: Estimate


@typed
def variance_ratio(a: JointDraws, b: JointDraws, far: Bool[np.ndarray, "m"]) -> VarianceRatio:
    """Compare the mean variances of two methods near the training data and far from it.

    The variance of each method is a mean over draws of one number, the mean squared deviation
    over points and outputs, whose standard deviation over √ESS is its standard error; that of the
    ratio follows by the delta method.

    Parameters
    ----------
    a, b
        Draws from `joint_draws`, at the same points.
    far
        Which test points are far, as from `far_from_training`.

    Raises
    ------
    ValueError
        If shapes differ, all or none of the points are far, there is a single draw, or b does
        not vary.
    """
    if a.latent.shape[1:] != b.latent.shape[1:] or len(far) != b.latent.shape[1]:
        raise ValueError(
            "a, b and far must be at the same points and outputs, but have shapes "
            f"{a.latent.shape}, {b.latent.shape} and {far.shape}."
        )
    if far.all() or not far.any():
        raise ValueError(f"far must mark some of the points, but marks {far.sum()} of {len(far)}.")
    return VarianceRatio(
        near=_ratio(_mean_variance(a, ~far), _mean_variance(b, ~far)),
        far=_ratio(_mean_variance(a, far), _mean_variance(b, far)),
    )


def far_from_training(
    x_test: Float[AnyArray, "m *d"], x_train: Float[AnyArray, "n *d"]
) -> Bool[np.ndarray, "m"]:
    """Mark the half of the test points whose nearest training point is farthest away.

    Euclidean distance of the flattened inputs, above its median.

    Parameters
    ----------
    x_test, x_train
        Inputs, scaled as for training.
    """
    flat = [np.asarray(x).reshape(len(x), -1) for x in (x_test, x_train)]
    _, distances = sklearn.metrics.pairwise_distances_argmin_min(*flat)
    return distances > np.median(distances)


def _mean_variance(draws: JointDraws, where: np.ndarray) -> Estimate:
    """Mean variance over the points `where` and all outputs."""
    num_draws, _, num_outputs = draws.latent.shape
    if num_draws == 1:
        raise ValueError("a single draw has no variance: a and b need at least 2 draws.")
    points = np.flatnonzero(where)
    step = max(BLOCK // (num_draws * num_outputs), 1)
    deviations = np.zeros(num_draws)
    for start in range(0, len(points), step):
        block = draws.latent[:, points[start : start + step]].astype(float)
        deviations += np.sum((block - block.mean(axis=0)) ** 2, axis=(1, 2))
    deviations /= len(points) * num_outputs
    ess = effective_draws(deviations[:, None], num_chains=draws.num_chains, kind="mean").item()
    scale = 1 / (1 - 1 / max(draws.num_effective, 2))
    return Estimate(
        float(scale * deviations.mean()), float(scale * deviations.std(ddof=1) / np.sqrt(ess))
    )


def _ratio(a: Estimate, b: Estimate) -> Estimate:
    if b.value == 0:
        raise ValueError("b does not vary at these points: a ratio of variances needs another b.")
    relative = np.hypot(a.standard_error / b.value, a.value * b.standard_error / b.value**2)
    return Estimate(a.value / b.value, float(relative))
