"""Severity curves and detection tables against their parts and scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy.special
import scipy.stats
import sklearn.metrics

import ntkbayes as nb
from ntkbayes.datasets import hold_out_classes, shift
from ntkbayes.evaluation import compare, predict
from ntkbayes.evaluation.metrics.resampling import error_quantile, share_error
from ntkbayes.evaluation.severity import detection_table, severity_curve
from ntkbayes.predictors import Draws, Predictor

NUM_IN, NUM_OUT, C = 80, 50, 3
METRICS = ("auroc", "aupr", "fpr95")


class Nearest(Predictor):
    """Logits fall with the distance from the class means, and a little at random per draw."""

    likelihood: nb.Likelihood
    centers: jax.Array
    sharpness: float

    def draw(self, key, x, *, num_draws, progress=lambda fraction: None):
        gaps = jnp.asarray(x)[:, None, :] - self.centers[None]
        latent = -self.sharpness * jnp.mean(gaps**2, axis=-1)
        noise = 0.3 * jax.random.normal(key, (num_draws, 1, latent.shape[1]))
        return Draws(latent[None] + noise, {})

    @property
    def settings(self):
        return {"method": "nearest"}


class Mean(Predictor):
    """Regression: noise around 0."""

    likelihood: nb.Likelihood

    def draw(self, key, x, *, num_draws, progress=lambda fraction: None):
        return Draws(0.1 * jax.random.normal(key, (num_draws, len(x), 1)), {})

    @property
    def settings(self):
        return {"method": "mean"}


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture(scope="module")
def wine():
    return nb.load_dataset("wine")


def nearest(data, sharpness=3.0):
    centers = [data.x_train[data.y_train == c].mean(axis=0) for c in range(data.num_classes)]
    return Nearest(nb.Categorical(data.num_classes), jnp.stack(centers), sharpness)


@pytest.fixture(scope="module")
def latent():
    generator = np.random.default_rng(0)
    inside = (
        generator.normal(size=(20, NUM_IN, C)) + 2 * np.eye(C)[generator.integers(0, C, NUM_IN)]
    )
    outside = 1.4 * generator.normal(size=(20, NUM_OUT, C))
    sharp = generator.normal(size=(7, NUM_IN, C)), 0.2 * generator.normal(size=(7, NUM_OUT, C))
    return {"one": (inside, outside), "two": sharp}


def test_a_curve_holds_what_compare_says_of_every_shifted_dataset(wine, key):
    predictors = {"sharp": nearest(wine), "flat": nearest(wine, 0.5)}
    curve = severity_curve(predictors, wine, "feature-noise", (0, 4), key=key, num_draws=10, seed=3)
    keys = jax.random.split(key, 2)
    for severity in (0, 4):
        changed = shift(wine, "feature-noise", severity, seed=3)
        trees = {
            name: predict(predictors[name], changed, key=k, num_draws=10)
            for name, k in zip(predictors, keys, strict=True)
        }
        expected = compare(trees, reference=None)
        found = curve[curve["severity"] == severity].reset_index(drop=True)
        columns = ["method", "metric", "value", "standard_error"]
        assert found[columns].equals(expected[columns])
    assert list(curve.columns[:3]) == ["dataset", "shift", "severity"]
    assert set(curve["dataset"]) == {"wine"}
    assert set(curve["shift"]) == {"feature-noise"}


def test_accuracy_falls_and_entropy_rises_with_the_severity(wine, key):
    seen = []
    curve = severity_curve(
        {"nearest": nearest(wine)},
        wine,
        "feature-noise",
        key=key,
        num_draws=5,
        progress=seen.append,
    )
    values = curve.pivot_table(index="severity", columns="metric", values="value")
    assert list(values.index) == [0, 1, 2, 3, 4, 5]
    assert values["accuracy"][0] > 0.9 > values["accuracy"][5]
    assert values["nll"][5] > 3 * values["nll"][0]
    np.testing.assert_allclose(seen, np.arange(1, 7) / 6)


def test_a_regression_has_its_error_against_the_true_function_away_from_the_data(key):
    data = nb.load_dataset("sine")
    curve = severity_curve({"mean": Mean(nb.Gaussian(0.04))}, data, "away", (0, 3), key=key)
    row = curve.set_index(["severity", "metric"])["value"]
    y = np.asarray(shift(data, "away", 3).y_test)
    assert row[3, "rmse"] == pytest.approx(np.sqrt(np.mean(y**2)), rel=0.02)
    assert row[3, "rmse"] != row[0, "rmse"]


def test_curves_without_methods_or_severities_and_wrong_shifts_are_refused(wine, key):
    predictors = {"nearest": nearest(wine)}
    with pytest.raises(ValueError, match="there are 0 and 6"):
        severity_curve({}, wine, "feature-noise", key=key)
    with pytest.raises(ValueError, match="there are 1 and 0"):
        severity_curve(predictors, wine, "feature-noise", (), key=key)
    with pytest.raises(ValueError, match="needs pictures"):
        severity_curve(predictors, wine, "blur", key=key)
    with pytest.raises(ValueError, match="severity must lie between 0 and 5, but is 6"):
        severity_curve(predictors, wine, "feature-noise", (1, 6), key=key)


def naive_scores(draws):
    probabilities = scipy.special.softmax(draws, axis=-1)
    p = probabilities.mean(axis=0)
    total = scipy.stats.entropy(p, axis=1)
    return {
        "predictive_entropy": total,
        "mutual_information": total - scipy.stats.entropy(probabilities, axis=2).mean(axis=0),
        "one_minus_max_probability": 1 - p.max(axis=1),
    }


def test_detection_is_that_of_scikit_learn_for_every_score(latent):
    table = detection_table(latent).set_index(["method", "score", "metric"])
    truth = np.repeat([0, 1], [NUM_IN, NUM_OUT])
    for method, (inside, outside) in latent.items():
        inside, outside = naive_scores(inside), naive_scores(outside)
        assert set(table.loc[method].index.get_level_values("score")) == set(inside)
        for score in inside:
            values = np.concatenate([inside[score], outside[score]])
            row = {name: table.loc[(method, score, name), "value"] for name in METRICS}
            assert row["auroc"] == pytest.approx(sklearn.metrics.roc_auc_score(truth, values))
            expected = sklearn.metrics.average_precision_score(truth, values)
            assert row["aupr"] == pytest.approx(expected)
            false, true, _ = sklearn.metrics.roc_curve(truth, values, drop_intermediate=False)
            assert row["fpr95"] == pytest.approx(false[np.argmax(true >= 0.95)])


def test_standard_errors_are_those_of_delong_which_resamples_both_sets(latent):
    table = detection_table(latent).set_index(["method", "score", "metric"])["standard_error"]
    for method, draws in latent.items():
        inside, outside = (naive_scores(d)["predictive_entropy"] for d in draws)
        wins = outside[:, None] > inside[None]
        # DeLong, DeLong & Clarke-Pearson (1988): variances of the two placements.
        variance = wins.mean(1).var(ddof=1) / NUM_OUT + wins.mean(0).var(ddof=1) / NUM_IN
        found = table[method, "predictive_entropy", "auroc"]
        expected = np.hypot(np.sqrt(variance), share_error(wins.mean(), NUM_OUT))
        assert found == pytest.approx(expected, rel=0.12)


def test_sets_that_are_told_apart_in_every_resample_are_not_without_error():
    """As an accuracy of 1 on as many points as the smaller set has; DeLong's error would be 0."""
    sure, torn = np.array([5.0, 0, 0]), np.zeros(3)
    draws = np.tile(sure, (2, 60, 1)), np.tile(torn, (2, 20, 1))
    table = detection_table({"m": draws}).set_index(["score", "metric"])
    for metric, value in (("auroc", 1), ("fpr95", 0)):
        row = table.loc[("predictive_entropy", metric)]
        assert row["value"] == pytest.approx(value, abs=1e-12)
        assert row["standard_error"] == pytest.approx(np.sqrt(22 / 24 * 2 / 24 / 24))
    assert np.isnan(table.loc[("predictive_entropy", "aupr"), "standard_error"])


