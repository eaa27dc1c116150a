"""What a test set with hardly a wrong answer leaves unknown, by simulation and by hand."""

import jax
import numpy as np
import pytest
import scipy.stats

import ntkbayes as nb
from ntkbayes.evaluation import compare, paired_differences
from ntkbayes.evaluation.metrics.resampling import error_quantile, share_error
from ntkbayes.evaluation.predictive import Predictive
from ntkbayes.evaluation.stakes import Stake, stakes, unseen_difference, unseen_error

KEY = jax.random.key(0)


def predicted(p, y, method="m"):
    return nb.from_probabilities(p, y, key=KEY, method=method)


def losses(p, y):
    """NLL and Brier score of every point."""
    own = p[np.arange(len(y)), y]
    return {"nll": -np.log(own), "brier": 1 - 2 * own + np.sum(p**2, axis=1)}


@pytest.mark.parametrize("num_classes", [2, 5])
def test_what_is_at_stake_is_the_mean_loss_of_the_other_classes(num_classes):
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.full(num_classes, 0.5), size=12)
    y = rng.integers(0, num_classes, 12)
    found = stakes(Predictive(predicted(p, y)))
    for metric in ("nll", "brier"):
        for i, row in enumerate(p):
            top = row.argmax()
            of_each = [losses(row[None], np.array([c]))[metric][0] for c in range(num_classes)]
            others = np.delete(np.arange(num_classes), top)
            mean = np.average(np.array(of_each)[others], weights=row[others])
            assert found[metric].change[i] == pytest.approx(mean - of_each[top], rel=1e-9)
        np.testing.assert_array_equal(found[metric].right, p.argmax(axis=1) == y)


def test_a_share_of_many_has_the_error_of_its_resamples():
    """What is added falls faster than the error itself, and it is nothing far from 0 and 1."""
    assert share_error(0.5, 20) == 0
    assert share_error(1.0, 20) == pytest.approx(np.sqrt(22 / 24 * 2 / 24 / 24))
    for num_points, most in ((200, 0.7), (20_000, 0.08)):
        assert share_error(0.98, num_points) < most * np.sqrt(0.98 * 0.02 / num_points)


@pytest.mark.parametrize("num_points", [20, 50])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_scores_of_predictors_that_are_nearly_always_right_hold_the_truth(num_points, temperature):
    """Sure predictors, too sure ones and not sure enough ones; 200 test sets leave 2 %."""
    rng = np.random.default_rng(1)

    def draw(number):
        q = 1 - 0.5 * rng.beta(0.3, 2, size=number)
        odds = np.clip(temperature * np.log(q / (1 - q + 1e-300)), 0, 34)
        confidence = 1 / (1 + np.exp(-odds))
        y = (rng.uniform(size=number) > q).astype(int)
        return np.stack([confidence, 1 - confidence], axis=1), y

    many = losses(*draw(400_000))
    inside = {"nll": [], "brier": []}
    for _ in range(200):
        p, y = draw(num_points)
        at_stake = stakes(Predictive(predicted(p, y)))
        for metric, each in losses(p, y).items():
            error = np.hypot(each.std() / np.sqrt(num_points), unseen_error(at_stake[metric]))
            width = error_quantile(num_points) * error
            inside[metric].append(abs(each.mean() - many[metric].mean()) <= width)
    for metric, covered in inside.items():
        assert np.mean(covered) > 0.86, metric


def test_counts_that_are_all_zero_do_not_prove_a_rate_of_zero():
    """NLL and CRPS of a rate of 0.05: 20 zeros are 37 % of test sets."""
    rates, num_points = np.full((1, 20, 1), 0.05), 20
    rng, inside = np.random.default_rng(2), {"nll": [], "crps": []}
    counts = np.arange(40)
    probability = scipy.stats.poisson.pmf(counts, 0.05)
    of_each = {
        "nll": -scipy.stats.poisson.logpmf(counts, 0.05),
        "crps": nb.evaluation.count_mixtures.crps(np.full((1, 40), 0.05), counts.astype(float)),
    }
    for _ in range(300):
        y = rng.poisson(0.05, size=num_points)
        tree = nb.from_draws(
            np.log(rates), nb.Poisson(), y, key=KEY, method="m", x=np.zeros((num_points, 1))
        )
        at_stake = stakes(Predictive(tree))
        for metric, scores in of_each.items():
            each = scores[y]
            error = np.hypot(each.std() / np.sqrt(num_points), unseen_error(at_stake[metric]))
            truth = np.sum(probability * scores)
            inside[metric].append(abs(each.mean() - truth) <= error_quantile(num_points) * error)
    assert {metric: np.mean(covered) > 0.9 for metric, covered in inside.items()} == {
        "nll": True,
        "crps": True,
    }


def test_a_surer_predictor_is_not_better_for_want_of_a_wrong_answer():
    """By truth the less sure one is better: 3 % of the labels are wrong, which 20 seldom show."""
    rng, significant = np.random.default_rng(3), []
    for _ in range(25):
        y = (rng.uniform(size=20) < 0.03).astype(int)
        trees = {
            name: predicted(np.stack([c, 1 - c], axis=1), y, method=name)
            for name, c in (
                ("surer", rng.uniform(0.9999, 0.99999, 20)),
                ("calibrated", rng.uniform(0.96, 0.98, 20)),
            )
        }
        table = paired_differences(trees, baseline="calibrated").set_index("metric")
        significant.append(table.loc["nll", "p_value"] <= 0.05)
    assert np.mean(significant) < 0.08


def test_shares_that_would_change_alike_leave_nothing_unseen_of_their_difference():
    right = np.ones(20, bool)
    one, half = (Stake(right, np.full(20, change)) for change in (1.0, 0.5))
    assert unseen_difference(one, one) == 0
    assert unseen_difference(one, half) == pytest.approx(0.5 * share_error(1.0, 20))
    assert unseen_difference(one, None) == 0


def test_certainty_leaves_an_nll_without_error():
    """A wrong answer that was given no chance would cost infinitely much."""
    y = np.zeros(10, int)
    with pytest.warns(UserWarning, match="holds zeros"):
        tree = predicted(np.tile([1.0, 0.0], (10, 1)), y)
    found = compare({"m": tree}).set_index("metric")["standard_error"]
    assert np.isnan(found["nll"])
    assert found["brier"] == pytest.approx(2 * share_error(1.0, 10))
