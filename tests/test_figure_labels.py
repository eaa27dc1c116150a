"""What figures write can be read: nothing beyond the edge, nothing on top of each other."""

from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
from plotted import draw, written

from ntkbayes.datasets import load_dataset, make_dataset
from ntkbayes.evaluation import compare, distance_matrix, plots
from ntkbayes.evaluation.catalog import metric_name
from ntkbayes.lazy import plot_against_time, plot_against_width, plot_ensembles, plot_layers
from ntkbayes.lazy.dynamics import MEASURES
from ntkbayes.lazy.ensembles import ENSEMBLE_MEASURES

LONG = (
    *("HMC", "NTK ensemble", "my own very long method name (variant)"),
    *("Monte-Carlo dropout, rate 0.25, last layer", "Bayesian NTK ensemble", "Laplace"),
    *("Deep ensemble", "an_identifier_without_any_space_to_break_a_line_at"),
)
CLASSES = ("airplane", "automobile", "photograph of a bird")


@pytest.fixture(scope="module")
def pictures():
    """Color pictures of three classes with long names."""
    x = np.random.default_rng(0).uniform(size=(150, 4, 4, 3))
    return make_dataset(x, [CLASSES[i % 3] for i in range(150)], task="classification")


@pytest.fixture(scope="module")
def classes(pictures):
    center = 2 * np.eye(3)[np.asarray(pictures.y_test)]
    return {name: draw(pictures, center * (1 - i / 9), i, 3) for i, name in enumerate(LONG)}


@pytest.fixture(scope="module")
def numbers():
    data = load_dataset("diabetes")
    center = np.asarray(data.y_test)[:, None] / 2
    return {name: draw(data, center, seed) for seed, name in enumerate(LONG)}


@pytest.fixture(scope="module")
def class_table(classes):
    return compare(classes, reference="HMC")


@pytest.fixture(scope="module")
def number_table(numbers):
    return compare(numbers, reference="HMC")


def maps(trees):
    axis = np.linspace(-1, 1, 3)
    latent = dict.fromkeys(trees, np.zeros((1, 9, 2)))
    training = {"x_train": np.zeros((1, 2)), "y_train": np.zeros(1, int)}
    return plots.plot_probability_maps(latent, x1=axis, x2=axis, **training)


def bands(trees):
    x = np.linspace(-1, 1, 3)
    latent = dict.fromkeys(trees, np.stack([x, 2 * x]))
    return plots.plot_bands(latent, x_grid=x, x_train=x, y_train=x, exact=(x, x**2), gap=(0, 0.5))


OF_CLASSES = {
    "reliability": plots.plot_reliability,
    "confidence": plots.plot_confidence_histogram,
    "risk": plots.plot_risk_coverage,
    "convergence": lambda trees: plots.plot_convergence(trees, "nll", num_orders=2),
    "heatmap": lambda trees: plots.plot_distance_heatmap(distance_matrix(trees)),
    "maps": maps,
    "scores": lambda trees: plots.plot_ood_scores(dict.fromkeys(trees, (np.ones(5), np.eye(5)[0]))),
}
OF_NUMBERS = {
    "pit": plots.plot_pit_ecdf,
    "coverage": plots.plot_coverage,
    "bands": bands,
}


def assert_readable(figure):
    """No text leaves the figure, and none lies on another (slanted ones aside)."""
    boxes = [(text, text.get_window_extent()) for text in written(figure)]
    for text, box in boxes:
        inside = box.x0 >= -1 and box.x1 <= figure.bbox.width + 1
        assert inside, f"{text.get_text()!r} leaves the figure at the side"
        inside = box.y0 >= -1 and box.y1 <= figure.bbox.height + 1
        assert inside, f"{text.get_text()!r} leaves the figure above or below"
    upright = [(text, box.padded(-1)) for text, box in boxes if text.get_rotation() % 90 == 0]
    for (text, box), (other, other_box) in combinations(upright, 2):
        assert not box.overlaps(other_box), f"{text.get_text()!r} is on {other.get_text()!r}"


@pytest.mark.parametrize("number", [1, 2, 8])
@pytest.mark.parametrize("plot", OF_CLASSES.values(), ids=OF_CLASSES)
def test_names_of_any_length_stay_apart_in_figures_of_classes(classes, plot, number):
    assert_readable(plot(dict(list(classes.items())[:number])))


@pytest.mark.parametrize("number", [1, 8])
@pytest.mark.parametrize("metrics", [["confidence gap"], ["accuracy", "NLL", "ECE"]])
def test_names_of_any_length_stay_apart_beside_metrics(class_table, metrics, number):
    chosen = class_table[class_table["method"].isin(LONG[:number])]
    assert_readable(plots.plot_metric_forest(chosen, metrics=metrics))
    named = [metric_name(text, set(chosen["metric"])) for text in metrics]
    chosen = chosen[chosen["metric"].isin(named)]
    several = pd.concat([chosen.assign(severity=s) for s in (0, 1, 2)])
    assert_readable(plots.plot_severity(several))


def test_all_metrics_of_numbers_stay_apart(number_table):
    assert_readable(plots.plot_metric_forest(number_table))


@pytest.mark.parametrize("number", [1, 2, 8])
@pytest.mark.parametrize("plot", OF_NUMBERS.values(), ids=OF_NUMBERS)
def test_names_of_any_length_stay_apart_in_figures_of_numbers(numbers, plot, number):
    assert_readable(plot(dict(list(numbers.items())[:number])))


@pytest.mark.parametrize("number", [1, 2, 8])
def test_names_of_any_length_stay_apart_beside_pictures(pictures, classes, number):
    chosen = dict(list(classes.items())[:number])
    assert_readable(plots.plot_predictive_distributions(chosen, pictures, num_points=3))


WIDTHS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)


@pytest.mark.parametrize("plot", [plot_against_time, plot_against_width, plot_layers])
def test_many_widths_and_long_conditions_stay_apart(plot):
    cells = product(("regularized", *LONG[2:4]), MEASURES, ("1", "2", "all"), WIDTHS, (0.1, 10.0))
    columns = ["condition", "measure", "layer", "width", "time"]
    table = pd.DataFrame(cells, columns=columns).assign(seed=0, diverged=False)
    assert_readable(plot(table.assign(value=1 / table["width"])))


def test_many_widths_of_ensembles_stay_apart():
    table = pd.DataFrame(product(ENSEMBLE_MEASURES, WIDTHS), columns=["measure", "width"])
    numbers = {"value": 1.0, "standard_error": 0.1, "monte_carlo_floor": 0.1}
    assert_readable(plot_ensembles(table.assign(**numbers)))
