"""Which leaves of a model are weights, and which it only carries along.

A network of another library is a tree of leaves, and not all of its arrays are trained. Libraries
say so in their own ways, which are followed here:

- Flax NNX: `nnx.Param` is a weight, every other variable (`nnx.BatchStat`, `nnx.RngState`, …) is
  not; a variable that stands in two places is one weight;
- Flax Linen: of a mapping's collections, ``params`` holds the weights, ``batch_stats``, ``cache``,
  ``intermediates`` and ``perturbations`` beside it do not;
- Equinox: `equinox.nn.State` and `StateIndex` are no weights, nor are NumPy arrays in a module.

What nobody speaks for is a weight if it is a floating-point array, and refused if it cannot be one
or looks like a statistic.
"""

import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ntkbayes._checks import warn_caller

__all__ = ["Leaf", "describe_leaves", "is_array", "is_floating", "is_none", "with_gaps"]

COLLECTIONS = ("batch_stats", "cache", "intermediates", "perturbations")
"""Names under which Flax keeps, beside ``params``, what is no weight."""

STATISTIC = re.compile(r"(.*?)(mean|variance|var|std)$")

REMEDY = "say which leaves are weights with finite_network's `weights`, or keep it in apply_fn"


class Leaf(NamedTuple):
    """One leaf of a model.

    Parameters
    ----------
    path
        Where it is, as JAX writes it.
    is_weight
        Whether it is trained, and has a prior.
    source
        The place of the weight that it is, its own unless the model names one weight twice; None
        for what is no weight.
    """

    path: str
    is_weight: bool
    source: int | None


def with_gaps(tree: Any) -> tuple[list[Any], Any]:
    """Flatten a tree, with a None wherever something is missing."""
    return jax.tree.flatten(tree, is_leaf=is_none)


def describe_leaves(made: Any, weights: Callable[[Any], Any] | None) -> tuple[Leaf, ...]:
    """Describe every leaf of a model as its ``init_fn`` made it, before it is copied.

    Parameters
    ----------
    made
        The model.
    weights
        Picks the weights out of it, as in `equinox.tree_at`; None for what the model itself says.

    Raises
    ------
    ValueError
        If a leaf that nobody speaks for cannot be a weight, or looks like a statistic; if `weights`
        picks something else than floating-point arrays; or if there is no weight.
    """
    places = jax.tree.leaves_with_path(made, is_leaf=is_none)
    paths = [jax.tree_util.keystr(path) for path, _ in places]
    leaves = [leaf for _, leaf in places]
    said, sources = _by_variables(made)
    if weights is None:
        for more in (_by_modules(made), _by_collections(made)):
            said = [new if word is None else word for word, new in zip(said, more, strict=True)]
        _check_unclaimed(paths, leaves, said)
        chosen = [
            is_array(leaf) and is_floating(leaf) and word is not False
            for leaf, word in zip(leaves, said, strict=True)
        ]
    else:
        chosen = _picked(made, weights, paths, leaves)
    if not any(chosen):
        raise ValueError("init_fn's result holds no floating-point array that is a parameter.")
    own = [source == index for index, source in enumerate(sources)]
    _warn_of_copies(paths, leaves, np.logical_and(chosen, own).tolist())
    # A variable in two places is one weight if either place is picked.
    first = {source for source, is_weight in zip(sources, chosen, strict=True) if is_weight}
    return tuple(
        Leaf(path, index in first, source if source in first else None)
        for index, (path, source) in enumerate(zip(paths, sources, strict=True))
    )


def _warn_of_copies(paths: list[str], leaves: list[Any], chosen: list[bool]) -> None:
    """Warn of one matrix in two places, which trees of arrays cannot say to be one weight."""
    seen: dict[int, str] = {}
    for path, leaf, is_weight in zip(paths, leaves, chosen, strict=True):
        if not is_weight or leaf.ndim < 2:
            continue
        if id(leaf) in seen:
            warn_caller(
                f"init_fn's leaves {seen[id(leaf)]} and {path} are one array, but are trained as "
                "two: let apply_fn use one of them twice (equinox.nn.Shared) to tie them."
            )
        seen[id(leaf)] = path


def is_array(leaf: Any) -> bool:
    """Whether a leaf is an array of JAX or NumPy, or stands for one."""
    return isinstance(leaf, jax.Array | np.ndarray | jax.ShapeDtypeStruct)


def is_floating(leaf: Any) -> bool:
    """Whether an array holds real floating-point numbers."""
    return jnp.issubdtype(leaf.dtype, jnp.floating)


def is_none(node: Any) -> bool:
    """Whether something is missing: JAX's trees have no leaf there."""
    return node is None


