"""Distributions of trained networks against infinite width, and variances against Bayes."""

import dataclasses

import jax
import numpy as np
import pandas as pd
import pytest

import ntkbayes as nb
from ntkbayes.evaluation.distances import distance_from_training
from ntkbayes.lazy import (
    ENSEMBLE_MEASURES,
    ENSEMBLES,
    ensembles as ensembles_module,
    plot_ensembles,
    plot_variance_profile,
)


def few_points(name):
    data = nb.load_dataset(name, num_train=10)
    return dataclasses.replace(data, x_test=data.x_test[:20], y_test=data.y_test[:20])


DATA = few_points("moons")
NETWORK = nb.dense_network(depth=1, activation="erf")


def sweep(network=NETWORK, **settings):
    settings = {
        "key": jax.random.key(0), "prior_precision": 1.0, "widths": (2, 4), "num_members": 40,
        "num_draws": 100,
    } | settings  # fmt: skip
    return nb.lazy.ensemble_sweep(network, nb.Categorical(2), DATA, **settings)


def profile(**settings):
    settings = {
        "key": jax.random.key(0), "prior_precision": 300.0, "num_draws": 2000, "num_away": 10,
        "num_bins": 2,
    } | settings  # fmt: skip
    return nb.lazy.variance_profile(NETWORK, DATA, **settings)


def points_of_the_profile():
    shells = [nb.datasets.away_inputs(DATA, severity, num_points=10) for severity in range(1, 6)]
    return np.concatenate([DATA.x_test, *shells])


@pytest.fixture(scope="module")
def ensembles():
    return sweep()


@pytest.fixture(scope="module")
def claims():
    """Two hidden layers of ReLU units, far from infinite width and near it."""
    return sweep(nb.dense_network(), widths=(8, 64), num_members=200, num_draws=2000)


@pytest.fixture(scope="module")
def weak_data():
    """With a strong prior everything is linear, and the first order exact."""
    return profile()


def at(table, width, measure):
    return table.set_index(["width", "measure"]).loc[(width, measure)]


@pytest.mark.slow
@pytest.mark.parametrize("measure", ["energy_distance", "covariance_distance"])
def test_wide_trained_networks_have_the_closed_forms_distribution_and_narrow_ones_do_not(
    claims, measure
):
    narrow, wide = (at(claims, width, measure) for width in (8, 64))
    assert narrow["value"] > 3 * narrow["standard_error"]
    assert abs(wide["value"]) < 3 * wide["standard_error"]
    assert wide["standard_error"] < 0.3 * narrow["value"]


@pytest.mark.slow
def test_total_variation_falls_to_what_equal_distributions_show(claims):
    narrow, wide = (at(claims, width, "total_variation") for width in (8, 64))
    assert wide["value"] < wide["monte_carlo_floor"] + 4 * wide["standard_error"]
    assert narrow["value"] > 2 * wide["value"]


def test_finished_widths_are_kept_unless_settings_change(tmp_path, monkeypatch, ensembles):
    kept = sweep(directory=tmp_path)
    pd.testing.assert_frame_equal(kept, ensembles)
    trained = []
    original = ensembles_module.deep_ensemble

    def counted(network, *args, **settings):
        trained.append(network.width)
        return original(network, *args, **settings)

    monkeypatch.setattr(ensembles_module, "deep_ensemble", counted)
    pd.testing.assert_frame_equal(sweep(directory=tmp_path), ensembles)
    assert not trained
    (tmp_path / "ensemble-4.parquet").unlink()
    pd.testing.assert_frame_equal(sweep(directory=tmp_path), ensembles)
    assert trained == [4]
    sweep(directory=tmp_path, widths=(2,), prior_precision=2.0)
    assert trained == [4, 2]


def test_means_of_trained_regressions_approach_the_closed_form():
    table = nb.lazy.ensemble_sweep(
        NETWORK, nb.Gaussian(0.1), few_points("sine"), key=jax.random.key(0),
        prior_precision=1.0, widths=(32, 256), num_members=40, num_draws=500,
    )  # fmt: skip
    wide = table[table["width"] == 256]
    assert list(wide["measure"]) == [m for m in ENSEMBLE_MEASURES if m != "total_variation"]
    narrow, wide = (at(table, width, "mean_distance") for width in (32, 256))
    assert narrow["value"] - wide["value"] > 4 * np.hypot(
        *(row["standard_error"] for row in (narrow, wide))
    )
    assert wide["value"] < 0.3 * narrow["value"]


