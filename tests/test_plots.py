"""Figures: what they show, not only that they are drawn."""

import sys
from itertools import product

import equinox as eqx
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import scipy.special
import scipy.stats
from arviz_stats.ecdf_utils import ecdf_pit
from matplotlib.backends.backend_agg import FigureCanvasAgg
from plotted import NAMES, draw, texts, visible

from ntkbayes.datasets import load_dataset
from ntkbayes.evaluation import (
    METHOD_COLORS,
    compare,
    distance_matrix,
    grid_points,
    headline_metrics,
    observations,
    plot_bands,
    plot_coverage,
    plot_distance_heatmap,
    plot_metric_forest,
    plot_predictive_distributions,
    plot_probability_maps,
    plot_reliability,
    probabilities,
)
from ntkbayes.evaluation.catalog import metric_info
from ntkbayes.evaluation.plots import (
    pit,
    plot_convergence,
    plot_ood_scores,
    plot_pit_ecdf,
    plot_risk_coverage,
    plot_severity,
)
from ntkbayes.evaluation.plots.pit import uniform_ecdf_band
from ntkbayes.evaluation.plots.style import method_looks
from ntkbayes.evaluation.predictive import predictive_mixture


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits", num_train=50)


@pytest.fixture(scope="module")
def trees(digits):
    y = np.asarray(digits.y_test)
    scale = np.linspace(0, 8, len(y))[:, None]  # later points are more certain
    return {name: draw(digits, scale * np.eye(10)[y], seed) for seed, name in enumerate(NAMES)}


@pytest.fixture(scope="module")
def diabetes():
    return load_dataset("diabetes")


@pytest.fixture(scope="module")
def regression_trees(diabetes):
    center = np.asarray(diabetes.y_test)[:, None] / 2
    return {name: draw(diabetes, center, seed) for seed, name in enumerate(NAMES)}


def colors_of(artists):
    return {mpl.colors.to_hex(artist.get_facecolor()).upper() for artist in artists}


def test_official_methods_have_seven_different_colors_and_others_get_one_too(trees):
    assert len(set(METHOD_COLORS.values())) == len(METHOD_COLORS) == 7
    figure = plot_reliability(trees)
    bars = {axes.get_title(): None for axes in figure.axes[::2]}
    for panel, below in zip(figure.axes[::2], figure.axes[1::2], strict=True):
        (bars[panel.get_title()],) = colors_of(below.patches)
    assert bars["HMC"] == METHOD_COLORS["HMC"]
    assert bars["NTK ensemble"] == METHOD_COLORS["NTK ensemble"]
    assert bars["my own"] not in METHOD_COLORS.values()


def test_predictive_distributions_show_images_bars_and_the_true_class(trees, digits):
    figure = plot_predictive_distributions(trees, digits, num_points=4)
    panels = np.array(figure.axes).reshape(4, 1 + len(trees))
    p = np.stack([probabilities(tree).mean(axis=0) for tree in trees.values()])
    entropy = -np.mean(np.sum(p * np.log(p), axis=-1), axis=0)
    order = np.argsort(-entropy)
    for row, point in zip(panels, [*order[:2], *order[-2:]], strict=True):
        truth = int(digits.y_test[point])
        assert row[0].get_ylabel() == f"true: {truth}"
        image = np.asarray(digits.images(digits.x_test[point][None]))[0]
        np.testing.assert_allclose(row[0].images[0].get_array(), image)
        for axes, probability in zip(row[1:], p[:, point], strict=True):
            span, *bars = axes.patches
            assert span.get_x() + span.get_width() / 2 == pytest.approx(truth)
            np.testing.assert_allclose([bar.get_height() for bar in bars], probability)


def test_predictive_distributions_never_show_more_points_than_there_are(trees, digits):
    few = {name: tree.isel(obs_id=slice(3)) for name, tree in trees.items()}
    figure = plot_predictive_distributions(few, digits, num_points=6)
    assert len(figure.axes) == 3 * (1 + len(trees))


