"""Calibration of class probabilities, over bins of the confidence.

A predictor is calibrated if of the predictions made with confidence q a share q comes true. Every
error here is that of pairs of a confidence q_i and an outcome o_i (whether what was predicted with
q_i came true): of the most probable class (`ece`, `mce`), or of each class (`classwise_ece`).
With the sums over one bin W = Σ w_i, and the mean gap g = Σ w_i (o_i − q_i) / W,

    L1: Σ_bins W |g|,    L2: √(Σ_bins W g²).

Bins are those of `bins`, of equal width or of equal mass.

Chance gives a calibrated predictor a positive error, of order √(B/m). Debiased errors correct for
it: on average they are near the truth of a predictor that is not calibrated. The module `gaps` says
how, and which errors methods can be compared by.

References
----------
Guo et al. (2017), arXiv 1706.04599, eq. 3 (ECE), eq. 5 (MCE) · Kull et al. (2019), arXiv
1910.12656 (class-wise) · Kumar, Liang & Ma (2019), arXiv 1909.10155 (L2, debiased).
"""

import numpy as np
from jaxtyping import Bool

from ntkbayes._checks import check_choice
from ntkbayes._types import Float, Int
from ntkbayes.evaluation.metrics.bins import NUM_BINS, bin_sums, confidence_bins, ratio
from ntkbayes.evaluation.metrics.gaps import NORMS, l1_error, l2_error, linear_squared_error
from ntkbayes.evaluation.metrics.inputs import (
    check_weights,
    checked_confidence,
    checked_predictions,
)
from ntkbayes.evaluation.metrics.resampling import weighted

__all__ = [
    "calibration_error",
    "classwise_ece",
    "ece",
    "mce",
    "squared_calibration_error",
    "squared_ece",
]


@weighted
def ece(
    p: Float[np.ndarray, "m c"],
    y: Int[np.ndarray, "m"],
    weights: Float[np.ndarray, "*b m"],
    *,
    num_bins: int = NUM_BINS,
    binning: str = "width",
    norm: str = "l1",
    debiased: bool = False,
) -> Float[np.ndarray, "*b"]:
    """Return the expected calibration error (ECE) of the top label, from 0 to 1.

    `calibration_error` of the probability p̂ of the most probable class ŷ and 1[ŷ_i = y_i]; by
    default Σ_bins |Σ_{i in bin} w_i (1[ŷ_i = y_i] − p̂_i)| over 15 equally wide bins.

    Parameters
    ----------
    p, y, weights
        See the module's docstring.
    num_bins, binning, norm, debiased
        As in `calibration_error`.

    Raises
    ------
    ValueError
        As in `calibration_error`, and if y holds no class indices or p no probabilities of them.
    """
    p = checked_predictions(p, y)
    return calibration_error(
        p.max(axis=1),
        p.argmax(axis=1) == y,
        weights,
        num_bins=num_bins,
        binning=binning,
        norm=norm,
        debiased=debiased,
    )


@weighted
def classwise_ece(
    p: Float[np.ndarray, "m c"],
    y: Int[np.ndarray, "m"],
    weights: Float[np.ndarray, "*b m"],
    *,
    num_bins: int = NUM_BINS,
    binning: str = "width",
    norm: str = "l1",
    debiased: bool = False,
) -> Float[np.ndarray, "*b"]:
    """Return the mean over classes c of the `calibration_error` of p_ic and 1[y_i = c].

    It sees what `ece` cannot: probabilities of classes that are not the most probable one. With
    many classes most of them are near 0, well calibrated, and make the mean small.

    Parameters
    ----------
    p, y, weights
        See the module's docstring.
    num_bins, binning, norm, debiased
        As in `calibration_error`; bins of equal mass differ between classes.

    Raises
    ------
    ValueError
        As in `calibration_error`, and if y holds no class indices or p no probabilities of them.
    """
    p = checked_predictions(p, y)
    errors = [
        calibration_error(
            p[:, c],
            y == c,
            weights,
            num_bins=num_bins,
            binning=binning,
            norm=norm,
            debiased=debiased,
        )
        for c in range(p.shape[1])
    ]
    return np.asarray(np.mean(errors, axis=0))


@weighted
def mce(
    p: Float[np.ndarray, "m c"],
    y: Int[np.ndarray, "m"],
    weights: Float[np.ndarray, "*b m"],
    *,
    num_bins: int = NUM_BINS,
    binning: str = "width",
) -> Float[np.ndarray, "*b"]:
    """Return the maximum calibration error of the top label: the largest |g| of a bin with weight.

    From 0 to 1. A bin with a single point counts as much as one with a thousand, so the value
    says little unless bins are of equal mass.

    Parameters
    ----------
    p, y, weights
        See the module's docstring.
    num_bins, binning
        As in `calibration_error`.

    Raises
    ------
    ValueError
        As in `calibration_error`, and if y holds no class indices or p no probabilities of them.
    """
    p = checked_predictions(p, y)
    confidence, correct = p.max(axis=1).astype(float), p.argmax(axis=1) == y
    bins = confidence_bins(confidence, num_bins=num_bins, binning=binning)
    check_weights(weights)
    share, gap = bin_sums(weights, bins, num_bins, np.ones(len(y)), correct - confidence)
    return np.asarray(np.abs(ratio(gap, share)).max(axis=-1))


