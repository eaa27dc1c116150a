"""Any log-concave likelihood, trained by gradient flow until a finite time."""

from typing import Any

import jax
import jax.numpy as jnp

from ntkbayes._problem import TrainingSet
from ntkbayes._types import Array, Float, Progress
from ntkbayes.ensembles.drawn import DrawnEnsemble
from ntkbayes.ensembles.initial import initial_factor
from ntkbayes.likelihoods import Likelihood
from ntkbayes.networks import WideNetwork
from ntkbayes.solvers import Flow, find_mode, prepare_flow, require_converged, solve_flow

__all__ = ["FlowEnsemble", "flow_ensemble"]

PART = 32
"""Draws that are integrated side by side."""


class FlowEnsemble(DrawnEnsemble):
    """Trained until `time`; `tolerance` bounds the error of a step (`ntkbayes.solvers.flow`).

    A member's ``stats`` are ``residual``, ``num_steps`` and ``gemm_equivalents``, as in
    `ntkbayes.solvers.FlowSolution`.
    """

    flow: Flow
    time: float

    @property
    def settings(self) -> dict[str, Any]:
        """Method and settings."""
        return {**super().settings, "time": str(self.time)}

    def _train(
        self, f0: Float[Array, "s n c"], score_noise: Float[Array, "s n c"], progress: Progress
    ) -> tuple[Float[Array, "s n c"], dict[str, Array]]:
        num_draws = len(f0)
        distinct = min(num_draws, self.num_available or num_draws)
        parts = []
        for start in range(0, distinct, PART):
            part = slice(start, min(start + PART, distinct))
            solved = solve_flow(
                self.flow, f0[part], score_noise[part], time=self.time, tolerance=self.tolerance
            )
            parts.append(solved)
            progress(part.stop / distinct)
        solution = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
        solution = jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, (num_draws, *leaf.shape[1:])), solution
        )
        names = ("residual", "num_steps", "gemm_equivalents")
        return solution.b, {name: getattr(solution, name) for name in names}


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
        k_train = kernel.ntk / prior_precision
        mode = find_mode(k_train, likelihood, train.targets, tolerance=tolerance)
        require_converged(mode, tolerance=tolerance)
        mode_latent = k_train @ mode.a
    return FlowEnsemble(
        likelihood,
        network,
        train,
        prior_precision,
        initial,
        initial_functions,
        factor=initial_factor(network, kernel, initial, prior_precision, initial_functions),
        mode_latent=mode_latent,
        tolerance=tolerance,
        flow=prepare_flow(kernel.ntk, likelihood, train.targets, prior_precision),
        time=time,
    )
