"""One row far from all others: rounding of its kernel must not drown that of the others.

The NTK of one hidden ReLU layer is written once more in extended precision, and the posterior
solved by a Cholesky factorisation in it. Every method gives the same at ordinary points, or
refuses by name.
"""

import warnings

import jax
import numpy as np
import pytest

import ntkbayes as nb

KEY = jax.random.key(0)
NOISE_VARIANCE = 0.01
RNG = np.random.default_rng(0)
X, XT = RNG.normal(size=(30, 2)), RNG.normal(size=(8, 2))
Y = np.sin(2 * X[:, 0]) + 0.1 * RNG.normal(size=30)
NETWORK = nb.dense_network(depth=1)
SIZES = [(np.float32, size) for size in (10.0, 1e3, 1e6)] + [(np.float64, s) for s in (1e3, 1e8)]


def ntk(a, b):
    """Θ = K₁ + b² + Σ' K₀ for weight variance 2 and bias variance 0.01, in extended precision."""
    a, b = np.asarray(a, np.longdouble), np.asarray(b, np.longdouble)
    inner = a @ b.T + np.longdouble(0.1) ** 2
    va, vb = (a**2).sum(1) + np.longdouble(0.1) ** 2, (b**2).sum(1) + np.longdouble(0.1) ** 2
    norm = np.sqrt(va[:, None] * vb[None])
    cosine = np.clip(inner / norm, -1, 1)
    angle = np.arccos(cosine)
    first = norm * (np.sin(angle) + (np.pi - angle) * cosine) / (2 * np.pi)
    return inner * (np.pi - angle) / (2 * np.pi) + first + np.longdouble(0.1) ** 2


def solve(matrix, right):
    """Solve by Cholesky's factorisation, whose errors are relative to each point's own variance."""
    factor, right = np.zeros_like(matrix), right.copy()
    for j in range(len(matrix)):
        factor[j, j] = np.sqrt(matrix[j, j] - (factor[j, :j] ** 2).sum())
        below = matrix[j + 1 :, j] - factor[j + 1 :, :j] @ factor[j, :j]
        factor[j + 1 :, j] = below / factor[j, j]
        right[j] = (right[j] - factor[j, :j] @ right[:j]) / factor[j, j]
    for j in reversed(range(len(matrix))):
        right[j] = (right[j] - factor[j + 1 :, j] @ right[j + 1 :]) / factor[j, j]
    return right


def moments(predictor, x):
    return predictor.mean(x), predictor.variance(x)


def drawn(predictor, x):
    draws = np.asarray(predictor.sample(KEY, x, num_draws=4000), float)
    return draws.mean(axis=0), draws.var(axis=0)


def ensemble(*model, **settings):
    return nb.ntk_ensemble(
        *model, prior_precision=1.0, initial="ntk", perturb_targets=True, **settings
    )


METHODS = {
    "gp": lambda *model: nb.gp_posterior(*model, prior_precision=1.0),
    "inducing": lambda *model: nb.gp_posterior(*model, prior_precision=1.0, inducing=30),
    "laplace": lambda *model: nb.laplace(*model, prior_precision=1.0),
    "ensemble": ensemble,
    "flow": lambda *model: ensemble(*model, time=1e3),  # as good as its end
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("dtype", "size"), SIZES)
@pytest.mark.parametrize(
    "place", [14, *(pytest.param(place, marks=pytest.mark.slow) for place in (0, 29))]
)
def test_an_outlying_row_changes_no_other_point(method, dtype, size, place):
    x = X.copy()
    x[place] = [size, 0.0]
    x, y, x_test = x.astype(dtype), Y.astype(dtype), XT.astype(dtype)
    gain = solve(ntk(x, x) + np.longdouble(NOISE_VARIANCE) * np.eye(30), ntk(x, x_test)).T
    mean = (gain @ y).astype(float)
    variance = np.diag(ntk(x_test, x_test) - gain @ ntk(x, x_test)).astype(float)
    refusal = ""
    try:
        with warnings.catch_warnings():  # of what rounding leaves at the outlying row itself
            warnings.filterwarnings("ignore", message=".*outlying row of x", category=UserWarning)
            predictor = METHODS[method](NETWORK, nb.Gaussian(NOISE_VARIANCE), x, y)
        found = [moments(predictor, x_test)] + ([drawn(predictor, x_test)] if place == 14 else [])
    except ValueError as error:
        refusal, found = str(error), []
    if refusal:
        assert size > 100
        assert method == "flow"
        remedies = ("use float64", "outlying inputs", "use a shorter time", "smaller scale")
        assert any(remedy in refusal for remedy in remedies)
    for (got_mean, got_variance), error in zip(found, (5e-3, 0.08), strict=False):
        np.testing.assert_allclose(np.asarray(got_variance)[:, 0], variance, rtol=5 * error)
        off = (np.asarray(got_mean, float)[:, 0] - mean) / np.sqrt(variance)
        assert np.abs(off).max() < 2 * error


@pytest.mark.parametrize("size", [10.0, 100.0])
def test_classes_beside_an_outlying_row_are_those_of_float64(size):
    """Mode and spread in float32, against float64, whose rounding is a billion times smaller."""
    x, y = X.copy(), (Y > 0).astype(int)
    x[14] = [size, 0.0]
    results = []
    for dtype in (np.float32, np.float64):
        model = (NETWORK, nb.Categorical(2), x.astype(dtype), y)
        laplace = nb.laplace(*model, prior_precision=1.0)
        gp = nb.gp_posterior(*model, prior_precision=1.0)
        x_test = XT.astype(dtype)
        results.append([*moments(laplace, x_test), *moments(gp, x_test)])
    for single, double in zip(*results, strict=True):
        np.testing.assert_allclose(single, double, rtol=5e-3, atol=5e-3)
