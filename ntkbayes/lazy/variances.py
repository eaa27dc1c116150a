"""How ensembles' variance relates to Laplace's and to HMC's, near the data and away from it.

To first order in the initial function the covariance of an ensemble is
(I + K W)⁻¹ Q₀ (I + W K)⁻¹ at the training points, and continued to others by
`ConvexEnsemble.first_order_covariance`: with Q₀ = K that is Laplace's times (I + W K)⁻¹, too small
near the data and equal far from it, and perturbed targets restore Laplace. `variance_profile` sets
this prediction beside the variance of the ensembles' members, over Laplace's and over HMC's, at
test points near the training data and farther and farther away.

References
----------
Calvo-Ordoñez et al. 2026, arXiv 2605.17606 (the relation to Bayesian methods). He,
Lakshminarayanan & Teh 2020, arXiv 2007.05864 (initial functions of the NTK's law).
"""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from ntkbayes._checks import check_at_least, check_choice
from ntkbayes._problem import over_precision
from ntkbayes._progress import bar_in_notebooks
from ntkbayes._types import Array, Float, Key, Progress, silent, typed
from ntkbayes.datasets import Dataset, away_inputs, shift
from ntkbayes.ensembles import ntk_ensemble
from ntkbayes.ensembles.convex import ConvexEnsemble
from ntkbayes.evaluation import chain_diagnostics, distances, predict
from ntkbayes.evaluation.distances import Estimate, JointDraws
from ntkbayes.likelihoods import Categorical
from ntkbayes.networks import WideNetwork
from ntkbayes.posteriors import hmc, laplace
from ntkbayes.predictors import Predictor

__all__ = ["ENSEMBLES", "PROFILE_COLUMNS", "variance_profile"]

ENSEMBLES = {
    "nngp": ("nngp", False),
    "nngp, perturbed": ("nngp", True),
    "ntk": ("ntk", False),
    "ntk, perturbed": ("ntk", True),
}
"""Initial functions, and whether targets are perturbed."""

PROFILE_COLUMNS = (
    "method", "distance", "num_points", "prior_share", "predicted", "to_laplace",
    "to_laplace_error", "to_hmc", "to_hmc_error",
)  # fmt: skip

NUM_SEVERITIES = 5


