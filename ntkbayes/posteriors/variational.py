"""The best Gaussian approximation of a GP posterior that is independent between outputs.

In the whitened coordinates of `ntkbayes.posteriors.inducing`, f_k(x) = φ(x)ᵀ v_k + e_k(x), the
approximation is q(v_k) = N(μ_k, S_k) for each output k, while e keeps its prior. The bound

    ELBO = Σ_i E_q log p(y_i | f_i) − ½ Σ_k (tr S_k + μ_kᵀ μ_k − M − log det S_k)

has its maximum where, with features Φ (n M) of the training points,

    μ = Φᵀ α,  α_i = E_q s(f_i),  S_k = (I + Φᵀ Λ_k Φ)⁻¹,  Λ_k = diag(E_q[W_kk(f_i)]),

for the likelihood's score s and curvature W. At each point f has mean φᵀ μ_k and variance
K(x, x) − φᵀ φ + φᵀ S_k φ. Without inducing points Φ is the Cholesky factor of K and q the best of
all Gaussians independent between outputs.

Every iteration factors S⁻¹, maximises the ELBO over μ by Newton's method (the variances fixed it
is concave, with curvature at least 1) and replaces Λ: the natural-gradient step of length 1.
Expectations are sums over a fixed set of points, so the iteration is deterministic, and in float64
whatever the dtype of K.

*Certificate.* With S_k = C_k C_kᵀ the ELBO of a log-concave likelihood is strongly concave in
(μ, C) with constant 1, so that the optimum is no farther than the gradient is long. Where S_k
belongs to weights Λ that are not yet E_q W, off by Δ, the gradient is
(Φᵀ α − μ, Φᵀ Δ_k Φ C_k), and

    B² = ‖Φᵀ α − μ‖² + Σ_k (Σ_i |Δ_ik| √(φᵢᵀ φᵢ · φᵢᵀ S_k φᵢ))²

is at least its square. A mean is off by at most √K(x, x) B at every x, and so is the standard
deviation √(φᵀ S_k φ). To it is added what rounding of the results and of K(x, Z) can add
(`ntkbayes.solvers.certificate`), and what raises the diagonal of K(Z, Z). What the quadrature
leaves is not in it.

References
----------
Challis & Barber 2013, JMLR 14, 2239 (the ELBO is concave in mean and root of the covariance).
Opper & Archambeau 2009, Neural Computation 21 (the form of Λ). Hensman, Matthews, Ghahramani 2015,
arXiv 1411.2005 (the bound). Khan & Lin 2017, arXiv 1703.04265 (the natural-gradient step). Adam,
Chang, Khan, Solin 2021, arXiv 2111.03412 (the same with inducing points).
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve, solve_triangular

from ntkbayes._linalg import cholesky
from ntkbayes._types import Array, Float, Progress
from ntkbayes.kernels.memory import check_memory
from ntkbayes.likelihoods import Likelihood
from ntkbayes.posteriors.expectations import (
    Expectations,
    Quadrature,
    expectations,
    quadrature,
)
from ntkbayes.posteriors.inducing import Projection
from ntkbayes.solvers import require_accurate
from ntkbayes.solvers.certificate import rounding_of_products

__all__ = ["VariationalFit", "check_variational_memory", "fit_variational"]

MAX_ITERATIONS = 100
AIM = 0.9
"""Fraction of the tolerance aimed at; rounding has the rest."""
MAX_MEAN_STEPS = 10
MAX_CG_STEPS = 50


class VariationalFit(eqx.Module):
    """The optimal q in whitened coordinates, and the sites it comes from.

    Attributes
    ----------
    mean
        μ, one column per output.
    roots
        Cholesky factors of S⁻¹, one per output.
    scores
        α = E_q s(f) at the training points.
    weights
        Λ, the diagonals of E_q W(f).
    elbo
        The bound on the log marginal likelihood, nats.
    error_bound
        The largest distance of means and standard deviations from those of the optimum at any
        input, in standard deviations of the prior.
    num_iterations
        Variational iterations taken.
    """

    mean: Float[Array, "k c"]
    roots: Float[Array, "c k k"]
    scores: Float[Array, "n c"]
    weights: Float[Array, "n c"]
    elbo: Float[Array, ""]
    error_bound: Float[Array, ""]
    num_iterations: int

    def explained(self, features: Float[Array, "m k"]) -> Float[Array, "c k m"]:
        """T_k with T_kᵀ T_k = Φ S_k Φᵀ, the part of the covariance that q(v_k) makes."""
        return jax.vmap(lambda root: solve_triangular(root, features.T, lower=True))(self.roots)

    def draw(self, noise: Float[Array, "s k c"]) -> Float[Array, "s k c"]:
        """Turn standard normal numbers into draws of v."""
        spread = jax.vmap(
            lambda root, z: solve_triangular(root, z, lower=True, trans=1), in_axes=(0, 2)
        )(self.roots, noise.transpose(1, 0, 2))
        return self.mean[None] + spread.transpose(2, 1, 0)


class _Problem(eqx.Module):
    """All that stays the same over the iterations."""

    likelihood: Likelihood
    targets: Float[Array, "n c"]
    features: Float[Array, "n k"]
    residual: Float[Array, "n"]
    rule: Quadrature

    def expect(self, mean: Float[Array, "n c"], variance: Float[Array, "n c"]) -> Expectations:
        return expectations(self.likelihood, self.targets, mean, variance, self.rule)

    def curvature(self, expected: Expectations, v: Float[Array, "n c"]) -> Float[Array, "n c"]:
        return jnp.einsum("ncd,nd->nc", expected.curvature, v)


class _Mean(eqx.Module):
    """An iterate of Newton's method on μ; `gradient` is Φᵀ α − μ."""

    mean: Float[Array, "k c"]
    expected: Expectations
    objective: Float[Array, ""]
    gradient: Float[Array, "k c"]
    num_steps: Array


