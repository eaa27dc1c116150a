"""What arrays become on the way in: the type that is computed in, and rows of class indices."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

__all__ = ["cast", "computing_dtype", "is_traced", "more_digits", "one_hot"]


def is_traced(array: Any) -> bool:
    """Whether an array stands for values not known yet: under `jit`, `grad` or `vmap`."""
    return isinstance(array, Tracer)


def computing_dtype(*arrays: Any) -> jnp.dtype:
    """Floating type that arrays are computed with together: the widest among them.

    JAX's default floating type where none is floating, and where the widest has less than single
    precision (float16, bfloat16): kernels would be off by percents in it, and no factorisation
    takes it.
    """
    dtype = jnp.result_type(*arrays)
    if jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize >= 4:
        return dtype
    return jnp.result_type(float)


def cast[T](tree: T, dtype: Any) -> T:
    """Bring the floating-point arrays of a tree to another type."""
    return jax.tree.map(
        lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, tree
    )


def more_digits(dtype: Any) -> str:
    """Begin a remedy with more digits, where there are more: in double precision it is empty."""
    return "" if jnp.dtype(dtype).itemsize >= 8 else "use float64 (jax_enable_x64) or "


def one_hot(labels: Any, num_classes: int) -> np.ndarray:
    """Return rows (n c) with a one at each label; memory n c numbers, where ``eye(c)`` has c²."""
    values = np.asarray(labels)
    rows = np.zeros((len(values), num_classes))
    rows[np.arange(len(values)), values] = 1
    return rows
