"""The lazy-regime study of one dataset: settings, files, figures and the table of slopes."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import jax
import pandas as pd
import tomli_w

from ntkbayes._checks import check_at_least, check_choice, check_positive
from ntkbayes._files import atomic_path
from ntkbayes._types import Key, OnProgress
from ntkbayes.datasets import Dataset, load_dataset
from ntkbayes.experiment.directory import (
    check_directory,
    check_same_settings,
    own_directory,
    write_text,
)
from ntkbayes.experiment.environment import write_environment
from ntkbayes.lazy.cells import Cells
from ntkbayes.lazy.conditions import CONDITIONS
from ntkbayes.lazy.dynamics import ALL_LAYERS, MEASURES
from ntkbayes.lazy.ensemble_plots import plot_ensembles, plot_variance_profile
from ntkbayes.lazy.ensembles import ENSEMBLE_MEASURES, ensemble_sweep
from ntkbayes.lazy.planning import Plan, checked_widths, make_plan
from ntkbayes.lazy.plots import plot_against_time, plot_against_width, plot_layers
from ntkbayes.lazy.slopes import fit_slopes
from ntkbayes.lazy.sweep import DEFAULT_WIDTHS, WidthSweep, run_sweep
from ntkbayes.lazy.variances import PROFILE_COLUMNS, variance_profile
from ntkbayes.likelihoods import Categorical
from ntkbayes.networks import DenseNetwork, dense_network

__all__ = ["STUDIES", "LazyConfig", "LazyStudy", "lazy_config", "run_lazy_study"]


@dataclasses.dataclass(frozen=True)
class LazyConfig:
    """Settings of a study, as written into its directory.

    Attributes
    ----------
    dataset
        One of `STUDIES`.
    widths, num_seeds, time, num_records
        As in `ntkbayes.lazy.width_sweep`.
    num_train, num_test
        Training points, and test points at which functions are compared.
    depth, activation
        Of the dense networks; their scales are `dense_network`'s.
    ensemble_widths, num_members, num_draws, prior_precision
        As in `ntkbayes.lazy.ensemble_sweep` and `variance_profile`.
    seed
        Of the data and all initial weights.
    dtype
        In which networks are trained.
    """

    dataset: str
    widths: tuple[int, ...] = DEFAULT_WIDTHS
    num_seeds: int = 5
    time: float = 10.0
    num_records: int = 12
    num_train: int = 20
    num_test: int = 50
    depth: int = 2
    activation: str = "relu"
    ensemble_widths: tuple[int, ...] = (8, 16, 32, 64)
    num_members: int = 200
    num_draws: int = 4000
    prior_precision: float = 1.0
    seed: int = 0
    dtype: str = "float32"

    def __post_init__(self):
        check_choice("dataset", self.dataset, ("moons", "digits"))
        check_at_least("num_seeds", self.num_seeds, 1)
        check_at_least("seed", self.seed, 0)
        check_at_least("num_test", self.num_test, 1)
        checked_widths(self.widths)
        checked_widths(self.ensemble_widths)
        check_positive("time", self.time)
        check_choice("dtype", self.dtype, ("float32", "float64"))

    def settings(self) -> dict[str, Any]:
        """Return all fields, for TOML."""
        lists = {name: list(getattr(self, name)) for name in ("widths", "ensemble_widths")}
        return dataclasses.asdict(self) | lists


STUDIES: dict[str, LazyConfig] = {
    "moons": LazyConfig("moons"),
    "digits": LazyConfig(
        "digits", num_train=50, widths=(32, 64, 128, 256), time=5.0, num_seeds=3, num_members=100
    ),
}
"""Default settings by dataset: minutes on two cores."""


@dataclasses.dataclass(frozen=True)
class LazyStudy:
    """A finished study."""

    config: LazyConfig
    sweep: WidthSweep
    slopes: pd.DataFrame
    ensembles: pd.DataFrame
    variances: pd.DataFrame
    directory: Path

    @property
    def slope_rows(self) -> list[tuple[str, str, str, str, str]]:
        """Title of the measure, condition, slope, interval and value at the widest, as text."""
        whole = self.slopes.loc[self.slopes["layer"] == ALL_LAYERS, :]
        rows = whole.to_dict("records")
        return [
            (
                title,
                CONDITIONS[row["condition"]].title,
                f"{row['slope']:z.2f}",
                f"{row['lower']:z.2f} to {row['upper']:z.2f}",
                f"{row['at_widest']:.2g}",
            )
            for measure, title in MEASURES.items()
            for row in rows
            if row["measure"] == measure
        ]

    @property
    def ensemble_rows(self) -> list[tuple[str, ...]]:
        """Width, and every measure of `ENSEMBLE_MEASURES` with its standard error, as text."""
        cells = {
            (row["width"], row["measure"]): f"{row['value']:z.3f} ± {row['standard_error']:.3f}"
            for row in self.ensembles.to_dict("records")
        }
        widths = sorted(set(self.ensembles["width"]))
        return [(str(w), *(cells[w, measure] for measure in ENSEMBLE_MEASURES)) for w in widths]

    @property
    def variance_rows(self) -> list[tuple[str, ...]]:
        """Ensemble, and predicted and measured ratios nearest the data and farthest, as text."""
        rows = []
        for method, part in self.variances.groupby("method", sort=False):
            texts = [str(method)]
            for row in (part.iloc[0], part.iloc[-1]):
                texts += [f"{row[name]:.2f}" for name in ("predicted", "to_laplace", "to_hmc")]
            rows.append(tuple(texts))
        return rows


def lazy_config(dataset: str, **given: Any) -> LazyConfig:
    """Return a dataset's default settings with those that are given and not None.

    Raises
    ------
    ValueError
        If the dataset has no study, or a setting is out of range.
    """
    check_choice("dataset", dataset, STUDIES)
    chosen = {name: value for name, value in given.items() if value is not None}
    return dataclasses.replace(STUDIES[dataset], **chosen)


def run_lazy_study(
    config: LazyConfig, out: str | os.PathLike[str], *, on_progress: OnProgress
) -> LazyStudy:
    """Run what is missing in `out`, and write table, slopes and figures.

    Raises
    ------
    ValueError
        If `out` is not a directory one can write to or holds results of other settings (the widths
        aside), or the sweep refuses its settings.
    """
    directory = Path(out)
    check_directory(directory)
    check_same_settings(directory, config.settings(), free="widths")
    data = load_dataset(config.dataset, seed=config.seed, num_train=config.num_train)
    data = dataclasses.replace(
        data, x_test=data.x_test[: config.num_test], y_test=data.y_test[: config.num_test]
    )
    network = dense_network(depth=config.depth, activation=config.activation)
    key = jax.random.key(config.seed)
    plan = make_plan(
        network,
        data.x_train.astype(config.dtype),
        data.y_train,
        data.x_test.astype(config.dtype),
        key=key,
        conditions=CONDITIONS,
        widths=config.widths,
        num_seeds=config.num_seeds,
        time=config.time,
        num_records=config.num_records,
        step=None,
        num_kernel_points=16,
    )
    (directory / "figures").mkdir(parents=True, exist_ok=True)
    with own_directory(directory):
        return _run(config, data, network, plan, key, directory, on_progress)


def _run(
    config: LazyConfig,
    data: Dataset,
    network: DenseNetwork,
    plan: Plan,
    key: Key,
    directory: Path,
    on_progress: OnProgress,
) -> LazyStudy:
    """Run what is missing in a directory that is this process's own."""
    write_text(directory / "config.toml", tomli_w.dumps(config.settings()))
    write_environment(directory, {})
    variances = _variances(network, data, config, directory / "cells", on_progress)
    ensembles = ensemble_sweep(
        network, Categorical(data.num_classes), data, key=key,
        prior_precision=config.prior_precision, widths=config.ensemble_widths,
        num_members=config.num_members, num_draws=config.num_draws, directory=directory / "cells",
        progress=lambda part: on_progress("ensembles of trained networks", 0.2 + 0.3 * part, part),
    )  # fmt: skip
    sweep = run_sweep(
        plan,
        directory / "cells",
        lambda step, fraction, part: on_progress(step, 0.5 + 0.5 * fraction, part),
    )
    study = LazyStudy(config, sweep, fit_slopes(sweep.table), ensembles, variances, directory)
    _write(study)
    return study


