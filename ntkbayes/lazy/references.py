"""What a trained network is compared with: its linearisation, and the network of infinite width.

*Own linearisation*, f(x; θ₀) + J(x) (θ − θ₀), trained with the same steps. Its weights never leave
the space spanned by Jᵀ and θ₀, so with θ − θ₀ = Jᵀ b + γ θ₀ a gradient step on

    F = −Σ log p(yᵢ | fᵢ) + ½ λ ‖θ − κ θ₀‖²,    κ = 1 (decay to the initial weights) or 0 (to zero),

is, in numbers of size n c only,

    f = f₀ + Θ₀ b + γ Jθ₀,    b ← b + η (s(f) − λ b),    γ ← γ − η λ (γ + 1 − κ),

with Θ₀ = J Jᵀ the network's own kernel. With κ = 1, γ stays zero.

*Infinite width*, from the network's own initial function f₀: f_t(x) = f₀(x) + Θ(x, X) b_t with

- cross-entropy: db/dt = Y − softmax(f₀(X) + Θ b) − λ b, by `ntkbayes.solvers.solve_flow`;
- Gaussian noise: b_t = (Θ + λσ² I)⁻¹ (I − exp(−t (Θ/σ² + λ I))) (y − f₀(X));
- the end of training, t = ∞: λ b = s(f∞(X)), or, without decay, the f that reproduces the targets,
  b = Θ⁻¹ P (F − f₀(X)), with F = log Y and P = I − 11ᵀ/c for classes. One-hot targets have no
  end, and decay to zero moves f₀ itself, by a part of f₀ that is no function of Θ: no reference.

References
----------
Lee et al. 2019, arXiv 1902.06720 (linearised training). Calvo-Ordoñez et al. 2026, arXiv
2605.17606.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp

from ntkbayes._linalg import cholesky
from ntkbayes._problem import over_precision
from ntkbayes._types import Array, Float, Int
from ntkbayes.lazy.steps import TrainingProblem
from ntkbayes.likelihoods import Gaussian
from ntkbayes.solvers import (
    default_tolerance,
    find_mode,
    preconditioner,
    prepare_flow,
    require_converged,
    solve_flow,
    solve_stationarity,
)

__all__ = ["DualState", "InfiniteWidth", "Tangent", "descend_linearized", "infinite_width_at"]

TOLERANCE = 1e-6
"""Of an integration step; in float32 no more than it can hold."""


class Tangent(eqx.Module):
    """Networks to first order in their weights, one per seed.

    Parameters
    ----------
    f0_train, f0_test
        Initial functions.
    ntk_train, ntk_test
        Θ₀ at the training points, and between test and training points.
    along_train, along_test
        J θ₀, how outputs change when all weights grow in proportion.
    """

    f0_train: Float[Array, "s n c"]
    f0_test: Float[Array, "s m c"]
    ntk_train: Float[Array, "s n c n c"]
    ntk_test: Float[Array, "s m c n c"]
    along_train: Float[Array, "s n c"]
    along_test: Float[Array, "s m c"]

    def train(self, state: "DualState") -> Float[Array, "s n c"]:
        """Linearised networks at the training points."""
        moved = jnp.einsum("sikjl,sjl->sik", self.ntk_train, state.b)
        return self.f0_train + moved + state.gamma * self.along_train

    def test(self, state: "DualState") -> Float[Array, "s m c"]:
        """Linearised networks at the test points."""
        moved = jnp.einsum("sikjl,sjl->sik", self.ntk_test, state.b)
        return self.f0_test + moved + state.gamma * self.along_test


class DualState(eqx.Module):
    """θ − θ₀ = Jᵀ b + γ θ₀."""

    b: Float[Array, "s n c"]
    gamma: Float[Array, ""]


class InfiniteWidth(eqx.Module):
    """Θ at the training points, and between test and training points."""

    ntk_train: Float[Array, "n n"]
    ntk_test: Float[Array, "m n"]


@eqx.filter_jit
def descend_linearized(
    tangent: Tangent,
    problem: TrainingProblem,
    state: DualState,
    step: Float[Array, ""],
    num_steps: Int[Array, ""],
) -> DualState:
    """Do gradient steps on all linearised networks; see the module's docstring."""
    score = jax.vmap(jax.vmap(problem.likelihood.score), in_axes=(None, 0))
    decay, away = problem.prior_precision, 1 - problem.center_scale

    def body(_: int, state: DualState) -> DualState:
        s = score(problem.train.targets, tangent.train(state))
        b = state.b + step * (s - decay * state.b)
        return DualState(b, state.gamma - step * decay * (state.gamma + away))

    return jax.lax.fori_loop(0, num_steps, body, state)


