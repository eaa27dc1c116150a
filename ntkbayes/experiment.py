"""One experiment: all methods on one dataset, from data to report, resumable.

A run is a directory: ``config.toml`` (what was asked), ``environment.json`` (what it ran on),
``predictions/<method>.nc`` (one DataTree per method), ``metrics.parquet`` (long form),
``figures/`` and ``report.html``. Every file is written atomically. A method whose file can be read
and was made with the same settings is not computed again.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import tempfile
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import tomli_w
import xarray as xr

from ntkbayes._checks import check_at_least, check_choice, check_positive
from ntkbayes._types import Key, Progress
from ntkbayes.datasets import DATASETS, Dataset, load_dataset
from ntkbayes.evaluation import (
    ChainDiagnostics,
    chain_diagnostics,
    compare,
    distance_matrix,
    grid_points,
    load_predictions,
    plot_bands,
    plot_coverage,
    plot_distance_heatmap,
    plot_metric_forest,
    plot_predictive_distributions,
    plot_probability_maps,
    plot_reliability,
    predict,
    save_predictions,
    wide_table,
    write_report,
)
from ntkbayes.evaluation._style import label
from ntkbayes.evaluation.storage import atomic_path, pooled
from ntkbayes.likelihoods import Categorical, Gaussian, Likelihood
from ntkbayes.methods import METHODS, REFERENCE, Problem
from ntkbayes.networks import dense_network
from ntkbayes.predictors import Predictor

__all__ = ["Comparison", "ComparisonConfig", "OnProgress", "preset", "run_comparison"]

OnProgress = Callable[[str, float], None]
"""Called with what is being done, and the finished fraction of the whole run."""

GRID_SIZE = 40
NUM_GRID_DRAWS = 200
LAST_STEPS_SHARE = 0.05
PACKAGES = ("ntkbayes", "jax", "jaxlib", "numpy", "scipy", "numpyro", "gpjax", "arviz", "equinox")


class ComparisonConfig(eqx.Module):
    """Everything that decides the numbers of a comparison; `preset` fills in a dataset's own.

    Parameters
    ----------
    dataset
        One of `DATASETS`.
    methods
        Names from `METHODS`.
    prior_precision
        λ > 0, the weight of ½‖θ − θ₀‖² against the *summed* loss.
    seed
        Draws the data split and every random number; zero or positive.
    num_draws
        Draws per method, ≥ 1; HMC keeps as many in each of its chains.
    num_train
        Number of training points; None for the dataset's own.
    noise_variance
        Regression only, squared standardised target units; None for the noise the data were made
        with.
    depth, width, activation, weight_scale, bias_scale
        The network, as in `dense_network`; `width` counts for trained networks only.
    num_warmup, num_chains
        Of HMC: steps of adaptation per chain, and chains.
    num_members
        Networks of the deep ensemble.

    Raises
    ------
    ValueError
        If a value is out of range or a name unknown.
    """

    dataset: str
    methods: tuple[str, ...] = tuple(METHODS)
    prior_precision: float = 1.0
    seed: int = 0
    num_draws: int = 1000
    num_train: int | None = None
    noise_variance: float | None = None
    depth: int = 2
    width: int = 512
    activation: str = "relu"
    weight_scale: float = 2**0.5
    bias_scale: float = 0.1
    num_warmup: int = 500
    num_chains: int = 4
    num_members: int = 5

    def __check_init__(self):
        check_choice("dataset", self.dataset, DATASETS)
        if not self.methods:
            raise ValueError(f"no method given: choose from {', '.join(METHODS)}.")
        for method in self.methods:
            check_choice("method", method, METHODS)
        check_positive("prior_precision", self.prior_precision)
        check_at_least("seed", self.seed, 0)
        check_at_least("num_draws", self.num_draws, 1)
        check_at_least("num_warmup", self.num_warmup, 1)
        check_at_least("num_chains", self.num_chains, 1)
        check_at_least("num_members", self.num_members, 1)
        if self.noise_variance is not None:
            check_positive("noise_variance", self.noise_variance)

    def settings(self) -> dict[str, Any]:
        """Name → value of every setting that is not None, as written to ``config.toml``."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        values["methods"] = list(self.methods)
        return {name: value for name, value in values.items() if value is not None}


PRESETS: dict[str, dict[str, Any]] = {
    "digits": {"prior_precision": 0.1},
    "diabetes": {"noise_variance": 0.5},
}
"""Settings of a dataset that differ from the defaults of `ComparisonConfig`."""


