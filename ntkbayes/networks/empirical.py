"""The empirical neural tangent kernel Θ = J Jᵀ of a finite network, J = ∂f/∂θ.

It is filled tile by tile, on one of two routes, never with a Jacobian (n c p) in memory:

- ``"layers"``: a stack of dense layers, from each layer's inputs and backpropagated derivatives
  (`ntkbayes.networks.stack`); `DenseNetwork` is one, a `FiniteNetwork` may declare that it is;
- ``"products"``: any network, by Jacobian–vector products (`ntkbayes.networks.products`).

References
----------
Jacot, Gabriel, Hongler 2018, arXiv 1806.07572. Novak, Sohl-Dickstein, Schoenholz 2022, arXiv
2206.08720 (fast finite-width NTK).
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ntkbayes._arrays import computing_dtype, is_traced
from ntkbayes._checks import check_choice, check_finite, check_not_empty
from ntkbayes._types import AnyArray, Array, Float, typed
from ntkbayes.kernels.memory import check_memory
from ntkbayes.kernels.ranges import check_kernel_range
from ntkbayes.networks.activations import ACTIVATIONS
from ntkbayes.networks.base import Network
from ntkbayes.networks.dense import DenseNetwork
from ntkbayes.networks.finite import FiniteNetwork, weights_of
from ntkbayes.networks.linearization import linearize
from ntkbayes.networks.products import ProductRoute, product_route
from ntkbayes.networks.stack import DenseLayer, DenseStack, LayerRoute

__all__ = ["empirical_ntk", "empirical_ntk_trace", "known_layers", "known_stack"]

ROUTES = ("auto", "layers", "products")
WORKSPACE_BYTES = 256 * 2**20
"""Memory for a tile and what it is made from, besides the result."""


@typed
def empirical_ntk(
    network: Network,
    params: Any,
    x1: Float[AnyArray, "n d"],
    x2: Float[AnyArray, "m d"] | None = None,
    *,
    route: str = "auto",
) -> Float[Array, "n c m c"]:
    """Return Θ of a finite network between all points and outputs.

    Parameters
    ----------
    network, params
        Any network, and its parameters.
    x1, x2
        Inputs, one per row; `x2` None means x1, at half the cost and exactly symmetric.
    route
        ``"layers"``, ``"products"``, or ``"auto"``: by layers where they are known.

    Raises
    ------
    ValueError
        If an input is empty or not finite, the result is larger than the available memory or
        overflows, the network has no known layers for ``route="layers"``, or its declared layers
        contradict its Jacobian–vector products.

    Notes
    -----
    Tiles take about 256 MiB besides the result, or a few times p numbers if that is more.

    Examples
    --------
    >>> params = network.init(key, num_features=2, num_outputs=3)
    >>> ntk = nb.empirical_ntk(network, params, data.x_train)
    >>> ntk.shape, np.array_equal(ntk, ntk.transpose(2, 3, 0, 1))
    ((20, 3, 20, 3), True)
    """
    return _assemble(network, params, x1, x2, route, trace=False)


@typed
def empirical_ntk_trace(
    network: Network,
    params: Any,
    x1: Float[AnyArray, "n d"],
    x2: Float[AnyArray, "m d"] | None = None,
    *,
    route: str = "auto",
) -> Float[Array, "n m"]:
    """Return (1/c) Σ_k Θ(x, k; x', k), the empirical NTK averaged over outputs.

    At infinite width Θ = Θ_∞ ⊗ I_c, and this is Θ_∞. It takes c² times less memory than
    `empirical_ntk` and, by layers, c times less time.

    Parameters
    ----------
    network, params, x1, x2, route
        As in `empirical_ntk`.

    Raises
    ------
    ValueError
        As in `empirical_ntk`.

    Examples
    --------
    >>> params = network.init(key, num_features=2, num_outputs=3)
    >>> ntk = nb.empirical_ntk(network, params, data.x_train)
    >>> trace = nb.empirical_ntk_trace(network, params, data.x_train)
    >>> np.allclose(trace, np.einsum("ikjk->ij", ntk) / 3)
    True
    """
    return _assemble(network, params, x1, x2, route, trace=True)


def _assemble(
    network: Network,
    params: Any,
    x1: AnyArray,
    x2: AnyArray | None,
    route: str,
    *,
    trace: bool,
) -> Array:
    """Fill the kernel tile by tile; the symmetric one from its lower half."""
    symmetric = x2 is None
    for name, x in (("x1", x1), ("x2", x1 if symmetric else x2)):
        check_not_empty(name, x)
        check_finite(name, x)
    input_dtype = computing_dtype(x1, x1 if symmetric else x2)
    rows, columns = (jnp.asarray(x, input_dtype) for x in (x1, x1 if symmetric else x2))
    theta = _in_full_precision(weights_of(network, params, rows.shape[1]))
    output = jax.eval_shape(lambda theta, x: network.apply(theta, x), theta, rows)
    n, m, c, dtype = len(rows), len(columns), output.shape[1], output.dtype
    per_point = 1 if trace else c
    smaller = "" if trace else "empirical_ntk_trace is c² times smaller, or "
    check_memory(
        "the empirical NTK", n * per_point, m * per_point, dtype,
        remedy=f"ask for fewer rows of x1 at a time; {smaller}multiply with it by linearize",
    )  # fmt: skip
    tiles = _tiles(network, theta, rows, route)
    ntk = jnp.zeros((n * per_point, m * per_point), dtype)
    block = tiles.block(WORKSPACE_BYTES // dtype.itemsize)
    for i in range(0, n, block):
        prepared = _prepare(tiles, rows[i : i + block])
        for j in range(0, i + 1 if symmetric else m, block):
            tile = _tile(tiles, prepared, columns[j : j + block], trace)
            if symmetric and i == j:
                tile = 0.5 * (tile + tile.T)
            ntk = _write(ntk, tile, i * per_point, j * per_point)
            if symmetric and i != j:
                ntk = _write(ntk, tile.T, j * per_point, i * per_point)
            jax.block_until_ready(ntk)  # or the tiles of later steps would be allocated already
    check_kernel_range(
        "the empirical NTK at these params and inputs", ntk, source=np.zeros(()),
        remedy="scale the inputs or the parameters down",
    )  # fmt: skip
    return ntk if trace else ntk.reshape(n, c, m, c)


def _in_full_precision(params: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.astype(computing_dtype(leaf)), params)


@eqx.filter_jit
def _prepare(tiles: LayerRoute | ProductRoute, x: Array) -> Any:
    return tiles.prepare(x)


@eqx.filter_jit
def _tile(tiles: LayerRoute | ProductRoute, prepared: Any, x: Array, trace: bool) -> Array:
    if trace:
        return tiles.trace_tile(prepared, x)
    tile = tiles.tile(prepared, x)
    return tile.reshape(-1, len(x) * tiles.num_outputs)


def _write(matrix: Array, tile: Array, row: int, column: int) -> Array:
    """Put a tile in its place: in place, where values are known."""
    if is_traced(tile):
        return _placed(matrix, tile, row, column)
    return _place(matrix, tile, row, column)


def _placed(matrix: Array, tile: Array, row: int, column: int) -> Array:
    return jax.lax.dynamic_update_slice(matrix, tile.astype(matrix.dtype), (row, column))


_place = jax.jit(_placed, donate_argnums=0)


def _tiles(network: Network, params: Any, x: Array, route: str) -> LayerRoute | ProductRoute:
    """Choose the route."""
    check_choice("route", route, ROUTES)
    layers = None if route == "products" else known_layers(network, params, x)
    if route == "layers" and layers is None:
        raise ValueError(
            f"route='layers' needs a stack of dense layers, but this {type(network).__name__} "
            "declares none: see finite_network's dense_stack, or use route='products'."
        )
    if layers is None:
        numbers = WORKSPACE_BYTES // jnp.result_type(x).itemsize
        return product_route(network, params, x.shape[1], numbers=numbers)
    return layers


def known_layers(network: Network, params: Any, x: Float[Array, "n d"]) -> LayerRoute | None:
    """Return the network's stack of dense layers, None if it has none.

    Raises
    ------
    ValueError
        If declared layers contradict the network's Jacobian–vector products at x.
    """
    stack = known_stack(network, params)
    if stack is None:
        return None
    layers = LayerRoute(stack)
    if isinstance(network, FiniteNetwork):
        return _checked(layers, network, params, x[:8])
    return layers


def known_stack(network: Network, params: Any) -> DenseStack | None:
    """Lay out parameters, or a tangent vector, as dense layers; None if there are none."""
    match network:
        case DenseNetwork():
            scales = [network.weight_scale] * (len(params) - 1) + [network.readout_scale]
            layers = [
                DenseLayer(
                    layer["weight"],
                    layer["bias"],
                    scale / math.sqrt(len(layer["weight"])),
                    network.bias_scale,
                )
                for layer, scale in zip(params, scales, strict=True)
            ]
            return DenseStack(layers, ACTIVATIONS[network.activation].function)
        case FiniteNetwork(stack_fn=stack_fn) if stack_fn is not None:
            return stack_fn(network.complete(params))
        case _:
            return None


def _checked(layers: LayerRoute, network: Network, params: Any, x: Array) -> LayerRoute:
    """Compare Θ v for a random v, where a wrong claim about layers or scales must show."""
    exact = linearize(network, params, x)
    v = jax.random.normal(jax.random.key(0), exact.value.shape, exact.value.dtype)
    claimed = jnp.einsum("ikjl,jl->ik", layers.tile(layers.prepare(x), x), v)
    product = exact.ntk_product(v)
    error = jnp.linalg.norm(claimed - product) / jnp.linalg.norm(product)
    wrong = ~(error <= jnp.finfo(v.dtype).eps ** 0.5)
    message = (
        "dense_stack contradicts apply_fn, their tangent kernels differ: each weight and bias must "
        "be one whole parameter, its constant factor the scale, and nothing else may be trained."
    )
    if is_traced(wrong):
        return eqx.error_if(layers, wrong, message)
    if wrong:
        raise ValueError(message)
    return layers
