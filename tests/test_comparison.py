"""Comparison: the long table, paired differences, distances, texts."""

import json
import tracemalloc
from functools import cache

import equinox as eqx
import jax
import numpy as np
import pandas as pd
import pytest
import scipy.special
import scipy.stats
import scoringrules
import sklearn.metrics
from metric_tables import value_of

from ntkbayes.datasets import load_dataset
from ntkbayes.evaluation import (
    METRICS,
    compare,
    comparison,
    distance_matrix,
    distances,
    from_draws,
    from_probabilities,
    metrics,
    mixtures,
    observations,
    paired_differences,
    pooled,
    predictive,
    probabilities,
)
from ntkbayes.likelihoods import Bernoulli, Categorical, Gaussian

DISTANCES = ("agreement", "total_variation", "jensen_shannon", "wasserstein_1")
DRAWS = {"NTK ensemble": 30, "HMC": 40, "Mode": 1}


@pytest.fixture(scope="module")
def iris():
    return load_dataset("iris")


@pytest.fixture(scope="module")
def classification(iris):
    return {
        name: predict_noisily(iris, Categorical(3), 3, seed, num_draws)
        for seed, (name, num_draws) in enumerate(DRAWS.items())
    }


@pytest.fixture(scope="module")
def diabetes():
    return load_dataset("diabetes")


@pytest.fixture(scope="module")
def regression(diabetes):
    mean, variance = jax.numpy.zeros((len(diabetes.y_test), 1)), 0.3
    closed = (mean, jax.numpy.full_like(mean, variance))
    return {
        "GP": predict_noisily(diabetes, Gaussian(0.5), 1, 0, 200, closed_form=closed),
        "Laplace": predict_noisily(diabetes, Gaussian(0.5), 1, 1, 200, closed_form=closed),
        "HMC": predict_noisily(diabetes, Gaussian(0.5), 1, 2, 300),
    }


def predict_noisily(data, likelihood, num_outputs, seed, num_draws, **settings):
    """Draws around 1 at the true class (or half the target), plus noise per method and draw."""
    key_method, key_draws, key_y = jax.random.split(jax.random.key(seed), 3)
    y = np.asarray(data.y_test)
    signal = np.eye(3)[y] if num_outputs == 3 else y[:, None] / 2
    center = signal + 0.6 * jax.random.normal(key_method, signal.shape)
    noise = 0.5 * jax.random.normal(key_draws, (num_draws, *signal.shape))
    latent = center[None] + (noise if num_draws > 1 else 0 * noise)
    return from_draws(
        latent, likelihood, y, key=key_y, method="unnamed", dataset=data.name, **settings
    )


@pytest.fixture(scope="module")
def compared(classification, regression):
    """Compare the methods of a task with a reference, once for all tests."""
    trees = {"classification": classification, "regression": regression}
    return cache(lambda task, reference: compare(trees[task], reference=reference))


def test_the_long_table_has_every_metric_and_no_distance_of_the_reference(classification, compared):
    long = compared("classification", "HMC")
    assert list(long.columns) == [
        *("dataset", "split", "method", "metric", "value", "standard_error"),
        *("from_best", "from_best_error", "monte_carlo_floor"),
        *("calibration_floor", "num_units", "unit"),
    ]
    everything = list(METRICS["classification"])
    alone = [name for name in everything if name not in DISTANCES]
    for method in classification:
        rows = long[long["method"] == method]
        expected = alone if method == "HMC" else everything
        # The variance of a single draw tells nothing apart.
        without = {"error_auroc"} if method == "Mode" else set()
        assert list(rows["metric"]) == [name for name in expected if name not in without]
    assert set(long["dataset"]) == {"iris"}
    assert set(long["split"]) == {"test"}
    without = compared("classification", None)
    assert set(without["metric"]) == set(alone)


def test_the_long_table_of_a_regression_has_every_metric(regression, compared):
    long = compared("regression", "GP")
    assert list(long[long["method"] == "HMC"]["metric"]) == list(METRICS["regression"])


