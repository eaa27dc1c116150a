"""What predictions are worth away from the training data: by severity, and told apart.

`severity_curve` shifts the test points and asks for every metric: a trustworthy method becomes
uncertain as it becomes wrong, so that its NLL and calibration stay good (Ovadia et al. 2019).
`detection_table` asks whether its uncertainty tells inputs of another kind from test points.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import pandas as pd
import scipy.special
import xarray as xr

from ntkbayes._checks import check_finite, check_not_empty
from ntkbayes._progress import bar_in_notebooks
from ntkbayes._types import AnyArray, Float, Key, Progress, silent, typed
from ntkbayes.datasets import Dataset, shift
from ntkbayes.evaluation import metrics
from ntkbayes.evaluation._checked import as_array, checked_probabilities
from ntkbayes.evaluation.alignment import check_same_targets
from ntkbayes.evaluation.comparison import compare
from ntkbayes.evaluation.metrics.ordering import without_rounding
from ntkbayes.evaluation.metrics.resampling import share_error, spread
from ntkbayes.evaluation.predictions import predict
from ntkbayes.evaluation.storage import class_probabilities
from ntkbayes.predictors import Predictor

__all__ = ["detection_table", "severity_curve", "severity_table"]

SEVERITIES = (0, 1, 2, 3, 4, 5)


@bar_in_notebooks
@typed
def severity_curve(
    predictors: dict[str, Predictor],
    data: Dataset,
    kind: str,
    severities: Sequence[int] = SEVERITIES,
    *,
    key: Key,
    num_draws: int | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> pd.DataFrame:
    """Compare methods by every metric of the task at every severity of a shift.

    A method draws with the same key at every severity, so that its curve follows the shift and not
    the draws.

    Parameters
    ----------
    predictors
        What methods trained on `data` returned; the keys name the methods.
    data
        Dataset whose test points are shifted.
    kind, severities, seed
        As in `ntkbayes.datasets.shift`; severity 0 is the test points as they are.
    key
        Random key of the draws, split into one per method.
    num_draws
        As in `predict`.
    progress
        Called with the finished fraction of the predictions.

    Returns
    -------
    DataFrame
        Columns ``dataset, shift, severity, method, metric, value, standard_error``; the standard
        error is that of the finite test set, as in `compare`.

    Raises
    ------
    ValueError
        If there is no predictor or no severity, or as in `ntkbayes.datasets.shift` and `predict`.

    Examples
    --------
    >>> table = nb.evaluation.severity_curve(
    ...     predictors, data, "feature-noise", (0, 5), key=key, num_draws=50
    ... )
    >>> accuracy = table.loc[table["metric"] == "accuracy"]
    >>> accuracy.pivot(index="method", columns="severity", values="value").round(2)
    severity         0     5
    method
    Laplace       0.85  0.77
    NTK ensemble  0.85  0.76
    """
    if not predictors or not len(severities):
        raise ValueError(
            "at least one predictor and one severity are needed, but there are "
            f"{len(predictors)} and {len(severities)}."
        )
    shifted = {severity: shift(data, kind, severity, seed=seed) for severity in severities}
    keys = dict(zip(predictors, jax.random.split(key, len(predictors)), strict=True))
    tables = []
    for i, (severity, changed) in enumerate(shifted.items()):
        trees = {
            method: predict(predictor, changed, key=keys[method], num_draws=num_draws)
            for method, predictor in predictors.items()
        }
        tables.append(severity_table({severity: trees}, kind=kind, dataset=data.name))
        progress((i + 1) / len(shifted))
    return pd.concat(tables, ignore_index=True)


@typed
def severity_table(
    trees: dict[int, dict[str, xr.DataTree]], *, kind: str, dataset: str | None = None
) -> pd.DataFrame:
    """Compare predictions that were made elsewhere at the severities of a shift.

    Parameters
    ----------
    trees
        Per severity the predictions of each method, as `compare` takes them.
    kind
        Name of the shift in tables.
    dataset
        Name of the unshifted dataset; by default that of the predictions at the first severity.

    Returns
    -------
    DataFrame
        That of `severity_curve`, which `plot_severity` draws.

    Raises
    ------
    ValueError
        If there is no severity, severities differ in methods, points, observations or outputs, or
        as in `compare`.

    Examples
    --------
    >>> levels = {0: {"a": trees["Laplace"]}, 3: {"a": trees["NTK ensemble"]}}
    >>> table = nb.evaluation.severity_table(levels, kind="fog")
    >>> table["severity"].unique().tolist(), table["shift"].unique().tolist()
    ([0, 3], ['fog'])
    """
    if not trees:
        raise ValueError("trees is empty: predictions at one severity at least are needed.")
    _check_alike(trees)
    tables = [
        compare(methods, reference=None).assign(severity=severity)
        for severity, methods in trees.items()
    ]
    long = pd.concat(tables, ignore_index=True)
    name = long["dataset"].iloc[0] if dataset is None else dataset
    columns = ["dataset", "shift", "severity", "method", "metric", "value", "standard_error"]
    return long.assign(dataset=name, shift=kind).reindex(columns=columns)


def _check_alike(trees: dict[int, dict[str, xr.DataTree]]) -> None:
    (at_first, methods), *others = trees.items()
    for severity, found in others:
        if found.keys() != methods.keys():
            raise ValueError(
                f"every severity must have the same methods, but {at_first} has "
                f"{', '.join(methods)} and {severity} has {', '.join(found)}."
            )
        for name, tree in found.items():
            names = (f"{name} at severity {each}" for each in (at_first, severity))
            check_same_targets(next(names), methods[name], next(names), tree)


@typed
def detection_table(
    latent: dict[str, tuple[Float[AnyArray, "_ m c"], Float[AnyArray, "_ k c"]]] | None = None,
    *,
    probabilities: dict[str, tuple[Any, Any]] | None = None,
) -> pd.DataFrame:
    """Measure how well uncertainty tells other inputs from test points.

    Other inputs, such as those of `hold_out_classes` and `away_inputs`, have no labels the model
    could be scored by, so they are in no `DataTree`: only latent functions drawn there are needed,
    ``predictor.sample(key, x_other, num_draws=…)``.

    Scores of a point, larger where the method is less certain:

    - ``predictive_entropy``: H[p] of the mean probabilities p, in nats;
    - ``mutual_information``: H[p] minus the mean entropy of the draws, the epistemic part, in nats;
    - ``one_minus_max_probability``: 1 − max_c p_c (Hendrycks & Gimpel 2017).

    Scores that differ by rounding are equal.

    Parameters
    ----------
    latent
        Per method its draws (s m c) at the m test points and (s k c) at the k other inputs: logits,
        of one number of classes. A single logit counts as (0, f). Methods may differ in s.
    probabilities
        The same of methods of which class probabilities are known: of draws or members (s m c), or
        of one predictor (m c), whose mutual information is 0 everywhere.

    Returns
    -------
    DataFrame
        Columns ``method, score, metric, value, standard_error``, the metrics being ``auroc``,
        ``aupr`` and ``fpr95`` with the other inputs as the positive class. Standard errors are over
        both sets of points, resampled independently of each other, and with the same resamples for
        every method and score. These know nothing of the spread of an AUROC or FPR that is exactly
        0 or 1: as with an accuracy of 1, two points of each kind are added to a share of as many
        points as the smaller set has. An AUROC is a mean of such shares, over ways of pairing the
        two sets, and so has no larger variance. An AUPR of 1 has no error (NaN).

    Raises
    ------
    ValueError
        If there is no method, or one is in both; if draws are empty, not finite, no probabilities,
        or differ in points or outputs.

    References
    ----------
    Hendrycks & Gimpel (2017), arXiv 1610.02136 · Depeweg et al. (2018), arXiv 1710.07283, eq. 7.

    Examples
    --------
    >>> posterior, x_away = predictors["Laplace"], nb.away_inputs(data, 5)
    >>> test, away = (posterior.sample(key, x, num_draws=50) for x in (data.x_test, x_away))
    >>> table = nb.evaluation.detection_table({"Laplace": (test, away)})
    >>> table.loc[table["metric"] == "auroc", ["score", "value"]].round(2)
                           score  value
    0         predictive_entropy   0.36
    3         mutual_information   0.91
    6  one_minus_max_probability   0.36
    """
    methods = _class_probabilities(latent or {}, probabilities or {})
    (first_in, first_out), *_ = methods.values()
    # Two seeds: with one, sets of the same size would be resampled alike.
    weights = [
        np.concatenate([metrics.uniform_weights(m)[None], metrics.bootstrap_weights(m, seed=seed)])
        for seed, m in enumerate((first_in.shape[1], first_out.shape[1]))
    ]
    rows = []
    for method, draws in methods.items():
        scores = _scores(*draws)
        for score in scores:
            for name, metric in _DETECTION.items():
                values = metric(*scores[score], *weights)
                rows.append(
                    {
                        "method": method,
                        "score": score,
                        "metric": name,
                        "value": float(values[0]),
                        "standard_error": _error(name, values, min(map(len, scores[score]))),
                    }
                )
    return pd.DataFrame(rows)


_PLACES = ("test points", "other inputs")
_DETECTION = {"auroc": metrics.auroc, "aupr": metrics.aupr, "fpr95": metrics.fpr95}


def _error(metric: str, values: np.ndarray, num_points: int) -> float:
    """Deviation over resamples, and what these do not see, as `detection_table` says."""
    value = float(values[0])
    least = share_error(value, num_points)
    if metric == "aupr":  # no share
        least = np.nan if np.isclose(value, [0.0, 1.0]).any() else 0.0
    return float(np.hypot(spread(values[1:], num_points), least))


def _scores(inside: np.ndarray, outside: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Uncertainty at the test points and the other inputs, by the names in `detection_table`."""
    pairs = zip(*(_uncertainties(draws).items() for draws in (inside, outside)), strict=True)
    scores = {}
    for (name, at_points), (_, at_others) in pairs:
        both = without_rounding(np.concatenate([at_points, at_others]))
        scores[name] = (both[: len(at_points)], both[len(at_points) :])
    return scores


