"""Choose hyperparameters: L-BFGS-B over their logarithms, from several starts.

Gradients go through the network's kernel and, where there is a mode, through the mode itself
(`ntkbayes.hyperparameters.objectives`).

References
----------
Rasmussen & Williams 2006, §5.4–5.5.
"""

import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from ntkbayes._checks import (
    check_at_least,
    check_choice,
    check_not_empty,
    check_positive,
    warn_caller,
)
from ntkbayes._problem import TrainingSet, checked_inputs, infinite_width, training_set
from ntkbayes._progress import bar_in_notebooks
from ntkbayes._types import AnyArray, Key, Progress, silent, typed
from ntkbayes.hyperparameters.objectives import Model
from ntkbayes.hyperparameters.record import OBJECTIVES, HyperparameterSelection
from ntkbayes.hyperparameters.search import STATIONARY, Evaluation, Search, minimize, slope_left
from ntkbayes.likelihoods import Gaussian, Likelihood
from ntkbayes.networks import Network
from ntkbayes.networks.dense import DenseNetwork

__all__ = ["select_hyperparameters"]

RANGES = {"prior_precision": 1e4, "noise_variance": 1e4, "weight_scale": 10.0, "bias_scale": 100.0}
"""Hyperparameter → by what factor it may leave its start without other bounds."""
AGREEMENT = 0.05
"""Nats by which restarts may differ; a Bayes factor of exp 0.05 decides nothing."""


@bar_in_notebooks
@typed
def select_hyperparameters(
    network: Network,
    likelihood: Likelihood,
    x: AnyArray,
    y: AnyArray,
    *,
    key: Key,
    prior_precision: float = 1.0,
    objective: str = "log_marginal_likelihood",
    x_val: AnyArray | None = None,
    y_val: AnyArray | None = None,
    parameters: Sequence[str] | None = None,
    bounds: Mapping[str, tuple[float, float]] | None = None,
    num_restarts: int = 4,
    kernel: str = "ntk",
    progress: Progress = silent,
) -> HyperparameterSelection:
    """Choose prior precision, noise variance and kernel scales, by evidence or validation.

    Parameters
    ----------
    network, likelihood, x, y
        The model, whose hyperparameters are the first start, and its training data, as in
        `ntkbayes.ntk_ensemble`. Computed in float64, whatever their type and JAX's default are.
    key
        Draws the further starts, log-uniformly inside the bounds.
    prior_precision
        λ > 0 of the first start.
    objective
        ``"log_marginal_likelihood"``: log p(y) of the GP (Gaussian likelihood), else Laplace's
        approximation of it, as in `ntkbayes.laplace`; maximised. ``"validation_nll"``: mean over
        validation points of −log ∫ p(y | f) q(f) df, with q the GP posterior or the Laplace
        approximation; minimised. The integral is exact for a Gaussian likelihood, else a mean over
        256 quasi-Monte-Carlo points, always the same.
    x_val, y_val
        Validation data, for ``"validation_nll"`` only.
    parameters
        Which of ``"prior_precision"``, ``"noise_variance"`` (Gaussian likelihood),
        ``"weight_scale"`` and ``"bias_scale"`` (dense network) to choose; None for all that the
        model has, except a bias scale of 0: that of a network without biases. A network's
        ``readout_scale`` stays as it is: what it does, the prior precision can do.
    bounds
        Hyperparameter → smallest and largest value; else a factor 10⁴ about the start for
        precision and variance, 10 for the weight scale, 100 for the bias scale.
    num_restarts
        Number of starts, ≥ 1.
    kernel
        ``"ntk"`` or ``"nngp"``.
    progress
        Called after every iteration.

    Warns
    -----
    UserWarning
        If the optimum sits on a bound, the best restart did not converge, or the mode there may be
        off by more than 1e-3 latent units; evaluations whose mode may be off by more than 0.05
        count as failed.

    Raises
    ------
    ValueError
        If data or settings are out of range, the model lacks a parameter, or no restart succeeds.

    Notes
    -----
    An evaluation costs about 5 n³ operations per output of a softmax, and 5 n³ in all with other
    likelihoods; memory 5 n² numbers for each. With ReLU the data hardly tell apart two scales that
    both grow and a prior precision that grows with them: leave ``"weight_scale"`` out where the
    optimum runs to a bound.

    Examples
    --------
    >>> found = nb.select_hyperparameters(
    ...     *model_sine, key=key, parameters=["prior_precision"], num_restarts=2
    ... )
    >>> list(found.values), found.num_agreeing
    (['prior_precision'], 2)
    >>> gp = nb.gp_posterior(*model_sine, prior_precision=found.prior_precision)
    >>> bool(abs(gp.elbo - found.value) < 0.01)
    True
    """
    check_choice("kernel", kernel, ("ntk", "nngp"))
    check_choice("objective", objective, OBJECTIVES)
    check_positive("prior_precision", prior_precision)
    check_at_least("num_restarts", num_restarts, 1)
    model = Model(infinite_width(network), likelihood, float(prior_precision), kernel)
    names = _names(model, parameters)
    limits = _limits(model, names, bounds or {})
    with jax.enable_x64(True):  # whose gradients a line search can trust
        train = training_set(likelihood, jnp.asarray(x, dtype=jnp.float64), y)
        validation = _validation(objective, likelihood, train, y, x_val, y_val)
        searches = []
        for number, start in enumerate(_starts(key, model, limits, num_restarts)):

            def share(done: float, number: int = number) -> None:
                progress((number + done) / num_restarts)

            search = Search(names, model, train, validation, share)
            minimize(search, start, limits)
            searches.append(search)
            share(1.0)
        selection = _selection(objective, model, limits, searches, validation)
    for text in selection.warnings:
        warn_caller(text)
    return selection