def test_from_best_is_the_paired_difference_to_the_best_method(classification, compared):
    long = compared("classification", None)
    for metric in ("accuracy", "brier"):
        rows = long[long["metric"] == metric].set_index("method")
        best = rows["value"].idxmax() if metric == "accuracy" else rows["value"].idxmin()
        paired = paired_differences(classification, baseline=best, reference=None)
        assert rows.loc[best, "from_best"] == 0
        for method in set(rows.index) - {best}:
            for mine, theirs in (
                ("from_best", "difference"),
                ("from_best_error", "standard_error"),
            ):
                expected = abs(value_of(paired, method, metric, theirs))
                assert rows.loc[method, mine] == pytest.approx(expected, abs=1e-12)
    assert long[long["metric"] == "predictive_entropy"]["from_best"].isna().all()


def test_p_values_are_those_of_student_with_as_many_points(classification):
    paired = paired_differences(classification, baseline="Mode", reference=None)
    row = paired[(paired["method"] == "HMC") & (paired["metric"] == "brier")].iloc[0]
    freedom = len(observations(classification["HMC"])) - 1
    expected = 2 * scipy.stats.t.sf(abs(row["difference"]) / row["standard_error"], freedom)
    assert row["p_value"] == pytest.approx(expected)
    same = {"HMC": classification["HMC"], "again": classification["HMC"]}
    equal = paired_differences(same, baseline="HMC", reference=None)
    assert (equal["difference"] == 0).all()
    assert (equal["p_value"].dropna() == 1).all()


@pytest.mark.parametrize("num_points", [1, 15])
def test_one_unit_claims_no_certainty(num_points):
    """One point for every metric, fewer than twenty for those of batches of ten."""
    generator = np.random.default_rng(0)
    y = generator.integers(0, 2, num_points)
    trees = {
        name: from_draws(
            generator.normal(size=(50, num_points, 2)),
            Categorical(2),
            y,
            key=jax.random.key(0),
            method=name,
        )
        for name in "ab"
    }
    alone = list(METRICS["classification"]) if num_points == 1 else ["joint_nll"]
    table = compare(trees, reference="b")
    paired = paired_differences(trees, baseline="b", reference=None)
    table, paired = (rows[rows["metric"].isin(alone)] for rows in (table, paired))
    assert len(table)
    assert len(paired)
    assert table["standard_error"].isna().all()
    assert (paired["p_value"].isna() | (paired["difference"] == 0)).all()


def test_a_share_of_all_is_not_without_error():
    """Twenty right answers of twenty do not prove an accuracy of 1 (Agresti & Coull: 22 of 24)."""
    y = np.arange(20) % 2
    p = np.where(np.eye(2)[y] > 0, 0.9, 0.1)
    trees = {"all right": from_probabilities(p, y, key=jax.random.key(0), method="all right")}
    long = compare(trees, reference=None)
    expected = np.sqrt(22 / 24 * 2 / 24 / 24)
    accepted = np.arange(1, 21).mean() / 20  # share of the shares at which a point is accepted
    changes = {"accuracy": 1, "confidence_gap": 1, "aurc": 1, "augrc": accepted}
    changes |= {"nll": np.log(9), "brier": 2 * (0.9**2 - 0.1**2)}
    for metric, change in changes.items():
        error = value_of(long, "all right", metric, "standard_error")
        assert error == pytest.approx(change * expected, abs=1e-9), metric


def test_an_area_of_all_pairs_is_not_without_error():
    """Of three wrong answers every one is less certain than all right ones: three pairs, 5 of 7."""
    y, wrong = np.zeros(30, int), np.arange(30) < 3
    mean, apart = np.where(wrong, 0.3, 0.8), np.where(wrong, 0.1, 0.01)
    first = np.stack([mean + apart, mean - apart])
    tree = from_probabilities(
        np.stack([first, 1 - first], axis=-1), y, key=jax.random.key(0), method="m"
    )
    long = compare({"m": tree}, reference=None)
    assert value_of(long, "m", "error_auroc") == pytest.approx(1)
    error = value_of(long, "m", "error_auroc", "standard_error")
    assert error == pytest.approx(np.sqrt(5 / 7 * 2 / 7 / 7), abs=1e-9)


def test_values_that_differ_by_rounding_are_equal(classification):
    """The uncertainty of the Brier score is one of the labels alone."""
    paired = paired_differences(classification, baseline="Mode", reference=None)
    rows = paired[paired["metric"] == "brier_uncertainty"]
    assert (rows["difference"] == 0).all()
    values = np.array([0.3, 0.4, 0.2])
    found = comparison.significance("nll", values, values * (1 + 4e-16), 30)
    assert found == {"difference": 0.0, "standard_error": 0.0, "p_value": 1.0}