def check_variational_memory(
    num_train: int, num_inducing: int, num_outputs: int, *, remedy: str
) -> None:
    """Refuse what `fit_variational` could not hold: 4 n M + 3 (c + 1) M² numbers, in float64.

    Raises
    ------
    ValueError
        With the estimate and the `remedy`.
    """
    num_matrices = 4 + math.ceil(3 * (num_outputs + 1) * num_inducing / num_train)
    check_memory(
        "the variational GP", num_train, num_inducing, jnp.dtype("float64"),
        num_matrices=num_matrices, remedy=remedy,
    )  # fmt: skip


def fit_variational(
    likelihood: Likelihood,
    targets: Float[Array, "n c"],
    projection: Projection,
    *,
    tolerance: float,
    progress: Progress,
) -> VariationalFit:
    """Maximise the ELBO until means and deviations are as exact as asked for.

    Costs some 2 c n M² operations per iteration.

    Parameters
    ----------
    tolerance
        Largest error allowed at the training points, in units of `Likelihood.latent_scale`.

    Raises
    ------
    ValueError
        If the iteration ends with more than that, and more than 0.05.
    """
    with jax.enable_x64(True):
        dtype, wide = targets.dtype, jnp.float64
        rule = quadrature(likelihood.num_outputs, wide)
        rule = eqx.tree_at(lambda r: r.points, rule, rule.points[:, _ranks(projection, targets)])
        features, residual = (
            each.astype(wide) for each in (projection.features, projection.residual)
        )
        problem = _Problem(likelihood, targets.astype(wide), features, residual, rule)
        deviation = jnp.sqrt(jnp.max(jnp.sum(features**2, axis=1) + residual))
        to_latent = float(deviation) / likelihood.latent_scale
        goal = AIM * tolerance / max(to_latent, tolerance)
        fit = _iterate(problem, goal=goal, progress=progress)
        arrived = float(fit.error_bound) <= goal
        fit = _rounded(fit, projection)
    require_accurate(
        fit.error_bound * jnp.asarray(to_latent, dtype),
        tolerance=tolerance,
        dtype=dtype,
        cause="" if arrived else f"after {fit.num_iterations} variational iterations",
    )
    return fit


