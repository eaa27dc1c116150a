"""The verdict: what it says of the numbers, and what it leaves out."""

from types import SimpleNamespace

import pandas as pd
import pytest
from metric_tables import difference_table, long_table

from ntkbayes.evaluation.report import verdict, verdict_baselines

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
        "GP and Mode are at the Monte-Carlo floor: with these draws, no further from HMC than two "
        "sets of draws of one and the same distribution.",
        "As close as that, for all one can tell: VI and Mode.",  # the floor, the standard error
        "Further away: Laplace (0.060).",
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
    gap = {"A": (0.05, 0.02), "B": (-0.05, 0.02), "C": (0.03, 0.02), "D": (0.01, 0.004)}
    metrics = long_table(confidence_gap=gap, accuracy={m: (0.7, 0.005) for m in gap})
    assert verdict(metrics, num_points=10_000)[1:] == [
        "Over-confident, by mean confidence minus accuracy: A (by 0.050 ± 0.020) and D (by 0.010 "
        "± 0.005).",  # D: √(0.71 · 0.29 / 10,000) = 0.0045
        "Under-confident, by mean confidence minus accuracy: B (by 0.050 ± 0.020).",
        "Mean confidence agrees with accuracy for C.",
    ]
    assert (
        verdict(metrics, num_points=1000)[-1] == "Mean confidence agrees with accuracy for C and D."
    )


def test_all_right_on_few_points_is_no_sign_of_too_little_confidence():
    """Calibrated answers of confidence 0.95 are all right on 30 points one time in five."""
    metrics = long_table(confidence_gap={"A": (-0.05, 0.005)}, accuracy={"A": (1.0, 0.0)})
    assert "Mean confidence agrees" in verdict(metrics, num_points=30)[-1]
    assert "Under-confident" in verdict(metrics, num_points=3000)[-1]


def test_the_verdict_judges_coverage_against_its_level():
    metrics = long_table(
        coverage_50={"A": (0.40, 0.03), "B": (0.70, 0.03), "C": (0.52, 0.03), "D": (0.65, 0.03)},
        coverage_95={"A": (0.80, 0.03), "B": (1.00, 0.00), "C": (0.94, 0.03), "D": (0.80, 0.03)},
    )
    assert verdict(metrics, num_points=300)[1:] == [
        "Over-confident, intervals hold too few observations: A (95% interval: 80%).",
        "Under-confident, intervals hold too many observations: B (50% interval: 70%).",
        "Too few observations at one level and too many at another: D (50% interval: 65%).",
        "Coverage agrees with the nominal levels: C.",
    ]
    full = long_table(coverage_95={"A": (1.0, 0.0)})  # 20 of 20 hold with probability 0.36
    assert "agrees" in verdict(full, num_points=20)[-1]


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
        "The most alike of all are B and C, at a distance of 0.1000.",
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