def preset(dataset: str, **changes: Any) -> ComparisonConfig:
    """Return the settings chosen for a dataset, with changes; a change of None changes nothing.

    Raises
    ------
    ValueError
        If a value is out of range or a name unknown.
    """
    check_choice("dataset", dataset, DATASETS)
    given = {name: value for name, value in changes.items() if value is not None}
    return ComparisonConfig(dataset, **(PRESETS.get(dataset, {}) | given))


class Comparison(eqx.Module):
    """A finished comparison.

    Parameters
    ----------
    config, data
        What was asked, and the data it was asked of.
    predictions
        Title of the method → predictions at the test points.
    metrics
        Long form, from `compare`, with a column ``seed``.
    diagnostics
        Title → diagnosis of the predictions of methods with several Markov chains.
    out
        Directory of the results.
    """

    config: ComparisonConfig
    data: Dataset
    predictions: dict[str, xr.DataTree]
    metrics: pd.DataFrame
    diagnostics: dict[str, ChainDiagnostics]
    out: Path

    @property
    def remarks(self) -> list[str]:
        """What a reader of the table must know: warnings, Monte-Carlo error and units."""
        return [
            *(_chain_remark(title, found) for title, found in self.diagnostics.items()),
            *_floor_remark(self.metrics),
            _unit_remark(self.data),
        ]


def run_comparison(
    config: ComparisonConfig, out: str | os.PathLike[str], *, on_progress: OnProgress | None = None
) -> Comparison:
    """Fit every method, predict at the test points, and write tables, figures and a report.

    Parameters
    ----------
    config
        The settings.
    out
        Directory of the results, made if it is missing. If it holds results of the same settings
        (the choice of methods aside), only what is missing or unreadable is computed.
    on_progress
        Called with what is being done and the finished fraction.

    Raises
    ------
    ValueError
        If `out` is not a directory one can write to, or holds results of other settings; or if a
        method refuses the data.
    """
    report_progress = on_progress or (lambda step, fraction: None)
    directory = Path(out)
    _check_directory(directory)
    _check_same_settings(directory, config)
    problem = _problem(config)
    _make_directories(directory)
    _write_text(directory / "config.toml", tomli_w.dumps(config.settings()))
    _write_text(directory / "environment.json", json.dumps(_environment(), indent=2) + "\n")
    predictions = _all_predictions(config, problem, directory, report_progress)
    report_progress("metrics", 1 - LAST_STEPS_SHARE)
    metrics = _metrics(config, predictions)
    with atomic_path(directory / "metrics.parquet") as temporary:
        metrics.to_parquet(temporary, index=False)
    diagnostics = {
        title: chain_diagnostics(tree)
        for title, tree in predictions.items()
        if int(tree.attrs["num_chains"]) > 1
    }
    comparison = Comparison(config, problem.data, predictions, metrics, diagnostics, directory)
    report_progress("figures and report", 1 - LAST_STEPS_SHARE / 2)
    _write_figures_and_report(comparison)
    report_progress("done", 1.0)
    return comparison


def _check_directory(directory: Path) -> None:
    """Refuse before anything is computed, and make no directory yet that was not there."""
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"the output directory {directory} is a file; choose another.")
    existing = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise ValueError(
            f"the output directory {directory} is not writable ({error.strerror}); choose another."
        ) from error


def _make_directories(directory: Path) -> None:
    try:
        for folder in ("predictions", "figures"):
            (directory / folder).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=directory / folder):
                pass
    except OSError as error:
        raise ValueError(
            f"the output directory {directory} is not writable ({error.strerror}); choose another."
        ) from error


def _check_same_settings(directory: Path, config: ComparisonConfig) -> None:
    path = directory / "config.toml"
    if not path.exists():
        return
    try:
        before = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is not readable; choose another output directory.") from error
    now = config.settings()
    for name in sorted(before.keys() | now.keys() - {"methods"}):
        if name != "methods" and before.get(name) != now.get(name):
            raise ValueError(
                f"{directory} holds results of other settings ({name} was "
                f"{before.get(name, 'not set')}, now {now.get(name, 'not set')}); "
                "choose another output directory or delete it."
            )


