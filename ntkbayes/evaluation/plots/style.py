"""The one look of all figures: fonts, colours per method, and figures without global state."""

import textwrap
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from io import BytesIO
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ntkbayes.evaluation.catalog import metric_info

__all__ = [
    "METHOD_COLORS",
    "NotebookFigure",
    "check_columns",
    "finish_panels",
    "grid_shape",
    "legend_below",
    "method_colors",
    "method_looks",
    "name_panel",
    "new_figure",
    "note_below",
    "plot_others",
    "png",
    "styled",
    "two_errors",
    "wrapped",
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

_SHAPES = {
    "NTK ensemble": ("o", "-"),
    "Bayesian NTK ensemble": ("s", (0, (6, 2))),
    "Laplace": ("^", (0, (4, 1.5, 1, 1.5))),
    "GP": ("D", (0, (1.2, 1.2))),
    "HMC": ("*", "-"),
    "Mode": ("X", (0, (3, 1.5))),
    "Deep ensemble": ("v", (0, (6, 1.5, 1, 1.5, 1, 1.5))),
}
"""Marker and dashes of each method: what tells them apart where there is no colour."""

_OTHER_SHAPES = (
    ("P", (0, (8, 2, 2, 2))),
    ("<", (0, (2, 1))),
    (">", (0, (5, 1, 2, 1))),
    ("p", (0, (10, 2))),
    ("h", (0, (1, 2.5))),
)

Curve = tuple[Any, ...]
"""x and y of a line, and whatever else a figure keeps with them."""

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


CHARACTER, LINE = 0.075, 0.15
"""Inches a character takes on average, and a line, at the font size of titles; less at others."""


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


def method_looks(methods: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour, marker and dashes of each method, as arguments of a plotted line."""
    colors = method_colors(methods)
    unknown = [m for m in colors if m not in _SHAPES]
    others = {m: _OTHER_SHAPES[i % len(_OTHER_SHAPES)] for i, m in enumerate(unknown)}
    shapes = {m: _SHAPES.get(m) or others[m] for m in colors}
    return {
        m: {"color": color, "marker": shapes[m][0], "linestyle": shapes[m][1]}
        for m, color in colors.items()
    }


def check_columns(name: str, table: pd.DataFrame, columns: Iterable[str]) -> None:
    """Raise `ValueError` if a table is empty or lacks a column."""
    columns = list(columns)
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise ValueError(
            f"{name} must have the columns {', '.join(columns)}, but lacks {', '.join(missing)}."
        )
    if table.empty:
        raise ValueError(f"{name} is empty: there is nothing to show.")


def grid_shape(count: int, max_columns: int = 4) -> tuple[int, int]:
    """Rows and columns for `count` panels, as even as possible."""
    rows = -(-count // max_columns)
    return rows, -(-count // rows)


def wrapped(text: str, inches: float) -> str:
    """Break a text into lines that are no wider than that."""
    return "\n".join(textwrap.wrap(text, max(int(inches / CHARACTER), 8)))


def name_panel(axes: Axes, name: str) -> None:
    """Write a name above one of the panels of a grid, in as many lines as it needs."""
    figure, grid = axes.get_figure(root=True), axes.get_subplotspec()
    assert figure is not None  # for the type checker: every panel of a grid has both
    assert grid is not None
    axes.set_title(wrapped(name, figure.get_figwidth() / grid.get_gridspec().ncols - 0.15))


def note_below(figure: NotebookFigure, text: str) -> None:
    """Say below all panels how to read them; the figure grows with the lines."""
    lines = wrapped(text, figure.get_figwidth())
    figure.set_figheight(figure.get_figheight() + LINE * lines.count("\n"))
    figure.supxlabel(lines, fontsize=8, color="0.35")


def two_errors(metric: str, rows: pd.DataFrame) -> np.ndarray:
    """Return how far ± 2 standard errors reach down and up, but not beyond what a metric can be."""
    low, high = metric_info(metric).bounds
    value, error = (rows[name].to_numpy(float) for name in ("value", "standard_error"))
    return np.stack([np.clip(room, 0, 2 * error) for room in (value - low, high - value)])


def finish_panels(panels: np.ndarray, count: int, columns: int, *, xlabel: str = "") -> None:
    """Hide the panels after the first `count`; the lowest ones left show ticks and `xlabel`."""
    for i, axes in enumerate(panels):
        axes.set_visible(i < count)
        if count - columns <= i < count:
            axes.tick_params(labelbottom=True)
            axes.set_xlabel(xlabel)


def plot_others(axes: Axes, name: str, curves: Mapping[str, Curve]) -> None:
    """Draw the curves of all methods but one in grey, for comparison in a panel of its own."""
    others = [other for other in curves if other != name]
    for other in others:
        label = "the other methods" if other == others[0] else None
        axes.plot(*curves[other][:2], color="0.75", lw=0.8, zorder=1, label=label)


def legend_below(
    figure: NotebookFigure, axes: Axes, neutral: Mapping[str, Artist] | None = None
) -> None:
    """Explain one panel for all; `neutral` replaces handles that have the panel's own color.

    The figure grows with the rows.
    """
    handles, labels = axes.get_legend_handles_labels()
    shown = dict(zip(labels, handles, strict=True)) | dict(neutral or {})
    width, beside = figure.get_figwidth(), 0.55  # inches of a handle and the space around it
    texts = [wrapped(label, width - beside) for label in shown]
    needed = [beside + CHARACTER * max(map(len, text.splitlines())) for text in texts]
    ncols = len(texts) if sum(needed) <= width else max(1, int(width / max(needed)))
    figure.set_figheight(figure.get_figheight() + LINE * (-(-len(texts) // ncols) - 1))
    figure.legend(list(shown.values()), texts, loc="outside lower center", ncols=ncols)