def test_the_heatmap_writes_every_distance(trees):
    matrix = distance_matrix(trees)
    axes, color_bar = plot_distance_heatmap(matrix).axes
    written = np.reshape(texts(axes), matrix.shape)
    assert list(np.diag(written)) == ["0"] * len(trees)
    assert written[0, 1] == f"{matrix.iloc[0, 1]:.3f}"
    assert [label.get_text() for label in axes.get_yticklabels()] == list(trees)
    assert "total variation" in color_bar.get_ylabel()


def test_the_forest_has_a_panel_per_metric_and_a_point_per_method(trees):
    long = compare(trees, reference="HMC")
    figure = plot_metric_forest(long, metrics=headline_metrics("classification"))
    panels = {axes.get_title(): axes for axes in visible(figure)}
    assert list(panels) == [
        *("accuracy", "NLL", "Brier", "squared ECE", "confidence gap", "entropy"),
        *("mutual information", "agreement", "total variation"),
    ]
    rows = long[long["metric"] == "brier"]
    lines = [bar.lines[0].get_xydata()[0] for bar in panels["Brier"].containers]
    np.testing.assert_allclose([x for x, _ in lines], rows["value"])
    ends = [bar.lines[2][0].get_segments()[0][:, 0] for bar in panels["Brier"].containers]
    np.testing.assert_allclose(np.ptp(ends, axis=1), 4 * rows["standard_error"])
    floors = [x.get_xdata()[0] for x in panels["total variation"].lines if x.get_marker() == "|"]
    expected = long[long["metric"] == "total_variation"]["monte_carlo_floor"].dropna()
    np.testing.assert_allclose(floors, expected)


def test_no_metric_leaves_its_bounds(trees, regression_trees):
    for predictions in (trees, regression_trees):
        for row in compare(predictions, reference="HMC").itertuples():
            low, high = metric_info(row.metric).bounds
            assert low <= row.value <= high or np.isnan(row.value), row.metric


@pytest.mark.parametrize(
    ("metric", "value", "error", "bar"),
    [
        ("accuracy", 0.99, 0.01, (0.97, 1.0)),
        ("accuracy", 0.01, 0.02, (0.0, 0.05)),
        ("accuracy", 1.0, 0.0, (1.0, 1.0)),
        ("brier", 1.9, 0.1, (1.7, 2.0)),
        ("rmse", 0.1, 0.1, (0.0, 0.3)),
        ("nll", -0.1, 0.2, (-0.5, 0.3)),  # a density may be above 1
        ("a metric of another tool", 0.9, 0.2, (0.5, 1.3)),
    ],
)
def test_no_bar_says_what_a_metric_cannot_be(metric, value, error, bar):
    row = {"method": "HMC", "metric": metric, "value": value, "standard_error": error}
    (forest,) = visible(plot_metric_forest(pd.DataFrame([row])))
    (severity,) = visible(plot_severity(pd.DataFrame([row | {"severity": 0}])))
    for axes, coordinate in ((forest, 0), (severity, 1)):
        (segments,) = axes.containers[0].lines[2]
        np.testing.assert_allclose(segments.get_segments()[0][:, coordinate], bar, atol=1e-12)


@pytest.mark.parametrize(("metric", "value"), [("accuracy", 0.9), ("brier", np.inf)])
def test_what_has_no_error_has_no_bar(metric, value):
    row = {"method": "HMC", "metric": metric, "value": value, "standard_error": np.nan}
    (axes,) = visible(plot_metric_forest(pd.DataFrame([row])))
    (segments,) = axes.containers[0].lines[2]
    assert not any(segment.size for segment in segments.get_segments())


@pytest.mark.parametrize("error", [0.0, 0.01, np.nan])
def test_the_axis_of_a_share_ends_where_shares_do(error):
    row = {"method": "HMC", "metric": "accuracy", "value": 1.0, "standard_error": error}
    (axes,) = visible(plot_metric_forest(pd.DataFrame([row])))
    low, high = axes.get_xlim()
    ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
    assert 1 < high < 1.05  # room for the marker
    assert max(ticks) <= 1


