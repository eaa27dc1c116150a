"""Finite networks of several libraries, and their Jacobian the plain way."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import ntkbayes as nb
from ntkbayes.networks import DenseLayer, DenseStack

NUM_FEATURES, NUM_OUTPUTS = 2, 3


class LinenMLP(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(NUM_OUTPUTS)(nn.tanh(nn.Dense(12)(x)))


def make_nnx(rngs):
    hidden = nnx.Linear(NUM_FEATURES, 12, rngs=rngs)
    return nnx.Sequential(hidden, nnx.gelu, nnx.Linear(12, NUM_OUTPUTS, rngs=rngs))


def make_equinox(key):
    return eqx.nn.MLP(NUM_FEATURES, NUM_OUTPUTS, width_size=12, depth=2, key=key)


def apply_equinox(model, x):
    return jax.vmap(model)(x)


def equinox_stack(model):
    layers = [DenseLayer(layer.weight.T, layer.bias) for layer in model.layers]
    return DenseStack(layers, model.activation)


LINEN = LinenMLP()
NNX_GRAPH, _ = nnx.split(make_nnx(nnx.Rngs(0)))
FINITE = {
    "equinox": nb.finite_network(make_equinox, apply_equinox, dense_stack=equinox_stack),
    "flax linen": nb.finite_network(
        lambda key: LINEN.init(key, jnp.zeros((1, NUM_FEATURES))), LINEN.apply
    ),
    "flax nnx": nb.finite_network(
        lambda key: nnx.state(make_nnx(nnx.Rngs(key)), nnx.Param),
        lambda state, x: nnx.merge(NNX_GRAPH, state)(x),
    ),
}
"""One network of each library, with parameters of float32 as the libraries make them."""


def linear_model(num_weights=6):
    """Fixed random features times weights: its kernel is the same for all parameters."""
    features = jax.random.normal(jax.random.key(5), (NUM_FEATURES, num_weights))

    def apply(weights, x):
        return jnp.tanh(x @ features) @ weights[:, None]

    return nb.finite_network(lambda key: jax.random.normal(key, (num_weights,)), apply)


def double(params):
    return jax.tree.map(lambda leaf: leaf.astype(float), params)


@eqx.filter_jit
def _jacobian(network, params, x):
    return jax.jacobian(lambda p: network.apply(p, x))(params)


def jacobian(network, params, x):
    """∂f/∂θ as one matrix (n, c, p)."""
    tree = _jacobian(network, params, x)
    leaves = [leaf.reshape(*leaf.shape[:2], -1) for leaf in jax.tree.leaves(tree)]
    return np.concatenate(leaves, axis=2)


def explicit_ntk(network, params, x1, x2):
    return np.einsum("ikp,jlp->ikjl", jacobian(network, params, x1), jacobian(network, params, x2))
