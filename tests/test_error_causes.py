"""Errors say the cause that is, and no remedy that is there already."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntkbayes as nb
from ntkbayes._linalg import covariance_factor
from ntkbayes.evaluation import from_draws, leave_one_out

NETWORK = nb.dense_network(depth=1, activation="erf")
X, Y = np.ones((2, 2)), np.array([1.0, 2.0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_ridge_below_rounding_is_named_and_not_called_zero(dtype):
    """λ σ² is 1e-20, of an NTK whose smallest eigenvalue is 0."""
    with pytest.raises(ValueError, match=r"prior_precision · noise_variance = 1\.0e-20") as caught:
        nb.ntk_ensemble(
            NETWORK, nb.Gaussian(1e-20), X.astype(dtype), Y, prior_precision=1.0, initial="zero"
        )
    assert "is zero" not in str(caught.value)
    assert ("float64 (jax_enable_x64)" in str(caught.value)) == (dtype == np.float32)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_double_precision_is_no_remedy_for_double_precision(dtype):
    matrix = jnp.array([[1.0, 2.0], [2.0, 1.0]], dtype)
    with pytest.raises(ValueError, match="is not positive semidefinite") as caught:
        covariance_factor(matrix, name="K")
    assert ("use float64" in str(caught.value)) == (dtype == jnp.float32)
    moments = tuple(np.full((2, 1), value, dtype) for value in (0.0, 0.7))
    latent = np.random.default_rng(0).normal(size=(100, 2, 1))
    tree = from_draws(
        latent, nb.Gaussian(0.5), np.zeros(2), key=jax.random.key(0), method="m",
        split="train", is_posterior=True, closed_form=moments,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"it is 0\.7 and the noise variance 0\.5") as caught:
        leave_one_out(tree)
    assert ("use float64" in str(caught.value)) == (dtype == jnp.float32)


def test_targets_without_a_finite_solution_are_no_matter_of_a_precision_that_was_not_given():
    with pytest.raises(
        ValueError, match=r"training without regularisation \(prior_precision zero\)"
    ):
        nb.Categorical(2).saturated(jnp.eye(2))


def test_poisson_predictions_are_whole_numbers_or_refused_by_name():
    key, y = jax.random.key(0), np.array([3, 5])
    latent = np.log(np.array([3.0, 5.0]))[None, :, None] * np.ones((4, 1, 1))
    tree = from_draws(latent, nb.Poisson(), y, key=key, method="m")
    assert tree["posterior_predictive/y"].dtype == np.int64
    large = np.full((4, 2, 1), 35.0, np.float32)
    counts = from_draws(large, nb.Poisson(), y, key=key, method="m")["posterior_predictive/y"]
    rate = np.exp(np.float64(35))
    np.testing.assert_allclose(counts, rate, rtol=1e-6)
    with pytest.raises(ValueError, match="within reach of the Poisson likelihood, but at draw 0"):
        from_draws(100 + 0 * large, nb.Poisson(), y, key=key, method="m")