def test_the_floor_of_a_calibration_error_is_its_mean_for_labels_from_the_predictions():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(3), size=100)
    y = np.zeros(100, int)
    found = compare(
        {"m": from_probabilities(p, y, key=jax.random.key(0), method="m")}, reference=None
    )
    uniform = metrics.uniform_weights(100)
    simulated = [
        (p.cumsum(axis=1)[:, :-1] < u).sum(axis=1) for u in rng.uniform(size=(300, 100, 1))
    ]
    for metric, function in (("ece", metrics.ece), ("classwise_ece", metrics.classwise_ece)):
        values = [float(function(p, labels, uniform)) for labels in simulated]
        error = np.std(values) * np.sqrt(1 / 300 + 1 / 50)  # of our 50 simulations, and these
        floor = value_of(found, "m", metric, "calibration_floor")
        assert abs(floor - np.mean(values)) < 4 * error, metric
    assert np.isnan(value_of(found, "m", "brier", "calibration_floor"))


def test_what_is_not_to_be_ranked_has_no_best_and_no_p_value(classification, compared):
    long = compared("classification", None)
    paired = paired_differences(classification, baseline="Mode", reference=None)
    for name, info in METRICS["classification"].items():
        if info.caveat:
            assert long[long["metric"] == name]["from_best"].isna().all(), name
            assert paired[paired["metric"] == name]["p_value"].isna().all(), name
    assert METRICS["classification"]["ece"].caveat
    assert paired[paired["metric"] == "nll"]["p_value"].notna().all()


def test_values_are_those_of_scikit_learn(classification, compared):
    long = compared("classification", "HMC")
    for method, tree in classification.items():
        p, y = probabilities(tree).mean(axis=0), observations(tree)
        expected = {
            "accuracy": sklearn.metrics.accuracy_score(y, p.argmax(axis=1)),
            "nll": sklearn.metrics.log_loss(y, p),
            "brier": sklearn.metrics.brier_score_loss(y, p, scale_by_half=False),
        }
        for metric, number in expected.items():
            assert value_of(long, method, metric) == pytest.approx(number, rel=1e-10)


def test_the_standard_error_of_accuracy_is_the_binomial_one(classification, compared):
    long = compared("classification", None)
    for method, tree in classification.items():
        share = value_of(long, method, "accuracy")
        expected = np.sqrt(share * (1 - share) / len(observations(tree)))
        found = value_of(long, method, "accuracy", "standard_error")
        assert found == pytest.approx(expected, rel=0.1)  # 1,000 resamples: 2 %


def test_a_single_predictor_has_no_mutual_information(classification, compared):
    long = compared("classification", None)
    assert value_of(long, "Mode", "mutual_information") == pytest.approx(0, abs=1e-12)
    assert value_of(long, "HMC", "mutual_information") > 0.01


def test_the_floor_is_the_formula_of_the_draws(classification, compared):
    long = compared("classification", "HMC")
    p, q = (probabilities(classification[name]) for name in ("NTK ensemble", "HMC"))
    expected = np.mean(
        [
            sum(
                np.sqrt(2 / np.pi) / 2 * np.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))
                for a, b in ((p[:, i, k], q[:, i, k]) for k in range(3))
            )
            for i in range(p.shape[1])
        ]
    )
    found = value_of(long, "NTK ensemble", "total_variation", "monte_carlo_floor")
    assert found == pytest.approx(expected)
    assert value_of(long, "Mode", "total_variation", "monte_carlo_floor") < found
    assert np.isnan(value_of(long, "NTK ensemble", "accuracy", "monte_carlo_floor"))


