"""The lazy-regime study of one dataset: settings, files, figures and the table of slopes."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import jax
import pandas as pd
import tomli_w

from ntkbayes._checks import check_at_least, check_choice, check_positive
from ntkbayes._files import atomic_path
from ntkbayes.datasets import load_dataset
from ntkbayes.experiment.directory import check_directory, check_same_settings, write_text
from ntkbayes.experiment.environment import environment
from ntkbayes.lazy.conditions import CONDITIONS
from ntkbayes.lazy.dynamics import ALL_LAYERS, MEASURES
from ntkbayes.lazy.planning import make_plan
from ntkbayes.lazy.plots import plot_against_time, plot_against_width, plot_layers
from ntkbayes.lazy.slopes import fit_slopes
from ntkbayes.lazy.sweep import DEFAULT_WIDTHS, OnProgress, WidthSweep, run_sweep
from ntkbayes.networks import dense_network

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
    seed: int = 0
    dtype: str = "float32"

    def __post_init__(self):
        check_choice("dataset", self.dataset, ("moons", "digits"))
        check_at_least("num_seeds", self.num_seeds, 1)
        check_at_least("num_test", self.num_test, 1)
        check_at_least("the number of widths", len(self.widths), 1)
        check_at_least("the smallest width", min(self.widths), 1)
        check_positive("time", self.time)
        check_choice("dtype", self.dtype, ("float32", "float64"))

    def settings(self) -> dict[str, Any]:
        """Return all fields, for TOML."""
        return dataclasses.asdict(self) | {"widths": list(self.widths)}


STUDIES: dict[str, LazyConfig] = {
    "moons": LazyConfig("moons"),
    "digits": LazyConfig("digits", num_train=50, widths=(32, 64, 128, 256), time=5.0, num_seeds=3),
}
"""Default settings by dataset: minutes on two cores."""


@dataclasses.dataclass(frozen=True)
class LazyStudy:
    """A finished study."""

    config: LazyConfig
    sweep: WidthSweep
    slopes: pd.DataFrame
    directory: Path

    @property
    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """Measure, condition, slope, its interval and the value at the widest network, as text."""
        whole = self.slopes.loc[self.slopes["layer"] == ALL_LAYERS, :]
        rows = whole.to_dict("records")
        return [
            (
                measure,
                CONDITIONS[row["condition"]].title,
                f"{row['slope']:.2f}",
                f"{row['lower']:.2f} to {row['upper']:.2f}",
                f"{row['at_widest']:.2g}",
            )
            for measure in MEASURES
            for row in rows
            if row["measure"] == measure
        ]


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
    plan = make_plan(
        dense_network(depth=config.depth, activation=config.activation),
        data.x_train.astype(config.dtype),
        data.y_train,
        data.x_test[: config.num_test].astype(config.dtype),
        key=jax.random.key(config.seed),
        conditions=CONDITIONS,
        widths=config.widths,
        num_seeds=config.num_seeds,
        time=config.time,
        num_records=config.num_records,
        step=None,
        num_kernel_points=16,
    )
    (directory / "figures").mkdir(parents=True, exist_ok=True)
    write_text(directory / "config.toml", tomli_w.dumps(config.settings()))
    write_text(directory / "environment.json", json.dumps(environment(), indent=2) + "\n")
    sweep = run_sweep(plan, directory / "cells", on_progress)
    slopes = fit_slopes(sweep.table)
    for name, table in (("lazy", sweep.table), ("slopes", slopes)):
        with atomic_path(directory / f"{name}.parquet") as temporary:
            table.to_parquet(temporary, index=False)
    figures = {
        "width": plot_against_width(sweep.table),
        "time": plot_against_time(sweep.table),
        "layers": plot_layers(sweep.table),
    }
    for name, figure in figures.items():
        with atomic_path(directory / "figures" / f"{name}.png") as temporary:
            figure.savefig(temporary, format="png")
    return LazyStudy(config, sweep, slopes, directory)
