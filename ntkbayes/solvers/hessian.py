"""The factorised Hessian H = K⁻¹ ⊗ I + W of a regularised problem, W the likelihood's curvature.

A likelihood says what is known of W (`Likelihood.curvature_structure`). Where W is diagonal the
outputs separate: with D_k = diag(w_k) and B_k = I + D_k^½ K D_k^½,

    E_k = (K + D_k⁻¹)⁻¹ = D_k^½ B_k⁻¹ D_k^½,   G_k = (K⁻¹ + D_k)⁻¹ = D_k^-½ (I − B_k⁻¹) D_k^-½,
    H⁻¹ r = G r,   log det(I + K W) = Σ_k log det B_k.

The softmax couples the classes of a point by a term of rank one, W = D − D R (Rᵀ D R)⁻¹ Rᵀ D with R
stacking c identity matrices and D = diag(p); Woodbury's identity gives

    H⁻¹ r = G r + G D R (Σ_k E_k)⁻¹ Rᵀ D G r,
    (K + W⁻¹)⁻¹ v = E v − E R (Σ_k E_k)⁻¹ Rᵀ E v,
    log det(I + K W) = Σ_k log det B_k + log det Σ_k E_k − log det Σ_k D_k.

The same holds for weights that do not sum to 1 over the classes. Neither takes an (n c)×(n c)
matrix. Where nothing is known of W, that is what it takes: with S Sᵀ = W block by block,

    (K + W⁻¹)⁻¹ = S (I + Sᵀ (K ⊗ I) S)⁻¹ Sᵀ,   log det(I + K W) = log det(I + Sᵀ (K ⊗ I) S).

References
----------
Rasmussen & Williams 2006, §3.5, algorithms 3.3 and 3.4.
"""

import abc
from contextlib import AbstractContextManager

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular

from ntkbayes._arrays import more_digits
from ntkbayes._linalg import cholesky, naming_failure
from ntkbayes._types import Array, Float
from ntkbayes.kernels.memory import check_memory
from ntkbayes.likelihoods import Likelihood

__all__ = [
    "DenseHessian",
    "DiagonalHessian",
    "Hessian",
    "SoftmaxHessian",
    "hessian_at",
    "preconditioner",
    "softmax_hessian",
    "uniform_hessian",
]


class Hessian(eqx.Module):
    """K⁻¹ ⊗ I + W at given curvature weights. Vectors carry a leading axis of draws.

    They keep their dtype; products with matrices are in that of `inverse`.

    Attributes
    ----------
    inverse
        What was inverted, a stack of matrices.
    """

    inverse: eqx.AbstractVar[Float[Array, "k j j"]]

    @property
    @abc.abstractmethod
    def cost(self) -> float:
        """Price of `solve` in products of an (n n) matrix with (n c): GEMM equivalents."""

    @property
    @abc.abstractmethod
    def log_det(self) -> Float[Array, ""]:
        """The log determinant of I + K W."""

    @abc.abstractmethod
    def solve(self, r: Float[Array, "s n c"]) -> Float[Array, "s n c"]:
        """H⁻¹ r for positive weights; loses eps / weight. See `dual` for weights near zero."""

    @abc.abstractmethod
    def dual(self, v: Float[Array, "s n c"]) -> Float[Array, "s n c"]:
        """(K + W⁻¹)⁻¹ v = W (I + K W)⁻¹ v, for weights however small: H⁻¹ r = K (r − dual(K r))."""

    @abc.abstractmethod
    def curvature(self, v: Float[Array, "s n c"]) -> Float[Array, "s n c"]:
        """W v. With z = H⁻¹ r it gives K⁻¹ z = r − W z without a product with K."""

    @abc.abstractmethod
    def curvature_root(self, v: Float[Array, "s n c"]) -> Float[Array, "s n c"]:
        """S v with S Sᵀ = W, so that standard normal v give N(0, W)."""

    @abc.abstractmethod
    def dual_root(self, v: Float[Array, "s n c"]) -> Float[Array, "s n c"]:
        """(I + W K)⁻¹ S v, with the S of `curvature_root`."""

    @abc.abstractmethod
    def covariance(
        self, k_cross: Float[Array, "n m"], k_test: Float[Array, "m m"], num_outputs: int
    ) -> Float[Array, "m c m c"]:
        """K** ⊗ I − K*ᵀ (K + W⁻¹)⁻¹ K*: H⁻¹ continued to m test points."""


