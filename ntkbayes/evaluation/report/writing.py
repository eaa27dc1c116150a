"""One self-contained HTML file: verdict, tables, figures, settings and versions of a comparison."""

import base64
import os
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from ntkbayes._files import atomic_path
from ntkbayes.evaluation.catalog import metric_info, metric_title
from ntkbayes.evaluation.plots.style import png
from ntkbayes.evaluation.report.verdict import DISTANCES

__all__ = ["write_report"]

_ARROWS = {"higher": ("↑", "higher is better"), "lower": ("↓", "lower is better"), None: ("", "")}


def write_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    table: pd.DataFrame,
    verdict: Sequence[str] = (),
    facts: Mapping[str, Any] | None = None,
    methods: pd.DataFrame | None = None,
    tables: Mapping[str, tuple[pd.DataFrame, str]] | None = None,
    figures: Mapping[str, Figure] | None = None,
    notes: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    versions: Mapping[str, Any] | None = None,
    reproduce: Mapping[str, str] | None = None,
) -> None:
    """Write a report that needs no other file and no network, atomically.

    It forbids itself to load anything (content security policy), sorts its tables by a click or
    the keyboard where scripts may run, follows the reader's dark or light setting, and prints.

    Parameters
    ----------
    path
        HTML file to write; its directory must exist. An older file is replaced.
    title
        Heading.
    table
        Texts, method × metric, from `wide_table`. Those headline metrics that methods are ranked
        by, and one distance, which fit a page side by side, are shown with methods as rows; all of
        them folded away with metrics as rows.
    verdict
        Sentences, from `verdict`.
    facts
        Name → value of what was run: dataset, sizes, model.
    methods
        Texts with one row per method, such as its description, draws and seconds.
    tables
        Heading → texts with one row per method, and a sentence on how to read them.
    figures
        Caption → figure, embedded as PNG in this order.
    notes
        Warnings and remarks, such as a `ChainDiagnostics.verdict`; those that begin with
        "WARNING" stand out.
    settings, versions
        Name → value, folded away at the end.
    reproduce
        What is to be done → commands that do it.

    Examples
    --------
    >>> from pathlib import Path
    >>> table = nb.compare(trees, reference="Laplace")
    >>> nb.evaluation.write_report(
    ...     "report.html",
    ...     title="Two moons",
    ...     table=nb.evaluation.wide_table(table),
    ...     verdict=nb.evaluation.verdict(table, num_points=300, reference="Laplace"),
    ...     figures={"Reliability": nb.evaluation.plot_reliability(trees)},
    ... )
    >>> "<title>Two moons</title>" in Path("report.html").read_text(encoding="utf-8")
    True
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["minus"] = _minus
    names = [str(name) for name in table.columns]
    headline = _headline(names) or names
    html = environment.from_string(_resource("report.html")).render(
        title=title,
        style=Markup(_resource("report.css")),  # a file of ours
        script=Markup(_resource("report.js")),
        verdict=verdict,
        warnings=[text for text in notes if text.startswith("WARNING")],
        remarks=[text for text in notes if not text.startswith("WARNING")],
        read={name: _minus(str(value)) for name, value in (facts or {}).items()},
        methods=methods,
        headline=[(metric_title(name), *_ARROWS[metric_info(name).better]) for name in headline],
        rows=_rows(table.loc[:, headline])[1],
        complete=len(headline) < len(names),
        all_rows=[(metric_title(name), _caveat(name), list(table[name])) for name in names],
        num_metrics=sum(not name.endswith("_floor") for name in names),
        has_caveat=any(_caveat(name) for name in names),
        has_floor=any(name.endswith("_floor") for name in names),
        tables={name: (_rows(texts), note) for name, (texts, note) in (tables or {}).items()},
        figures=[_embedded(*item) for item in (figures or {}).items()],
        folded={"Settings": dict(settings or {}), "Versions and machine": dict(versions or {})},
        reproduce=dict(reproduce or {}),
    )
    with atomic_path(path) as temporary:
        temporary.write_text(html, encoding="utf-8")


def _headline(names: Sequence[str]) -> list[str]:
    """Columns that stand open: headline metrics with a best value, a distance and its floor."""
    distance = next((name for name in DISTANCES if name in names), "")
    information = {name: metric_info(name) for name in names}
    return [
        name
        for name, info in information.items()
        if (info.headline and info.ranked) or name in (distance, f"{distance}_floor")
    ]


def _caveat(column: str) -> str:
    return metric_info(column).caveat  # a floor has none


def _rows(texts: pd.DataFrame) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Names of the columns, and each row's name with its cells."""
    cells = texts.to_numpy().tolist()
    return list(texts.columns), list(zip(texts.index, cells, strict=True))


def _embedded(caption: str, figure: Figure) -> dict[str, Any]:
    return {
        "caption": caption,
        "png": base64.b64encode(png(figure)).decode(),
        "width": round(96 * figure.get_figwidth()),  # CSS pixels per inch
    }


def _minus(text: str) -> str:
    """Typeset the minus signs of numbers, which are hyphens where they are to be copied."""
    return re.sub(r"(?<!\w)-(?=\d|inf)|(?<=\de)-(?=\d)", "−", text)


def _resource(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