def _uncertainties(draws: Float[np.ndarray, "s m c"]) -> dict[str, Float[np.ndarray, "m"]]:
    p = draws.mean(axis=0)
    return {
        "predictive_entropy": scipy.special.entr(p).sum(axis=-1),
        "mutual_information": metrics.pointwise_mutual_information(draws),
        "one_minus_max_probability": 1 - p.max(axis=-1),
    }


def _class_probabilities(
    latent: dict[str, tuple[AnyArray, AnyArray]], probabilities: dict[str, tuple[Any, Any]]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return probabilities (s m c) at the test points and the other inputs of every method."""
    if not latent and not probabilities:
        raise ValueError("latent is empty: at least one method's draws are needed.")
    twice = sorted(set(latent) & set(probabilities))
    if twice:
        raise ValueError(f"latent and probabilities both have {twice[0]!r}: leave one out.")
    found = {}
    for method, pair in latent.items():
        for values, where in zip(pair, _PLACES, strict=True):
            check_not_empty(f"latent of {method} at the {where}", values)
            check_finite(f"latent of {method} at the {where}", values)
        found[method] = tuple(class_probabilities(values) for values in pair)
    for method, pair in probabilities.items():
        arrays = [as_array(f"probabilities of {method}", values) for values in pair]
        found[method] = tuple(
            checked_probabilities(p[None] if p.ndim == 2 else p).astype(float) for p in arrays
        )
    (first, like), *_ = found.items()
    for method, pair in found.items():
        _check_comparable(first, like, method, pair)
    return found


def _check_comparable(first: str, like: Any, method: str, pair: Any) -> None:
    """Raise `ValueError` unless probabilities are of the points and classes of the first method."""
    for values, points, where in zip(pair, like, _PLACES, strict=True):
        if values.shape[2] != like[0].shape[2]:
            raise ValueError(
                f"all draws must have one number of classes, but those of {first} at the test "
                f"points have {like[0].shape[2]}, those of {method} at the {where} "
                f"{values.shape[2]}."
            )
        if values.shape[1] != points.shape[1]:
            raise ValueError(
                f"{first} and {method} cannot be compared: they have draws at {points.shape[1]} "
                f"and {values.shape[1]} {where}."
            )
