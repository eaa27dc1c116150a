import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from finite_models import FINITE, apply_equinox, linear_model, make_equinox
from models import classification_data, regression_data

import ntkbayes as nb


@pytest.mark.parametrize(
    "method",
    [
        nb.ntk_ensemble,
        nb.laplace,
        nb.gp_posterior,
        lambda *args, **kwargs: nb.hmc(*args, key=jax.random.key(0), **kwargs),
    ],
)
@pytest.mark.parametrize("likelihood", [nb.Gaussian(1.0, 3), nb.Categorical(3)])
def test_methods_at_infinite_width_refuse_a_finite_network(method, likelihood):
    x, y, _ = classification_data()
    with pytest.raises(ValueError, match=r"no infinite-width kernels.* linearized_ensemble"):
        method(FINITE["flax linen"], likelihood, x, likelihood.targets(jax.nn.one_hot(y, 3)),
               prior_precision=1.0)  # fmt: skip


def test_a_trained_model_can_be_passed_whole_in_place_of_its_parameters():
    network, model = FINITE["equinox"], make_equinox(jax.random.key(3))
    x = regression_data()[0]
    params = eqx.filter(model, eqx.is_array)
    np.testing.assert_array_equal(network.apply(model, x), apply_equinox(model, x))
    whole = nb.empirical_ntk(network, model, x)
    np.testing.assert_array_equal(whole, nb.empirical_ntk(network, params, x))


def test_rows_take_the_input_shape_of_the_network():
    def init(key):
        return jax.random.normal(key, (2, 3, 1))

    def apply(params, images):
        assert images.shape[1:] == (2, 3)
        return jnp.einsum("nhw,hwc->nc", images, params)

    network = nb.finite_network(init, apply, input_shape=(2, 3))
    params = network.init(jax.random.key(0), num_features=6, num_outputs=1)
    x = jax.random.normal(jax.random.key(1), (4, 6))
    np.testing.assert_allclose(network.apply(params, x), x @ params.reshape(6, 1), atol=1e-12)
    ntk = nb.empirical_ntk_trace(network, params, x)
    np.testing.assert_allclose(ntk, x @ x.T, atol=1e-12)


def test_deep_ensemble_of_a_model_linear_in_its_weights_is_ridge_regression():
    """Theory 1.2 is exact there; training stops at a relative gradient norm of 1e-6."""
    network, key = linear_model(), jax.random.key(0)
    x, y, x_test = regression_data()
    noise, precision = 0.3, 0.7
    ensemble = nb.deep_ensemble(
        network, nb.Gaussian(noise), x, y,
        prior_precision=precision, key=key, num_members=2, tolerance=1e-6,
    )  # fmt: skip
    assert float(ensemble.gradient_norm.max()) <= 1e-6
    k = np.asarray(nb.empirical_ntk_trace(network, jnp.ones(6), jnp.concatenate([x, x_test])))
    k, n = k / precision, len(x)
    trained = ensemble.sample(key, x_test, num_draws=2)[:, :, 0]
    for key_member, f in zip(jax.random.split(key, 2), trained, strict=True):
        weights = network.init(key_member, num_features=2, num_outputs=1)
        f0, f0_test = network.apply(weights, x)[:, 0], network.apply(weights, x_test)[:, 0]
        a = np.linalg.solve(k[:n, :n] + noise * np.eye(n), y - f0)
        # The gradient bounds the distance to the minimum by gradient / precision.
        np.testing.assert_allclose(f, f0_test + k[n:, :n] @ a, atol=1e-4)


def normal(key):
    return jax.random.normal(key, (2, 1))


@pytest.mark.parametrize(
    ("init", "apply", "message"),
    [
        (normal, lambda p, x: x @ p, r"apply_fn returns 1 outputs, but the likelihood needs 3"),
        (normal, lambda p, x: (x @ p)[:, 0], r"array of shape \(2, c\) on 2 inputs.*\(2,\)"),
        (normal, lambda p, x: {"f": x @ p}, r"array of shape \(2, c\).*returns dict"),
        (normal, lambda p, x: x @ p.T, r"failed on a \(2, 2\) input of float64: \w+"),
        (lambda key: {"w": normal(key), "n": jnp.arange(3)}, None, r"\['n'\] is int64"),
        (lambda key: {"w": normal(key), "key": key}, None, r"\['key'\] is key<"),
        (lambda key: {"rate": 0.5}, None, "no floating-point array"),
    ],
)
def test_impossible_finite_networks_are_refused(init, apply, message):
    with pytest.raises(ValueError, match=message):
        nb.finite_network(init, apply or (lambda p, x: x)).init(
            jax.random.key(0), num_features=2, num_outputs=3
        )
