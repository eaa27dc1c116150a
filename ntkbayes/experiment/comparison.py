"""The record of a finished comparison, and what a reader of its table must know."""

from pathlib import Path

import equinox as eqx
import pandas as pd
import xarray as xr

from ntkbayes.datasets import Dataset
from ntkbayes.evaluation import ChainDiagnostics, headline_metrics
from ntkbayes.experiment.config import ComparisonConfig
from ntkbayes.experiment.tuning import tuning_remarks
from ntkbayes.hyperparameters import HyperparameterSelection

__all__ = ["Comparison"]


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
        Title → diagnosis of the predictions of methods with Markov chains.
    out
        Directory of the results.
    selection
        The hyperparameters all methods share, if they were tuned.
    """

    config: ComparisonConfig
    data: Dataset
    predictions: dict[str, xr.DataTree]
    metrics: pd.DataFrame
    diagnostics: dict[str, ChainDiagnostics]
    out: Path
    selection: HyperparameterSelection | None = None

    @property
    def headlines(self) -> list[str]:
        """The most important metrics of the task, of those that were computed."""
        there = set(self.metrics["metric"])
        return [name for name in headline_metrics(self.data.task) if name in there]

    @property
    def remarks(self) -> list[str]:
        """What a reader of the table must know: warnings, how chains and training ended, units."""
        return [
            *(tuning_remarks(self.selection, len(self.data.x_train)) if self.selection else ()),
            *(_chain_remark(title, found) for title, found in self.diagnostics.items()),
            *(
                _training_remark(title, tree["sample_stats"].ds)
                for title, tree in self.predictions.items()
                if "converged" in tree["sample_stats"]
            ),
            _unit_remark(self.data),
        ]


def _chain_remark(title: str, found: ChainDiagnostics) -> str:
    if found.reliable:
        return f"{title}: {found.verdict}"
    return f"WARNING: {title}: {found.verdict} Distances from it are withheld."


def _training_remark(title: str, stats: xr.Dataset) -> str:
    converged, residual = int(stats["converged"].sum()), float(stats["residual"].max())
    found = f"{converged} of {stats['converged'].size} networks trained to the end"
    warning = "" if converged == stats["converged"].size else "WARNING: "
    return f"{warning}{title}: {found}, largest residual gradient {residual:.2g}."


def _unit_remark(data: Dataset) -> str:
    if data.task == "classification":
        return (
            "NLL, entropy and mutual information in nats; Brier is the sum over classes; squared "
            "ECE is without bias, so 0 on average if calibrated and below it by chance."
        )
    return (
        "NLL in nats; RMSE, CRPS, widths and Wasserstein-1 in standardised target units "
        f"(1 = {data.target_scale:.4g} in the original ones); intervals include the noise."
    )