@pytest.mark.parametrize("num_points", [3, 20, 100])
def test_an_area_that_sets_told_apart_leave_open_would_hardly_tell_them_apart(num_points):
    """At the end of the 95 % interval below an area of 1, or at one half."""
    reach = error_quantile(num_points) * share_error(1.0, num_points)
    apart = np.sqrt(2) * scipy.stats.norm.ppf(max(1 - reach, 0.5))
    inside, outside = np.random.default_rng(0).normal(size=(2, 2000, num_points))
    assert np.mean(inside.max(axis=1) < (outside + apart).min(axis=1)) < 0.06


def test_sets_of_one_size_are_resampled_independently(latent):
    # Shared resamples of equal sets would leave the area at one half without any error.
    draws = latent["one"][0]
    table = detection_table({"same": (draws, draws)}).set_index(["score", "metric"])
    row = table.loc[("predictive_entropy", "auroc")]
    assert row["value"] == pytest.approx(0.5)
    assert row["standard_error"] == pytest.approx(np.sqrt(1 / 6 / NUM_IN), rel=0.12)


def test_methods_are_resampled_alike_and_one_draw_knows_nothing_epistemic(latent):
    inside, outside = latent["one"]
    table = detection_table(
        {"a": latent["one"], "b": latent["one"], "c": (inside[:1], outside[:1])}
    )
    one, again = (
        table[table["method"] == m].drop(columns="method").reset_index(drop=True) for m in "ab"
    )
    assert one.equals(again)
    values = table.set_index(["method", "score", "metric"])["value"]
    assert values["c", "mutual_information", "auroc"] == 0.5


