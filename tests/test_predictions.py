"""Predictions: what is drawn, and how it is laid out."""

import json
from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from simple_predictors import Normal, Numbered

import ntkbayes as nb
from ntkbayes._types import silent
from ntkbayes.datasets import load_dataset
from ntkbayes.evaluation import (
    from_draws,
    observations,
    pooled,
    predict,
    probabilities,
)
from ntkbayes.likelihoods import Bernoulli, Categorical, Gaussian
from ntkbayes.methods import METHODS, Problem


@pytest.fixture(scope="module")
def iris():
    return load_dataset("iris")


@pytest.fixture(scope="module")
def sine():
    return load_dataset("sine")


@pytest.fixture
def key():
    return jax.random.key(0)


def test_draws_are_laid_out_chain_by_chain(iris, key):
    tree = predict(Numbered(Categorical(3), chains=2), iris, key=key, num_draws=6)
    latent = tree["posterior/latent"]
    assert latent.dims == ("chain", "draw", "obs_id", "output")
    found = 100 * (latent.isel(obs_id=0, output=1).values - 1)
    np.testing.assert_allclose(found, [[0, 1, 2], [3, 4, 5]], atol=1e-12)
    residual = tree["sample_stats/residual"].values
    np.testing.assert_allclose(100 * residual, [[0, 1, 2], [3, 4, 5]], atol=1e-12)
    np.testing.assert_allclose(pooled(tree)[:, 0, 1] - 1, np.arange(6) / 100)


def test_groups_hold_the_split_and_its_names(iris, key):
    tree = predict(Numbered(Categorical(3)), iris, key=key, num_draws=2, split="val")
    np.testing.assert_array_equal(tree["constant_data/x"], iris.x_val)
    np.testing.assert_array_equal(tree["observed_data/y"], iris.y_val)
    assert tuple(tree["posterior/output"].values) == iris.class_names
    assert tuple(tree["constant_data/feature"].values) == iris.feature_names
    assert "closed_form" not in tree.children


def test_attributes_say_what_was_predicted_in_types_netcdf_knows(iris, key):
    tree = predict(Numbered(Categorical(3)), iris, key=key, num_draws=2, method="mine")
    attrs = tree.attrs
    assert (attrs["method"], attrs["dataset"], attrs["split"]) == ("mine", "iris", "test")
    assert (attrs["task"], attrs["num_chains"]) == ("classification", 1)
    expected = {"method": "numbered", "time": np.inf, "exact": True, "start": None}
    assert json.loads(attrs["settings"]) == expected
    assert json.loads(attrs["likelihood"]) == {"name": "Categorical", "num_outputs": 3}
    assert attrs["jax_version"] == jax.__version__
    assert attrs["is_posterior"] == 0
    assert all(type(value) in (str, int) for value in attrs.values())


def test_points_are_the_rows_of_the_split_and_classes_have_names_for_one_logit_too(iris, key):
    tree = predict(Numbered(Categorical(3)), iris, key=key, num_draws=2)
    np.testing.assert_array_equal(tree["observed_data/obs_id"], np.arange(len(iris.y_test)))
    moons = load_dataset("moons", num_train=20)
    tree = predict(Numbered(Bernoulli()), moons, key=key, num_draws=2)
    assert tree["posterior/output"].values.tolist() == [moons.class_names[1]]


POSTERIOR = {
    "bayesian-ntk-ensemble": ("regression",),
    **dict.fromkeys(("laplace", "gp", "hmc"), "*"),
}
"""Tasks in which each method draws from a posterior; all others never do."""


