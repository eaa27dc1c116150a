"""Distances between methods: of every two, and of whole latent functions from a reference.

`compare` measures distances from a reference point by point. Two methods with the same marginals
may still differ in how function values at different points hang together; what can be said of that
from finite draws, and with which error, is in `ntkbayes.evaluation.distances`.
"""

from itertools import combinations

import numpy as np
import pandas as pd
import xarray as xr

from ntkbayes._checks import check_choice
from ntkbayes._types import Bool, typed
from ntkbayes.evaluation import distances, metrics
from ntkbayes.evaluation.alignment import aligned, dataset_of
from ntkbayes.evaluation.catalog import metric_info
from ntkbayes.evaluation.comparison import check_reference
from ntkbayes.evaluation.distances import Estimate, JointDraws, joint_draws
from ntkbayes.evaluation.measures import distance_measures
from ntkbayes.evaluation.predictive import Predictive

__all__ = ["compare_joint", "distance_matrix"]

MAX_DRAWS = 500
"""Draws of each method that joint distances use; their time grows with its square."""


def distance_matrix(trees: dict[str, xr.DataTree], *, measure: str | None = None) -> pd.DataFrame:
    """Return the distance between every two methods, mean over test points.

    Parameters
    ----------
    trees
        Predictions of each method at the same points.
    measure
        Name of a distance in `METRICS`; of the joint ones ``"energy_distance"``, which has no
        bias, and so may be below 0 by chance. Default: ``"total_variation"`` of the predictive
        probabilities in classification; in regression ``"wasserstein_1"``, of the latent
        function's marginals (noise excluded), in target units.

    Returns
    -------
    DataFrame
        Symmetric, method × method. On the diagonal 0, or 1 where higher is closer (``agreement``).

    Raises
    ------
    ValueError
        As in `compare`, and if the task has no such distance.

    Examples
    --------
    >>> nb.evaluation.distance_matrix(trees).round(2)
                  NTK ensemble  Laplace
    NTK ensemble          0.00     0.05
    Laplace               0.05     0.00
    """
    trees = aligned(trees)
    names = list(trees)
    if measure == "energy_distance":
        return _energy_distances(trees)
    found = {method: Predictive(tree) for method, tree in trees.items()}
    first = found[names[0]]
    weights = metrics.uniform_weights(len(first.observations))
    measure = measure or ("total_variation" if first.is_classification else "wasserstein_1")
    check_choice("measure", measure, [*distance_measures(first, first), "energy_distance"])
    itself = 1.0 if metric_info(measure).better == "higher" else 0.0
    matrix = np.full((len(names), len(names)), itself)
    for (i, a), (j, b) in combinations(enumerate(names), 2):
        distance = distance_measures(found[a], found[b])[measure]
        matrix[i, j] = matrix[j, i] = distance(weights)
    return pd.DataFrame(matrix, index=names, columns=names)


def _energy_distances(trees: dict[str, xr.DataTree]) -> pd.DataFrame:
    draws = {name: joint_draws(tree, max_draws=MAX_DRAWS) for name, tree in trees.items()}
    matrix = pd.DataFrame(0.0, index=list(trees), columns=list(trees))
    for a, b in combinations(trees, 2):
        matrix.loc[a, b] = matrix.loc[b, a] = distances.energy_distance(draws[a], draws[b]).value
    return matrix


@typed
def compare_joint(
    trees: dict[str, xr.DataTree],
    *,
    reference: str,
    far: Bool[np.ndarray, "m"] | None = None,
    max_draws: int = MAX_DRAWS,
    require_reliable: bool = True,
) -> pd.DataFrame:
    """Compare every method with a reference, as distributions of whole latent functions.

    Parameters
    ----------
    trees, reference, require_reliable
        As in `compare`; the reference needs two draws or more.
    far
        Which test points are far from the training data, as from
        `ntkbayes.evaluation.distances.far_from_training`; None for no variances near and far. In
        the order of the row numbers, or, where points were given other identifiers, of the first
        method.
    max_draws
        Draws used of each method, evenly spaced; time grows with its square.

    Returns
    -------
    DataFrame
        Long form with the columns of `compare`, for `wide_table` and the others. The metrics are
        ``energy_distance``, ``squared_mmd`` (with the median distance between draws of the
        reference as its bandwidth), ``mean_distance`` (squared, in variances of the reference),
        ``covariance_distance`` (relative to the reference, squared) and ``covariance_alignment``
        where both have 40 draws, ``variance_near`` and ``variance_far`` (over the reference's)
        where the method has two. ``standard_error`` is over *draws*, at fixed test points; values
        of methods share the error of the reference, so that nothing is said of paired differences
        (NaN). All values are without bias: there is no floor (NaN), and a distance of 0 may come
        out negative.

    Raises
    ------
    ValueError
        As in `compare`, and if the reference has a single draw or does not vary, or `far` does not
        divide these test points.

    Examples
    --------
    >>> table = nb.evaluation.compare_joint(trees, reference="Laplace")
    >>> list(table["metric"])[:4]
    ['energy_distance', 'squared_mmd', 'mean_distance', 'covariance_distance']
    """
    trees = aligned(trees)
    check_reference(trees, reference, require_reliable)
    of_reference = joint_draws(trees[reference], max_draws=max_draws)
    if len(of_reference.latent) < 2:
        raise ValueError(f"the reference {reference} must have two draws or more, but has one.")
    _check_far(far, of_reference.latent.shape[1])
    bandwidth = distances.median_distance(of_reference)
    first = trees[reference]
    rows = [
        {
            "dataset": dataset_of(trees),
            "split": first.attrs["split"],
            "method": method,
            "metric": metric,
            "value": estimate.value,
            "standard_error": estimate.standard_error,
            "from_best": np.nan,
            "from_best_error": np.nan,
            "monte_carlo_floor": np.nan,
            "calibration_floor": np.nan,
            "num_units": np.nan,
        }
        for method, tree in trees.items()
        if method != reference
        for metric, estimate in _estimates(
            joint_draws(tree, max_draws=max_draws), of_reference, bandwidth, far
        ).items()
    ]
    return pd.DataFrame(rows)


def _check_far(far: np.ndarray | None, num_points: int) -> None:
    if far is None:
        return
    if len(far) != num_points:
        raise ValueError(f"far must mark the {num_points} test points, but has {len(far)} marks.")
    if far.all() or not far.any():
        raise ValueError(f"far must mark some of the points, but marks {far.sum()} of {len(far)}.")


def _estimates(
    a: JointDraws, b: JointDraws, bandwidth: float, far: np.ndarray | None
) -> dict[str, Estimate]:
    found = {
        "energy_distance": distances.energy_distance(a, b),
        "squared_mmd": distances.squared_mmd(a, b, bandwidth=bandwidth),
        "mean_distance": distances.mean_distance(a, b),
    }
    if distances.enough_for_covariance(a) and distances.enough_for_covariance(b):
        comparison = distances.covariance_comparison(a, b)
        found["covariance_distance"] = comparison.squared_distance
        found["covariance_alignment"] = comparison.alignment
    if far is not None and len(a.latent) > 1:
        found["variance_near"] = distances.variance_ratio(a, b, ~far)
        found["variance_far"] = distances.variance_ratio(a, b, far)
    return found
