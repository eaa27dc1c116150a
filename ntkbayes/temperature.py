"""Temperature scaling: one number fitted on validation data, the baseline of every calibration.

All logits of all draws are divided by one temperature T, and T is chosen so that the pooled
prediction is best on the validation split:

    T* = argmin_T  −Σ_i log (1/s) Σ_s softmax(f_s(x_i) / T)[y_i].

For a single network this is temperature scaling itself [1]_ (eq. 9). For an ensemble or a posterior
there are three ways [2]_: calibrate every member and then pool, which leaves the pooled prediction
too uncertain; pool and then scale the logarithms of the pooled probabilities, which leaves one
prediction and no draws; or, as here, scale the members by one T that is calibrated *after pooling*.
The result is a predictor like any other, whose draws keep their disagreement.

T > 1 makes predictions less certain. The most probable class of a draw never changes; that of the
mean over draws may.

References
----------
.. [1] Guo, Pleiss, Sun & Weinberger (2017), arXiv 1706.04599.
.. [2] Rahaman & Thiery (2021), arXiv 2007.08792.
"""

import json
from typing import Any, overload

import jax
import numpy as np
import scipy.optimize
import scipy.special
import xarray as xr

from ntkbayes._checks import warn_caller
from ntkbayes._types import AnyArray, Float, Int, Key, Progress, silent, typed
from ntkbayes.evaluation import (
    DatasetLike,
    from_draws,
    from_probabilities,
    metrics,
    observations,
    pooled,
    predict,
)
from ntkbayes.evaluation.alignment import check_validation_pair
from ntkbayes.evaluation.schema import output_names
from ntkbayes.evaluation.storage import ordered
from ntkbayes.likelihoods import Bernoulli, Categorical, Likelihood
from ntkbayes.predictors import Draws, Predictor

__all__ = ["TemperatureScaled", "temperature_scaled"]

BOUNDS = (0.01, 100.0)
NUM_START = 41
"""Temperatures, evenly spaced in log T, around the best of which the search is refined."""


