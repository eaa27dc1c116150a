"""One restart: L-BFGS-B from one start, keeping every evaluation.

References
----------
Byrd, Lu, Nocedal, Zhu 1995, SIAM Journal on Scientific Computing 16 (L-BFGS-B).
"""

import math
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from ntkbayes._linalg import FactorizationError, naming_failure
from ntkbayes._problem import TrainingSet
from ntkbayes._types import Progress
from ntkbayes.hyperparameters.objectives import Model, objective_and_gradient
from ntkbayes.solvers import default_tolerance
from ntkbayes.solvers.certificate import STILL_USABLE

__all__ = ["STATIONARY", "Evaluation", "Search", "evaluate", "minimize", "slope_left"]

MAX_ITERATIONS = 100
MAX_RUNS = 4
STATIONARY = 0.01
"""Slope in nats at which a point is stationary: where curvatures are 1, 5e-5 nats are left."""

NOT_FACTORED = "a matrix is not positive definite"


@dataclass
class Evaluation:
    """One evaluation of what is minimised, in nats, with its mode's error in latent units."""

    point: np.ndarray
    value: float
    gradient: np.ndarray
    latent_error: float
    failure: str
    iteration: int
    accepted: bool


@dataclass
class Search:
    """One restart: evaluates for SciPy, and keeps everything."""

    names: list[str]
    model: Model
    train: TrainingSet
    validation: TrainingSet | None
    progress: Progress
    evaluations: list[Evaluation] = field(default_factory=list)
    iteration: int = 0

    def __call__(self, point: np.ndarray) -> tuple[float, np.ndarray]:
        """Value and gradient; after a failure a flat value above all accepted ones.

        SciPy's line search cannot interpolate infinity, but steps back from this.
        """
        value, gradient, latent_error, failure = evaluate(
            dict(zip(self.names, point, strict=True)), self.model, self.train, self.validation
        )
        first = not self.evaluations
        iteration = self.iteration + (not first)
        row = Evaluation(point.copy(), value, gradient, latent_error, failure, iteration, first)
        self.evaluations.append(row)
        if failure:
            start = self.evaluations[0].value
            return (0.0 if first else start + 1 + abs(start)), np.zeros_like(point)
        return value, gradient

    def accept(self, intermediate_result: scipy.optimize.OptimizeResult) -> None:
        """Note which evaluation ended an iteration."""
        self.iteration += 1
        for row in reversed(self.evaluations):
            if np.array_equal(row.point, intermediate_result.x):
                row.accepted = True
                break
        self.progress(1 - math.exp(-self.iteration / 15))

    @property
    def best(self) -> Evaluation | None:
        """The best evaluation, None if all failed."""
        fine = [row for row in self.evaluations if not row.failure]
        return min(fine, key=lambda row: row.value) if fine else None


def minimize(search: Search, start: np.ndarray, limits: dict[str, tuple[float, float]]) -> None:
    """Run L-BFGS-B, and again from where it stalled: its memory may be of another region."""
    for _ in range(MAX_RUNS):
        scipy.optimize.minimize(
            search,
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=np.log(list(limits.values())),
            callback=search.accept,
            options={"maxiter": MAX_ITERATIONS, "ftol": 1e-10, "gtol": STATIONARY / 10},
        )
        best = search.best
        if best is None or slope_left(best, limits) <= STATIONARY:
            return
        start = best.point


def slope_left(end: Evaluation, limits: dict[str, tuple[float, float]]) -> float:
    """Largest entry of the gradient, leaving out those that only a bound keeps from descent."""
    low, high = np.log(list(limits.values())).T
    inside = np.clip(end.point - end.gradient, low, high)
    return float(np.max(np.abs(inside - end.point)))


def evaluate(
    log_values: dict[str, float],
    model: Model,
    train: TrainingSet,
    validation: TrainingSet | None,
) -> tuple[float, np.ndarray, float, str]:
    """Value and gradient in nats, the mode's error, and why they are NaN if they are.

    A mode is good enough where `ntkbayes.laplace` would not refuse it.
    """
    nothing = math.nan, np.full(len(log_values), np.nan), math.nan
    try:
        with naming_failure(NOT_FACTORED):
            value, gradient, latent_error = jax.device_get(
                objective_and_gradient(
                    {name: jnp.asarray(value) for name, value in log_values.items()},
                    model,
                    train,
                    validation,
                )
            )
    except FactorizationError:
        return *nothing, NOT_FACTORED
    slopes = np.array([gradient[name] for name in log_values])
    if not latent_error <= max(STILL_USABLE, default_tolerance(train.x.dtype)):
        return *nothing, "the mode was not found"
    if not (np.isfinite(value) and np.isfinite(slopes).all()):
        return *nothing, "not finite"
    return float(value), slopes, float(latent_error), ""
