"""The weights that are random, as one flat vector, and the Jacobian of the network in them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from ntkbayes._types import Array, Float, Key
from ntkbayes.networks import Network, known_layers, known_stack

__all__ = ["SelectedWeights", "select_weights"]

Where = Callable[[Any], Any]


class SelectedWeights(Network):
    """A network as a function of the flat vector θ (p) of some of its parameters.

    Attributes
    ----------
    network, params
        The network, and all its parameters.
    where
        Picks the selected part out of ``params``, as in `equinox.tree_at`.
    """

    network: Network
    params: Any
    where: Where = eqx.field(static=True)

    @property
    def theta(self) -> Float[Array, "p"]:
        """θ̂, the selected parameters."""
        return ravel_pytree(self.where(self.params))[0]

    @property
    def selects_all(self) -> bool:
        """Whether every parameter is selected."""
        return self.theta.size == sum(leaf.size for leaf in jax.tree.leaves(self.params))

    def complete(self, theta: Float[Array, "p"]) -> Any:
        """Put θ among the parameters that stay fixed."""
        _, unravel = ravel_pytree(self.where(self.params))
        return eqx.tree_at(self.where, self.params, unravel(theta))

    def embed(self, v: Float[Array, "p"]) -> Any:
        """Parameters that are v where they are selected and 0 elsewhere."""
        _, unravel = ravel_pytree(self.where(self.params))
        return eqx.tree_at(self.where, jax.tree.map(jnp.zeros_like, self.params), unravel(v))

    def init(self, key: Key, *, num_features: int, num_outputs: int) -> Float[Array, "p"]:
        """θ̂: a selection has no other parameters than those it was made with."""
        return self.theta

    def apply(self, params: Float[Array, "p"], x: Float[Array, "n d"]) -> Float[Array, "n c"]:
        """Evaluate the network with θ = `params` at each row of x."""
        return self.network.apply(self.complete(params), x)

    def settings(self) -> dict[str, Any]:
        """Architecture, and the number of selected parameters."""
        return {**self.network.settings(), "num_selected": self.theta.size}

    def jacobian(self, x: Float[Array, "b d"]) -> Float[Array, "b c p"]:
        """J at each row of x: b · c · p numbers."""

        def one_point(row: Float[Array, "d"]) -> Float[Array, "c p"]:
            return jax.jacrev(lambda theta: self.apply(theta, row[None])[0])(self.theta)

        return jax.vmap(one_point)(x)


def select_weights(
    network: Network,
    params: Any,
    subset_of_weights: str | Where,
    x: Float[Array, "n d"] | None = None,
) -> SelectedWeights:
    """Select ``"all"`` parameters, those of the ``"last_layer"``, or what a function picks.

    The last layer is that of the network's dense stack, which is checked at some inputs x.

    Raises
    ------
    ValueError
        If the name is unknown, the network's last layer is not known, or nothing is selected.
    """
    where = _where(network, params, subset_of_weights, x)
    if not jax.tree.leaves(where(params)):
        raise ValueError("subset_of_weights selects no parameter.")
    return SelectedWeights(network, params, where)


def _where(network: Network, params: Any, subset_of_weights: str | Where, x: Array | None) -> Where:
    if not isinstance(subset_of_weights, str):
        return subset_of_weights
    match subset_of_weights:
        case "all":
            return _everything
        case "last_layer":
            if x is not None:
                known_layers(network, params, x)  # checks what the network declares
            return _last_layer(network, params)
        case _:
            raise ValueError(
                f"unknown subset_of_weights {subset_of_weights!r}: choose from all, last_layer, "
                "or give a function that picks a part of the parameters."
            )


def _everything(params: Any) -> Any:
    return params


class _Leaves(NamedTuple):
    """Picks the leaves with these numbers; equal to another that picks the same."""

    numbers: tuple[int, ...]

    def __call__(self, params: Any) -> list[Any]:
        leaves = jax.tree.leaves(params)
        return [leaves[number] for number in self.numbers]


def _last_layer(network: Network, params: Any) -> Where:
    """Find the leaves of the last layer, by giving every entry of a leaf the leaf's number."""
    leaves, structure = jax.tree.flatten(params)
    numbered = [jnp.full_like(leaf, number) for number, leaf in enumerate(leaves)]
    stack = known_stack(network, structure.unflatten(numbered))
    if stack is None:
        raise ValueError(
            f"the last layer of a {type(network).__name__} is not known: declare finite_network's "
            "dense_stack, or pick it by a function, such as "
            "subset_of_weights=lambda params: params.layers[-1]."
        )
    last = stack.layers[-1]
    parts = [last.weight] if last.bias is None else [last.weight, last.bias]
    return _Leaves(tuple(sorted(int(part.ravel()[0]) for part in parts)))
