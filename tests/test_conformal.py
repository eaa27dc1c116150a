"""Conformal sets and intervals: their coverage in simulation, and the sets of MAPIE."""

import math

import jax
import numpy as np
import pytest

import ntkbayes as nb
from ntkbayes.evaluation.conformal import (
    _aps_scores,
    _threshold,
    conformal_intervals,
    conformal_sets,
)
from ntkbayes.evaluation.conformal_table import conformal_table

NUM_VAL, NUM_TEST, C = 60, 12, 4


def predictions(latent, y, likelihood, split, *, name="made", draws=None, **settings):
    """A tree of given latent values (m c), as one draw, or of `draws` (s m c)."""
    latent = np.asarray(latent)[None] if draws is None else np.asarray(draws)
    settings = {"method": "mine", "key": jax.random.key(0)} | settings
    return nb.from_draws(latent, likelihood, y, dataset=name, split=split, **settings)


def known_classes(generator, size):
    logits = 1.5 * generator.normal(size=(size, C))
    p = np.exp(logits)
    p /= p.sum(axis=1, keepdims=True)
    return p, np.array([generator.choice(C, p=row) for row in p])


@pytest.fixture(scope="module")
def classes():
    """Probabilities and labels from which MAPIE's numbers below were computed."""
    return known_classes(np.random.default_rng(0), NUM_VAL + NUM_TEST)


@pytest.fixture(scope="module")
def class_trees(classes):
    p, y = classes
    likelihood, latent = nb.Categorical(C), np.log(p)
    return (
        predictions(latent[:NUM_VAL], y[:NUM_VAL], likelihood, "val"),
        predictions(latent[NUM_VAL:], y[NUM_VAL:], likelihood, "test"),
    )


@pytest.fixture(scope="module")
def regression_trees():
    generator = np.random.default_rng(1)
    mean, spread = generator.normal(size=(2, 100, 1)), generator.normal(size=(30, 100, 1))
    draws = mean[0] + np.abs(mean[1]) * spread
    y = (mean[0] + generator.standard_t(3, size=(100, 1)))[:, 0]
    likelihood = nb.Gaussian(0.25)
    return [
        predictions(None, y[rows], likelihood, split, draws=draws[:, rows])
        for split, rows in (("val", slice(0, 60)), ("test", slice(60, None)))
    ], (draws, y)


def as_text(members):
    return ["".join(map(str, np.flatnonzero(row))) for row in members]


def test_lac_sets_are_those_of_mapie(class_trees):
    # MAPIE 1.6.0, SplitConformalClassifier(conformity_score="lac", prefit=True), level 0.8.
    found = conformal_sets(*class_trees, level=0.8)
    assert found.threshold == pytest.approx(0.77294983, abs=1e-8)
    expected = ["02", "3", "23", "023", "3", "13", "1", "2", "3", "3", "0", "1"]
    assert as_text(found.members) == expected
    np.testing.assert_array_equal(found.size, [len(text) for text in expected])


def test_aps_sets_are_those_of_mapie(classes):
    # MAPIE 1.6.0, conformity_score="aps", include_last_label="randomized", random_state=3, whose
    # numbers are 1 − u, drawn afresh from the same state for validation and test points.
    p, y = classes
    u_val, u_test = (1 - np.random.RandomState(3).uniform(size=m) for m in (NUM_VAL, NUM_TEST))
    scores = _aps_scores(p[:NUM_VAL], u_val)[np.arange(NUM_VAL), y[:NUM_VAL]]
    threshold = _threshold(scores[:, None], 0.8)
    np.testing.assert_allclose(threshold, [0.82499523], atol=1e-8)
    members = _aps_scores(p[NUM_VAL:], u_test) <= threshold
    expected = ["02", "03", "23", "03", "3", "013", "01", "2", "03", "3", "02", "13"]
    assert as_text(members) == expected


def test_the_threshold_of_residuals_is_that_of_mapie():
    # MAPIE 1.6.0, SplitConformalRegressor(prefit=True), level 0.8: half the width of an interval.
    generator = np.random.default_rng(7)
    mean = generator.normal(size=72)
    y = mean + generator.standard_t(3, size=72)
    np.testing.assert_allclose(
        _threshold(np.abs(y - mean)[:60, None], 0.8), [1.506005504], rtol=1e-9
    )


def test_aps_scores_are_sums_over_more_probable_classes():
    p, u = np.array([[0.2, 0.5, 0.3], [0.25, 0.25, 0.5]]), np.array([0.4, 1.0])
    expected = [[0.8 + 0.08, 0.2, 0.5 + 0.12], [0.75, 1.0, 0.5]]
    np.testing.assert_allclose(_aps_scores(p, u), expected)


