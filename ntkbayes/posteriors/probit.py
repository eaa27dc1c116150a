"""Class probabilities of a Gaussian latent function in closed form: the probit approximation.

E σ(f) for f ~ N(m, v) is close to σ(m / √(1 + π v / 8)). For a softmax each logit is scaled so:

    p ≈ softmax(m / √(1 + π v / 8)),

which leaves out the correlation between classes.

References
----------
MacKay 1992, doi 10.1162/neco.1992.4.5.720, eq. 10 (logistic). Lu, Ie, Sha 2020, arXiv 2006.07584
(softmax).
"""

import jax
import jax.numpy as jnp

from ntkbayes._types import AnyArray, Array, Float, typed
from ntkbayes.likelihoods import Bernoulli, Categorical
from ntkbayes.predictors import GaussianPredictor

__all__ = ["probit_probabilities"]


@typed
def probit_probabilities(predictor: GaussianPredictor, x: AnyArray) -> Float[Array, "m c"]:
    """Approximate the predictive class probabilities at x without drawing.

    Parameters
    ----------
    predictor
        Any with Gaussian functions and a `Categorical` or `Bernoulli` likelihood.
    x
        Test inputs (m d).

    Returns
    -------
    Array
        Probability of every class; for `Bernoulli` one column, that of the label 1.

    Raises
    ------
    ValueError
        If the likelihood has no classes.

    Examples
    --------
    >>> posterior = nb.laplace(*model, prior_precision=1.0)
    >>> p = nb.probit_probabilities(posterior, data.x_test)
    >>> p.shape, np.allclose(p.sum(axis=1), 1)
    ((300, 2), True)
    """
    mean, variance = predictor.mean(x), predictor.variance(x)
    scaled = mean / jnp.sqrt(1 + jnp.pi / 8 * variance)
    match predictor.likelihood:
        case Categorical():
            return jax.nn.softmax(scaled)
        case Bernoulli():
            return jax.nn.sigmoid(scaled)
        case other:
            raise ValueError(
                f"probit_probabilities needs classes, but the likelihood is "
                f"{type(other).__name__}: its predictive moments follow from mean and variance."
            )
