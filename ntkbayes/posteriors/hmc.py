"""Exact posteriors by Hamiltonian Monte Carlo: of infinitely wide models, or finite networks.

`function_space` and `weight_space` say what is sampled, `chains` how, `checkpoints` how a run is
kept on disk.
"""

import os
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from ntkbayes._checks import check_at_least, check_choice, check_positive
from ntkbayes._problem import training_set
from ntkbayes._progress import bar_in_notebooks
from ntkbayes._types import AnyArray, Key, Progress, silent, typed
from ntkbayes.likelihoods import Likelihood
from ntkbayes.networks import Network
from ntkbayes.posteriors.chains import run_chains
from ntkbayes.posteriors.checkpoints import check_checkpoint
from ntkbayes.posteriors.function_space import sample_functions
from ntkbayes.posteriors.hmc_predictor import HMCPredictor
from ntkbayes.posteriors.weight_space import sample_weights

__all__ = ["HMCPredictor", "hmc"]


@bar_in_notebooks
@typed
def hmc(
    network: Network,
    likelihood: Likelihood,
    x: AnyArray,
    y: AnyArray,
    *,
    prior_precision: float,
    key: Key,
    space: str = "function",
    num_warmup: int = 500,
    num_draws: int = 1000,
    num_chains: int = 4,
    kernel: str | None = None,
    center: Any = None,
    product_dtype: str | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: Progress = silent,
) -> HMCPredictor:
    """Sample a posterior by Hamiltonian Monte Carlo.

    In function space the target of whitened z (n c) is −½ ‖z‖² + Σ log p(yᵢ | (L z)ᵢ), with
    L Lᵀ = K = Θ / λ: the posterior of the infinitely wide model. In weight space the target of
    z (p) is −½ ‖z‖² + Σ log p(yᵢ | f(xᵢ; θ̄ + z / √λ)): that of the finite network, sampled by
    NUTS. Function space has coordinates in which the posterior is nearly isotropic, and
    trajectories of varying but given length there.

    The chains are shared out over JAX's local devices: on a CPU, set ``jax_num_cpu_devices``
    before the first computation and every device runs its chains at their own pace. The same
    key gives the same draws on the same number of devices. Sampling is done in JAX's default
    floating type and returned in that of x.

    Parameters
    ----------
    network, likelihood
        The model; in function space, the network counts by its infinite-width kernel only.
    x, y
        Training inputs (n d) and observations, as the likelihood's ``targets`` takes them.
    prior_precision
        λ > 0, precision of the prior on the weights: the linearised ones in function space.
    key
        Random key of the chains.
    space
        ``"function"`` or ``"weight"``.
    num_warmup
        Steps per chain, ≥ 1, spent on adapting step size and diagonal mass matrix; discarded.
    num_draws
        Kept steps *per chain*, ≥ 1.
    num_chains
        Number of chains, ≥ 1; it takes several to judge them.
    kernel
        Function space only. Prior covariance: ``"ntk"`` (Θ / λ, the default) or ``"nngp"``
        (Q / λ).
    center
        Weight space only. Prior mean θ̄ of the parameters, of the structure of
        ``network.init``; default zero. With ``prior_precision=1`` and a network in NTK
        parameterisation, the default prior is the law of its initialisation.
    product_dtype
        Function space only. Type of the two matrix products of a leapfrog step, None for JAX's
        default floating type. ``"float32"`` under float64 halves the time; the log density,
        everything else in float64, is then off by some 1e-4 nats, which is nothing beside the
        Monte-Carlo error.
    checkpoint
        File in which the run is saved about every three minutes and at its end. The same call
        resumes a killed run to the same draws, and returns those of a finished one at once.
        None for no file.
    progress
        Called after every 25 steps of all chains; a keyboard interrupt takes effect there.

    Raises
    ------
    ValueError
        If data or settings are out of range or belong to the other space, K is not positive
        definite, what the chains visit does not fit into memory, or `checkpoint` cannot be
        written or is a file of anything but this run.

    Notes
    -----
    A leapfrog step costs two products of (n n) with (n c) in function space, and one gradient of
    the network at all data in weight space. Memory is O(n²) or that of the gradient, plus twice
    the draws: num_chains · num_draws · n c numbers, or · p.

    The weights of a network are not identified: judge the chains by their predictions
    (`ntkbayes.evaluation.chain_diagnostics`).

    Examples
    --------
    >>> steps = {"num_warmup": 100, "num_draws": 100, "num_chains": 2}
    >>> chains = nb.hmc(*model, prior_precision=1.0, key=key, **steps)
    >>> chains.num_available, chains.num_chains
    (200, 2)
    >>> chains.sample(key, data.x_test, num_draws=200).shape
    (200, 300, 2)
    """
    check_positive("prior_precision", prior_precision)
    check_choice("space", space, ("function", "weight"))
    check_at_least("num_warmup", num_warmup, 1)
    check_at_least("num_draws", num_draws, 1)
    check_at_least("num_chains", num_chains, 1)
    path = None if checkpoint is None else Path(checkpoint)
    if path is not None:
        check_checkpoint(path)
    run = partial(
        run_chains,
        key=key,
        num_warmup=num_warmup,
        num_draws=num_draws,
        num_chains=num_chains,
        checkpoint=path,
        progress=progress,
    )
    if space == "weight":
        _refuse(space, kernel=kernel, product_dtype=product_dtype)
        train = training_set(likelihood, x, y)
        return sample_weights(
            network, likelihood, train, prior_precision=prior_precision, center=center, run=run
        )
    _refuse(space, center=center)
    kernel = kernel or "ntk"
    check_choice("kernel", kernel, ("ntk", "nngp"))
    default = str(jnp.result_type(float))
    check_choice("product_dtype", product_dtype or default, ("float32", "float64"))
    return sample_functions(
        network,
        likelihood,
        training_set(likelihood, x, y),
        prior_precision=prior_precision,
        kernel=kernel,
        product_dtype=product_dtype,
        run=run,
    )


def _refuse(space: str, **settings: Any) -> None:
    """Raise `ValueError` if settings of the other space are given."""
    for name, value in settings.items():
        if value is not None:
            raise ValueError(f"{name} has no meaning in {space} space: leave it out.")
