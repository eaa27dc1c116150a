"""Predictors as functions of their inputs: finite differences, `jit` and `vmap`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntkbayes as nb

NETWORK = nb.dense_network(depth=1, width=8, activation="erf", bias_scale=1.0)
KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X, X_TEST = RNG.normal(size=(6, 2)), RNG.normal(size=(2, 2))
Y, LABELS = RNG.normal(size=6), (X[:, 0] > np.median(X[:, 0])).astype(int)
REGRESSION, CLASSES = (NETWORK, nb.Gaussian(0.1), X, Y), (NETWORK, nb.Categorical(2), X, LABELS)
PRECISION = {"prior_precision": 1.0}


def linearized(model, **settings):
    weak = {"prior_precision": 0.01}  # a strong one takes the classes' network to zero
    found = nb.map_estimate(*model, key=KEY, **weak)
    return nb.linearized_laplace(
        *model, params=found.params, max_newton_decrement=jnp.inf, **settings, **weak
    )


MAKERS = {
    "gp": lambda: nb.gp_posterior(*REGRESSION, **PRECISION),
    "gp inducing": lambda: nb.gp_posterior(*REGRESSION, inducing=4, **PRECISION),
    "gp classes": lambda: nb.gp_posterior(*CLASSES, **PRECISION),
    "gp classes inducing": lambda: nb.gp_posterior(*CLASSES, inducing=4, **PRECISION),
    "laplace": lambda: nb.laplace(*REGRESSION, **PRECISION),
    "laplace classes": lambda: nb.laplace(*CLASSES, **PRECISION),
    "ensemble": lambda: nb.ntk_ensemble(*REGRESSION, **PRECISION),
    "linearized weight": lambda: linearized(REGRESSION, form="weight"),
    "linearized dual": lambda: linearized(CLASSES, form="dual"),
    "linearized kron": lambda: linearized(CLASSES, hessian_structure="kron"),
    "linearized diag": lambda: linearized(REGRESSION, hessian_structure="diag"),
}
DRAWN = {
    "members": lambda: nb.ntk_ensemble(*CLASSES, **PRECISION),
    "chains": lambda: nb.hmc(
        *REGRESSION, key=KEY, num_warmup=10, num_draws=4, num_chains=1, **PRECISION
    ),
    "linearized members": lambda: nb.linearized_ensemble(
        *REGRESSION, key=KEY, num_members=2, **PRECISION
    ),
}


def check(function, x, *, rtol=1e-6):
    """Check the value and a directional derivative of a number, compiled, against finite ones."""
    value, gradient = jax.jit(jax.value_and_grad(function))(x)
    direction, h = RNG.normal(size=x.shape), 1e-5
    ahead, behind = (float(function(x + step * direction)) for step in (h, -h))
    assert float(value) == pytest.approx(float(function(x)), rel=1e-9, abs=1e-9)
    numeric = (ahead - behind) / (2 * h)
    assert abs(numeric) > 1e-3
    assert float(jnp.vdot(gradient, direction)) == pytest.approx(numeric, rel=rtol, abs=rtol)


def weighted(array):
    """A number that depends on every entry."""
    return jnp.sum(array * jnp.cos(jnp.arange(array.size)).reshape(array.shape))


@pytest.mark.parametrize("name", MAKERS)
def test_moments_can_be_differentiated_compiled_and_mapped(name):
    predictor = MAKERS[name]()

    def moments(x):
        mean, variance, covariance = (
            predictor.mean(x),
            predictor.variance(x),
            predictor.covariance(x),
        )
        return weighted(mean) + weighted(variance) + weighted(covariance)

    check(moments, X_TEST)
    one_by_one = jax.vmap(lambda x: predictor.variance(x[None])[0])(X_TEST)
    np.testing.assert_allclose(one_by_one, predictor.variance(X_TEST), atol=1e-9)
    compiled = jax.jit(predictor.mean)(X_TEST)  # takes the method, which needs a hash
    np.testing.assert_allclose(compiled, predictor.mean(X_TEST), atol=1e-9)


def test_probit_probabilities_can_be_differentiated():
    posterior = nb.laplace(*CLASSES, **PRECISION)
    check(lambda x: weighted(nb.probit_probabilities(posterior, x)), X_TEST)


@pytest.mark.parametrize("name", ["gp", "gp classes", "laplace classes", "ensemble", *DRAWN])
def test_draws_of_one_key_can_be_differentiated(name):
    predictor = (MAKERS | DRAWN)[name]()

    def drawn(x):
        return weighted(predictor.sample(KEY, x, num_draws=2))

    direction, h = RNG.normal(size=X_TEST.shape), 1e-5
    numeric = (drawn(X_TEST + h * direction) - drawn(X_TEST - h * direction)) / (2 * h)
    derivative = jnp.vdot(jax.grad(drawn)(X_TEST), direction)
    assert float(derivative) == pytest.approx(float(numeric), rel=1e-4)


def test_members_of_one_training_can_be_compiled():
    members = DRAWN["members"]().members(KEY, num_members=2)
    check(lambda x: weighted(members.evaluate(x)[0]), X_TEST)


def test_shapes_are_checked_under_transformations_and_values_where_they_are_known():
    posterior = nb.laplace(*REGRESSION, **PRECISION)
    with pytest.raises(ValueError, match=r"x must have shape \(m, 2\), but has \(1, 3\)"):
        jax.jit(posterior.mean)(jnp.zeros((1, 3)))
    with pytest.raises(ValueError, match="x must be finite"):
        posterior.mean(jnp.full((1, 2), jnp.nan))
