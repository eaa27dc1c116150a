"""One self-contained HTML file: table, figures, warnings and settings of a comparison."""

import base64
import os
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import jinja2
import pandas as pd
from matplotlib.figure import Figure

from ntkbayes.evaluation._style import label, png

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
        {"caption": caption, "png": base64.b64encode(png(figure)).decode()}
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
    _write_atomically(Path(path), html)


def _write_atomically(path: Path, text: str) -> None:
    with NamedTemporaryFile(
        "w", dir=path.parent, prefix=f".{path.name}.", delete=False, encoding="utf-8"
    ) as file:
        file.write(text)
    try:
        os.chmod(file.name, 0o644)
        os.replace(file.name, path)
    finally:
        Path(file.name).unlink(missing_ok=True)
