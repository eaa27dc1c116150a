"""What is no probability, no label, no number and no weight is refused by every metric."""

import inspect
import itertools

import jax
import numpy as np
import pytest

from ntkbayes.evaluation import distances, metrics, mixtures

M, S, C = 4, 3, 2
RNG = np.random.default_rng(0)
P = np.array([[0.6, 0.4], [0.5, 0.5], [0.1, 0.9], [1.0, 0.0]])
Y = np.array([0, 1, 1, 0])
W = np.full(M, 1 / M)
LATENT = RNG.normal(size=(S, M, C))
VARIANCE = np.full((M, C), 0.5)
GOOD = {
    "p": P,
    "q": P[::-1],
    "y": Y,
    "weights": W,
    "weights_in": W,
    "weights_out": W,
    "probabilities": np.stack([P, P[::-1], P]),
    "confidence": P.max(axis=1),
    "outcome": Y == 0,
    "log_likelihood": np.log(np.full((S, M), 0.3)),
    "score_in": P[:, 0],
    "score_out": P[:, 1],
    "pit": P,
    "central_level": P,
    "means": LATENT,
    "mean": LATENT[0],
    "draws": LATENT,
    "variance": VARIANCE,
    "noise_variance": VARIANCE,
    "lower": LATENT[0] - 1,
    "upper": LATENT[0] + 1,
    "level": 0.9,
    "error_p": VARIANCE,
    "error_q": VARIANCE,
    "error_a": VARIANCE,
    "error_b": VARIANCE,
    "a": LATENT,
    "b": LATENT + 1,
    "mean_a": LATENT[0],
    "mean_b": LATENT[1],
    "variance_a": VARIANCE,
    "variance_b": VARIANCE,
    "probability": 0.3,
    "score": np.array([0.1, 0.3, 0.2, 0.4]),
    "wrong": np.array([False, True, False, True]),
}
# Functions of one method's tree or of `JointDraws`, which are checked where they are made; of a
# statistic, which may be infinite; and of the number of points.
OTHERS = {
    *("bootstrap_weights", "uniform_weights", "kolmogorov_smirnov_p_value", "kuiper_p_value"),
    *("spiegelhalter_p_value", "joint_draws", "mean_probability_error", "quantile_error"),
    *("probability_quantile_error", "squared_quantile_error", "covariance_comparison"),
    *("energy_distance", "enough_for_covariance", "mean_distance", "mean_variance"),
    *("median_distance", "relative_to", "squared_mmd", "variance_ratio"),
    *("distance_from_training", "far_from_training"),
}
REGRESSION = ("rmse", "crps", "draws_crps", "interval_score")


def functions():
    for module in (metrics, distances, mixtures):
        for name in module.__all__:
            function = getattr(module, name)
            if not inspect.isclass(function) and name not in OTHERS:
                yield f"{module.__name__.rsplit('.')[-1]}.{name}", function


FUNCTIONS = dict(functions())


def good(name, argument):
    """What a function takes under a name; class probabilities are those of draws for one."""
    of_draws = name == "distances.probability_wasserstein_1" and argument in ("p", "q")
    return GOOD[argument][None] if of_draws else GOOD[argument]


def call(name, **changed):
    """Call a function with what it needs, some of it changed; its y may be labels or targets."""
    parameters = inspect.signature(FUNCTIONS[name]).parameters
    required = [n for n, p in parameters.items() if p.default is p.empty]
    values = (
        {n: good(name, n) for n in GOOD}
        | ({} if "p" in required or "p" in changed else {"y": LATENT[0]})
        | changed
    )
    settings = {"batch_size": 2} if "batch_size" in parameters else {}
    if name.endswith("_deviations"):  # of many draws
        many = {n: np.repeat(values[n], 20, axis=0) for n in ("log_likelihood", "draws")}
        values |= {n: each for n, each in many.items() if n in required}
    return FUNCTIONS[name](*(values[n] for n in required), **settings)


def takers(*names):
    """Pairs of a function and each of the names that it needs."""
    found = []
    for function, name in itertools.product(FUNCTIONS, names):
        parameter = inspect.signature(FUNCTIONS[function]).parameters.get(name)
        if parameter is not None and parameter.default is parameter.empty:
            found.append((function, name))
    return found


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_right_is_taken(name):
    found = call(name)
    values = found.values() if isinstance(found, dict) else (found,)
    assert all(value is not None for value in values)


@pytest.mark.parametrize(("name", "argument"), takers("p", "q", "probabilities"))
def test_rows_that_are_no_distribution_are_refused(name, argument):
    right = good(name, argument)
    for row, message in (
        ([np.nan, 0.5], "must be finite"),
        ([np.inf, 0.5], "must be finite"),
        ([3.0, -3.0], "must be nonnegative"),
        ([-0.002, 1.002], "must be nonnegative"),
        ([4.0, 1.0], "must sum to 1"),
        ([0.5, 0.48], "must sum to 1"),
    ):
        wrong = right.copy()
        wrong[..., 1, :] = row
        with pytest.raises(ValueError, match=f"{argument}.* {message}"):
            call(name, **{argument: wrong})