def test_intervals_are_scaled_by_the_predictive_deviation(regression_trees):
    (val, test), (draws, y) = regression_trees
    found = conformal_intervals(val, test, level=0.9)
    mean = draws.mean(axis=0)[:, 0]
    deviation = np.sqrt(draws.var(axis=0)[:, 0] + 0.25)
    scores = sorted(abs(y - mean)[:60] / deviation[:60])
    q = scores[math.ceil(61 * 0.9) - 1]
    assert found.threshold[0] == pytest.approx(q)
    np.testing.assert_allclose(found.lower[:, 0], (mean - q * deviation)[60:])
    np.testing.assert_allclose(found.upper[:, 0], (mean + q * deviation)[60:])
    np.testing.assert_allclose(found.size, found.upper - found.lower)
    inside = (found.lower[:, 0] <= y[60:]) & (y[60:] <= found.upper[:, 0])
    np.testing.assert_array_equal(found.covered[:, 0], inside)


@pytest.mark.parametrize("distortion", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("score", ["lac", "aps"])
def test_sets_cover_at_the_level_whatever_the_probabilities_are_worth(score, distortion):
    n, m, level, repeats = 24, 20, 0.75, 300
    coverage = []
    for seed in range(repeats):
        p, y = known_classes(np.random.default_rng(seed), n + m)
        # Twisted and turned: the predictions are neither sharp as they should be nor right.
        wrong = p**distortion * [1, 2, 3, 4]
        wrong /= wrong.sum(axis=1, keepdims=True)
        generator = np.random.default_rng(10_000 + seed)
        u = generator.uniform(size=n + m)
        scores = 1 - wrong if score == "lac" else _aps_scores(wrong, u)
        of_label = scores[np.arange(n + m), y]
        q = _threshold(of_label[:n, None], level)[0]
        coverage.append(np.mean(of_label[n:] <= q))
    # Exactly ⌈25 · 0.75⌉ / 25 on average, scores being continuous.
    error = np.std(coverage) / np.sqrt(repeats)
    assert abs(np.mean(coverage) - 19 / 25) < 4 * error
    assert error < 0.01


def test_intervals_cover_at_the_level_whatever_the_deviation_is_worth():
    coverage, level = [], 0.9
    likelihood = nb.Gaussian(0.01)
    for seed in range(60):
        generator = np.random.default_rng(seed)
        mean = generator.normal(size=(120, 1))
        y = mean[:, 0] + generator.standard_t(2, size=120) * (1 + np.abs(mean[:, 0]))
        trees = [
            predictions(mean[rows] + 0.5, y[rows], likelihood, split)
            for split, rows in (("val", slice(0, 39)), ("test", slice(39, None)))
        ]
        coverage.append(conformal_intervals(*trees, level=level).covered.mean())
    error = np.std(coverage) / np.sqrt(len(coverage))
    assert abs(np.mean(coverage) - 36 / 40) < 4 * error
    assert error < 0.01


def test_better_probabilities_give_smaller_sets_and_lac_the_smallest():
    p, y = known_classes(np.random.default_rng(2), 4000)
    likelihood, sizes = nb.Categorical(C), {}
    for name, q in (("right", p), ("worse", p**0.3 * [1, 3, 1, 3])):
        latent = np.log(q)
        trees = [
            predictions(latent[rows], y[rows], likelihood, split)
            for split, rows in (("val", slice(0, 2000)), ("test", slice(2000, None)))
        ]
        for score in ("lac", "aps"):
            found = conformal_sets(*trees, level=0.9, score=score)
            sizes[name, score] = found.size.mean()
            error = np.sqrt(0.09 / 2000 + 0.09 / 2000)
            assert abs(found.covered.mean() - 0.9) < 4 * error
    assert sizes["right", "lac"] < sizes["right", "aps"] < sizes["worse", "aps"]
    assert sizes["right", "lac"] < sizes["worse", "lac"] - 0.1


@pytest.mark.parametrize("score", ["lac", "aps"])
def test_covered_and_size_are_those_of_the_sets(class_trees, classes, score):
    found, y = conformal_sets(*class_trees, level=0.7, score=score), classes[1][NUM_VAL:]
    assert found.members.shape == (NUM_TEST, C)
    np.testing.assert_array_equal(found.covered, [found.members[i, c] for i, c in enumerate(y)])
    np.testing.assert_array_equal(found.size, found.members.sum(axis=1))


def test_one_logit_counts_as_two_classes(class_trees):
    generator = np.random.default_rng(3)
    logit = generator.normal(size=(80, 1))
    y = (generator.logistic(size=80) < logit[:, 0]).astype(int)
    found = []
    for likelihood in (nb.Bernoulli(), nb.Categorical(2)):
        latent = np.hstack([0 * logit, logit]) if likelihood.num_outputs == 2 else logit
        trees = [
            predictions(latent[rows], y[rows], likelihood, split)
            for split, rows in (("val", slice(0, 50)), ("test", slice(50, None)))
        ]
        found.append(conformal_sets(*trees, level=0.8, score="aps", seed=4))
    np.testing.assert_array_equal(found[0].members, found[1].members)


@pytest.mark.parametrize(
    ("n", "level", "rank"),
    [(99, 0.55, 55), (19, 0.95, 19), (9, 0.9, 9), (10, 0.9, 10), (4, 0.5, 3)],
)
def test_the_threshold_is_the_right_order_statistic(n, level, rank):
    scores = np.random.default_rng(0).permutation(np.arange(1.0, n + 1))
    assert _threshold(scores[:, None], level) == rank


def test_the_seed_decides_the_aps_sets(class_trees):
    one, again, other = (
        conformal_sets(*class_trees, level=0.6, score="aps", seed=s).members for s in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, again)
    assert np.any(one != other)


def test_the_table_has_coverage_and_size_with_errors_over_test_points(class_trees):
    val, test = class_trees
    names = {"one": val, "two": val}, {"one": test, "two": test}
    table = conformal_table(*names, level=0.7, score="aps").set_index(["method", "metric"])
    found = conformal_sets(val, test, level=0.7, score="aps")
    for method in ("one", "two"):
        assert table.loc[(method, "coverage"), "value"] == pytest.approx(found.covered.mean())
        size = table.loc[(method, "size")]
        assert size["value"] == pytest.approx(found.size.mean())
        expected = found.size.std() / np.sqrt(NUM_TEST)
        assert size["standard_error"] == pytest.approx(expected, rel=5 / np.sqrt(2000))
    assert set(table["score"]) == {"aps"}


def test_the_table_of_a_regression_is_that_of_its_intervals(regression_trees):
    (val, test), _ = regression_trees
    table = conformal_table({"a": val}, {"a": test}, level=0.8).set_index("metric")
    found = conformal_intervals(val, test, level=0.8)
    assert table.loc["coverage", "value"] == pytest.approx(found.covered.mean())
    assert table.loc["size", "value"] == pytest.approx(found.size.mean())
    assert set(table["score"]) == {"residual"}


def test_what_is_no_pair_of_predictions_is_refused(class_trees, regression_trees, classes):
    (val, test), (p, y) = class_trees, classes
    with pytest.raises(ValueError, match="they are of test and test"):
        conformal_sets(test, test, level=0.9)
    with pytest.raises(ValueError, match="they are of val and val"):
        conformal_sets(val, val, level=0.9)
    other = predictions(np.log(p), y, nb.Categorical(C), "test", method="other")
    with pytest.raises(ValueError, match="of one method, but are of mine and other"):
        conformal_sets(val, other, level=0.9)
    other = predictions(np.log(p), y, nb.Categorical(C), "test", name="else")
    with pytest.raises(ValueError, match="of one dataset, but are of made and else"):
        conformal_sets(val, other, level=0.9)
    shifted = predictions(np.log(p), y, nb.Categorical(C), "test", name="made/blur-3")
    assert len(conformal_sets(val, shifted, level=0.9).size) == len(y)
    fewer = predictions(np.log(p[:, :3]), y % 3, nb.Categorical(3), "test")
    with pytest.raises(ValueError, match="they predict 4 and 3 classes"):
        conformal_sets(val, fewer, level=0.9)
    tempered = predictions(np.log(p), y, nb.Categorical(C), "test", settings={"temperature": 2.0})
    with pytest.raises(ValueError, match="of one settings, but are of"):
        conformal_sets(val, tempered, level=0.9)
    named = predictions(np.log(p), y, nb.Categorical(C), "test", output_names=list("abcd"))
    assert len(conformal_sets(val, named, level=0.9).size) == len(y)
    other = predictions(np.log(p), y, nb.Categorical(C), "val", output_names=list("abdc"))
    with pytest.raises(ValueError, match="names of their classes differ, number 2 being 'd' and"):
        conformal_sets(other, named, level=0.9)
    with pytest.raises(ValueError, match="use conformal_sets"):
        conformal_intervals(val, test, level=0.9)
    with pytest.raises(ValueError, match="need a classification task"):
        conformal_sets(*regression_trees[0], level=0.9)
    with pytest.raises(ValueError, match="of the same methods, but are of a and b"):
        conformal_table({"a": val}, {"b": test}, level=0.9)


def test_settings_out_of_range_are_refused(class_trees):
    with pytest.raises(ValueError, match="unknown score 'raps'"):
        conformal_sets(*class_trees, level=0.9, score="raps")
    for level in (0.0, 1, 90):
        with pytest.raises(ValueError, match="level must lie between 0 and 1"):
            conformal_sets(*class_trees, level=level)
    with pytest.raises(ValueError, match=r"level 0.99 needs at least 99 validation points.*are 60"):
        conformal_sets(*class_trees, level=0.99)
    with pytest.raises(ValueError, match="seed must be at least 0"):
        conformal_sets(*class_trees, level=0.9, score="aps", seed=-1)
