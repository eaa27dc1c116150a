"""Any log-concave likelihood, trained to the end: one convex problem per draw.

Every problem starts at the first-order solution around the mode (f₀ = 0), whose Hessian
preconditions all of them.
"""

import math

import jax
import jax.numpy as jnp

from ntkbayes._problem import TrainingSet, checked_inputs, over_precision
from ntkbayes._types import AnyArray, Array, Float
from ntkbayes.ensembles.drawn import DrawnEnsemble
from ntkbayes.ensembles.initial import initial_law
from ntkbayes.kernels.memory import check_memory
from ntkbayes.likelihoods import Likelihood
from ntkbayes.networks import WideNetwork
from ntkbayes.solvers import (
    Hessian,
    Solution,
    find_mode,
    hessian_at,
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
    """Trained to the end with λ > 0; `tolerance` bounds the latent error at the training points.

    A member's ``stats`` are ``error_bound``, ``residual``, ``iterations`` and ``gemm_equivalents``,
    as in `ntkbayes.solvers.Solution`.
    """

    k_train: Float[Array, "n n"]
    mode: Solution
    hessian: Hessian | None

    def first_order_covariance(self, x: AnyArray) -> Float[Array, "m c m c"]:
        """Covariance of trained functions to first order in f₀ and in the targets' noise.

        With D = (K + W⁻¹)⁻¹ at the mode and f̂ the mode, a member is about
        f̂(x) + f₀(x) − K(x, X) D f₀(X), so that, with Q₀ the covariance of f₀,

            Q₀(x, x′) − K(x, X) D Q₀(X, x′) − Q₀(x, X) D K(X, x′) + K(x, X) D Q₀(X, X) D K(X, x′);

        perturbed targets add K(x, X) (D − D K D) K(X, x′). With Q₀ = K (``"ntk"``) and perturbed
        targets this is the Laplace covariance; without perturbing, it is smaller near the data.

        Parameters
        ----------
        x
            m inputs, one per row.

        Raises
        ------
        ValueError
            If x does not fit the training inputs, K leaves the range of its type there, or the
            result does not fit memory.

        Notes
        -----
        Memory (n c) × (m c) and (m c)² numbers.

        References
        ----------
        Calvo-Ordoñez et al. 2026, arXiv 2605.17606; He, Lakshminarayanan & Teh 2020, arXiv
        2007.05864 (Gaussian noise, where it is exact).
        """
        x_test = checked_inputs(self.train, x)
        (n, c), m = self.train.targets.shape, len(x_test)
        check_memory(
            "the covariance to first order", m * c, (n + m) * c, x_test.dtype, num_matrices=4,
            remedy="ask for fewer points",
        )  # fmt: skip
        eye = jnp.eye(c, dtype=x_test.dtype)
        k_cross = over_precision(self.network.ntk(self.train.x, x_test), self.prior_precision)
        hessian = hessian_at(self.k_train, self.likelihood, self.k_train @ self.mode.a)
        ends = jnp.einsum("nm,cd->mdnc", k_cross, eye).reshape(m * c, n, c)
        gain = hessian.dual(ends).reshape(m, c, n, c)  # K(x, X) D

        def applied(covariance: Array) -> Array:  # (n m) ⊗ I, or (n n) ⊗ I
            return jnp.einsum("icnd,nj->icjd", gain, covariance)

        noise = applied(k_cross) - jnp.einsum("icnd,jend->icje", applied(self.k_train), gain)
        total = noise if self.perturb_targets else jnp.zeros_like(noise)
        if self.law.initial == "zero":
            return total
        cross, own = self.law.kernel(self.train.x, x_test), self.law.kernel(x_test)
        known = jnp.einsum("icnd,jend->icje", applied(self.law.kernel(self.train.x)), gain)
        shrunk = applied(cross)
        prior = jnp.einsum("ij,cd->icjd", own, eye)
        return total + prior - shrunk - jnp.einsum("icjd->jdic", shrunk) + known

    def _train(
        self, f0: Float[Array, "s n c"], score_noise: Float[Array, "s n c"]
    ) -> tuple[Float[Array, "s n c"], dict[str, Array]]:
        solution = jax.tree.map(lambda leaf: leaf[None], self.mode)
        if self.hessian is not None:
            solution = solve_stationarity(
                self.k_train,
                self.likelihood,
                self.train.targets,
                f0,
                score_noise,
                self.mode.a,
                self.hessian,
                tolerance=self.tolerance,
                num_slots=self._num_slots(len(f0)),
            )
            require_converged(solution, tolerance=self.tolerance)
        names = ("error_bound", "residual", "iterations", "gemm_equivalents")
        stats = {name: getattr(solution, name) for name in names}
        return solution.a / self.prior_precision, stats

    def _part(self, num_draws: int) -> int:
        num_slots = self._num_slots(num_draws)
        return num_slots * max(4, math.ceil(num_draws / (NUM_REPORTS * num_slots)))

    def _num_slots(self, num_draws: int) -> int:
        one_draw = self.train.targets.nbytes
        return min(num_draws, SLOT_MULTIPLE * max(1, SLOT_BYTES // (SLOT_MULTIPLE * one_draw)))


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
    """Find the mode and factor its Hessian and the initial covariance; cost ≈ 2⅓ c n³.

    Raises
    ------
    ValueError
        As `ntkbayes.ntk_ensemble`.
    """
    kernel = network.kernel(train.x)
    k_train = over_precision(kernel.ntk, prior_precision)
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
        initial_law(network, kernel, initial, prior_precision, initial_functions),
        prior_precision,
        mode_latent=mode_latent if perturb_targets else None,
        tolerance=tolerance,
        k_train=k_train,
        mode=mode,
        hessian=hessian,
    )
