"""Scores in standardised and in original units, against scores computed by hand in the latter."""

import json

import jax
import numpy as np
import pytest
import scipy.stats

import ntkbayes as nb
from ntkbayes.evaluation import METRICS, observations, original_units, pooled


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture(params=[1, 2], ids=["one target", "two targets"])
def problem(request, key):
    """Data with targets of large scale, a GP's predictions, and the targets themselves."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 2))
    y = np.stack([300 + 50 * x[:, 0], 0.01 * x[:, 1] ** 2], axis=1)[:, : request.param]
    y += 0.1 * y.std(axis=0) * rng.normal(size=y.shape)
    y = y if request.param > 1 else y[:, 0]
    data = nb.make_dataset(x, y, test=np.arange(20), validation_fraction=0, task="regression")
    gp = nb.gp_posterior(
        nb.dense_network(depth=1), nb.Gaussian(0.1, request.param), data.x_train, data.y_train,
        prior_precision=1.0,
    )  # fmt: skip
    return data, nb.predict(gp, data, key=key, num_draws=30), y[:20].reshape(20, -1)


def test_original_units_are_those_of_the_targets(problem):
    data, tree, y = problem
    original = original_units(tree)
    np.testing.assert_allclose(observations(original), y, rtol=1e-12)
    scale, mean = np.atleast_1d(data.target_scale), np.atleast_1d(data.target_mean)
    np.testing.assert_allclose(pooled(original), pooled(tree) * scale + mean, rtol=1e-12)
    assert original.attrs["units"] == "original"
    assert original_units(original) is original
    noise = np.broadcast_to(json.loads(original.attrs["likelihood"])["noise_variance"], scale.shape)
    np.testing.assert_allclose(noise, 0.1 * scale**2, rtol=1e-12)
    log_density = scipy.stats.norm.logpdf(y, pooled(original), np.sqrt(noise)).sum(axis=-1)
    np.testing.assert_allclose(pooled(original, "log_likelihood/y"), log_density, rtol=1e-9)


def test_scores_in_original_units_are_those_of_normals_given_in_them(problem, key):
    """The closed form as `from_normals` in original units: every score, and its error."""
    data, tree, y = problem
    scale, mean = np.atleast_1d(data.target_scale), np.atleast_1d(data.target_mean)
    means = np.asarray(tree["closed_form/mean"]) * scale + mean
    variances = (np.asarray(tree["closed_form/variance"]) + 0.1) * scale**2
    hand = nb.from_normals(means, variances, y, key=key, method="GP")
    found, expected = (
        nb.compare({"GP": t}, units="original").set_index("metric") for t in (tree, hand)
    )
    for metric in expected.index:
        if metric in ("joint_nll", "energy_score"):  # of draws
            continue
        for column in ("value", "standard_error"):
            assert found.loc[metric, column] == pytest.approx(
                expected.loc[metric, column], rel=1e-8
            ), metric
    assert found.loc["rmse", "unit"] == expected.loc["rmse", "unit"] == "target units"


def test_of_one_target_only_the_unit_changes(problem):
    data, tree, y = problem
    standardised, original = (
        nb.compare({"GP": tree}, units=units).set_index("metric")["value"]
        for units in ("standardised", "original")
    )
    if y.shape[1] > 1:  # the pooled scores of several are others
        assert original["rmse"] != pytest.approx(standardised["rmse"])
        return
    for metric, value in standardised.items():
        unit = METRICS["regression"][metric].unit
        factor = data.target_scale if unit == "target units" else 1.0
        shift = np.log(data.target_scale) if unit == "nats" else 0.0
        assert original[metric] == pytest.approx(factor * value + shift, rel=1e-9), metric


def test_tables_say_what_is_standardised(problem):
    _, tree, _ = problem
    table = nb.compare({"GP": tree})
    units = table.set_index("metric")["unit"]
    assert units["rmse"] == "standardised target units"
    assert (units["nll"], units["coverage_90"]) == ("nats", "")
    text = nb.evaluation.markdown_table(table, metrics=["rmse", "nll"])
    assert "| RMSE, standardised | NLL |" in text
    original = nb.compare({"GP": tree}, units="original")
    assert "| RMSE |" in nb.evaluation.markdown_table(original, metrics=["rmse"])


def test_ours_and_anothers_predictions_meet_in_original_units(problem, key):
    """The other tool knows nothing of our units, and has its own rounding."""
    _, tree, y = problem
    theirs = nb.from_normals(
        np.zeros_like(y), np.ones_like(y), y.astype(np.float32), key=key, method="theirs"
    )
    both = {"GP": tree, "theirs": theirs}
    with pytest.raises(ValueError, match="targets are standardised; use compare"):
        nb.compare(both)
    rmse = nb.compare(both, units="original").query("metric == 'rmse'").set_index("method")
    assert rmse.loc["theirs", "value"] == pytest.approx(np.sqrt(np.mean(y**2)), rel=1e-6)
    differences = nb.evaluation.paired_differences(both, baseline="theirs", units="original")
    assert (differences.query("metric == 'rmse'")["difference"] < 0).all()


def test_observations_that_differ_by_more_than_rounding_are_others(key):
    y = np.arange(5.0)
    one, other = (nb.from_normals(v, np.ones(5), v, key=key, method="m") for v in (y, y + 1e-9))
    with pytest.raises(ValueError, match="their observations differ"):
        nb.compare({"one": one, "other": other})


def test_classes_have_no_units(key):
    tree = nb.from_probabilities(np.full((4, 2), 0.5), np.array([0, 1, 1, 0]), key=key, method="m")
    table = nb.compare({"m": tree}, units="original").set_index("metric")["unit"]
    assert (table["nll"], table["accuracy"]) == ("nats", "")
    assert original_units(tree) is tree
    with pytest.raises(ValueError, match="unknown units 'metres'"):
        nb.compare({"m": tree}, units="metres")
