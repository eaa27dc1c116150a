"""Temperature scaling: the temperature found, what it is fitted on, and what it leaves alone."""

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.special
from models import LINEAR
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression

import ntkbayes as nb
from ntkbayes.evaluation import compare, pooled, probabilities
from ntkbayes.predictors import Draws, Predictor


class Linear(Predictor):
    """Draw s of the latent function is sharpness · (x₀, …) plus fixed noise of its own."""

    likelihood: nb.Likelihood
    sharpness: float
    spread: float = 0.0
    chains: int = 1

    def draw(self, key, x, *, num_draws, progress=lambda fraction: None):
        x, c = jnp.asarray(x), self.likelihood.num_outputs
        noise = jax.random.normal(jax.random.key(1), (num_draws, 1, c))
        latent = self.sharpness * (x[None, :, :c] + self.spread * noise)
        return Draws(latent, {"number": jnp.arange(num_draws)})

    @property
    def settings(self) -> dict[str, Any]:
        return {"method": "linear", "sharpness": self.sharpness}

    @property
    def num_available(self):
        return 40

    @property
    def num_chains(self):
        return self.chains


@pytest.fixture
def key():
    return jax.random.key(0)


def known_logits(num_outputs, *, size=4000, seed=0):
    """Data whose inputs are the logits of their labels, in all splits, not standardised."""
    generator = np.random.default_rng(seed)
    x = 1.5 * generator.normal(size=(size, num_outputs))
    logits = np.concatenate([np.zeros_like(x), x], axis=1) if num_outputs == 1 else x
    y = np.argmax(logits + generator.gumbel(size=logits.shape), axis=1)
    c = logits.shape[1]
    (x_train, x_val, x_test), (y_train, y_val, y_test) = (np.array_split(v, 3) for v in (x, y))
    return nb.Dataset(
        x_train=x_train,
        y_train=y_train,
        x_val=x_val,
        y_val=y_val,
        x_test=x_test,
        y_test=y_test,
        x_mean=np.zeros(num_outputs),
        x_scale=np.ones(num_outputs),
        name="known",
        task="classification",
        class_names=tuple("abcd"[:c]),
        feature_names=tuple("fghi"[:num_outputs]),
        target_names=["y"],
    )


def pooled_nll(latent, y, temperature):
    """Definition, draw by draw."""
    p = np.mean([scipy.special.softmax(f / temperature, axis=1) for f in latent], axis=0)
    return -np.mean(np.log(p[np.arange(len(y)), y]))


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 5.0])
@pytest.mark.parametrize("likelihood", [nb.Bernoulli(), nb.Categorical(3)], ids=["one", "three"])
def test_too_sharp_or_too_flat_logits_are_scaled_back_to_the_truth(likelihood, sharpness, key):
    data = known_logits(likelihood.num_outputs)
    scaled = nb.temperature_scaled(Linear(likelihood, sharpness), data, key=key, num_draws=1)
    # Standard error of log T: 1 / √(v · information), with about 0.3 nats of information a point.
    error = 1 / np.sqrt(0.3 * len(data.x_val))
    assert abs(np.log(scaled.temperature / sharpness)) < 4 * error


@pytest.mark.parametrize("spread", [0.0, 2.0])
def test_the_temperature_minimises_the_nll_of_the_pooled_prediction(spread, key):
    data = known_logits(3, size=600)
    predictor = Linear(nb.Categorical(3), 3.0, spread)
    temperature = nb.temperature_scaled(predictor, data, key=key).temperature
    latent, y = np.asarray(predictor.sample(key, data.x_val, num_draws=40)), np.asarray(data.y_val)
    expected = scipy.optimize.minimize(
        lambda t: pooled_nll(latent, y, np.exp(t[0])), [0.0], method="Nelder-Mead", tol=1e-9
    )
    assert np.log(temperature) == pytest.approx(expected.x[0], abs=1e-4)
    of_single_draws = [
        scipy.optimize.minimize_scalar(lambda t, f=f: pooled_nll(f[None], y, np.exp(t))).x
        for f in latent
    ]
    # Members calibrated one by one want a higher temperature than their pooled prediction.
    if spread:
        assert np.log(temperature) < np.mean(of_single_draws) - 0.05


def test_one_network_has_the_temperature_of_a_logistic_regression_on_its_logit(key):
    data = known_logits(1, size=900)
    predictor = Linear(nb.Bernoulli(), 2.5)
    temperature = nb.temperature_scaled(predictor, data, key=key, num_draws=1).temperature
    logit = np.asarray(predictor.sample(key, data.x_val, num_draws=1))[0]
    fit = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10).fit(logit, data.y_val)
    assert 1 / temperature == pytest.approx(fit.coef_[0, 0], rel=1e-4)


class Fixed(Linear):
    """Two draws: a sharp one, right for the first 40 of 100 points; a flat one, for the last 50."""

    def draw(self, key, x, *, num_draws, progress=lambda fraction: None):
        index, labels = np.arange(100), np.asarray(TWO_MINIMA.y_val)
        guesses = [(labels + ~right) % 3 for right in (index < 40, index >= 50)]
        latent = np.stack([3 * np.eye(3)[guesses[0]], 0.1 * np.eye(3)[guesses[1]]])
        return Draws(jnp.asarray(latent), {})


