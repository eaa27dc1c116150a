"""The one look of all figures: fonts, colours per method, and figures without global state."""

import re
from collections.abc import Callable, Iterable
from functools import wraps
from io import BytesIO
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

__all__ = [
    "METHOD_COLORS",
    "NotebookFigure",
    "finish_panels",
    "grid_shape",
    "label",
    "method_colors",
    "new_figure",
    "png",
    "styled",
    "two_lines",
]

METHOD_COLORS = {
    "NTK ensemble": "#56B4E9",
    "Bayesian NTK ensemble": "#0072B2",
    "Laplace": "#E69F00",
    "GP": "#009E73",
    "HMC": "#000000",
    "Mode": "#8C8C8C",
    "Deep ensemble": "#D55E00",
}
"""Okabe & Ito's colours, which colour-blind readers can tell apart; black is the reference."""

_OTHER_COLORS = ("#CC79A7", "#882255", "#44AA99", "#332288", "#999933")

_LABELS = {
    "nll": "NLL",
    "ece": "ECE",
    "rmse": "RMSE",
    "crps": "CRPS",
    "brier": "Brier",
    "wasserstein_1": "Wasserstein-1",
    "wasserstein_1_floor": "Wasserstein-1 floor",
}

RC: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.titlepad": 5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "hatch.linewidth": 0.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


class NotebookFigure(Figure):
    """A figure that notebooks can show although pyplot does not know it."""

    def _repr_png_(self) -> bytes:
        return png(self)


def styled[**P](plot: Callable[P, NotebookFigure]) -> Callable[P, NotebookFigure]:
    """Decorate a plotting function: the look holds inside it and nowhere else."""

    @wraps(plot)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> NotebookFigure:
        with matplotlib.rc_context(RC):
            return plot(*args, **kwargs)

    return wrapped


def new_figure(width: float, height: float, *, compressed: bool = False) -> NotebookFigure:
    """Make an empty figure of a size in inches; `compressed` suits panels of fixed aspect."""
    layout = "compressed" if compressed else "constrained"
    return NotebookFigure(figsize=(width, height), dpi=150, layout=layout)


def png(figure: Figure) -> bytes:
    """Render a figure as PNG at its own resolution, without time stamps."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def method_colors(methods: Iterable[str]) -> dict[str, str]:
    """Colour of each method: fixed for the official names, by order for others."""
    methods = list(methods)
    unknown = [m for m in methods if m not in METHOD_COLORS]
    others = {m: _OTHER_COLORS[i % len(_OTHER_COLORS)] for i, m in enumerate(unknown)}
    return {m: METHOD_COLORS.get(m) or others[m] for m in methods}


def grid_shape(count: int, max_columns: int = 4) -> tuple[int, int]:
    """Rows and columns for `count` panels, as even as possible."""
    rows = -(-count // max_columns)
    return rows, -(-count // rows)


def label(metric: str) -> str:
    """Turn a metric's name into words: "nll" → "NLL", "coverage_50" → "coverage 50 %"."""
    return _LABELS.get(metric) or re.sub(r"_(\d+)$", r" \1 %", metric).replace("_", " ")


def two_lines(method: str) -> str:
    """Break a long method name, to stand above a narrow panel."""
    return method if len(method) < 17 else method.replace(" ", "\n", 1)


def finish_panels(panels: np.ndarray, count: int, columns: int, *, xlabel: str = "") -> None:
    """Hide the panels after the first `count`; the lowest ones left show ticks and `xlabel`."""
    for i, axes in enumerate(panels):
        axes.set_visible(i < count)
        if count - columns <= i < count:
            axes.tick_params(labelbottom=True)
            axes.set_xlabel(xlabel)