def test_every_metric_has_the_value_of_its_function(classification, compared):
    long, tree = compared("classification", "HMC"), classification["NTK ensemble"]
    draws, y = probabilities(tree), observations(tree)
    p, uniform = draws.mean(axis=0), metrics.uniform_weights(len(y))
    confidence, right = p.max(axis=1), p.argmax(axis=1) == y
    parts = metrics.brier_decomposition(p, y, uniform)
    corp = metrics.corp_decomposition(confidence, right, uniform)
    top = draws[:, np.arange(len(y)), p.argmax(axis=1)]
    reference = probabilities(classification["HMC"])
    expected = {
        "joint_nll": metrics.joint_nll(pooled(tree, "log_likelihood/y"), uniform),
        "brier_reliability": parts.reliability,
        "brier_resolution": parts.resolution,
        "brier_uncertainty": parts.uncertainty,
        "ece_mass": metrics.ece(p, y, uniform, binning="mass"),
        "ece_l2": metrics.ece(p, y, uniform, binning="mass", norm="l2"),
        "ece_squared": metrics.squared_ece(p, y, uniform),
        "ece_debiased": metrics.ece(p, y, uniform, debiased=True),
        "classwise_ece": metrics.classwise_ece(p, y, uniform),
        "mce": metrics.mce(p, y, uniform),
        "pav_error": metrics.pav_calibration_error(confidence, right, uniform),
        "dyadic_nll": metrics.dyadic_nll(pooled(tree, "log_likelihood/y"), uniform),
        "scaled_nll": metrics.scaled_nll(p, y, uniform),
        "temperature_gain": metrics.temperature_gain(p, y, uniform),
        "smooth_ece": metrics.smooth_ece(p, y, uniform),
        "brier_miscalibration": corp.brier_miscalibration,
        "brier_discrimination": corp.brier_discrimination,
        "log_miscalibration": corp.log_miscalibration,
        "log_discrimination": corp.log_discrimination,
        "excess_aurc": metrics.excess_aurc(p, y, uniform),
        "augrc": metrics.augrc(p, y, uniform),
        "error_auroc": metrics.error_auroc(top.var(axis=0), ~right, uniform),
        "confidence_gap": confidence.mean() - right.mean(),
        "expected_entropy": metrics.expected_entropy(draws, uniform),
        "mutual_information": metrics.mutual_information(draws, uniform),
        "variation_ratio": metrics.variation_ratio(draws, uniform),
        "aurc": metrics.aurc(p, y, uniform),
        "jensen_shannon": distances.jensen_shannon(p, reference.mean(axis=0), uniform),
        "wasserstein_1": distances.probability_wasserstein_1(draws, reference, uniform),
    }
    for metric, number in expected.items():
        assert value_of(long, "NTK ensemble", metric) == pytest.approx(float(number)), metric


def test_class_probabilities_are_summarised_in_blocks_of_points(classification, monkeypatch):
    before = compare(classification, reference="HMC")
    monkeypatch.setattr(predictive, "BLOCK_SIZE", 1000)  # 8 of the 30 points
    after = compare(classification, reference="HMC")
    pd.testing.assert_frame_equal(before, after)


def test_regression_prefers_the_closed_form_over_draws(regression, compared):
    long, y = compared("regression", None), observations(regression["GP"])
    assert value_of(long, "GP", "rmse") == pytest.approx(np.sqrt(np.mean(y**2)))
    expected = scoringrules.crps_normal(y, 0, np.sqrt(0.8)).mean()
    assert value_of(long, "GP", "crps") == pytest.approx(expected)
    expected = np.mean(y**2) / (2 * 0.8) + 0.5 * np.log(2 * np.pi * 0.8)
    assert value_of(long, "GP", "nll") == pytest.approx(expected)
    width = 2 * 1.6448536269514722 * np.sqrt(0.8)
    assert value_of(long, "GP", "width_90") == pytest.approx(width)
    inside = np.mean(np.abs(y) < width / 2)
    assert value_of(long, "GP", "coverage_90") == pytest.approx(inside)


def test_regression_without_a_closed_form_is_a_normal_around_every_draw(regression, compared):
    long, tree = compared("regression", None), regression["HMC"]
    y, latent = observations(tree), pooled(tree)
    assert value_of(long, "HMC", "rmse") == pytest.approx(
        np.sqrt(np.mean((latent.mean(0) - y) ** 2))
    )
    density = scipy.special.logsumexp(pooled(tree, "log_likelihood/y"), axis=0) - np.log(300)
    assert value_of(long, "HMC", "nll") == pytest.approx(-density.mean())
    scales = np.full(latent.shape, np.sqrt(0.5))
    expected = scoringrules.crps_mixnorm(y, latent, scales, m_axis=0).mean()
    assert value_of(long, "HMC", "crps") == pytest.approx(expected)
    lower, upper = mixtures.central_interval(latent, np.full(y.shape, 0.5), 0.9)
    inside = np.mean((lower <= y) & (y <= upper))
    assert value_of(long, "HMC", "coverage_90") == pytest.approx(inside)
    assert value_of(long, "HMC", "width_90") == pytest.approx(np.mean(upper - lower))


