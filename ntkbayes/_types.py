"""Array types and the run-time shape check shared by every public function.

Dimension letters: ``n`` training points, ``m`` test points, ``d`` features, ``c`` outputs,
``s`` draws, ``p`` parameters.
"""

from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, PRNGKeyArray

from ntkbayes._typed import typed

__all__ = [
    "AnyArray",
    "Array",
    "Bool",
    "Float",
    "Int",
    "Key",
    "OnProgress",
    "Progress",
    "silent",
    "typed",
]

Array = jax.Array
AnyArray = jax.Array | np.ndarray
Key = PRNGKeyArray

Progress = Callable[[float], None]
"""Called with the finished fraction (0 to 1) of a long computation."""

OnProgress = Callable[[str, float, float], None]
"""Called with what is being done, and the finished fractions of the whole and of this step."""


def silent(fraction: float) -> None:
    """Ignore the progress of a computation; the default `Progress`."""
