"""One self-contained HTML file: table, figures, warnings and settings of a comparison."""

import base64
import os
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import jinja2
import pandas as pd
from matplotlib.figure import Figure

from ntkbayes._files import atomic_path
from ntkbayes.evaluation.plots.style import label, png

__all__ = ["write_report"]


def write_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    table: pd.DataFrame,
    figures: Mapping[str, Figure] | None = None,
    notes: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Write a report that needs no other file and no network, atomically.

    Parameters
    ----------
    path
        HTML file to write; its directory must exist. An older file is replaced.
    title
        Heading.
    table
        Texts, method × metric, from `wide_table`.
    figures
        Caption → figure, embedded as PNG in this order.
    notes
        Warnings and remarks above the table, such as a `ChainDiagnostics.verdict`.
    settings
        Name → value, folded away at the end.
    """
    embedded = [
        {
            "caption": caption,
            "png": base64.b64encode(png(figure)).decode(),
            "width": round(96 * figure.get_figwidth()),  # CSS pixels per inch
        }
        for caption, figure in (figures or {}).items()
    ]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = files(__package__).joinpath("report.html").read_text(encoding="utf-8")
    html = environment.from_string(template).render(
        title=title,
        columns=[label(str(name)) for name in table.columns],
        rows=list(zip(table.index, table.to_numpy().tolist(), strict=True)),
        has_floor=any(str(name).endswith("_floor") for name in table.columns),
        figures=embedded,
        notes=notes,
        settings=list((settings or {}).items()),
    )
    with atomic_path(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
