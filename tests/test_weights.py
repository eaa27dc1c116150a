"""Weights that are left out: the plain metric, of every function that takes weights."""

import inspect

import numpy as np
import pytest

from ntkbayes.evaluation import distances, metrics

RNG = np.random.default_rng(0)
S, M, C = 5, 30, 3
P, Q = (RNG.dirichlet(np.ones(C), size=M) for _ in range(2))
DRAWS, OTHERS = (RNG.dirichlet(np.ones(C), size=(S, M)) for _ in range(2))
Y = RNG.integers(C, size=M)
CONFIDENCE, RIGHT = P.max(axis=1), P.argmax(axis=1) == Y
MEANS, VARIANCE = RNG.normal(size=(S, M, 1)), RNG.uniform(0.5, 1, size=(M, 1))
TARGETS, PIT = RNG.normal(size=(M, 1)), RNG.uniform(size=(M, 1))
ARGUMENTS = {
    "p": P,
    "q": Q,
    "probabilities": DRAWS,
    "confidence": CONFIDENCE,
    "outcome": RIGHT,
    "correct": RIGHT,
    "wrong": ~RIGHT,
    "uncertainty": 1 - CONFIDENCE,
    "scores": CONFIDENCE,
    "means": MEANS,
    "mean": MEANS[0],
    "variance": VARIANCE,
    "noise_variance": VARIANCE,
    "draws": MEANS,
    "log_likelihood": np.log(DRAWS[..., 0]),
    "pit": PIT,
    "central_level": PIT,
    "level": 0.9,
    "lower": TARGETS - 1,
    "upper": TARGETS + 1,
    "score": 1 - CONFIDENCE,
    "score_in": CONFIDENCE,
    "score_out": CONFIDENCE[:20],
    "a": MEANS,
    "b": MEANS[:3] + 1,
    "mean_a": MEANS[0],
    "mean_b": MEANS[1],
    "variance_a": VARIANCE,
    "variance_b": 2 * VARIANCE,
}


def functions():
    """Every function of `metrics` and `distances` with weights."""
    return [
        function
        for module in (metrics, distances)
        for name in module.__all__
        for function in [getattr(module, name)]
        if inspect.isfunction(function)
        and any(p.startswith("weights") for p in inspect.signature(function).parameters)
    ]


def arguments(function):
    """Positional arguments of a function without its weights."""
    parameters = inspect.signature(function).parameters
    classes = "p" in parameters or "probabilities" in parameters
    known = ARGUMENTS | {"y": Y if classes else TARGETS}
    if function is distances.probability_wasserstein_1:
        known |= {"p": DRAWS, "q": OTHERS}
    return {
        name: known[name]
        for name, parameter in parameters.items()
        if not name.startswith("weights") and parameter.kind is not parameter.KEYWORD_ONLY
    }


@pytest.mark.parametrize("function", functions(), ids=lambda function: function.__name__)
def test_without_weights_every_point_counts_alike(function):
    given = arguments(function)
    plain = function(**given)
    names = [n for n in inspect.signature(function).parameters if n.startswith("weights")]
    sizes = [M] if len(names) == 1 else [M, 20]
    uniform = {n: metrics.uniform_weights(m) for n, m in zip(names, sizes, strict=True)}
    np.testing.assert_equal(
        np.asarray(plain, dtype=object), np.asarray(function(**given, **uniform), dtype=object)
    )
