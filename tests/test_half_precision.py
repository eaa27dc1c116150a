"""Half precision on the way in: computed in JAX's default floating type, by every method."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import ntkbayes as nb

NETWORK = nb.dense_network(depth=1, width=8, activation="erf", bias_scale=0.5)
KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X, Y, X_TEST = RNG.normal(size=(8, 2)), RNG.normal(size=8), RNG.normal(size=(3, 2))
LABELS = np.arange(8) % 2
PRECISION = {"prior_precision": 1.0}
METHODS = {
    "ntk": lambda x, y, t: NETWORK.ntk(x, t),
    "gp": lambda x, y, t: nb.gp_posterior(NETWORK, nb.Gaussian(0.1), x, y, **PRECISION).mean(t),
    "laplace": lambda x, y, t: nb.laplace(NETWORK, nb.Gaussian(0.1), x, y, **PRECISION).variance(t),
    "ensemble": lambda x, y, t: nb.ntk_ensemble(
        NETWORK, nb.Gaussian(0.1), x, y, **PRECISION
    ).variance(t),
    "classes": lambda x, y, t: nb.laplace(NETWORK, nb.Categorical(2), x, LABELS, **PRECISION).mean(
        t
    ),
    "networks": lambda x, y, t: nb.map_estimate(
        NETWORK, nb.Gaussian(0.1), x, y, key=KEY, **PRECISION
    ).params[0]["weight"],
    "empirical ntk": lambda x, y, t: nb.empirical_ntk(
        NETWORK, NETWORK.init(KEY, num_features=2, num_outputs=1), x, t
    ),
}


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("name", METHODS)
def test_every_method_computes_half_precision_in_full(name, dtype):
    """Right: what comes out when the same numbers are given in double precision."""
    half = [each.astype(dtype) for each in (X, Y, X_TEST)]
    double = [each.astype(float) for each in half]
    wanted = np.asarray(METHODS[name](*double))
    found = np.asarray(METHODS[name](*half))
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, wanted)


def test_half_and_double_precision_may_be_mixed():
    x, y = jnp.asarray(X, jnp.float16), jnp.asarray(Y, jnp.bfloat16)
    model = NETWORK, nb.Gaussian(0.1)
    wanted = nb.laplace(*model, np.asarray(x, float), np.asarray(y, float), **PRECISION).mean(
        X_TEST
    )
    np.testing.assert_array_equal(nb.laplace(*model, x, y, **PRECISION).mean(X_TEST), wanted)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_predictions_in_half_precision_are_kept_in_single(dtype, tmp_path):
    """netCDF has no type for them."""
    latent, stats = RNG.normal(size=(5, 8, 1)).astype(dtype), {"residual": np.ones(5, dtype)}
    tree = nb.from_draws(
        latent, nb.Gaussian(0.1), Y.astype(dtype), key=KEY, method="m", x=X.astype(dtype),
        stats=stats, closed_form=(latent[0], latent[0] ** 2),
    )  # fmt: skip
    tree.to_netcdf(tmp_path / "tree.nc")
    np.testing.assert_array_equal(tree["posterior/latent"][0], latent.astype(np.float32))
    for name in ("observed_data/y", "constant_data/x", "sample_stats/residual", "closed_form/mean"):
        assert tree[name].dtype == np.float32
