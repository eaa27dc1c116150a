"""The weights that are random, as one flat vector, and the Jacobian of the network in them."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from ntkbayes._types import Array, Float, Key
from ntkbayes.networks import DenseNetwork, Network

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
    network: Network, params: Any, subset_of_weights: str | Where
) -> SelectedWeights:
    """Select ``"all"`` parameters, those of the ``"last_layer"``, or what a function picks.

    Raises
    ------
    ValueError
        If the name is unknown, the network's last layer is not known, or nothing is selected.
    """
    where = _where(network, subset_of_weights)
    if not jax.tree.leaves(where(params)):
        raise ValueError("subset_of_weights selects no parameter.")
    return SelectedWeights(network, params, where)


def _where(network: Network, subset_of_weights: str | Where) -> Where:
    if not isinstance(subset_of_weights, str):
        return subset_of_weights
    match subset_of_weights:
        case "all":
            return _everything
        case "last_layer" if isinstance(network, DenseNetwork):
            return _last
        case "last_layer":
            raise ValueError(
                f"the last layer of a {type(network).__name__} is not known: pick it by a "
                "function, such as subset_of_weights=lambda params: params.layers[-1]."
            )
        case _:
            raise ValueError(
                f"unknown subset_of_weights {subset_of_weights!r}: choose from all, last_layer, "
                "or give a function that picks a part of the parameters."
            )


def _everything(params: Any) -> Any:
    return params


def _last(params: Any) -> Any:
    return params[-1]
