"""Matrices of a function of pairs, computed tile by tile, the symmetric ones by half.

A tile small enough for the cache goes through all layers at once; only the result is written to
memory. Memory: the result and a few tiles.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntkbayes._types import Array

__all__ = ["largest_tile", "map_tiles"]


def largest_tile() -> int:
    """Rows and columns of a tile: what a core's cache holds, or what keeps an accelerator busy."""
    return 400 if jax.default_backend() == "cpu" else 2048


def map_tiles(
    function: Callable[[Any, Any], Any], rows: Any, columns: Any = None, *, size: int | None = None
) -> Any:
    """Evaluate ``function(rows, columns)`` for all pairs, tile by tile.

    Parameters
    ----------
    function
        Takes two trees of arrays with leading axes n and m, of which it may be given any part,
        and returns a tree of (n m) arrays, each entry of which depends on its own pair only.
    rows, columns
        Trees of arrays with leading axis n and m. Without `columns` the result is taken as
        symmetric: tiles above the diagonal are computed and mirrored, and it is exactly symmetric.
    size
        Largest tile; `largest_tile` if None. What fits one tile is one plain call.
    """
    size = largest_tile() if size is None else size
    symmetric = columns is None
    columns = rows if symmetric else columns
    n, m = (len(jax.tree.leaves(tree)[0]) for tree in (rows, columns))
    if max(n, m) <= size:
        tile = function(rows, columns)
        return _symmetrize_if(_is_number(tile), tile) if symmetric else tile
    height, width = _balanced(n, size), _balanced(m, size)

    @jax.checkpoint  # under reverse differentiation a tile is computed again, not kept
    def evaluate(start: Array) -> Any:
        tile = function(_cut(rows, start[0], height), _cut(columns, start[1], width))
        return _symmetrize_if(start[0] == start[1], tile) if symmetric else tile

    def write(out: Any, start: Array) -> tuple[Any, None]:
        tile = evaluate(start)
        out = _paste(out, tile, (start[0], start[1]))
        if symmetric:
            out = _paste(out, jax.tree.map(jnp.transpose, tile), (start[1], start[0]))
        return out, None

    starts = _starts((n, height), (m, width), symmetric=symmetric)
    shapes = jax.eval_shape(evaluate, jax.ShapeDtypeStruct((2,), starts.dtype))
    empty = jax.tree.map(lambda tile: jnp.zeros((n, m), tile.dtype), shapes)
    return jax.lax.scan(write, empty, jnp.asarray(starts))[0]


def _balanced(length: int, size: int) -> int:
    """Split a length into equal parts of at most about `size`, whole vector registers each."""
    parts = math.ceil(length / size)
    return min(length, 16 * math.ceil(length / parts / 16))


def _starts(rows: tuple[int, int], columns: tuple[int, int], *, symmetric: bool) -> np.ndarray:
    """First row and column of every tile; the last ones are moved back to end with the matrix.

    Row by row, so that of overlapping symmetric tiles the one on the diagonal is written last.
    """
    first, second = (
        np.minimum(np.arange(0, length, size), length - size) for length, size in (rows, columns)
    )
    pairs = np.stack(np.meshgrid(first, second, indexing="ij"), axis=-1).reshape(-1, 2)
    return (pairs[pairs[:, 0] <= pairs[:, 1]] if symmetric else pairs).astype(np.int32)


def _cut(tree: Any, start: Array, length: int) -> Any:
    return jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, length), tree)


def _paste(out: Any, tile: Any, start: tuple[Array, Array]) -> Any:
    return jax.tree.map(
        lambda whole, part: jax.lax.dynamic_update_slice(whole, part, start), out, tile
    )


def _symmetrize_if(wanted: Array, tile: Any) -> Any:
    """Average a tile with its transpose.

    The branch, which XLA cannot decide in advance, makes it keep the tile. Otherwise it would
    compute the tile anew, with other rounding, for the transpose and for each place it is written.
    """

    def average(tile: Any) -> Any:
        return jax.tree.map(lambda leaf: 0.5 * (leaf + leaf.T), tile)

    return jax.lax.cond(wanted, average, lambda tile: tile, tile)


def _is_number(tile: Any) -> Array:
    return jnp.logical_not(jnp.isnan(jax.tree.leaves(tile)[0][0, 0]))
