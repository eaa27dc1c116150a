"""Predictions: what is drawn, how it is laid out, and that it survives the disk bit for bit."""

import json
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from ntkbayes.datasets import load_dataset
from ntkbayes.evaluation import (
    load_predictions,
    observations,
    pooled,
    predict,
    predictions_from_draws,
    probabilities,
    save_predictions,
)
from ntkbayes.likelihoods import Bernoulli, Categorical, Gaussian, Likelihood
from ntkbayes.predictors import Draws, GaussianPredictor, Predictor


class Numbered(Predictor):
    """Draw number s is the constant function s / 100: the order of draws shows."""

    likelihood: Likelihood
    available: int | None = eqx.field(static=True, default=None)
    chains: int = eqx.field(static=True, default=1)

    def draw(self, key, x, *, num_draws, progress=lambda fraction: None):
        progress(1.0)
        numbers = jnp.arange(num_draws) / 100
        slopes = jnp.arange(self.likelihood.num_outputs, dtype=float)
        latent = numbers[:, None, None] * jnp.ones((1, len(x), 1)) * slopes[None, None, :]
        return Draws(latent + 1.0, {"residual": numbers, "diverging": numbers > 0.02})

    @property
    def settings(self) -> dict[str, Any]:
        return {"method": "numbered", "time": float("inf"), "exact": True, "start": None}

    @property
    def num_available(self):
        return self.available

    @property
    def num_chains(self):
        return self.chains


class Normal(GaussianPredictor):
    """Independent N(x₀, 0.25) at every point."""

    likelihood: Likelihood

    def draw(self, key, x, *, num_draws, progress=lambda fraction: None):
        noise = jax.random.normal(key, (num_draws, len(x), 1))
        return Draws(self.mean(x)[None] + 0.5 * noise, {})

    def mean(self, x):
        return jnp.asarray(x)[:, :1]

    def covariance(self, x):
        return jnp.diag(self.variance(x)[:, 0])[:, None, :, None]

    def variance(self, x):
        return jnp.full((len(x), 1), 0.25)

    @property
    def settings(self):
        return {"method": "normal"}


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
    latent = tree["posterior_predictive/latent"]
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
    assert tuple(tree["posterior_predictive/output"].values) == iris.class_names
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
    assert all(type(value) in (str, int) for value in attrs.values())


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


def test_several_outputs_keep_their_dimension(sine, key):
    data = eqx.tree_at(lambda d: d.y_test, sine, jnp.stack([sine.y_test] * 2, axis=1))
    latent = jax.random.normal(key, (4, 200, 2))
    tree = predictions_from_draws(Draws(latent, {}), Gaussian(0.1, 2), data, key=key)
    assert tree["observed_data/y"].dims == ("obs_id", "output")
    assert tree["posterior_predictive/y"].dims == ("chain", "draw", "obs_id", "output")
    np.testing.assert_array_equal(pooled(tree), latent)


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


def test_predictions_survive_the_disk_bit_for_bit(iris, sine, key, tmp_path):
    trees = [
        predict(Numbered(Categorical(3), chains=2), iris, key=key, num_draws=6),
        predict(Normal(Gaussian(0.3)), sine, key=key, num_draws=3),
    ]
    for tree in trees:
        save_predictions(tree, tmp_path / "a.nc")
        loaded = load_predictions(tmp_path / "a.nc")
        assert loaded.identical(tree)
        for group in tree.subtree:
            for name, variable in group.data_vars.items():
                again = loaded[f"{group.path}/{name}"]
                assert again.dtype == variable.dtype
                assert again.values.tobytes() == variable.values.tobytes()


def test_saving_replaces_the_file_and_leaves_nothing_beside_it(iris, key, tmp_path):
    first = predict(Numbered(Categorical(3)), iris, key=key, num_draws=2)
    second = predict(Numbered(Categorical(3)), iris, key=key, num_draws=3)
    save_predictions(first, tmp_path / "a.nc")
    loaded = load_predictions(tmp_path / "a.nc")
    save_predictions(second, tmp_path / "a.nc")
    assert len(pooled(loaded)) == 2
    assert len(pooled(load_predictions(tmp_path / "a.nc"))) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["a.nc"]


def test_a_failed_save_keeps_the_older_file(iris, key, tmp_path):
    tree = predict(Numbered(Categorical(3)), iris, key=key, num_draws=2)
    save_predictions(tree, tmp_path / "a.nc")
    unsavable = tree.copy()
    unsavable.attrs["settings"] = {"a": 1}
    with pytest.raises(TypeError, match="illegal data type for attribute"):
        save_predictions(unsavable, tmp_path / "a.nc")
    assert load_predictions(tmp_path / "a.nc").identical(tree)
    assert [path.name for path in tmp_path.iterdir()] == ["a.nc"]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_half_written_file_is_refused_by_name(iris, key, tmp_path, share):
    path = tmp_path / "half.nc"
    save_predictions(predict(Numbered(Categorical(3)), iris, key=key, num_draws=50), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"half\.nc is not a readable file of predictions"):
        load_predictions(path)


def test_other_and_missing_files_are_refused(iris, key, tmp_path):
    tree = predict(Numbered(Categorical(3)), iris, key=key, num_draws=2)
    save_predictions(tree.drop_nodes(["log_likelihood"]), tmp_path / "other.nc")
    with pytest.raises(ValueError, match=r"other\.nc holds no predictions: log_likelihood missing"):
        load_predictions(tmp_path / "other.nc")
    with pytest.raises(FileNotFoundError, match=r"no file of predictions .*none\.nc"):
        load_predictions(tmp_path / "none.nc")


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


def test_draws_that_do_not_fit_or_are_not_finite_are_refused(iris, key):
    m = len(iris.y_test)
    with pytest.raises(ValueError, match=rf"shape \(s, {m}, 3\) for the test split of iris"):
        predictions_from_draws(Draws(jnp.ones((2, 5, 3)), {}), Categorical(3), iris, key=key)
    broken = jnp.ones((2, m, 3)).at[1, 0, 2].set(jnp.nan)
    with pytest.raises(ValueError, match=r"draws.latent must be finite.*index \(1, 0, 2\)"):
        predictions_from_draws(Draws(broken, {}), Categorical(3), iris, key=key)


def test_an_empty_split_is_refused(iris, key):
    data = eqx.tree_at(lambda d: d.x_test, iris, iris.x_test[:0])
    with pytest.raises(ValueError, match="x_test is empty"):
        predict(Numbered(Categorical(3)), data, key=key, num_draws=2)


def test_class_probabilities_of_a_regression_are_refused(sine, key):
    tree = predict(Normal(Gaussian(0.3)), sine, key=key, num_draws=2)
    with pytest.raises(ValueError, match="need a classification task, but sine is regression"):
        probabilities(tree)


def test_one_logit_predicts_what_two_logits_of_the_same_difference_do():
    data = load_dataset("moons", seed=0, num_train=20)
    logit = jax.random.normal(jax.random.key(0), (6, len(data.x_test), 1))
    two = jnp.concatenate([-0.5 * logit, 0.5 * logit], axis=-1)
    trees = [
        predictions_from_draws(Draws(latent, {}), likelihood, data, key=jax.random.key(1))
        for likelihood, latent in ((Bernoulli(), logit), (Categorical(2), two))
    ]
    np.testing.assert_allclose(*(probabilities(tree) for tree in trees), atol=1e-15)
    np.testing.assert_allclose(*(pooled(t, "log_likelihood/y") for t in trees), atol=1e-14)
