"""What a selection of hyperparameters found, and the picture of how."""

import math

import equinox as eqx
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ntkbayes.evaluation.plots.style import (
    NotebookFigure,
    finish_panels,
    grid_shape,
    new_figure,
    styled,
)
from ntkbayes.likelihoods import Likelihood
from ntkbayes.networks import WideNetwork
from ntkbayes.solvers import default_tolerance

__all__ = ["OBJECTIVES", "HyperparameterSelection", "plot_optimization_trace"]

OBJECTIVES = {
    "log_marginal_likelihood": "log marginal likelihood",
    "validation_nll": "validation NLL",
}
"""Name → words."""

AT_BOUND = 1e-3
"""How near to a bound is on it, as a share of the logarithm's range."""
BEST_COLOR, OTHER_COLOR, FAILED_COLOR = "#0072B2", "0.65", "#D55E00"


class HyperparameterSelection(eqx.Module):
    """Selected hyperparameters, and how they were found.

    Parameters
    ----------
    network, likelihood, prior_precision
        The model with the selected hyperparameters, for any method.
    objective
        ``"log_marginal_likelihood"`` or ``"validation_nll"``.
    kernel
        Kernel of the prior, ``"ntk"`` or ``"nngp"``.
    value
        The objective there, in nats: the log marginal likelihood of all training points, or the
        mean over validation points.
    values
        Hyperparameter → selected value.
    bounds
        Hyperparameter → smallest and largest value allowed.
    trace
        One row per evaluation of the objective: ``restart``, ``iteration`` (0 the start),
        ``value``, the hyperparameters, ``accepted`` (false for trial points of a line search) and
        ``failure`` (empty, or why there is no value).
    restarts
        One row per restart: its best ``value``, the ``slope`` left there (largest change of the
        objective in nats, summed over points, for a factor e in one hyperparameter, unless a
        bound forbids it), whether it ``converged`` to a stationary point, whether it ``agrees``
        with the best one, ``latent_error`` (how far its mode may be off, in latent units),
        ``num_evaluations`` and ``num_failures``.
    """

    network: WideNetwork
    likelihood: Likelihood
    prior_precision: float
    objective: str
    kernel: str
    value: float
    values: dict[str, float]
    bounds: dict[str, tuple[float, float]]
    trace: pd.DataFrame
    restarts: pd.DataFrame

    @property
    def at_bound(self) -> tuple[str, ...]:
        """Hyperparameters whose selected value sits on a bound: no optimum of the objective."""
        return tuple(name for name in self.values if self._side(name))

    @property
    def num_agreeing(self) -> int:
        """How many restarts reached the best value."""
        return int(np.sum(self._restarts("agrees")))

    @property
    def warnings(self) -> list[str]:
        """What forbids to call the selected values an optimum, each with a remedy."""
        texts = []
        for name in self.at_bound:
            limit, side = self.bounds[name][self._side(name) == "upper"], self._side(name)
            texts.append(
                f"the optimum sits on a bound: {name} = {limit:.4g}, its {side} bound; widen "
                f"bounds[{name!r}], or leave {name} out of the parameters."
            )
        best = int(np.flatnonzero(self._restarts("value") == self.value)[0])
        if not self._restarts("converged")[best]:
            slope = self._restarts("slope")[best]
            texts.append(
                f"the best restart did not converge: a slope of {slope:.2g} nats is left; use more "
                "restarts or narrower bounds."
            )
        error, tolerance = self._restarts("latent_error")[best], default_tolerance(np.dtype(float))
        if not error <= tolerance:
            texts.append(
                f"the mode at the optimum may be off by {error:.2g} latent units, more than the "
                f"tolerance of {tolerance:.2g}, which is what rounding leaves; bound "
                "prior_precision from below, or take inputs of a smaller scale."
            )
        return texts

    @property
    def description(self) -> str:
        """Objective, agreement of the restarts, failures and values, in one line."""
        found = f"{self.value:.5g} nats; {self.num_agreeing} of {len(self.restarts)} restarts agree"
        failures = int(np.sum(self._restarts("num_failures")))
        if failures:
            found += f"; {failures} of {len(self.trace)} evaluations failed"
        values = ", ".join(f"{name} {value:.4g}" for name, value in self.values.items())
        return f"chosen by {OBJECTIVES[self.objective]} ({found}): {values}."

    @property
    def summary(self) -> str:
        """The description, and the warnings if there are any."""
        return "\n".join([self.description, *(f"WARNING: {text}" for text in self.warnings)])

    def _restarts(self, column: str) -> np.ndarray:
        return np.asarray(self.restarts[column])

    def _side(self, name: str) -> str:
        """``"lower"``, ``"upper"``, or empty inside the bounds."""
        low, high = (math.log(bound) for bound in self.bounds[name])
        place = (math.log(self.values[name]) - low) / (high - low)
        return "lower" if place < AT_BOUND else "upper" if place > 1 - AT_BOUND else ""


