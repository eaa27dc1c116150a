"""Independent ways to a posterior, in plain NumPy, and comparison within Monte-Carlo errors."""

import arviz as az
import numpy as np


def assert_within_standard_errors(draws, expected, error=0.0, *, num_errors=5.0, min_ess=1000):
    """Compare the mean of draws (chain draw …) with `expected`, itself known up to `error`."""
    axes = dict(chain_axis=0, draw_axis=1)
    assert az.ess(draws, **axes).min() > min_ess
    error = np.hypot(az.mcse(draws, method="mean", **axes), error)
    difference = np.abs(draws.mean(axis=(0, 1)) - expected)
    assert np.all(difference < num_errors * error), difference / error


def importance_average(log_weights, quantity):
    """Self-normalised mean of `quantity` (s …) and its standard error."""
    weights = np.exp(log_weights - log_weights.max())
    weights /= weights.sum()
    assert 1 / np.sum(weights**2) > 20_000
    mean = np.tensordot(weights, quantity, 1)
    return mean, np.sqrt(np.tensordot(weights**2, (quantity - mean) ** 2, 1))


def elliptical_slice(covariance, log_likelihood, num_outputs, rng, *, num_chains, num_steps):
    """Sample f (k c) with prior N(0, covariance) per output: Murray, Adams & MacKay 2010, fig. 2.

    All chains at once; `log_likelihood` maps (chains k c) to (chains,). The result is
    (chains, num_steps, k, c).
    """
    scale_tril = np.linalg.cholesky(covariance)

    def prior():
        shape = (num_chains, len(covariance), num_outputs)
        return np.einsum("ij,sjc->sic", scale_tril, rng.normal(size=shape))

    f, visited = prior(), []
    for _ in range(num_steps):
        nu, height = prior(), log_likelihood(f) + np.log(rng.uniform(size=num_chains))
        angle = rng.uniform(0, 2 * np.pi, size=num_chains)
        lower, upper = angle - 2 * np.pi, angle.copy()
        while True:
            turned = angle[:, None, None]
            proposal = f * np.cos(turned) + nu * np.sin(turned)
            rejected = log_likelihood(proposal) <= height
            if not rejected.any():
                break
            lower = np.where(rejected & (angle < 0), angle, lower)
            upper = np.where(rejected & (angle >= 0), angle, upper)
            angle = np.where(rejected, rng.uniform(lower, upper), angle)
        f = proposal
        visited.append(f)
    return np.stack(visited, axis=1)