def test_one_logit_counts_as_two_classes(latent):
    inside, outside = (d[..., :1] for d in latent["one"])
    both = [np.concatenate([0 * d, d], axis=-1) for d in (inside, outside)]
    assert detection_table({"m": (inside, outside)}).equals(detection_table({"m": tuple(both)}))


def test_unseen_classes_are_told_from_the_seen_by_draws_at_their_inputs(key):
    data, x_unseen = hold_out_classes(nb.load_dataset("digits"), ["5", "6", "7", "8", "9"])
    predictor = nearest(data)
    draws = tuple(predictor.sample(key, x, num_draws=5) for x in (data.x_test, x_unseen))
    table = detection_table({"nearest": draws}).set_index(["score", "metric"])["value"]
    assert table["predictive_entropy", "auroc"] > 0.8


def test_draws_that_cannot_be_compared_are_refused(latent):
    inside, outside = latent["one"]
    with pytest.raises(ValueError, match="latent is empty"):
        detection_table({})
    with pytest.raises(ValueError, match=r"cannot be compared.*80 and 79 test points"):
        detection_table({"a": (inside, outside), "b": (inside[:, 1:], outside)})
    with pytest.raises(ValueError, match=r"cannot be compared.*50 and 49 other inputs"):
        detection_table({"a": (inside, outside), "b": (inside, outside[:, 1:])})
    with pytest.raises(ValueError, match="latent of a at the other inputs is empty"):
        detection_table({"a": (inside, outside[:, :0])})
    with pytest.raises(ValueError, match=r"one number of classes, .* of b at the other inputs 2"):
        detection_table({"a": (inside, outside), "b": (inside, outside[:, :, :1])})
    wrong = outside.copy()
    wrong[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="latent of a at the other inputs must be finite"):
        detection_table({"a": (inside, wrong)})


# Predictions made elsewhere


