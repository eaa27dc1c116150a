"""What a proper score loses by miscalibration: NLL before and after temperature scaling.

The test points are halved at random, by rows: methods are compared with their points in one order,
which `compare` gives them. On each half one temperature T is fitted to the class
probabilities p, and the other half is scored with

    p_T(c | x) ∝ p(c | x)^(1/T),

so that every point has an NLL after scaling by a temperature that has not seen it. NLL minus that
is the *temperature gain*, the calibration part of the log score as far as one temperature can mend
it. It is a mean over points of what is known point by point, and so has an honest standard error,
unlike errors over bins; a calibrated predictor has 0, or a little less, for what fitting T costs.

References
----------
Guo, Pleiss, Sun & Weinberger (2017), arXiv 1706.04599 (temperature scaling) · Bröcker (2009),
doi:10.1002/qj.456 (calibration parts of proper scores).
"""

import numpy as np
import scipy.optimize
import scipy.special

from ntkbayes._checks import check_at_least
from ntkbayes._types import Float, Int, typed
from ntkbayes.evaluation.metrics.inputs import checked_predictions
from ntkbayes.evaluation.metrics.resampling import weighted, weighted_mean

__all__ = ["pointwise_scaled_nll", "scaled_nll", "scaled_probabilities", "temperature_gain"]

LARGEST = 4.0
"""|log T| that is looked at: T from 0.018 to 55."""


@weighted
def scaled_nll(
    p: Float[np.ndarray, "m c"],
    y: Int[np.ndarray, "m"],
    weights: Float[np.ndarray, "*b m"],
    *,
    seed: int = 0,
) -> Float[np.ndarray, "*b"]:
    """Mean NLL after a temperature fitted to the other half of the points, in nats.

    Parameters
    ----------
    p, y, weights
        See the module's docstring.
    seed
        Seed of the halves; the same for methods that are compared.

    Raises
    ------
    ValueError
        If there are fewer than two points, or probabilities or labels are out of range.

    Examples
    --------
    >>> import numpy as np
    >>> p, y = np.tile([0.99, 0.01], (100, 1)), (np.arange(100) % 4 == 0).astype(int)
    >>> weights = nb.evaluation.metrics.uniform_weights(100)
    >>> before = nb.evaluation.metrics.temperature_gain(p, y, weights)
    >>> after = nb.evaluation.metrics.scaled_nll(p, y, weights)
    >>> round(float(before), 2), round(float(after), 2)  # −¾ log ¾ − ¼ log ¼ is 0.56
    (0.58, 0.58)
    """
    return weighted_mean(weights, pointwise_scaled_nll(p, y, seed=seed))


@weighted
def temperature_gain(
    p: Float[np.ndarray, "m c"],
    y: Int[np.ndarray, "m"],
    weights: Float[np.ndarray, "*b m"],
    *,
    seed: int = 0,
) -> Float[np.ndarray, "*b"]:
    """NLL minus `scaled_nll`, in nats: what a wrong temperature costs; 0 or a little less for none.

    Parameters
    ----------
    p, y, weights, seed
        As in `scaled_nll`.

    Raises
    ------
    ValueError
        As in `scaled_nll`.
    """
    nll = _pointwise(1.0, _logs(checked_predictions(p, y)), y)
    return weighted_mean(weights, nll - pointwise_scaled_nll(p, y, seed=seed))


@typed
def pointwise_scaled_nll(
    p: Float[np.ndarray, "m c"], y: Int[np.ndarray, "m"], *, seed: int = 0
) -> Float[np.ndarray, "m"]:
    """NLL of every point after a temperature fitted to the half it is not in, in nats.

    log T has a standard normal prior: worth less than an observation, it keeps T away from 0 and ∞
    where a half is all right or all wrong.

    Parameters
    ----------
    p, y, seed
        As in `scaled_nll`.

    Raises
    ------
    ValueError
        As in `scaled_nll`.
    """
    p = checked_predictions(p, y)
    check_at_least("the number of points", len(y), 2)
    logs, found = _logs(p), np.empty(len(y))
    first, second = np.array_split(np.random.default_rng(seed).permutation(len(y)), 2)
    for fitted, scored in ((first, second), (second, first)):
        inverse = _inverse_temperature(logs[fitted], y[fitted])
        found[scored] = _pointwise(inverse, logs[scored], y[scored])
    return found


@typed
def scaled_probabilities(
    p: Float[np.ndarray, "m c"], y: Int[np.ndarray, "m"]
) -> Float[np.ndarray, "m c"]:
    """Class probabilities after the temperature that is fitted to all of the points.

    Parameters
    ----------
    p, y
        As in `scaled_nll`.

    Raises
    ------
    ValueError
        If probabilities or labels are out of range.
    """
    logs = _logs(checked_predictions(p, y))
    return scipy.special.softmax(_inverse_temperature(logs, y) * logs, axis=1)


def _logs(p: np.ndarray) -> np.ndarray:
    """Log probabilities; those of 0 stay finite, below any that float64 has."""
    return np.log(np.clip(p.astype(float), np.finfo(float).tiny, None))


def _pointwise(inverse: float, logs: np.ndarray, y: np.ndarray) -> np.ndarray:
    scaled = inverse * logs
    return np.asarray(scipy.special.logsumexp(scaled, axis=1)) - scaled[np.arange(len(y)), y]


def _inverse_temperature(logs: np.ndarray, y: np.ndarray) -> float:
    """1/T of the mode: the NLL is convex in it, the search is over log T."""

    def loss(log_temperature: float) -> float:
        nll = _pointwise(np.exp(-log_temperature), logs, y).sum()
        return float(nll + log_temperature**2 / 2)

    found = scipy.optimize.minimize_scalar(
        loss, bounds=(-LARGEST, LARGEST), method="bounded", options={"xatol": 1e-6}
    )
    return float(np.exp(-found.x))
