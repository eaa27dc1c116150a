"""Comparisons as tables to read: method × metric as texts, Markdown, LaTeX and files.

The long form they start from is made by `ntkbayes.evaluation.compare`, whose docstring says what
its columns are, or by `compare_joint`, `detection_table`, `conformal_table`, `severity_curve` or
`seed_table`: where their rows differ in more than method and metric (dataset, split, score, level,
severity), each of these has a column of its own, such as "auroc, predictive_entropy".
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ntkbayes._checks import check_choice
from ntkbayes._files import atomic_path
from ntkbayes._types import typed
from ntkbayes.evaluation.catalog import metric_info, metric_name, metric_title
from ntkbayes.evaluation.metrics.resampling import error_quantile

__all__ = [
    "decimals",
    "floors",
    "latex_table",
    "markdown_table",
    "rows_by_metric",
    "wide_table",
    "with_error",
    "write_table",
]

_NOTHING = "–"
_NOTE = (
    "Bold: best, of metrics that methods may be ranked by. ≈: the 95 % interval of the paired "
    "difference from the best holds 0."
)
_FURTHER = ("dataset", "split", "shift", "severity", "score", "level")
"""In what rows may differ besides method and metric."""
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": r"\textbar{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "≈": r"$\approx$",
    "−": r"$-$",
    _NOTHING: "--",
    **{character: f"\\{character}" for character in "#$%&_{}"},
}
"""What LaTeX reads as something else, or not at all."""


@typed
def wide_table(long: pd.DataFrame, *, metrics: Sequence[str] | None = None) -> pd.DataFrame:
    """Lay out a comparison as method × metric, with texts such as "0.962 ± 0.008".

    Rows and columns keep their order in `long`; each column has as many decimals (3 or 4) as its
    standard errors deserve. A distance is followed by a column with its Monte-Carlo floor, a
    calibration error by one with what chance alone would show. "–" stands where a method has no
    value.

    Parameters
    ----------
    long
        From `ntkbayes.evaluation.compare`, or another table that the module's docstring names.
    metrics
        Columns to show, in this order, by name or title ("nll" or "NLL"); None for all.

    Raises
    ------
    ValueError
        If `long` lacks a column, a method has a metric twice, or a metric is not in `long`.

    Examples
    --------
    >>> table = nb.compare(trees, reference="Laplace")
    >>> nb.evaluation.wide_table(table, metrics=["accuracy", "total_variation"])
                       accuracy total_variation total_variation_floor
    method
    NTK ensemble  0.853 ± 0.020   0.047 ± 0.002                 0.020
    Laplace       0.853 ± 0.020               –                     –
    """
    columns: dict[str, pd.Series] = {}
    for metric, rows in _by_metric(long, metrics):
        value, error = rows["value"].to_numpy(), rows["standard_error"].to_numpy()
        floor, digits = floors(rows).to_numpy(), decimals(error)
        texts = [with_error(v, e, digits) for v, e in zip(value, error, strict=True)]
        columns[metric] = pd.Series(texts, index=rows.index)
        if np.isfinite(floor).any():
            texts = [with_error(v, np.nan, digits) for v in floor]
            name, *further = metric.split(", ", 1)
            columns[", ".join([f"{name}_floor", *further])] = pd.Series(texts, index=rows.index)
    table = pd.DataFrame(columns).reindex(long["method"].unique()).fillna(_NOTHING)
    table.index.name = "method"
    return table


@typed
def markdown_table(long: pd.DataFrame, *, metrics: Sequence[str] | None = None) -> str:
    """Write a comparison as a Markdown table; the best methods in bold, "≈" as good as the best.

    Parameters
    ----------
    long, metrics
        As in `wide_table`.

    Raises
    ------
    ValueError
        As in `wide_table`.

    Examples
    --------
    >>> table = nb.compare(trees, reference=None)
    >>> print(nb.evaluation.markdown_table(table, metrics=["accuracy"]), end="")
    | method | accuracy |
    | --- | ---: |
    | NTK ensemble | **0.853 ± 0.020** |
    | Laplace | **0.853 ± 0.020** |
    <BLANKLINE>
    Bold: best, of metrics that methods may be ranked by. ≈: the 95 % interval of the paired
    difference from the best holds 0.
    """
    table = _marked(long, metrics, best="**{}**", as_good="{} ≈")
    header = [table.index.name, *table.columns]
    lines = [header, ["---", *["---:"] * len(table.columns)]]
    lines += [[str(name), *row] for name, row in zip(table.index, table.to_numpy(), strict=True)]
    escaped = [[text.replace("|", r"\|") for text in line] for line in lines]
    rows = "\n".join("| " + " | ".join(line) + " |" for line in escaped)
    return f"{rows}\n\n{_NOTE}\n" if _has_best(long) else f"{rows}\n"


@typed
def latex_table(long: pd.DataFrame, *, metrics: Sequence[str] | None = None) -> str:
    r"""Write a comparison as a LaTeX table (booktabs); marks as in `markdown_table`.

    Arrows say which way is better. The key is printed below the table, and with it what ± is.

    Parameters
    ----------
    long, metrics
        As in `wide_table`.

    Raises
    ------
    ValueError
        As in `wide_table`.

    Examples
    --------
    >>> table = nb.compare(trees)
    >>> lines = nb.evaluation.latex_table(table, metrics=["accuracy", "nll"]).splitlines()
    >>> print(*lines[:4], sep="\n")
    % requires \usepackage{booktabs}
    \begin{tabular}{lrr}
    \toprule
     & accuracy $\uparrow$ & NLL $\downarrow$ \\
    """
    table = _marked(long, metrics, best="BOLD{}", as_good="{} ≈")
    arrows = {"lower": r" $\downarrow$", "higher": r" $\uparrow$"}
    better = [metric_info(name.split(", ")[0]).better for name in _marked_names(long, metrics)]
    cells = table.map(_latex_cell)
    cells.index = pd.Index([_escaped(name) for name in table.index])
    cells.columns = pd.Index(
        [
            _escaped(title) + arrows.get(way or "", "")
            for title, way in zip(table.columns, better, strict=True)
        ]
    )
    body = cells.style.to_latex(hrules=True, column_format="l" + "r" * len(table.columns))
    over = "seeds" if "num_seeds" in long.columns else "test points"
    marks = f" {_NOTE}" if _has_best(long) else ""
    key = _escaped(f"±: standard error over {over}.{marks}")
    return f"% requires \\usepackage{{booktabs}}\n{body}\\par\\smallskip{{\\footnotesize {key}}}\n"


def _has_best(long: pd.DataFrame) -> bool:
    return "from_best" in long and bool(long["from_best"].notna().any())


def _marked_names(long: pd.DataFrame, metrics: Sequence[str] | None) -> list[str]:
    """Return the names of the columns of `wide_table`; of a floor, none that has a direction."""
    return ["" if "_floor" in name else name for name in wide_table(long, metrics=metrics).columns]


def _latex_cell(text: str) -> str:
    bold = text.startswith("BOLD")
    escaped = _escaped(text.removeprefix("BOLD").replace("-", "−"))
    return rf"\textbf{{{escaped}}}" if bold else escaped


@typed
def write_table(
    long: pd.DataFrame, path: str | os.PathLike[str], *, metrics: Sequence[str] | None = None
) -> None:
    """Write a comparison to a file, atomically; its suffix decides how.

    Parameters
    ----------
    long, metrics
        As in `wide_table`.
    path
        ``.md`` and ``.tex`` hold method × metric as texts; ``.csv`` and ``.parquet`` the long form
        with all digits.

    Raises
    ------
    ValueError
        As in `wide_table`, and if the suffix is another.

    Examples
    --------
    >>> from pathlib import Path
    >>> table = nb.compare(trees, reference=None)
    >>> nb.evaluation.write_table(table, "table.csv")
    >>> nb.evaluation.write_table(table, "table.md", metrics=["accuracy", "nll"])
    >>> Path("table.md").read_text(encoding="utf-8").splitlines()[0]
    '| method | accuracy | NLL |'
    """
    suffix = Path(path).suffix
    check_choice("suffix of path", suffix, (".md", ".tex", ".csv", ".parquet"))
    chosen = (
        long if metrics is None else pd.concat([rows for _, rows in rows_by_metric(long, metrics)])
    )
    with atomic_path(path) as temporary:
        if suffix == ".parquet":
            chosen.to_parquet(temporary, index=False)
        elif suffix == ".csv":
            chosen.to_csv(temporary, index=False)
        else:
            write = markdown_table if suffix == ".md" else latex_table
            temporary.write_text(write(long, metrics=metrics), encoding="utf-8")


def floors(long: pd.DataFrame) -> pd.Series:
    """Floor of every value: of a distance the Monte-Carlo one, of a calibration error chance's."""
    by_draws, by_chance = (
        long[f"{name}_floor"] if f"{name}_floor" in long else pd.Series(np.nan, index=long.index)
        for name in ("monte_carlo", "calibration")
    )
    return pd.Series(np.where(by_draws.isna(), by_chance, by_draws), index=long.index)


