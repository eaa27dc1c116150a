"""Selective classification: the risk of answering only where one is confident enough.

Points are accepted in the order of falling confidence. The coverage is the share of points
accepted so far, the selective risk the share of errors among them, with 0/1 loss; a confidence
that ranks errors last has a low risk at every coverage.

References
----------
Geifman & El-Yaniv (2017), arXiv 1705.08500 (coverage and risk) · Geifman, Uziel &
El-Yaniv (2019), arXiv 1805.08206 (AURC and its excess) · Ding, Liu, Xiong & Shi (2020),
arXiv 1903.02050 (why excess depends on accuracy) · Traub et al. (2024), arXiv 2407.01032
(generalised risk, AUGRC).
"""

import numpy as np
from jaxtyping import Bool
from scipy.special import digamma

from ntkbayes._checks import check_finite, check_not_empty
from ntkbayes._types import Float, Int
from ntkbayes.evaluation.metrics.inputs import check_weights, checked_predictions
from ntkbayes.evaluation.metrics.ordering import group_sums, over_rows, tie_groups
from ntkbayes.evaluation.metrics.resampling import weighted

__all__ = ["augrc", "aurc", "error_auroc", "excess_aurc", "risk_coverage_curve"]


@weighted
def risk_coverage_curve(
    p: Float[np.ndarray, "m c"],
    y: Int[np.ndarray, "m"],
    weights: Float[np.ndarray, "*b m"],
    *,
    confidence: Float[np.ndarray, "m"] | None = None,
) -> tuple[Float[np.ndarray, "*b u"], Float[np.ndarray, "*b u"]]:
    """Return coverage and selective risk after each distinct confidence, from the highest down.

    The last coverage is 1 and the last risk the error rate. At the coverage 0 that rows without
    weight at the highest confidences begin with, the risk is that of the first points accepted.

    Parameters
    ----------
    p, y, weights
        See the module's docstring.
    confidence
        What points are ranked by; the probability of the most probable class by default.

    Raises
    ------
    ValueError
        If there are no points, or labels, probabilities, confidences or weights are out of range.
    """
    wrong, order, starts = _ranked(p, y, weights, confidence)

    def curves(rows: np.ndarray) -> np.ndarray:
        coverage = np.cumsum(group_sums(rows, order, starts), axis=1)
        coverage /= coverage[:, -1:]  # exactly 1 at the end
        errors = np.cumsum(group_sums(rows * wrong, order, starts), axis=1)
        accepted = coverage > 0
        risk = errors / np.where(accepted, coverage, 1)
        first = np.take_along_axis(risk, accepted.argmax(axis=1)[:, None], axis=1)
        return np.stack([coverage, np.where(accepted, risk, first)], axis=1)

    found = over_rows(curves, weights, trailing=(2, len(starts)))
    return found[..., 0, :], found[..., 1, :]


@weighted
def aurc(
    p: Float[np.ndarray, "m c"],
    y: Int[np.ndarray, "m"],
    weights: Float[np.ndarray, "*b m"],
    *,
    confidence: Float[np.ndarray, "m"] | None = None,
) -> Float[np.ndarray, "*b"]:
    """Return the area under the risk-coverage curve, from 0 to 1; smaller is better.

    (1/m) Σ_j risk of the j most confident points. Points of equal confidence come in random
    order, and the area is the expectation: with N points and E errors before, j of n more with
    error rate e have risk (E + j e) / (N + j), whose sum over j is

        n e + (E − N e) (ψ(N + n + 1) − ψ(N + 1)),    ψ the digamma function.

    Weights times m count points, which repeated points in a resample are.

    Parameters
    ----------
    p, y, weights, confidence
        As in `risk_coverage_curve`.

    Raises
    ------
    ValueError
        If there are no points, or labels, probabilities, confidences or weights are out of range.
    """
    wrong, order, starts = _ranked(p, y, weights, confidence)

    def areas(rows: np.ndarray) -> np.ndarray:
        counts = rows.shape[1] * group_sums(rows, order, starts)
        errors = rows.shape[1] * group_sums(rows * wrong, order, starts)
        return _area(counts, errors)

    return over_rows(areas, weights)


@weighted
def excess_aurc(
    p: Float[np.ndarray, "m c"],
    y: Int[np.ndarray, "m"],
    weights: Float[np.ndarray, "*b m"],
    *,
    confidence: Float[np.ndarray, "m"] | None = None,
) -> Float[np.ndarray, "*b"]:
    """Return `aurc` less that of the best ranking of the same predictions, 0 or more.

    The best ranking has every error last; with error rate r its area is about r + (1 − r)
    log(1 − r). The excess is that of the ranking alone only between predictors of one accuracy.

    Parameters
    ----------
    p, y, weights, confidence
        As in `aurc`.

    Raises
    ------
    ValueError
        As in `aurc`.
    """
    area = aurc(p, y, weights, confidence=confidence)
    wrong = (p.argmax(axis=1) != y).astype(float)
    errors = len(y) * np.asarray(weights.astype(float, copy=False) @ wrong)
    best = np.stack([len(y) - errors, errors], axis=-1).reshape(-1, 2)
    none_and_all = best * np.array([0.0, 1.0])
    return np.asarray(area - _area(best, none_and_all).reshape(area.shape))


