"""Comparison of methods: every metric with its standard error, and every distance with its floor.

Which metrics there are follows from the task. Standard errors are over *test points* (bootstrap,
the same resamples for every method); the Monte-Carlo floor of a distance is over *draws*.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.stats
import xarray as xr

from ntkbayes._checks import check_choice
from ntkbayes.evaluation import metrics
from ntkbayes.evaluation.alignment import aligned, dataset_of
from ntkbayes.evaluation.catalog import metric_info
from ntkbayes.evaluation.diagnostics import check_reliable
from ntkbayes.evaluation.measures import distance_floor, distance_measures, measures
from ntkbayes.evaluation.predictive import Predictive

__all__ = [
    "check_reference",
    "compare",
    "paired_differences",
]


def compare(
    trees: dict[str, xr.DataTree], *, reference: str | None, require_reliable: bool = True
) -> pd.DataFrame:
    """Compare methods by every metric of the task, in long form.

    Parameters
    ----------
    trees
        Predictions of each method at the same points, paired by their ``obs_id`` in whatever order;
        the keys name the methods.
    reference
        Method to measure distances from, such as "HMC"; None for no distances. The reference has
        no distance from itself.
    require_reliable
        Refuse Markov chains as a reference whose `chain_diagnostics` are not reliable.

    Returns
    -------
    DataFrame
        Columns ``dataset, split, method, metric, value, standard_error, from_best,
        from_best_error, monte_carlo_floor``. ``standard_error`` is that of the finite test set (0
        for an accuracy or coverage of 1: a resample of right answers holds no wrong one).
        ``from_best`` says how much worse than the best method of this metric, ≥ 0, with the
        standard error of the paired difference (NaN for metrics that are neither better low nor
        high, such as an entropy). ``monte_carlo_floor`` is the distance that draws of one
        distribution would show (NaN for metrics that are not distances).

    Raises
    ------
    ValueError
        If `trees` is no dictionary of predictions or empty, if they are not of the same dataset
        (unless it is unnamed), split, classes or targets, points and observations, or if
        `reference` is not among the methods, or not reliable.

    Examples
    --------
    >>> table = nb.compare(trees, reference="Laplace").set_index(["metric", "method"])
    >>> table.loc["nll", ["value", "standard_error", "from_best"]].round(2)
                  value  standard_error  from_best
    method
    NTK ensemble   0.34            0.02       0.00
    Laplace        0.38            0.02       0.04
    """
    trees = aligned(trees)
    check_reference(trees, reference, require_reliable)
    found = {method: Predictive(tree) for method, tree in trees.items()}
    resampled = _resample(found, reference)
    first = next(iter(trees.values()))
    floors = {
        (method, name): floor
        for method in trees
        if reference is not None and method != reference
        for name, floor in distance_floor(found[method], found[reference]).items()
    }
    rows = [
        {
            "dataset": dataset_of(trees),
            "split": first.attrs["split"],
            "method": method,
            "metric": metric,
            "value": float(values[0]),
            "standard_error": _spread(values),
            **_from_best(method, metric, resampled),
            "monte_carlo_floor": floors.get((method, metric), np.nan),
        }
        for (method, metric), values in resampled.items()
    ]
    return pd.DataFrame(rows)


def _from_best(
    method: str, metric: str, resampled: dict[tuple[str, str], np.ndarray]
) -> dict[str, float]:
    """How much worse than the best method, on the same points, with its standard error."""
    better = metric_info(metric).better
    if better is None:
        return {"from_best": np.nan, "from_best_error": np.nan}
    sign = 1 if better == "lower" else -1
    of_all = [sign * values for (_, name), values in resampled.items() if name == metric]
    own, best = sign * resampled[method, metric], min(of_all, key=lambda values: values[0])
    difference = _difference(own, best)
    return {"from_best": float(difference[0]), "from_best_error": _spread(difference)}


def _difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Subtract metrics; two infinite ones of one sign differ by 0."""
    with np.errstate(invalid="ignore"):
        return np.where(one == other, 0.0, one - other)