@bar_in_notebooks
@typed
def variance_profile(
    network: WideNetwork,
    data: Dataset,
    *,
    key: Key,
    prior_precision: float,
    num_draws: int = 4000,
    num_away: int = 60,
    num_bins: int = 6,
    progress: Progress = silent,
) -> pd.DataFrame:
    """Compare variances of ensembles with those of Laplace and HMC, by distance from the data.

    Variances of logits, less their mean over classes, on which no probability depends. Points are
    the dataset's test points, and points in shells of growing radius around the training points
    (`ntkbayes.datasets.away_inputs`), or for pictures test points with noise at five severities
    (`ntkbayes.shift`), sorted by distance and shared out over bins of equal number.

    Parameters
    ----------
    network
        Of infinite width.
    data
        A classification.
    key
        Of draws and Markov chains.
    prior_precision
        λ > 0.
    num_draws
        Draws of every method; of HMC, over four chains.
    num_away
        Points in each of five shells, or at each severity.
    num_bins
        Number of bins.
    progress
        Called with the finished fraction.

    Returns
    -------
    DataFrame
        One row per method and bin: ``method`` (`ENSEMBLES`, and "Laplace"), ``distance`` (from the
        nearest training point, mean over the bin, standardised input units), ``num_points``, and
        ratios of mean variances over the bin's points and classes: ``prior_share``, Laplace's over
        that of the prior Θ/λ, which is what the data leave of it; ``predicted``, to first order
        over Laplace's; ``to_laplace``, of members over Laplace's; ``to_hmc``, over HMC's; with
        ``to_laplace_error`` and ``to_hmc_error``, Monte-Carlo standard errors.

    Raises
    ------
    ValueError
        If the data are no classification, a setting is out of range, or the Markov chains are not
        reliable.

    Examples
    --------
    >>> table = nb.lazy.variance_profile(
    ...     network, data, key=key, prior_precision=1.0, num_draws=4000, num_away=5, num_bins=2
    ... )
    >>> laplace = table.loc[table["method"] == "Laplace"]
    >>> laplace["to_laplace"].tolist(), len(table)
    ([1.0, 1.0], 10)
    """
    check_choice("task", data.task, ("classification",))
    check_at_least("num_away", num_away, 1)
    check_at_least("num_bins", num_bins, 1)
    key_hmc, key_draws, key_check = jax.random.split(key, 3)
    model = (network, Categorical(data.num_classes), data.x_train, data.y_train)
    x = jnp.concatenate([data.x_test, *_farther_inputs(data, num_away)])
    chains = hmc(
        *model, prior_precision=prior_precision, key=key_hmc, num_draws=-(-num_draws // 4),
        progress=lambda part: progress(0.8 * part),
    )  # fmt: skip
    diagnostics = chain_diagnostics(predict(chains, data, key=key_check))
    if not diagnostics.reliable:
        raise ValueError(f"HMC: {diagnostics.verdict} Raise num_draws, which is {num_draws}.")
    posterior = laplace(*model, prior_precision=prior_precision)
    measured = {"HMC": _draws(chains, key_draws, x, chains.num_available)}
    predicted = {"Laplace": _class_variance(posterior.covariance(x))}
    prior = over_precision(jax.vmap(lambda x: network.ntk(x[None])[0, 0])(x), prior_precision)
    for position, (name, (initial, perturb)) in enumerate(ENSEMBLES.items()):
        ensemble = ntk_ensemble(
            *model, prior_precision=prior_precision, initial=initial, perturb_targets=perturb
        )
        assert isinstance(ensemble, ConvexEnsemble)  # what cross-entropy with λ > 0 gives
        predicted[name] = _class_variance(ensemble.first_order_covariance(x))
        measured[name] = _draws(ensemble, key_draws, x, num_draws)
        progress(0.8 + 0.2 * (position + 1) / len(ENSEMBLES))
    prior_variance = np.asarray(prior) * (1 - 1 / data.num_classes)
    return _profile(_bins(x, data.x_train, num_bins), prior_variance, predicted, measured)


def _farther_inputs(data: Dataset, num_away: int) -> list[Array]:
    """Return shells around the data; of pictures, test points with more and more noise."""
    severities = range(1, NUM_SEVERITIES + 1)
    if data.image_shape is None:
        return [away_inputs(data, severity, num_points=num_away) for severity in severities]
    return [shift(data, "noise", severity).x_test[:num_away] for severity in severities]


def _class_variance(covariance: Float[Array, "m c m c"]) -> np.ndarray:
    """Variance of logits less their mean over classes, mean over classes."""
    c = covariance.shape[1]
    own = jnp.einsum("icid->icd", covariance)
    total = jnp.einsum("icc->i", own) - jnp.sum(own, axis=(1, 2)) / c
    return np.asarray(total / c)


def _draws(predictor: Predictor, key: Key, x: Array, num_draws: int) -> JointDraws:
    latent = np.asarray(predictor.sample(key, x, num_draws=num_draws))
    centered = latent - latent.mean(axis=-1, keepdims=True)
    return JointDraws(centered, num_chains=predictor.num_chains)


def _bins(x: Array, x_train: Array, num_bins: int) -> list[tuple[float, np.ndarray]]:
    """Mean distance from the training points, and which points are in the bin."""
    distance = distances.distance_from_training(x, x_train)
    parts = np.array_split(np.argsort(distance), min(num_bins, len(x)))
    return [(float(distance[part].mean()), np.isin(np.arange(len(x)), part)) for part in parts]


def _profile(
    bins: list[tuple[float, np.ndarray]],
    prior: np.ndarray,
    predicted: dict[str, np.ndarray],
    measured: dict[str, JointDraws],
) -> pd.DataFrame:
    variances = {
        name: [distances.mean_variance(draws, where) for _, where in bins]
        for name, draws in measured.items()
    }
    variances["Laplace"] = [
        Estimate(float(predicted["Laplace"][where].mean()), 0.0) for _, where in bins
    ]
    rows = []
    for method, variance in predicted.items():
        of_all = zip(bins, variances[method], variances["Laplace"], variances["HMC"], strict=True)
        for (distance, where), own, of_laplace, of_hmc in of_all:
            to_laplace = distances.relative_to(own, of_laplace)
            to_hmc = distances.relative_to(own, of_hmc)
            rows.append(
                {
                    "method": method,
                    "distance": distance,
                    "num_points": int(where.sum()),
                    "prior_share": of_laplace.value / float(prior[where].mean()),
                    "predicted": float(variance[where].mean()) / of_laplace.value,
                    "to_laplace": to_laplace.value,
                    "to_laplace_error": to_laplace.standard_error,
                    "to_hmc": to_hmc.value,
                    "to_hmc_error": to_hmc.standard_error,
                }
            )
    return pd.DataFrame(rows, columns=list(PROFILE_COLUMNS))
