"""What a user's network must do: treat rows one by one, always alike, and depend on its weights."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntkbayes._types import Array, Float

__all__ = ["Tried", "check_derivatives", "check_rows"]

CALLS = ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call", "checkpoint", "remat2")
"""Primitives that do with their arguments what one inner program does."""


class Tried:
    """Sizes of inputs with which a network has been tried; equal to itself alone."""

    def __init__(self):
        self.sizes: set[int] = set()


def check_rows(apply: Callable[[Any, Array], Array], params: Any, x: Float[Array, "n d"]) -> None:
    """Raise if a row has another value alone or repeated than among others, beyond rounding."""
    together, alone = (np.asarray(apply(params, rows)) for rows in (jnp.concatenate([x, x]), x[:1]))
    first, again = np.split(together, 2)
    tolerance = float(jnp.finfo(together.dtype).eps) ** 0.5 * np.max(np.abs(together))
    # NaN and infinity are left to others.
    if np.any(np.abs(first[:1] - alone) > tolerance) or np.any(np.abs(first - again) > tolerance):
        raise ValueError(
            "apply_fn gives a row another value alone or repeated than among others: let batch "
            "normalisation use its running statistics and switch dropout off (NNX: model.eval(); "
            "Linen: train=False; Equinox: equinox.nn.inference_mode)."
        )


def check_derivatives(
    apply: Callable[[Any, Array], Array], params: Any, x: Float[Array, "n d"]
) -> None:
    """Raise if the value depends on a weight through no path that has a derivative.

    That is seen from the program, not from numbers: a weight whose derivative happens to be zero at
    these parameters passes.
    """
    leaves, structure = jax.tree.flatten(params)

    def value(leaves: list[Array], x: Array) -> Array:
        return apply(structure.unflatten(leaves), x)

    def slopes(seed: Array, leaves: list[Array], x: Array) -> list[Array]:
        return jax.vjp(lambda leaves: value(leaves, x), leaves)[1](seed)[0]

    program = jax.make_jaxpr(value)(leaves, x).jaxpr
    (used,) = _sources(program, [{index} for index in range(len(program.invars))])
    seed = jnp.zeros(program.outvars[0].aval.shape, program.outvars[0].aval.dtype)
    backward = jax.make_jaxpr(slopes)(seed, leaves, x).jaxpr
    marks: list[set[int]] = [{0}, *(set() for _ in backward.invars[1:])]
    reached = _sources(backward, marks)
    flat = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(params)]
    without = [path for i, path in enumerate(flat) if i in used and not reached[i]]
    if without:
        raise ValueError(
            f"apply_fn depends on {', '.join(without)}, but has no derivative there (stop_gradient "
            "or rounding), so that it would get a prior and never be trained: say which leaves are "
            "weights with finite_network's `weights`, or keep it in apply_fn."
        )


def _sources(program: Any, given: list[set[int]]) -> list[set[int]]:
    """Which marks of a program's inputs may reach each of its outputs."""
    known = dict(zip(program.invars, given, strict=True))

    def read(variable: Any) -> set[int]:
        # A literal holds a number, and depends on nothing.
        return set() if hasattr(variable, "val") else known.get(variable, set())

    for step in program.eqns:
        inputs = [read(variable) for variable in step.invars]
        inner = step.params.get("jaxpr", step.params.get("call_jaxpr"))
        inner = getattr(inner, "jaxpr", inner)
        if step.primitive.name in CALLS and inner is not None:
            outputs = _sources(inner, inputs)
        else:
            outputs = [set().union(*inputs)] * len(step.outvars)
        known.update(zip(step.outvars, outputs, strict=True))
    return [read(variable) for variable in program.outvars]