def _by_variables(made: Any) -> tuple[list[bool | None], list[int]]:
    """Return what variables say of each leaf, and the first place where each leaf stands."""
    nnx = sys.modules.get("flax.nnx")  # whoever made a model with it has imported it
    stateful = (eqx.nn.State, eqx.nn.StateIndex)
    known = stateful if nnx is None else (*stateful, nnx.Variable)
    said: list[bool | None] = []
    sources: list[int] = []
    places: dict[int, int] = {}
    for node in jax.tree.leaves(made, is_leaf=lambda n: n is None or isinstance(n, known)):
        size, here = len(with_gaps(node)[0]), len(said)
        word = None
        if isinstance(node, stateful):
            word = False
        elif nnx is not None and isinstance(node, nnx.Variable):
            word = isinstance(node, nnx.Param)
            here = places.setdefault(id(node), here)
        said += [word] * size
        sources += range(here, here + size)
    return said, sources


def _by_modules(made: Any) -> list[bool | None]:
    """Return False for NumPy arrays of Equinox modules, which `equinox.is_array` leaves out."""
    said: list[bool | None] = []
    for node in jax.tree.leaves(made, is_leaf=lambda n: n is None or isinstance(n, eqx.Module)):
        inside = isinstance(node, eqx.Module)
        leaves = with_gaps(node)[0]
        said += [False if inside and isinstance(leaf, np.ndarray) else None for leaf in leaves]
    return said


def _by_collections(made: Any) -> list[bool | None]:
    """Return what Linen's collections say; refuse one that may or may not be trained."""
    if not (isinstance(made, Mapping) and "params" in made):
        return [None] * len(with_gaps(made)[0])
    said: list[bool | None] = []
    for path, leaf in jax.tree.leaves_with_path(made, is_leaf=is_none):
        name = getattr(path[0], "key", None) if path else None
        if name in COLLECTIONS:
            said.append(False)
        elif name == "params":
            said.append(True if is_array(leaf) and is_floating(leaf) else None)
        elif is_array(leaf):
            raise ValueError(
                f"init_fn's result has a collection {name!r} beside 'params', of which it does not "
                f"say whether it is trained: {REMEDY}."
            )
        else:
            said.append(None)
    return said


def _check_unclaimed(paths: list[str], leaves: list[Any], said: list[bool | None]) -> None:
    """Refuse arrays of which nobody says what they are, and that hardly are weights."""
    unclaimed: dict[str, str] = {}
    for path, leaf, word in zip(paths, leaves, said, strict=True):
        if word is not None or not is_array(leaf):
            continue
        if not is_floating(leaf):
            raise ValueError(
                f"init_fn's result must hold real floating-point arrays only, but its leaf "
                f"{path} is {leaf.dtype}: {REMEDY}."
            )
        unclaimed[path] = path
    for path in unclaimed:
        _check_statistic(path, unclaimed)


def _check_statistic(path: str, paths: Mapping[str, str]) -> None:
    """Refuse a mean that stands beside a variance or a standard deviation of the same name."""
    parent, name, end = _split(path)
    found = STATISTIC.match(name)
    if found is None or found[2] != "mean":
        return
    for spread in ("var", "variance", "std"):
        other = f"{parent}{found[1]}{spread}{end}"
        if other in paths:
            raise ValueError(
                f"init_fn's leaves {path} and {other} look like statistics, which are no weights, "
                f"but nothing says so: {REMEDY}."
            )


def _split(path: str) -> tuple[str, str, str]:
    """Split ``"['norm']['mean']"`` or ``".norm.mean"`` before and after the last name."""
    found = re.match(r"(.*?)(\w+)(\W*)$", path)
    return ("", path, "") if found is None else (found[1], found[2], found[3])


def _picked(
    made: Any, weights: Callable[[Any], Any], paths: list[str], leaves: list[Any]
) -> list[bool]:
    """Find the leaves that `weights` picks, by their numbers in their places."""
    _, structure = with_gaps(made)
    numbered = structure.unflatten([_Number(index) for index in range(len(leaves))])
    found = jax.tree.leaves(weights(numbered), is_leaf=lambda node: isinstance(node, _Number))
    numbers = {leaf.index for leaf in found if isinstance(leaf, _Number)}
    for index in sorted(numbers):
        leaf = leaves[index]
        if is_array(leaf) and not is_floating(leaf):
            raise ValueError(
                f"weights picks the leaf {paths[index]}, which is {leaf.dtype}: only real "
                "floating-point arrays can be trained."
            )
    return [index in numbers and is_array(leaf) for index, leaf in enumerate(leaves)]


class _Number:
    """Stands for the leaf of this number."""

    def __init__(self, index: int):
        self.index = index
