"""The negative log likelihood of a mixture over draws, for any likelihood."""

import numpy as np
import scipy.special

from ntkbayes._types import Float, typed
from ntkbayes.evaluation.metrics.resampling import weighted_mean

__all__ = [
    "mixture_nll",
]


@typed
def mixture_nll(
    log_likelihood: Float[np.ndarray, "s m"], weights: Float[np.ndarray, "*b m"]
) -> Float[np.ndarray, "*b"]:
    """Return −Σ_i w_i log (1/s) Σ_s p(y_i | f_s), in nats per point.

    The logarithm of the mean over draws, never the mean of logarithms. For classes it is −log p
    at the true class; for regression the density of the mixture of one Gaussian per draw, in
    nats for standardised targets, summed over outputs.
    """
    num_draws = log_likelihood.shape[0]
    return weighted_mean(
        weights, np.log(num_draws) - scipy.special.logsumexp(log_likelihood, axis=0)
    )
