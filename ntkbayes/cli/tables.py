"""What commands print: tables that fit the terminal, and where the results are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer
from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from ntkbayes.experiment import Comparison
    from ntkbayes.lazy.study import LazyStudy

__all__ = ["print_line", "print_listing", "show_comparison", "show_lazy"]

_HEADINGS = {
    "predictive_entropy": "entropy",
    "mutual_information": "mutual inform.",
    "agreement": "agree with HMC",
    "total_variation": "total variat. to HMC",
    "wasserstein_1": "Wass.-1 to HMC",
    **{f"coverage_{level}": f"cover {level} %" for level in (50, 90, 95)},
    **{f"width_{level}": f"width {level} %" for level in (50, 90, 95)},
}
"""Narrow column headings: a table of all metrics must fit 80 columns."""


NARROW = 60
"""Columns below which names stand on lines of their own."""


def print_line(text: str, *, stderr: bool = False) -> None:
    """Print a line as it is: without markup, colours or line breaks, which would split paths."""
    Console(stderr=stderr).print(text, markup=False, highlight=False, soft_wrap=True)


def print_listing(rows: Mapping[str, tuple[str, str]]) -> None:
    """Print name → title and text: names that can be copied, or for a pipe lines with tabs."""
    console = Console()
    if not console.is_terminal:
        for name, texts in rows.items():
            typer.echo("\t".join([name, *texts]))
    elif console.width < NARROW:
        for name, (title, text) in rows.items():
            console.print(Text(name, style="bold"), no_wrap=True)
            console.print(Padding(Text(f"{title}: {text}"), (0, 0, 0, 2)))
    else:
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(no_wrap=True)
        for name, (title, text) in rows.items():
            grid.add_row(Text(name, style="bold"), Text(f"{title}: {text}"))
        console.print(grid)


def show_comparison(comparison: Comparison) -> None:
    """Print the headline metrics of all methods, remarks, and where the results are."""
    from ntkbayes.evaluation import wide_table

    console, data = Console(), comparison.data
    console.print(
        f"{data.name}: {len(data.x_train)} training points, {len(data.x_test)} test points",
        style="bold",
        highlight=False,
    )
    wide = wide_table(comparison.metrics, metrics=comparison.headlines)
    for table in _tables(wide, console.width):
        console.print()
        console.print(table)
    console.print()
    for remark in (*comparison.remarks, *_key(wide)):
        style = "bold red" if remark.startswith("WARNING") else None
        console.print(remark, style=style, markup=False, highlight=False)
    print_line(f"Results: {comparison.out}  (open {comparison.out / 'report.html'})")


def show_lazy(study: LazyStudy) -> None:
    """Print slopes, distances of ensembles, ratios of variances, and where the results are."""
    console, config = Console(), study.config
    console.print(
        f"{config.dataset}: {config.num_train} training points, {config.num_seeds} networks per "
        f"width {', '.join(str(width) for width in config.widths)}, time {config.time:g}",
        style="bold",
        highlight=False,
    )
    captions = (
        "Slopes against width in log-log at the end of training"
        + (":" if study.slope_rows else ": none, which take two widths."),
        f"{config.num_members} trained networks against infinite width, λ = "
        f"{config.prior_precision:g}, ± one Monte-Carlo standard error "
        "(total variation: over test points):",
        "Variance of ensembles over Laplace's, predicted to first order and measured, and over "
        "HMC's, nearest the training data and farthest from it:",
    )
    tables = (_slopes(study), _ensembles(study), _variances(study))
    for caption, table in zip(captions, tables, strict=True):
        console.print()
        console.print(caption, highlight=False)
        console.print(table)
    print_line(f"Results: {study.directory}  (figures in {study.directory / 'figures'})")


def _slopes(study: LazyStudy) -> Table:
    table = Table("condition", box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading in ("slope", "95 % interval", "at widest"):
        table.add_column(heading, justify="right")
    last = ""
    for measure, *texts in study.slope_rows:
        if measure != last:
            if last:
                table.add_section()
            table.add_row(Text(measure, style="italic"))
        table.add_row(*texts)
        last = measure
    return table


def _ensembles(study: LazyStudy) -> Table:
    table = Table("width", box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading in ("mean²", "covariance²", "energy distance", "total variation"):
        table.add_column(heading, justify="right")
    for texts in study.ensemble_rows:
        table.add_row(*texts)
    return table


def _variances(study: LazyStudy) -> Table:
    table = Table("ensemble", box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for where in ("near", "far"):
        for heading in ("predicted", "measured", "to HMC"):
            table.add_column(f"{where}\n{heading}", justify="right")
    for texts in study.variance_rows:
        table.add_row(*texts)
    return table


def _key(wide: pd.DataFrame) -> list[str]:
    """Say what ± is, and the Monte-Carlo floors, for which the table has no room."""
    key = ["± is one standard error over the test points, for the methods as trained."]
    for name in (str(name) for name in wide.columns if str(name).endswith("_floor")):
        known = wide.loc[wide[name] != "–", name]
        floors = ", ".join(f"{method} {text}" for method, text in known.items())
        key.append(
            f"Monte-Carlo floor of {_heading(name.removesuffix('_floor'))} (what draws of one and "
            f"the same distribution would show): {floors}."
        )
    return key


def _tables(wide: pd.DataFrame, width: int) -> list[Table]:
    """As few tables as the width allows, methods × metrics, the error below its value."""
    methods = [str(method) for method in wide.index]
    cells = {
        str(name): [str(text).replace(" ± ", "\n±") for text in wide[name]]
        for name in wide.columns
        if not str(name).endswith("_floor")
    }
    widths = {name: _widest([*texts, _heading(name)]) for name, texts in cells.items()}
    # Every column has a divider, and padding on either side where there is room for it.
    room = width - _widest(["method", *methods])
    padding = 1 if sum(widths.values()) + 3 * len(widths) <= room else 0
    return [
        _table(methods, {name: cells[name] for name in names}, padding)
        for names in _packed(widths, room)
    ]


def _packed(widths: dict[str, int], room: int) -> list[list[str]]:
    """Share the columns out over blocks that fit the room."""
    blocks: list[list[str]] = [[]]
    left = room
    for name, column in widths.items():
        if blocks[-1] and column + 1 > left:
            blocks.append([])
            left = room
        blocks[-1].append(name)
        left -= column + 1
    return blocks


def _table(methods: list[str], cells: dict[str, list[str]], padding: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, padding), pad_edge=False, show_edge=False)
    table.add_column("method", width=_widest(["method", *methods]))
    for name, texts in cells.items():
        heading = _heading(name)
        table.add_column(heading, justify="right", width=_widest([*texts, heading]))
    for method, *row in zip(methods, *cells.values(), strict=True):
        table.add_row(method, *row)
    return table


def _heading(metric: str) -> str:
    from ntkbayes.evaluation.catalog import metric_title

    return _HEADINGS.get(metric) or metric_title(metric)


def _widest(texts: list[str]) -> int:
    """Length of the longest word: what a column needs when its texts are wrapped."""
    return max(len(word) for text in texts for word in text.split())
