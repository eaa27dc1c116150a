"""Gradient flow to a finite time, where the loss is not quadratic.

    db/dt = s(f₀ + Θ b) + ξ − λ b,    b(0) = 0.

With Θ = V R² Vᵀ and g = R Vᵀ b, this is dg/dt = −∇F(g) of the convex training objective

    F(g) = −Σ log p(yᵢ | fᵢ) − ξᵀ f + ½ λ ‖g‖²,    f = f₀ + V R g.

*Certificate.* The flow of a convex F brings any two solutions no further apart, so the error of one
step is never amplified, and that of g is at most the sum over all steps: num_steps · tolerance, as
far as the errors are as estimated. That of a trained function is at most √Θ(x, x) times as large.
With λ > 0 less than ‖∇F‖ / λ is left to go; once this is below 100 · tolerance, about the error
so far, integration ends. To it is added what rounding of b and of products with Θ in its own dtype
can add (`ntkbayes.solvers.certificate`); the integration itself is in float64.

*Solver.* Explicit steps are limited by stability to about 3.3 / λ_max(W Θ), but W shrinks while the
network becomes sure, and then they are the cheapest by far. A draw that has not arrived after 2,000
of them starts again with an implicit method, whose number of steps grows like log t, but each of
which costs some 160 products. Digits, n = 300, error per step 1e-6, products with (n c) numbers:

    λ, targets, t               explicit     implicit
    0.01, labels, 10                 770        7,100
    0, smoothed 0.1, 1,000        25,700       21,700
    0, smoothed 0.1, 100,000           –       24,000

An implicit-explicit method with a bound on W split off along the eigenvectors took 816,000 for the
last.

References
----------
Tsitouras 2011, doi 10.1016/j.camwa.2011.06.002 (the Runge-Kutta pair). Kidger 2021, arXiv
2202.02435 (Diffrax). Kværnø 2004, doi 10.1023/b:bitn.0000046811.70614.38 (the implicit method).
"""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix

from ntkbayes._linalg import eigenbasis
from ntkbayes._types import Array, Float, Int
from ntkbayes.likelihoods import Likelihood
from ntkbayes.solvers.certificate import (
    require_resolved,
    rounding_of_coefficients,
    rounding_of_products,
)
from ntkbayes.solvers.implicit import ImplicitStepSolver, counting_work

__all__ = ["Flow", "FlowSolution", "prepare_flow", "solve_flow"]

EXPLICIT_STEPS, IMPLICIT_STEPS = 2_000, 20_000
AT_REST = 100
"""Integration ends where what is left to go is below this times the tolerance."""
STAGES = 6
"""Slopes that the explicit method evaluates per step; each is two products."""


class Flow(eqx.Module):
    """The training problem in coordinates g, common to all draws; float64 but for Θ itself."""

    likelihood: Likelihood
    targets: Float[Array, "n c"]
    prior_precision: float | Float[Array, ""]
    ntk: Float[Array, "n n"]
    vectors: Float[Array, "n n"]
    roots: Float[Array, "n"]

    def latent(self, g: Float[Array, "n c"], f0: Float[Array, "n c"]) -> Float[Array, "n c"]:
        """Return f = f₀ + V R g at the training points."""
        return f0 + self.vectors @ (self.roots[:, None] * g)

    def score(
        self, g: Float[Array, "n c"], f0: Float[Array, "n c"], score_noise: Float[Array, "n c"]
    ) -> Float[Array, "n c"]:
        """Return s(f) + ξ."""
        return jax.vmap(self.likelihood.score)(self.targets, self.latent(g, f0)) + score_noise

    def slope(
        self, g: Float[Array, "n c"], f0: Float[Array, "n c"], score_noise: Float[Array, "n c"]
    ) -> Float[Array, "n c"]:
        """Return dg/dt."""
        score = self.score(g, f0, score_noise)
        return self.roots[:, None] * (self.vectors.T @ score) - self.prior_precision * g