class _ColumnHessian(Hessian):
    """A Hessian made of one matrix per output.

    Attributes
    ----------
    weights
        Diagonal of D, one column per output, or one column that all outputs share.
    inverse
        B⁻¹ = (I + D^½ K D^½)⁻¹, one matrix per column of `weights`.
    log_dets
        log det B, likewise.
    """

    weights: eqx.AbstractVar[Float[Array, "n k"]]
    inverse: eqx.AbstractVar[Float[Array, "k n n"]]
    log_dets: eqx.AbstractVar[Float[Array, "k"]]

    def explained(self, k_cross: Float[Array, "n m"]) -> Float[Array, "k m m"]:
        """K*ᵀ E K*, one matrix per column of `weights`."""

        def one_column(column: tuple[Array, Array]) -> Array:
            weights, inverse = column
            scaled = jnp.sqrt(weights)[:, None] * k_cross
            return scaled.T @ (inverse @ scaled)

        return jax.lax.map(one_column, (self.weights.T, self.inverse))

    def _shrink(self, r: Array) -> Array:
        """G r = D^-½ (I − B⁻¹) D^-½ r: no product with K, but a division by weights."""
        scaled = r / self._root()
        return (scaled - _per_output(self.inverse, scaled)) / self._root()

    def _middle(self, v: Array) -> Array:
        """E v = D^½ B⁻¹ D^½ v."""
        return self._root() * _per_output(self.inverse, self._root() * v)

    def _root(self) -> Array:
        return jnp.sqrt(self.weights)[None]


class DiagonalHessian(_ColumnHessian):
    """The Hessian where outputs separate; memory n² numbers per column of `weights`."""

    weights: Float[Array, "n k"]
    inverse: Float[Array, "k n n"]
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

    def solve(self, r: Float[Array, "s n c"]) -> Float[Array, "s n c"]:
        """G r."""
        return self._shrink(r)

    def dual(self, v: Float[Array, "s n c"]) -> Float[Array, "s n c"]:
        """E v."""
        return self._middle(v)

    def curvature(self, v: Float[Array, "s n c"]) -> Float[Array, "s n c"]:
        """D v."""
        return self.weights[None] * v

    def curvature_root(self, v: Float[Array, "s n c"]) -> Float[Array, "s n c"]:
        """D^½ v."""
        return self._root() * v

    def dual_root(self, v: Float[Array, "s n c"]) -> Float[Array, "s n c"]:
        """D^½ B⁻¹ v: S v − dual(K S v) would cancel where weights are large."""
        return self._root() * _per_output(self.inverse, v)

    def covariance(
        self, k_cross: Float[Array, "n m"], k_test: Float[Array, "m m"], num_outputs: int
    ) -> Float[Array, "m c m c"]:
        """K** − K*ᵀ E_c K* within each output, zero between them."""
        own = k_test[None] - self.explained(k_cross)
        own = jnp.broadcast_to(own, (num_outputs, *k_test.shape))
        return jnp.einsum("cmk,cd->mckd", own, jnp.eye(num_outputs, dtype=k_test.dtype))


