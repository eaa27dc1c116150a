"""The distribution over initialisations: really trained networks against the closed form.

`width_sweep` follows single networks; here many networks of each width are trained to the end, and
their distribution at the test points is compared with that of `ntkbayes.ntk_ensemble`, which is
the one of infinitely wide networks. Distances are those of `ntkbayes.compare` and
`ntkbayes.evaluation.compare_joint`, whose Monte-Carlo errors say which of them are due to the
finite number of networks.

References
----------
Lakshminarayanan, Pritzel & Blundell 2017, arXiv 1612.01474 (deep ensembles). Calvo-Ordoñez et al.
2026, arXiv 2605.17606.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import pandas as pd
import xarray as xr

from ntkbayes._checks import check_at_least
from ntkbayes._progress import bar_in_notebooks
from ntkbayes._types import Key, Progress, silent, typed
from ntkbayes.datasets import Dataset
from ntkbayes.ensembles import deep_ensemble, ntk_ensemble
from ntkbayes.evaluation import compare, compare_joint, predict
from ntkbayes.lazy.cells import Cells, digest
from ntkbayes.lazy.planning import NetworkOfWidth, checked_widths, of_width
from ntkbayes.likelihoods import Likelihood

__all__ = ["ENSEMBLE_COLUMNS", "ENSEMBLE_MEASURES", "ensemble_sweep"]

ENSEMBLE_MEASURES = {
    "mean_distance": "squared distance of means (in variances)",
    "covariance_distance": "squared distance of covariances",
    "energy_distance": "energy distance",
    "total_variation": "total variation of probabilities",
}
"""Titles of what `ensemble_sweep` measures; the last one of classification only."""

ENSEMBLE_COLUMNS = ("width", "measure", "value", "standard_error", "monte_carlo_floor")

CLOSED_FORM = "infinite width"
TRAINED = "trained networks"


@bar_in_notebooks
@typed
def ensemble_sweep(
    network: NetworkOfWidth,
    likelihood: Likelihood,
    data: Dataset,
    *,
    key: Key,
    prior_precision: float,
    widths: Sequence[int] = (16, 32, 64, 128),
    num_members: int = 200,
    num_draws: int = 2000,
    max_steps: int = 2000,
    tolerance: float = 0.02,
    directory: str | os.PathLike[str] | None = None,
    progress: Progress = silent,
) -> pd.DataFrame:
    """Train many networks of each width, and compare their distribution with infinite width.

    Parameters
    ----------
    network
        A dense network, whose width is replaced, or a function from width to network.
    likelihood
        Whose negative logarithm is the loss.
    data
        Networks are trained on its training points, and compared at its test points.
    key
        Of initial weights and draws. Networks of one width do not depend on the other widths.
    prior_precision
        λ > 0 of the decay towards the initial weights.
    widths
        Units per hidden layer.
    num_members
        Networks per width; at least 40, for covariances.
    num_draws
        Draws of the closed form, likewise.
    max_steps, tolerance
        Of training, as in `ntkbayes.deep_ensemble`.
    directory
        Where every width is kept when it is finished; one that is there and has the same settings
        and data is read instead of computed.
    progress
        Called with the finished fraction.

    Returns
    -------
    DataFrame
        Long form: width, measure, value, standard_error, monte_carlo_floor. The standard error of
        total variation is over test points, and its floor what equal distributions would show; the
        other measures (`ENSEMBLE_MEASURES`) have no bias, standard errors over draws, and no floor.

    Raises
    ------
    ValueError
        If a setting is out of range, or training does not lower an objective.

    Warns
    -----
    UserWarning
        If networks have not converged.

    Examples
    --------
    >>> table = nb.lazy.ensemble_sweep(
    ...     network, nb.Categorical(2), data, key=key, prior_precision=1.0, widths=(8,),
    ...     num_members=40, num_draws=100,
    ... )
    >>> list(table["measure"])
    ['mean_distance', 'covariance_distance', 'energy_distance', 'total_variation']
    """
    widths = checked_widths(widths)
    check_at_least("num_members", num_members, 40)
    check_at_least("num_draws", num_draws, 40)
    settings = {
        "likelihood": repr(likelihood),
        "prior_precision": float(prior_precision),
        "num_members": num_members,
        "num_draws": num_draws,
        "max_steps": max_steps,
        "tolerance": tolerance,
        "data": digest(data.x_train, data.y_train, data.x_test, data.y_test, key=key),
    }
    cells = Cells(None if directory is None else Path(directory), ENSEMBLE_COLUMNS)
    train = (likelihood, data.x_train, data.y_train)
    closed: xr.DataTree | None = None
    tables = []
    for position, width in enumerate(widths):
        finite = of_width(network, width)
        described = settings | {"network": finite.settings()}
        table = cells.read(f"ensemble-{width}", described)
        if table is None:
            if closed is None:
                ensemble = ntk_ensemble(finite, *train, prior_precision=prior_precision)
                closed = predict(
                    ensemble, data, key=jax.random.fold_in(key, 0), num_draws=num_draws
                )
            trained = deep_ensemble(
                finite, *train, prior_precision=prior_precision,
                key=jax.random.fold_in(key, width), num_members=num_members, max_steps=max_steps,
                tolerance=tolerance,
                progress=lambda part, done=position: progress((done + part) / len(widths)),
            )  # fmt: skip
            tree = predict(trained, data, key=key)
            table = _compared({CLOSED_FORM: closed, TRAINED: tree}, width)
            cells.write(f"ensemble-{width}", described, table)
        tables.append(table)
    progress(1.0)
    return pd.concat(tables, ignore_index=True)


def _compared(trees: dict[str, xr.DataTree], width: int) -> pd.DataFrame:
    """All measures of the trained networks, in their order."""
    found = pd.concat(
        [compare_joint(trees, reference=CLOSED_FORM), compare(trees, reference=CLOSED_FORM)]
    )
    found = found.loc[found["method"] == TRAINED, :].set_index("metric")
    names = [name for name in ENSEMBLE_MEASURES if name in found.index]
    columns: Any = list(ENSEMBLE_COLUMNS[2:])
    table = found.loc[names, columns].reset_index(names="measure")
    table.insert(0, "width", width)
    return table
