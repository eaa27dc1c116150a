"""Where a dense network's kernels leave the range of their floating-point type, and why.

They are finite and keep their digits where the variances of every point in every layer neither
overflow nor underflow: all that is computed for a pair is bounded by what belongs to its points.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntkbayes._arrays import is_traced, more_digits
from ntkbayes._types import AnyArray
from ntkbayes.networks.dense_kernel import Scales, Variances

__all__ = ["check_variances"]

HEADROOM = 16
"""How many times the variances of its points may stand in what is computed for a pair."""


def check_variances(
    name: str,
    x: AnyArray,
    variances: Variances,
    *,
    kinds: Sequence[str],
    scales: Scales,
    settings: Callable[[], dict[str, Any]],
) -> None:
    """Raise if a variance of a row of x overflows, or underflows so that digits are lost.

    Nothing is checked while values are traced. Costs a few operations per point and layer.

    Parameters
    ----------
    name, x
        The argument, as it was given.
    variances, kinds, scales
        What was computed for its rows, for which kernels, and with which scales.
    settings
        Of the network, for the message.

    Raises
    ------
    ValueError
        With the row, what made it so large or so small, and the remedy.
    """
    if any(is_traced(leaf) for leaf in jax.tree.leaves((x, variances, scales))):
        return
    limits = jnp.finfo(variances.inputs[0].dtype)
    given = np.asarray(x)
    inputs, outputs = np.stack(variances.inputs), np.stack(variances.outputs)
    ends = np.stack([variances.diagonal[kind] for kind in kinds])
    large = _too_large(inputs, outputs, ends, limits)
    small = _too_small(inputs, outputs, ends, limits, given, scales)
    for bad, verb, wanted, by_inputs in (
        (large, "overflow", "down", ~(inputs[0] < float(limits.max) ** 0.5)),
        (small, "underflow", "up", inputs[0] < float(limits.tiny) ** 0.5),
    ):
        if not bad.any():
            continue
        row = int(np.argmax(bad))
        more = more_digits(limits.dtype)
        remedy = f"scale the inputs {wanted}, such as by standardising them"
        if not by_inputs[row]:
            described = {k: v for k, v in settings().items() if k.endswith(("scale", "depth"))}
            remedy = "choose other scales or another depth than " + ", ".join(
                f"{key} {value:.4g}" for key, value in described.items()
            )
        raise ValueError(
            f"{name} makes the network's kernel {verb} in {limits.dtype.name} at row {row}, whose "
            f"entries reach {np.max(np.abs(given[row])):.3g}: {more}{remedy}."
        )


def _too_large(inputs: np.ndarray, outputs: np.ndarray, ends: np.ndarray, limits: Any) -> Any:
    """Rows with a variance that overflows or is NaN."""
    fits = float(limits.max) / HEADROOM
    return ~np.all(np.concatenate([inputs, outputs, ends]) < fits, axis=0)


def _too_small(
    inputs: np.ndarray,
    outputs: np.ndarray,
    ends: np.ndarray,
    limits: Any,
    x: np.ndarray,
    scales: Scales,
) -> np.ndarray:
    """Rows with a variance whose digits are lost to underflow, and matter.

    What is carried beside a variance Q is off by up to the smallest normal number t: Q keeps its
    digits above t/eps. Below, S = w² Q + b² is off by w² t, which is lost in the rounding of S if b
    is large enough. Zero inputs are exact, and so are their kernels without a bias.
    """
    zero, tiny, eps = np.all(x == 0, axis=1), float(limits.tiny), float(limits.eps)
    factors = [scales.weight] * (len(inputs) - 1) + [scales.readout]
    error = tiny * np.square(np.asarray(factors, dtype=float))
    lost = (inputs * eps < tiny) & (outputs * eps < error[:, None])
    lost[0] &= ~zero
    lost = np.concatenate([lost, np.concatenate([outputs, ends]) * eps < tiny])
    return np.any(lost, axis=0) & ~(zero & (float(scales.bias) == 0))