def _marked(
    long: pd.DataFrame, metrics: Sequence[str] | None, *, best: str, as_good: str
) -> pd.DataFrame:
    """Texts with titles as column names; the best and those as good marked."""
    table = wide_table(long, metrics=metrics)
    for metric, rows in _by_metric(long, metrics):
        if "from_best" not in rows:
            continue
        columns = (rows[name] for name in ("from_best", "from_best_error", "num_units"))
        for method, gap, error, num_units in zip(rows.index, *columns, strict=True):
            if gap == 0:
                table.loc[method, metric] = best.format(table.loc[method, metric])
            elif gap <= error_quantile(num_units) * error:
                table.loc[method, metric] = as_good.format(table.loc[method, metric])
    units = {} if "unit" not in long else dict(zip(long["metric"], long["unit"], strict=True))
    return table.rename(columns=lambda column: _title(column, units))


def _title(column: str, units: dict[str, str]) -> str:
    """Turn "auroc, predictive_entropy" into "AUROC, predictive entropy"."""
    name, *further = column.split(", ", 1)
    standardised = str(units.get(name, "")).startswith("standardised")
    parts = [metric_title(name), *(text.replace("_", " ") for text in further)]
    return ", ".join([*parts, "standardised"] if standardised else parts)


def _by_metric(long: pd.DataFrame, metrics: Sequence[str] | None) -> list[tuple[str, pd.DataFrame]]:
    """Return the rows of each column, by method."""
    missing = {"method", "metric", "value", "standard_error"} - set(long.columns)
    if missing:
        raise ValueError(f"long lacks the column {sorted(missing)[0]!r}; it is no comparison.")
    further = [name for name in _FURTHER if name in long and len(set(long[name])) > 1]
    if long.duplicated(["method", "metric", *further]).any():
        raise ValueError("long holds a metric of a method twice; select one dataset and split.")
    columns = []
    for name, rows in rows_by_metric(long, metrics):
        keys = [
            ", ".join([name, *map(str, v)]) for v in zip(*(rows[k] for k in further), strict=True)
        ]
        keys = keys if further else [name] * len(rows)
        columns += [
            (key, rows[[other == key for other in keys]].set_index("method"))
            for key in dict.fromkeys(keys)
        ]
    return columns


def rows_by_metric(
    long: pd.DataFrame, metrics: Sequence[str] | None
) -> list[tuple[str, pd.DataFrame]]:
    """Return each metric that is asked for by name or title, with its rows."""
    known = list(long["metric"].unique())
    names = known if metrics is None else [metric_name(text, known) for text in metrics]
    return [(name, long.loc[long["metric"] == name]) for name in names]


def with_error(value: float, error: float, digits: int) -> str:
    """Write a number and its standard error, if it has one; "–" if there is no number."""
    if np.isnan(value):
        return _NOTHING
    text = f"{round(value, digits) + 0.0:.{digits}f}"  # no "-0.000"
    return text if np.isnan(error) else f"{text} ± {error:.{digits}f}"


def _escaped(text: str) -> str:
    return "".join(_SPECIAL.get(character, character) for character in str(text))


def decimals(standard_errors: np.ndarray) -> int:
    """Three or four decimals, so that the typical standard error shows a digit."""
    positive = standard_errors[standard_errors > 1e-12]  # smaller ones are rounding
    if positive.size == 0:
        return 3
    return int(np.clip(np.ceil(-np.log10(np.median(positive))), 3, 4))
