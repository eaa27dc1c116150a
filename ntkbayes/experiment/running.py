"""Running a comparison: what is missing in its directory is computed, the rest is read."""

import dataclasses
import hashlib
import os
import time
from importlib.metadata import version
from pathlib import Path

import jax
import pandas as pd
import tomli_w
import xarray as xr

from ntkbayes._checks import check_choice
from ntkbayes._files import atomic_path
from ntkbayes._progress import bar_in_notebooks
from ntkbayes._types import Key, OnProgress, Progress
from ntkbayes.datasets import Dataset, load_dataset
from ntkbayes.evaluation import (
    ChainDiagnostics,
    chain_diagnostics,
    compare,
    predict,
    save_predictions,
)
from ntkbayes.evaluation.diagnostics import from_markov_chains
from ntkbayes.experiment.comparison import Comparison
from ntkbayes.experiment.config import ComparisonConfig
from ntkbayes.experiment.directory import (
    check_directory,
    check_same_settings,
    fingerprint,
    holds_results,
    make_directories,
    own_directory,
    predictions_path,
    read_predictions,
    write_text,
)
from ntkbayes.experiment.environment import other_versions, write_environment
from ntkbayes.experiment.grid import grid_draws, is_plane
from ntkbayes.experiment.report import FIGURE_FORMATS, write_figures_and_report
from ntkbayes.experiment.tuning import tune, tuned_problem
from ntkbayes.likelihoods import Categorical, Gaussian, Likelihood
from ntkbayes.methods import METHODS, REFERENCE, Method, Problem
from ntkbayes.networks import dense_network
from ntkbayes.predictors import Predictor

__all__ = ["problem_of", "run_comparison"]

LAST_STEPS_SHARE = 0.05
TUNING_SHARE = 0.25
NUM_GRID_DRAWS = 200


@bar_in_notebooks
def run_comparison(
    config: ComparisonConfig,
    out: str | os.PathLike[str],
    *,
    on_progress: OnProgress | None = None,
    figure_format: str = "png",
) -> Comparison:
    """Fit every method, predict at the test points, and write tables, figures and a report.

    Parameters
    ----------
    config
        The settings.
    out
        Directory of the results, made if it is missing. If it holds results of the same settings
        (the choice of methods aside), only what is missing, unreadable or made by another version
        of ntkbayes is computed, and methods that are finished there stay in the comparison.
    on_progress
        Called with what is being done, and the finished fractions of the whole and of this step.
        By default a bar in notebooks (``NTKBAYES_PROGRESS=off``: none).
    figure_format
        "png", "pdf" or "svg"; the report has its own.

    Raises
    ------
    ValueError
        If `figure_format` is unknown; if `out` is not a directory one can write to, is in use by
        another process, or holds results of other settings; or if a method refuses the data.
    OSError
        If a file cannot be written, for instance because the disk is full.
    """
    check_choice("figure_format", figure_format, FIGURE_FORMATS)
    directory = Path(out)
    check_directory(directory)
    check_same_settings(directory, config.settings(), free="methods")
    problem = problem_of(config)
    make_directories(directory)
    report = on_progress or (lambda step, fraction, part: None)
    with own_directory(directory):
        comparison = _run(config, problem, directory, report)
        report("figures and report", 1 - LAST_STEPS_SHARE / 2, 1.0)
        write_figures_and_report(comparison, figure_format=figure_format)
    report("done", 1.0, 1.0)
    return comparison


def _run(
    config: ComparisonConfig, problem: Problem, directory: Path, report_progress: OnProgress
) -> Comparison:
    """Compute what is missing in a directory that is this process's own."""
    if not holds_results(directory):  # else it is written when the further methods are there
        _write_config(config, directory)
    selection = None
    if config.tune:
        selection = tune(
            config,
            problem,
            directory,
            lambda done: report_progress("choosing hyperparameters", TUNING_SHARE * done, done),
        )
        problem = tuned_problem(problem, selection)
    settings = fingerprint(config, None if selection is None else selection.values)
    kept = _kept_predictions(settings, directory)
    write_environment(directory, {METHODS[name].title: tree for name, tree in kept.items()})
    others = [name for name in kept if name not in config.methods]
    config = dataclasses.replace(config, methods=(*config.methods, *others))
    begin = 0.0 if selection is None else TUNING_SHARE
    end = begin if set(config.methods) == set(kept) else 1 - LAST_STEPS_SHARE
    predictions = _all_predictions(
        config, problem, settings, kept, directory,
        lambda step, share, part: report_progress(step, begin + (end - begin) * share, part),
    )  # fmt: skip
    report_progress("metrics", end, 1.0)
    diagnostics = {
        title: chain_diagnostics(tree)
        for title, tree in predictions.items()
        if from_markov_chains(tree)
    }
    write_environment(directory, predictions)
    metrics = _metrics(config, predictions, diagnostics)
    with atomic_path(directory / "metrics.parquet") as temporary:
        metrics.to_parquet(temporary, index=False)
    _write_config(config, directory)
    return Comparison(config, problem.data, predictions, metrics, diagnostics, directory, selection)


