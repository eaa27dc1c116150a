"""A finite network linearised at its parameters: products with J, Jᵀ and Θ = J Jᵀ, without J."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from ntkbayes._arrays import computing_dtype
from ntkbayes._types import AnyArray, Array, Float, typed
from ntkbayes.networks.base import Network
from ntkbayes.networks.finite import weights_of

__all__ = ["Linearization", "linearize"]

POWER_STEPS = 30


class Linearization(eqx.Module):
    """f(x; θ + δ) ≈ f(x; θ) + J δ at fixed inputs x (n d) and parameters θ; made by `linearize`.

    A product costs about as much as evaluating the network at the n inputs; the intermediate
    results of one evaluation stay in memory.

    Parameters
    ----------
    value
        f(x; θ).
    jvp
        δ ↦ J δ, (n c), for δ of θ's structure.
    params
        θ.
    """

    value: Float[Array, "n c"]
    jvp: Callable[[Any], Float[Array, "n c"]]
    params: Any

    def vjp(self, v: Float[Array, "n c"]) -> Any:
        """Jᵀ v, of θ's structure."""
        return jax.linear_transpose(self.jvp, self.params)(v)[0]

    def ntk_product(self, v: Float[Array, "n c"]) -> Float[Array, "n c"]:
        """Θ v = J Jᵀ v."""
        return self.jvp(self.vjp(v))

    def largest_ntk_eigenvalue(self) -> Float[Array, ""]:
        """Largest eigenvalue of Θ, estimated from below by 30 steps of the power method."""
        start = jax.random.normal(jax.random.key(0), self.value.shape, self.value.dtype)

        def step(_: int, v: Array) -> Array:
            return self.ntk_product(v / jnp.linalg.norm(v))

        return jnp.linalg.norm(jax.lax.fori_loop(0, POWER_STEPS, step, start))


@typed
def linearize(network: Network, params: Any, x: Float[AnyArray, "n d"]) -> Linearization:
    """Linearise a finite network at `params`, to first order in the parameters.

    Parameters
    ----------
    network
        Any network.
    params
        Its parameters, as from ``network.init`` or after training.
    x
        Inputs, one per row.

    Examples
    --------
    Θ v without Θ:

    >>> params = network.init(key, num_features=2, num_outputs=3)
    >>> product = nb.linearize(network, params, data.x_train).ntk_product(np.ones((20, 3)))
    >>> np.allclose(product, nb.empirical_ntk(network, params, data.x_train).sum(axis=(2, 3)))
    True
    """
    inputs = jnp.asarray(x, computing_dtype(x))
    theta = weights_of(network, params, inputs.shape[1])
    value, jvp = jax.linearize(lambda p: network.apply(p, inputs), theta)
    return Linearization(value, jvp, theta)
