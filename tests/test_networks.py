import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntkbayes as nb
from ntkbayes.networks.neural_tangents import stax

X1 = jax.random.normal(jax.random.key(0), (6, 3))
X2 = jax.random.normal(jax.random.key(1), (4, 3))


def stax_twin(activation):
    layers = []
    for _ in range(3):
        layers += [stax.Dense(1, 1.3, 0.2), {"relu": stax.Relu, "erf": stax.Erf}[activation]()]
    return nb.stax_network(stax.serial(*layers, stax.Dense(2, 1.0, 0.2)))


@pytest.mark.parametrize("activation", ["relu", "erf"])
@pytest.mark.parametrize("x2", [None, X2])
def test_kernels_equal_neural_tangents(activation, x2):
    ours = nb.dense_network(depth=3, activation=activation, weight_scale=1.3, bias_scale=0.2)
    kernel, other = ours.kernel(X1, x2), stax_twin(activation).kernel(X1, x2)
    np.testing.assert_allclose(kernel.nngp, other.nngp, atol=1e-10)
    np.testing.assert_allclose(kernel.ntk, other.ntk, atol=1e-10)


@pytest.mark.parametrize("activation", ["relu", "erf"])
def test_kernels_are_the_moments_of_finite_networks(activation):
    """Mean over random networks of f fᵀ and of J Jᵀ, within 5 standard errors plus O(1/width)."""
    network = nb.dense_network(depth=2, width=256, activation=activation, bias_scale=0.4)

    def one_network(key):
        params = network.init(key, num_features=3, num_outputs=1)
        f = network.apply(params, X1)[:, 0]
        jacobian = jax.jacobian(lambda p: network.apply(p, X1)[:, 0])(params)
        flat = jnp.concatenate([leaf.reshape(6, -1) for leaf in jax.tree.leaves(jacobian)], axis=1)
        return jnp.outer(f, f), flat @ flat.T

    covariances, tangents = jax.lax.map(one_network, jax.random.split(jax.random.key(2), 600))
    kernel = network.kernel(X1)
    for samples, exact in ((covariances, kernel.nngp), (tangents, kernel.ntk)):
        error = samples.std(axis=0) / np.sqrt(len(samples))
        width_bias = 2 / 256 * np.asarray(exact).max()
        assert np.all(np.abs(samples.mean(axis=0) - exact) < 5 * error + width_bias)


def test_float32_kernels_of_repeated_and_zero_inputs_are_finite_and_symmetric():
    x = jnp.concatenate([X1, X1[:2], jnp.zeros((1, 3))]).astype(jnp.float32)
    kernel = nb.dense_network(bias_scale=0.0).kernel(x)
    assert kernel.ntk.dtype == jnp.float32
    assert np.all(np.isfinite(kernel.ntk))
    np.testing.assert_array_equal(kernel.ntk, kernel.ntk.T)
    # A repeated input's kernel is its diagonal; ReLU's angle loses √eps there.
    np.testing.assert_allclose(kernel.ntk[0, 6], kernel.ntk[0, 0], rtol=5 * 3.5e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depth": 0}, "depth must be at least 1"),
        ({"activation": "rleu"}, "did you mean relu"),
        ({"weight_scale": -1.0}, "weight_scale must be positive"),
    ],
)
def test_impossible_networks_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        nb.dense_network(**settings)


def test_kernel_refuses_nan():
    with pytest.raises(ValueError, match="x1 must be finite"):
        nb.dense_network().kernel(X1.at[2, 1].set(jnp.nan))


def test_stax_network_with_other_outputs_than_the_likelihood_is_refused():
    with pytest.raises(ValueError, match="has 2 outputs, but the likelihood needs 5"):
        stax_twin("relu").init(jax.random.key(0), num_features=3, num_outputs=5)
