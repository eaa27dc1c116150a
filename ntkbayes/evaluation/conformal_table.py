"""The coverage and the size of several methods' conformal sets, with standard errors."""

import numpy as np
import pandas as pd
import xarray as xr

from ntkbayes.evaluation import metrics
from ntkbayes.evaluation.alignment import aligned
from ntkbayes.evaluation.conformal import conformal_intervals, conformal_sets
from ntkbayes.evaluation.metrics.resampling import share_error, spread
from ntkbayes.evaluation.storage import observations

__all__ = ["conformal_table"]


def conformal_table(
    trees_val: dict[str, xr.DataTree],
    trees_test: dict[str, xr.DataTree],
    *,
    level: float,
    score: str = "lac",
    seed: int = 0,
) -> pd.DataFrame:
    """Compare methods by the coverage and the mean size of their conformal sets or intervals.

    Parameters
    ----------
    trees_val, trees_test
        Predictions of each method at the validation and at the test points, by the same names.
    level, score, seed
        As in `conformal_sets`; a regression has no choice of score.

    Returns
    -------
    DataFrame
        Columns ``dataset, split, method, score, level, metric, value, standard_error``; the metrics
        are ``coverage`` and ``size`` (classes, or target units), and the score of a regression is
        called "residual". The standard error is over test
        points with the validation points given, and with the same resamples for every method. The
        coverage of one set of n validation points itself varies around the level by
        √(level (1 − level) / n).

    Raises
    ------
    ValueError
        As in `conformal_sets` and `compare`, and if the names differ.

    Examples
    --------
    >>> trees_val = {
    ...     name: nb.predict(predictor, data, key=key, num_draws=50, split="val")
    ...     for name, predictor in predictors.items()
    ... }
    >>> table = nb.evaluation.conformal_table(trees_val, trees, level=0.9)
    >>> table.loc[:, ["method", "metric", "value"]].round(2)
             method    metric  value
    0  NTK ensemble  coverage   0.87
    1  NTK ensemble      size   1.02
    2       Laplace  coverage   0.89
    3       Laplace      size   1.08
    """
    if trees_val.keys() != trees_test.keys():
        raise ValueError(
            "trees_val and trees_test must be of the same methods, but are of "
            f"{', '.join(trees_val) or 'none'} and {', '.join(trees_test) or 'none'}."
        )
    trees_val, trees_test = aligned(trees_val), aligned(trees_test)
    first = next(iter(trees_test.values()))
    num_points = len(observations(first))
    weights = np.concatenate(
        [metrics.uniform_weights(num_points)[None], metrics.bootstrap_weights(num_points)]
    )
    classes = first.attrs["task"] == "classification"
    rows = []
    for method, tree in trees_test.items():
        if classes:
            found = conformal_sets(trees_val[method], tree, level=level, score=score, seed=seed)
        else:
            found = conformal_intervals(trees_val[method], tree, level=level)
        for metric, values in (("coverage", found.covered), ("size", found.size)):
            per_row = weights @ np.reshape(values, (num_points, -1)).mean(axis=1)
            rows.append(
                {
                    "dataset": first.attrs["dataset"],
                    "split": first.attrs["split"],
                    "method": method,
                    "score": score if classes else "residual",
                    "level": level,
                    "metric": metric,
                    "value": float(per_row[0]),
                    "standard_error": _error(metric, per_row, num_points),
                }
            )
    return pd.DataFrame(rows)


def _error(metric: str, per_row: np.ndarray, num_points: int) -> float:
    """Return the deviation over resamples, and where all or none are covered, `share_error`."""
    least = share_error(float(per_row[0]), num_points) if metric == "coverage" else 0.0
    return float(np.hypot(spread(per_row[1:], num_points), least))
