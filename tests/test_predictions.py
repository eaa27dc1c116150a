"""Predictions: what is drawn, how it is laid out, and what another tool may hand over."""

import json
from types import SimpleNamespace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

import ntkbayes as nb
from ntkbayes._types import silent
from ntkbayes.datasets import load_dataset
from ntkbayes.evaluation import (
    from_draws,
    from_probabilities,
    observations,
    pooled,
    predict,
    probabilities,
)
from ntkbayes.likelihoods import Bernoulli, Categorical, Gaussian, Likelihood
from ntkbayes.methods import METHODS, Problem
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
    data = SimpleNamespace(
        x_test=x, y_test=y, name="two", task="regression", target_name="y", feature_names=("a", "b")
    )
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
    with pytest.raises(ValueError, match="x_test is empty"):
        predict(Numbered(Categorical(3)), data, key=key, num_draws=2)


LABELS = np.array([0, 2, 1, 1])


def draws(*shape, seed=0, dtype=float):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def test_draws_of_another_tool_need_no_training_data(key):
    latent = draws(6, 4, 3)
    tree = from_draws(
        latent, Categorical(3), LABELS, key=key, method="theirs", num_chains=2, x=draws(4, 2, 2),
        obs_ids=["a", "b", "c", "d"], output_names=["cat", "dog", "cow"], dataset="pets",
        split="train", stats={"diverging": np.zeros(6, bool)}, settings={"lr": np.float32(0.5)},
        is_posterior=True,
    )  # fmt: skip
    np.testing.assert_array_equal(tree["posterior/latent"], latent.reshape(2, 3, 4, 3))
    expected = scipy.special.log_softmax(latent, axis=-1)[:, np.arange(4), LABELS]
    np.testing.assert_allclose(pooled(tree, "log_likelihood/y"), expected, rtol=1e-12)
    assert tree["posterior/output"].values.tolist() == ["cat", "dog", "cow"]
    assert tree["observed_data/obs_id"].values.tolist() == ["a", "b", "c", "d"]
    assert tree["constant_data/x"].shape == (4, 4)
    assert tree["sample_stats/diverging"].shape == (2, 3)
    attrs = {"method": "theirs", "dataset": "pets", "split": "train", "num_chains": 2}
    assert attrs | {"is_posterior": 1, "settings": '{"lr": 0.5}'} == {
        name: tree.attrs[name] for name in (*attrs, "is_posterior", "settings")
    }


def test_a_chain_dimension_says_how_many_chains_there_are(key):
    latent = draws(2, 3, 4, 3)
    chained = from_draws(latent, Categorical(3), LABELS, key=key, method="a")
    flat = from_draws(
        latent.reshape(6, 4, 3), Categorical(3), LABELS, key=key, method="a", num_chains=2
    )
    assert chained.identical(flat)
    assert "constant_data" not in flat.children


def test_predict_makes_the_tree_that_its_draws_make(iris, key):
    predictor = Numbered(Categorical(3), chains=2)
    tree = predict(predictor, iris, key=key, num_draws=4)
    made = predictor.draw(None, iris.x_test, num_draws=4)
    again = from_draws(
        made.latent, predictor.likelihood, iris.y_test, key=jax.random.split(key)[1],
        method="numbered", x=iris.x_test, num_chains=2, output_names=iris.class_names,
        dataset="iris", stats=made.stats, settings=predictor.settings,
    )  # fmt: skip
    features = {"feature": list(iris.feature_names)}
    again["constant_data"] = again["constant_data"].to_dataset().assign_coords(features)
    assert again.identical(tree)


def test_half_precision_is_kept_exactly_in_single_precision(key):
    latent = draws(5, 4, 3, dtype=np.float16)
    tree = from_draws(latent, Categorical(3), LABELS, key=key, method="a")
    assert tree["posterior/latent"].dtype == np.float32
    np.testing.assert_array_equal(pooled(tree), latent)


