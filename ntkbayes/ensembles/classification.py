"""The cross-entropy case: draw initial functions, then solve one convex problem per draw.

Draws of f₀ are joint over training and test points; every problem starts at the first-order
solution around the mode (f₀ = 0), whose Hessian preconditions all of them.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from ntkbayes._linalg import covariance_factor, extend_factor
from ntkbayes._problem import TrainingSet, checked_inputs, kernel_name
from ntkbayes._types import AnyArray, Array, Float, Key, Progress, silent
from ntkbayes.ensembles.initial import initial_kernel
from ntkbayes.likelihoods import Categorical
from ntkbayes.networks import KernelPair, Network
from ntkbayes.predictors import Draws, Predictor
from ntkbayes.solvers import (
    SoftmaxHessian,
    Solution,
    default_tolerance,
    find_mode,
    require_converged,
    softmax_hessian,
    solve_stationarity,
)

__all__ = ["ClassificationEnsemble", "classification_ensemble"]

BLOCK_BYTES = 64 * 2**20
"""Size of one (draws, n, c) array in the solver; about fifteen of them live at a time."""


class ClassificationEnsemble(Predictor):
    """An ensemble of trained classifiers, each with a certificate of its solution."""

    likelihood: Categorical  # pyright: ignore[reportIncompatibleVariableOverride]
    network: Network
    train: TrainingSet
    prior_precision: float
    initial: str = eqx.field(static=True)
    perturb_targets: bool = eqx.field(static=True)
    k_train: Float[Array, "n n"]
    factor: Float[Array, "n n"] | None
    mode: Solution
    hessian: SoftmaxHessian | None

    def draw(self, key: Key, x: AnyArray, *, num_draws: int, progress: Progress = silent) -> Draws:
        """Draw trained functions jointly over the rows of x, in blocks that bound the memory.

        ``stats`` holds ``residual`` (max |a − s(f₀ + K a)|), ``newton_steps`` and ``cg_steps``.

        Raises
        ------
        ValueError
            If a draw's residual is above √eps.
        """
        x_test = checked_inputs(self.train, x)
        cross = self.network.kernel(self.train.x, x_test)
        k_cross = cross.ntk / self.prior_precision
        key_initial, key_test, key_targets = jax.random.split(key, 3)
        if self.factor is None:
            f0_train = jnp.zeros((num_draws, *self.train.targets.shape), self.train.x.dtype)
            f0_test = jnp.zeros((num_draws, len(x_test), f0_train.shape[2]), f0_train.dtype)
        else:
            rows = self._factor_rows(cross, x_test)
            shape = (num_draws, *self.train.targets.shape)
            z = jax.random.normal(key_initial, shape, self.train.x.dtype)
            z_test = jax.random.normal(
                key_test, (num_draws, len(x_test), shape[2]), self.train.x.dtype
            )
            f0_train = jnp.einsum("ij,sjc->sic", self.factor, z)
            f0_test = jnp.einsum("ij,sjc->sic", rows[0], z)
            f0_test = f0_test + jnp.einsum("ij,sjc->sic", rows[1], z_test)
        solution = self._train(key_targets, f0_train, progress)
        latent = f0_test + jnp.einsum("nm,snc->smc", k_cross, solution.a)
        stats = {
            "residual": solution.residual,
            "newton_steps": solution.newton_steps,
            "cg_steps": solution.cg_steps,
        }
        return Draws(latent, stats)

    @property
    def num_available(self) -> int | None:
        """One for a deterministic predictor, else unlimited."""
        return 1 if self.initial == "zero" and not self.perturb_targets else None

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

    def _factor_rows(self, cross: KernelPair, x_test: Array) -> tuple[Array, Array]:
        test = self.network.kernel(x_test)
        q_cross = initial_kernel(cross, self.initial, self.prior_precision)
        q_test = initial_kernel(test, self.initial, self.prior_precision)
        assert self.factor is not None  # for the type checker: draw() asks only then
        name = kernel_name(self.network, self.initial)
        return extend_factor(self.factor, q_cross, q_test, name=name)

    def _train(self, key: Key, f0: Float[Array, "s n c"], progress: Progress) -> Solution:
        num_draws = len(f0)
        if self.hessian is None:
            solution = jax.tree.map(lambda leaf: jnp.stack([leaf] * num_draws), self.mode)
            progress(1.0)
            return solution
        targets = self._targets(key, num_draws)
        tolerance = default_tolerance(f0.dtype)
        block = max(1, min(num_draws, BLOCK_BYTES // f0[0].nbytes))
        parts = []
        for start in range(0, num_draws, block):
            part = solve_stationarity(
                self.k_train,
                self.likelihood,
                targets[start : start + block],
                f0[start : start + block],
                self.mode.a,
                self.hessian,
                tolerance=tolerance,
            )
            require_converged(part, tolerance=tolerance)
            parts.append(part)
            progress(min(1.0, (start + block) / num_draws))
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)

    def _targets(self, key: Key, num_draws: int) -> Float[Array, "s n c"]:
        """Targets of each draw: with labels resampled at the mode added, if perturbed."""
        shape = (num_draws, *self.train.targets.shape)
        targets = jnp.broadcast_to(self.train.targets, shape)
        if not self.perturb_targets:
            return targets
        f_mode = self.k_train @ self.mode.a
        keys = jax.random.split(key, shape[:2])
        noise = jax.vmap(jax.vmap(self.likelihood.score_noise), in_axes=(0, None))(keys, f_mode)
        return targets + noise


def classification_ensemble(
    network: Network,
    likelihood: Categorical,
    train: TrainingSet,
    prior_precision: float,
    initial: str,
    perturb_targets: bool,
) -> ClassificationEnsemble:
    """Find the mode and factor its Hessian and the initial covariance; cost ≈ 10 · 3 c n³."""
    kernel = network.kernel(train.x)
    k_train = kernel.ntk / prior_precision
    tolerance = default_tolerance(k_train.dtype)
    mode = find_mode(k_train, likelihood, train.targets, tolerance=tolerance)
    require_converged(mode, tolerance=tolerance)
    factor = None
    if initial != "zero":
        covariance = initial_kernel(kernel, initial, prior_precision)
        factor = covariance_factor(covariance, name=kernel_name(network, initial))
    hessian = None
    if factor is not None or perturb_targets:
        hessian = softmax_hessian(k_train, jax.nn.softmax(k_train @ mode.a))
    return ClassificationEnsemble(
        likelihood, network, train, prior_precision, initial, perturb_targets, k_train, factor,
        mode, hessian,
    )  # fmt: skip
