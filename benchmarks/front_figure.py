"""The figure at the front: ensembles, Laplace and HMC on two moons, at the data and away from them.

What is finished stays in `--directory`, from which the same command continues.

    python benchmarks/front_figure.py
"""

import argparse
from pathlib import Path

import jax
import numpy as np
import scipy.special
from common import add_out

from ntkbayes.cli.progress import progress_shown
from ntkbayes.evaluation import metrics
from ntkbayes.evaluation.distances import distance_from_training
from ntkbayes.evaluation.plots import method_looks, new_figure, styled
from ntkbayes.evaluation.plots.maps import draw_classes
from ntkbayes.evaluation.plots.style import wrapped
from ntkbayes.experiment import preset, run_comparison
from ntkbayes.experiment.grid import grid_axes

METHODS = ("ntk-ensemble", "bayesian-ntk-ensemble", "laplace", "hmc")
NUM_BINS = 12
LARGEST = 3.0


def main():
    """Run the comparison, or read it, and draw."""
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", type=Path, default=Path("runs/front-figure"))
    add_out(parser, default=Path(__file__).parents[1] / "docs")
    options = parser.parse_args()
    with progress_shown() as on_progress:
        config = preset("moons", methods=METHODS)
        comparison = run_comparison(config, options.directory, on_progress=on_progress)
    path = options.out / "moons.png"
    draw(comparison).savefig(path)
    print(f"written: {path}")


@styled
def draw(comparison):
    """Map two quantities, and draw the second against the distance from the data."""
    grids = {title: tree["grid"] for title, tree in comparison.predictions.items()}
    p = {title: scipy.special.softmax(grid["latent"].values, -1) for title, grid in grids.items()}
    epistemic = {title: metrics.pointwise_mutual_information(v) for title, v in p.items()}
    figure = new_figure(10.2, 4.0)
    left, right = figure.subfigures(1, 2, width_ratios=[2.15, 1])
    panels = left.subplots(2, len(p), sharex=True, sharey=True)
    rows = {
        "mean probability\nof class 1": ({k: v.mean(axis=0)[:, 1] for k, v in p.items()}, "RdBu_r"),
        "mutual information\n(nats)": (epistemic, "cividis"),
    }
    for row, (label, (values, colors)) in zip(panels, rows.items(), strict=True):
        largest = 1.0 if colors == "RdBu_r" else max(v.max() for v in values.values())
        for axes, value in zip(row, values.values(), strict=True):
            image = map_on(axes, comparison.data, value, colors, largest)
        left.colorbar(image, ax=row, label=label, aspect=12)
    for axes, title in zip(panels[0], p, strict=True):
        axes.set_title(wrapped(title, 1.4))
    x = next(iter(grids.values()))["x"].values
    distance = distance_from_training(x, comparison.data.x_train)
    curves_on(right.subplots(), distance, epistemic)
    return figure


def map_on(axes, data, value, colors, largest):
    """One map, with the training points on it."""
    first, second = grid_axes(data)
    image = axes.imshow(
        value.reshape(len(second), len(first)), origin="lower", cmap=colors, vmin=0, vmax=largest,
        extent=(first[0], first[-1], second[0], second[-1]), interpolation="bilinear",
    )  # fmt: skip
    draw_classes(axes, np.asarray(data.x_train), np.asarray(data.y_train))
    axes.set(xticks=[], yticks=[])
    return image


def curves_on(axes, distance, epistemic):
    """Mean epistemic uncertainty in rings of equal width around the data."""
    edges = np.linspace(0, LARGEST, NUM_BINS + 1)
    ring = np.digitize(distance, edges) - 1
    middle = (edges[:-1] + edges[1:]) / 2
    for title, look in method_looks(epistemic).items():
        means = [epistemic[title][ring == i].mean() for i in range(NUM_BINS)]
        axes.plot(middle, means, label=title, ms=4, **look)
    axes.set_xlabel("distance to the closest training point")
    axes.set_ylabel("mutual information (nats)")
    axes.set_ylim(bottom=0)
    axes.locator_params(nbins=5)
    axes.legend(loc="upper left")


if __name__ == "__main__":
    main()