def _problem(config: ComparisonConfig) -> Problem:
    data = load_dataset(config.dataset, seed=config.seed, num_train=config.num_train)
    network = dense_network(
        depth=config.depth,
        width=config.width,
        activation=config.activation,
        weight_scale=config.weight_scale,
        bias_scale=config.bias_scale,
    )
    return Problem(
        data,
        network,
        _likelihood(config, data),
        config.prior_precision,
        num_draws=config.num_draws,
        num_warmup=config.num_warmup,
        num_chains=config.num_chains,
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


def _all_predictions(
    config: ComparisonConfig, problem: Problem, directory: Path, on_progress: OnProgress
) -> dict[str, xr.DataTree]:
    """Predictions by title, read if they are there, the quick methods computed first."""
    fingerprint = _fingerprint(config)
    paths = {name: directory / "predictions" / f"{name}.nc" for name in config.methods}
    found = {name: tree for name, path in paths.items() if (tree := _read(path, fingerprint))}
    for name in found:
        on_progress(f"{METHODS[name].title}: kept from an earlier run", 0.0)
    missing = sorted(set(paths) - set(found), key=lambda name: METHODS[name].cost)
    share = (1 - LAST_STEPS_SHARE) / max(sum(METHODS[name].cost for name in missing), 1.0)
    done = 0.0
    for name in missing:
        method, start = METHODS[name], done

        def progress(fraction: float, title: str = method.title, start: float = start) -> None:
            on_progress(title, share * (start + fraction))

        def weighted(fraction: float, cost: float = method.cost, then: Progress = progress) -> None:
            then(cost * fraction)

        weighted(0.0)
        tree = _compute(name, problem, jax.random.key(config.seed), weighted)
        tree.attrs["comparison"] = fingerprint
        save_predictions(tree, paths[name])
        found[name], done = tree, done + method.cost
    return {METHODS[name].title: found[name] for name in METHODS if name in found}


def _fingerprint(config: ComparisonConfig) -> str:
    """Text that is the same for the same settings; the choice of methods aside."""
    settings = config.settings()
    del settings["methods"]
    dtype = str(jnp.result_type(float))
    return json.dumps(settings | {"dtype": dtype}, sort_keys=True)


def _read(path: Path, fingerprint: str) -> xr.DataTree | None:
    """Return complete predictions of these settings, else None."""
    try:
        tree = load_predictions(path)
    except (FileNotFoundError, ValueError):
        return None
    return tree if tree.attrs.get("comparison") == fingerprint else None


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
    if _is_plane(data):
        tree["grid"] = xr.DataTree(_grid_draws(predictor, data, key_grid, problem.num_draws))
    return tree


def _num_draws(predictor: Predictor, wanted: int) -> int:
    """As many draws as wanted, if the predictor has them, in whole draws per chain."""
    available, chains = predictor.num_available, predictor.num_chains
    number = wanted if available is None else min(wanted, available)
    return max(number // chains, 1) * chains


def _is_plane(data: Dataset) -> bool:
    """Whether a classifier can be shown as a map."""
    return data.task == "classification" and data.num_features == 2 and data.num_classes == 2


def _grid_axes(data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Axes of a grid around the training points with a margin, in standardised units."""
    x = np.asarray(data.x_train)
    low, high = x.min(axis=0), x.max(axis=0)
    margin = 0.35 * (high - low)
    first, second = np.linspace(low - margin, high + margin, GRID_SIZE).T
    return first, second


def _grid_draws(predictor: Predictor, data: Dataset, key: Key, num_draws: int) -> xr.Dataset:
    x = grid_points(*_grid_axes(data))
    number = _num_draws(predictor, min(NUM_GRID_DRAWS, num_draws))
    latent = np.asarray(predictor.sample(key, x, num_draws=number))
    return xr.Dataset(
        {
            "latent": (("sample", "grid_id", "output"), latent),
            "x": (("grid_id", "feature"), x),
        }
    )


def _metrics(config: ComparisonConfig, predictions: dict[str, xr.DataTree]) -> pd.DataFrame:
    reference = METHODS[REFERENCE].title
    long = compare(predictions, reference=reference if reference in predictions else None)
    long.insert(list(long.columns).index("metric"), "seed", config.seed)
    return long


def _write_figures_and_report(comparison: Comparison) -> None:
    figures = _figures(comparison)
    for name, (_, figure) in figures.items():
        with atomic_path(comparison.out / "figures" / f"{name}.png") as temporary:
            figure.savefig(temporary, format="png")
    write_report(
        comparison.out / "report.html",
        title=f"{comparison.config.dataset}: {DATASETS[comparison.config.dataset].description}",
        table=wide_table(comparison.metrics),
        figures=dict(figures.values()),
        notes=comparison.remarks,
        settings=comparison.config.settings(),
    )


def _figures(comparison: Comparison) -> dict[str, tuple[str, Any]]:
    """File name → caption and figure."""
    trees, data = comparison.predictions, comparison.data
    figures: dict[str, tuple[str, Any]] = {}
    if _is_plane(data):
        figures["maps"] = ("Mean probability and mutual information", _maps(trees, data))
    if data.image_shape is not None:
        figure = plot_predictive_distributions(trees, data)
        figures["predictive_distributions"] = ("Predictive distributions of test images", figure)
    if data.task == "classification":
        figures["reliability"] = ("Reliability of the top label", plot_reliability(trees))
        distance = "total variation (mean over test points)"
    else:
        if data.num_features == 1:
            figures["bands"] = ("The latent function and its bands", _bands(trees, data))
        figures["coverage"] = ("Coverage of central intervals", plot_coverage(trees))
        distance = "Wasserstein-1 (standardised target units)"
    if len(trees) > 1:
        heatmap = plot_distance_heatmap(distance_matrix(trees), label=distance)
        figures["distances"] = ("Distances between the methods", heatmap)
    figures["metrics"] = ("Every metric", plot_metric_forest(comparison.metrics))
    return figures


def _maps(trees: dict[str, xr.DataTree], data: Dataset) -> Any:
    x1, x2 = _grid_axes(data)
    return plot_probability_maps(
        {title: np.asarray(tree["grid/latent"]) for title, tree in trees.items()},
        x1=x1,
        x2=x2,
        x_train=data.x_train,
        y_train=data.y_train,
    )


def _bands(trees: dict[str, xr.DataTree], data: Dataset) -> Any:
    """Bands at the test inputs, in original units."""

    def original(y: np.ndarray) -> np.ndarray:
        return np.asarray(y) * data.target_scale + data.target_mean

    x = np.asarray(data.original_inputs(data.x_test))[:, 0]
    order = np.argsort(x)
    x_train = np.asarray(data.original_inputs(data.x_train))[:, 0]
    inside = np.sort(x_train)
    widest = int(np.argmax(np.diff(inside)))
    exact = None
    gp = trees.get(METHODS["gp"].title)
    if gp is not None and "closed_form" in gp.children:
        mean, variance = (
            np.asarray(gp["closed_form"][name])[order, 0] for name in ("mean", "variance")
        )
        exact = (original(mean), variance * data.target_scale**2)
    return plot_bands(
        {title: original(pooled(tree)[:, order, 0]) for title, tree in trees.items()},
        x_grid=x[order],
        x_train=x_train,
        y_train=original(np.asarray(data.y_train)),
        exact=exact,
        gap=(float(inside[widest]), float(inside[widest + 1])),
    )


def _chain_remark(title: str, found: ChainDiagnostics) -> str:
    return f"{'' if found.reliable else 'WARNING: '}{title}: {found.verdict}"


def _floor_remark(metrics: pd.DataFrame) -> list[str]:
    floors = metrics[metrics["monte_carlo_floor"].notna()]
    return [
        f"Monte-Carlo floor of {label(str(name))} (what draws of one and the same "
        f"distribution would show): "
        + ", ".join(
            f"{method} {floor:.3f}"
            for method, floor in zip(rows["method"], rows["monte_carlo_floor"], strict=True)
        )
        + "."
        for name, rows in floors.groupby("metric", sort=False)
    ]


def _unit_remark(data: Dataset) -> str:
    if data.task == "classification":
        return (
            "± is one standard error over the test points. NLL, entropy and mutual information in "
            "nats; Brier is the sum over classes."
        )
    return (
        "± is one standard error over the test points. NLL in nats; RMSE, CRPS, widths and "
        f"Wasserstein-1 in standardised target units (1 = {data.target_scale:.4g} in the "
        "original ones); intervals include the noise."
    )


def _write_text(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _environment() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "num_cpus": os.cpu_count(),
        "devices": [str(device) for device in jax.devices()],
        "dtype": str(jnp.result_type(float)),
        "git_revision": _git_revision(),
    }


def _git_revision() -> str | None:
    """Revision of the checkout this package runs from; None if it is installed elsewhere."""
    checkout = Path(__file__).parents[1]
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
