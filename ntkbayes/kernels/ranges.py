"""Refuse kernels that leave the range of their floating-point type, instead of returning NaN."""

import jax.numpy as jnp

from ntkbayes._arrays import is_traced, more_digits
from ntkbayes._types import AnyArray, Array, Float

__all__ = ["check_kernel_range"]


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
    if is_traced(kernel):
        return
    limits = jnp.finfo(kernel.dtype)
    smallest = float(limits.tiny)
    if not bool(jnp.all(jnp.isfinite(kernel))):
        what = f"overflows {kernel.dtype.name}, whose largest number is {float(limits.max):.2g}"
    elif not bool(jnp.any(jnp.abs(kernel) >= smallest)) and (source != 0).any():
        what = f"underflows {kernel.dtype.name}: no entry reaches {smallest:.2g}"
    else:
        return
    raise ValueError(f"{name} {what}; {more_digits(kernel.dtype)}{remedy}.")
