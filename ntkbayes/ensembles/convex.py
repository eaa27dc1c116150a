"""Any log-concave likelihood, trained to the end: one convex problem per draw.

Every problem starts at the first-order solution around the mode (f₀ = 0), whose Hessian
preconditions all of them.
"""

import math

import jax
import jax.numpy as jnp

from ntkbayes._problem import TrainingSet
from ntkbayes._types import Array, Float, Progress
from ntkbayes.ensembles.drawn import DrawnEnsemble
from ntkbayes.ensembles.initial import initial_factor
from ntkbayes.likelihoods import Likelihood
from ntkbayes.networks import WideNetwork
from ntkbayes.solvers import (
    Hessian,
    Solution,
    find_mode,
    preconditioner,
    require_converged,
    solve_stationarity,
)

__all__ = ["ConvexEnsemble", "convex_ensemble"]

SLOT_BYTES = 4 * 2**20
"""Size of one (slots, n, c) array in the solver, small enough for a processor's cache."""
SLOT_MULTIPLE = 16
"""Matrix products of other widths take up to a third longer."""
NUM_REPORTS = 8
"""How often progress is reported; the solver's slots empty at the end of every part."""


class ConvexEnsemble(DrawnEnsemble):
    """Trained to the end with λ > 0; `tolerance` bounds max |a − s(f₀ + K a)| of every member.

    A member's ``stats`` are ``residual``, ``iterations`` and ``gemm_equivalents``, as in
    `ntkbayes.solvers.Solution`.
    """

    k_train: Float[Array, "n n"]
    mode: Solution
    hessian: Hessian | None

    def _train(
        self, f0: Float[Array, "s n c"], score_noise: Float[Array, "s n c"], progress: Progress
    ) -> tuple[Float[Array, "s n c"], dict[str, Array]]:
        solution = self._solve(f0, score_noise, progress)
        names = ("residual", "iterations", "gemm_equivalents")
        stats = {name: getattr(solution, name) for name in names}
        return solution.a / self.prior_precision, stats

    def _solve(
        self, f0: Float[Array, "s n c"], score_noise: Float[Array, "s n c"], progress: Progress
    ) -> Solution:
        num_draws = len(f0)
        if self.hessian is None:
            solution = jax.tree.map(lambda leaf: jnp.stack([leaf] * num_draws), self.mode)
            progress(1.0)
            return solution
        fitting = max(1, SLOT_BYTES // (SLOT_MULTIPLE * f0[0].nbytes))
        num_slots = min(num_draws, SLOT_MULTIPLE * fitting)
        part = num_slots * max(4, math.ceil(num_draws / (NUM_REPORTS * num_slots)))
        parts = []
        for start in range(0, num_draws, part):
            solved = solve_stationarity(
                self.k_train,
                self.likelihood,
                self.train.targets,
                f0[start : start + part],
                score_noise[start : start + part],
                self.mode.a,
                self.hessian,
                tolerance=self.tolerance,
                num_slots=num_slots,
            )
            require_converged(solved, tolerance=self.tolerance)
            parts.append(solved)
            progress(min(1.0, (start + part) / num_draws))
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)


def convex_ensemble(
    network: WideNetwork,
    likelihood: Likelihood,
    train: TrainingSet,
    prior_precision: float,
    initial: str,
    perturb_targets: bool,
    *,
    tolerance: float,
    initial_functions: str,
) -> ConvexEnsemble:
    """Find the mode and factor its Hessian and the initial covariance; cost ≈ 2⅓ c n³."""
    kernel = network.kernel(train.x)
    k_train = kernel.ntk / prior_precision
    mode = find_mode(k_train, likelihood, train.targets, tolerance=tolerance)
    require_converged(mode, tolerance=tolerance)
    mode_latent = k_train @ mode.a
    hessian = None
    if initial != "zero" or perturb_targets:
        hessian = preconditioner(k_train, likelihood, mode_latent)
    return ConvexEnsemble(
        likelihood,
        network,
        train,
        prior_precision,
        initial,
        initial_functions,
        factor=initial_factor(network, kernel, initial, prior_precision, initial_functions),
        mode_latent=mode_latent if perturb_targets else None,
        tolerance=tolerance,
        k_train=k_train,
        mode=mode,
        hessian=hessian,
    )
