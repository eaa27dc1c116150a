"""The factorised Hessian K⁻¹ ⊗ I + W of a softmax model, W = diag(π) − Π Πᵀ per point.

Never an (n c)×(n c) matrix: c factors of size n and one that couples the classes. With D_c =
diag(π_c), E_c = (K + D_c⁻¹)⁻¹ and G_c = (K⁻¹ + D_c)⁻¹ = K − K E_c K, Woodbury's identity gives

    (K⁻¹ + W)⁻¹ r = G r + G Π (Σ_c E_c)⁻¹ Πᵀ G r,
    log det(I + K W) = Σ_c log det(I + D_c^½ K D_c^½) + log det Σ_c E_c − log det diag(Σ_c π_c).

References
----------
Rasmussen & Williams 2006, §3.5, algorithms 3.3 and 3.4.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular

from ntkbayes._linalg import cholesky
from ntkbayes._types import Array, Float

__all__ = ["SoftmaxHessian", "softmax_hessian"]


class SoftmaxHessian(eqx.Module):
    """K⁻¹ ⊗ I + W at given probabilities; memory 2 c n² numbers."""

    probabilities: Float[Array, "n c"]
    shrunk: Float[Array, "c n n"]
    middle: Float[Array, "c n n"]
    coupling: Float[Array, "n n"]
    log_det: Float[Array, ""]

    def solve(self, r: Float[Array, "n c"]) -> Float[Array, "n c"]:
        """(K⁻¹ + W)⁻¹ r, at the price of two products with a (c n n) stack."""
        first = jnp.einsum("cij,jc->ic", self.shrunk, r)
        shared = cho_solve((self.coupling, True), jnp.sum(self.probabilities * first, axis=1))
        second = self.probabilities * shared[:, None]
        return first + jnp.einsum("cij,jc->ic", self.shrunk, second)


@eqx.filter_jit
def softmax_hessian(k: Float[Array, "n n"], probabilities: Float[Array, "n c"]) -> SoftmaxHessian:
    """Factor K⁻¹ ⊗ I + W once; cost ≈ 3 c n³ operations."""
    eye = jnp.eye(k.shape[0], dtype=k.dtype)

    def one_class(p: Array) -> tuple[Array, Array, Array]:
        root = jnp.sqrt(p)
        factor = cholesky(
            eye + root[:, None] * k * root[None, :],
            name="I + √D K √D",
            remedy="the kernel must be positive semi-definite",
        )
        half = solve_triangular(factor, jnp.diag(root), lower=True)
        half_k = half @ k
        log_det = 2 * jnp.sum(jnp.log(jnp.diagonal(factor)))
        return half.T @ half, k - half_k.T @ half_k, log_det

    middle, shrunk, log_dets = jax.lax.map(one_class, probabilities.T)
    coupling = cholesky(
        jnp.sum(middle, axis=0),
        name="the coupling Σ_c (K + D_c⁻¹)⁻¹ of the softmax Hessian",
        remedy="use float64 (jax_enable_x64) or a larger prior_precision",
    )
    log_det = jnp.sum(log_dets) + 2 * jnp.sum(jnp.log(jnp.diagonal(coupling)))
    log_det = log_det - jnp.sum(jnp.log(jnp.sum(probabilities, axis=1)))
    return SoftmaxHessian(probabilities, shrunk, middle, coupling, log_det)
