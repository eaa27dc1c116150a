"""Predictions as data: draws at test points, in an ArviZ `DataTree`.

`schema` says what the tree holds; `external` makes one from what another tool has predicted.
"""

from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
import xarray as xr

from ntkbayes._checks import check_at_least, check_choice
from ntkbayes._progress import bar_in_notebooks
from ntkbayes._types import Array, Key, Progress, silent, typed
from ntkbayes.evaluation._checked import check_chains, num_classes
from ntkbayes.evaluation.schema import SPLITS, ClosedForm, Labels, prediction_tree
from ntkbayes.likelihoods import Gaussian, Likelihood
from ntkbayes.predictors import GaussianPredictor, Predictor

__all__ = ["DatasetLike", "predict"]

DEFAULT_NUM_DRAWS = 1000
NUM_PROBES = 4
"""Points at which outputs are checked for independence."""


@runtime_checkable
class DatasetLike(Protocol):
    """What `predict` needs of data: a `Dataset`, or anything with these fields.

    Besides, the names that predictions keep are taken if they are there: ``class_names`` of classes
    or ``target_names`` of targets, and ``feature_names``.

    Attributes
    ----------
    name
        Name of the dataset in tables.
    x_test
        Inputs (m …) of the test points; of another split ``x_train`` or ``x_val`` in its place.
    y_test
        Their observations, as the likelihood takes them; ``y_train`` or ``y_val``.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> mine = SimpleNamespace(name="mine", x_test=data.x_test[:3], y_test=data.y_test[:3])
    >>> nb.predict(predictors["Laplace"], mine, key=key, num_draws=5)["posterior"].sizes["obs_id"]
    3
    """

    name: str
    x_test: Any
    y_test: Any


@bar_in_notebooks
@typed
def predict(
    predictor: Predictor,
    data: DatasetLike | Any,
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
        fields of `DatasetLike`.
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
        If `data` lacks a field, if `split` is unknown or has no points, if its observations do not
        fit the likelihood, if more draws are asked for than there are, fewer than one, or a number
        that is no multiple of the number of chains, or if a draw is not finite.

    Examples
    --------
    >>> tree = nb.predict(predictors["Laplace"], data, key=key, num_draws=50)
    >>> dict(tree["posterior/latent"].sizes)
    {'chain': 1, 'draw': 50, 'obs_id': 300, 'output': 2}
    """
    check_choice("split", split, SPLITS)
    x, y = _points(data, split)
    if num_draws is None:
        num_draws = predictor.num_available or DEFAULT_NUM_DRAWS
    _check_num_draws(num_draws, predictor)
    key_latent, key_observation = jax.random.split(key)
    draws = predictor.draw(key_latent, x, num_draws=num_draws, progress=progress)
    settings = predictor.settings
    kind = "class_names" if num_classes(predictor.likelihood) else "target_names"
    names = getattr(data, kind, None) or ()
    labels = Labels(
        method=method or str(settings.get("method", "unnamed")),
        settings=settings,
        dataset=data.name,
        split=split,
        num_chains=predictor.num_chains,
        is_posterior=predictor.is_posterior,
        output_names=names if len(names) == _num_names(predictor.likelihood) else None,
        feature_names=getattr(data, "feature_names", None),
        **_target_units(data),
    )
    return prediction_tree(
        draws.latent,
        predictor.likelihood,
        y,
        labels,
        key=key_observation,
        x=x,
        stats=draws.stats,
        closed_form=_closed_form(predictor, x),
    )


def _points(data: Any, split: str) -> tuple[Any, Any]:
    """Return inputs and observations of a split, if data have what `DatasetLike` lists."""
    needed = f"x_{split}", f"y_{split}", "name"
    missing = [field for field in needed if not hasattr(data, field)]
    if missing:
        raise ValueError(
            f"data must be a Dataset or have its fields {', '.join(needed)}, but this "
            f"{type(data).__name__} lacks {', '.join(missing)}."
        )
    x, y = (getattr(data, field) for field in needed[:2])
    if len(x) == 0:
        raise ValueError(f"x_{split} has no points: make the dataset with some for this split.")
    return x, y


def _target_units(data: Any) -> dict[str, list[float]]:
    """Mean and scale of the targets, if the data are a regression that knows them."""
    known = [getattr(data, f"target_{name}", None) for name in ("mean", "scale")]
    if getattr(data, "task", None) != "regression" or any(value is None for value in known):
        return {}
    mean, scale = (np.atleast_1d(np.asarray(value, dtype=float)).tolist() for value in known)
    return {"target_mean": mean, "target_scale": scale}


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