@pytest.mark.parametrize("shape", [(4, 3), (6, 4, 3), (2, 3, 4, 3)])
def test_probabilities_come_back_as_the_softmax_of_their_logarithm(key, shape):
    p = np.random.default_rng(0).dirichlet(np.ones(3), size=shape[:-1])
    tree = from_probabilities(p, LABELS, key=key, method="forest", output_names="abc")
    np.testing.assert_allclose(probabilities(tree), p.reshape(-1, 4, 3), rtol=1e-14)
    expected = np.log(p.reshape(-1, 4, 3)[:, np.arange(4), LABELS])
    np.testing.assert_allclose(pooled(tree, "log_likelihood/y"), expected, rtol=1e-12)
    assert tree.attrs["num_chains"] == (2 if len(shape) == 4 else 1)
    assert json.loads(tree.attrs["likelihood"])["name"] == "Categorical"
    assert tree["posterior/output"].values.tolist() == ["a", "b", "c"]


def test_rounded_probabilities_are_divided_by_their_sum(key):
    tree = from_probabilities(np.full((4, 3), 0.333), LABELS, key=key, method="printed")
    np.testing.assert_allclose(pooled(tree, "log_likelihood/y"), np.log(1 / 3), rtol=1e-14)


@pytest.mark.parametrize(("dtype", "logarithm"), [(np.float64, -708), (np.float32, -87)])
def test_zeros_become_the_smallest_number_and_are_reported(key, dtype, logarithm):
    p = np.array([[1, 0, 0], [0.5, 0.5, 0], [0, 1, 0], [1, 0, 0]], dtype=dtype)
    with pytest.warns(UserWarning, match=rf"holds 7 zeros, which become .*is {logarithm} nats"):
        tree = from_probabilities(p, LABELS, key=key, method="certain")
    np.testing.assert_allclose(probabilities(tree)[0], p, atol=1e-30)
    scores = np.log(np.finfo(dtype).tiny) * np.array([0, 1, 0, 1])
    np.testing.assert_allclose(pooled(tree, "log_likelihood/y")[0], scores, rtol=1e-6)


@pytest.mark.parametrize(
    ("p", "message"),
    [
        ([[0.5, 0.5, 0.0]] * 3 + [[0.6, 0.6, -0.2]], "must be nonnegative, but 1 of 4 do not.*"
         r"draw 0, point 3: \[ 0.6  0.6 -0.2\]"),
        ([[0.5, 0.3, 0.2], [0.5, 0.5, 0.1]] * 2, "must sum to 1.*2 of 4.*draw 0, point 1"),
        ([[0.5, np.nan, 0.5]] * 4, r"probabilities must be finite.*\(0, 0, 1\)"),
        ([[1, 0, 0]] * 4, "probabilities must hold real numbers, but has dtype int64"),
        ([[0.5]] * 4, r"two or more classes.*\(1, 4, 1\)"),
        ([0.5] * 4, r"must have shape \(draws, points, classes\).*\(4,\)"),
        (np.zeros((0, 4, 3)), r"probabilities is empty \(shape \(0, 4, 3\)\)"),
    ],
)  # fmt: skip
def test_what_is_no_distribution_over_classes_is_refused(key, p, message):
    with pytest.raises(ValueError, match=message):
        from_probabilities(np.array(p), LABELS, key=key, method="theirs")


