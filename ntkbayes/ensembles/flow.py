"""Any log-concave likelihood, trained by gradient flow until a finite time."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntkbayes._problem import TrainingSet, over_precision
from ntkbayes._types import Array, Float
from ntkbayes.ensembles.drawn import DrawnEnsemble
from ntkbayes.ensembles.initial import initial_law
from ntkbayes.likelihoods import Likelihood
from ntkbayes.networks import WideNetwork
from ntkbayes.solvers import (
    Flow,
    FlowSolution,
    find_mode,
    largest_deviation,
    prepare_flow,
    require_accurate,
    require_converged,
    solve_flow,
)

__all__ = ["FlowEnsemble", "flow_ensemble"]

PART = 32
"""Draws that are integrated side by side."""
EXPECTED_STEPS = 200
"""Of an integration, by which the tolerance is divided; draws that need more are done again."""
MAX_ATTEMPTS = 4


class FlowEnsemble(DrawnEnsemble):
    """Trained until `time`; `tolerance` bounds the latent error at the training points.

    A member's ``stats`` are ``error_bound``, in standard deviations √(Θ(x, x) / λ) of the prior
    (without prior, in units of √Θ(x, x)), and ``residual``, ``num_steps`` and ``gemm_equivalents``
    as in `ntkbayes.solvers.FlowSolution`. The bound is that of rounding and of the integration's
    errors as they are estimated, step by step.

    Attributes
    ----------
    flow, time
        The training problem, and when it ends.
    deviation
        Largest √Θ(x, x) at a training point, in units of `Likelihood.latent_scale`.
    """

    flow: Flow
    time: float
    deviation: float

    @property
    def settings(self) -> dict[str, Any]:
        """Method and settings."""
        return {**super().settings, "time": str(self.time)}

    def _train(
        self, f0: Float[Array, "s n c"], score_noise: Float[Array, "s n c"]
    ) -> tuple[Float[Array, "s n c"], dict[str, Array]]:
        tolerance = self.tolerance / max(EXPECTED_STEPS * self.deviation, self.tolerance)
        solution = self._solve(f0, score_noise, tolerance)
        for _ in range(MAX_ATTEMPTS - 1):
            missed = np.asarray(solution.error) * self.deviation / self.tolerance
            late = np.flatnonzero(missed > 1)
            if not late.size:
                break
            tolerance = tolerance / (2 * float(missed.max()))
            again = self._solve(f0[late], score_noise[late], tolerance)
            gained = float(again.error.max()) < 0.5 * float(solution.error.max())
            solution = jax.tree.map(lambda a, b, late=late: a.at[late].set(b), solution, again)
            if not gained:  # rounding is left, which shorter steps do not lower
                break
        require_accurate(
            solution.error * self.deviation,
            tolerance=self.tolerance,
            dtype=f0.dtype,
            cause="the sum of what rounding and the steps of the integration may have cost",
        )
        prior = self.prior_precision or 1.0
        stats = {"error_bound": solution.error * jnp.asarray(prior**0.5, f0.dtype)}
        names = ("residual", "num_steps", "gemm_equivalents")
        return solution.b, stats | {name: getattr(solution, name) for name in names}

    def _solve(
        self, f0: Float[Array, "s n c"], score_noise: Float[Array, "s n c"], tolerance: float
    ) -> FlowSolution:
        return solve_flow(self.flow, f0, score_noise, time=self.time, tolerance=tolerance)

    def _part(self, num_draws: int) -> int:
        return PART


def flow_ensemble(
    network: WideNetwork,
    likelihood: Likelihood,
    train: TrainingSet,
    prior_precision: float,
    initial: str,
    perturb_targets: bool,
    *,
    time: float,
    tolerance: float,
    initial_functions: str,
) -> FlowEnsemble:
    """Diagonalise Θ and factor the initial covariance; find the mode if targets are perturbed."""
    kernel = network.kernel(train.x)
    mode_latent = None
    if perturb_targets:
        k_train = over_precision(kernel.ntk, prior_precision)
        mode = find_mode(k_train, likelihood, train.targets, tolerance=tolerance)
        require_converged(mode, tolerance=tolerance)
        mode_latent = k_train @ mode.a
    return FlowEnsemble(
        likelihood,
        network,
        train,
        initial_law(network, kernel, initial, prior_precision, initial_functions),
        prior_precision,
        mode_latent=mode_latent,
        tolerance=tolerance,
        flow=prepare_flow(kernel.ntk, likelihood, train.targets, prior_precision),
        time=time,
        deviation=float(largest_deviation(kernel.ntk) / likelihood.latent_scale),
    )