@weighted
def augrc(
    p: Float[np.ndarray, "m c"],
    y: Int[np.ndarray, "m"],
    weights: Float[np.ndarray, "*b m"],
    *,
    confidence: Float[np.ndarray, "m"] | None = None,
) -> Float[np.ndarray, "*b"]:
    """Return the area under the *generalised* risk-coverage curve, from 0 to ½; smaller is better.

    The generalised risk at a coverage is the share of all points that are accepted *and* wrong,
    so that, unlike in `aurc`, errors among the first few points weigh no more than others:

        AUGRC = (1 − AUROC) a (1 − a) + ½ (1 − a)²,

    with accuracy a, and AUROC the chance that a right point has a higher confidence than a wrong
    one (½ for ties).

    Parameters
    ----------
    p, y, weights, confidence
        As in `aurc`.

    Raises
    ------
    ValueError
        As in `aurc`.

    Examples
    --------
    >>> import numpy as np
    >>> p, y = np.array([[0.9, 0.1], [0.6, 0.4]]), np.array([0, 1])
    >>> float(nb.evaluation.metrics.augrc(p, y, nb.evaluation.metrics.uniform_weights(2)))
    0.125
    """
    wrong, order, starts = _ranked(p, y, weights, confidence)

    def areas(rows: np.ndarray) -> np.ndarray:
        shares = group_sums(rows, order, starts)
        errors = group_sums(rows * wrong, order, starts)
        return np.sum(shares * (np.cumsum(errors, axis=1) - errors / 2), axis=1)

    return over_rows(areas, weights)


@weighted
def error_auroc(
    score: Float[np.ndarray, "m"],
    wrong: Bool[np.ndarray, "m"],
    weights: Float[np.ndarray, "*b m"],
) -> Float[np.ndarray, "*b"]:
    """Return the chance that a wrong answer has the larger uncertainty score than a right one.

    The area under the ROC of a score for errors, ½ for ties, from 0 to 1. With the variance over
    draws of the probability of the predicted class it asks whether *epistemic* uncertainty knows of
    errors. NaN for rows of weights without a wrong, or without a right answer.

    Parameters
    ----------
    score
        Uncertainty of every point, larger where it is less certain.
    wrong
        Whether the answer there is wrong.
    weights
        See the module's docstring.

    Raises
    ------
    ValueError
        If there are no points, or scores or weights are out of range.

    References
    ----------
    Wilson et al. (2025), arXiv 2502.02870 (variance of the top probability, VARROC).

    Examples
    --------
    >>> import numpy as np
    >>> score, wrong = np.array([0.1, 0.3, 0.2]), np.array([False, True, False])
    >>> weights = nb.evaluation.metrics.uniform_weights(3)
    >>> float(nb.evaluation.metrics.error_auroc(score, wrong, weights))
    1.0
    """
    check_not_empty("score", score)
    check_finite("score", score)
    check_weights(weights)
    order, starts = tie_groups(score)

    def areas(rows: np.ndarray) -> np.ndarray:
        bad = group_sums(rows * wrong, order, starts)
        good = group_sums(rows * ~wrong, order, starts)
        below = np.cumsum(good, axis=1) - good / 2
        pairs = bad.sum(axis=1) * good.sum(axis=1)
        known = pairs > 0
        area = np.sum(bad * below, axis=1) / np.where(known, pairs, 1)
        return np.where(known, area, np.nan)

    return over_rows(areas, weights)


def _ranked(
    p: np.ndarray, y: np.ndarray, weights: np.ndarray, confidence: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whether each point's prediction is wrong, and the points from the most confident on."""
    p = checked_predictions(p, y)
    score = p.max(axis=1) if confidence is None else confidence
    check_finite("confidence", score)
    check_weights(weights)
    return p.argmax(axis=1) != y, *tie_groups(-score)


def _area(counts: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Mean risk (r) over points in groups of counts (r u), of which errors (r u) are wrong."""
    after = np.cumsum(counts, axis=1)
    before, errors_before = after - counts, np.cumsum(errors, axis=1) - errors
    rate = errors / np.where(counts > 0, counts, 1)
    harmonic = np.diff(digamma(after + 1), axis=1, prepend=digamma(1))
    return np.sum(errors + (errors_before - before * rate) * harmonic, axis=1) / after[:, -1]