@pytest.mark.parametrize(("name", "argument"), takers("p", "q", "probabilities"))
def test_rounding_outside_of_zero_and_one_changes_nothing(name, argument):
    wrong = good(name, argument).copy()
    at = wrong == 0
    assert at.any()
    wrong[at] = -2.2e-16
    wrong[at[..., ::-1]] = np.nextafter(1.0, 2)
    found, expected = call(name, **{argument: wrong}), call(name)
    if isinstance(found, dict):
        found, expected = (
            np.array([[test.statistic, test.p_value] for test in tests.values()])
            for tests in (found, expected)
        )
    elif not isinstance(found, np.ndarray | float | tuple):
        found, expected = found.brier, expected.brier
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", [n for n, _ in takers("confidence")])
def test_confidences_that_rounding_puts_beyond_zero_and_one_are_at_the_end(name):
    outcome = np.array([False, False, True, True])
    found, expected = (
        call(name, confidence=np.array(values), outcome=outcome)
        for values in ([-0.0005, -0.0009, 1.0009, 1.0005], [0.0, 0.0, 1.0, 1.0])
    )
    assert jax.tree.all(jax.tree.map(np.array_equal, found, expected))


@pytest.mark.parametrize("name", [n for n, argument in takers("y") if (n, "p") in takers("p")])
def test_labels_that_are_no_class_are_refused(name):
    for label in (-1, C, 10**6):
        with pytest.raises(
            ValueError, match=rf"y must hold class indices 0 to 1, but holds .*{label}"
        ):
            call(name, y=np.array([0, 1, label, 0]))
    with pytest.raises(TypeError, match="y must be Int array"):
        call(name, y=Y.astype(float))


NUMBERS = (
    *("means", "mean", "draws", "variance", "lower", "upper", "a", "b", "mean_a", "mean_b"),
    *("variance_a", "variance_b", "error_p", "error_q", "error_a", "error_b", "score_in"),
    *("score_out", "confidence", "pit", "central_level", "log_likelihood"),
)


@pytest.mark.parametrize(("name", "argument"), takers(*NUMBERS))
def test_what_is_not_a_number_is_refused(name, argument):
    for value in (np.nan, np.inf):
        wrong = good(name, argument).copy()
        wrong[(-1,) * wrong.ndim] = value
        with pytest.raises(ValueError, match="must"):
            call(name, **{argument: wrong})


@pytest.mark.parametrize("name", [n for n, _ in takers("y") if n.rsplit(".")[-1] in REGRESSION])
def test_targets_that_are_not_numbers_are_refused(name):
    with pytest.raises(ValueError, match="y must be finite"):
        call(name, y=np.where(np.arange(C) == 1, np.nan, LATENT[0]))


POSITIVE = ("variance", "variance_a", "variance_b", "error_p", "error_q", "error_a", "error_b")


@pytest.mark.parametrize(("name", "argument"), takers(*POSITIVE))
def test_negative_variances_and_errors_are_refused(name, argument):
    with pytest.raises(ValueError, match=rf"{argument} must be .*positive, but holds -0\.5"):
        call(name, **{argument: -VARIANCE})


@pytest.mark.parametrize(("name", "argument"), takers("pit", "central_level", "confidence"))
def test_shares_beyond_zero_and_one_are_refused(name, argument):
    for value in (-0.1, 1.1):
        wrong = good(name, argument).copy()
        wrong[(0,) * wrong.ndim] = value
        with pytest.raises(ValueError, match=argument):
            call(name, **{argument: wrong})


@pytest.mark.parametrize(("name", "argument"), takers("weights", "weights_in", "weights_out"))
def test_weights_that_do_not_sum_to_one_are_refused(name, argument):
    for wrong in (np.ones(M), np.array([1.5, -0.5, 0, 0]), np.full(M, np.nan)):
        with pytest.raises(ValueError, match=f"{argument} must be non-negative"):
            call(name, **{argument: wrong})


def test_what_cannot_be_in_an_order_is_refused():
    with pytest.raises(ValueError, match="lower must not exceed upper"):
        metrics.interval_width(GOOD["upper"], GOOD["lower"], W)
    with pytest.raises(ValueError, match=r"level must lie between 0 and 1, but ranges from 1\.5"):
        metrics.coverage(P, 1.5, W)
    with pytest.raises(ValueError, match="confidence must be finite"):
        metrics.aurc(P, Y, W, confidence=np.array([0.1, np.nan, 0.2, 0.3]))


def test_a_class_of_probability_zero_that_came_is_infinitely_surprising():
    log_likelihood = np.array([[0.0, -np.inf, -1.0], [-1.0, -np.inf, -np.inf]])
    assert metrics.mixture_nll(log_likelihood, np.full(3, 1 / 3)) == np.inf