@styled
def plot_optimization_trace(selection: HyperparameterSelection) -> NotebookFigure:
    """Show the objective and every hyperparameter over the iterations of all restarts.

    The best restart is in color; a ring marks the selected value. Dashed lines are bounds, crosses
    evaluations that failed.

    Parameters
    ----------
    selection
        From `select_hyperparameters`.
    """
    names = ["value", *selection.values]
    rows, columns = grid_shape(len(names), max_columns=3)
    figure = new_figure(0.6 + 2.3 * columns, 0.8 + 1.75 * rows)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    best = int(np.flatnonzero(selection.restarts["value"] == selection.value)[0])
    order = [*(i for i in range(len(selection.restarts)) if i != best), best]
    for axes, name in zip(panels, names, strict=False):
        for restart in order:
            rows = selection.trace.loc[selection.trace["restart"] == restart]
            _draw_restart(axes, rows, name, selection.value if restart == best else None)
        if name == "value":
            axes.set_title(f"{OBJECTIVES[selection.objective]} (nats)")
            _show_the_end(axes, selection)
        else:
            axes.set(title=name.replace("_", " "), yscale="log")
            for bound in selection.bounds[name]:
                axes.axhline(bound, color="0.5", lw=0.8, ls="--")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    finish_panels(panels, len(names), columns, xlabel="iteration")
    _explain(figure, selection)
    return figure


def _draw_restart(axes: Axes, rows: pd.DataFrame, name: str, selected: float | None) -> None:
    """Draw one restart; the best one with a ring where the objective has its `selected` value."""
    path = rows[rows["accepted"] & rows["failure"].eq("")]
    color, width, order = (OTHER_COLOR, 1.0, 2) if selected is None else (BEST_COLOR, 1.6, 3)
    axes.plot(path["iteration"], path[name], ".-", color=color, lw=width, ms=3.5, zorder=order)
    failed = rows[rows["failure"].ne("")]
    if name != "value":
        axes.plot(failed["iteration"], failed[name], "x", color=FAILED_COLOR, ms=4, zorder=3)
    if selected is not None:
        end = rows.loc[rows["value"].sub(selected).abs().idxmin()]
        axes.plot(end["iteration"], end[name], "o", mfc="white", mec=color, ms=5.5, zorder=4)


def _show_the_end(axes: Axes, selection: HyperparameterSelection) -> None:
    """Choose limits in which a bad start does not flatten what follows."""
    values = selection.trace.loc[selection.trace["accepted"], "value"].dropna()
    sign = 1 if selection.objective == "log_marginal_likelihood" else -1
    losses = np.sort(sign * (selection.value - values))
    shown = max(float(np.quantile(losses, 0.75)), 1e-6 * max(1, abs(selection.value)))
    ends = selection.value - sign * shown, selection.value + sign * 0.08 * shown
    axes.set_ylim(min(ends), max(ends))


def _explain(figure: NotebookFigure, selection: HyperparameterSelection) -> None:
    shown = {
        "best restart": Line2D([], [], color=BEST_COLOR, marker=".", ms=3.5),
        "selected": Line2D([], [], color=BEST_COLOR, marker="o", mfc="white", ls="", ms=5.5),
        "other restarts": Line2D([], [], color=OTHER_COLOR, lw=1.0, marker=".", ms=3.5),
        "bounds": Line2D([], [], color="0.5", lw=0.8, ls="--"),
    }
    if len(selection.restarts) == 1:
        del shown["other restarts"]
    if np.sum(np.asarray(selection.restarts["num_failures"])) > 0:
        shown["failed"] = Line2D([], [], color=FAILED_COLOR, marker="x", ls="", ms=4)
    ncols = min(len(shown), max(1, int(figure.get_figwidth() / 1.25)))
    figure.legend(list(shown.values()), list(shown), loc="outside lower center", ncols=ncols)
