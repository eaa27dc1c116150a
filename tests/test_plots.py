"""Figures and report: what they show, not only that they are drawn."""

import base64
import re
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from ntkbayes.datasets import load_dataset
from ntkbayes.evaluation import (
    METHOD_COLORS,
    compare,
    distance_matrix,
    from_draws,
    grid_points,
    metrics,
    observations,
    plot_bands,
    plot_coverage,
    plot_distance_heatmap,
    plot_metric_forest,
    plot_predictive_distributions,
    plot_probability_maps,
    plot_reliability,
    probabilities,
    wide_table,
    write_report,
)
from ntkbayes.likelihoods import Categorical, Gaussian

NAMES = ("NTK ensemble", "HMC", "my own")


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


def draw(data, center, seed):
    key_draws, key_y = jax.random.split(jax.random.key(seed))
    latent = jnp.asarray(center)[None] + 0.3 * jax.random.normal(key_draws, (20, *center.shape))
    likelihood = Categorical(10) if data.task == "classification" else Gaussian(0.5)
    return from_draws(
        latent,
        likelihood,
        data.y_test,
        key=key_y,
        method="unnamed",
        dataset=data.name,
        output_names=data.class_names or [data.target_name],
    )


def texts(axes):
    return [text.get_text() for text in axes.texts]


def visible(figure):
    return [axes for axes in figure.axes if axes.get_visible()]


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


def test_reliability_shows_each_methods_bins_counts_and_ece(trees):
    figure = plot_reliability(trees)
    assert len(visible(figure)) == 2 * len(trees)
    for (name, tree), panel, below in zip(
        trees.items(), figure.axes[::2], figure.axes[1::2], strict=True
    ):
        p, y = probabilities(tree).mean(axis=0), observations(tree)
        ece = metrics.ece(p, y, metrics.uniform_weights(len(y)))
        assert panel.get_title() == name
        assert texts(panel) == [f"ECE {ece:.3f}"]
        heights = np.array([bar.get_height() for bar in below.patches])
        points = np.array(
            [line.get_xydata()[0] for line in panel.lines if line.get_marker() == "o"]
        )
        assert heights.sum() == len(y)
        assert len(points) == np.count_nonzero(heights)
        counts = heights[heights > 0]
        assert np.sum(counts * points[:, 0]) / len(y) == pytest.approx(p.max(axis=1).mean())
        assert np.sum(counts * np.abs(points[:, 1] - points[:, 0])) / len(y) == pytest.approx(ece)


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
    figure = plot_metric_forest(long)
    panels = {axes.get_title(): axes for axes in visible(figure)}
    assert list(panels) == [
        *("accuracy", "NLL", "Brier", "ECE", "predictive entropy"),
        *("mutual information", "agreement", "total variation"),
    ]
    rows = long[long["metric"] == "brier"]
    lines = [bar.lines[0].get_xydata()[0] for bar in panels["Brier"].containers]
    np.testing.assert_allclose([x for x, _ in lines], rows["value"])
    ends = [bar.lines[2][0].get_segments()[0][:, 0] for bar in panels["Brier"].containers]
    np.testing.assert_allclose(np.ptp(ends, axis=1), 4 * rows["standard_error"])
    floors = [x.get_xdata()[0] for x in panels["total variation"].lines if x.get_marker() == "|"]
    expected = long["monte_carlo_floor"].dropna()
    np.testing.assert_allclose(floors, expected)


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
    probability, epistemic = np.reshape(panels, (2, 2))
    values = probability[1].collections[0].get_array()
    np.testing.assert_allclose(values[3, 0], 1 / (1 + np.exp(-(x1[0] + 3 * x2[3]))))
    np.testing.assert_allclose(epistemic[1].collections[0].get_array(), 0, atol=1e-12)
    assert epistemic[0].collections[0].get_array().max() > 0.01
    limits = {axes.collections[0].get_clim() for axes in epistemic}
    assert len(limits) == 1
    overlaid = [len(points.get_offsets()) for points in probability[0].collections[1:]]
    assert overlaid == list(np.bincount(moons.y_train))
    assert [axes.get_title() for axes in probability] == ["HMC", "Mode"]


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
    with pytest.raises(ValueError, match="long is empty"):
        plot_metric_forest(compare(trees, reference=None).iloc[:0])
    x = np.linspace(0, 1, 3)
    y = {"x_train": np.zeros((2, 2)), "y_train": np.array([0, 1])}
    with pytest.raises(ValueError, match="draws of HMC must be at 9 grid points, but are at 4"):
        plot_probability_maps({"HMC": np.zeros((2, 4, 2))}, x1=x, x2=x, **y)
    reversed_digits = eqx.tree_at(lambda d: d.y_test, digits, digits.y_test[::-1])
    other = draw(reversed_digits, np.zeros((500, 10)), 0)
    with pytest.raises(ValueError, match="their observations differ"):
        plot_reliability(trees | {"other": other})


def test_the_report_is_one_file_with_everything_inside(trees, tmp_path):
    long = compare(trees, reference="HMC")
    write_report(
        tmp_path / "report.html",
        title="digits <&>",
        table=wide_table(long),
        figures={"How reliable": plot_reliability(trees), "Metrics": plot_metric_forest(long)},
        notes=["R-hat is <b>fine</b>"],
        settings={"num_train": 50},
    )
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<h1>digits &lt;&amp;&gt;</h1>" in html
    assert "R-hat is &lt;b&gt;fine&lt;/b&gt;" in html
    images = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    assert len(images) == 2
    assert all(base64.b64decode(image).startswith(b"\x89PNG") for image in images)
    assert "<figcaption>How reliable</figcaption>" in html
    for text in wide_table(long).to_numpy().ravel():
        assert f"<td>{text}</td>" in html
    assert "<td>50</td>" in html
    assert not re.search(r'(src|href)="(?!data:)', html)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_report_needs_a_table_only(tmp_path):
    table = pd.DataFrame({"nll": ["1.000 ± 0.100"]}, index=["HMC"])
    write_report(tmp_path / "report.html", title="small", table=table)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<th>NLL</th>" in html
    assert "<h2>Figures</h2>" not in html
    assert "floor" not in html
