"""Any log-concave likelihood, trained by gradient flow until a finite time."""

from typing import Any

from ntkbayes._problem import TrainingSet
from ntkbayes._types import Array, Float
from ntkbayes.ensembles.drawn import DrawnEnsemble
from ntkbayes.ensembles.initial import initial_law
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
        self, f0: Float[Array, "s n c"], score_noise: Float[Array, "s n c"]
    ) -> tuple[Float[Array, "s n c"], dict[str, Array]]:
        solution = solve_flow(self.flow, f0, score_noise, time=self.time, tolerance=self.tolerance)
        names = ("residual", "num_steps", "gemm_equivalents")
        return solution.b, {name: getattr(solution, name) for name in names}

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
        k_train = kernel.ntk / prior_precision
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
    )