def _validation(
    objective: str,
    likelihood: Likelihood,
    train: TrainingSet,
    y: AnyArray,
    x_val: AnyArray | None,
    y_val: AnyArray | None,
) -> TrainingSet | None:
    if objective == "log_marginal_likelihood":
        if x_val is not None or y_val is not None:
            raise ValueError(
                "x_val and y_val count for objective 'validation_nll' only; leave them out."
            )
        return None
    if x_val is None or y_val is None:
        raise ValueError("objective 'validation_nll' needs x_val and y_val.")
    check_not_empty("y_val", y_val)
    if y_val.shape[1:] != y.shape[1:] or len(y_val) != len(x_val):
        raise ValueError(
            f"y_val must have one row per row of x_val ({len(x_val)}) and otherwise y's shape "
            f"{tuple(y.shape)}, but has {tuple(y_val.shape)}."
        )
    # With y's: a validation set may lack a class.
    targets = likelihood.targets(jnp.concatenate([jnp.asarray(y), jnp.asarray(y_val)]))
    inputs = checked_inputs(train, x_val)
    return TrainingSet(inputs, targets[len(y) :].astype(inputs.dtype))


def _names(model: Model, parameters: Sequence[str] | None) -> list[str]:
    """Check which hyperparameters are asked for, and put them in order."""
    dense = isinstance(model.network, DenseNetwork)
    available = {
        "prior_precision": True,
        "noise_variance": isinstance(model.likelihood, Gaussian),
        "weight_scale": dense,
        "bias_scale": dense,
    }
    if parameters is None:
        return [name for name, there in available.items() if there and model.value(name) > 0]
    if not parameters:
        raise ValueError(f"parameters is empty: choose from {', '.join(available)}.")
    for name in parameters:
        check_choice("parameter", name, available)
        owner = model.likelihood if name == "noise_variance" else model.network
        if not available[name]:
            raise ValueError(
                f"a {type(owner).__name__} has no {name} to choose; leave it out of parameters."
            )
        if model.value(name) == 0:
            raise ValueError(
                f"{name} is 0, which has no logarithm: start at a positive value, or leave it out "
                "of parameters."
            )
    return [name for name in available if name in parameters]


