"""The empirical NTK of any network, column by column: J (Jᵀ e) for every unit vector e.

For n and m points with c outputs that is m c backward and forward products, n m c p operations or
more, and memory for a few columns at a time.

References
----------
Novak, Sohl-Dickstein, Schoenholz 2022, arXiv 2206.08720 (NTK–vector products).
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from ntkbayes._types import Array, Float
from ntkbayes.networks.base import Network
from ntkbayes.networks.linearization import Linearization, linearize

__all__ = ["ProductRoute", "product_route"]

MIN_BLOCK = 16
"""Rows a column should at least be multiplied with: Jᵀ e is made anew for every block of rows."""


class ProductRoute(eqx.Module):
    """Tiles of Θ by Jacobian–vector products, `batch` columns at a time."""

    network: Network
    params: Any
    num_outputs: int = eqx.field(static=True)
    num_residuals: int = eqx.field(static=True)
    batch: int = eqx.field(static=True)

    def block(self, numbers: int) -> int:
        """Points of a square tile that needs no more than about `numbers` numbers."""
        by_rows = numbers // (2 * self.num_residuals * (self.batch + 1))
        by_tile = int((numbers / 8) ** 0.5) // self.num_outputs
        return max(1, min(by_rows, by_tile))

    def prepare(self, x: Float[Array, "n d"]) -> Linearization:
        """Linearise once for all columns."""
        return linearize(self.network, self.params, x)

    def tile(self, one: Linearization, x: Float[Array, "m d"]) -> Float[Array, "n c m c"]:
        """Θ between the points of `one` and x."""
        eye = jnp.eye(self.num_outputs, dtype=one.value.dtype)

        def column(index: tuple[Array, Array]) -> Float[Array, "n c"]:
            row, output = index
            _, vjp = jax.vjp(lambda p: self.network.apply(p, x[row][None])[0], self.params)
            return one.jvp(vjp(eye[output])[0])

        points, outputs = jnp.indices((len(x), self.num_outputs)).reshape(2, -1)
        columns = jax.lax.map(column, (points, outputs), batch_size=self.batch)
        return jnp.moveaxis(columns, 0, -1).reshape(*one.value.shape, len(x), self.num_outputs)

    def trace_tile(self, one: Linearization, x: Float[Array, "m d"]) -> Float[Array, "n m"]:
        """(1/c) Σ_k Θ(x, k; x', k) between the points of `one` and x."""
        return jnp.einsum("ikjk->ij", self.tile(one, x)) / self.num_outputs


def product_route(
    network: Network, params: Any, num_features: int, *, numbers: int
) -> ProductRoute:
    """Choose how many columns go at a time, so that tiles need about `numbers` numbers.

    A column needs p numbers for Jᵀ e and, for every row, as many as linearisation keeps.
    """

    def shapes(num_rows: int) -> Linearization:
        x = jax.ShapeDtypeStruct((num_rows, num_features), jnp.result_type(float))
        return jax.eval_shape(lambda p, x: linearize(network, p, x), params, x)

    def size(tree: Any) -> int:
        return sum(leaf.size for leaf in jax.tree.leaves(tree))

    one, two = shapes(1), shapes(2)
    num_residuals = max(1, size(two.jvp) - size(one.jvp))
    batch = max(1, min(numbers // (4 * size(params)), numbers // (2 * MIN_BLOCK * num_residuals)))
    return ProductRoute(network, params, one.value.shape[1], num_residuals, batch)