def test_the_intervals_of_two_members_cover_what_they_promise():
    generator, num_points = np.random.default_rng(0), 4000
    members = generator.normal(size=(2, num_points, 1))
    chosen = np.where(generator.uniform(size=num_points) < 0.5, *members[..., 0])
    y = chosen + np.sqrt(0.5) * generator.normal(size=num_points)
    tree = from_draws(members, Gaussian(0.5), y, key=jax.random.key(0), method="two members")
    long = compare({"Deep ensemble": tree}, reference=None)
    for level in (0.5, 0.9, 0.95):
        share = value_of(long, "Deep ensemble", f"coverage_{100 * level:.0f}")
        assert abs(share - level) < 5 * np.sqrt(level * (1 - level) / num_points)


def test_metrics_of_a_regression_without_gaussian_noise_are_refused(regression):
    tree = regression["HMC"].copy()
    tree.attrs["likelihood"] = json.dumps({"name": "Poisson"})
    with pytest.raises(ValueError, match="likelihood of unnamed is Poisson"):
        compare({"HMC": tree}, reference=None)


def test_regression_distances_are_exact_between_closed_forms_only(regression, compared):
    long = compared("regression", "GP")
    assert value_of(long, "Laplace", "wasserstein_1") == pytest.approx(0, abs=1e-12)
    assert value_of(long, "Laplace", "wasserstein_1", "monte_carlo_floor") == 0
    uniform = metrics.uniform_weights(len(observations(regression["GP"])))
    expected = distances.wasserstein_1(pooled(regression["HMC"]), pooled(regression["GP"]), uniform)
    assert value_of(long, "HMC", "wasserstein_1") == pytest.approx(float(expected))
    assert value_of(long, "HMC", "wasserstein_1", "monte_carlo_floor") > 0


def test_a_method_compared_with_a_copy_of_itself_differs_by_exactly_nothing(classification):
    trees = {"HMC": classification["HMC"], "again": classification["HMC"]}
    long = compare(trees, reference="HMC")
    assert value_of(long, "again", "agreement") == pytest.approx(1)
    assert value_of(long, "again", "total_variation") == 0
    differences = paired_differences(trees, baseline="HMC", reference=None)
    assert not differences["difference"].any()
    assert not differences["standard_error"].any()


def test_paired_differences_are_differences_with_the_error_of_the_points_differences(
    classification, compared
):
    long = compared("classification", "HMC")
    paired = paired_differences(classification, baseline="Mode", reference="HMC")
    for metric in ("brier", "total_variation"):
        expected = value_of(long, "NTK ensemble", metric) - value_of(long, "Mode", metric)
        assert value_of(paired, "NTK ensemble", metric, "difference") == pytest.approx(expected)
    scores = []
    for name in ("NTK ensemble", "Mode"):
        tree = classification[name]
        p, y = probabilities(tree).mean(axis=0), observations(tree)
        scores.append(((p - np.eye(3)[y]) ** 2).sum(axis=1))
    expected = (scores[0] - scores[1]).std() / np.sqrt(len(scores[0]))
    found = value_of(paired, "NTK ensemble", "brier", "standard_error")
    assert found == pytest.approx(expected, rel=0.1)  # 1,000 resamples: 2 %
    assert ("HMC", "total_variation") not in set(
        zip(paired["method"], paired["metric"], strict=True)
    )
    assert "Mode" not in set(paired["method"])


def test_several_baselines_are_subtracted_in_turn(classification):
    both = paired_differences(classification, baseline=["HMC", "Mode"], reference="HMC")
    alone = [
        paired_differences(classification, baseline=name, reference="HMC")
        for name in ("HMC", "Mode")
    ]
    pd.testing.assert_frame_equal(both, pd.concat(alone, ignore_index=True))


