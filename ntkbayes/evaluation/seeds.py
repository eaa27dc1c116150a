"""Comparisons repeated with several seeds: means, ranks and paired differences over the seeds.

A seed decides the split of the data and all random numbers. Errors here are those from seed to
seed, which hold what a bootstrap over one test set leaves out: other training data. Splits of one
dataset share points, so that they are somewhat too small for a statement about new data sets
(Nadeau & Bengio 2003, Machine Learning 52, 239).
"""

import numpy as np
import pandas as pd
import scipy.stats

from ntkbayes._types import typed
from ntkbayes.evaluation.catalog import metric_info

__all__ = ["seed_table"]

COLUMNS = ["dataset", "seed", "method", "metric", "value"]
_CELL = ["dataset", "metric", "method"]


@typed
def seed_table(long: pd.DataFrame, *, baseline: str | None = None) -> pd.DataFrame:
    """Summarise comparisons over their seeds.

    Parameters
    ----------
    long
        Rows of `compare` for several seeds, and perhaps datasets, with a column ``seed``:
        ``dataset, seed, method, metric, value``; a column ``split`` must hold one split of each
        dataset, other columns are ignored.
    baseline
        Method from which the others' paired differences are taken; None for no differences.

    Returns
    -------
    DataFrame
        One row for each dataset, metric and method, with

        - ``num_seeds`` with a value, ``value`` (their mean) and ``standard_error`` over them;
        - ``rank``, from 1 for the best method of a dataset, metric and seed, its mean over seeds;
          equal values share theirs. Metrics with a nominal value, such as a coverage, are ranked
          by their distance from it; NaN for others that are neither better low nor high, and for
          those with a ``caveat`` in `METRICS`;
        - ``difference`` from the baseline, the mean over seeds of the difference on the same
          split, with ``difference_low`` and ``difference_high``, its 95 % interval (Student's t).

    Raises
    ------
    ValueError
        If columns are missing, rows of a dataset are of several splits, a method lacks seeds that
        others of the same dataset and metric have, a seed occurs twice, or the baseline is not
        among the methods.

    Examples
    --------
    >>> import pandas as pd
    >>> rows = [(0, "Laplace", 0.30), (1, "Laplace", 0.40), (0, "HMC", 0.25), (1, "HMC", 0.30)]
    >>> long = pd.DataFrame(rows, columns=["seed", "method", "value"])
    >>> long = long.assign(dataset="moons", metric="nll")
    >>> table = nb.evaluation.seed_table(long, baseline="Laplace")
    >>> table.loc[:, ["method", "value", "rank", "difference"]].round(3)
        method  value  rank  difference
    0  Laplace  0.350   2.0       0.000
    1      HMC  0.275   1.0      -0.075
    """
    missing = [column for column in COLUMNS if column not in long.columns]
    if missing or long.empty:
        problem = f"lacks {', '.join(missing)}" if missing else "is empty"
        raise ValueError(f"long must have the columns {', '.join(COLUMNS)}, but {problem}.")
    _check_one_split(long)
    long = long.loc[:, COLUMNS].reset_index(drop=True)
    _check_balanced(long)
    long["rank"] = _losses(long).groupby([long[c] for c in ("dataset", "metric", "seed")]).rank()
    cells = long.groupby(_CELL, sort=False)
    table = cells.agg(
        num_seeds=("value", "count"),
        value=("value", "mean"),
        standard_error=("value", "sem"),
        rank=("rank", "mean"),
    )
    if baseline is not None:
        table = table.join(_differences(long, baseline))
    return table.reset_index()


def _check_one_split(long: pd.DataFrame) -> None:
    if "split" not in long.columns:
        return
    for dataset, splits in long.groupby("dataset", sort=False)["split"]:
        names = list(dict.fromkeys(splits))
        if len(names) > 1:
            raise ValueError(
                f"long must hold one split of each dataset, but of {dataset} it holds "
                f"{' and '.join(map(str, names))}: points of two splits are no pairs."
            )


def _check_balanced(long: pd.DataFrame) -> None:
    if long.duplicated([*_CELL, "seed"]).any():
        raise ValueError("long holds a seed twice for the same dataset, metric and method.")
    seeds: dict[tuple[str, str], dict[str, set[int]]] = {}
    for dataset, metric, method, seed in zip(*(long[c] for c in (*_CELL, "seed")), strict=True):
        seeds.setdefault((dataset, metric), {}).setdefault(method, set()).add(seed)
    for (dataset, metric), of_method in seeds.items():
        everything = set.union(*of_method.values())
        for method, there in of_method.items():
            if there != everything:
                raise ValueError(
                    f"every method must have the same seeds, but {method} lacks some that others "
                    f"have of {metric} on {dataset}."
                )


def _losses(long: pd.DataFrame) -> pd.Series:
    """Each value as something that is better the lower it is."""
    info = {name: metric_info(name) for name in long["metric"].unique()}

    def loss(metric: str, value: float) -> float:
        if info[metric].caveat:
            return np.nan
        if info[metric].better is not None:
            return value if info[metric].better == "lower" else -value
        nominal = info[metric].nominal
        return np.nan if nominal is None else abs(value - nominal)

    pairs = zip(long["metric"], long["value"], strict=True)
    return pd.Series([loss(metric, value) for metric, value in pairs], index=long.index)


def _differences(long: pd.DataFrame, baseline: str) -> pd.DataFrame:
    if baseline not in set(long["method"]):
        raise ValueError(f"baseline must be one of the methods, but is {baseline!r}.")
    same_split = ["dataset", "metric", "seed"]
    reference = long.loc[long["method"] == baseline].set_index(same_split)["value"]
    paired = long.join(reference.rename("reference"), on=same_split)
    paired["difference"] = paired["value"] - paired["reference"]
    cells = paired.groupby(_CELL, sort=False)["difference"]
    mean, count = cells.mean(), cells.count()
    half = cells.sem() * scipy.stats.t.ppf(0.975, np.maximum(count - 1, 1))
    return pd.DataFrame(
        {"difference": mean, "difference_low": mean - half, "difference_high": mean + half}
    )