class FlowSolution(eqx.Module):
    """What training until the given time ends at.

    Attributes
    ----------
    b
        Dual coefficients: f(x) = f₀(x) + Θ(x, X) b.
    error
        What |f − f*| / √Θ(x, x) is at most at any input x: ‖g − g*‖, as far as the errors of
        steps are as estimated, and rounding.
    residual
        max |s + ξ − λ b|, what is left of the stationarity condition; 0 at the end of training.
    num_steps
        Accepted steps of the integration.
    gemm_equivalents
        Products of an (n n) matrix with an (n c) one.
    """

    b: Float[Array, "s n c"]
    error: Float[Array, "s"]
    residual: Float[Array, "s"]
    num_steps: Int[Array, "s"]
    gemm_equivalents: Int[Array, "s"]


def prepare_flow(
    ntk: Float[Array, "n n"],
    likelihood: Likelihood,
    targets: Float[Array, "n c"],
    prior_precision: float | Float[Array, ""],
) -> Flow:
    """Diagonalise Θ in float64; cost n³. Eigenvalues below eps times the largest are raised to it.

    Flows that differ in a `prior_precision` given as an array share one compilation.

    Raises
    ------
    ValueError
        As `eigenbasis`.
    """
    with jax.enable_x64(True):
        eigenvalues, vectors = eigenbasis(ntk.astype(jnp.float64), name="the NTK")
        limits = jnp.finfo(eigenvalues.dtype)
        floor = jnp.maximum(limits.eps * eigenvalues[-1], limits.tiny)
        roots = jnp.sqrt(jnp.maximum(eigenvalues, floor))
        if isinstance(prior_precision, jax.Array):
            prior_precision = prior_precision.astype(roots.dtype)
        return Flow(likelihood, targets.astype(roots.dtype), prior_precision, ntk, vectors, roots)


def solve_flow(
    flow: Flow,
    f0: Float[Array, "s n c"],
    score_noise: Float[Array, "s n c"],
    *,
    time: float | Float[Array, ""],
    tolerance: float,
) -> FlowSolution:
    """Train all draws until `time`.

    Parameters
    ----------
    f0, score_noise
        Initial function at the training points, and what is added to the score, of each draw.
    time
        In units of gradient flow at rate one on the summed loss. An array is not compiled in:
        many times share one compilation.
    tolerance
        Largest norm of the error of g in one step; see the module's docstring.

    Raises
    ------
    ValueError
        If the flow is not finite, `time` is not reached in 20,000 implicit steps, or it is so long
        that rounding of Θ decides what it leads to.
    """
    require_resolved(
        flow.roots**2,
        flow.ntk.dtype,
        time=float(time),
        prior_precision=float(flow.prior_precision),
    )
    with jax.enable_x64(True):
        wide = flow.roots.dtype
        starts, noise = jnp.asarray(f0, wide), jnp.asarray(score_noise, wide)
        if isinstance(time, jax.Array):
            time = time.astype(wide)
        solution, arrived = _explicit(flow, starts, noise, time, tolerance)
        if not bool(jnp.all(arrived)):
            late = np.flatnonzero(~np.asarray(arrived))
            (stiff, arrived), work = counting_work(
                lambda account: _implicit(
                    flow, starts[late], noise[late], time, tolerance, account
                ),
                len(late),
            )
            stiff = eqx.tree_at(lambda s: s.gemm_equivalents, stiff, stiff.gemm_equivalents + work)
            solution = jax.tree.map(lambda every, part: every.at[late].set(part), solution, stiff)
            if not bool(jnp.all(arrived)):
                raise ValueError(
                    f"{int(jnp.sum(~arrived))} of {len(f0)} draws did not reach time {time:g} in "
                    f"{IMPLICIT_STEPS} implicit steps: take a larger tolerance, or time=inf."
                )
        if not bool(jnp.all(jnp.isfinite(solution.b))):
            raise ValueError(
                f"gradient flow until time {float(time):g} led to functions that are not finite; "
                "take a shorter time, a larger prior_precision, or inputs of a smaller scale."
            )
        return _rounded(solution, flow.ntk, f0.dtype)


def _rounded(solution: FlowSolution, ntk: Float[Array, "n n"], dtype: jnp.dtype) -> FlowSolution:
    """Give the solution back in `dtype`, with what that and products with Θ add to its error."""
    b = solution.b.astype(dtype)
    rounding = rounding_of_coefficients(ntk, solution.b, b)
    rounding += rounding_of_products(jnp.diagonal(ntk), solution.b)
    return FlowSolution(
        b,
        (solution.error + rounding).astype(dtype),
        solution.residual.astype(dtype),
        solution.num_steps.astype(jnp.int32),
        solution.gemm_equivalents.astype(jnp.int32),
    )