class SoftmaxHessian(_ColumnHessian):
    """The Hessian of a softmax; memory (c + 1) n² numbers.

    Attributes
    ----------
    coupling
        (Σ_k E_k)⁻¹.
    coupling_log_det
        log det Σ_k E_k.
    """

    weights: Float[Array, "n c"]
    inverse: Float[Array, "c n n"]
    log_dets: Float[Array, "c"]
    coupling: Float[Array, "n n"]
    coupling_log_det: Float[Array, ""]

    @property
    def cost(self) -> float:
        """Two products with the (c n n) stack, and one with a matrix for one output."""
        return 2.0 + 1.0 / self.weights.shape[1]

    @property
    def log_det(self) -> Float[Array, ""]:
        """Sum over classes, and the coupling between them."""
        total = jnp.log(jnp.sum(self.weights, axis=1))
        return jnp.sum(self.log_dets) + self.coupling_log_det - jnp.sum(total)

    def solve(self, r: Float[Array, "s n c"]) -> Float[Array, "s n c"]:
        """G r + G D R (Σ_k E_k)⁻¹ Rᵀ D G r."""
        first = self._shrink(r)
        shared = self._couple(jnp.sum(self.weights[None] * first, axis=2))
        return first + self._shrink(self.weights[None] * shared[:, :, None])

    def dual(self, v: Float[Array, "s n c"]) -> Float[Array, "s n c"]:
        """E v − E R (Σ_k E_k)⁻¹ Rᵀ E v."""
        first = self._middle(v)
        shared = self._couple(jnp.sum(first, axis=2))
        return first - self._middle(jnp.broadcast_to(shared[:, :, None], v.shape))

    def curvature(self, v: Float[Array, "s n c"]) -> Float[Array, "s n c"]:
        """D v − D R (Rᵀ D R)⁻¹ Rᵀ D v."""
        return self._subtract_shared(self.weights[None] * v)

    def curvature_root(self, v: Float[Array, "s n c"]) -> Float[Array, "s n c"]:
        """D^½ v − D R (Rᵀ D R)⁻¹ Rᵀ D^½ v."""
        return self._subtract_shared(self._root() * v)

    def dual_root(self, v: Float[Array, "s n c"]) -> Float[Array, "s n c"]:
        """With u = D^½ B⁻¹ D^-½ S v it is u − E R (Σ_k E_k)⁻¹ Rᵀ u, as Rᵀ S v = 0."""
        root, weights = self._root(), self.weights[None]
        shared = jnp.sum(root * v, axis=2, keepdims=True) / jnp.sum(weights, axis=2, keepdims=True)
        first = root * _per_output(self.inverse, v - root * shared)
        coupled = self._couple(jnp.sum(first, axis=2))
        return first - self._middle(jnp.broadcast_to(coupled[:, :, None], v.shape))

    def covariance(
        self, k_cross: Float[Array, "n m"], k_test: Float[Array, "m m"], num_outputs: int
    ) -> Float[Array, "m c m c"]:
        """K** − K*ᵀ E K* + K*ᵀ E R (Σ_k E_k)⁻¹ Rᵀ E K*."""
        each = jnp.broadcast_to(k_cross.T[:, :, None], (*k_cross.T.shape, num_outputs))
        weighted = self._middle(each)
        coupled = jnp.einsum("mnc,nl,kld->mckd", weighted, self.coupling, weighted)
        own = k_test[None] - jnp.einsum("mnc,nk->cmk", weighted, k_cross)
        return coupled + jnp.einsum("cmk,cd->mckd", own, jnp.eye(num_outputs, dtype=k_test.dtype))

    def _couple(self, shared: Array) -> Array:
        return (shared.astype(self.coupling.dtype) @ self.coupling).astype(shared.dtype)

    def _subtract_shared(self, v: Array) -> Array:
        weights = self.weights.astype(v.dtype)  # first: rows of the result sum to zero in it
        share = weights / jnp.sum(weights, axis=1, keepdims=True)
        return v - share[None] * jnp.sum(v, axis=2, keepdims=True)


class DenseHessian(Hessian):
    """The Hessian of any curvature; memory (n c)² numbers, and four times as many to make it.

    Attributes
    ----------
    k
        K.
    blocks
        W at each point.
    inverse
        (K + W⁻¹)⁻¹ as one matrix, ordered point by point.
    log_dets
        log det(I + K W).
    """

    k: Float[Array, "n n"]
    blocks: Float[Array, "n c c"]
    inverse: Float[Array, "1 j j"]
    log_dets: Float[Array, "1"]

    @property
    def cost(self) -> float:
        """One product with the (n c)² matrix, and two with K."""
        return 2.0 + self.blocks.shape[1]

    @property
    def log_det(self) -> Float[Array, ""]:
        """As it is kept."""
        return self.log_dets[0]

    def solve(self, r: Float[Array, "s n c"]) -> Float[Array, "s n c"]:
        """K (r − (K + W⁻¹)⁻¹ K r)."""
        return self._smooth(r - self.dual(self._smooth(r)))

    def dual(self, v: Float[Array, "s n c"]) -> Float[Array, "s n c"]:
        """One product."""
        columns = v.reshape(len(v), -1).astype(self.inverse.dtype)
        return (columns @ self.inverse[0]).reshape(v.shape).astype(v.dtype)

    def curvature(self, v: Float[Array, "s n c"]) -> Float[Array, "s n c"]:
        """W v."""
        return jnp.einsum("ncd,snd->snc", self.blocks.astype(v.dtype), v)

    def curvature_root(self, v: Float[Array, "s n c"]) -> Float[Array, "s n c"]:
        """S v."""
        return jnp.einsum("ncd,snd->snc", _block_roots(self.blocks).astype(v.dtype), v)

    def dual_root(self, v: Float[Array, "s n c"]) -> Float[Array, "s n c"]:
        """S v − (K + W⁻¹)⁻¹ K S v, which loses eps · W K."""
        spread = self.curvature_root(v)
        return spread - self.dual(self._smooth(spread))

    def covariance(
        self, k_cross: Float[Array, "n m"], k_test: Float[Array, "m m"], num_outputs: int
    ) -> Float[Array, "m c m c"]:
        """K** ⊗ I − K*ᵀ (K + W⁻¹)⁻¹ K*."""
        n, c = self.blocks.shape[:2]
        dual = self.inverse.reshape(n, c, n, c)
        explained = jnp.einsum("im,icjd,jl->mcld", k_cross, dual, k_cross)
        eye = jnp.eye(num_outputs, dtype=k_test.dtype)
        return jnp.einsum("ml,cd->mcld", k_test, eye) - explained

    def _smooth(self, v: Array) -> Array:
        return jnp.einsum("ij,sjc->sic", self.k, v.astype(self.k.dtype)).astype(v.dtype)


