"""ArviZ' own functions on trees of predictions, as they are."""

from functools import partial

import arviz as az
import jax
import matplotlib.pyplot as plt
import numpy as np
import pytest
import scipy.special
import scipy.stats
import xarray as xr

import ntkbayes as nb
from ntkbayes.evaluation import from_draws, leave_one_out, pooled, probabilities

NETWORK = nb.dense_network(depth=1, width=16, activation="erf", bias_scale=0.3)
NOISE = 0.5


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def train_predictions(data, method, likelihood, prior_precision, seed=0):
    fitted = method(
        NETWORK, likelihood, data.x_train, data.y_train, prior_precision=prior_precision
    )
    return nb.predict(fitted, data, key=jax.random.key(seed), num_draws=1000, split="train")


@pytest.fixture(scope="module")
def regression():
    data = nb.load_dataset("diabetes", num_train=120)
    return train_predictions(data, nb.gp_posterior, nb.Gaussian(NOISE), 10.0)


@pytest.fixture(scope="module")
def classification():
    data = nb.load_dataset("iris", num_train=60)
    return train_predictions(data, nb.laplace, nb.Categorical(3), 1.0)


@pytest.fixture(scope="module")
def binary():
    data = nb.load_dataset("moons", num_train=100)
    return train_predictions(data, nb.laplace, nb.Bernoulli(), 1.0)


def test_summary_describes_the_latent_function_by_its_names(classification):
    table = az.summary(classification, round_to="none")
    latent = pooled(classification)
    assert len(table) == latent[0].size
    row = table.loc["latent[7, versicolor]"]
    assert row["mean"] == pytest.approx(latent[:, 7, 1].mean())
    assert row["sd"] == pytest.approx(latent[:, 7, 1].std(ddof=1), rel=1e-3)


def test_summary_finds_the_chains(regression):
    latent = pooled(regression)[:, :3]
    tree = from_draws(
        latent, nb.Gaussian(NOISE), np.zeros(3), key=jax.random.key(0), method="a", num_chains=4
    )
    assert tuple(tree["posterior"].sizes[dim] for dim in ("chain", "draw")) == (4, 250)
    table = az.summary(tree, round_to="none")
    assert np.all(np.abs(table["r_hat"] - 1) < 0.03)  # independent draws


def test_loo_needs_nothing_but_the_tree(regression, classification, binary):
    for tree in (regression, classification, binary):
        found = az.loo(tree)
        assert found.n_data_points == tree["observed_data"].sizes["obs_id"]
        assert not found.warning
    exact = leave_one_out(regression)
    assert exact.closed_form
    # Errors of 120 points of some hundredths of a nat each.
    assert az.loo(regression).elpd == pytest.approx(exact.elpd, abs=1.0)


def test_compare_ranks_the_better_prior_first(classification):
    data = nb.load_dataset("iris", num_train=60)
    vague = train_predictions(data, nb.laplace, nb.Categorical(3), 1000.0)
    table = az.compare({"vague": vague, "sensible": classification})
    assert list(table.index) == ["sensible", "vague"]
    assert float(table["elpd_diff"].iloc[1]) < 0


@pytest.mark.parametrize(("kind", "panels"), [("classification", 3), ("binary", 1)])
def test_plot_ppc_pava_shows_the_calibration_of_each_class(request, kind, panels):
    tree = request.getfixturevalue(kind)
    data_type = "binary" if panels == 1 else "categorical"
    figure = az.plot_ppc_pava(tree, data_type=data_type)
    lines = figure.viz["lines"].to_dataset()
    assert sum(variable.size for variable in lines.data_vars.values()) == panels
    line = next(iter(lines.data_vars.values())).values.flat[0]
    labels = pooled(tree, "posterior_predictive/y")
    shown = np.sort(line.get_xdata())
    first = 1 if panels == 1 else 0
    np.testing.assert_allclose(shown, np.sort((labels == first).mean(axis=0)))


def test_residual_r2_takes_a_tree_without_its_one_output(regression):
    """By its definition: of every draw, var f / (var f + var(y − f)) over the points."""
    tree = regression.isel(output=0, missing_dims="ignore")
    ours = az.residual_r2(tree, pred_mean="latent", obs_name="y", summary=False)
    f, y = pooled(regression)[:, :, 0], np.asarray(regression["observed_data/y"])
    spread = f.var(axis=1)
    np.testing.assert_allclose(ours, spread / (spread + (y - f).var(axis=1)), rtol=1e-6)


def test_chains_carry_the_log_prior_of_what_they_sample():
    """Draws weighted by exp((α − 1) log prior) are those of α times the prior precision."""
    x, noise, alpha = np.linspace(-1, 1, 4)[:, None], 0.3, 2.0
    y = np.sin(3 * x[:, 0])
    chains = nb.hmc(
        NETWORK, nb.Gaussian(noise), x, y, prior_precision=1.0, key=jax.random.key(0),
        num_warmup=200, num_draws=2000, num_chains=2,
    )  # fmt: skip
    draws = chains.draw(jax.random.key(1), x, num_draws=4000)
    latent = np.asarray(draws.latent)[:, :, 0]
    weights = scipy.special.softmax((alpha - 1) * np.asarray(draws.stats["log_prior"]))
    k = np.asarray(NETWORK.ntk(x)) / alpha
    mean = k @ np.linalg.solve(k + noise * np.eye(4), y)
    # Half of the weighted draws' number, for what they depend on one another.
    error = latent.std(axis=0) * np.sqrt(2 * np.sum(weights**2))
    assert np.all(np.abs(weights @ latent - mean) < 5 * error)
    assert np.any(np.abs(latent.mean(axis=0) - mean) > 5 * error)