def _spread(resampled: np.ndarray) -> float:
    """Return the standard error of what is first of all points, then of resampled ones."""
    again = resampled[1:]
    return float(again.std(ddof=1)) if np.isfinite(again).all() else np.inf


def paired_differences(
    trees: dict[str, xr.DataTree],
    *,
    baseline: str | Sequence[str],
    reference: str | None,
    require_reliable: bool = True,
) -> pd.DataFrame:
    """Compare every method with a baseline: metric of the method minus metric of the baseline.

    The same test points are resampled for both, so the standard error is that of the difference
    and much smaller than those of the two metrics combined.

    Parameters
    ----------
    trees, reference, require_reliable
        As in `compare`.
    baseline
        Method that is subtracted; of several, each in turn.

    Returns
    -------
    DataFrame
        Columns ``method, baseline, metric, difference, standard_error, p_value``; no row for the
        baseline, nor for the distances of the reference. ``p_value`` is two-sided, of a normal
        difference with that standard error (1 if both are 0), and not corrected for how many
        differences are looked at.

    Raises
    ------
    ValueError
        As in `compare`, and if `baseline` is not among the methods.

    Examples
    --------
    >>> table = nb.evaluation.paired_differences(trees, baseline="Laplace", reference=None)
    >>> table.loc[table["metric"] == "nll", ["method", "baseline", "difference"]].round(2)
             method baseline  difference
    1  NTK ensemble  Laplace       -0.04
    """
    trees = aligned(trees)
    check_reference(trees, reference, require_reliable)
    baselines = [baseline] if isinstance(baseline, str) else baseline
    for name in baselines:
        check_choice("baseline", name, trees)
    found = {method: Predictive(tree) for method, tree in trees.items()}
    resampled = _resample(found, reference)
    rows = [
        {
            "method": method,
            "baseline": subtracted,
            "metric": metric,
            **_significance(_difference(values, resampled[subtracted, metric])),
        }
        for subtracted in baselines
        for (method, metric), values in resampled.items()
        if method != subtracted and (subtracted, metric) in resampled
    ]
    columns = ["method", "baseline", "metric", "difference", "standard_error", "p_value"]
    return pd.DataFrame(rows, columns=columns)


def _significance(difference: np.ndarray) -> dict[str, float]:
    """Difference on the test points, its error over resamples, and the p-value of no difference."""
    value, error = float(difference[0]), _spread(difference)
    if np.isinf(error):
        return {"difference": value, "standard_error": error, "p_value": 1.0}
    p_value = 2 * scipy.stats.norm.sf(abs(value) / error) if error > 0 else float(value == 0)
    return {"difference": value, "standard_error": error, "p_value": float(p_value)}


def check_reference(
    trees: dict[str, xr.DataTree], reference: str | None, require_reliable: bool
) -> None:
    """Raise `ValueError` unless there is this reference, and it is reliable if it must be."""
    if reference is not None:
        check_choice("reference", reference, trees)
        if require_reliable:
            check_reliable(reference, trees[reference])


def _resample(
    found: dict[str, Predictive], reference: str | None
) -> dict[tuple[str, str], np.ndarray]:
    """Every metric of every method, on the test points (first) and on their resamples."""
    weights = _weights(found)
    resampled = {}
    for method, predictive in found.items():
        bound = measures(predictive)
        if reference is not None and reference != method:
            bound |= distance_measures(found[method], found[reference])
        resampled |= {(method, name): metric(weights) for name, metric in bound.items()}
    return resampled


def _weights(found: dict[str, Predictive]) -> np.ndarray:
    num_points = len(next(iter(found.values())).observations)
    uniform = metrics.uniform_weights(num_points)
    return np.concatenate([uniform[None], metrics.bootstrap_weights(num_points)])