def test_the_forest_marks_the_nominal_level_of_every_coverage(regression_trees):
    panels = visible(plot_metric_forest(compare(regression_trees, reference="HMC")))
    dashed = {
        axes.get_title(): [line.get_xdata()[0] for line in axes.lines if line.is_dashed()]
        for axes in panels
    }
    marked = {title: levels for title, levels in dashed.items() if levels}
    assert marked == {"coverage 50 %": [0.5], "coverage 90 %": [0.9], "coverage 95 %": [0.95]}


def test_probability_maps_put_every_grid_point_in_its_place():
    moons, x1, x2 = load_dataset("moons"), np.linspace(-2, 2, 5), np.linspace(-1, 1, 4)
    points = grid_points(x1, x2)
    np.testing.assert_array_equal(points[6], [x1[1], x2[1]])
    logits = np.stack([np.zeros(20), points[:, 0] + 3 * points[:, 1]], axis=1)
    draws = {"HMC": np.stack([logits, 2 * logits]), "Mode": logits[None]}
    figure = plot_probability_maps(
        draws, x1=x1, x2=x2, x_train=moons.x_train, y_train=moons.y_train
    )
    panels = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
    probability, entropy, epistemic = np.reshape(panels, (3, 2))
    values = probability[1].collections[0].get_array()
    np.testing.assert_allclose(values[3, 0], 1 / (1 + np.exp(-(x1[0] + 3 * x2[3]))))
    expected = scipy.stats.entropy([1 - values, values])
    np.testing.assert_allclose(entropy[1].collections[0].get_array(), expected, atol=1e-12)
    assert entropy[0].collections[0].get_clim() == (0, np.log(2))
    np.testing.assert_allclose(epistemic[1].collections[0].get_array(), 0, atol=1e-12)
    assert epistemic[0].collections[0].get_array().max() > 0.01
    limits = {axes.collections[0].get_clim() for axes in epistemic}
    assert len(limits) == 1
    overlaid = [len(points.get_offsets()) for points in probability[0].collections[1:]]
    assert overlaid == list(np.bincount(moons.y_train))
    assert [axes.get_title() for axes in probability] == ["HMC", "Mode"]


def test_probability_maps_of_many_methods_fit_their_figure():
    moons, axis = load_dataset("moons"), np.linspace(-5, 5, 3)
    draws = dict.fromkeys(("a", "b", "c", "d", "e"), np.zeros((1, 9, 2)))
    figure = plot_probability_maps(
        draws, x1=axis, x2=axis, x_train=moons.x_train, y_train=moons.y_train
    )
    FigureCanvasAgg(figure).draw()
    drawn = figure.get_tightbbox().extents * figure.dpi
    assert np.all(drawn[:2] >= 0)
    assert np.all(drawn[2:] <= figure.bbox.max)


def test_bands_are_the_quantiles_of_the_draws_with_the_exact_outline():
    generator, x = np.random.default_rng(0), np.linspace(-2, 2, 11)
    draws = {"HMC": generator.normal(size=(200, 11)), "Mode": np.sin(x)[None]}
    figure = plot_bands(
        draws,
        x_grid=x,
        x_train=np.array([-1.0, 1.0]),
        y_train=np.array([0.0, 1.0]),
        exact=(np.zeros(11), np.ones(11)),
        gap=(-0.5, 0.5),
    )
    hmc, mode = visible(figure)
    outer, inner = (band.get_paths()[0].vertices[:, 1] for band in hmc.collections)
    low, high = np.quantile(draws["HMC"], [0.025, 0.975], axis=0)
    assert (outer.min(), outer.max()) == pytest.approx((low.min(), high.max()))
    assert np.ptp(inner) < np.ptp(outer)
    lines = {line.get_label(): line.get_ydata() for line in mode.lines}
    np.testing.assert_allclose(lines["mean"], np.sin(x))
    np.testing.assert_allclose(lines["training data"], [0, 1])
    ends = sorted(float(line.get_ydata()[0]) for line in hmc.lines if line.is_dashed())
    np.testing.assert_allclose(ends, [-1.959964, 0, 1.959964], atol=1e-6)
    assert (hmc.patches[0].get_x(), hmc.patches[0].get_width()) == (-0.5, 1.0)
    written = {text.get_text() for text in figure.legends[0].get_texts()}
    assert {"50 % band", "95 % band", "no data", "exact GP: mean and 95 % band"} <= written


