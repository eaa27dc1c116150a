"""Likelihoods: how an observation depends on the latent function f (c,) at one point.

Each supplies what training and inference need at *one* point; `jax.vmap` gives the rest:

- ``log_prob``: log p(y | f), normalised, in nats;
- ``score`` s(f) = ∂ log p / ∂f and ``curvature`` W(f) = −∂² log p / ∂f²;
- ``score_noise``: a draw ξ with E ξ = 0 and cov ξ = W(f), the randomisation of perturbed targets;
- ``sample``: a new observation.

Observations travel as *targets* (n c): one-hot rows for classes (or soft labels), values for
regression, counts. ``targets`` makes them from what a user has.
"""

from ntkbayes.likelihoods.base import Likelihood
from ntkbayes.likelihoods.classes import Bernoulli, Categorical
from ntkbayes.likelihoods.counts import Poisson
from ntkbayes.likelihoods.gaussian import Gaussian

__all__ = ["Bernoulli", "Categorical", "Gaussian", "Likelihood", "Poisson"]
