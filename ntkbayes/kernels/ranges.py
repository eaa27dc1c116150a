"""Refuse kernels that leave the range of their floating-point type, instead of returning NaN."""

import jax.numpy as jnp
from jax.core import Tracer

from ntkbayes._types import AnyArray, Array, Float

__all__ = ["check_kernel_range", "or_float64"]


def check_kernel_range(
    name: str,
    kernel: Float[Array, "n m"],
    *,
    source: AnyArray,
    remedy: str,
) -> None:
    """Raise if a concrete kernel overflows, or vanishes where what it comes from does not.

    While it is traced nothing is checked.

    Parameters
    ----------
    name
        What it is, and what it was computed from.
    source
        What it was computed from: where that is zero, so may be the kernel.
    remedy
        What to change, besides the type.

    Raises
    ------
    ValueError
        With the type, and whether the kernel is too large or too small for it.
    """
    if isinstance(kernel, Tracer):
        return
    limits = jnp.finfo(kernel.dtype)
    smallest = float(limits.tiny)
    if not bool(jnp.all(jnp.isfinite(kernel))):
        what = f"overflows {kernel.dtype.name}, whose largest number is {float(limits.max):.2g}"
    elif not bool(jnp.any(jnp.abs(kernel) >= smallest)) and (source != 0).any():
        what = f"underflows {kernel.dtype.name}: no entry reaches {smallest:.2g}"
    else:
        return
    raise ValueError(f"{name} {what}; {remedy}{or_float64(kernel.dtype)}.")


def or_float64(dtype: jnp.dtype) -> str:
    """Name the wider type as a further remedy, where there is one."""
    return "" if jnp.dtype(dtype) == jnp.float64 else ", or use float64 (jax_enable_x64)"
