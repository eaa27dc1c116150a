"""The verdict: what it says of the numbers, and what it leaves out."""

import re
from types import SimpleNamespace

import jax
import numpy as np
import pandas as pd
import pytest
from metric_tables import difference_table, long_table, value_of

from ntkbayes.evaluation import compare, from_draws, from_probabilities, wide_table
from ntkbayes.evaluation.report import verdict, verdict_baselines
from ntkbayes.likelihoods import Gaussian

METHODS = (
    *("NTK ensemble", "Bayesian NTK ensemble", "Laplace", "GP", "HMC", "Mode", "Deep ensemble"),
)
NLL = (0.31, 0.29, 0.33, 1.05, 0.28, 0.30, 0.295)


def test_the_verdict_names_the_closest_and_who_cannot_be_told_from_it():
    metrics = long_table(
        total_variation={
            "Laplace": (0.060, 0.001, 0.010),
            "GP": (0.011, 0.001, 0.010),
            "VI": (0.015, 0.001, 0.010),
            "Mode": (0.040, 0.020, 0.001),
        }
    )
    apart = {"Laplace": (0.049, 0.001), "VI": (0.004, 0.0005), "Mode": (0.029, 0.02)}
    differences = difference_table("total_variation", "GP", **apart)
    found = verdict(metrics, num_points=100, reference="HMC", differences=differences)
    assert found == [
        "Closest to HMC is GP: total variation 0.011 ± 0.001.",
        "GP and Mode are at the Monte-Carlo floor: with these draws, mean probabilities are no "
        "further from HMC than two sets of draws of one and the same distribution.",
        "As close as that, for all one can tell: VI and Mode.",  # the floor, the standard error
        "Further away: Laplace (0.060 ± 0.001).",
    ]
    alone = verdict(metrics, num_points=100, reference="HMC")
    assert alone == found[:2]


def test_the_verdict_calls_a_difference_of_nll_only_beyond_two_errors():
    metrics = long_table(nll={"A": (0.30, 0.05), "B": (0.31, 0.05), "C": (0.32, 0.05)})
    differences = difference_table("nll", "A", B=(0.01, 0.0049), C=(0.02, 0.011))
    *_, found = verdict(metrics, num_points=100, differences=differences)
    assert found == (
        "Lowest NLL: A, 0.300 ± 0.050 nats. Worse on the same test points: B (by 0.010 ± 0.005). "
        "No significant difference from it: C."
    )
    *_, found = verdict(metrics, num_points=100)
    assert found == "Lowest NLL: A, 0.300 ± 0.050 nats."


def test_the_verdict_tells_over_from_under_confidence_by_the_sign_of_the_gap():
    gap = {"A": (0.05, 0.02), "B": (-0.05, 0.02), "C": (0.03, 0.02), "D": (0.01, 0.0049)}
    metrics = long_table(confidence_gap=gap)
    assert verdict(metrics, num_points=10_000)[1:] == [
        "Over-confident, by mean confidence minus accuracy: A (by 0.050 ± 0.020) and D (by 0.010 "
        "± 0.005).",
        "Under-confident, by mean confidence minus accuracy: B (by 0.050 ± 0.020).",
        "Mean confidence agrees with accuracy for C.",
    ]
    # Student with 9 degrees of freedom: 2.26 errors are needed for a claim.
    assert (
        verdict(metrics, num_points=10)[-1] == "Mean confidence agrees with accuracy for C and D."
    )


def test_without_an_error_nothing_is_claimed():
    unknown = np.nan
    metrics = long_table(
        nll={"A": (0.3, unknown), "B": (0.9, unknown)},
        confidence_gap={"A": (0.5, unknown), "B": (-0.5, unknown)},
        total_variation={"A": (0.1, unknown, 0.01), "B": (0.9, unknown, 0.01)},
        coverage_90={"A": (0.0, unknown), "B": (1.0, unknown)},
    )
    differences = pd.concat(
        [difference_table(name, "A", B=(0.7, unknown)) for name in ("nll", "total_variation")]
    )
    settings = {"reference": "HMC", "differences": differences}
    assert verdict(metrics, num_points=100, **settings) == [
        "Closest to HMC is A: total variation 0.100.",
        "Lowest NLL: A, 0.300 nats.",
    ]
    (alone,) = verdict(metrics, num_points=1, **settings)
    assert alone.startswith("A single test point says nothing of others")
    assert verdict_baselines(metrics.assign(value=unknown)) == []