@pytest.mark.parametrize("task", ["regression", "classification"])
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.slow
def test_a_tree_says_whether_its_draws_are_from_a_posterior(name, task, sine, iris, key):
    data, likelihood = (sine, Gaussian(0.3)) if task == "regression" else (iris, Categorical(3))
    rows = slice(0, None, max(1, len(data.x_train) // 12))
    data = eqx.tree_at(
        lambda d: (d.x_train, d.y_train), data, (data.x_train[rows], data.y_train[rows])
    )
    network = nb.dense_network(depth=1, width=8, activation="erf")
    chains = {"num_draws": 4, "num_warmup": 4, "num_chains": 1, "num_members": 2}
    problem = Problem(data, network, likelihood, prior_precision=3.0, **chains)
    predictor = METHODS[name].fit(problem, key, silent)
    tree = predict(predictor, data, key=key, num_draws=1)
    assert tree.attrs["is_posterior"] == int(POSTERIOR.get(name, ()) in ("*", (task,)))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"initial": "ntk", "perturb_targets": True}, True),
        ({"initial": "ntk", "perturb_targets": True, "time": 5.0}, False),
        ({"initial": "ntk"}, False),
        ({"initial": "nngp", "perturb_targets": True}, False),
    ],
)
def test_only_randomised_maximum_a_posteriori_trained_to_the_end_is_a_posterior(
    sine, settings, expected
):
    model = (nb.dense_network(depth=1, width=8), Gaussian(0.3), sine.x_train[:9], sine.y_train[:9])
    assert nb.ntk_ensemble(*model, prior_precision=1.0, **settings).is_posterior is expected
    if "time" not in settings:
        linearized = nb.linearized_ensemble(
            *model, prior_precision=1.0, num_members=1, key=jax.random.key(0), **settings
        )
        assert linearized.is_posterior is expected


def test_log_likelihood_of_classes_is_the_log_of_softmax_at_the_label(iris, key):
    tree = predict(Numbered(Categorical(3)), iris, key=key, num_draws=5)
    latent, y = pooled(tree), np.asarray(iris.y_test)
    expected = scipy.special.log_softmax(latent, axis=-1)[:, np.arange(len(y)), y]
    np.testing.assert_allclose(pooled(tree, "log_likelihood/y"), expected, rtol=1e-12)


def test_log_likelihood_of_values_is_the_normal_density(sine, key):
    tree = predict(Normal(Gaussian(0.3)), sine, key=key, num_draws=5)
    y = np.asarray(sine.y_test)
    expected = scipy.stats.norm.logpdf(y, pooled(tree)[:, :, 0], np.sqrt(0.3))
    np.testing.assert_allclose(pooled(tree, "log_likelihood/y"), expected, rtol=1e-10)


def test_observation_draws_have_the_predictive_frequencies(iris, key):
    tree = predict(Numbered(Categorical(3)), iris, key=key, num_draws=200)
    labels, expected = pooled(tree, "posterior_predictive/y"), probabilities(tree).mean(axis=(0, 1))
    frequencies = np.bincount(labels.ravel(), minlength=3) / labels.size
    error = np.sqrt(expected * (1 - expected) / labels.size)
    assert np.all(np.abs(frequencies - expected) < 4 * error)
    assert labels.dtype.kind == "i"


def test_observation_draws_add_the_noise_to_the_latent_draws(sine, key):
    tree = predict(Normal(Gaussian(0.3)), sine, key=key, num_draws=500)
    noise = pooled(tree, "posterior_predictive/y") - pooled(tree)[..., 0]
    assert abs(noise.mean()) < 4 * np.sqrt(0.3 / noise.size)
    assert abs(noise.var() - 0.3) < 4 * 0.3 * np.sqrt(2 / noise.size)


def test_a_gaussian_predictor_with_gaussian_noise_keeps_its_closed_form(sine, key):
    tree = predict(Normal(Gaussian(0.3)), sine, key=key, num_draws=5)
    np.testing.assert_array_equal(tree["closed_form/mean"], np.asarray(sine.x_test)[:, :1])
    np.testing.assert_array_equal(tree["closed_form/variance"], np.full((200, 1), 0.25))
    assert tree["posterior_predictive/y"].dims == ("chain", "draw", "obs_id")
    assert observations(tree).shape == (200, 1)


def test_ensembles_from_finite_initial_networks_have_draws_and_no_closed_form(sine, key):
    ensemble = nb.ntk_ensemble(
        nb.dense_network(depth=1, width=8), Gaussian(0.3), sine.x_train[:9], sine.y_train[:9],
        prior_precision=1.0, initial_functions="networks",
    )  # fmt: skip
    tree = predict(ensemble, sine, key=key, num_draws=5)
    assert "closed_form" not in tree.children
    assert np.all(pooled(tree).std(axis=0) > 0)