def hessian_at(
    k: Float[Array, "n n"],
    likelihood: Likelihood,
    f: Float[Array, "n c"],
    *,
    smallest_weight: float = 0.0,
) -> DiagonalHessian | SoftmaxHessian | DenseHessian:
    """Factor K⁻¹ ⊗ I + W(f) once; cost ≈ 2⅓ n³ operations for every column of weights.

    For a curvature of unknown structure it is some 2 (n c)³. Weights below `smallest_weight` are
    raised to it: a preconditioner nearby, whose `solve` keeps its digits.

    Raises
    ------
    ValueError
        If K is not positive semi-definite beyond rounding, or the matrices do not fit memory.
    """
    match _structure(likelihood):
        case "constant":
            return uniform_hessian(k, likelihood, f)
        case "dense":
            return dense_hessian(k, jax.vmap(likelihood.curvature)(f))
        case structure:
            weights = jax.vmap(likelihood.curvature_weights)(f)
            weights = jnp.maximum(weights, smallest_weight)
            if structure == "softmax":
                return softmax_hessian(k, weights)
            return DiagonalHessian(weights, *_factor(k, weights), f.shape[1])


def preconditioner(
    k: Float[Array, "n n"], likelihood: Likelihood, f: Float[Array, "n c"]
) -> DiagonalHessian | SoftmaxHessian | DenseHessian:
    """Factor a Hessian near that of `hessian_at`, for half the price where float32 will do.

    It will where the rounding n · eps · max B of a factorisation leaves B ⪰ I positive definite.
    Weights are raised to eps^⅔ at least: `solve` then errs by eps^⅓, no harm to a preconditioner.
    With a curvature of unknown structure `solve` errs by eps · max B, and takes the digits of K.

    Raises
    ------
    ValueError
        As `hessian_at`.
    """
    single = jnp.finfo(jnp.float32)
    dtype = k.dtype
    if _structure(likelihood) != "dense":
        weights = jax.vmap(likelihood.curvature_weights)(f)
        largest = 1 + jnp.max(weights * jnp.diagonal(k)[:, None])
        if len(k) * float(single.eps) * float(largest) < 0.5:
            dtype = single.dtype
    smallest = float(jnp.finfo(dtype).eps) ** (2 / 3)
    return hessian_at(k.astype(dtype), likelihood, f.astype(dtype), smallest_weight=smallest)


def uniform_hessian(
    k: Float[Array, "n n"], likelihood: Likelihood, f: Float[Array, "n c"]
) -> DiagonalHessian:
    """Factor K⁻¹ ⊗ I + w I with w the mean curvature over points and outputs.

    The cheap approximation: one column of weights whatever the number of outputs.

    Raises
    ------
    ValueError
        As `hessian_at`.
    """
    mean = jnp.mean(_curvatures(likelihood, f))
    weights = jnp.full((len(f), 1), mean, dtype=k.dtype)
    return DiagonalHessian(weights, *_factor(k, weights), f.shape[1])