def test_psense_finds_the_log_prior_where_there_is_one():
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(400, 3, 1))
    log_prior = -0.5 * np.sum(latent**2, axis=(1, 2))
    make = partial(
        from_draws, latent, nb.Gaussian(NOISE), np.array([0.5, 0.0, -0.5]),
        key=jax.random.key(0), method="a", split="train", is_posterior=True,
    )  # fmt: skip
    tree = make(stats={"log_prior": log_prior, "residual": log_prior})
    np.testing.assert_array_equal(tree["log_prior/latent"][0], log_prior)
    assert list(tree["sample_stats"].data_vars) == ["residual"]
    sensitivity = az.psense(tree)["latent"]
    # These draws are the prior, which a power widens: far above ArviZ' threshold of 0.05.
    assert sensitivity.shape == (3, 1)
    assert float(sensitivity.min()) > 0.05
    assert "log_prior" not in make().children


def test_accuracy_of_arviz_means_something_for_two_classes_only(classification, binary):
    """The trap that the schema names: 0 and 2 make 1."""
    p = probabilities(binary)[:, :, 1].mean(axis=0)
    frequencies = pooled(binary, "posterior_predictive/y").mean(axis=0)
    y = np.asarray(binary["observed_data/y"])
    ours = np.mean(np.round(frequencies) == y)
    assert az.metrics(binary, kind="acc", round_to="none").mean == pytest.approx(ours)
    assert ours == pytest.approx(np.mean((p > 0.5) == y), abs=0.05)
    tree = classification.copy()
    labels = np.where(np.arange(1000) % 2 == 0, 0, 2)[None, :, None]
    shape = tree["posterior_predictive/y"].shape
    drawn = tree["posterior_predictive"].to_dataset()
    same = np.broadcast_to(labels, shape)
    tree["posterior_predictive"] = xr.DataTree(drawn.assign(y=(("chain", "draw", "obs_id"), same)))
    y = np.asarray(tree["observed_data/y"])
    # Class 1 is never predicted, yet all points of class 1 count as right, and no others.
    wrong = az.metrics(tree, kind="acc", round_to="none").mean
    assert wrong == pytest.approx(np.mean(y == 1))
    table = nb.compare({"a": classification}, reference=None).set_index("metric")
    right = np.mean(probabilities(classification).mean(axis=0).argmax(axis=1) == y)
    assert table.loc["accuracy", "value"] == pytest.approx(right)


def test_plot_ppc_pava_reads_indices_as_numbers_unless_told(classification):
    """By default one curve, of mean indices that are no probabilities."""
    lines = az.plot_ppc_pava(classification).viz["lines"].to_dataset()
    assert sum(variable.size for variable in lines.data_vars.values()) == 1
    line = next(iter(lines.data_vars.values())).values.flat[0]
    assert line.get_xdata().max() > 1


def test_plot_ppc_pit_and_plot_loo_pit_show_one_value_per_point(regression, classification):
    for tree in (regression, classification):
        for plot in (az.plot_ppc_pit, az.plot_loo_pit):
            line = plot(tree).viz["ecdf_lines"]["y"].item()
            assert 0 <= line.get_xdata().min() <= line.get_xdata().max() <= 1
            assert len(np.unique(line.get_xdata())) > 50


def test_loo_pit_is_that_of_the_gaussian_cavity(regression):
    mean, variance = (regression[f"closed_form/{name}"][:, 0] for name in ("mean", "variance"))
    left = 1 - np.asarray(variance) / NOISE
    y = regression["observed_data/y"]
    expected = scipy.stats.norm.cdf((y - mean) / left, scale=np.sqrt(NOISE / left))
    error = np.asarray(az.loo_pit(regression)["y"]) - expected
    # At most ½/√s from draws of y, and as much again from the weights.
    assert np.abs(error).max() < 5 * 2 * 0.5 / np.sqrt(1000)
    assert np.sqrt(np.mean(error**2)) < 2 * 0.5 / np.sqrt(1000)


def test_plot_ppc_dist_shows_draws_beside_observations(regression, classification):
    for tree, kind in ((regression, "kde"), (classification, "ecdf")):
        figure = az.plot_ppc_dist(tree, kind=kind, num_samples=20)
        assert figure.viz["predictive_dist"]["y"].size == 20
        observed = figure.viz["observed_dist"]["y"].item().get_xdata()
        y = np.asarray(tree["observed_data/y"])
        step = np.ptp(y) / 500  # of the grid of the density estimate
        np.testing.assert_allclose([observed.min(), observed.max()], [y.min(), y.max()], atol=step)


def test_label_draws_are_whole_numbers_with_the_predicted_frequencies(classification):
    labels = pooled(classification, "posterior_predictive/y")
    assert labels.dtype.kind == "i"
    p = probabilities(classification).mean(axis=0)
    frequencies = np.stack([(labels == k).mean(axis=0) for k in range(3)], axis=1)
    assert np.abs(frequencies - p).max() < 5 * 0.5 / np.sqrt(len(labels))