def test_several_outputs_keep_their_dimension(key):
    y, latent = np.arange(10.0).reshape(5, 2), jax.random.normal(key, (4, 5, 2))
    tree = from_draws(
        latent, Gaussian(0.1, 2), y, key=key, method="mine", output_names=["mass", "charge"]
    )
    assert tree["observed_data/y"].dims == ("obs_id", "output")
    assert tree["posterior_predictive/y"].dims == ("chain", "draw", "obs_id", "output")
    assert tree["posterior/output"].values.tolist() == ["mass", "charge"]
    np.testing.assert_array_equal(pooled(tree), latent)


@pytest.mark.parametrize("last_layer", [False, True])
@pytest.mark.slow
def test_outputs_that_share_uncertain_weights_are_known_to_be_correlated(key, last_layer):
    x = jax.random.normal(key, (6, 2))
    y = jnp.stack([jnp.sin(x[:, 0]), x[:, 1] ** 2], axis=1)
    network = nb.dense_network(depth=1, width=4, activation="erf")
    model = (network, Gaussian(0.1, 2), x, y)
    params = nb.map_estimate(*model, prior_precision=1.0, key=key).params
    predictor = nb.linearized_laplace(
        *model,
        prior_precision=1.0,
        params=params,
        subset_of_weights="last_layer" if last_layer else "all",
    )
    data = SimpleNamespace(x_test=x, y_test=y, name="two", feature_names=("a", "b"))
    tree = predict(predictor, data, key=key, num_draws=2)
    assert tree["closed_form"].attrs["independent_outputs"] == int(last_layer)


def test_the_same_key_gives_the_same_predictions_and_another_key_others(sine, key):
    first, second = (predict(Normal(Gaussian(0.3)), sine, key=key, num_draws=3) for _ in "ab")
    assert first.identical(second)
    other = predict(Normal(Gaussian(0.3)), sine, key=jax.random.key(1), num_draws=3)
    assert not first.equals(other)


def test_all_distinct_draws_are_taken_by_default(iris, key):
    tree = predict(Numbered(Categorical(3), available=8, chains=2), iris, key=key)
    assert len(pooled(tree)) == 8
    assert len(pooled(predict(Numbered(Categorical(3)), iris, key=key))) == 1000


def test_test_labels_of_one_class_are_fine(iris, key):
    data = eqx.tree_at(lambda d: d.y_test, iris, jnp.ones_like(iris.y_test))
    tree = predict(Numbered(Categorical(3)), data, key=key, num_draws=2)
    expected = scipy.special.log_softmax(pooled(tree), axis=-1)[..., 1]
    np.testing.assert_allclose(pooled(tree, "log_likelihood/y"), expected)


def test_probabilities_are_the_softmax_of_every_draw(iris, key):
    tree = predict(Numbered(Categorical(3), chains=2), iris, key=key, num_draws=4)
    exponentials = np.exp(pooled(tree))
    expected = exponentials / exponentials.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(probabilities(tree), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_draws": 0}, "num_draws must be at least 1, but is 0"),
        ({"num_draws": 9}, r"num_draws is 9, but this predictor has only 8 distinct draw\(s\)"),
        ({"num_draws": 7}, "num_draws must be a multiple of the 2 chains, but is 7; 6 would do"),
        ({"split": "tests"}, "unknown split 'tests': did you mean test"),
    ],
)
def test_impossible_requests_are_refused(iris, key, settings, message):
    predictor = Numbered(Categorical(3), available=8, chains=2)
    with pytest.raises(ValueError, match=message):
        predict(predictor, iris, key=key, **settings)


def test_an_empty_split_is_refused(iris, key):
    data = eqx.tree_at(lambda d: d.x_test, iris, iris.x_test[:0])
    with pytest.raises(ValueError, match="x_test has no points"):
        predict(Numbered(Categorical(3)), data, key=key, num_draws=2)


def test_what_is_no_dataset_or_no_predictor_is_refused(iris, key):
    with pytest.raises(
        ValueError, match=r"data must be a Dataset or have .*, but this ArrayImpl lacks x_test"
    ):
        predict(Numbered(Categorical(3)), iris.x_test, key=key, num_draws=2)
    with pytest.raises(TypeError, match="predictor must be Predictor, but is Dataset"):
        predict(iris, iris, key=key, num_draws=2)
    with pytest.raises(TypeError, match="key must be random key, but is int 0"):
        predict(Numbered(Categorical(3)), iris, key=0, num_draws=2)