def softmax_hessian(k: Float[Array, "n n"], weights: Float[Array, "n c"]) -> SoftmaxHessian:
    """Factor the softmax Hessian with D = diag(weights): probabilities, or their likes.

    Raises
    ------
    ValueError
        As `hessian_at`.
    """
    inverse, log_dets = _factor(k, weights)
    with _naming_failure(k):
        return SoftmaxHessian(weights, inverse, log_dets, *_coupling(weights, inverse))


def dense_hessian(k: Float[Array, "n n"], blocks: Float[Array, "n c c"]) -> DenseHessian:
    """Factor the Hessian with any curvature, W one block per point.

    Raises
    ------
    ValueError
        If (n c) × (n c) matrices do not fit memory, or K is not positive semi-definite beyond
        rounding.
    """
    size = blocks.shape[0] * blocks.shape[1]
    check_memory(
        "the Hessian of a likelihood that couples outputs", size, size, k.dtype, num_matrices=4,
        remedy="take fewer points, or say what is known (Likelihood.curvature_structure)",
    )  # fmt: skip
    with _naming_failure(k):
        inverse, log_det = _factor_dense(k, blocks)
    return DenseHessian(k, blocks, inverse[None], log_det[None])


def _structure(likelihood: Likelihood) -> str:
    """Return what the class that defines `curvature` says of it, or one below; else "dense"."""
    if likelihood.num_outputs == 1 and likelihood.curvature_structure == "dense":
        return "diagonal"

    def depth(name: str) -> int:
        return next(i for i, c in enumerate(type(likelihood).__mro__) if name in vars(c))

    said, made = depth("curvature_structure"), depth("curvature")
    return likelihood.curvature_structure if said <= made else "dense"


def _curvatures(likelihood: Likelihood, f: Array) -> Array:
    """Return the diagonal of W, without W itself where its structure is known."""
    match _structure(likelihood):
        case "dense":
            return jax.vmap(lambda f: jnp.diagonal(likelihood.curvature(f)))(f)
        case structure:
            weights = jax.vmap(likelihood.curvature_weights)(f)
            if structure == "softmax":
                return weights * (1 - weights / jnp.sum(weights, axis=1, keepdims=True))
            return weights


def _factor(k: Array, weights: Array) -> tuple[Array, Array]:
    """B⁻¹ and log det B of each column of weights; n² numbers for each, and four times as many."""
    num_columns = weights.shape[1]
    check_memory("the Hessian", len(k), len(k), k.dtype, num_matrices=num_columns + 4)
    with _naming_failure(k):
        return _factor_columns(k, jnp.sqrt(weights))


def _naming_failure(k: Array) -> AbstractContextManager[None]:
    return naming_failure(
        f"rounding in {k.dtype} leaves the Hessian K⁻¹ + W of the training problem not positive "
        f"definite: {_remedy(k.dtype)}."
    )


def _remedy(dtype: jnp.dtype) -> str:
    return (
        f"{more_digits(dtype)}take a larger prior_precision or remove inputs that nearly coincide"
    )


@eqx.filter_jit
def _factor_columns(k: Array, roots: Array) -> tuple[Array, Array]:
    """B⁻¹ and log det B, one column after another."""
    eye = jnp.eye(k.shape[0], dtype=k.dtype)

    def one_column(root: Array) -> tuple[Array, Array]:
        return _invert(
            eye + root[:, None] * k * root[None, :],
            name="I + √D K √D",
            remedy=_remedy(k.dtype),
        )

    return jax.lax.map(one_column, roots.T)


@eqx.filter_jit
def _coupling(weights: Array, inverse: Array) -> tuple[Array, Array]:
    """(Σ_k E_k)⁻¹ and log det Σ_k E_k."""

    def add(total: Array, column: tuple[Array, Array]) -> tuple[Array, None]:
        root, inverse = column
        return total + root[:, None] * inverse * root[None, :], None

    total, _ = jax.lax.scan(add, jnp.zeros_like(inverse[0]), (jnp.sqrt(weights).T, inverse))
    return _invert(
        total,
        name="the coupling Σ_c (K + D_c⁻¹)⁻¹ of the softmax Hessian",
        remedy=_remedy(total.dtype),
    )


