"""The law of the initial function f₀ ~ GP(0, Q₀)."""

import jax.numpy as jnp

from ntkbayes._types import Array
from ntkbayes.networks import KernelPair

__all__ = ["INITIAL_FUNCTIONS", "initial_kernel"]

INITIAL_FUNCTIONS = ("nngp", "ntk", "zero")


def initial_kernel(kernel: KernelPair, initial: str, prior_precision: float) -> Array:
    """Q₀: Q for ``"nngp"``, Θ / λ for ``"ntk"``, 0 for ``"zero"``."""
    match initial:
        case "nngp":
            return kernel.nngp
        case "ntk":
            return kernel.ntk / prior_precision
        case _:
            return jnp.zeros_like(kernel.ntk)