def _variances(
    network: DenseNetwork, data: Dataset, config: LazyConfig, cells: Path, on_progress: OnProgress
) -> pd.DataFrame:
    """Read the profile if it is there; its settings are those of the directory."""
    kept, settings = Cells(cells, PROFILE_COLUMNS), config.settings() | {"widths": None}
    found = kept.read("variances", settings)
    if found is None:
        found = variance_profile(
            network, data, key=jax.random.key(config.seed), num_draws=config.num_draws,
            prior_precision=config.prior_precision,
            progress=lambda part: on_progress(
                "variances of ensembles, Laplace, HMC", 0.2 * part, part
            ),
        )  # fmt: skip
        kept.write("variances", settings, found)
    return found


def _write(study: LazyStudy) -> None:
    tables = {
        "lazy": study.sweep.table, "slopes": study.slopes, "ensembles": study.ensembles,
        "variances": study.variances,
    }  # fmt: skip
    for name, table in tables.items():
        with atomic_path(study.directory / f"{name}.parquet") as temporary:
            table.to_parquet(temporary, index=False)
    figures = {
        "width": plot_against_width(study.sweep.table),
        "time": plot_against_time(study.sweep.table),
        "layers": plot_layers(study.sweep.table),
        "ensembles": plot_ensembles(study.ensembles),
        "variances": plot_variance_profile(study.variances),
    }
    for name, figure in figures.items():
        with atomic_path(study.directory / "figures" / f"{name}.png") as temporary:
            figure.savefig(temporary, format="png")
