"""Diagnostics of chains: numbers against ArviZ, every verdict, and what honors them."""

import dataclasses

import arviz as az
import numpy as np
import pytest
import scipy.special
from markov_chains import correlated, predictions

from ntkbayes.evaluation import chain_diagnostics, compare, paired_differences
from ntkbayes.experiment import preset, run_comparison, running

AXES = dict(chain_axis=0, draw_axis=1)


@pytest.fixture
def generator():
    return np.random.default_rng(0)


def good_chains(generator, num_chains=4, num_draws=1000, task="classification", **stats):
    latent = correlated(generator, 0.0, num_chains=num_chains, num_draws=num_draws)
    stats = {"energy": generator.normal(size=len(latent))} | stats
    return predictions(latent, num_chains, task=task, **stats)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_numbers_are_those_of_arviz(task, generator):
    latent = correlated(generator, 0.5, num_draws=1000)
    diverging, energy = np.arange(4000) % 200 == 0, np.cumsum(generator.normal(size=4000))
    tree = predictions(latent, 4, task=task, diverging=diverging, energy=energy)
    found = chain_diagnostics(tree)
    draws = scipy.special.softmax(latent, axis=-1) if task == "classification" else latent
    chains = draws.reshape(4, 1000, -1)
    assert found.max_rhat == pytest.approx(az.rhat(chains, **AXES).max())
    assert found.min_ess == pytest.approx(az.ess(chains, **AXES).min())
    assert found.max_mcse == pytest.approx(az.mcse(chains, method="mean", **AXES).max())
    np.testing.assert_allclose(found.bfmi, az.bfmi(energy.reshape(4, 1000), **AXES))
    assert found.share_diverging == 20 / 4000
    assert (found.num_divergences, found.num_chains, found.num_draws) == (20, 4, 4000)


def test_e_bfmi_is_the_change_of_energy_relative_to_its_spread(generator):
    energy = generator.normal(size=(2, 50)).cumsum(axis=1)
    latent = generator.normal(size=(100, 3, 2))
    found = chain_diagnostics(predictions(latent, 2, energy=energy.ravel()))
    for chain, values in zip(found.bfmi, energy, strict=True):
        changes = np.diff(values)
        assert chain == pytest.approx(np.mean(changes**2) / np.var(values), rel=0.05)


def test_good_chains_are_a_reliable_reference(generator):
    found = chain_diagnostics(good_chains(generator, diverging=np.zeros(4000, bool)))
    assert found.reliable
    assert found.max_rhat < 1.01
    assert found.min_ess > 3000
    assert found.verdict.startswith("reference is reliable: 4 chains, 4000 draws: largest R-hat")
    assert found.verdict.endswith("0 divergences.")


def test_chains_at_different_places_are_no_reference(generator):
    shifts = np.repeat([0.0, 0.0, 0.0, 2.0], 400)[:, None, None]
    latent = correlated(generator, 0.0) + shifts * np.array([1.0, -1.0])
    found = chain_diagnostics(predictions(latent, 4))
    assert not found.reliable
    assert found.max_rhat > 1.1
    assert found.share_above == 1
    expected = "do not use as reference: R-hat is above 1.01 for 100.0% of the predictions"
    assert found.verdict.startswith(expected)


def test_slow_chains_are_no_reference(generator):
    found = chain_diagnostics(predictions(correlated(generator, 0.98), 4, task="regression"))
    assert not found.reliable
    assert found.min_ess < 400
    assert "ESS is below 400: too few independent draws (raise num_draws; predict" in found.verdict


def test_stuck_chains_are_no_reference():
    stuck = np.repeat([0.0, 1.0], 50)[:, None, None] * np.array([[1.0, -1.0]])
    found = chain_diagnostics(predictions(stuck, 2, energy=np.repeat([3.0, 4.0], 50)))
    assert not found.reliable
    assert found.max_rhat > 1.01
    assert np.isnan(found.bfmi).all()
    assert "E-BFMI is nan" in found.verdict


def test_a_single_slow_energy_is_enough_for_no_reference(generator):
    energy = generator.normal(size=(4, 1000))
    energy[2] = energy[2].cumsum()
    found = chain_diagnostics(good_chains(generator, energy=energy.ravel()))
    assert not found.reliable
    expected = f"do not use as reference: E-BFMI is {found.bfmi[2]:.2f}, below 0.3, so the chains"
    assert found.verdict.startswith(expected)


def test_up_to_one_percent_of_the_transitions_may_diverge(generator):
    accepted, refused = (
        chain_diagnostics(good_chains(generator, diverging=np.arange(4000) < number))
        for number in (40, 41)
    )
    assert accepted.reliable
    assert accepted.verdict.endswith("40 divergences.")
    assert not refused.reliable
    expected = "do not use as reference: 1.0% of the transitions diverge, more than 1%"
    assert refused.verdict.startswith(expected)


