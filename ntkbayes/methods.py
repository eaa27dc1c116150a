"""The methods by name: one `Method` for each way of making a predictor from a `Problem`.

The command line, comparisons and contract tests walk through `METHODS`; a Python session calls
the functions themselves. A method's library is imported when it fits, so that listing is quick.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from ntkbayes._types import Key, Progress
    from ntkbayes.datasets import Dataset
    from ntkbayes.likelihoods import Likelihood
    from ntkbayes.networks import Network
    from ntkbayes.predictors import Predictor

__all__ = ["METHODS", "REFERENCE", "Method", "Problem"]


@dataclass(frozen=True)
class Problem:
    """What every method is given: one model, one training set, and how long to sample.

    Parameters
    ----------
    data, network, likelihood, prior_precision
        The model and its data; λ means the same in training and in Bayes.
    num_draws, num_warmup, num_chains
        Length of the Markov chains: draws kept and steps of adaptation per chain.
    product_dtype
        Type of the Markov chains' matrix products, as in `ntkbayes.hmc`.
    num_members
        Networks of the deep ensemble.
    checkpoint
        File from which a method that can resumes, as in `ntkbayes.hmc`; None for none.
    """

    data: Dataset
    network: Network
    likelihood: Likelihood
    prior_precision: float
    num_draws: int = 1000
    num_warmup: int = 500
    num_chains: int = 4
    product_dtype: str | None = None
    num_members: int = 5
    checkpoint: Path | None = None

    def fit(self, function: Callable[..., Predictor], **settings: Any) -> Predictor:
        """Call a fitting function with this model, its training data and further settings."""
        return function(
            self.network,
            self.likelihood,
            self.data.x_train,
            self.data.y_train,
            prior_precision=self.prior_precision,
            **settings,
        )


@dataclass(frozen=True)
class Method:
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
    from ntkbayes.ensembles import ntk_ensemble

    return problem.fit(ntk_ensemble)


def _bayesian_ntk_ensemble(problem: Problem, key: Key, progress: Progress) -> Predictor:
    from ntkbayes.ensembles import ntk_ensemble

    return problem.fit(ntk_ensemble, initial="ntk", perturb_targets=True)


def _mode(problem: Problem, key: Key, progress: Progress) -> Predictor:
    from ntkbayes.ensembles import ntk_ensemble

    return problem.fit(ntk_ensemble, initial="zero")


def _laplace(problem: Problem, key: Key, progress: Progress) -> Predictor:
    from ntkbayes.posteriors import laplace

    return problem.fit(laplace)


def _gp(problem: Problem, key: Key, progress: Progress) -> Predictor:
    from ntkbayes.posteriors import gp_posterior

    return problem.fit(gp_posterior, progress=progress)


def _hmc(problem: Problem, key: Key, progress: Progress) -> Predictor:
    from ntkbayes.posteriors import hmc

    return problem.fit(
        hmc,
        key=key,
        num_warmup=problem.num_warmup,
        num_draws=problem.num_draws,
        num_chains=problem.num_chains,
        product_dtype=problem.product_dtype,
        checkpoint=problem.checkpoint,
        progress=progress,
    )


def _deep_ensemble(problem: Problem, key: Key, progress: Progress) -> Predictor:
    from ntkbayes.ensembles import deep_ensemble

    return problem.fit(deep_ensemble, num_members=problem.num_members, key=key, progress=progress)


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
        "Gaussian process with the NTK: exact for Gaussian noise, variational otherwise",
        _gp,
        cost=8,
        fit_share=0.8,
    ),
    "hmc": Method(
        "HMC",
        "the exact posterior by Hamiltonian Monte Carlo, the reference",
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