def test_the_verdict_says_the_standard_error_that_the_table_says():
    """An under-confident predictor: the error under calibration would be twice as large."""
    rng = np.random.default_rng(0)
    y = np.arange(400) % 2
    right = rng.uniform(size=400) < 0.98
    p = np.where((np.eye(2)[y] > 0) == right[:, None], 0.8, 0.2)
    trees = {"m": from_probabilities(p, y, key=jax.random.key(0), method="m")}
    metrics = compare(trees, reference=None)
    error = value_of(metrics, "m", "confidence_gap", "standard_error")
    assert error < 0.6 * np.sqrt(0.8 * 0.2 / 400)
    text = next(t for t in verdict(metrics, num_points=400) if t.startswith("Under-confident"))
    assert f"± {error:.3f})" in text


def test_every_number_is_that_of_the_table_with_its_error_and_its_decimals():
    metrics = long_table(
        nll={"A": (0.2984, 0.0004), "B": (0.3111, 0.0251)},
        confidence_gap={"A": (-0.0512, 0.0002), "B": (0.0498, 0.0003)},
        coverage_90={"A": (0.8123, 0.0004), "B": (0.9511, 0.0171)},
        total_variation={"A": (0.0105, 0.0004, 0.0018), "B": (0.0296, 0.0021, 0.0039)},
    )
    apart = pd.concat(
        difference_table(name, "A", B=numbers)
        for name, numbers in {"nll": (0.0127, 0.0003), "total_variation": (0.0191, 0.0018)}.items()
    )
    found = verdict(metrics, num_points=999, reference="HMC", differences=apart)
    said = re.findall(r"\d\.\d+ ± \d\.\d+", " ".join(found))
    cells = [text.removeprefix("-") for text in wide_table(metrics).to_numpy().ravel()]
    assert len(said) == 8
    assert set(said) - {"0.0127 ± 0.0003"} <= set(cells)


def test_all_right_on_few_points_is_no_sign_of_too_little_confidence():
    """Calibrated answers of confidence 0.95 are all right on 30 points one time in five."""
    found = {}
    for num_points in (30, 3000):
        y = np.arange(num_points) % 2
        p = np.where(np.eye(2)[y] > 0, 0.95, 0.05)
        trees = {"A": from_probabilities(p, y, key=jax.random.key(0), method="A")}
        table = compare(trees, reference=None)
        found[num_points] = " ".join(verdict(table, num_points=num_points))
    assert "Mean confidence agrees" in found[30]
    assert "Under-confident" in found[3000]


def test_the_verdict_judges_coverage_against_its_level():
    metrics = long_table(
        coverage_50={"A": (0.40, 0.03), "B": (0.70, 0.03), "C": (0.52, 0.03), "D": (0.65, 0.03)},
        coverage_95={"A": (0.80, 0.03), "B": (1.00, 0.01), "C": (0.94, 0.03), "D": (0.80, 0.03)},
    )
    assert verdict(metrics, num_points=300)[1:] == [
        "Over-confident, intervals hold too few observations: A (95 % interval: 0.800 ± 0.030).",
        "Under-confident, intervals hold too many observations: B (50 % interval: 0.700 ± 0.030).",
        "Too few observations at one level and too many at another: D (50 % interval: 0.650 "
        "± 0.030).",
        "Coverage agrees with the nominal levels: C.",
    ]