def test_every_reason_is_given(generator):
    diverging, energy = np.ones(400, bool), generator.normal(size=400).cumsum()
    latent = correlated(generator, 0.98, num_draws=100)
    verdict = chain_diagnostics(predictions(latent, 4, diverging=diverging, energy=energy)).verdict
    for reason in ("R-hat is above", "ESS is below", "E-BFMI is", "100.0% of the transitions"):
        assert reason in verdict


def test_one_chain_cannot_be_checked(generator):
    found = chain_diagnostics(good_chains(generator, num_chains=1, num_draws=2000))
    assert not found.reliable
    assert np.isnan(found.max_rhat)
    assert found.min_ess > 1000
    expected = "do not use as reference: one chain cannot be checked (run several: num_chains)"
    assert found.verdict.startswith(expected)


def test_three_draws_per_chain_cannot_be_checked(generator):
    three, four = (chain_diagnostics(good_chains(generator, num_draws=n)) for n in (3, 4))
    assert not three.reliable
    assert np.isnan(three.max_rhat)
    assert "3 draws per chain cannot be checked, 4 or more can (raise num_draws)" in three.verdict
    assert np.isfinite(four.max_rhat)
    assert "ESS is below" in four.verdict


def test_independent_draws_need_no_diagnosis(generator):
    with pytest.raises(ValueError, match="at least 2 chains, but HMC has 1"):
        chain_diagnostics(predictions(generator.normal(size=(9, 2, 2)), 1, residual=np.zeros(9)))


def test_a_prediction_that_no_draw_changes_is_ignored(generator):
    latent = correlated(generator, 0.0, num_draws=1000)
    latent[:, 0] = 3.0
    found = chain_diagnostics(predictions(latent, 4))
    assert found.reliable
    assert np.isfinite(found.max_rhat)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_chains_that_all_stand_at_one_place_are_no_reference(task):
    """R-hat is undefined, 0/0: nothing says that they would agree if they moved."""
    found = chain_diagnostics(predictions(np.ones((4000, 3, 2)), 4, task=task))
    assert not found.reliable
    assert np.isnan(found.max_rhat)
    assert (found.min_ess, found.max_mcse) == (0, np.inf)
    assert "no prediction differs between any two draws" in found.verdict


@pytest.fixture(scope="module")
def short_run(tmp_path_factory):
    """A run whose chains are much too short, and its directory."""
    out = tmp_path_factory.mktemp("runs")
    config = preset(
        "iris", methods=("hmc", "mode", "laplace"), num_draws=10, num_warmup=20, num_train=12
    )
    return run_comparison(config, out)


def test_an_unreliable_reference_is_refused_unless_asked_for(short_run):
    trees = short_run.predictions
    with pytest.raises(ValueError, match=r"HMC: do not use as reference: .* require_reliable=F"):
        compare(trees, reference="HMC")
    with pytest.raises(ValueError, match="HMC: do not use as reference"):
        paired_differences(trees, baseline="Mode", reference="HMC")
    long = compare(trees, reference="HMC", require_reliable=False)
    assert set(long.loc[long["metric"] == "total_variation", "method"]) == {"Mode", "Laplace"}
    paired = paired_differences(trees, baseline="Mode", reference="HMC", require_reliable=False)
    assert "total_variation" in set(paired["metric"])
    assert "total_variation" in set(compare(trees, reference="Laplace")["metric"])


def test_one_chain_is_known_by_what_its_sampler_recorded(short_run):
    tree = short_run.predictions["HMC"].isel(chain=[0])
    tree.attrs["num_chains"] = 1
    with pytest.raises(ValueError, match="one chain cannot be checked"):
        compare({"HMC": tree}, reference="HMC")


def test_a_comparison_with_an_unreliable_reference_withholds_the_distances(short_run):
    assert "total_variation" not in set(short_run.metrics["metric"])
    (remark,) = (text for text in short_run.remarks if text.startswith("WARNING"))
    assert remark.startswith("WARNING: HMC: do not use as reference: ")
    assert remark.endswith("Distances from it are withheld.")
    report = (short_run.out / "report.html").read_text()
    assert "Distances from it are withheld." in report


def test_a_comparison_with_a_reliable_reference_measures_the_distances(short_run, generator):
    reliable = chain_diagnostics(good_chains(generator))
    metrics = running._metrics(short_run.config, short_run.predictions, {"HMC": reliable})
    assert "total_variation" in set(metrics["metric"])
    shown = dataclasses.replace(short_run, diagnostics={"HMC": reliable}).remarks
    assert shown[0].startswith("HMC: reference is reliable: ")
