"""Predictions as data: draws at test points, in an ArviZ `DataTree`.

`schema` says what the tree holds; `external` makes one from what another tool has predicted.
"""

from typing import Any

import jax
import numpy as np
import xarray as xr

from ntkbayes._checks import check_at_least, check_choice, check_not_empty
from ntkbayes._types import Array, Key, Progress, silent, typed
from ntkbayes.datasets import Dataset
from ntkbayes.evaluation._checked import check_chains, num_classes
from ntkbayes.evaluation.schema import SPLITS, ClosedForm, Labels, prediction_tree
from ntkbayes.likelihoods import Gaussian, Likelihood
from ntkbayes.predictors import GaussianPredictor, Predictor

__all__ = ["predict"]

DEFAULT_NUM_DRAWS = 1000
NUM_PROBES = 4
"""Points at which outputs are checked for independence."""


@typed
def predict(
    predictor: Predictor,
    data: Dataset | Any,
    *,
    key: Key,
    num_draws: int | None = None,
    split: str = "test",
    method: str | None = None,
    progress: Progress = silent,
) -> xr.DataTree:
    """Draw predictions at one split of a dataset.

    Parameters
    ----------
    predictor
        What a method returned.
    data
        Dataset whose inputs are predicted and whose observations are scored, or anything with the
        same fields, such as one with several targets (n c).
    key
        Random key, for the latent draws and the observation draws.
    num_draws
        Number of latent functions over all chains. Default: every distinct draw the predictor
        has, or 1,000 if there is no limit.
    split
        "train", "val" or "test".
    method
        Name of the method in tables. Default: the name in the predictor's settings.
    progress
        Called with the finished fraction of the draws.

    Returns
    -------
    DataTree
        The groups of `ntkbayes.evaluation.schema`.

    Raises
    ------
    ValueError
        If `data` is no dataset, if `split` is unknown or has no points, if its observations do not
        fit the likelihood, if more draws are asked for than there are, fewer than one, or a number
        that is no multiple of the number of chains, or if a draw is not finite.

    Examples
    --------
    >>> tree = nb.predict(predictors["Laplace"], data, key=key, num_draws=50)
    >>> dict(tree["posterior/latent"].sizes)
    {'chain': 1, 'draw': 50, 'obs_id': 300, 'output': 2}
    """
    check_choice("split", split, SPLITS)
    if not hasattr(data, f"x_{split}"):
        raise ValueError(f"data must be a Dataset, but is a {type(data).__name__}.")
    x = getattr(data, f"x_{split}")
    check_not_empty(f"x_{split}", x)
    if num_draws is None:
        num_draws = predictor.num_available or DEFAULT_NUM_DRAWS
    _check_num_draws(num_draws, predictor)
    key_latent, key_observation = jax.random.split(key)
    draws = predictor.draw(key_latent, x, num_draws=num_draws, progress=progress)
    settings = predictor.settings
    names = data.class_names if data.task == "classification" else (data.target_name,)
    labels = Labels(
        method=method or str(settings.get("method", "unnamed")),
        settings=settings,
        dataset=data.name,
        split=split,
        num_chains=predictor.num_chains,
        is_posterior=predictor.is_posterior,
        output_names=names if len(names) == _num_names(predictor.likelihood) else None,
        feature_names=data.feature_names,
    )
    return prediction_tree(
        draws.latent,
        predictor.likelihood,
        getattr(data, f"y_{split}"),
        labels,
        key=key_observation,
        x=x,
        stats=draws.stats,
        closed_form=_closed_form(predictor, x),
    )


def _check_num_draws(num_draws: int, predictor: Predictor) -> None:
    check_at_least("num_draws", num_draws, 1)
    available = predictor.num_available
    if available is not None and num_draws > available:
        raise ValueError(
            f"num_draws is {num_draws}, but this predictor has only {available} distinct draw(s); "
            "leave num_draws out to take them all."
        )
    check_chains(num_draws, predictor.num_chains)


def _num_names(likelihood: Likelihood) -> int:
    return num_classes(likelihood) or likelihood.num_outputs


def _closed_form(predictor: Predictor, x: Array) -> ClosedForm | None:
    if not isinstance(predictor, GaussianPredictor) or not predictor.has_moments:
        return None
    if not isinstance(predictor.likelihood, Gaussian):
        return None
    return ClosedForm(predictor.mean(x), predictor.variance(x), _independent_outputs(predictor, x))


def _independent_outputs(predictor: GaussianPredictor, x: Array) -> bool:
    """Whether covariances between the outputs of a point are rounding, at the first few points.

    Outputs of a network are correlated if hidden weights are uncertain, and then at every point.
    """
    if predictor.likelihood.num_outputs == 1:
        return True
    covariance = np.einsum("icik->ick", np.asarray(predictor.covariance(x[:NUM_PROBES])))
    deviation = np.sqrt(np.maximum(np.einsum("icc->ic", covariance), 0))
    rounding = np.sqrt(np.finfo(covariance.dtype).eps) * deviation[:, :, None] * deviation[:, None]
    between = np.abs(covariance) * (1 - np.eye(covariance.shape[1]))
    return bool(np.all(between <= rounding))