def _iterate(problem: _Problem, *, goal: float, progress: Progress) -> VariationalFit:
    """Iterate until the error bound is at most `goal`, or return the best after 100 times."""
    likelihood, targets, dtype = problem.likelihood, problem.targets, problem.targets.dtype
    mean = jnp.zeros((problem.features.shape[1], targets.shape[1]), dtype)
    curvature = jnp.diagonal(likelihood.curvature(jnp.zeros(likelihood.num_outputs, dtype)))
    weights = jnp.broadcast_to(curvature, targets.shape)
    rate, best, bound_before, iteration = 1.0, None, np.inf, 0
    for iteration in range(1, MAX_ITERATIONS + 1):
        # Weights that are not exact yet deserve no exact mean.
        mean_goal = max(0.3 * goal, min(1.0, 0.02 * bound_before))
        fit, expected = _variational_step(problem, mean, weights, jnp.asarray(mean_goal, dtype))
        mean, bound = fit.mean, float(fit.error_bound)
        if best is None or not bound >= float(best.error_bound):
            best = fit
        if bound <= goal:
            break
        # A bound that stays the same is a cycle, around a fixed point that shorter steps reach.
        rate = min(1.0, 1.2 * rate) if bound < 0.95 * bound_before else max(0.1, rate / 2)
        weights = weights + rate * (expected.weights - weights)
        bound_before = bound
        progress(min(0.95, iteration / 25))
    progress(1.0)
    return eqx.tree_at(lambda fit: fit.num_iterations, best, iteration)


def _rounded(fit: VariationalFit, projection: Projection) -> VariationalFit:
    """Give the fit back in the dtype of K, with what that and φ(x)ᵀ μ cost; ‖C_k‖ is at most 1."""
    factor, dtype = projection.factor, projection.factor.dtype
    rounded = jax.tree.map(lambda leaf: leaf.astype(dtype) if eqx.is_array(leaf) else leaf, fit)
    lost = [jnp.sum((fit.mean - rounded.mean) ** 2), jnp.sum((fit.roots - rounded.roots) ** 2)]
    a = solve_triangular(factor.astype(fit.mean.dtype), fit.mean, lower=True, trans=1)
    # φ(x)ᵀ μ = K(x, Z) a, where L Lᵀ a was meant.
    variances = jnp.sum(factor**2, axis=1)
    products = rounding_of_products(variances, a)
    products += projection.raised * jnp.sqrt(jnp.sum(variances @ a**2))
    bound = fit.error_bound + jnp.sqrt(sum(lost)) + products
    return eqx.tree_at(lambda fit: fit.error_bound, rounded, bound.astype(dtype))


def _ranks(projection: Projection, targets: Array) -> np.ndarray:
    """Order outputs by what their data are, yᵀ K y, whatever they are called.

    Each is given the coordinate of its rank in the points for expectations, so that neither another
    numbering of the classes nor another order of the data changes more than rounding. Outputs
    with equal yᵀ K y, as of a symmetric design, are told apart by their numbers all the same.
    """
    features, y = (np.asarray(each, float) for each in (projection.features, targets))
    return np.argsort(np.argsort(np.sum((features.T @ y) ** 2, axis=0), kind="stable"))


@eqx.filter_jit
def _variational_step(
    problem: _Problem, mean: Array, weights: Array, goal: Array
) -> tuple[VariationalFit, Expectations]:
    """Maximise over μ at the S of given Λ: the fit with its error bound, and expectations there."""
    features, residual = problem.features, problem.residual
    roots, explained = _factor_columns(features, weights)
    best = _maximise_mean(problem, mean, roots, residual[:, None] + explained, goal)
    log_dets = 2 * jnp.sum(jnp.log(jnp.diagonal(roots, axis1=1, axis2=2)))
    # tr S_k = M − tr Λ_k Φ S_k Φᵀ.
    elbo = best.objective - 0.5 * (log_dets - jnp.sum(weights * explained))
    lengths = jnp.sqrt(jnp.sum(features**2, axis=1)[:, None] * explained)
    of_roots = jnp.sum(jnp.abs(best.expected.weights - weights) * lengths, axis=0)
    bound = jnp.sqrt(jnp.sum(best.gradient**2) + jnp.sum(of_roots**2))
    bound = jnp.where(jnp.isfinite(bound), bound, jnp.inf)
    fit = VariationalFit(best.mean, roots, best.expected.scores, weights, elbo, bound, 0)
    return fit, best.expected


