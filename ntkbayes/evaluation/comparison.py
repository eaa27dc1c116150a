"""Comparison of methods: every metric with its standard error, and every distance with its floor.

Which metrics there are follows from the task. Standard errors are over *test points* (bootstrap,
the same resamples for every method); the Monte-Carlo floor of a distance is over *draws*.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from ntkbayes._checks import check_choice
from ntkbayes.evaluation import metrics
from ntkbayes.evaluation.alignment import aligned, dataset_of
from ntkbayes.evaluation.catalog import METRICS, metric_info
from ntkbayes.evaluation.diagnostics import check_reliable
from ntkbayes.evaluation.measures import (
    calibration_floor,
    distance_floor,
    distance_measures,
    draws_deviations,
    measures,
)
from ntkbayes.evaluation.metrics.resampling import spread, two_sided_p_value
from ntkbayes.evaluation.predictive import Predictive
from ntkbayes.evaluation.schema import STANDARDISED
from ntkbayes.evaluation.stakes import (
    Stake,
    distance_stakes,
    stakes,
    unseen_difference,
    unseen_error,
)
from ntkbayes.evaluation.units import UNITS, original_units

__all__ = [
    "check_reference",
    "compare",
    "num_units",
    "paired_differences",
    "significance",
]

ORDER_ROUNDING = 1e-12
"""Relative difference of two values that are the same sum in another order."""


def compare(
    trees: dict[str, xr.DataTree],
    *,
    reference: str | None = None,
    require_reliable: bool = True,
    units: str = "standardised",
) -> pd.DataFrame:
    """Compare methods by every metric of the task, in long form.

    Parameters
    ----------
    trees
        Predictions of each method at the same points, paired by their ``obs_id`` in whatever order;
        the keys name the methods.
    reference
        Method to measure distances from, such as "HMC"; by default there are no distances. The
        reference has no distance from itself.
    require_reliable
        Refuse Markov chains as a reference whose `chain_diagnostics` are not reliable.
    units
        "standardised", as a `Dataset` standardises regression targets, or "original", the
        targets' own (`original_units`). Predictions that know of no other units, such as those of
        `from_normals`, are in the units in which they were given.

    Returns
    -------
    DataFrame
        Columns ``dataset, split, method, metric, value, standard_error, from_best,
        from_best_error, monte_carlo_floor, calibration_floor, num_units, unit``.

        ``unit`` says what the value is in: "nats", "target units" (the targets' own, or as given),
        "standardised target units", or nothing.

        ``standard_error`` is that of the finite test set, for these predictors as they are: what
        other *training* data would change is no part of it (`seed_table`). That of ``joint_nll``
        and ``dyadic_nll`` holds the Monte-Carlo error of 40 draws or more, too (fewer are the
        members of an ensemble), and is NaN where too few of them carry the value. It rests on
        ``num_units`` independent units, points or batches of them: an interval is ± Student's
        quantile of one degree of freedom less, and of a single unit there is no error (NaN).
        ``from_best`` says how much worse than the best method of this metric, ≥ 0, with the
        standard error of the paired difference (NaN for metrics that are neither better low nor
        high, such as an entropy, for those that methods are not to be ranked by, for the reason
        that `METRICS` has as their ``caveat``, and for methods without a value, which leave the
        others' as they are).
        ``monte_carlo_floor`` is the distance that draws of one distribution would show (NaN for
        metrics that are not distances), ``calibration_floor`` the calibration error that a
        calibrated predictor with these predictions would show by chance alone at as many points
        (NaN for metrics that have no such bias).

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
    trees = aligned(in_units(trees, units))
    check_reference(trees, reference, require_reliable)
    found = {method: Predictive(tree) for method, tree in trees.items()}
    resampled, unseen = _resample(found, reference), _Unseen(found, reference)
    first = next(iter(trees.values()))
    num_points = len(found[next(iter(trees))].observations)
    floors = {
        (method, name): floor
        for method in trees
        if reference is not None and method != reference
        for name, floor in distance_floor(found[method], found[reference]).items()
    }
    by_chance = {method: calibration_floor(each) for method, each in found.items()}
    rows = [
        {
            "dataset": dataset_of(trees),
            "split": first.attrs["split"],
            "method": method,
            "metric": metric,
            "value": float(values[0]),
            "standard_error": float(
                np.hypot(
                    spread(values[1:], num_units(metric, num_points)), unseen.error(method, metric)
                )
            ),
            **_from_best(method, metric, resampled, unseen, num_points),
            "monte_carlo_floor": floors.get((method, metric), np.nan),
            "calibration_floor": by_chance[method].get(metric, np.nan),
            "num_units": num_units(metric, num_points),
            "unit": unit_of(metric, first),
        }
        for (method, metric), values in resampled.items()
    ]
    return pd.DataFrame(rows)


def _from_best(
    method: str,
    metric: str,
    resampled: dict[tuple[str, str], np.ndarray],
    unseen: "_Unseen",
    num_points: int,
) -> dict[str, float]:
    """How much worse than the best method, on the same points, with its standard error."""
    better = metric_info(metric).better
    if better is None or not metric_info(metric).ranked:
        return {"from_best": np.nan, "from_best_error": np.nan}
    sign = 1 if better == "lower" else -1
    of_all = {each: sign * values for (each, name), values in resampled.items() if name == metric}
    known = {each: values for each, values in of_all.items() if not np.isnan(values[0])} or of_all
    best = min(known, key=lambda each: known[each][0])
    found = significance(
        metric,
        of_all[method],
        of_all[best],
        num_points,
        unseen=unseen.difference(method, best, metric),
    )
    return {"from_best": found["difference"], "from_best_error": found["standard_error"]}


def paired_differences(
    trees: dict[str, xr.DataTree],
    *,
    baseline: str | Sequence[str],
    reference: str | None = None,
    require_reliable: bool = True,
    units: str = "standardised",
) -> pd.DataFrame:
    """Compare every method with a baseline: metric of the method minus metric of the baseline.

    The same test points are resampled for both, so the standard error is that of the difference
    and much smaller than those of the two metrics combined.

    Parameters
    ----------
    trees, reference, require_reliable, units
        As in `compare`.
    baseline
        Method that is subtracted; of several, each in turn.

    Returns
    -------
    DataFrame
        Columns ``method, baseline, metric, difference, standard_error, p_value``; no row for the
        baseline, nor for the distances of the reference. ``p_value`` is two-sided, of Student's t
        with one degree of freedom less than there are independent units (points, or batches), and
        not corrected for how many differences are looked at; 1 if there is no difference at any
        point, NaN of a single unit and of metrics with a ``caveat`` in `METRICS`. Like the standard
        error it is a statement about *these* predictors at new test points, not about what other
        training data would have made of them.

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
    trees = aligned(in_units(trees, units))
    check_reference(trees, reference, require_reliable)
    baselines = [baseline] if isinstance(baseline, str) else baseline
    for name in baselines:
        check_choice("baseline", name, trees)
    found = {method: Predictive(tree) for method, tree in trees.items()}
    resampled, unseen = _resample(found, reference), _Unseen(found, reference)
    num_points = len(found[baselines[0]].observations)
    rows = [
        {
            "method": method,
            "baseline": subtracted,
            "metric": metric,
            **significance(
                metric,
                values,
                resampled[subtracted, metric],
                num_points,
                unseen=unseen.difference(method, subtracted, metric),
            ),
        }
        for subtracted in baselines
        for (method, metric), values in resampled.items()
        if method != subtracted and (subtracted, metric) in resampled
    ]
    columns = ["method", "baseline", "metric", "difference", "standard_error", "p_value"]
    return pd.DataFrame(rows, columns=columns)


def significance(
    metric: str,
    values: np.ndarray,
    others: np.ndarray,
    num_points: int,
    *,
    unseen: float = 0.0,
) -> dict[str, float]:
    """Difference on the test points, its error over resamples, and the p-value of no difference.

    ``unseen`` is the part of the error that resamples do not see (`stakes`). Values that differ by
    rounding alone are equal, and an infinite one has no error.
    """
    independent = num_units(metric, num_points)
    with np.errstate(invalid="ignore"):  # ∞ − ∞
        difference = np.where(values == others, 0.0, values - others)
        close = np.abs(difference) <= ORDER_ROUNDING * np.maximum(np.abs(values), np.abs(others))
        close &= np.isfinite(difference)
    difference = np.where(close, 0.0, difference)
    value, error = float(difference[0]), spread(difference[1:], independent)
    known = np.concatenate([values, others])
    largest = np.abs(known[np.isfinite(known)]).max(initial=0.0)
    if error <= ORDER_ROUNDING * largest:  # all points alike: resamples know nothing of a spread
        error = 0.0
    error = float(np.hypot(error, unseen))
    trusted = not metric_info(metric).caveat
    p_value = two_sided_p_value(value, error, independent) if trusted else np.nan
    return {"difference": value, "standard_error": error, "p_value": p_value}


def in_units(trees: dict[str, xr.DataTree], units: str) -> dict[str, xr.DataTree]:
    """Return predictions in the units that are asked for, as far as they know others."""
    check_choice("units", units, UNITS)
    if units == STANDARDISED or not isinstance(trees, dict):
        return trees
    return {
        name: original_units(tree) if isinstance(tree, xr.DataTree) else tree
        for name, tree in trees.items()
    }


def unit_of(metric: str, tree: xr.DataTree) -> str:
    """Say what a metric of predictions is measured in."""
    known = METRICS[tree.attrs["task"]]
    unit = known[metric].unit if metric in known else ""
    standardised = unit == "target units" and tree.attrs.get("units") == STANDARDISED
    return f"standardised {unit}" if standardised else unit


def num_units(metric: str, num_points: int) -> int:
    """Return how many independent values the standard error of a metric rests on."""
    return num_points // metric_info(metric).points_per_unit


def check_reference(
    trees: dict[str, xr.DataTree], reference: str | None, require_reliable: bool
) -> None:
    """Raise `ValueError` unless there is this reference, and it is reliable if it must be."""
    if reference is not None:
        check_choice("reference", reference, trees)
        if require_reliable:
            check_reliable(reference, trees[reference])


class _Unseen:
    """What resamples of the test points do not show: rare answers, and that draws are finite."""

    def __init__(self, found: dict[str, Predictive], reference: str | None):
        self._stakes: dict[tuple[str, str], Stake] = {}
        self._draws: dict[tuple[str, str], np.ndarray] = {}
        for method, predictive in found.items():
            at_stake = stakes(predictive)
            if reference is not None and reference != method:
                at_stake |= distance_stakes(predictive, found[reference])
            self._stakes |= {(method, name): each for name, each in at_stake.items()}
            deviations = draws_deviations(predictive)
            self._draws |= {(method, name): each for name, each in deviations.items()}

    def error(self, method: str, metric: str) -> float:
        """Of a metric; NaN where it is unknown."""
        at_stake = unseen_error(self._stakes.get((method, metric)))
        return float(np.hypot(at_stake, np.linalg.norm(self._of_draws(method, metric))))

    def difference(self, a: str, b: str, metric: str) -> float:
        """Of the difference between two methods."""
        if a == b:
            return 0.0
        at_stake = unseen_difference(*(self._stakes.get((each, metric)) for each in (a, b)))
        deviations = self._of_draws(a, metric) - self._of_draws(b, metric)
        return float(np.hypot(at_stake, np.linalg.norm(deviations)))

    def _of_draws(self, method: str, metric: str) -> np.ndarray:
        return self._draws.get((method, metric), np.zeros(1))


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