def test_coverage_shows_the_empirical_share_at_each_level(regression_trees):
    figure = plot_coverage(regression_trees)
    panels = {axes.get_title(): axes for axes in visible(figure)}
    assert list(panels) == list(regression_trees)
    lines = {name: axes.lines[-1].get_xydata() for name, axes in panels.items()}
    colors = {name: axes.lines[-1].get_color() for name, axes in panels.items()}
    assert colors["HMC"] == METHOD_COLORS["HMC"]
    long = compare(regression_trees, reference=None)
    for name in regression_trees:
        for level in (50, 90, 95):
            (share,) = lines[name][np.isclose(lines[name][:, 0], level / 100), 1]
            rows = long[(long["method"] == name) & (long["metric"] == f"coverage_{level}")]
            assert share == pytest.approx(rows["value"].item())


def test_figures_leave_no_global_state_and_show_themselves_in_notebooks(trees):
    before = dict(mpl.rcParams)
    figure = plot_reliability(trees)
    assert dict(mpl.rcParams) == before
    assert figure._repr_png_().startswith(b"\x89PNG")
    if "matplotlib.pyplot" in sys.modules:
        assert not sys.modules["matplotlib.pyplot"].get_fignums()


def test_figures_refuse_what_they_cannot_show(trees, regression_trees, digits, diabetes):
    with pytest.raises(ValueError, match="need a classification task"):
        plot_reliability(regression_trees)
    with pytest.raises(ValueError, match="coverage needs a regression task, not classification"):
        plot_coverage(trees)
    with pytest.raises(ValueError, match="num_points must be at least 1"):
        plot_predictive_distributions(trees, digits, num_points=0)
    with pytest.raises(ValueError, match="diabetes has no images"):
        plot_predictive_distributions(regression_trees, diabetes)
    with pytest.raises(ValueError, match=r"matrix must be square, but has shape \(1, 3\)"):
        plot_distance_heatmap(distance_matrix(trees).iloc[:1])
    with pytest.raises(ValueError, match="need a classification task"):
        plot_risk_coverage(regression_trees)
    with pytest.raises(ValueError, match="the PIT needs a regression task or counts, not"):
        plot_pit_ecdf(trees)
    with pytest.raises(ValueError, match=r"level must lie between 0 and 1, but is 1\.5"):
        plot_pit_ecdf(regression_trees, level=1.5)
    with pytest.raises(ValueError, match="unknown metric 'nl': did you mean nll"):
        plot_convergence(trees, "nl")
    with pytest.raises(ValueError, match="unknown reference 'hmc': choose from NTK ensemble, HMC"):
        plot_convergence(trees, "total_variation", reference="hmc")
    with pytest.raises(ValueError, match="scores is empty"):
        plot_ood_scores({})
    with pytest.raises(ValueError, match=r"scores\['HMC'\] out of distribution must be finite"):
        plot_ood_scores({"HMC": (np.zeros(2), np.array([np.nan]))})
    with pytest.raises(ValueError, match=r"table must have the columns .* lacks severity"):
        plot_severity(compare(trees, reference=None))
    twice = compare(trees, reference=None).assign(severity=0)
    with pytest.raises(ValueError, match="holds a metric of a method twice at one severity"):
        plot_severity(pd.concat([twice, twice]))
    with pytest.raises(ValueError, match="table is empty"):
        plot_severity(twice.iloc[:0])
    with pytest.raises(ValueError, match="long is empty"):
        plot_metric_forest(twice.iloc[:0])
    with pytest.raises(ValueError, match="unknown metric 'nl': did you mean nll"):
        plot_metric_forest(twice, metrics=["nl"])
    x = np.linspace(0, 1, 3)
    y = {"x_train": np.zeros((2, 2)), "y_train": np.array([0, 1])}
    with pytest.raises(ValueError, match="draws of HMC must be at 9 grid points, but are at 4"):
        plot_probability_maps({"HMC": np.zeros((2, 4, 2))}, x1=x, x2=x, **y)
    reversed_digits = eqx.tree_at(lambda d: d.y_test, digits, digits.y_test[::-1])
    other = draw(reversed_digits, np.zeros((500, 10)), 0)
    with pytest.raises(ValueError, match="their observations differ"):
        plot_reliability(trees | {"other": other})