@eqx.filter_jit
def _explicit(
    flow: Flow,
    f0: Float[Array, "s n c"],
    score_noise: Float[Array, "s n c"],
    time: float | Float[Array, ""],
    tolerance: float,
) -> tuple[FlowSolution, Array]:
    """Integrate all draws side by side, each with its own steps."""

    def solve_one(f0: Array, score_noise: Array) -> tuple[FlowSolution, Array]:
        solution, attempted, arrived = _integrate(
            flow, f0, score_noise, time, tolerance, diffrax.Tsit5(), EXPLICIT_STEPS
        )
        work = solution.gemm_equivalents + 2 * STAGES * attempted
        return eqx.tree_at(lambda s: s.gemm_equivalents, solution, work), arrived

    return jax.vmap(solve_one)(f0, score_noise)


@eqx.filter_jit
def _implicit(
    flow: Flow,
    f0: Float[Array, "s n c"],
    score_noise: Float[Array, "s n c"],
    time: float | Float[Array, ""],
    tolerance: float,
    account: Int[Array, ""],
) -> tuple[FlowSolution, Array]:
    """Integrate one draw after another; the work of Newton's method goes to the account."""

    def solve_one(draw: tuple[Array, Array, Array]) -> tuple[FlowSolution, Array]:
        number, f0, score_noise = draw
        newton = optimistix.Newton(
            rtol=0.0,
            atol=tolerance,
            norm=jnp.linalg.norm,
            linear_solver=ImplicitStepSolver(flow.roots, account, number),
        )
        solver = diffrax.Kvaerno5(root_finder=newton)
        solution, _, arrived = _integrate(
            flow, f0, score_noise, time, tolerance, solver, IMPLICIT_STEPS
        )
        return solution, arrived

    return jax.lax.map(solve_one, (jnp.arange(len(f0)), f0, score_noise))


def _integrate(
    flow: Flow,
    f0: Float[Array, "n c"],
    score_noise: Float[Array, "n c"],
    time: float | Float[Array, ""],
    tolerance: float,
    solver: diffrax.AbstractSolver,
    max_steps: int,
) -> tuple[FlowSolution, Array, Array]:
    """Integrate one draw: the solution, steps attempted, and whether it arrived.

    Of the work only the products outside the solver are counted: one slope after each step.
    """

    def slope(t: Any, g: Array, args: None) -> Array:
        return flow.slope(g, f0, score_noise)

    def at_rest(t: Any, g: Array, args: None, **_: Any) -> Array:
        left = jnp.linalg.norm(slope(t, g, args))
        return left < flow.prior_precision * AT_REST * tolerance

    found = diffrax.diffeqsolve(
        diffrax.ODETerm(slope),
        solver,
        t0=jnp.zeros((), f0.dtype),
        t1=jnp.asarray(time, f0.dtype),
        dt0=None,
        y0=jnp.zeros_like(f0),
        stepsize_controller=diffrax.PIDController(rtol=0.0, atol=tolerance, norm=jnp.linalg.norm),
        event=diffrax.Event(at_rest),
        max_steps=max_steps,
        throw=False,
    )
    assert found.ys is not None  # for the type checker: the last state is saved by default
    g = found.ys[-1]
    b = flow.vectors @ (g / flow.roots[:, None])
    left = flow.score(g, f0, score_noise) - flow.prior_precision * b
    accepted, rejected = (found.stats[f"num_{kind}_steps"] for kind in ("accepted", "rejected"))
    outcomes = diffrax.RESULTS
    left_to_go = jnp.where(found.result == outcomes.event_occurred, AT_REST, 0)
    error = tolerance * (accepted + left_to_go)
    solution = FlowSolution(
        b, error.astype(b.dtype), jnp.max(jnp.abs(left)), accepted, 2 * accepted
    )
    arrived = (found.result == outcomes.successful) | (found.result == outcomes.event_occurred)
    return solution, accepted + rejected, arrived