@pytest.mark.parametrize("method", ENSEMBLES)
def test_measured_variances_are_the_predicted_ones_where_the_data_say_little(weak_data, method):
    part = weak_data[weak_data["method"] == method]
    assert np.all(np.abs(part["to_laplace"] - part["predicted"]) < 4 * part["to_laplace_error"])
    assert np.all(part["to_laplace_error"] < 0.05 * part["predicted"])


def test_laplace_and_hmc_agree_where_the_data_say_little(weak_data):
    part = weak_data[weak_data["method"] == "Laplace"]
    assert np.all(part["predicted"] == 1)
    assert np.all(np.abs(part["to_hmc"] - 1) < 4 * part["to_hmc_error"] + 0.01)
    assert np.all(part["prior_share"] > 0.9)


def test_bins_are_of_equal_number_and_by_distance(weak_data):
    x = points_of_the_profile()
    halves = np.array_split(np.sort(distance_from_training(x, DATA.x_train)), 2)
    part = weak_data[weak_data["method"] == "Laplace"]
    np.testing.assert_allclose(part["distance"], [half.mean() for half in halves])
    assert list(part["num_points"]) == [len(half) for half in halves]


def test_predictions_are_what_the_theory_says_where_the_data_say_much():
    """Theory 3.4: Laplace with perturbed targets; without, too small; ordinary ones by Q₀."""
    table = profile(prior_precision=0.5, num_bins=1).set_index("method")
    model = (NETWORK, nb.Categorical(2), DATA.x_train, DATA.y_train)
    x = points_of_the_profile()
    laplace = np.asarray(nb.laplace(*model, prior_precision=0.5).covariance(x))
    step = np.array([1.0, -1.0]) / 2  # for two classes, centred logits are ± half the difference
    difference = np.einsum("c,icid,d->i", step, laplace, step)
    k = np.asarray(NETWORK.ntk(x)) / 0.5
    assert table.loc["Laplace", "prior_share"] == pytest.approx(
        difference.mean() / (np.diag(k).mean() / 2), rel=1e-6
    )
    assert table.loc["ntk, perturbed", "predicted"] == pytest.approx(1, abs=1e-5)
    assert table.loc["ntk", "predicted"] < 0.9
    assert table.loc["nngp", "predicted"] < table.loc["nngp, perturbed", "predicted"]
    assert (table["num_points"] == 70).all()


@pytest.mark.parametrize(
    ("call", "settings", "message"),
    [
        (sweep, {"widths": ()}, "number of widths must be at least 1"),
        (sweep, {"widths": (0,)}, "smallest width must be at least 1"),
        (sweep, {"num_members": 39}, "num_members must be at least 40"),
        (sweep, {"num_draws": 39}, "num_draws must be at least 40"),
        (sweep, {"prior_precision": -1.0}, "prior_precision"),
        (profile, {"num_away": 0}, "num_away must be at least 1"),
        (profile, {"num_bins": 0}, "num_bins must be at least 1"),
        (
            profile,
            {"num_draws": 20},
            r"HMC: do not use as reference.* Raise num_draws, which is 20",
        ),
    ],
)
def test_settings_out_of_range_are_refused(call, settings, message):
    with pytest.raises(ValueError, match=message):
        call(**settings)


def test_a_regression_has_no_profile():
    data = nb.load_dataset("sine", num_train=10)
    with pytest.raises(ValueError, match="task"):
        nb.lazy.variance_profile(NETWORK, data, key=jax.random.key(0), prior_precision=1.0)


def test_figures_show_every_measure_and_method(ensembles, weak_data):
    figure = plot_ensembles(ensembles)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == list(ENSEMBLE_MEASURES.values())
    figure = plot_variance_profile(weak_data)
    (legend,) = figure.legends
    assert {text.get_text() for text in legend.get_texts()} == {*ENSEMBLES, "Laplace"}
    dashed = [line for line in figure.axes[0].get_lines() if line.get_linestyle() == "--"]
    assert len(dashed) == len(ENSEMBLES)
    with pytest.raises(ValueError, match="but lacks width"):
        plot_ensembles(weak_data)
