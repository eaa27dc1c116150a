"""Comparison of methods: every metric with its standard error, and every distance with its floor.

Which metrics there are follows from the task. Standard errors are over *test points* (bootstrap,
the same resamples for every method); the Monte-Carlo floor of a distance is over *draws*.
"""

from itertools import combinations

import numpy as np
import pandas as pd
import xarray as xr

from ntkbayes._checks import check_choice
from ntkbayes.evaluation import metrics
from ntkbayes.evaluation.diagnostics import check_reference
from ntkbayes.evaluation.measures import (
    Marginals,
    distance_floor,
    distance_measures,
    measures,
)
from ntkbayes.evaluation.storage import observations

__all__ = ["METRICS", "compare", "distance_matrix", "paired_differences", "wide_table"]

METRICS = {
    "classification": (
        "accuracy",
        "nll",
        "brier",
        "ece",
        "predictive_entropy",
        "mutual_information",
        "agreement",
        "total_variation",
    ),
    "regression": (
        "rmse",
        "nll",
        "crps",
        *(f"{name}_{level}" for level in (50, 90, 95) for name in ("coverage", "width")),
        "wasserstein_1",
    ),
}
"""Names of the metrics of each task, in the order of the tables."""


def compare(
    trees: dict[str, xr.DataTree], *, reference: str | None, require_reliable: bool = True
) -> pd.DataFrame:
    """Compare methods by every metric of the task, in long form.

    Parameters
    ----------
    trees
        Predictions of each method at the same points; the keys name the methods.
    reference
        Method to measure distances from, such as "HMC"; None for no distances. The reference has
        no distance from itself.
    require_reliable
        Refuse Markov chains as a reference whose `chain_diagnostics` are not reliable.

    Returns
    -------
    DataFrame
        Columns ``dataset, split, method, metric, value, standard_error, monte_carlo_floor``.
        ``standard_error`` is that of the finite test set (0 for an accuracy or coverage of 1: a
        resample of right answers holds no wrong one); ``monte_carlo_floor`` is the distance
        that draws of one distribution would show (NaN for metrics that are not distances).

    Raises
    ------
    ValueError
        If there are no predictions, if they are not of the same dataset, split and observations,
        or if `reference` is not among the methods, or not reliable.
    """
    check_comparable(trees)
    _check_reference(trees, reference, require_reliable)
    marginals = {method: Marginals(tree) for method, tree in trees.items()}
    resampled = _resample(trees, marginals, reference)
    first = next(iter(trees.values()))
    floors = {
        (method, name): floor
        for method in trees
        if reference is not None and method != reference
        for name, floor in distance_floor(marginals[method], marginals[reference]).items()
    }
    rows = [
        {
            "dataset": first.attrs["dataset"],
            "split": first.attrs["split"],
            "method": method,
            "metric": metric,
            "value": float(values[0]),
            "standard_error": float(values[1:].std(ddof=1)),
            "monte_carlo_floor": floors.get((method, metric), np.nan),
        }
        for (method, metric), values in resampled.items()
    ]
    return pd.DataFrame(rows)


def paired_differences(
    trees: dict[str, xr.DataTree],
    *,
    baseline: str,
    reference: str | None,
    require_reliable: bool = True,
) -> pd.DataFrame:
    """Compare every method with one baseline: metric of the method minus metric of the baseline.

    The same test points are resampled for both, so the standard error is that of the difference
    and much smaller than those of the two metrics combined.

    Parameters
    ----------
    trees, reference, require_reliable
        As in `compare`.
    baseline
        Method that is subtracted.

    Returns
    -------
    DataFrame
        Columns ``method, baseline, metric, difference, standard_error``; no row for the baseline,
        nor for the distances of the reference.

    Raises
    ------
    ValueError
        As in `compare`, and if `baseline` is not among the methods.
    """
    check_comparable(trees)
    _check_reference(trees, reference, require_reliable)
    check_choice("baseline", baseline, trees)
    marginals = {method: Marginals(tree) for method, tree in trees.items()}
    resampled = _resample(trees, marginals, reference)
    rows = [
        {
            "method": method,
            "baseline": baseline,
            "metric": metric,
            "difference": float(difference[0]),
            "standard_error": float(difference[1:].std(ddof=1)),
        }
        for (method, metric), values in resampled.items()
        if method != baseline and (baseline, metric) in resampled
        for difference in [values - resampled[baseline, metric]]
    ]
    columns = ["method", "baseline", "metric", "difference", "standard_error"]
    return pd.DataFrame(rows, columns=columns)