def test_the_ecdf_band_is_arvizs():
    """ArviZ evaluates at all m − 1 places, we at 100 at most: the same for m ≤ 100."""
    places, low, high = uniform_ecdf_band(80, 0.95)
    expected = ecdf_pit(np.linspace(0, 1, 80), 0.95, 1000)
    np.testing.assert_allclose(places, expected[0], atol=1e-12)
    # Both simulate 1,000 samples: the tail probability is that uncertain, a count at most.
    np.testing.assert_allclose(low, expected[2] - places, atol=1.01 / 80)
    np.testing.assert_allclose(high, expected[3] - places, atol=1.01 / 80)


@pytest.mark.parametrize("num_points", [20, 1000])
def test_the_ecdf_band_holds_uniform_samples_as_a_whole(num_points, monkeypatch):
    simulations = 10_000
    monkeypatch.setattr(pit, "NUM_SIMULATIONS", simulations)
    places, low, high = uniform_ecdf_band(num_points, 0.9)
    samples = np.sort(np.random.default_rng(3).uniform(size=(simulations, num_points)))
    ecdf = np.stack([np.searchsorted(x, places, side="right") for x in samples]) / num_points
    slack = 1e-9
    inside = ((ecdf - places >= low - slack) & (ecdf - places <= high + slack)).all(axis=1).mean()
    error = np.sqrt(2 * 0.9 * 0.1 / simulations)  # of this simulation and of the band's own
    assert inside > 0.9 - 5 * error
    if num_points == 1000:  # of 20 the counts are so coarse that the band holds more
        assert inside < 0.9 + 5 * error


def test_the_pit_figure_shows_the_transforms_minus_the_uniform(regression_trees):
    panels = visible(plot_pit_ecdf(regression_trees))
    for axes, tree in zip(panels, regression_trees.values(), strict=True):
        means, variance = predictive_mixture(tree)
        y = observations(tree)
        scale = np.sqrt(variance)
        transforms = [
            np.mean(scipy.stats.norm.cdf(y[i, 0], means[:, i, 0], scale[i, 0]))
            for i in range(len(y))
        ]
        x, difference = axes.lines[-1].get_xydata().T
        assert (x[0], x[-1], difference[0]) == (0, 1, 0)
        assert difference[-1] == pytest.approx(0)
        for k in (1, 40, 80):  # the k-th transform from below: k/m after the jump
            place = np.sort(transforms)[k - 1]
            after = difference[np.flatnonzero(np.isclose(x, place))[-1]]
            assert after == pytest.approx(k / len(transforms) - place)


def test_convergence_ends_at_the_metric_of_all_draws_and_begins_at_that_of_one(trees):
    table = compare(trees, reference=None).set_index(["method", "metric"])["value"]
    for metric in ("nll", "brier"):
        for axes in visible(plot_convergence(trees, metric)):
            sizes, values = axes.lines[-1].get_xydata().T
            np.testing.assert_array_equal(sizes, [1, 2, 4, 8, 16, 20])
            assert values[-1] == pytest.approx(table[axes.get_title(), metric])
    one = {"NTK ensemble": trees["NTK ensemble"]}
    (first,) = visible(plot_convergence(one, "nll", num_orders=100))
    log_likelihood = np.asarray(trees["NTK ensemble"]["log_likelihood/y"])[0]
    singles = -log_likelihood.mean(axis=1)
    error = singles.std() / np.sqrt(100)
    assert first.lines[-1].get_ydata()[0] == pytest.approx(singles.mean(), abs=5 * error)


