"""Any log-concave likelihood: draw initial functions, then solve one convex problem per draw.

Draws of f₀ are joint over training and test points; every problem starts at the first-order
solution around the mode (f₀ = 0), whose Hessian preconditions all of them.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from ntkbayes._linalg import covariance_factor, extend_factor
from ntkbayes._problem import TrainingSet, checked_inputs
from ntkbayes._types import AnyArray, Array, Float, Key, Progress, silent
from ntkbayes.ensembles.initial import initial_kernel
from ntkbayes.likelihoods import Likelihood
from ntkbayes.networks import KernelPair, Network
from ntkbayes.predictors import Draws, Predictor
from ntkbayes.solvers import (
    Hessian,
    Solution,
    default_tolerance,
    find_mode,
    hessian_at,
    require_converged,
    solve_stationarity,
    uniform_hessian,
)

__all__ = ["ConvexEnsemble", "convex_ensemble"]

SLOT_BYTES = 64 * 2**20
"""Size of one (slots, n, c) array in the solver; about fifteen of them live at a time."""
NUM_REPORTS = 8
"""How often progress is reported; the solver's slots empty at the end of every part."""


class ConvexEnsemble(Predictor):
    """An ensemble of trained functions, each with a certificate of its solution."""

    likelihood: Likelihood
    network: Network
    train: TrainingSet
    prior_precision: float
    initial: str = eqx.field(static=True)
    perturb_targets: bool = eqx.field(static=True)
    k_train: Float[Array, "n n"]
    factor: Float[Array, "n n"] | None
    mode: Solution
    hessian: Hessian | None

    def draw(self, key: Key, x: AnyArray, *, num_draws: int, progress: Progress = silent) -> Draws:
        """Draw trained functions jointly over the rows of x.

        ``stats`` holds ``residual`` (max |a − s(f₀ + K a)|), ``newton_steps``, ``iterations`` and
        ``gemm_equivalents``, as in `ntkbayes.solvers.Solution`.

        Raises
        ------
        ValueError
            If a draw's residual is above √eps.
        """
        x_test = checked_inputs(self.train, x)
        cross = self.network.kernel(self.train.x, x_test)
        key_train, key_test, key_targets = jax.random.split(key, 3)
        f0_train, f0_test = self._initial_functions(key_train, key_test, cross, x_test, num_draws)
        solution = self._train(key_targets, f0_train, progress)
        k_cross = cross.ntk / self.prior_precision
        latent = f0_test + jnp.einsum("nm,snc->smc", k_cross, solution.a)
        names = ("residual", "newton_steps", "iterations", "gemm_equivalents")
        return Draws(latent, {name: getattr(solution, name) for name in names})

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
            "perturb_targets": self.perturb_targets,
            **self.network.settings(),
        }

    def _initial_functions(
        self, key_train: Key, key_test: Key, cross: KernelPair, x_test: Array, num_draws: int
    ) -> tuple[Float[Array, "s n c"], Float[Array, "s m c"]]:
        n, c = self.train.targets.shape
        dtype = self.train.x.dtype
        if self.factor is None:
            return jnp.zeros((num_draws, n, c), dtype), jnp.zeros(
                (num_draws, len(x_test), c), dtype
            )
        test = self.network.kernel(x_test)
        rows = extend_factor(
            self.factor,
            initial_kernel(cross, self.initial, self.prior_precision),
            initial_kernel(test, self.initial, self.prior_precision),
            name="the initial function's covariance",
        )
        z = jax.random.normal(key_train, (num_draws, n, c), dtype)
        z_test = jax.random.normal(key_test, (num_draws, len(x_test), c), dtype)
        f0_train = jnp.einsum("ij,sjc->sic", self.factor, z)
        f0_test = jnp.einsum("ij,sjc->sic", rows[0], z)
        return f0_train, f0_test + jnp.einsum("ij,sjc->sic", rows[1], z_test)

    def _train(self, key: Key, f0: Float[Array, "s n c"], progress: Progress) -> Solution:
        num_draws = len(f0)
        if self.hessian is None:
            solution = jax.tree.map(lambda leaf: jnp.stack([leaf] * num_draws), self.mode)
            progress(1.0)
            return solution
        noise = self._score_noise(key, f0)
        tolerance = default_tolerance(f0.dtype)
        num_slots = max(1, min(num_draws, SLOT_BYTES // f0[0].nbytes))
        part = max(num_slots, -(-num_draws // NUM_REPORTS))
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
                tolerance=tolerance,
                num_slots=num_slots,
            )
            require_converged(solved, tolerance=tolerance)
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
    network: Network,
    likelihood: Likelihood,
    train: TrainingSet,
    prior_precision: float,
    initial: str,
    perturb_targets: bool,
) -> ConvexEnsemble:
    """Find the mode and factor its Hessian and the initial covariance; cost ≈ 6 c n³."""
    kernel = network.kernel(train.x)
    k_train = kernel.ntk / prior_precision
    tolerance = default_tolerance(k_train.dtype)
    mode = find_mode(k_train, likelihood, train.targets, tolerance=tolerance)
    require_converged(mode, tolerance=tolerance)
    factor = None
    if initial != "zero":
        covariance = initial_kernel(kernel, initial, prior_precision)
        factor = covariance_factor(covariance, name="the initial function's covariance")
    hessian = None
    if factor is not None or perturb_targets:
        # Functions drawn from the prior end where the curvature is not that of the mode: there the
        # mean curvature, in products of K half as dear, is as good a preconditioner.
        precondition = uniform_hessian if initial == "ntk" else hessian_at
        hessian = precondition(k_train, likelihood, k_train @ mode.a)
    return ConvexEnsemble(
        likelihood, network, train, prior_precision, initial, perturb_targets, k_train, factor,
        mode, hessian,
    )  # fmt: skip
