"""Predictions of counts: scores by their definitions, and the comparison of methods."""

import json

import jax
import numpy as np
import pytest
import scipy.stats
import scoringrules

import ntkbayes as nb
from ntkbayes.evaluation import count_mixtures, metrics

S, M = 7, 40


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.mark.parametrize("size", [0.3, 5.0, 400.0])
def test_crps_is_the_sum_over_counts(rng, size):
    rates = size * np.exp(rng.normal(size=(S, M)))
    y = rng.poisson(rates[0]).astype(float)
    counts = np.arange(0, int(rates.max() + 20 * np.sqrt(rates.max()) + 40 + y.max()))
    cdf = scipy.stats.poisson.cdf(counts[:, None, None], rates).mean(axis=1)
    expected = np.sum((cdf - (counts[:, None] >= y)) ** 2, axis=0)
    np.testing.assert_allclose(count_mixtures.crps(rates, y), expected, rtol=1e-10)


def test_crps_of_one_draw_is_scoringrules(rng):
    rates = rng.uniform(0.1, 30, size=(1, M))
    y = rng.poisson(rates[0]).astype(float)
    expected = scoringrules.crps_poisson(y, rates[0])
    np.testing.assert_allclose(count_mixtures.crps(rates, y), expected, rtol=1e-8)


def test_crps_of_large_counts_is_that_of_a_normal_and_takes_blocks(rng):
    """At a rate of 10¹⁰ a Poisson distribution is a normal one to 1e-5 of its width."""
    rate = 1e10
    y = np.round(rate + np.sqrt(rate) * rng.normal(size=2))
    found = count_mixtures.crps(np.full((1, 2), rate), y)
    expected = scoringrules.crps_normal(y, rate, np.sqrt(rate))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_too_many_likely_counts_are_refused():
    with pytest.raises(ValueError, match=r"at most 1e\+08 counts may be likely"):
        count_mixtures.crps(np.array([[1e16]]), np.array([3.0]))


@pytest.mark.parametrize("y", [[-1.0], [0.5]])
def test_what_counts_nothing_has_no_score(y):
    with pytest.raises(ValueError, match="y must hold counts"):
        count_mixtures.crps(np.ones((1, 1)), np.array(y))


def test_transforms_are_uniform_if_calibrated_and_not_if_over_confident(rng):
    """Of 400 data sets some 5 % are refused at 0.05; rates that vary less are refused always."""
    refused, caught = [], []
    for _ in range(400):
        rates = 2 * np.exp(rng.normal(size=(S, 100)))
        which = rng.integers(S, size=100)
        y = rng.poisson(rates[which, np.arange(100)]).astype(float)
        seed = int(rng.integers(1000))
        refused.append(metrics.pit_test(count_mixtures.pit(rates, y, seed=seed)[:, None]).p_value)
        sure = np.broadcast_to(rates.mean(axis=0), (1, 100)).copy()
        caught.append(metrics.pit_test(count_mixtures.pit(sure, y, seed=seed)[:, None]).p_value)
    assert np.mean(np.array(refused) <= 0.05) == pytest.approx(0.05, abs=3 * 0.011)
    assert np.mean(np.array(caught) <= 0.05) > 0.8


@pytest.fixture
def trees(rng, key):
    """Two methods' draws of log rates at the same points, and the counts."""
    x, xt = rng.normal(size=(50, 2)), rng.normal(size=(M, 2))
    y, yt = rng.poisson(np.exp(x[:, 0])), rng.poisson(np.exp(xt[:, 0]))
    data = nb.make_dataset(x, y, test=(xt, yt), validation_fraction=0, task="counts")
    network, poisson = nb.dense_network(depth=1), nb.Poisson()
    methods = {
        "Laplace": nb.laplace(network, poisson, data.x_train, data.y_train, prior_precision=1.0),
        "NTK ensemble": nb.ntk_ensemble(
            network, poisson, data.x_train, data.y_train, prior_precision=1.0
        ),
    }
    return {name: nb.predict(p, data, key=key, num_draws=S) for name, p in methods.items()}


def test_a_comparison_of_counts_has_scores_of_counts(trees):
    table = nb.compare(trees, reference="Laplace")
    wide = table.pivot(index="metric", columns="method", values="value")
    assert set(wide.index) == set(nb.evaluation.METRICS["counts"])
    for name, tree in trees.items():
        assert tree.attrs["task"] == "counts"
        latent = nb.evaluation.pooled(tree)[..., 0]
        y = nb.evaluation.observations(tree)[:, 0]
        mass = scipy.stats.poisson.pmf(y, np.exp(latent)).mean(axis=0)
        assert wide.loc["nll", name] == pytest.approx(-np.log(mass).mean())
        error = np.exp(latent).mean(axis=0) - y
        assert wide.loc["rmse_counts", name] == pytest.approx(np.sqrt(np.mean(error**2)))
    assert wide.loc["wasserstein_1", "NTK ensemble"] > 0


def test_tables_and_figures_of_counts(trees, tmp_path):
    table = nb.compare(trees, reference=None)
    assert "CRPS" in nb.evaluation.markdown_table(table)
    tests = nb.evaluation.calibration_table(trees)
    assert tests["test"].unique().tolist() == ["pit"]
    assert nb.evaluation.plot_pit_ecdf(trees).axes[0].get_xlabel() in ("PIT", "")
    wide = nb.evaluation.wide_table(table)
    nb.evaluation.write_report(tmp_path / "report.html", title="counts", table=wide)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "NTK ensemble" in text
    with pytest.raises(ValueError, match="coverage needs a regression task, not counts"):
        nb.evaluation.plot_coverage(trees)


def test_counts_of_another_likelihood_are_refused_by_name(trees):
    tree = trees["Laplace"].copy()
    tree.attrs["likelihood"] = json.dumps({"name": "NegativeBinomial"})
    with pytest.raises(ValueError, match=r"need the Poisson likelihood, .* is NegativeBinomial"):
        nb.compare({"Laplace": tree}, reference=None)


def test_crps_of_rates_far_apart_needs_their_neighbourhoods_only():
    """Rates of 3 and 10¹²: between them F is ½, for some 10¹² counts."""
    rates = np.array([[3.0], [1e12]])
    far = count_mixtures.crps(rates, np.array([3.0]))[0]
    assert far == pytest.approx(1e12 / 4, rel=1e-5)
    for y in (0.0, 50.0, 4e4, 1e6, 2e6):  # against the sum over all counts
        near = np.array([[3.0], [3.0], [1e6]])
        counts = np.arange(0, 2_000_010)
        cdf = scipy.stats.poisson.cdf(counts[:, None], near[:, 0]).mean(axis=1)
        expected = np.sum((cdf - (counts >= y)) ** 2)
        found = count_mixtures.crps(near, np.array([y]))[0]
        assert found == pytest.approx(expected, rel=1e-12), y