def _write_config(config: ComparisonConfig, directory: Path) -> None:
    write_text(directory / "config.toml", tomli_w.dumps(config.settings()))


def problem_of(config: ComparisonConfig) -> Problem:
    """Make data, network and likelihood of a comparison, before any tuning."""
    data = load_dataset(config.dataset, seed=config.seed, num_train=config.num_train)
    network = dense_network(
        depth=config.depth,
        width=config.width,
        activation=config.activation,
        weight_scale=config.weight_scale,
        bias_scale=config.bias_scale,
        readout_scale=config.readout_scale,
    )
    return Problem(
        data,
        network,
        _likelihood(config, data),
        config.prior_precision,
        num_draws=config.num_draws,
        num_warmup=config.num_warmup,
        num_chains=config.num_chains,
        product_dtype=config.product_dtype,
        num_members=config.num_members,
    )


def _likelihood(config: ComparisonConfig, data: Dataset) -> Likelihood:
    if data.task == "classification":
        return Categorical(data.num_classes)
    if config.noise_variance is not None:
        return Gaussian(config.noise_variance)
    if data.noise_scale is not None:
        return Gaussian(data.noise_scale**2)
    raise ValueError(f"noise_variance is needed for {data.name}: its noise is not known.")


def _kept_predictions(settings: str, directory: Path) -> dict[str, xr.DataTree]:
    """Complete predictions of earlier runs with the same settings and ntkbayes, by name."""
    return {
        name: tree
        for name in METHODS
        if (tree := read_predictions(predictions_path(directory, name), settings)) is not None
        and tree.attrs.get("ntkbayes_version") == version("ntkbayes")
    }


def _all_predictions(
    config: ComparisonConfig,
    problem: Problem,
    settings: str,
    kept: dict[str, xr.DataTree],
    directory: Path,
    on_progress: OnProgress,
) -> dict[str, xr.DataTree]:
    """Predictions by title, those that are kept and the others computed, quick methods first."""
    found = dict(kept)
    for name, tree in found.items():
        made = other_versions(tree)
        by = f" with {made}" if made else ""
        on_progress(f"{METHODS[name].title}: kept from an earlier run{by}", 0.0, 1.0)
    missing = sorted(set(config.methods) - set(found), key=lambda name: METHODS[name].cost)
    total, done = sum(METHODS[name].cost for name in missing), 0.0
    for name in missing:
        method = METHODS[name]

        def progress(fraction: float, method: Method = method, done: float = done) -> None:
            on_progress(method.title, (done + method.cost * fraction) / total, fraction)

        progress(0.0)
        path = predictions_path(directory, name)
        checkpoint = path.with_suffix(".checkpoint.npz")
        resumable = dataclasses.replace(problem, checkpoint=checkpoint)
        tree = _compute(name, resumable, jax.random.key(config.seed), progress)
        tree.attrs["comparison"] = settings
        save_predictions(tree, path)
        checkpoint.unlink(missing_ok=True)
        found[name], done = tree, done + method.cost
    return {METHODS[name].title: found[name] for name in METHODS if name in found}


def _compute(name: str, problem: Problem, key: Key, progress: Progress) -> xr.DataTree:
    method, data = METHODS[name], problem.data
    # A method's numbers do not depend on which others run beside it.
    stream = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4])
    key_fit, key_predict, key_grid = jax.random.split(jax.random.fold_in(key, stream), 3)
    start, share = time.perf_counter(), method.fit_share
    predictor = method.fit(problem, key_fit, lambda done: progress(share * done))
    tree = predict(
        predictor,
        data,
        key=key_predict,
        num_draws=_num_draws(predictor, problem.num_draws * predictor.num_chains),
        method=method.title,
        progress=lambda done: progress(share + (1 - share) * done),
    )
    tree.attrs["seconds"] = time.perf_counter() - start
    if is_plane(data):
        number = _num_draws(predictor, min(NUM_GRID_DRAWS, problem.num_draws))
        tree["grid"] = xr.DataTree(grid_draws(predictor, data, key_grid, num_draws=number))
    return tree


def _num_draws(predictor: Predictor, wanted: int) -> int:
    """As many draws as wanted, if the predictor has them, in whole draws per chain."""
    available, chains = predictor.num_available, predictor.num_chains
    number = wanted if available is None else min(wanted, available)
    return max(number // chains, 1) * chains


def _metrics(
    config: ComparisonConfig,
    predictions: dict[str, xr.DataTree],
    diagnostics: dict[str, ChainDiagnostics],
) -> pd.DataFrame:
    """Every metric; distances from the reference only if it is there and reliable."""
    reference = METHODS[REFERENCE].title
    usable = reference in diagnostics and diagnostics[reference].reliable
    long = compare(predictions, reference=reference if usable else None, require_reliable=False)
    long.insert(list(long.columns).index("metric"), "seed", config.seed)
    return long