GAUSSIAN = (draws(6, 4, 1), Gaussian(0.1), draws(4))
CLASSES = (draws(6, 4, 3), Categorical(3), LABELS)


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        ((draws(6, 5, 3), *CLASSES[1:]), {}, r"latent must have shape \(s, 4, 3\).*\(6, 5, 3\)"),
        ((draws(6, 4), *CLASSES[1:]), {}, r"shape \(draws, points, outputs\).*has \(6, 4\)"),
        ((draws(0, 4, 3), *CLASSES[1:]), {}, "latent is empty"),
        ((np.ones((6, 4, 3), int), *CLASSES[1:]), {}, "latent must hold real numbers.*int64"),
        ((np.full((6, 4, 3), np.inf), *CLASSES[1:]), {}, r"latent must be finite.*\(0, 0, 0\)"),
        ((*CLASSES[:2], LABELS.astype(float)), {}, "y must hold integer class indices.*float64"),
        ((*CLASSES[:2], np.array([0, 1, 2, 3])), {}, "class indices 0 to 2, but holds 0 to 3"),
        ((*CLASSES[:2], np.array([0, 1, 2, -1])), {}, "class indices 0 to 2, but holds -1 to 2"),
        ((draws(6, 4, 1), Bernoulli(), np.array([0, 1, 2, 1])), {}, "class indices 0 to 1"),
        ((draws(6, 4, 1), Bernoulli(), np.array([0.0, 1, 1, 1])), {}, "integer class indices"),
        ((*CLASSES[:2], LABELS[:0]), {}, "y is empty"),
        ((*GAUSSIAN[:2], LABELS), {}, "real values with a Gaussian likelihood"),
        ((*GAUSSIAN[:2], np.array([0, 1, np.nan, 1])), {}, "y must be finite"),
        (CLASSES, {"num_chains": 4}, "multiple of the 4 chains, but is 6; 4 would do"),
        (CLASSES, {"num_chains": 0}, "num_chains must be at least 1, but is 0"),
        ((draws(2, 3, 4, 3), *CLASSES[1:]), {"num_chains": 3}, "num_chains is 3, but.* 2 chains"),
        (CLASSES, {"x": draws(3, 2)}, r"x must have one row for each of the 4 points.*\(3, 2\)"),
        (CLASSES, {"obs_ids": [1, 2, 2, 3]}, "obs_ids must differ, but 2 occurs"),
        (CLASSES, {"obs_ids": [1, 2]}, r"obs_ids must hold .* 4 points, but has shape \(2,\)"),
        (CLASSES, {"obs_ids": draws(4)}, "obs_ids must hold a whole number or text.*float64"),
        (CLASSES, {"output_names": ["a", "b"]}, "output_names .* 3 classes .* holds 2: a, b"),
        (CLASSES, {"output_names": ["a", "b", "a"]}, "output_names must differ, but 'a'"),
        (CLASSES, {"split": "ood"}, "unknown split 'ood'"),
        (CLASSES, {"stats": {"energy": draws(5)}}, r"stats\['energy'\] .*\(6,\).*has shape \(5,\)"),
        (CLASSES, {"closed_form": (draws(4, 3), np.ones((4, 3)))}, "is for a Gaussian likelihood"),
        (GAUSSIAN, {"closed_form": (draws(4), np.ones((4, 1)))}, r"mean must have shape \(4, 1\)"),
        (GAUSSIAN, {"closed_form": (draws(4, 1), -np.ones((4, 1)))}, "variance must be nonneg"),
    ],
)
def test_draws_that_do_not_fit_together_are_refused(key, arguments, settings, message):
    with pytest.raises(ValueError, match=message):
        from_draws(*arguments, key=key, method="theirs", **settings)


def test_class_probabilities_of_a_regression_are_refused(sine, key):
    tree = predict(Normal(Gaussian(0.3)), sine, key=key, num_draws=2)
    with pytest.raises(ValueError, match="need a classification task, but sine is regression"):
        probabilities(tree)


def test_one_logit_predicts_what_two_logits_of_the_same_difference_do():
    data = load_dataset("moons", seed=0, num_train=20)
    logit = jax.random.normal(jax.random.key(0), (6, len(data.x_test), 1))
    two = jnp.concatenate([-0.5 * logit, 0.5 * logit], axis=-1)
    trees = [
        from_draws(latent, likelihood, data.y_test, key=jax.random.key(1), method="mine")
        for likelihood, latent in ((Bernoulli(), logit), (Categorical(2), two))
    ]
    np.testing.assert_allclose(*(probabilities(tree) for tree in trees), atol=1e-15)
    np.testing.assert_allclose(*(pooled(t, "log_likelihood/y") for t in trees), atol=1e-14)
