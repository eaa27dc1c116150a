"""Refuse kernels that do not fit, before any of them is allocated."""

import math

import jax
import jax.numpy as jnp
import psutil

__all__ = ["available_bytes", "check_bytes", "check_memory"]


def available_bytes() -> int:
    """Memory that new arrays can take on JAX's default device, bytes."""
    stats = jax.devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    return psutil.virtual_memory().available


def check_memory(
    name: str,
    num_rows: int,
    num_columns: int,
    dtype: jnp.dtype,
    *,
    num_matrices: int = 1,
    remedy: str = "",
) -> None:
    """Raise if `num_matrices` dense matrices exceed the available memory; say the `remedy`.

    Raises
    ------
    ValueError
        With the estimate, what is available, and the largest square matrix that would fit.
    """
    itemsize = jnp.dtype(dtype).itemsize
    needed = num_matrices * num_rows * num_columns * itemsize
    available = available_bytes()
    if needed <= available:
        return
    fitting = math.isqrt(available // (num_matrices * itemsize))
    several = f"{num_matrices} matrices of " if num_matrices > 1 else ""
    halved = " (1.4 times as many in float32)" if itemsize == 8 else ""
    raise ValueError(
        f"{name} of {several}{num_rows} × {num_columns} numbers in {jnp.dtype(dtype).name} needs "
        f"{_readable(needed)}, but {_readable(available)} are available: "
        f"up to {fitting} × {fitting}{halved} would fit{remedy and '; ' + remedy}."
    )


def check_bytes(name: str, needed: int, *, remedy: str) -> None:
    """Raise if arrays of `needed` bytes exceed the available memory; say the `remedy`.

    Raises
    ------
    ValueError
        With the estimate and what is available.
    """
    available = available_bytes()
    if needed > available:
        raise ValueError(
            f"{name} needs {_readable(needed)}, but {_readable(available)} are available: {remedy}."
        )


def _readable(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.3g} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.3g} MB"