TWO_MINIMA = known_logits(3, size=300)


def test_of_two_local_minima_the_lower_is_found(key):
    predictor, y = Fixed(nb.Categorical(3), 1.0), np.asarray(TWO_MINIMA.y_val)
    latent = np.asarray(predictor.sample(key, TWO_MINIMA.x_val, num_draws=2))
    grid = np.geomspace(0.02, 50, 400)
    nll = np.array([pooled_nll(latent, y, t) for t in grid])
    minima = np.flatnonzero((nll[1:-1] < nll[:-2]) & (nll[1:-1] < nll[2:])) + 1
    np.testing.assert_allclose(grid[minima], [0.0503, 4.75], rtol=0.02)
    found = nb.temperature_scaled(predictor, TWO_MINIMA, key=key, num_draws=2).temperature
    assert found == pytest.approx(grid[minima[0]], rel=0.02)
    assert pooled_nll(latent, y, found) <= nll.min()


def test_only_the_validation_split_is_looked_at(key):
    data = known_logits(3, size=600)
    other = dataclasses.replace(
        data,
        x_train=data.x_train * 2,
        y_train=(data.y_train + 1) % 3,
        x_test=-data.x_test,
        y_test=(data.y_test + 1) % 3,
    )
    predictor = Linear(nb.Categorical(3), 2.0)
    one, two = (nb.temperature_scaled(predictor, d, key=key).temperature for d in (data, other))
    assert one == two
    changed = dataclasses.replace(data, y_val=(data.y_val + 1) % 3)
    with pytest.warns(UserWarning, match="lies on the bound 100"):
        assert nb.temperature_scaled(predictor, changed, key=key).temperature > 10 * one


def test_draws_are_divided_and_everything_else_is_that_of_the_predictor(key):
    data = known_logits(3, size=600)
    predictor = Linear(nb.Categorical(3), 2.0, chains=4)
    scaled = nb.temperature_scaled(predictor, data, key=key)
    found = scaled.draw(key, data.x_test, num_draws=8)
    expected = predictor.draw(key, data.x_test, num_draws=8)
    np.testing.assert_allclose(found.latent * scaled.temperature, expected.latent, rtol=1e-12)
    np.testing.assert_array_equal(found.stats["number"], expected.stats["number"])
    assert (scaled.num_available, scaled.num_chains) == (40, 4)
    assert scaled.likelihood is predictor.likelihood
    assert scaled.settings == {
        "method": "linear_temperature_scaled",
        "sharpness": 2.0,
        "temperature": scaled.temperature,
    }


def test_test_predictions_of_an_overconfident_predictor_become_better(key):
    data = known_logits(3)
    predictor = Linear(nb.Categorical(3), 4.0, 0.3)
    scaled = nb.temperature_scaled(predictor, data, key=key)
    trees = {"as it is": nb.predict(predictor, data, key=key)}
    trees["scaled"] = nb.predict(scaled, data, key=key)
    table = compare(trees, reference=None).set_index(["method", "metric"])["value"]
    assert table["scaled", "nll"] < table["as it is", "nll"] - 0.1
    assert table["scaled", "ece"] < table["as it is", "ece"] / 2
    settings = json.loads(trees["scaled"].attrs["settings"])
    assert settings["temperature"] == scaled.temperature


@pytest.mark.parametrize(("wrong", "bound"), [(False, 0.01), (True, 100)])
def test_a_temperature_on_a_bound_is_said(wrong, bound, key):
    data = known_logits(3, size=300)
    label = np.argmax(data.x_val, axis=1)
    data = dataclasses.replace(data, y_val=(label + wrong) % 3)
    with pytest.warns(UserWarning, match=f"lies on the bound {bound}: the 100 validation points"):
        scaled = nb.temperature_scaled(Linear(nb.Categorical(3), 5.0), data, key=key, num_draws=1)
    assert scaled.temperature == pytest.approx(bound, rel=1e-3)


def test_a_regression_is_refused_with_what_to_do_instead(key):
    sine = nb.load_dataset("sine")
    with pytest.raises(ValueError, match=r"likelihood is Gaussian.*conformal_intervals"):
        nb.temperature_scaled(Linear(nb.Gaussian(0.1), 1.0), sine, key=key)


def test_a_single_trained_network_is_a_deep_ensemble_of_one_and_has_one_draw(key):
    data = nb.load_dataset("moons", num_train=30)
    train, settings = (data.x_train, data.y_train), dict(prior_precision=1, tolerance=0.5)
    single = nb.deep_ensemble(LINEAR, nb.Bernoulli(), *train, key=key, num_members=1, **settings)
    scaled = nb.temperature_scaled(single, data, key=key)
    plain, tree = (nb.predict(p, data, key=key) for p in (single, scaled))
    assert pooled(tree).shape == (1, 300, 1)
    mean = probabilities(plain)[0].argmax(axis=1)
    np.testing.assert_array_equal(probabilities(tree)[0].argmax(axis=1), mean)
    p = probabilities(plain)[0, :, 1]
    np.testing.assert_allclose(pooled(tree)[0, :, 0], scipy.special.logit(p) / scaled.temperature)