@weighted
def calibration_error(
    confidence: Float[np.ndarray, "m"],
    outcome: Bool[np.ndarray, "m"],
    weights: Float[np.ndarray, "*b m"],
    *,
    num_bins: int = NUM_BINS,
    binning: str = "width",
    norm: str = "l1",
    debiased: bool = False,
) -> Float[np.ndarray, "*b"]:
    """Return the weighted mean gap between confidence and outcome over bins; see `calibration`.

    From 0 to 1; the debiased L2 error may be below 0.

    Parameters
    ----------
    confidence
        Predicted probability of an event at every point.
    outcome
        Whether it happened.
    weights
        See the module's docstring.
    num_bins
        Number of bins B.
    binning
        ``width`` or ``mass``.
    norm
        ``l1`` or ``l2``.
    debiased
        Whether to correct for what chance adds, assuming weights that are counts over m.

    Raises
    ------
    ValueError
        If probabilities, weights or settings are out of range.
    """
    check_choice("norm", norm, NORMS)
    confidence = checked_confidence(confidence)
    bins = confidence_bins(confidence, num_bins=num_bins, binning=binning)
    check_weights(weights)
    error = l1_error if norm == "l1" else l2_error
    return np.asarray(error(confidence, outcome, weights, bins, num_bins, debiased))


@weighted
def squared_ece(
    p: Float[np.ndarray, "m c"],
    y: Int[np.ndarray, "m"],
    weights: Float[np.ndarray, "*b m"],
    *,
    num_bins: int = NUM_BINS,
) -> Float[np.ndarray, "*b"]:
    """Return `squared_calibration_error` of the probability of the most probable class.

    Parameters
    ----------
    p, y, weights
        See the module's docstring.
    num_bins
        As in `squared_calibration_error`.

    Raises
    ------
    ValueError
        As in `squared_calibration_error`.

    Examples
    --------
    >>> import numpy as np
    >>> p, y = np.tile([0.7, 0.3], (200, 1)), (np.arange(200) % 2 == 0).astype(int)
    >>> weights = nb.evaluation.metrics.uniform_weights(200)
    >>> round(float(nb.evaluation.metrics.squared_ece(p, y, weights)), 2)  # (0.7 − 0.5)²
    0.04
    """
    p = checked_predictions(p, y)
    return squared_calibration_error(
        p.max(axis=1), p.argmax(axis=1) == y, weights, num_bins=num_bins
    )


@weighted
def squared_calibration_error(
    confidence: Float[np.ndarray, "m"],
    outcome: Bool[np.ndarray, "m"],
    weights: Float[np.ndarray, "*b m"],
    *,
    num_bins: int = NUM_BINS,
) -> Float[np.ndarray, "*b"]:
    """Return the unbiased mean squared gap between confidence and outcome, equal mass.

    With n points in a bin and residuals r_i = o_i − q_i there,

        Σ_bins (n/m) Σ_{i≠j} r_i r_j / (n (n − 1)),

    which is on average the squared L2 error of any predictor, 0 if it is calibrated; values below 0
    are chance. Of the errors over bins it is the one that methods can be compared by. There are at
    most m/2 bins, so that each holds two points or more, but for equal confidences.

    A resample with repeated points would count each as evidence for itself, so weights act to first
    order (Hájek): the value plus Σ_i w_i (2 r_i r̄_{−i} − Σ_{j≠k} r_j r_k / (n (n − 1)) − value),
    r̄_{−i} the mean residual of the *other* points of the bin. Uniform weights give the value, and
    the deviation over bootstrap weights its standard error.

    Parameters
    ----------
    confidence, outcome, num_bins
        As in `calibration_error`.
    weights
        Uniform, or from `bootstrap_weights`.

    Raises
    ------
    ValueError
        If probabilities, weights or `num_bins` are out of range.

    References
    ----------
    Kumar, Liang & Ma (2019), arXiv 1909.10155, section 5 · Hájek (1968),
    doi:10.1214/aoms/1177698394 (projection).
    """
    confidence = checked_confidence(confidence)
    most = max(len(confidence) // 2, 1)  # a bin with one point says nothing, and would count 0
    bins = confidence_bins(confidence, num_bins=min(num_bins, most), binning="mass")
    check_weights(weights)
    return linear_squared_error(confidence, outcome, weights.astype(float), bins)
