"""What the numbers of a comparison say, in plain sentences.

A claim needs a 95 % interval that leaves its contrary out: Student's quantile of the table's
standard errors, about two of them. Several claims at once are not corrected for. Standard errors
are over test points, for the predictors as they were trained: nothing is said of other training
data. What only the finite number of draws leaves open, the Monte-Carlo floor, is never called a
difference, nor is rounding. Where there is no standard error there is no claim.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from ntkbayes._checks import check_at_least
from ntkbayes.evaluation.catalog import metric_title
from ntkbayes.evaluation.diagnostics import ChainDiagnostics
from ntkbayes.evaluation.metrics.resampling import error_quantile
from ntkbayes.evaluation.plots.style import check_columns
from ntkbayes.evaluation.tables import decimals, wide_table, with_error

__all__ = ["verdict", "verdict_baselines"]

DISTANCES = ("total_variation", "wasserstein_1")
"""The first of these that a table has says how close methods are."""
NEGLIGIBLE = 5e-4
"""A difference that prints as 0.000, between methods equal up to rounding, is none."""

_COLUMNS = ("method", "metric", "value", "standard_error", "monte_carlo_floor")


def verdict(
    metrics: pd.DataFrame,
    *,
    num_points: int,
    reference: str | None = None,
    diagnostics: Mapping[str, ChainDiagnostics] | None = None,
    differences: pd.DataFrame | None = None,
    distances: pd.DataFrame | None = None,
) -> list[str]:
    """Say in sentences what a comparison has shown; what it cannot say it leaves out.

    Parameters
    ----------
    metrics
        Long form, from `compare`, of one dataset and split. Used are the distances, ``nll``, the
        coverages, ``accuracy``, and ``confidence_gap``: mean confidence minus accuracy.
    num_points
        Number of test points.
    reference
        Method that the others are judged by; None if there is none.
    diagnostics
        Method → diagnosis of its Markov chains.
    differences
        From `paired_differences`, with at least the baselines of `verdict_baselines`. Without it
        nothing is called better or worse.
    distances
        From `distance_matrix`; used where there are no distances from a reference.

    Raises
    ------
    ValueError
        If a table lacks a column, or there are no metrics or no test points.

    Examples
    --------
    >>> table = nb.compare(trees, reference="Laplace")
    >>> for sentence in nb.evaluation.verdict(table, num_points=300, reference="Laplace"):
    ...     print(sentence)
    Closest to Laplace is NTK ensemble: total variation 0.047 ± 0.002.
    Under-confident, by mean confidence minus accuracy: Laplace (by 0.082 ± 0.019).
    Mean confidence agrees with accuracy for NTK ensemble.
    Lowest NLL: NTK ensemble, 0.338 ± 0.024 nats.
    """
    check_at_least("num_points", num_points, 1)
    check_columns("metrics", metrics, _COLUMNS)
    if differences is not None and len(differences):
        wanted = ("method", "baseline", "metric", "difference", "standard_error")
        check_columns("differences", differences, wanted)
    if num_points < 2:
        found = _reference(reference, diagnostics or {})
        return [*found, "A single test point says nothing of others: no method is judged by it."]
    needed = error_quantile(num_points)
    return [
        *_reference(reference, diagnostics or {}),
        *_closeness(metrics, reference, differences, needed),
        *_alike(metrics, distances),
        *_confidence(metrics, needed),
        *_coverage(metrics, needed),
        *_likelihood(metrics, differences, needed),
    ]


def verdict_baselines(metrics: pd.DataFrame) -> list[str]:
    """Return the methods of lowest NLL and of least distance: the baselines `verdict` asks for.

    Parameters
    ----------
    metrics
        Long form, from `compare`, of one dataset and split.

    Examples
    --------
    >>> table = nb.compare(trees, reference=None)
    >>> nb.evaluation.verdict_baselines(table)
    ['NTK ensemble']
    """
    best = [
        rows.loc[rows["value"].idxmin(), "method"]
        for name in ("nll", *_distance(metrics))
        if len(rows := _rows(metrics, name))
    ]
    return list(dict.fromkeys(best))


def _rows(metrics: pd.DataFrame, name: str) -> pd.DataFrame:
    """Rows of a metric that have a value."""
    return metrics.loc[metrics["metric"] == name].dropna(subset=["value"])


def _texts(metrics: pd.DataFrame, name: str) -> dict[str, str]:
    """Value and error of every method, as the table has them."""
    if not len(_rows(metrics, name)):
        return {}
    texts = wide_table(metrics, metrics=[name])[name]
    return {str(method): str(text) for method, text in texts.items()}


def _distance(metrics: pd.DataFrame) -> list[str]:
    """Name of the distance that says how close methods are; none without a reference."""
    return [name for name in DISTANCES if len(_rows(metrics, name))][:1]


def _reference(reference: str | None, diagnostics: Mapping[str, ChainDiagnostics]) -> list[str]:
    if reference is None:
        return ["No method serves as a reference, so no distance from the posterior is given."]
    if reference not in diagnostics:
        return []
    found = diagnostics[reference]
    numbers = f"largest R-hat {found.max_rhat:.3f}, smallest ESS {found.min_ess:.0f}"
    if found.reliable:
        return [f"{reference} is reliable as a reference: {numbers}."]
    return [
        f"{reference} is not reliable as a reference ({numbers}), so nothing is said about how "
        "close the other methods are to it."
    ]


def _closeness(
    metrics: pd.DataFrame, reference: str | None, differences: pd.DataFrame | None, needed: float
) -> list[str]:
    """Which method is closest to the reference, and which are as close for all one can tell."""
    distance = _distance(metrics)
    if not distance or reference is None:
        return []
    rows = _rows(metrics, *distance).sort_values("value", kind="stable")
    name, best = metric_title(*distance), rows["method"].iloc[0]
    numbers = _texts(metrics, *distance)
    floors = dict(zip(rows["method"], rows["monte_carlo_floor"], strict=True))
    lower = rows["value"] - needed * rows["standard_error"]
    at_floor = list(rows["method"][lower <= rows["monte_carlo_floor"]])
    texts = [f"Closest to {reference} is {best}: {name} {numbers[best]}."]
    if at_floor:
        texts += _at_floor(metrics, at_floor, distance[0], reference, needed)
    others = list(rows["method"])[1:]
    if differences is None or not others:
        return texts
    apart = _differences(differences, best, *distance)
    as_close, beyond = _told_apart(apart, needed, floors)
    further = [method for method in others if method in beyond]
    if as_close:
        texts.append(f"As close as that, for all one can tell: {_list(as_close)}.")
    if further:
        named = [f"{method} ({numbers[method]})" for method in further]
        texts.append(f"Further away: {_list(named)}.")
    return texts


def _at_floor(
    metrics: pd.DataFrame, methods: list[str], distance: str, reference: str, needed: float
) -> list[str]:
    """Say what is at the floor, which of classes are mean probabilities, and what is not."""
    classes = distance == "total_variation"
    texts = [
        f"{_list(methods)} {'is' if len(methods) == 1 else 'are'} at the Monte-Carlo floor: with "
        f"these draws, {'mean probabilities are ' if classes else ''}no further from {reference} "
        "than two sets of draws of one and the same distribution."
    ]
    spread = _rows(metrics, "wasserstein_1").set_index("method")
    spread = spread.loc[[method for method in methods if classes and method in spread.index]]
    beyond = spread["value"] - needed * spread["standard_error"] > spread["monte_carlo_floor"]
    numbers = _texts(metrics, "wasserstein_1")
    named = [f"{method} ({numbers[method]})" for method in spread.index[beyond]]
    if named:
        texts.append(
            f"Their draws spread otherwise, by Wasserstein-1 between draws: {_list(named)}."
        )
    return texts


def _alike(metrics: pd.DataFrame, distances: pd.DataFrame | None) -> list[str]:
    if distances is None or len(distances) < 3 or _distance(metrics):
        return []
    values = distances.to_numpy(dtype=float)
    first, second = np.triu_indices(len(values), k=1)
    closest = np.argmin(values[first, second])
    distance = values[first[closest], second[closest]]
    same = values[first[closest]] < NEGLIGIBLE
    if distance < NEGLIGIBLE:
        names = [str(name) for name in distances.index[same]]
        return [f"No distance to speak of between {_list(names)}: below {NEGLIGIBLE:g}."]
    names = [str(distances.index[pair[closest]]) for pair in (first, second)]
    return [f"The most alike of all are {_list(names)}, at a distance of {distance:.3f}."]


def _confidence(metrics: pd.DataFrame, needed: float) -> list[str]:
    """Sign of mean confidence minus accuracy, for classes."""
    gaps = _rows(metrics, "confidence_gap").dropna(subset=["standard_error"])
    numbers = _texts(metrics, "confidence_gap")
    over, under, neither = [], [], []
    for method, gap, error in zip(
        gaps["method"], gaps["value"], gaps["standard_error"], strict=True
    ):
        named = f"{method} (by {numbers[method].removeprefix('-')})"
        if not abs(gap) > needed * error:
            neither.append(method)
        else:
            (over if gap > 0 else under).append(named)
    texts = [
        f"{kind}, by mean confidence minus accuracy: {_list(found)}."
        for kind, found in (("Over-confident", over), ("Under-confident", under))
        if found
    ]
    if neither:
        texts.append(f"Mean confidence agrees with accuracy for {_list(neither)}.")
    return texts


def _coverage(metrics: pd.DataFrame, needed: float) -> list[str]:
    """Coverage against its nominal level."""
    rows = metrics.loc[metrics["metric"].str.match(r"coverage_\d+$")]
    rows = rows.dropna(subset=["value", "standard_error"])
    narrow, wide, both, neither = [], [], [], []
    for method, part in rows.groupby("method", sort=False):
        level = part["metric"].str.removeprefix("coverage_").astype(int).to_numpy() / 100
        score = ((part["value"] - level) / part["standard_error"]).to_numpy()
        worst = int(np.argmax(np.abs(score)))
        number = _texts(metrics, part["metric"].iloc[worst])[str(method)]
        named = f"{method} ({100 * level[worst]:.0f} % interval: {number})"
        low, high = (score < -needed).any(), (score > needed).any()
        if low and high:
            both.append(named)
        elif low or high:
            (narrow if low else wide).append(named)
        else:
            neither.append(str(method))
    texts = {
        "Over-confident, intervals hold too few observations": narrow,
        "Under-confident, intervals hold too many observations": wide,
        "Too few observations at one level and too many at another": both,
        "Coverage agrees with the nominal levels": neither,
    }
    return [f"{text}: {_list(found)}." for text, found in texts.items() if found]


def _likelihood(
    metrics: pd.DataFrame, differences: pd.DataFrame | None, needed: float
) -> list[str]:
    """Who has the lowest NLL, and from whom that is a significant difference."""
    rows = _rows(metrics, "nll")
    if len(rows) < 2:
        return []
    best = rows.loc[rows["value"].idxmin(), "method"]
    text = f"Lowest NLL: {best}, {_texts(metrics, 'nll')[best]} nats."
    apart = {} if differences is None else _differences(differences, best, "nll")
    if not apart:
        return [text]
    same, beyond = _told_apart(apart, needed, {})
    digits = decimals(np.array([error for _, error in apart.values()]))
    worse = [f"{method} (by {with_error(*apart[method], digits)})" for method in beyond]
    if worse:
        text += f" Worse on the same test points: {_list(worse)}."
    if same:
        text += f" No significant difference from it: {_list(same)}."
    return [text]


def _differences(
    differences: pd.DataFrame, baseline: str, metric: str
) -> dict[str, tuple[float, float]]:
    """Return method → difference from the baseline and its standard error, smallest first."""
    chosen = (differences["baseline"] == baseline) & (differences["metric"] == metric)
    part = differences.loc[chosen].sort_values("difference", kind="stable")
    return {
        method: (float(value), float(error))
        for method, value, error in zip(
            part["method"], part["difference"], part["standard_error"], strict=True
        )
    }


def _told_apart(
    apart: Mapping[str, tuple[float, float]], needed: float, floors: Mapping[str, float]
) -> tuple[list[str], list[str]]:
    """Methods without and with a significant difference; those without an error are in neither."""
    same, beyond = [], []
    for method, (difference, error) in apart.items():
        limit = max(needed * error, np.nan_to_num(floors.get(method, 0.0)), NEGLIGIBLE)
        if not np.isnan([difference, error]).any():
            (beyond if difference > limit else same).append(method)
    return same, beyond


def _list(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