def distance_matrix(trees: dict[str, xr.DataTree]) -> pd.DataFrame:
    """Return the distance between every two methods: total variation, or Wasserstein-1.

    Classification: mean total variation of the predictive probabilities. Regression: mean
    Wasserstein-1 distance of the latent function's marginals (noise excluded), in target units.

    Raises
    ------
    ValueError
        As in `compare`.
    """
    check_comparable(trees)
    weights = _weights(trees)[0]
    names = list(trees)
    matrix = pd.DataFrame(0.0, index=names, columns=names)
    marginals = {method: Marginals(tree) for method, tree in trees.items()}
    for a, b in combinations(names, 2):
        *_, distance = distance_measures(marginals[a], marginals[b]).values()
        value = float(distance(weights))
        matrix.loc[a, b] = matrix.loc[b, a] = value
    return matrix


def wide_table(long: pd.DataFrame) -> pd.DataFrame:
    """Lay out `compare`'s result as method × metric, with texts such as "0.962 ± 0.008".

    Rows and columns keep their order in `long`; each column has as many decimals (3 or 4) as its
    standard errors deserve. A distance is followed by a column with its Monte-Carlo floor. "–"
    stands where a method has no value.

    Raises
    ------
    ValueError
        If a method has a metric twice, as in tables of several datasets put together.
    """
    if long.duplicated(["method", "metric"]).any():
        raise ValueError("long holds a metric of a method twice; select one dataset and split.")
    columns: dict[str, pd.Series] = {}
    for metric in long["metric"].unique():
        rows = long[long["metric"] == metric].set_index("method")
        value, error = rows["value"].to_numpy(), rows["standard_error"].to_numpy()
        floor, digits = rows["monte_carlo_floor"].to_numpy(), _decimals(error)
        texts = [f"{v:.{digits}f} ± {e:.{digits}f}" for v, e in zip(value, error, strict=True)]
        columns[metric] = pd.Series(texts, index=rows.index)
        if np.isfinite(floor).any():
            texts = [f"{v:.{digits}f}" for v in floor]
            columns[f"{metric}_floor"] = pd.Series(texts, index=rows.index)
    table = pd.DataFrame(columns).reindex(long["method"].unique()).fillna("–")
    table.index.name = "method"
    return table


def check_comparable(trees: dict[str, xr.DataTree]) -> None:
    """Raise `ValueError` unless all trees predict the same observations, and there is one."""
    if not trees:
        raise ValueError("trees is empty: at least one method's predictions are needed.")
    (first_name, first), *others = trees.items()
    for name, tree in others:
        for what in ("dataset", "split", "task"):
            if tree.attrs[what] != first.attrs[what]:
                raise ValueError(
                    f"{first_name} and {name} cannot be compared: their {what} differs "
                    f"({first.attrs[what]} and {tree.attrs[what]})."
                )
        if not np.array_equal(observations(first), observations(tree)):
            raise ValueError(
                f"{first_name} and {name} cannot be compared: their observations differ; "
                "predict with the same dataset and seed."
            )


def _check_reference(
    trees: dict[str, xr.DataTree], reference: str | None, require_reliable: bool
) -> None:
    if reference is not None:
        check_choice("reference", reference, trees)
        if require_reliable:
            check_reference(reference, trees[reference])


def _resample(
    trees: dict[str, xr.DataTree], marginals: dict[str, Marginals], reference: str | None
) -> dict[tuple[str, str], np.ndarray]:
    """Every metric of every method, on the test points (first) and on their resamples."""
    weights = _weights(trees)
    resampled = {}
    for method, tree in trees.items():
        bound = measures(tree)
        if reference is not None and reference != method:
            bound |= distance_measures(marginals[method], marginals[reference])
        resampled |= {(method, name): metric(weights) for name, metric in bound.items()}
    return resampled


def _weights(trees: dict[str, xr.DataTree]) -> np.ndarray:
    num_points = len(observations(next(iter(trees.values()))))
    uniform = metrics.uniform_weights(num_points)
    return np.concatenate([uniform[None], metrics.bootstrap_weights(num_points)])


def _decimals(standard_errors: np.ndarray) -> int:
    """Three or four decimals, so that the typical standard error shows a digit."""
    positive = standard_errors[standard_errors > 1e-12]  # smaller ones are rounding
    if positive.size == 0:
        return 3
    return int(np.clip(np.ceil(-np.log10(np.median(positive))), 3, 4))
