"""How much methods vary, and where: near the training data, or far from it.

A method that extrapolates with confidence, or one that does not learn, shows in the ratio of mean
variances far from the data or near it, though a mean over all test points may hide both.
"""

import numpy as np
import sklearn.metrics

from ntkbayes._types import AnyArray, Bool, Float, typed
from ntkbayes.evaluation.distances.draws import BLOCK, Estimate, JointDraws
from ntkbayes.evaluation.effective_size import effective_draws

__all__ = [
    "distance_from_training",
    "far_from_training",
    "mean_variance",
    "relative_to",
    "variance_ratio",
]


@typed
def variance_ratio(
    a: JointDraws, b: JointDraws, where: Bool[np.ndarray, "m"] | None = None
) -> Estimate:
    """Compare the mean variances of two methods at some of the test points.

    The mean variance of a over that of b, means over points and outputs, noise excluded. The
    variance of each method is a mean over draws of one number, the mean squared deviation over
    points and outputs, whose standard deviation over √ESS is its standard error; that of the ratio
    follows by the delta method.

    Parameters
    ----------
    a, b
        Draws from `joint_draws`, at the same points.
    where
        At which points, as `far_from_training` marks them. Default: all.

    Raises
    ------
    ValueError
        If shapes differ, no point is marked, there is a single draw, or b does not vary.
    """
    where = np.ones(a.latent.shape[1], dtype=bool) if where is None else where
    if a.latent.shape[1:] != b.latent.shape[1:] or len(where) != b.latent.shape[1]:
        raise ValueError(
            "a, b and where must be at the same points and outputs, but have shapes "
            f"{a.latent.shape}, {b.latent.shape} and {where.shape}."
        )
    if not where.any():
        raise ValueError(f"where must mark some of the points, but marks none of {len(where)}.")
    return relative_to(mean_variance(a, where), mean_variance(b, where))


@typed
def mean_variance(draws: JointDraws, where: Bool[np.ndarray, "m"] | None = None) -> Estimate:
    """Estimate the variance of a method, a mean over points and outputs, squared latent units.

    Parameters
    ----------
    draws
        Draws from `joint_draws`.
    where
        At which points. Default: all.

    Raises
    ------
    ValueError
        If there is a single draw.
    """
    num_draws, num_points, num_outputs = draws.latent.shape
    if num_draws == 1:
        raise ValueError("a single draw has no variance: a and b need at least 2 draws.")
    points = np.flatnonzero(np.ones(num_points, dtype=bool) if where is None else where)
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


@typed
def distance_from_training(
    x_test: Float[AnyArray, "m *d"], x_train: Float[AnyArray, "n *d"]
) -> Float[np.ndarray, "m"]:
    """Return the Euclidean distance of each test point from its nearest training point.

    Parameters
    ----------
    x_test, x_train
        Inputs, scaled as for training; flattened.
    """
    flat = [np.asarray(x).reshape(len(x), -1) for x in (x_test, x_train)]
    return sklearn.metrics.pairwise_distances_argmin_min(*flat)[1]


@typed
def far_from_training(
    x_test: Float[AnyArray, "m *d"], x_train: Float[AnyArray, "n *d"]
) -> Bool[np.ndarray, "m"]:
    """Mark the half of the test points whose nearest training point is farthest away.

    Those whose `distance_from_training` is above its median.

    Parameters
    ----------
    x_test, x_train
        Inputs, scaled as for training.
    """
    distances = distance_from_training(x_test, x_train)
    return distances > np.median(distances)


def relative_to(a: Estimate, b: Estimate) -> Estimate:
    """Return a / b of independent estimates, with its error by the delta method.

    Raises
    ------
    ValueError
        If b is 0, as of draws that do not vary.
    """
    if b.value == 0:
        raise ValueError("b does not vary at these points: a ratio of variances needs another b.")
    relative = np.hypot(a.standard_error / b.value, a.value * b.standard_error / b.value**2)
    return Estimate(a.value / b.value, float(relative))
