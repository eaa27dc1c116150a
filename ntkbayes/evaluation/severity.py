"""What predictions are worth away from the training data: by severity, and told apart.

`severity_curve` shifts the test points and asks for every metric: a trustworthy method becomes
uncertain as it becomes wrong, so that its NLL and calibration stay good (Ovadia et al. 2019).
`detection_table` asks whether its uncertainty tells inputs of another kind from test points.
"""

from collections.abc import Sequence

import jax
import numpy as np
import pandas as pd
import scipy.special

from ntkbayes._checks import check_finite, check_not_empty
from ntkbayes._types import AnyArray, Float, Key, Progress, silent, typed
from ntkbayes.datasets import Dataset, shift
from ntkbayes.evaluation import metrics
from ntkbayes.evaluation.comparison import compare
from ntkbayes.evaluation.metrics.ordering import without_rounding
from ntkbayes.evaluation.metrics.resampling import share_error, spread
from ntkbayes.evaluation.predictions import predict
from ntkbayes.evaluation.storage import class_probabilities
from ntkbayes.predictors import Predictor

__all__ = ["detection_table", "severity_curve"]

SEVERITIES = (0, 1, 2, 3, 4, 5)


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
        tables.append(compare(trees, reference=None).assign(severity=severity))
        progress((i + 1) / len(shifted))
    long = pd.concat(tables, ignore_index=True).assign(dataset=data.name, shift=kind)
    columns = ["dataset", "shift", "severity", "method", "metric", "value", "standard_error"]
    return long.reindex(columns=columns)


@typed
def detection_table(
    latent: dict[str, tuple[Float[AnyArray, "_ m c"], Float[AnyArray, "_ k c"]]],
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
        If there is no method, draws are empty or not finite, or differ in points or outputs.

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
    _check_latent(latent)
    (first_in, first_out), *_ = latent.values()
    # Two seeds: with one, sets of the same size would be resampled alike.
    weights = [
        np.concatenate([metrics.uniform_weights(m)[None], metrics.bootstrap_weights(m, seed=seed)])
        for seed, m in enumerate((first_in.shape[1], first_out.shape[1]))
    ]
    rows = []
    for method, draws in latent.items():
        scores = _scores(*(class_probabilities(values) for values in draws))
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


_DETECTION = {"auroc": metrics.auroc, "aupr": metrics.aupr, "fpr95": metrics.fpr95}


def _error(metric: str, values: np.ndarray, num_points: int) -> float:
    """Deviation over resamples, and where these are all alike what `detection_table` says."""
    least = share_error(float(values[0]), num_points)
    if metric == "aupr":  # no share
        least = np.nan if least > 0 else 0.0
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


def _check_latent(latent: dict[str, tuple[AnyArray, AnyArray]]) -> None:
    if not latent:
        raise ValueError("latent is empty: at least one method's draws are needed.")
    (first, pair), *_ = latent.items()
    first_in, _ = pair
    for method, draws in latent.items():
        for values, like, where in zip(draws, pair, ("test points", "other inputs"), strict=True):
            check_not_empty(f"latent of {method} at the {where}", values)
            check_finite(f"latent of {method} at the {where}", values)
            if values.shape[2] != first_in.shape[2]:
                raise ValueError(
                    f"all draws must have one number of outputs, but those of {first} at the test "
                    f"points have {first_in.shape[2]}, those of {method} at the {where} "
                    f"{values.shape[2]}."
                )
            if values.shape[1] != like.shape[1]:
                raise ValueError(
                    f"{first} and {method} cannot be compared: they have draws at "
                    f"{like.shape[1]} and {values.shape[1]} {where}."
                )
