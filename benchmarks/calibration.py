"""Which method is calibrated, on which data? All methods on six datasets with five seeds each.

A seed decides split and random numbers. Within one comparison all methods share the prior
precision, noise and bias scale that maximise the log marginal likelihood of the training points
(exact for regression, Laplace for classes). To the methods of `ntkbayes compare` comes the mode
with its temperature scaled on the validation split, which the others do not see. What is finished
stays in `--directory`, from which the same command continues.

    python benchmarks/calibration.py
"""

import argparse
import itertools
from pathlib import Path

import jax
import pandas as pd
from common import add_out, write_results

import ntkbayes as nb
from ntkbayes.cli.progress import progress_shown
from ntkbayes.evaluation import predict, seed_table
from ntkbayes.evaluation.catalog import metric_title
from ntkbayes.evaluation.plots import method_looks, new_figure, styled
from ntkbayes.experiment import preset, run_comparison
from ntkbayes.experiment.environment import environment
from ntkbayes.experiment.running import problem_of
from ntkbayes.experiment.tuning import tuned_problem
from ntkbayes.methods import METHODS, REFERENCE

DATASETS = ("digits", "breast_cancer", "wine", "iris", "moons", "diabetes")
CLASSIFICATION = ("accuracy", "nll", "brier", "ece_squared", "aurc", "total_variation")
SHOWN = ("confidence_gap", "smooth_ece", "scaled_nll", "temperature_gain")
"""Beside those that methods are ranked by."""
JOINT = ("energy_distance", "mean_distance", "covariance_distance")
REGRESSION = ("rmse", "nll", "crps", "coverage_90", "interval_score_90", "wasserstein_1")
NUM_TRAIN = {"digits": 500}
BASELINE = METHODS[REFERENCE].title
SCALED = "Mode, temperature-scaled"


def one_comparison(dataset, seed, num_train, directory, on_progress):
    """Metrics of all methods in long form, the hyperparameters, and whether HMC is reliable."""
    config = preset(dataset, seed=seed, tune=True, num_train=num_train)
    comparison = run_comparison(config, directory, on_progress=on_progress)
    trees = dict(comparison.predictions)
    if comparison.data.task == "classification":
        problem = tuned_problem(problem_of(config), comparison.selection)
        mode = METHODS["mode"].fit(problem, jax.random.key(seed), lambda done: None)
        scaled = nb.temperature_scaled(mode, comparison.data, key=jax.random.key(seed))
        trees[SCALED] = predict(
            scaled, comparison.data, key=jax.random.key(seed), num_draws=1, method=SCALED
        )
    reliable = comparison.diagnostics[BASELINE].reliable
    parts = [nb.compare(trees, reference=BASELINE if reliable else None, require_reliable=False)]
    if reliable:
        parts.append(pd.read_csv(directory / "joint_distances.csv").assign(dataset=dataset))
    return pd.concat(parts).assign(seed=seed), comparison.selection.values, reliable


def average_ranks(seeds):
    """Mean rank of each method over the datasets, one column per metric."""
    ranks = seeds.groupby(["metric", "method"], sort=False)["rank"].mean()
    return ranks.unstack("metric", sort=False)[list(CLASSIFICATION)]


def floors(long):
    """Calibration error that chance alone would show, mean over seeds."""
    cells = long.groupby(["dataset", "metric", "method"], sort=False)["calibration_floor"]
    return cells.mean().dropna().rename("floor").reset_index()


def records(table):
    """Rows for JSON, which knows no NaN."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


@styled
def plot_differences(seeds, metrics):
    """Paired differences from HMC with 95 % intervals: rows of metrics, columns of datasets."""
    datasets = list(seeds["dataset"].unique())
    looks = method_looks([name for name in seeds["method"].unique() if name != BASELINE])
    figure = new_figure(1.9 + 1.75 * len(datasets), 1.0 + 1.75 * len(metrics))
    panels = figure.subplots(len(metrics), len(datasets), squeeze=False, sharey=True)
    cells = itertools.product(metrics, datasets)
    for (metric, dataset), axes in zip(cells, panels.ravel(), strict=True):
        chosen = (seeds["dataset"] == dataset) & (seeds["metric"] == metric)
        _differences(axes, seeds.loc[chosen].set_index("method"), looks)
        axes.set_xlabel(f"Δ {metric_title(metric)}")
    for axes, dataset in zip(panels[0], datasets, strict=True):
        axes.set_title(dataset)
    return figure


def _differences(axes, rows, looks):
    axes.axvline(0, color="0.7", lw=0.8)
    for y, (method, look) in enumerate(looks.items()):
        if method in rows.index:
            row = rows.loc[method]
            ends = [row["difference_low"], row["difference_high"]]
            axes.plot(ends, [y, y], color=look["color"], lw=1.2)
            axes.plot(row["difference"], y, color=look["color"], marker=look["marker"], ms=5)
    axes.set_yticks(range(len(looks)), looks)
    axes.set_ylim(len(looks) - 0.5, -0.5)
    axes.locator_params(axis="x", nbins=3)


def main():
    """Run, write JSON and figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=DATASETS)
    parser.add_argument("--num-seeds", type=int, default=5)
    parser.add_argument("--num-train", type=int, help="of every dataset; default: its own")
    parser.add_argument("--directory", type=Path, default=Path("runs/calibration"))
    add_out(parser)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_num_cpu_devices", 2)
    parts, hyperparameters, reliable = [], {}, {}
    with progress_shown() as on_progress:
        for dataset in options.datasets:
            num_train = options.num_train or NUM_TRAIN.get(dataset)
            for seed in range(options.num_seeds):
                name = f"{dataset}, seed {seed}"

                def named(step, fraction, part, name=name):
                    on_progress(f"{name}: {step}", fraction, part)

                directory = options.directory / dataset / str(seed)
                long, values, sound = one_comparison(dataset, seed, num_train, directory, named)
                parts.append(long)
                hyperparameters.setdefault(dataset, []).append(values)
                reliable.setdefault(dataset, []).append(bool(sound))
    long = pd.concat(parts)
    shown = long[long["metric"].isin({*CLASSIFICATION, *SHOWN, *REGRESSION, *JOINT})]
    seeds = seed_table(shown, baseline=BASELINE)
    classes = seeds[seeds["dataset"].map(lambda name: nb.DATASETS[name].task) == "classification"]
    if len(classes):
        figure = plot_differences(classes, ["nll", "brier", "ece_squared"])
        figure.savefig(options.out / "calibration.png")
    found = {
        "seeds": options.num_seeds,
        "hyperparameters": hyperparameters,
        "reference_reliable": reliable,
        "average_ranks": records(average_ranks(classes).reset_index()) if len(classes) else [],
        "table": records(seeds),
        "floors": records(floors(shown)),
        "values": records(shown[["dataset", "seed", "method", "metric", "value"]]),
    }
    write_results(options.out, "calibration", found | {"environment": environment()})


if __name__ == "__main__":
    main()
