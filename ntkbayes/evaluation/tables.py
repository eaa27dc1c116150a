"""Comparisons as tables to read: method × metric as texts, Markdown, LaTeX and files.

The long form they start from is made by `ntkbayes.evaluation.compare`, whose docstring says what
its columns are.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ntkbayes._checks import check_choice
from ntkbayes._files import atomic_path
from ntkbayes._types import typed
from ntkbayes.evaluation.catalog import metric_title
from ntkbayes.evaluation.metrics.resampling import error_quantile

__all__ = ["floors", "latex_table", "markdown_table", "wide_table", "write_table"]

_NOTHING = "–"
_NOTE = "Bold: best. ≈: the 95 % interval of the paired difference from the best holds 0."


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
        From `ntkbayes.evaluation.compare`.
    metrics
        Columns to show, in this order; None for all.

    Raises
    ------
    ValueError
        If a method has a metric twice, as in tables of several datasets put together, or a metric
        is not in `long`.

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
        floor, digits = floors(rows).to_numpy(), _decimals(error)
        texts = [_with_error(v, e, digits) for v, e in zip(value, error, strict=True)]
        columns[metric] = pd.Series(texts, index=rows.index)
        if np.isfinite(floor).any():
            texts = [_with_error(v, np.nan, digits) for v in floor]
            columns[f"{metric}_floor"] = pd.Series(texts, index=rows.index)
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
    Bold: best. ≈: the 95 % interval of the paired difference from the best holds 0.
    """
    table = _marked(long, metrics, best="**{}**", as_good="{} ≈")
    header = [table.index.name, *table.columns]
    lines = [header, ["---", *["---:"] * len(table.columns)]]
    lines += [[str(name), *row] for name, row in zip(table.index, table.to_numpy(), strict=True)]
    rows = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{rows}\n\n{_NOTE}\n"


@typed
def latex_table(long: pd.DataFrame, *, metrics: Sequence[str] | None = None) -> str:
    r"""Write a comparison as a LaTeX table (booktabs); marks as in `markdown_table`.

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
    >>> lines = nb.evaluation.latex_table(table, metrics=["accuracy", "nll"]).splitlines()
    >>> print(*lines[:4], sep="\n")
    % requires \usepackage{booktabs}
    \begin{tabular}{lrr}
    \toprule
     & accuracy & NLL \\
    """
    table = _marked(long, metrics, best=r"\textbf{{{}}}", as_good=r"{} $\approx$")
    escaped = table.rename(index=_escaped, columns=_escaped).map(
        lambda text: text.replace("±", r"$\pm$").replace(_NOTHING, "--")
    )
    escaped.index.name = None
    body = escaped.style.to_latex(hrules=True, column_format="l" + "r" * len(table.columns))
    note = _NOTE.replace("≈", r"$\approx$")
    return f"% requires \\usepackage{{booktabs}}\n{body}% {note}\n"


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
    chosen = long if metrics is None else pd.concat([rows for _, rows in _parts(long, metrics)])
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
    by_draws, by_chance = (long[f"{name}_floor"] for name in ("monte_carlo", "calibration"))
    return pd.Series(np.where(by_draws.isna(), by_chance, by_draws), index=long.index)


def _marked(
    long: pd.DataFrame, metrics: Sequence[str] | None, *, best: str, as_good: str
) -> pd.DataFrame:
    """Texts with titles as column names; the best and those as good marked."""
    table = wide_table(long, metrics=metrics)
    for metric, rows in _by_metric(long, metrics):
        columns = (rows[name] for name in ("from_best", "from_best_error", "num_units"))
        for method, gap, error, num_units in zip(rows.index, *columns, strict=True):
            if gap == 0:
                table.loc[method, metric] = best.format(table.loc[method, metric])
            elif gap <= error_quantile(num_units) * error:
                table.loc[method, metric] = as_good.format(table.loc[method, metric])
    return table.rename(columns=metric_title)


def _by_metric(long: pd.DataFrame, metrics: Sequence[str] | None) -> list[tuple[str, pd.DataFrame]]:
    """Return the rows of each metric, by method."""
    if long.duplicated(["method", "metric"]).any():
        raise ValueError("long holds a metric of a method twice; select one dataset and split.")
    return [(name, rows.set_index("method")) for name, rows in _parts(long, metrics)]


def _parts(long: pd.DataFrame, metrics: Sequence[str] | None) -> list[tuple[str, pd.DataFrame]]:
    known = list(long["metric"].unique())
    for name in metrics or ():
        check_choice("metric", name, known)
    return [(name, long.loc[long["metric"] == name]) for name in (metrics or known)]


def _with_error(value: float, error: float, digits: int) -> str:
    if np.isnan(value):
        return _NOTHING
    text = f"{round(value, digits) + 0.0:.{digits}f}"  # no "-0.000"
    return text if np.isnan(error) else f"{text} ± {error:.{digits}f}"


def _escaped(text: str) -> str:
    return str(text).replace("%", r"\%").replace("_", r"\_").replace("&", r"\&")


def _decimals(standard_errors: np.ndarray) -> int:
    """Three or four decimals, so that the typical standard error shows a digit."""
    positive = standard_errors[standard_errors > 1e-12]  # smaller ones are rounding
    if positive.size == 0:
        return 3
    return int(np.clip(np.ceil(-np.log10(np.median(positive))), 3, 4))