def test_the_convergence_band_is_that_of_independent_draws(digits):
    """Where the log likelihoods are all but equal, the NLL is a mean, of error σ/√k."""
    y, orders = np.asarray(digits.y_test), 400
    tree = draw(digits, np.eye(10)[y], 0)
    shifts = 1e-4 * np.random.default_rng(0).normal(size=20)
    tree["log_likelihood/y"] = 0 * tree["log_likelihood/y"] - 1 + shifts[None, :, None]
    (axes,) = visible(plot_convergence({"HMC": tree}, "nll", num_orders=orders))
    vertices = axes.collections[0].get_paths()[0].vertices
    for k in (1, 2, 4, 8):
        heights = vertices[np.isclose(vertices[:, 0], k), 1]
        expected = 4 * shifts.std(ddof=1) / np.sqrt(k)
        assert np.ptp(heights) == pytest.approx(expected, rel=5 / np.sqrt(2 * orders))
    assert vertices[:, 0].max() == 8


def test_a_single_draw_is_a_level_line_and_a_reference_has_no_curve(digits, trees):
    one = trees["HMC"].isel(draw=[0])
    figure = plot_convergence(
        {"Mode": one, "NTK ensemble": trees["NTK ensemble"], "HMC": trees["HMC"]},
        "total_variation",
        reference="HMC",
    )
    mode, ntk = visible(figure)
    assert [axes.get_title() for axes in (mode, ntk)] == ["Mode", "NTK ensemble"]
    assert len(set(mode.lines[-1].get_ydata())) == 1
    expected = compare(trees, reference="HMC").set_index(["method", "metric"])["value"]
    assert ntk.lines[-1].get_ydata()[-1] == pytest.approx(
        expected["NTK ensemble", "total_variation"]
    )


def test_ood_scores_show_both_histograms_and_the_auroc():
    generator = np.random.default_rng(0)
    scores = {
        name: (generator.normal(size=40).round(1), generator.normal(1, size=30).round(1))
        for name in NAMES
    }
    panels = visible(plot_ood_scores(scores, label="energy"))
    for axes, (inside, outside) in zip(panels, scores.values(), strict=True):
        wins = np.mean([(o > i) + 0.5 * (o == i) for i, o in product(inside, outside)])
        assert texts(axes) == [f"AUROC {wins:.3f}"]
        for stairs, values in zip(axes.patches, (inside, outside), strict=True):
            shares, edges, _ = stairs.get_data()
            assert shares.sum() == pytest.approx(1)
            assert np.sum(shares * (edges[:-1] + edges[1:]) / 2) == pytest.approx(
                values.mean(), abs=np.diff(edges)[0]
            )
        assert axes.get_xlabel() == "energy"


def test_severity_curves_show_values_with_two_standard_errors(trees):
    long = compare(trees, reference=None)
    table = pd.concat([long.assign(severity=s, value=long["value"] + s) for s in (3, 0, 1)])
    panels = {axes.get_title(): axes for axes in visible(plot_severity(table))}
    assert set(panels) >= {"NLL", "accuracy"}
    looks = method_looks(NAMES)
    for name, bars in zip(NAMES, panels["NLL"].containers, strict=True):
        (row,) = long[(long["method"] == name) & (long["metric"] == "nll")].itertuples()
        line, _, (segments,) = bars
        x, y = line.get_xydata().T
        np.testing.assert_allclose(y, row.value + np.array([0, 1, 3]))
        assert np.abs(x - [0, 1, 3]).max() < 0.5
        assert line.get_marker() == looks[name]["marker"]
        lengths = np.ptp([segment[:, 1] for segment in segments.get_segments()], axis=1)
        np.testing.assert_allclose(lengths, 4 * row.standard_error)


def test_methods_differ_in_marker_and_dashes_as_well_as_in_color():
    looks = method_looks([*METHOD_COLORS, "my own", "another"])
    assert len({look["marker"] for look in looks.values()}) == len(looks)
    assert len({(str(look["linestyle"]), look["color"]) for look in looks.values()}) == len(looks)