class TemperatureScaled(Predictor):
    """A predictor whose draws are those of another, divided by a temperature.

    Attributes
    ----------
    likelihood
        That of the other predictor.
    predictor
        The other predictor.
    temperature
        T > 0.
    """

    likelihood: Likelihood
    predictor: Predictor
    temperature: float

    def draw(self, key: Key, x: AnyArray, *, num_draws: int, progress: Progress = silent) -> Draws:
        """Draw from the other predictor and divide by T; its statistics are kept."""
        draws = self.predictor.draw(key, x, num_draws=num_draws, progress=progress)
        return Draws(draws.latent / self.temperature, draws.stats)

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the other predictor, and the temperature."""
        settings = self.predictor.settings
        method = f"{settings.get('method', 'unnamed')}_temperature_scaled"
        return {**settings, "method": method, "temperature": self.temperature}

    @property
    def num_available(self) -> int | None:
        """That of the other predictor."""
        return self.predictor.num_available

    @property
    def num_chains(self) -> int:
        """That of the other predictor."""
        return self.predictor.num_chains


@overload
def temperature_scaled(
    predictor: Predictor, data: DatasetLike | Any, *, key: Key, num_draws: int | None = None
) -> TemperatureScaled: ...


@overload
def temperature_scaled(
    predictor: xr.DataTree, data: xr.DataTree, *, key: Key | None = None
) -> xr.DataTree: ...


@typed
def temperature_scaled(
    predictor: Predictor | xr.DataTree,
    data: DatasetLike | xr.DataTree | Any,
    *,
    key: Key | None = None,
    num_draws: int | None = None,
) -> TemperatureScaled | xr.DataTree:
    """Fit the temperature T of the module's docstring on the validation split, and apply it.

    Of a predictor, or of predictions that were made elsewhere: ``temperature_scaled(tree_val,
    tree_test)`` fits T to the first and returns the second with it.

    The negative log likelihood of a mixture need not have one minimum, so log T is searched on a
    grid over T from 0.01 to 100, and by Brent's bounded method around the best point. Time is that
    of about 80 evaluations of (s v c) softmax probabilities for v validation points.

    Parameters
    ----------
    predictor
        A predictor of classes: of logits with likelihood `Categorical` or `Bernoulli`. A single
        trained network is `ntkbayes.deep_ensemble` with ``num_members=1``. Or its predictions at
        the validation points. Class probabilities count as the logits log p.
    data
        Dataset, or what is like it, whose validation split is used; nothing else of it is looked
        at. Or predictions of the same method at the points that are to be scaled.
    key
        Random key of the draws at the validation points; of predictions, that of the new
        observations in them (default: ``jax.random.key(0)``).
    num_draws
        Number of draws T is fitted with, as in `ntkbayes.predict`; for a predictor only.

    Returns
    -------
    TemperatureScaled or DataTree
        Settings hold ``temperature``.

    Warns
    -----
    UserWarning
        If the best T lies on a bound: the validation points are all fitted, or nothing about them
        is known, and T says no more than that.

    Raises
    ------
    ValueError
        If the predictor is no predictor of classes; if only one is predictions; as in
        `ntkbayes.predict`, or of predictions as in `ntkbayes.evaluation.conformal_sets`.

    Examples
    --------
    >>> posterior = nb.laplace(*model, prior_precision=1.0)
    >>> scaled = nb.temperature_scaled(posterior, data, key=key, num_draws=50)
    >>> round(scaled.temperature, 1), scaled.settings["method"]
    (0.6, 'laplace_temperature_scaled')
    >>> tree_val, tree_test = (
    ...     nb.predict(posterior, data, key=key, num_draws=50, split=split)
    ...     for split in ("val", "test")
    ... )
    >>> nb.temperature_scaled(tree_val, tree_test).attrs["method"]
    'laplace, temperature-scaled'
    """
    if isinstance(predictor, xr.DataTree) != isinstance(data, xr.DataTree):
        raise ValueError(
            "temperature_scaled needs a predictor and a dataset, or the predictions at the "
            "validation points and at the test points, but only one of them is predictions."
        )
    if isinstance(predictor, xr.DataTree) and isinstance(data, xr.DataTree):
        if num_draws is not None:
            raise ValueError("num_draws must be left out for predictions, which have theirs.")
        return _scaled_tree(predictor, data, jax.random.key(0) if key is None else key)
    assert isinstance(predictor, Predictor)
    if key is None:
        raise ValueError("key is needed to draw from a predictor; jax.random.key(0) makes one.")
    _check_classes(predictor.likelihood.settings()["name"])
    tree = predict(predictor, data, key=key, num_draws=num_draws, split="val")
    return TemperatureScaled(predictor.likelihood, predictor, _fitted(tree))


def _check_classes(likelihood: Any) -> None:
    if likelihood not in ("Categorical", "Bernoulli"):
        raise ValueError(
            f"temperature_scaled needs logits of classes, but the likelihood is {likelihood}. For "
            "a regression choose noise_variance on the validation points (select_hyperparameters), "
            "or use conformal_intervals."
        )


def _fitted(tree: xr.DataTree) -> float:
    """Fit the temperature to predictions at the validation points; warn if they say nothing."""
    temperature = _best_temperature(pooled(tree).astype(float), observations(tree))
    for bound, near in zip(BOUNDS, np.isclose(temperature, BOUNDS, rtol=1e-3), strict=True):
        if near:
            warn_caller(
                f"the best temperature lies on the bound {bound:g}: the "
                f"{len(observations(tree))} validation points do not determine it."
            )
    return temperature


def _scaled_tree(tree_val: xr.DataTree, tree_test: xr.DataTree, key: Key) -> xr.DataTree:
    """Return predictions at the test points with all logits divided by the fitted temperature."""
    likelihood = json.loads(tree_test.attrs["likelihood"])
    _check_classes(likelihood["name"])
    check_validation_pair(tree_val, tree_test)
    temperature = _fitted(tree_val)
    attrs, latent = tree_test.attrs, ordered(tree_test, "posterior/latent")
    names = [name for name in output_names(tree_test) if name is not None]
    about = {
        "key": key,
        "method": f"{attrs['method']}, temperature-scaled",
        "x": ordered(tree_test, "constant_data/x") if "constant_data" in tree_test else None,
        "obs_ids": np.asarray(tree_test["observed_data/obs_id"]),
        "output_names": names if len(names) == len(output_names(tree_test)) else None,
        "dataset": attrs["dataset"],
        "split": attrs["split"],
        "stats": {k: np.asarray(v) for k, v in tree_test["sample_stats"].data_vars.items()}
        if "sample_stats" in tree_test
        else None,
        "settings": json.loads(attrs["settings"]) | {"temperature": temperature},
    }
    y = observations(tree_test)
    if "probabilities" in tree_test:
        p = scipy.special.softmax(latent.astype(float) / temperature, axis=-1)
        return from_probabilities(p, y, **about)
    kinds = {"Categorical": lambda: Categorical(likelihood["num_outputs"]), "Bernoulli": Bernoulli}
    return from_draws(latent / temperature, kinds[likelihood["name"]](), y, **about)


@typed
def _best_temperature(latent: Float[np.ndarray, "s m c"], y: Int[np.ndarray, "m"]) -> float:
    """Minimise the mixture's negative log likelihood over T within `BOUNDS`."""
    weights = metrics.uniform_weights(len(y))
    if latent.shape[-1] == 1:
        latent = np.concatenate([np.zeros_like(latent), latent], axis=-1)
    # Relative to the logit of the label: log p(y) = −log Σ_c exp((f_c − f_y) / T).
    relative = latent - np.take_along_axis(latent, y[None, :, None], axis=-1)

    def nll(log_temperature: float) -> float:
        surprise = scipy.special.logsumexp(relative * np.exp(-log_temperature), axis=-1)
        return float(metrics.mixture_nll(-np.asarray(surprise), weights))

    lowest, highest = np.log(BOUNDS)
    grid = np.linspace(lowest, highest, NUM_START)
    best = int(np.argmin([nll(t) for t in grid]))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, NUM_START - 1)]
    found = scipy.optimize.minimize_scalar(
        nll, bounds=(low, high), method="bounded", options={"xatol": 1e-6}
    )
    # The bounded method never reaches an end of its interval.
    return float(np.exp(found.x if found.fun < nll(grid[best]) else grid[best]))