def _factor_columns(features: Array, weights: Array) -> tuple[Array, Array]:
    """Cholesky factors of I + Φᵀ Λ_k Φ (c M M), and the diagonals of Φ S_k Φᵀ (n c)."""
    eye = jnp.eye(features.shape[1], dtype=features.dtype)

    def one_column(column: Array) -> tuple[Array, Array]:
        root = cholesky(
            eye + features.T @ (column[:, None] * features),
            name="I + Φᵀ Λ Φ of the variational GP",
            remedy="take a larger prior_precision",
        )
        explained = solve_triangular(root, features.T, lower=True)
        return root, jnp.sum(explained**2, axis=0)

    roots, explained = jax.lax.map(one_column, weights.T)
    return roots, explained.T


def _maximise_mean(
    problem: _Problem, mean: Array, roots: Array, variance: Array, goal: Array
) -> _Mean:
    """Maximise Σ E log p − ½ μᵀ μ by Newton steps, until the gradient is no longer than `goal`."""

    def evaluate(mean: Array, num_steps: Array) -> _Mean:
        expected = problem.expect(problem.features @ mean, variance)
        objective = jnp.sum(expected.log_prob) - 0.5 * jnp.sum(mean**2)
        gradient = problem.features.T @ expected.scores - mean
        return _Mean(mean, expected, objective, gradient, num_steps)

    def step(now: _Mean) -> _Mean:
        direction = _newton_direction(problem, now, roots)
        slack = 10 * jnp.finfo(mean.dtype).eps * jnp.abs(now.objective)

        def rejected(trial: tuple[Array, _Mean]) -> Array:
            return ~(trial[1].objective >= now.objective - slack) & (trial[0] > 1e-6)

        def halve(trial: tuple[Array, _Mean]) -> tuple[Array, _Mean]:
            length = 0.5 * trial[0]
            return length, evaluate(now.mean + length * direction, now.num_steps + 1)

        # Twice the step, which counts as rejected, so that the full step is the first one tried.
        before = eqx.tree_at(lambda mean: mean.objective, now, jnp.full_like(slack, -jnp.inf))
        return jax.lax.while_loop(rejected, halve, (jnp.full_like(slack, 2), before))[1]

    def unfinished(now: _Mean) -> Array:
        far = (jnp.linalg.norm(now.gradient) > goal) & (now.num_steps < MAX_MEAN_STEPS)
        return far & jnp.isfinite(now.objective)  # from −∞ no step is a rise

    start = evaluate(mean, jnp.zeros((), int))
    return jax.lax.while_loop(unfinished, step, start)


def _newton_direction(problem: _Problem, now: _Mean, roots: Array) -> Array:
    """Solve (I + Φᵀ W Φ) δ = Φᵀ α − μ.

    By conjugate gradients with the S_k as preconditioner, between projections onto what the
    likelihood sees: the rows of α sum to zero over classes, so those of μ do.
    """
    features = problem.features
    identified = problem.likelihood.identified(features.dtype)

    def hessian(v: Array) -> Array:
        return v + features.T @ problem.curvature(now.expected, features @ v)

    def precondition(v: Array) -> Array:
        solve = jax.vmap(lambda root, v: cho_solve((root, True), v), (0, 1), 1)
        return solve(roots, v @ identified) @ identified

    direction, _ = jax.scipy.sparse.linalg.cg(
        hessian, now.gradient, tol=1e-3, maxiter=MAX_CG_STEPS, M=precondition
    )
    return direction