def test_the_distance_matrix_is_symmetric_and_agrees_with_the_table(classification, regression):
    for trees, metric in ((classification, "total_variation"), (regression, "wasserstein_1")):
        matrix, long = distance_matrix(trees), compare(trees, reference="HMC")
        assert list(matrix.index) == list(matrix.columns) == list(trees)
        np.testing.assert_array_equal(matrix, matrix.T)
        assert not np.diag(matrix).any()
        for method in trees:
            if method != "HMC":
                expected = value_of(long, method, metric)
                assert matrix.loc[method, "HMC"] == pytest.approx(expected)
    agreement = distance_matrix(classification, measure="agreement")
    np.testing.assert_array_equal(np.diag(agreement), 1)
    with pytest.raises(ValueError, match="unknown measure 'wasserstein_2'"):
        distance_matrix(classification, measure="wasserstein_2")


def test_the_order_of_test_points_changes_nothing(iris, classification):
    order = np.random.default_rng(0).permutation(len(iris.y_test))
    shuffled = {name: tree.isel(obs_id=order) for name, tree in classification.items()}
    before, after = (compare(t, reference="HMC") for t in (classification, shuffled))
    # Batches, pairs and halves are drawn by position.
    drawn = ["joint_nll", "dyadic_nll", "scaled_nll", "temperature_gain"]
    before, after = (long[~long["metric"].isin(drawn)] for long in (before, after))
    columns = ["value", "monte_carlo_floor"]
    np.testing.assert_allclose(before[columns], after[columns], rtol=1e-9, atol=1e-12)


def test_what_is_no_dictionary_of_predictions_is_refused(classification):
    tree = classification["HMC"]
    with pytest.raises(ValueError, match="method → predictions, but is a list"):
        compare([tree], reference=None)
    with pytest.raises(
        ValueError, match="as predict makes them, but that of Mode is a Categorical"
    ):
        distance_matrix({"HMC": tree, "Mode": Categorical(3)})


def test_predictions_of_an_unnamed_dataset_are_compared_if_their_observations_are_the_same(iris):
    draws = np.random.default_rng(0).normal(size=(5, len(iris.y_test), 3))
    mine = from_draws(draws, Categorical(3), iris.y_test, key=jax.random.key(0), method="mine")
    theirs = predict_noisily(iris, Categorical(3), 3, 0, 5)
    for trees in ({"a": theirs, "b": mine}, {"b": mine, "a": theirs}):
        assert set(compare(trees, reference="b")["dataset"]) == {"iris"}
    wine = theirs.copy()
    wine.attrs["dataset"] = "wine"
    for trees in ({"a": theirs, "b": mine, "c": wine}, {"b": mine, "a": theirs, "c": wine}):
        with pytest.raises(ValueError, match=r"a and c .* dataset differs \(iris and wine\)"):
            compare(trees, reference=None)
    other = from_draws(draws, Categorical(3), iris.y_test[::-1], key=jax.random.key(0), method="o")
    with pytest.raises(ValueError, match="their observations differ"):
        compare({"a": theirs, "b": other}, reference=None)


def test_predictions_that_cannot_be_compared_are_refused(iris, classification, regression):
    with pytest.raises(ValueError, match="trees is empty"):
        compare({}, reference=None)
    with pytest.raises(ValueError, match="unknown reference 'HMCC': did you mean HMC"):
        compare(classification, reference="HMCC")
    with pytest.raises(ValueError, match="unknown baseline 'mode': did you mean Mode"):
        paired_differences(classification, baseline="mode", reference=None)
    mixed = {"a": classification["HMC"], "b": regression["HMC"]}
    with pytest.raises(ValueError, match=r"a and b .* dataset differs \(iris and diabetes\)"):
        compare(mixed, reference=None)
    train = classification["HMC"].copy()
    train.attrs["split"] = "train"
    with pytest.raises(ValueError, match=r"a and b .* split differs \(test and train\)"):
        distance_matrix({"a": classification["HMC"], "b": train})
    other = eqx.tree_at(lambda d: d.y_test, iris, (iris.y_test + 1) % 3)
    tree = predict_noisily(other, Categorical(3), 3, 0, 2)
    with pytest.raises(
        ValueError,
        match="observations differ at 30 of 30 points, such as 0, 1, 2; predict with the same",
    ):
        compare({"a": classification["HMC"], "b": tree}, reference=None)


