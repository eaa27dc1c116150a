"""The Brier score taken apart: reliability, resolution, uncertainty.

With the bins k of the confidence p_c in class c, their weights W_k, mean confidences p̄_k and
outcome rates ō_k, and ō the rate of the class,

    Brier = REL − RES + UNC + WBV − WBC, each summed over classes,
    REL = Σ_k W_k (p̄_k − ō_k)²        RES = Σ_k W_k (ō_k − ō)²        UNC = ō (1 − ō)
    WBV = Σ_i w_i (p_i − p̄_k(i))²     WBC = 2 Σ_i w_i (p_i − p̄_k(i)) (o_i − ō_k(i)).

The first three are Murphy's (1973) and add up only if the confidences in a bin are equal; the last
two, within bins, are those of Stephenson, Coelho & Jolliffe (2008), eq. 7, who put the factor 2
into WBC.

References
----------
Murphy (1973), doi:10.1175/1520-0450(1973)012<0595:ANVPOT>2.0.CO;2 · Stephenson, Coelho & Jolliffe
(2008), doi:10.1175/2007WAF2006116.1.
"""

import equinox as eqx
import numpy as np

from ntkbayes._types import Float, Int
from ntkbayes.evaluation.metrics.bins import NUM_BINS, bin_sums, confidence_bins, ratio
from ntkbayes.evaluation.metrics.inputs import check_weights, checked_predictions
from ntkbayes.evaluation.metrics.resampling import weighted

__all__ = ["BrierDecomposition", "brier_decomposition"]


class BrierDecomposition(eqx.Module):
    """Parts of the Brier score (sum over classes), each one value per row of weights.

    Parameters
    ----------
    reliability
        Squared error of calibration over bins; smaller is better.
    resolution
        How far the outcome rates of bins are from the overall rate; larger is better.
    uncertainty
        Variance of the outcomes, the Brier score of predicting the class frequencies; no
        property of the predictor.
    within_bin_variance, within_bin_covariance
        What bins lose: the variance of the confidences in them, and twice their covariance with
        the outcomes.
    """

    reliability: Float[np.ndarray, "*b"]
    resolution: Float[np.ndarray, "*b"]
    uncertainty: Float[np.ndarray, "*b"]
    within_bin_variance: Float[np.ndarray, "*b"]
    within_bin_covariance: Float[np.ndarray, "*b"]

    @property
    def generalized_resolution(self) -> np.ndarray:
        """RES − WBV + WBC: resolution that depends less on the bins."""
        return self.resolution - self.within_bin_variance + self.within_bin_covariance

    @property
    def brier(self) -> np.ndarray:
        """The sum of the parts, which is the Brier score."""
        return self.reliability - self.generalized_resolution + self.uncertainty


@weighted
def brier_decomposition(
    p: Float[np.ndarray, "m c"],
    y: Int[np.ndarray, "m"],
    weights: Float[np.ndarray, "*b m"],
    *,
    num_bins: int = NUM_BINS,
    binning: str = "width",
) -> BrierDecomposition:
    """Take the Brier score (sum over classes, not halved) apart, exactly for any weights.

    Parameters
    ----------
    p, y, weights
        See the module's docstring.
    num_bins, binning
        As in `calibration_error`; bins of equal mass differ between classes.

    Raises
    ------
    ValueError
        If labels, probabilities, weights or settings are out of range.
    """
    p = checked_predictions(p, y)
    check_weights(weights)
    parts = [
        _parts_of_class(
            p[:, c].astype(float),
            (y == c).astype(float),
            weights,
            confidence_bins(p[:, c], num_bins=num_bins, binning=binning),
            num_bins,
        )
        for c in range(p.shape[1])
    ]
    return BrierDecomposition(*np.sum(parts, axis=0))


def _parts_of_class(
    p: np.ndarray, outcome: np.ndarray, weights: np.ndarray, bins: np.ndarray, num_bins: int
) -> list[np.ndarray]:
    values = np.ones_like(p), p, outcome, p**2, p * outcome
    share, confident, happened, square, product = bin_sums(weights, bins, num_bins, *values)
    mean_p, rate = ratio(confident, share), ratio(happened, share)
    overall = happened.sum(axis=-1, keepdims=True)
    per_bin = (
        share * (mean_p - rate) ** 2,
        share * (rate - overall) ** 2,
        happened * (1 - overall),
        square - share * mean_p**2,
        2 * (product - share * mean_p * rate),
    )
    return [part.sum(axis=-1) for part in per_bin]
