"""Any log-concave likelihood: draw initial functions, then solve one convex problem per draw.

Every problem starts at the first-order solution around the mode (f₀ = 0), whose Hessian
preconditions all of them.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from ntkbayes._problem import TrainingSet
from ntkbayes._types import AnyArray, Array, Float, Key, Progress, silent
from ntkbayes.ensembles.initial import draw_initial_functions, initial_factor
from ntkbayes.ensembles.members import Members
from ntkbayes.likelihoods import Likelihood
from ntkbayes.networks import WideNetwork
from ntkbayes.predictors import Draws, Predictor
from ntkbayes.solvers import (
    Hessian,
    Solution,
    find_mode,
    hessian_at,
    require_converged,
    solve_stationarity,
    uniform_hessian,
)

__all__ = ["ConvexEnsemble", "convex_ensemble"]

SLOT_BYTES = 4 * 2**20
"""Size of one (slots, n, c) array in the solver, small enough for a processor's cache."""
NUM_REPORTS = 8
"""How often progress is reported; the solver's slots empty at the end of every part."""


class ConvexEnsemble(Predictor):
    """An ensemble of trained functions, each with a certificate of its solution."""

    likelihood: Likelihood
    network: WideNetwork
    train: TrainingSet
    prior_precision: float
    initial: str = eqx.field(static=True)
    perturb_targets: bool = eqx.field(static=True)
    k_train: Float[Array, "n n"]
    factor: Float[Array, "n n"] | None
    mode: Solution
    hessian: Hessian | None
    tolerance: float
    initial_functions: str = eqx.field(static=True)

    def members(self, key: Key, *, num_members: int, progress: Progress = silent) -> Members:
        """Draw initial functions and targets, and train on them.

        ``stats`` holds ``residual`` (max |a − s(f₀ + K a)|), ``newton_steps``, ``iterations`` and
        ``gemm_equivalents``, as in `ntkbayes.solvers.Solution`.

        Parameters
        ----------
        key
            The same key gives the same members.
        num_members
            How many.
        progress
            Called with the trained fraction.

        Raises
        ------
        ValueError
            If a member's residual is above `tolerance`.
        """
        key_initial, key_targets = jax.random.split(key)
        f0, functions = draw_initial_functions(
            key_initial,
            self.network,
            self.train.x,
            factor=self.factor,
            initial=self.initial,
            prior_precision=self.prior_precision,
            kind=self.initial_functions,
            num_draws=num_members,
            num_outputs=self.likelihood.num_outputs,
        )
        solution = self._train(key_targets, f0, progress)
        names = ("residual", "newton_steps", "iterations", "gemm_equivalents")
        stats = {name: getattr(solution, name) for name in names}
        coefficients = solution.a / self.prior_precision
        return Members(self.network, self.train, functions, coefficients, stats)

    def draw(self, key: Key, x: AnyArray, *, num_draws: int, progress: Progress = silent) -> Draws:
        """Draw trained functions jointly over the rows of x: `members`, evaluated there."""
        members = self.members(key, num_members=num_draws, progress=progress)
        return Draws(members.evaluate(x)[0], members.stats)

    @property
    def num_available(self) -> int | None:
        """One for a deterministic predictor, else unlimited."""
        return 1 if self.hessian is None else None

    @property
    def settings(self) -> dict[str, Any]:
        """Method and settings."""
        return {
            "method": "ntk_ensemble",
            "prior_precision": self.prior_precision,
            "initial": self.initial,
            "initial_functions": self.initial_functions,
            "perturb_targets": self.perturb_targets,
            "tolerance": self.tolerance,
            **self.network.settings(),
        }

    def _train(self, key: Key, f0: Float[Array, "s n c"], progress: Progress) -> Solution:
        num_draws = len(f0)
        if self.hessian is None:
            solution = jax.tree.map(lambda leaf: jnp.stack([leaf] * num_draws), self.mode)
            progress(1.0)
            return solution
        noise = self._score_noise(key, f0)
        num_slots = min(num_draws, max(8, SLOT_BYTES // f0[0].nbytes))
        part = max(2 * num_slots, -(-num_draws // NUM_REPORTS))
        parts = []
        for start in range(0, num_draws, part):
            solved = solve_stationarity(
                self.k_train,
                self.likelihood,
                self.train.targets,
                f0[start : start + part],
                noise[start : start + part],
                self.mode.a,
                self.hessian,
                tolerance=self.tolerance,
                num_slots=num_slots,
            )
            require_converged(solved, tolerance=self.tolerance)
            parts.append(solved)
            progress(min(1.0, (start + part) / num_draws))
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)

    def _score_noise(self, key: Key, f0: Float[Array, "s n c"]) -> Float[Array, "s n c"]:
        """ξ of each draw: observations resampled at the mode minus their mean, if perturbed."""
        if not self.perturb_targets:
            return jnp.zeros_like(f0)
        keys = jax.random.split(key, f0.shape[:2])
        noise = jax.vmap(jax.vmap(self.likelihood.score_noise), in_axes=(0, None))
        return noise(keys, self.k_train @ self.mode.a)


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
    """Find the mode and factor its Hessian and the initial covariance; cost ≈ 6 c n³."""
    kernel = network.kernel(train.x)
    k_train = kernel.ntk / prior_precision
    mode = find_mode(k_train, likelihood, train.targets, tolerance=tolerance)
    require_converged(mode, tolerance=tolerance)
    factor = initial_factor(network, kernel, initial, prior_precision, initial_functions)
    hessian = None
    if initial != "zero" or perturb_targets:
        # Functions drawn from the prior end where the curvature is not that of the mode: there the
        # mean curvature, in products of K half as dear, is as good a preconditioner.
        precondition = uniform_hessian if initial == "ntk" else hessian_at
        hessian = precondition(k_train, likelihood, k_train @ mode.a)
    return ConvexEnsemble(
        likelihood, network, train, prior_precision, initial, perturb_targets, k_train, factor,
        mode, hessian, tolerance, initial_functions,
    )  # fmt: skip