def infinite_width_at(
    infinite: InfiniteWidth,
    problem: TrainingProblem,
    f0_train: Float[Array, "s n c"],
    f0_test: Float[Array, "s m c"],
    times: list[float],
) -> list[Float[Array, "s m c"] | None]:
    """Networks of infinite width at each time (∞ allowed), None where there is no reference."""
    if problem.center_scale == 0 and problem.prior_precision > 0:
        return [None] * len(times)
    f0_train, f0_test, targets = (
        jnp.asarray(each, infinite.ntk_train.dtype)
        for each in (f0_train, f0_test, problem.train.targets)
    )
    solve = _gaussian_duals if isinstance(problem.likelihood, Gaussian) else _convex_duals
    duals = solve(infinite.ntk_train, problem, targets, f0_train, times)
    return [
        None if b is None else f0_test + jnp.einsum("ij,sjc->sic", infinite.ntk_test, b)
        for b in duals
    ]


def _gaussian_duals(
    ntk: Array, problem: TrainingProblem, targets: Array, f0: Array, times: list[float]
) -> list[Array | None]:
    """Evaluate the closed form at every time, by one eigendecomposition."""
    assert isinstance(problem.likelihood, Gaussian)
    variance, decay = problem.likelihood.noise_variance, float(problem.prior_precision)
    e, vectors = jnp.linalg.eigh(ntk)
    e = jnp.maximum(e, jnp.finfo(e.dtype).eps * e[-1])
    coordinates = jnp.einsum("ji,sjc->sic", vectors, targets[None] - f0)

    def dual(time: float) -> Array:
        shrink = -jnp.expm1(-time * (e / variance + decay)) / (e + decay * variance)
        return jnp.einsum("ij,sjc->sic", vectors, shrink[None, :, None] * coordinates)

    return [dual(time) for time in times]


def _convex_duals(
    ntk: Array, problem: TrainingProblem, targets: Array, f0: Array, times: list[float]
) -> list[Array | None]:
    """Integrate to finite times, solve the convex problem for infinite ones."""
    decay = float(problem.prior_precision)
    tolerance = max(TOLERANCE, float(jnp.finfo(ntk.dtype).eps) ** 0.5)
    flow = prepare_flow(ntk, problem.likelihood, targets, jnp.asarray(decay, ntk.dtype))
    no_noise = jnp.zeros_like(f0)

    def dual(time: float) -> Array | None:
        if time == 0:
            return no_noise
        if math.isinf(time):
            return _end(ntk, problem, targets, f0)
        end = jnp.asarray(time, ntk.dtype)  # arrays, like λ, or each would be compiled anew
        return solve_flow(flow, f0, no_noise, time=end, tolerance=tolerance).b

    return [dual(time) for time in times]


def _end(ntk: Array, problem: TrainingProblem, targets: Array, f0: Array) -> Array | None:
    """Return b at the end of training; None if there is none."""
    likelihood, decay = problem.likelihood, float(problem.prior_precision)
    if decay == 0:
        try:
            fitted = likelihood.saturated(targets)
        except ValueError:
            return None
        factor = cholesky(ntk, name="the NTK", remedy="remove inputs that nearly coincide")
        move = (fitted[None] - f0) @ likelihood.identified(f0.dtype)
        return jax.vmap(lambda v: jax.scipy.linalg.cho_solve((factor, True), v))(move)
    k, tolerance = over_precision(ntk, decay), default_tolerance(ntk.dtype)
    mode = find_mode(k, likelihood, targets, tolerance=tolerance)
    require_converged(mode, tolerance=tolerance)
    hessian = preconditioner(k, likelihood, k @ mode.a)
    solution = solve_stationarity(
        k, likelihood, targets, f0, jnp.zeros_like(f0), mode.a, hessian,
        tolerance=tolerance, num_slots=len(f0), goal=1e-3 * tolerance,
    )  # fmt: skip
    require_converged(solution, tolerance=tolerance)
    return solution.a / decay