def test_two_sets_of_draws_of_one_posterior_differ_by_no_more_than_chance():
    """The joint NLL knows of its Monte-Carlo error: p-values under the null are uniform."""
    generator, p_values, ignored = np.random.default_rng(0), [], []
    y, weights = np.ones(60, dtype=int), metrics.bootstrap_weights(60)
    weights = np.concatenate([metrics.uniform_weights(60)[None], weights])
    for _ in range(80):  # all points share their logit, and so do batches of them
        shared = generator.normal(size=(2, 100, 1, 1))
        latent = shared + 0.1 * generator.normal(size=(2, 100, 60, 1))
        trees = {
            name: from_draws(draws, Bernoulli(), y, key=jax.random.key(0), method=name)
            for name, draws in zip("ab", latent, strict=True)
        }
        found = {name: predictive.Predictive(tree) for name, tree in trees.items()}
        values = [metrics.joint_nll(found[name].log_likelihood, weights) for name in "ab"]
        unseen = comparison._Unseen(found, None).difference("a", "b", "joint_nll")
        for kept, error in ((p_values, unseen), (ignored, 0.0)):
            row = comparison.significance("joint_nll", *values, 60, unseen=error)
            kept.append(row["p_value"])
    assert np.mean(np.array(p_values) < 0.05) < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 80)
    assert np.mean(np.array(ignored) < 0.05) > 0.3


NONE = comparison._Unseen({}, None)


def test_infinite_scores_are_ranked_last_and_have_no_error():
    """Two infinite ones differ by nothing, of which nothing is known."""
    good, bad = np.array([1.0, 1.1, 0.9]), np.array([np.inf, 2.0, np.inf])
    scores = {("good", "nll"): good, ("bad", "nll"): bad, ("worse", "nll"): bad}
    assert comparison._from_best("good", "nll", scores, NONE, 30)["from_best"] == 0
    for method in ("bad", "worse"):
        row = comparison._from_best(method, "nll", scores, NONE, 30)
        assert row["from_best"] == np.inf
        assert np.isnan(row["from_best_error"])
    both = comparison.significance("nll", bad, bad, 30)
    assert both == {"difference": 0.0, "standard_error": 0.0, "p_value": 1.0}
    one = comparison.significance("nll", bad, good, 30)
    assert one["difference"] == np.inf
    assert np.isnan(one["standard_error"])
    assert np.isnan(one["p_value"])
    only = {("a", "nll"): bad, ("b", "nll"): bad}
    assert comparison._from_best("a", "nll", only, NONE, 30)["from_best"] == 0


@pytest.mark.parametrize("order", [("a", "b", "c"), ("c", "b", "a"), ("b", "a", "c")])
def test_a_method_without_a_value_leaves_the_best_of_the_others(order):
    """A method without errors has no `error_auroc`."""
    values = {"a": np.full(3, np.nan), "b": np.array([0.5, 0.4, 0.6]), "c": np.full(3, 0.7)}
    scores = {(name, "error_auroc"): values[name] for name in order}
    found = {
        n: comparison._from_best(n, "error_auroc", scores, NONE, 30)["from_best"] for n in "abc"
    }
    np.testing.assert_allclose([found["b"], found["c"]], [0.2, 0])
    assert np.isnan(found["a"])


def test_distances_at_each_point_take_no_memory_for_pairs_of_points():
    num_points, y = 3000, np.arange(3000) % 2
    trees = [
        from_probabilities(np.full((num_points, 2), 0.5), y, key=jax.random.key(0), method="m")
        for _ in range(2)
    ]
    a, b = (predictive.Predictive(tree) for tree in trees)
    tracemalloc.start()
    a.spread_distance(b)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < num_points**2  # bytes; the pairs alone would take eight times as many


@pytest.mark.parametrize("num_points", [2, 6, 8])
def test_points_that_are_all_alike_say_nothing_of_a_difference(num_points):
    """Two constant predictors, all labels right: resamples differ by rounding alone."""
    key, y = jax.random.key(0), np.zeros(num_points, int)
    confidence = np.resize([0.9, 0.91, 0.92, 0.9, 0.93, 0.91], num_points)
    for shape in (np.full(num_points, 0.9), confidence):
        trees = {
            name: from_probabilities(np.c_[c, 1 - c], y, key=key, method=name)
            for name, c in (("a", shape), ("b", shape - 0.1))
        }
        table = paired_differences(trees, baseline="a").set_index("metric")
        assert np.isnan(table.loc["confidence_gap", "p_value"])
        if np.ptp(shape) == 0:  # only by what a wrong answer would have changed
            alike = ["nll", "brier", "scaled_nll", "ece_squared"]
            assert (table.loc[alike, "p_value"] > 0.15).all()
