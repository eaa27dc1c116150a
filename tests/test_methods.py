"""The table of methods: every entry is its function, given the whole problem."""

from unittest.mock import create_autospec

import jax
import pytest

import ntkbayes as nb
from ntkbayes._types import silent
from ntkbayes.methods import METHODS, REFERENCE, Problem

KEY = jax.random.key(3)
DATA = nb.load_dataset("sine", num_train=8)
NETWORK, LIKELIHOOD = nb.dense_network(depth=1, activation="erf"), nb.Gaussian(0.2)
CHAINS = {"num_draws": 10, "num_warmup": 20, "num_chains": 2, "product_dtype": "float32"}
CALLS = {
    "ntk-ensemble": (nb.ensembles, "ntk_ensemble", {}),
    "bayesian-ntk-ensemble": (
        *(nb.ensembles, "ntk_ensemble"),
        {"initial": "ntk", "perturb_targets": True},
    ),
    "mode": (nb.ensembles, "ntk_ensemble", {"initial": "zero"}),
    "laplace": (nb.posteriors, "laplace", {}),
    "gp": (nb.posteriors, "gp_posterior", {"progress": silent}),
    "hmc": (nb.posteriors, "hmc", CHAINS | {"key": KEY, "checkpoint": None, "progress": silent}),
    "deep-ensemble": (
        *(nb.ensembles, "deep_ensemble"),
        {"num_members": 4, "key": KEY, "progress": silent},
    ),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_its_function_called_with_the_whole_problem(name, monkeypatch):
    package, function, settings = CALLS[name]
    # Refuses calls that the function's own signature would refuse.
    called = create_autospec(getattr(package, function))
    monkeypatch.setattr(package, function, called)
    problem = Problem(DATA, NETWORK, LIKELIHOOD, prior_precision=0.7, num_members=4, **CHAINS)
    assert METHODS[name].fit(problem, KEY, silent) is called.return_value
    (call,) = called.call_args_list
    given = (NETWORK, LIKELIHOOD, DATA.x_train, DATA.y_train)
    assert all(a is b for a, b in zip(call.args, given, strict=True))
    assert call.kwargs == {"prior_precision": 0.7} | settings


def test_the_reference_is_one_of_the_methods():
    assert REFERENCE in METHODS


@pytest.mark.parametrize("name", METHODS)
def test_whole_numbers_are_real_settings_and_drawing_reports_its_end(name):
    network = nb.dense_network(depth=1, width=8, activation="erf", bias_scale=1, weight_scale=1)
    chains = {"num_draws": 4, "num_warmup": 1, "num_chains": 2}
    problem = Problem(DATA, network, LIKELIHOOD, prior_precision=1, num_members=2, **chains)
    predictor, seen = METHODS[name].fit(problem, KEY, silent), []
    predictor.draw(KEY, DATA.x_test[:5], num_draws=1 if name == "mode" else 2, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    with pytest.raises(ValueError, match="num_draws must be at least 1, but is 0"):
        predictor.draw(KEY, DATA.x_test[:5], num_draws=0)