def test_scikit_learn_finds_the_same_temperature_of_one_network(key):
    data = known_logits(3, size=900)
    predictor = Linear(nb.Categorical(3), 3.0)
    temperature = nb.temperature_scaled(predictor, data, key=key, num_draws=1).temperature
    network = LogisticRegression()
    network.coef_, network.intercept_, network.classes_ = 3 * np.eye(3), np.zeros(3), np.arange(3)
    calibrated = CalibratedClassifierCV(
        FrozenEstimator(network), method="temperature", ensemble=False
    ).fit(data.x_val, data.y_val)
    expected = calibrated.calibrated_classifiers_[0].calibrators[0].beta_
    assert 1 / temperature == pytest.approx(expected, rel=1e-4)


# Predictions made elsewhere


def two_splits(make, num_points=400):
    """Predictions by `make(logits, y, split)` of two splits, three times too sharp."""
    generator = np.random.default_rng(5)
    logits = generator.normal(size=(2 * num_points, 3))
    y = np.argmax(logits + generator.gumbel(size=logits.shape), axis=1)
    halves = (slice(num_points), slice(num_points, None))
    return [
        make(3 * logits[half], y[half], split)
        for half, split in zip(halves, ("val", "test"), strict=True)
    ]


@pytest.mark.parametrize("given", ["logits", "probabilities"])
def test_predictions_are_scaled_as_the_predictor_that_made_them_is(key, given):
    def make(logits, y, split):
        about = {"key": key, "method": "net", "dataset": "d", "split": split}
        if given == "logits":
            return nb.from_draws(logits, nb.Categorical(3), y, **about)
        p = scipy.special.softmax(logits, axis=-1)
        return nb.from_probabilities(p, y, **about, output_names=["a", "b", "c"])

    val, test = two_splits(make)
    scaled = nb.temperature_scaled(val, test, key=key)
    temperature = json.loads(scaled.attrs["settings"])["temperature"]
    assert abs(np.log(temperature / 3)) < 4 / np.sqrt(0.3 * 400)
    logits = nb.evaluation.pooled(test)
    expected = scipy.special.softmax(logits / temperature, axis=-1)
    np.testing.assert_allclose(nb.evaluation.probabilities(scaled), expected, rtol=1e-10)
    assert scaled.attrs["method"] == "net, temperature-scaled"
    table = nb.compare({"net": test, "scaled": scaled}, reference=None)
    nll = table[table["metric"] == "nll"].set_index("method")["value"]
    assert nll["scaled"] < nll["net"]
    if given == "probabilities":
        assert scaled["posterior/output"].values.tolist() == ["a", "b", "c"]


def test_one_logit_is_scaled_too_and_draws_keep_their_chains(key):
    generator = np.random.default_rng(0)
    noise = 3 * generator.logistic(size=400)

    def make(logits, y, split):
        latent = logits[None, None, :, :1] + 0.1 * generator.normal(size=(2, 3, len(y), 1))
        labels = (latent[0, 0, :, 0] + noise[: len(y)] > 0).astype(int)
        return nb.from_draws(
            latent, nb.Bernoulli(), labels, key=key, method="m", dataset="d",
            split=split, obs_ids=np.arange(len(y)) + 7, stats={"energy": np.zeros(6)},
        )  # fmt: skip

    val, test = two_splits(make)
    scaled = nb.temperature_scaled(val, test)
    temperature = json.loads(scaled.attrs["settings"])["temperature"]
    np.testing.assert_allclose(
        scaled["posterior/latent"], test["posterior/latent"] / temperature, rtol=1e-12
    )
    assert scaled["posterior/obs_id"].values[0] == 7
    assert "energy" in scaled["sample_stats"]


def test_only_predictions_of_one_method_at_two_splits_are_scaled(key):
    def make(logits, y, split):
        return nb.from_draws(
            logits, nb.Categorical(3), y, key=key, method="m", dataset="d", split=split
        )

    val, test = two_splits(make)
    data = known_logits(3)
    with pytest.raises(ValueError, match="only one of them is predictions"):
        nb.temperature_scaled(val, data)
    with pytest.raises(ValueError, match="tree_val must be predictions at the validation split"):
        nb.temperature_scaled(test, val)
    with pytest.raises(ValueError, match="num_draws must be left out"):
        nb.temperature_scaled(val, test, num_draws=3)
    with pytest.raises(ValueError, match="key is needed to draw from a predictor"):
        nb.temperature_scaled(Linear(nb.Categorical(3), 1.0), data)
    normal = nb.from_normals(np.zeros(4), np.ones(4), np.zeros(4), key=key, method="m")
    with pytest.raises(ValueError, match="needs logits of classes, but the likelihood is Normal"):
        nb.temperature_scaled(normal, normal)
