"""What an implicit step of the gradient flow solves: (I + h (R Vᵀ W V R + λ)) δ = r.

In the eigen-coordinates of the NTK the matrix is nearly diagonal where W is nearly a multiple of
the identity, which makes 1 + q R²/R_max² a preconditioner that suits any step length h; q is the
matrix's own quotient along the leading eigenvector.

References
----------
Nocedal & Wright 2006, algorithm 5.3.
"""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np

from ntkbayes._types import Array, Float, Int

__all__ = ["ImplicitStepSolver", "counting_work"]

RELATIVE_RESIDUAL = 0.1
"""Newton's method corrects what is left: solving its systems more exactly took more products."""
MAX_ITERATIONS = 1000

_work: dict[int, np.ndarray] = {}
_numbers = itertools.count()


class ImplicitStepSolver(lx.AbstractLinearSolver):
    """Preconditioned conjugate gradients, which report their work to `counting_work`.

    Lineax's own solver would demand that Diffrax declare the Jacobian definite, which it cannot.
    """

    roots: Float[Array, "n"]
    account: Int[Array, ""]
    draw: Int[Array, ""]

    def init(self, operator: Any, options: dict[str, Any]) -> tuple[Any, Array]:
        """Measure q."""
        n, c = operator.in_structure().shape
        signs = jnp.where(jnp.arange(c) % 2 == 0, 1.0, -1.0).astype(self.roots.dtype)
        leading = jnp.zeros((n, c), self.roots.dtype).at[-1].set(signs / c**0.5)
        q = jnp.maximum(jnp.vdot(leading, operator.mv(leading)) - 1, 0)
        return operator, 1 / (1 + q * (self.roots / self.roots[-1]) ** 2)[:, None]

    def compute(
        self, state: tuple[Any, Array], vector: Array, options: dict[str, Any]
    ) -> tuple[Array, lx.RESULTS, dict[str, Any]]:
        """Solve to a tenth of the right-hand side."""
        operator, inverse = state
        goal = RELATIVE_RESIDUAL * jnp.linalg.norm(vector)

        def unsolved(carry: tuple) -> Array:
            _, residual, _, _, iterations = carry
            return (jnp.linalg.norm(residual) > goal) & (iterations < MAX_ITERATIONS)

        def advance(carry: tuple) -> tuple:
            solution, residual, search, rz, iterations = carry
            image = operator.mv(search)
            alpha = rz / jnp.vdot(search, image)
            residual = residual - alpha * image
            z = inverse * residual
            rz_new = jnp.vdot(residual, z)
            search_new = z + rz_new / rz * search
            return solution + alpha * search, residual, search_new, rz_new, iterations + 1

        z = inverse * vector
        start = (jnp.zeros_like(vector), vector, z, jnp.vdot(vector, z), jnp.array(0))
        solution, *_, iterations = jax.lax.while_loop(unsolved, advance, start)
        # One slope and one quotient besides; each of them two products with the eigenvectors.
        jax.debug.callback(_add, self.account, self.draw, 2 * (iterations + 2))
        return solution, lx.RESULTS.successful, {}

    def transpose(self, state: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Return the state: the matrix is symmetric."""
        return state, options

    def conj(self, state: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Return the state: the matrix is real."""
        return state, options

    def assume_full_rank(self) -> bool:
        """Return that the eigenvalues, at least 1, are not zero."""
        return True


def counting_work(function: Callable[[Array], Any], num_draws: int) -> tuple[Any, np.ndarray]:
    """Call with an account for solvers to report to; return the result and each draw's products.

    Diffrax keeps to itself how often it solves, so the solver reports from within.
    """
    number = next(_numbers)
    _work[number] = np.zeros(num_draws, dtype=int)
    try:
        result = jax.block_until_ready(function(jnp.array(number)))
        jax.effects_barrier()
        return result, _work[number]
    finally:
        del _work[number]


def _add(account: np.ndarray, draw: np.ndarray, products: np.ndarray) -> None:
    _work[int(account)][int(draw)] += int(products)