@eqx.filter_jit
def _factor_dense(k: Array, blocks: Array) -> tuple[Array, Array]:
    """(K + W⁻¹)⁻¹ as an (n c)² matrix, and log det(I + K W)."""
    roots = _block_roots(jax.lax.stop_gradient(blocks))
    n, c = roots.shape[:2]
    inner = jnp.einsum("ikr,ij,jks->irjs", roots, jax.lax.stop_gradient(k), roots)
    factor = cholesky(
        jnp.eye(n * c, dtype=k.dtype) + inner.reshape(n * c, n * c),
        name="I + Sᵀ K S with S Sᵀ = W",
        remedy=_remedy(k.dtype),
    )
    return _dual_and_log_det(k, blocks, roots, factor)


def _block_roots(blocks: Float[Array, "n c c"]) -> Float[Array, "n c c"]:
    """S with S Sᵀ = W at each point; W may be singular."""
    values, vectors = jnp.linalg.eigh(blocks)
    return vectors * jnp.sqrt(jnp.maximum(values, 0))[:, None, :]


@jax.custom_jvp
def _dual_and_log_det(k: Array, blocks: Array, roots: Array, factor: Array) -> tuple[Array, Array]:
    """Make D = (K + W⁻¹)⁻¹ and log det(I + K W) from the factor of I + Sᵀ K S.

    Roots of W with equal eigenvalues have no derivative, but D has:

        dD = (I − D K) dW (I − K D) − D dK D,
        d log det(I + K W) = tr D dK + tr (K − K D K) dW.
    """
    n, c = roots.shape[:2]
    spread = jnp.einsum("ikr,ij->irjk", roots, jnp.eye(n, dtype=k.dtype)).reshape(n * c, n * c)
    half = solve_triangular(factor, spread, lower=True)
    return half.T @ half, 2 * jnp.sum(jnp.log(jnp.diagonal(factor)))


@_dual_and_log_det.defjvp
def _dual_and_log_det_jvp(primals, tangents):
    k, blocks = primals[:2]
    dk, dw = tangents[:2]
    n, c = blocks.shape[:2]
    dual, log_det = _dual_and_log_det(*primals)
    dual = dual.reshape(n, c, n, c)
    kept = jnp.eye(n * c, dtype=k.dtype).reshape(n, c, n, c) - jnp.einsum("icjd,jl->icld", dual, k)
    through = jnp.einsum("icjd,jl,ldkf->ickf", dual, dk, dual)
    change = jnp.einsum("icle,lef,jdlf->icjd", kept, dw, kept) - through
    left = jnp.einsum("ij,jcid->icd", k, kept)
    d_log_det = jnp.einsum("icjc,ij->", dual, dk) + jnp.einsum("icd,icd->", left, dw)
    return (dual.reshape(n * c, n * c), log_det), (change.reshape(n * c, n * c), d_log_det)


def _invert(matrix: Array, *, name: str, remedy: str) -> tuple[Array, Array]:
    """Inverse and log determinant of a positive definite matrix."""
    factor = cholesky(matrix, name=name, remedy=remedy)
    return _inverse_and_log_det(matrix, jax.lax.stop_gradient(factor))


@jax.custom_jvp
def _inverse_and_log_det(matrix: Array, factor: Array) -> tuple[Array, Array]:
    """B⁻¹ and log det B from the factor of B; their derivatives are −B⁻¹ dB B⁻¹ and tr B⁻¹ dB."""
    inverse = cho_solve((factor, True), jnp.eye(len(matrix), dtype=matrix.dtype))
    return inverse, 2 * jnp.sum(jnp.log(jnp.diagonal(factor)))


@_inverse_and_log_det.defjvp
def _inverse_and_log_det_jvp(primals, tangents):
    inverse, log_det = _inverse_and_log_det(*primals)
    change = tangents[0]
    return (inverse, log_det), (-inverse @ change @ inverse, jnp.vdot(inverse, change))


def _per_output(stack: Float[Array, "k n n"], v: Float[Array, "s n c"]) -> Float[Array, "s n c"]:
    """Multiply each output by its own matrix, or all by the one there is.

    The products are laid out (c, n, s), as a matrix library wants them; without the barriers XLA
    would fold the transposes into them and take twice the time.
    """
    columns = v.astype(stack.dtype)
    if len(stack) == 1:
        return jnp.einsum("ij,sjc->sic", stack[0], columns).astype(v.dtype)
    columns = jax.lax.optimization_barrier(jnp.transpose(columns, (2, 1, 0)))
    product = jax.lax.optimization_barrier(jnp.einsum("cij,cjs->cis", stack, columns))
    return jnp.transpose(product, (2, 1, 0)).astype(v.dtype)
