"""Detection of out-of-distribution points by an uncertainty score.

Scores are larger where a point looks more out of distribution: entropy, mutual information, minus
the largest probability. The *positive* class is out of distribution throughout: a point is flagged
if its score is at or above a threshold; the true-positive rate (TPR) is the share of
out-of-distribution points flagged, the false-positive rate (FPR) that of in-distribution points.
Equal scores are flagged together.

Every function takes the scores and weights of both kinds of points; rows of `weights_in` and
`weights_out` each sum to 1.

References
----------
Hendrycks & Gimpel (2017), arXiv 1610.02136 (AUROC, AUPR) · Liang, Li & Srikant (2018),
arXiv 1706.02690 (FPR at 95 % TPR) · Davis & Goadrich (2006),
doi:10.1145/1143844.1143874 (why precision is not interpolated linearly).
"""

from collections.abc import Callable

import numpy as np

from ntkbayes._checks import check_finite, check_not_empty
from ntkbayes._types import Float
from ntkbayes.evaluation.metrics.inputs import SUM_ROUNDING, check_weights
from ntkbayes.evaluation.metrics.ordering import group_sums, over_rows, tie_groups
from ntkbayes.evaluation.metrics.resampling import weighted

__all__ = ["aupr", "auroc", "fpr95"]

TARGET_RATE = 0.95


@weighted
def auroc(
    score_in: Float[np.ndarray, "m"],
    score_out: Float[np.ndarray, "k"],
    weights_in: Float[np.ndarray, "*b m"],
    weights_out: Float[np.ndarray, "*b k"],
) -> Float[np.ndarray, "*b"]:
    """Return the area under the curve of TPR against FPR: P(s_out > s_in) + ½ P(s_out = s_in).

    From 0 to 1; ½ if scores do not tell the two apart. It does not depend on how many points of
    each kind there are.

    Parameters
    ----------
    score_in, score_out
        Scores of in-distribution and of out-of-distribution points.
    weights_in, weights_out
        Their weights.

    Raises
    ------
    ValueError
        If there are no points of a kind, scores are not finite, or weights do not sum to 1.
    """

    def areas(flagged_in: np.ndarray, flagged_out: np.ndarray) -> np.ndarray:
        below = 1 - np.cumsum(flagged_in, axis=1)
        return np.sum(flagged_out * (below + flagged_in / 2), axis=1)

    return _by_threshold(areas, score_in, score_out, weights_in, weights_out)


@weighted
def aupr(
    score_in: Float[np.ndarray, "m"],
    score_out: Float[np.ndarray, "k"],
    weights_in: Float[np.ndarray, "*b m"],
    weights_out: Float[np.ndarray, "*b k"],
) -> Float[np.ndarray, "*b"]:
    """Return the average precision Σ_t (TPR_t − TPR_{t−1}) precision_t, thresholds t falling.

    Precision is the share of flagged points that are out of distribution, m and k points taken
    together, so the value depends on their numbers: scores that do not tell the two apart have
    k / (m + k).

    Parameters
    ----------
    score_in, score_out, weights_in, weights_out
        As in `auroc`.

    Raises
    ------
    ValueError
        As in `auroc`.
    """
    num_in, num_out = len(score_in), len(score_out)

    def areas(flagged_in: np.ndarray, flagged_out: np.ndarray) -> np.ndarray:
        false, true = num_in * flagged_in.cumsum(axis=1), num_out * flagged_out.cumsum(axis=1)
        flagged = false + true
        return np.sum(flagged_out * true / np.where(flagged > 0, flagged, 1), axis=1)

    return _by_threshold(areas, score_in, score_out, weights_in, weights_out)


@weighted
def fpr95(
    score_in: Float[np.ndarray, "m"],
    score_out: Float[np.ndarray, "k"],
    weights_in: Float[np.ndarray, "*b m"],
    weights_out: Float[np.ndarray, "*b k"],
) -> Float[np.ndarray, "*b"]:
    """Return the FPR at the highest threshold that flags 95 % of out-of-distribution points.

    From 0 to 1; smaller is better. Nothing is interpolated between thresholds. Liang et al. take
    in-distribution points as positive; that is
    ``fpr95(-score_out, -score_in, weights_out, weights_in)``.

    Parameters
    ----------
    score_in, score_out, weights_in, weights_out
        As in `auroc`.

    Raises
    ------
    ValueError
        As in `auroc`.
    """

    def rates(flagged_in: np.ndarray, flagged_out: np.ndarray) -> np.ndarray:
        enough = flagged_out.cumsum(axis=1) >= TARGET_RATE - SUM_ROUNDING
        threshold = enough.argmax(axis=1)[:, None]
        return np.take_along_axis(flagged_in.cumsum(axis=1), threshold, axis=1)[:, 0]

    return _by_threshold(rates, score_in, score_out, weights_in, weights_out)


def _by_threshold(
    function: Callable[[np.ndarray, np.ndarray], np.ndarray],
    score_in: np.ndarray,
    score_out: np.ndarray,
    weights_in: np.ndarray,
    weights_out: np.ndarray,
) -> np.ndarray:
    """Apply a function of the weights (r u) that either kind has at each score, falling."""
    for name, score in (("score_in", score_in), ("score_out", score_out)):
        check_not_empty(name, score)
        check_finite(name, score)
    check_weights(weights_in, "weights_in")
    check_weights(weights_out, "weights_out")
    order, starts = tie_groups(-np.concatenate([score_in, score_out]))
    num_in, num_out = len(score_in), len(score_out)

    def flagged(rows_in: np.ndarray, rows_out: np.ndarray) -> np.ndarray:
        padded_in = np.pad(rows_in, ((0, 0), (0, num_out)))
        padded_out = np.pad(rows_out, ((0, 0), (num_in, 0)))
        return function(group_sums(padded_in, order, starts), group_sums(padded_out, order, starts))

    return over_rows(flagged, weights_in, weights_out)
