"""A proper score taken apart by isotonic regression: miscalibration, discrimination, uncertainty.

For a score S of the confidences q, their isotonic recalibration r (`isotonic`) and the overall
rate ō of the outcomes,

    S(q) = MCB − DSC + UNC,    MCB = S(q) − S(r),    DSC = S(ō) − S(r),    UNC = S(ō),

with S the Brier score Σ w_i (q_i − o_i)² of the event, from 0 to 1, or the log score
−Σ w_i log of the probability of what happened, in nats. Unlike the parts by `decomposition` these
need no bins, and none is negative. r is fitted to the points it is scored at, so that MCB and DSC
are both too large, by about as much, and MCB of a calibrated predictor is not 0.

References
----------
Dimitriadis, Gneiting & Jordan (2021), doi:10.1073/pnas.2016191118.
"""

import equinox as eqx
import numpy as np
from jaxtyping import Bool
from scipy.special import xlogy

from ntkbayes._types import Float
from ntkbayes.evaluation.metrics.inputs import check_weights, checked_confidence
from ntkbayes.evaluation.metrics.isotonic import recalibrated
from ntkbayes.evaluation.metrics.ordering import group_sums, over_rows, tie_groups
from ntkbayes.evaluation.metrics.resampling import weighted

__all__ = ["CorpDecomposition", "corp_decomposition"]


class CorpDecomposition(eqx.Module):
    """Parts of the Brier and of the log score, each one value per row of weights.

    Parameters
    ----------
    brier_miscalibration, log_miscalibration
        MCB: what recalibration would save; smaller is better.
    brier_discrimination, log_discrimination
        DSC: what the recalibrated confidences gain over the overall rate; larger is better.
    brier_uncertainty, log_uncertainty
        UNC: the score of the overall rate, no property of the confidences.
    """

    brier_miscalibration: Float[np.ndarray, "*b"]
    brier_discrimination: Float[np.ndarray, "*b"]
    brier_uncertainty: Float[np.ndarray, "*b"]
    log_miscalibration: Float[np.ndarray, "*b"]
    log_discrimination: Float[np.ndarray, "*b"]
    log_uncertainty: Float[np.ndarray, "*b"]


@weighted
def corp_decomposition(
    confidence: Float[np.ndarray, "m"],
    outcome: Bool[np.ndarray, "m"],
    weights: Float[np.ndarray, "*b m"],
) -> CorpDecomposition:
    """Take the Brier and the log score of an event's probability apart, exactly for any weights.

    For the top label pass the probability of the most probable class and whether it is right. A
    confidence of 0 or 1 that is wrong has an infinite log score, all of it miscalibration. Time is
    that of one linear pass per row of weights.

    Parameters
    ----------
    confidence
        Predicted probability of an event at every point.
    outcome
        Whether it happened.
    weights
        See the module's docstring.

    Raises
    ------
    ValueError
        If probabilities or weights are out of range.

    Examples
    --------
    >>> import numpy as np
    >>> q, o = np.array([0.6, 0.6, 0.9, 0.9]), np.array([True, False, True, True])
    >>> weights = nb.evaluation.metrics.uniform_weights(4)
    >>> parts = nb.evaluation.metrics.corp_decomposition(q, o, weights)
    >>> round(float(parts.brier_miscalibration), 4)  # rates ½ and 1: (0.1² + 0.1²) / 2
    0.01
    """
    confidence = checked_confidence(confidence)
    check_weights(weights)
    order, starts = tie_groups(confidence)
    knots = confidence[order][starts]

    def parts(rows: np.ndarray) -> np.ndarray:
        shares = group_sums(rows, order, starts)
        hits = group_sums(rows * outcome, order, starts)
        rates = np.array([recalibrated(knots, *sums) for sums in zip(shares, hits, strict=True)])
        overall = hits.sum(axis=1, keepdims=True) / shares.sum(axis=1, keepdims=True)
        found = []
        for score in (_brier, _log):
            given, best, none = (score(r, shares, hits) for r in (knots, rates, overall))
            found += [given - best, none - best, none]
        return np.stack(found, axis=1)

    return CorpDecomposition(*np.moveaxis(over_rows(parts, weights, trailing=(6,)), -1, 0))


def _brier(rate: np.ndarray, shares: np.ndarray, hits: np.ndarray) -> np.ndarray:
    return np.sum(shares * rate**2 - 2 * hits * rate + hits, axis=1)


def _log(rate: np.ndarray, shares: np.ndarray, hits: np.ndarray) -> np.ndarray:
    misses = np.maximum(shares - hits, 0)
    return -np.sum(xlogy(hits, rate) + xlogy(misses, 1 - rate), axis=1)