def _limits(
    model: Model, names: list[str], bounds: Mapping[str, tuple[float, float]]
) -> dict[str, tuple[float, float]]:
    """Bounds of every hyperparameter that is chosen."""
    for name in bounds:
        check_choice("parameter in bounds", name, names)
    limits = {}
    for name in names:
        start, factor = float(model.value(name)), RANGES[name]
        low, high = bounds.get(name, (start / factor, start * factor))
        if not 0 < low < high < math.inf:
            raise ValueError(
                f"bounds of {name} must be positive, finite and in order, but are {low}, {high}."
            )
        if not low <= start <= high:
            raise ValueError(
                f"{name} starts at {start:.4g}, outside its bounds {low:.4g} to {high:.4g}; "
                "change one of them."
            )
        limits[name] = (float(low), float(high))
    return limits


def _starts(
    key: Key, model: Model, limits: dict[str, tuple[float, float]], num_restarts: int
) -> np.ndarray:
    """Logarithms of the hyperparameters at every start (restarts, parameters)."""
    low, high = np.log(list(limits.values())).T
    given = np.log([float(model.value(name)) for name in limits])
    share = np.asarray(jax.random.uniform(key, (num_restarts - 1, len(limits))))
    return np.concatenate([given[None], low + share * (high - low)])


def _selection(
    objective: str,
    model: Model,
    limits: dict[str, tuple[float, float]],
    searches: list[Search],
    validation: TrainingSet | None,
) -> HyperparameterSelection:
    """Gather the restarts.

    Raises
    ------
    ValueError
        If none succeeded.
    """
    found = [(search.best, search) for search in searches]
    values = [best.value for best, _ in found if best is not None]
    if not values:
        reasons = {row.failure for search in searches for row in search.evaluations}
        raise ValueError(
            f"no restart succeeded ({'; '.join(sorted(reasons))}): narrow the bounds, start with "
            "a larger prior_precision, or check x for inputs that nearly coincide."
        )
    best = min((best for best, _ in found if best is not None), key=lambda row: row.value)
    # From what is minimised to what is reported.
    scale = -1.0 if validation is None else 1 / len(validation.x)
    chosen = {n: float(v) for n, v in zip(limits, np.exp(best.point), strict=True)}
    changed = model.replace(chosen)
    return HyperparameterSelection(
        changed.network,
        changed.likelihood,
        float(changed.prior_precision),
        objective,
        model.kernel,
        scale * best.value,
        chosen,
        limits,
        _trace(searches, scale),
        _restarts(found, best, limits, scale),
    )


def _trace(searches: list[Search], scale: float) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "restart": number,
                "iteration": row.iteration,
                "value": scale * row.value,
                **dict(zip(search.names, np.exp(row.point).tolist(), strict=True)),
                "accepted": row.accepted,
                "failure": row.failure,
            }
            for number, search in enumerate(searches)
            for row in search.evaluations
        ]
    )


def _restarts(
    found: list[tuple[Evaluation | None, Search]],
    best: Evaluation,
    limits: dict[str, tuple[float, float]],
    scale: float,
) -> pd.DataFrame:
    rows = []
    for end, search in found:
        slope = math.nan if end is None else slope_left(end, limits)
        value = math.nan if end is None else end.value
        latent_error = math.nan if end is None else end.latent_error
        rows.append(
            {
                "value": scale * value,
                "slope": slope,
                "converged": slope <= STATIONARY,
                "agrees": value - best.value <= AGREEMENT,
                "latent_error": latent_error,
                "num_evaluations": len(search.evaluations),
                "num_failures": sum(bool(row.failure) for row in search.evaluations),
            }
        )
    return pd.DataFrame(rows).rename_axis("restart")
