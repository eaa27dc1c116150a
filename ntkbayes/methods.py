"""The methods by name: one `Method` for each way of making a predictor from a `Problem`.

The command line, comparisons and contract tests walk through `METHODS`; a Python session calls
the functions themselves.
"""

from collections.abc import Callable

import equinox as eqx

from ntkbayes._types import Key, Progress
from ntkbayes.datasets import Dataset
from ntkbayes.ensembles import deep_ensemble, ntk_ensemble
from ntkbayes.likelihoods import Likelihood
from ntkbayes.networks import Network
from ntkbayes.posteriors import gp_posterior, hmc, laplace
from ntkbayes.predictors import Predictor

__all__ = ["METHODS", "REFERENCE", "Method", "Problem"]


class Problem(eqx.Module):
    """What every method is given: one model, one training set, and how long to sample.

    Parameters
    ----------
    data, network, likelihood, prior_precision
        The model and its data; λ means the same in training and in Bayes.
    num_draws, num_warmup, num_chains
        Length of the Markov chains: draws kept and steps of adaptation per chain.
    num_members
        Networks of the deep ensemble.
    """

    data: Dataset
    network: Network
    likelihood: Likelihood
    prior_precision: float
    num_draws: int = eqx.field(static=True, default=1000)
    num_warmup: int = eqx.field(static=True, default=500)
    num_chains: int = eqx.field(static=True, default=4)
    num_members: int = eqx.field(static=True, default=5)


class Method(eqx.Module):
    """One way of making a predictor.

    Parameters
    ----------
    title
        Name in tables and figures.
    description
        One line.
    fit
        Makes the predictor of a problem; given a key and a `Progress`.
    cost
        Rough share of the time a comparison takes, for the estimate of the time left.
    fit_share
        Rough share of that time spent on fitting rather than drawing.
    """

    title: str
    description: str
    fit: Callable[[Problem, Key, Progress], Predictor]
    cost: float
    fit_share: float


def _ntk_ensemble(problem: Problem, key: Key, progress: Progress) -> Predictor:
    return ntk_ensemble(
        problem.network,
        problem.likelihood,
        problem.data.x_train,
        problem.data.y_train,
        prior_precision=problem.prior_precision,
    )


def _bayesian_ntk_ensemble(problem: Problem, key: Key, progress: Progress) -> Predictor:
    return ntk_ensemble(
        problem.network,
        problem.likelihood,
        problem.data.x_train,
        problem.data.y_train,
        prior_precision=problem.prior_precision,
        initial="ntk",
        perturb_targets=True,
    )


def _mode(problem: Problem, key: Key, progress: Progress) -> Predictor:
    return ntk_ensemble(
        problem.network,
        problem.likelihood,
        problem.data.x_train,
        problem.data.y_train,
        prior_precision=problem.prior_precision,
        initial="zero",
    )


def _laplace(problem: Problem, key: Key, progress: Progress) -> Predictor:
    return laplace(
        problem.network,
        problem.likelihood,
        problem.data.x_train,
        problem.data.y_train,
        prior_precision=problem.prior_precision,
    )


def _gp(problem: Problem, key: Key, progress: Progress) -> Predictor:
    return gp_posterior(
        problem.network,
        problem.likelihood,
        problem.data.x_train,
        problem.data.y_train,
        prior_precision=problem.prior_precision,
        progress=progress,
    )


def _hmc(problem: Problem, key: Key, progress: Progress) -> Predictor:
    return hmc(
        problem.network,
        problem.likelihood,
        problem.data.x_train,
        problem.data.y_train,
        prior_precision=problem.prior_precision,
        key=key,
        num_warmup=problem.num_warmup,
        num_draws=problem.num_draws,
        num_chains=problem.num_chains,
        progress=progress,
    )


def _deep_ensemble(problem: Problem, key: Key, progress: Progress) -> Predictor:
    return deep_ensemble(
        problem.network,
        problem.likelihood,
        problem.data.x_train,
        problem.data.y_train,
        prior_precision=problem.prior_precision,
        num_members=problem.num_members,
        key=key,
        progress=progress,
    )


REFERENCE = "hmc"
"""The method others are measured against."""

METHODS: dict[str, Method] = {
    "ntk-ensemble": Method(
        "NTK ensemble",
        "trained wide networks over random initialisations, in closed form",
        _ntk_ensemble,
        cost=10,
        fit_share=0.1,
    ),
    "bayesian-ntk-ensemble": Method(
        "Bayesian NTK ensemble",
        "the same from NTK-distributed initial functions, each on perturbed targets",
        _bayesian_ntk_ensemble,
        cost=10,
        fit_share=0.1,
    ),
    "laplace": Method(
        "Laplace",
        "Gaussian approximation at the mode, in function space, full softmax block",
        _laplace,
        cost=4,
        fit_share=0.5,
    ),
    "gp": Method(
        "GP",
        "Gaussian process with the NTK: exact for regression, variational for classes",
        _gp,
        cost=8,
        fit_share=0.8,
    ),
    "hmc": Method(
        "HMC",
        "the exact posterior by Hamiltonian Monte Carlo (NUTS), the reference",
        _hmc,
        cost=60,
        fit_share=0.95,
    ),
    "mode": Method(
        "Mode",
        "the single most probable function, without any spread",
        _mode,
        cost=1,
        fit_share=0.9,
    ),
    "deep-ensemble": Method(
        "Deep ensemble",
        "a few finite networks, really trained from random initialisations",
        _deep_ensemble,
        cost=15,
        fit_share=0.95,
    ),
}
"""Every method by its name on the command line, in the order of the tables."""
