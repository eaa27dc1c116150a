"""Distances between methods: the joint table is the functions it is made of; tests side by side."""

import jax
import numpy as np
import pytest
import scipy.stats
from metric_tables import value_of

from ntkbayes.evaluation import (
    METRICS,
    calibration_table,
    compare_joint,
    distance_matrix,
    distances,
    from_draws,
    markdown_table,
    metrics,
    observations,
    probabilities,
    wide_table,
)
from ntkbayes.likelihoods import Categorical, Gaussian

NUM_POINTS = 24
FAR = np.arange(NUM_POINTS) % 2 == 1
NUM_DRAWS = {"HMC": 80, "wider": 60, "few": 5, "Mode": 1}


def predictions(seed, num_draws, *, num_classes=3, scale=1.0, **settings):
    generator = np.random.default_rng(seed)
    labels = np.arange(NUM_POINTS) % num_classes
    latent = np.eye(num_classes)[labels] + scale * generator.normal(
        size=(num_draws, NUM_POINTS, num_classes)
    )
    return from_draws(
        latent, Categorical(num_classes), labels, key=jax.random.key(seed), method="m", **settings
    )


@pytest.fixture(scope="module")
def trees():
    scales = {"HMC": 0.5, "wider": 1.0, "few": 0.5, "Mode": 0.0}
    return {
        name: predictions(seed, number, scale=scales[name])
        for seed, (name, number) in enumerate(NUM_DRAWS.items())
    }


@pytest.fixture(scope="module")
def joint(trees):
    return compare_joint(trees, reference="HMC", far=FAR)


def test_the_joint_table_holds_what_its_functions_return(trees, joint):
    a, b = (distances.joint_draws(trees[name]) for name in ("wider", "HMC"))
    covariances = distances.covariance_comparison(a, b)
    expected = {
        "energy_distance": distances.energy_distance(a, b),
        "squared_mmd": distances.squared_mmd(a, b, bandwidth=distances.median_distance(b)),
        "mean_distance": distances.mean_distance(a, b),
        "covariance_distance": covariances.squared_distance,
        "covariance_alignment": covariances.alignment,
        "variance_near": distances.variance_ratio(a, b, ~FAR),
        "variance_far": distances.variance_ratio(a, b, FAR),
    }
    assert list(expected) == list(METRICS["joint"])
    for name, estimate in expected.items():
        assert value_of(joint, "wider", name) == estimate.value
        assert value_of(joint, "wider", name, "standard_error") == estimate.standard_error
    assert value_of(joint, "wider", "variance_near") == pytest.approx(4, rel=0.2)


def test_the_joint_table_leaves_out_what_few_draws_cannot_say(joint):
    named = {method: list(rows["metric"]) for method, rows in joint.groupby("method")}
    both = ["energy_distance", "squared_mmd", "mean_distance"]
    assert named["few"] == [*both, "variance_near", "variance_far"]
    assert named["Mode"] == both
    assert "HMC" not in named
    table = wide_table(joint)
    assert table.loc["Mode", "covariance_distance"] == "–"
    assert "≈" not in markdown_table(joint).splitlines()[2]


def test_variances_near_and_far_need_to_know_which_points_are(trees):
    assert not {"variance_near", "variance_far"} & set(
        compare_joint(trees, reference="HMC")["metric"]
    )


@pytest.mark.parametrize(
    ("far", "message"),
    [
        (np.ones(NUM_POINTS, dtype=bool), rf"far must mark some .* marks {NUM_POINTS} of"),
        (np.zeros(NUM_POINTS, dtype=bool), r"far must mark some .* marks 0 of"),
        (FAR[1:], rf"far must mark the {NUM_POINTS} test points, but has {NUM_POINTS - 1}"),
    ],
)
def test_marks_that_do_not_divide_the_points_are_refused(trees, far, message):
    with pytest.raises(ValueError, match=message):
        compare_joint(trees, reference="HMC", far=far)


def test_fewer_draws_are_used_if_asked_for(trees):
    found = compare_joint(trees, reference="HMC", max_draws=50)
    a, b = (distances.joint_draws(trees[name], max_draws=50) for name in ("wider", "HMC"))
    assert (len(a.latent), len(b.latent)) == (50, 50)
    assert value_of(found, "wider", "energy_distance") == distances.energy_distance(a, b).value


def test_a_deterministic_reference_is_refused(trees):
    with pytest.raises(ValueError, match="the reference Mode must have two draws or more"):
        compare_joint(trees, reference="Mode")
    with pytest.raises(ValueError, match="unknown reference 'HMCC': did you mean HMC"):
        compare_joint(trees, reference="HMCC")


def test_a_reference_of_short_chains_is_refused_unless_asked_for():
    chains = {"HMC": predictions(0, 8, num_chains=2), "Mode": predictions(1, 1, scale=0.0)}
    with pytest.raises(ValueError, match="HMC: do not use as reference"):
        compare_joint(chains, reference="HMC")
    assert len(compare_joint(chains, reference="HMC", require_reliable=False)) == 3


def test_the_energy_matrix_has_the_distance_of_every_two(trees):
    matrix = distance_matrix(trees, measure="energy_distance")
    np.testing.assert_array_equal(matrix, matrix.T)
    np.testing.assert_array_equal(np.diag(matrix), 0)
    for a, b in (("wider", "HMC"), ("Mode", "few")):
        draws = (distances.joint_draws(trees[name]) for name in (a, b))
        assert matrix.loc[a, b] == pytest.approx(distances.energy_distance(*draws).value)


def test_the_calibration_table_holds_the_tests_of_every_method(trees):
    table = calibration_table(trees)
    assert list(table.columns) == ["dataset", "split", "method", "test", "statistic", "p_value"]
    assert list(table["method"].unique()) == list(trees)
    for method, rows in table.groupby("method"):
        p = probabilities(trees[method]).mean(axis=0)
        expected = metrics.calibration_tests(p, observations(trees[method]))
        assert list(rows["test"]) == list(expected)
        for row, test in zip(rows.itertuples(), expected.values(), strict=True):
            assert (row.statistic, row.p_value) == (test.statistic, test.p_value)


def test_the_table_of_a_regression_has_the_pit_test():
    y = np.linspace(-2, 2, NUM_POINTS)
    tree = from_draws(
        np.zeros((2, NUM_POINTS, 1)), Gaussian(1.0), y, key=jax.random.key(0), method="m"
    )
    (row,) = calibration_table({"a": tree}).itertuples()
    expected = scipy.stats.kstest(y, "norm")  # PIT values are uniform as y is standard normal
    assert (row.method, row.test) == ("a", "pit")
    assert (row.statistic, row.p_value) == pytest.approx((expected.statistic, expected.pvalue))