def test_detection_needs_no_more_than_probabilities():
    latent = [np.random.default_rng(i).normal(size=(5, m, 3)) for i, m in enumerate((40, 30))]
    p = [scipy.special.softmax(f, axis=-1) for f in latent]
    by_latent = nb.evaluation.detection_table({"a": tuple(latent)})
    by_probability = nb.evaluation.detection_table(probabilities={"a": tuple(p)})
    pd.testing.assert_frame_equal(by_latent, by_probability)
    both = nb.evaluation.detection_table({"a": tuple(latent)}, probabilities={"b": tuple(p)})
    assert both["method"].unique().tolist() == ["a", "b"]


def test_one_predictor_is_scored_by_its_probabilities():
    p = [np.random.default_rng(i).dirichlet(np.ones(3), size=20) for i in range(2)]
    table = nb.evaluation.detection_table(probabilities={"forest": tuple(p)})
    entropy = [scipy.special.entr(q).sum(axis=1) for q in p]
    auroc = table.query("metric == 'auroc'").set_index("score")["value"]
    expected = np.mean(entropy[1][:, None] > entropy[0])
    assert auroc["predictive_entropy"] == pytest.approx(expected)
    assert auroc["mutual_information"] == pytest.approx(0.5)  # one predictor disagrees with nobody


@pytest.mark.parametrize(
    ("latent", "probabilities", "message"),
    [
        (None, None, "at least one method's draws are needed"),
        ({"a": 3}, {"a": 3}, "latent and probabilities both have 'a'"),
        (None, {"a": (4, 3), "b": (4, 2)}, "those of b at the test points 2"),
    ],
)
def test_detection_refuses_what_cannot_be_compared(latent, probabilities, message):
    def made(sizes, *, p):
        if sizes is None:
            return None
        rows = {}
        for name, size in sizes.items():
            m, c = size if isinstance(size, tuple) else (4, size)
            rows[name] = (np.full((1, m, c), 1 / c if p else 0.0),) * 2
        return rows

    with pytest.raises(ValueError, match=message):
        nb.evaluation.detection_table(
            made(latent, p=False), probabilities=made(probabilities, p=True)
        )


def test_a_curve_of_predictions_made_elsewhere_is_that_of_their_predictors(key):
    data = nb.load_dataset("moons", num_train=20)
    posterior = nb.laplace(
        nb.dense_network(depth=1), nb.Categorical(2), data.x_train, data.y_train,
        prior_precision=1.0,
    )  # fmt: skip
    curve = nb.evaluation.severity_curve(
        {"Laplace": posterior}, data, "feature-noise", (0, 3), key=key, num_draws=10
    )
    (own,) = jax.random.split(key, 1)
    trees = {
        s: {"Laplace": nb.predict(posterior, nb.shift(data, "feature-noise", s), key=own,
                                  num_draws=10)}
        for s in (0, 3)
    }  # fmt: skip
    table = nb.evaluation.severity_table(trees, kind="feature-noise")
    pd.testing.assert_frame_equal(table, curve)
    with pytest.raises(ValueError, match="trees is empty"):
        nb.evaluation.severity_table({}, kind="fog")


def test_severities_of_other_points_classes_or_methods_are_refused():
    rng = np.random.default_rng(0)
    p, y = rng.dirichlet(np.ones(3), size=20), rng.integers(0, 3, 20)

    def tree(rows=slice(None), **settings):
        return nb.from_probabilities(
            p[rows], y[rows], key=jax.random.key(0), method="a", **settings
        )

    names, ids = ["x", "y", "z"], np.arange(20)
    first = {0: {"a": tree(output_names=names)}}
    for other, message in (
        ({"b": tree()}, "same methods"),
        ({"a": tree(output_names=names[::-1])}, "names of their classes differ"),
        ({"a": tree(ids < 15)}, "lacks 5 of the 20 points"),
        ({"a": tree(ids[::-1])}, "observations differ"),
    ):
        with pytest.raises(ValueError, match=message):
            nb.evaluation.severity_table(first | {3: other}, kind="fog")
    moved = {"a": tree(ids[::-1], obs_ids=ids[::-1])}  # the same points in another order
    assert len(nb.evaluation.severity_table(first | {3: moved}, kind="fog"))