def test_all_covered_on_few_points_is_no_sign_of_too_wide_intervals():
    """20 of 20 are in a central 95 % interval with probability 0.36."""
    y = np.linspace(-1.5, 1.5, 20)
    tree = from_draws(np.zeros((2, 20, 1)), Gaussian(1.0), y, key=jax.random.key(0), method="A")
    table = compare({"A": tree}, reference=None)
    table = table[table["metric"] == "coverage_95"]
    assert table["value"].item() == 1
    assert "agrees" in verdict(table, num_points=20)[-1]


@pytest.mark.parametrize("reliable", [True, False])
def test_the_verdict_says_whether_the_reference_is_reliable(reliable):
    metrics = long_table(nll={"HMC": (0.3, 0.1)})
    found = SimpleNamespace(max_rhat=1.004, min_ess=512.3, reliable=reliable)
    (text,) = verdict(metrics, num_points=9, reference="HMC", diagnostics={"HMC": found})
    start = "HMC is reliable" if reliable else "HMC is not reliable"
    assert text.startswith(start)
    assert "largest R-hat 1.004, smallest ESS 512" in text


def test_without_a_reference_the_verdict_names_the_most_alike():
    names = ["A", "B", "C"]
    distances = pd.DataFrame([[0, 0.3, 0.2], [0.3, 0, 0.1], [0.2, 0.1, 0]], names, names)
    metrics = long_table(nll={"A": (0.3, 0.1)})
    assert verdict(metrics, num_points=9, distances=distances) == [
        "No method serves as a reference, so no distance from the posterior is given.",
        "The most alike of all are B and C, at a distance of 0.100.",
    ]


def test_rounding_is_no_difference():
    """Methods that agree exactly differ by some 1e-9, always with the same sign."""
    names = ["A", "B", "C"]
    distances = pd.DataFrame([[0, 1e-9, 0.2], [1e-9, 0, 0.2], [0.2, 0.2, 0]], names, names)
    metrics = long_table(nll={"A": (0.3, 0.05), "B": (0.3, 0.05)})
    differences = difference_table("nll", "A", B=(1e-9, 1e-10))
    assert verdict(metrics, num_points=9, distances=distances, differences=differences)[1:] == [
        "No distance to speak of between A and B: below 0.0005.",
        "Lowest NLL: A, 0.300 ± 0.050 nats. No significant difference from it: B.",
    ]


def test_baselines_are_the_best_and_the_closest():
    metrics = long_table(
        nll={"A": (0.3, 0.1), "B": (0.2, 0.1)}, wasserstein_1={"A": (0.1, 0.1), "B": (0.2, 0.1)}
    )
    assert verdict_baselines(metrics) == ["B", "A"]


def test_the_verdict_refuses_tables_it_cannot_read():
    metrics = long_table(nll={"A": (0.3, 0.1)})
    with pytest.raises(
        ValueError, match=r"metrics must have the columns .*lacks monte_carlo_floor"
    ):
        verdict(metrics.drop(columns="monte_carlo_floor"), num_points=9)
    with pytest.raises(ValueError, match="metrics is empty"):
        verdict(metrics.iloc[:0], num_points=9)
    with pytest.raises(ValueError, match="num_points must be at least 1, but is 0"):
        verdict(metrics, num_points=0)
    with pytest.raises(ValueError, match=r"differences must have the columns .*lacks baseline"):
        verdict(metrics, num_points=9, differences=pd.DataFrame({"method": ["A"]}))


def test_the_verdict_says_where_mean_probabilities_agree_and_draws_do_not():
    """A method at the floor by total variation whose draws spread less."""
    metrics = long_table(
        total_variation={"GP": (0.003, 0.0002, 0.004), "Mode": (0.003, 0.0002, 0.004)},
        wasserstein_1={"GP": (0.004, 0.0003, 0.005), "Mode": (0.021, 0.0005, 0.005)},
    )
    found = verdict(metrics, num_points=100, reference="HMC")
    assert found[1].startswith("GP and Mode are at the Monte-Carlo floor: with these draws, mean")
    assert found[2] == (
        "Their draws spread otherwise, by Wasserstein-1 between draws: Mode (0.0210 ± 0.0005)."
    )
