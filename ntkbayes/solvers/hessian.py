"""The factorised Hessian H = K⁻¹ ⊗ I + W of a regularised problem, W the likelihood's curvature.

Never an (n c)×(n c) matrix. Where W is diagonal the outputs separate: with D_k = diag(w_k),
E_k = (K + D_k⁻¹)⁻¹ and G_k = (K⁻¹ + D_k)⁻¹ = K − K E_k K,

    H⁻¹ r = G r,   log det(I + K W) = Σ_k log det(I + D_k^½ K D_k^½).

The softmax couples the classes of a point by a term of rank one, W = D − D R (Rᵀ D R)⁻¹ Rᵀ D with R
stacking c identity matrices and D = diag(p); Woodbury's identity gives

    H⁻¹ r = G r + G D R (Σ_k E_k)⁻¹ Rᵀ D G r,
    log det(I + K W) = Σ_k log det(I + D_k^½ K D_k^½) + log det Σ_k E_k − log det Σ_k D_k.

The same holds for weights that do not sum to 1 over the classes.

References
----------
Rasmussen & Williams 2006, §3.5, algorithms 3.3 and 3.4.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular

from ntkbayes._linalg import cholesky
from ntkbayes._types import Array, Float
from ntkbayes.likelihoods import Categorical, Gaussian, Likelihood

__all__ = [
    "DiagonalHessian",
    "Hessian",
    "SoftmaxHessian",
    "hessian_at",
    "softmax_hessian",
    "uniform_hessian",
]


class Hessian(eqx.Module):
    """K⁻¹ ⊗ I + W at given curvature weights.

    Attributes
    ----------
    weights
        Diagonal of D, one column per output, or one column that all outputs share.
    shrunk
        G, one matrix per column of `weights`.
    middle
        E, likewise.
    log_dets
        log det(I + D_k^½ K D_k^½), likewise.
    """

    weights: eqx.AbstractVar[Float[Array, "n k"]]
    shrunk: eqx.AbstractVar[Float[Array, "k n n"]]
    middle: eqx.AbstractVar[Float[Array, "k n n"]]
    log_dets: eqx.AbstractVar[Float[Array, "k"]]

    @property
    @abc.abstractmethod
    def cost(self) -> float:
        """Price of `solve` in products of an (n n) matrix with (n c): GEMM equivalents."""

    @property
    @abc.abstractmethod
    def log_det(self) -> Float[Array, ""]:
        """The log determinant of I + K W."""

    @abc.abstractmethod
    def solve(self, r: Float[Array, "n c"]) -> Float[Array, "n c"]:
        """H⁻¹ r."""

    @abc.abstractmethod
    def curvature(self, v: Float[Array, "n c"]) -> Float[Array, "n c"]:
        """W v. With z = H⁻¹ r it gives K⁻¹ z = r − W z without a product with K."""

    @abc.abstractmethod
    def curvature_root(self, v: Float[Array, "n c"]) -> Float[Array, "n c"]:
        """S v with S Sᵀ = W, so that standard normal v give N(0, W)."""

    @abc.abstractmethod
    def covariance(
        self, k_cross: Float[Array, "n m"], k_test: Float[Array, "m m"], num_outputs: int
    ) -> Float[Array, "m c m c"]:
        """K** ⊗ I − K*ᵀ (K + W⁻¹)⁻¹ K*: H⁻¹ continued to m test points."""


class DiagonalHessian(Hessian):
    """The Hessian where outputs separate; memory 2 n² numbers per column of `weights`."""

    weights: Float[Array, "n k"]
    shrunk: Float[Array, "k n n"]
    middle: Float[Array, "k n n"]
    log_dets: Float[Array, "k"]
    num_outputs: int = eqx.field(static=True)

    @property
    def cost(self) -> float:
        """One product."""
        return 1.0

    @property
    def log_det(self) -> Float[Array, ""]:
        """Sum over outputs."""
        return jnp.sum(self.log_dets) * (self.num_outputs / self.weights.shape[1])

    def solve(self, r: Float[Array, "n c"]) -> Float[Array, "n c"]:
        """G r."""
        if self.weights.shape[1] == 1:
            return self.shrunk[0] @ r
        return jnp.einsum("cij,jc->ic", self.shrunk, r)

    def curvature(self, v: Float[Array, "n c"]) -> Float[Array, "n c"]:
        """D v."""
        return jnp.broadcast_to(self.weights, v.shape) * v

    def curvature_root(self, v: Float[Array, "n c"]) -> Float[Array, "n c"]:
        """D^½ v."""
        return jnp.sqrt(jnp.broadcast_to(self.weights, v.shape)) * v

    def covariance(
        self, k_cross: Float[Array, "n m"], k_test: Float[Array, "m m"], num_outputs: int
    ) -> Float[Array, "m c m c"]:
        """K** − K*ᵀ E_c K* within each output, zero between them."""
        explained = jnp.einsum("nm,cnl,lk->cmk", k_cross, self.middle, k_cross)
        own = jnp.broadcast_to(k_test[None] - explained, (num_outputs, *k_test.shape))
        return jnp.einsum("cmk,cd->mckd", own, jnp.eye(num_outputs, dtype=k_test.dtype))


class SoftmaxHessian(Hessian):
    """The Hessian of a softmax; memory (2 c + 1) n² numbers."""

    weights: Float[Array, "n c"]
    shrunk: Float[Array, "c n n"]
    middle: Float[Array, "c n n"]
    log_dets: Float[Array, "c"]
    coupling: Float[Array, "n n"]

    @property
    def cost(self) -> float:
        """Two products with the (c n n) stack, and two triangular solves for one output."""
        return 2.0 + 1.0 / self.weights.shape[1]

    @property
    def log_det(self) -> Float[Array, ""]:
        """Sum over classes, and the coupling between them."""
        coupling = 2 * jnp.sum(jnp.log(jnp.diagonal(self.coupling)))
        return jnp.sum(self.log_dets) + coupling - jnp.sum(jnp.log(jnp.sum(self.weights, axis=1)))

    def solve(self, r: Float[Array, "n c"]) -> Float[Array, "n c"]:
        """G r + G D R (Σ_k E_k)⁻¹ Rᵀ D G r."""
        first = jnp.einsum("cij,jc->ic", self.shrunk, r)
        shared = cho_solve((self.coupling, True), jnp.sum(self.weights * first, axis=1))
        second = self.weights * shared[:, None]
        return first + jnp.einsum("cij,jc->ic", self.shrunk, second)

    def curvature(self, v: Float[Array, "n c"]) -> Float[Array, "n c"]:
        """D v − D R (Rᵀ D R)⁻¹ Rᵀ D v."""
        weighted = self.weights * v
        shared = jnp.sum(weighted, axis=1, keepdims=True) / self._total()
        return weighted - self.weights * shared

    def curvature_root(self, v: Float[Array, "n c"]) -> Float[Array, "n c"]:
        """D^½ v − D R (Rᵀ D R)⁻¹ Rᵀ D^½ v."""
        scaled = jnp.sqrt(self.weights) * v
        shared = jnp.sum(scaled, axis=1, keepdims=True) / self._total()
        return scaled - self.weights * shared

    def covariance(
        self, k_cross: Float[Array, "n m"], k_test: Float[Array, "m m"], num_outputs: int
    ) -> Float[Array, "m c m c"]:
        """K** − K*ᵀ E K* + K*ᵀ E R (Σ_k E_k)⁻¹ Rᵀ E K*."""
        weighted = jnp.einsum("cij,jm->cim", self.middle, k_cross)
        stacked = jnp.swapaxes(weighted, 0, 1).reshape(len(k_cross), -1)
        half = solve_triangular(self.coupling, stacked, lower=True)
        half = half.reshape(len(k_cross), num_outputs, k_cross.shape[1])
        coupled = jnp.einsum("ncm,ndk->mckd", half, half)
        own = jnp.einsum("nm,cnk->cmk", k_cross, weighted)
        eye = jnp.eye(num_outputs, dtype=k_test.dtype)
        return coupled + jnp.einsum("cmk,cd->mckd", k_test[None] - own, eye)

    def _total(self) -> Array:
        return jnp.sum(self.weights, axis=1, keepdims=True)


@eqx.filter_jit
def hessian_at(
    k: Float[Array, "n n"], likelihood: Likelihood, f: Float[Array, "n c"]
) -> DiagonalHessian | SoftmaxHessian:
    """Factor K⁻¹ ⊗ I + W(f) once; cost ≈ 3 n³ operations for every column of weights.

    Raises
    ------
    ValueError
        If K is not positive semi-definite beyond rounding.
    """
    if isinstance(likelihood, Categorical):
        return softmax_hessian(k, jax.nn.softmax(f))
    if isinstance(likelihood, Gaussian):
        return uniform_hessian(k, likelihood, f)
    weights = _curvatures(likelihood, f)
    return DiagonalHessian(weights, *_factor(k, weights), f.shape[1])


@eqx.filter_jit
def uniform_hessian(
    k: Float[Array, "n n"], likelihood: Likelihood, f: Float[Array, "n c"]
) -> DiagonalHessian:
    """Factor K⁻¹ ⊗ I + w I with w the mean curvature over points and outputs.

    The cheap approximation: one column of weights whatever the number of outputs.
    """
    mean = jnp.mean(_curvatures(likelihood, f))
    weights = jnp.full((len(f), 1), mean, dtype=k.dtype)
    return DiagonalHessian(weights, *_factor(k, weights), f.shape[1])


@eqx.filter_jit
def softmax_hessian(k: Float[Array, "n n"], weights: Float[Array, "n c"]) -> SoftmaxHessian:
    """Factor the softmax Hessian with D = diag(weights): probabilities, or their likes."""
    shrunk, middle, log_dets = _factor(k, weights)
    coupling = cholesky(
        jnp.sum(middle, axis=0),
        name="the coupling Σ_c (K + D_c⁻¹)⁻¹ of the softmax Hessian",
        remedy="use float64 (jax_enable_x64) or a larger prior_precision",
    )
    return SoftmaxHessian(weights, shrunk, middle, log_dets, coupling)


def _curvatures(likelihood: Likelihood, f: Array) -> Array:
    return jax.vmap(lambda f: jnp.diagonal(likelihood.curvature(f)))(f)


def _factor(k: Array, weights: Array) -> tuple[Array, Array, Array]:
    """G, E and log det(I + D^½ K D^½) of each column of weights, one after another."""
    eye = jnp.eye(k.shape[0], dtype=k.dtype)

    def one_column(w: Array) -> tuple[Array, Array, Array]:
        root = jnp.sqrt(w)
        factor = cholesky(
            eye + root[:, None] * k * root[None, :],
            name="I + √D K √D",
            remedy="the kernel must be positive semi-definite",
        )
        half = solve_triangular(factor, jnp.diag(root), lower=True)
        half_k = half @ k
        log_det = 2 * jnp.sum(jnp.log(jnp.diagonal(factor)))
        return k - half_k.T @ half_k, half.T @ half, log_det

    return jax.lax.map(one_column, weights.T)
