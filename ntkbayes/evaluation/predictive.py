"""What metrics and distances need of one method's predictions, each part computed once.

Where the predictive distribution is known in closed form (group ``closed_form``) it is used
instead of draws. Class probabilities of all draws are never held at once: 1,000 draws of 10
classes at 10,000 points are 800 MB, and several such arrays at a time would be needed.
"""

import json
from collections.abc import Callable, Iterator
from functools import cached_property

import equinox as eqx
import jax
import numpy as np
import scipy.special
import xarray as xr

from ntkbayes._types import Float
from ntkbayes.evaluation import count_mixtures, distances, metrics, mixtures
from ntkbayes.evaluation.distances.marginals import pointwise_class_distance
from ntkbayes.evaluation.storage import observations, ordered, pooled, probabilities

__all__ = ["ClassSummary", "Predictive", "predictive_mixture"]

BLOCK_SIZE = 4_000_000
"""Class probabilities (draws × points × classes) that are held at a time."""
NUM_NEW = 400
"""Draws of new observations; the time of the energy score grows with the square."""
_MOMENTS = ("mean", "variance")


class ClassSummary(eqx.Module):
    """Class probabilities over the draws of one method, point by point.

    Parameters
    ----------
    mean
        Predictive probabilities: the mean over draws.
    expected_entropy
        Mean entropy of the draws, in nats.
    variation_ratio
        Share of the draws whose most probable class is not the most frequent such class.
    top_variance
        Variance over draws of the probability of the class that is most probable on average.
    """

    mean: Float[np.ndarray, "m c"]
    expected_entropy: Float[np.ndarray, "m"]
    variation_ratio: Float[np.ndarray, "m"]
    top_variance: Float[np.ndarray, "m"]

    @classmethod
    def of(cls, probabilities: Float[np.ndarray, "s m c"]) -> "ClassSummary":
        """Summarise the class probabilities of all draws."""
        mean = probabilities.mean(axis=0)
        top = np.take_along_axis(probabilities, mean.argmax(axis=-1)[None, :, None], axis=-1)
        return cls(
            mean,
            metrics.pointwise_expected_entropy(probabilities),
            metrics.pointwise_variation_ratio(probabilities),
            top[..., 0].astype(float).var(axis=0),
        )


class Predictive:
    """One method's predictions; a part that has been computed is kept."""

    def __init__(self, tree: xr.DataTree):
        self.tree = tree
        self.task = tree.attrs["task"]
        self.is_classification = self.task == "classification"

    @cached_property
    def observations(self) -> np.ndarray:
        """Class indices (m,), or regression values (m c)."""
        return observations(self.tree)

    @cached_property
    def log_likelihood(self) -> np.ndarray:
        """Log p(y | f) of every draw (s m), in nats."""
        return pooled(self.tree, "log_likelihood/y")

    @cached_property
    def classes(self) -> ClassSummary:
        """The class probabilities, in one pass over the draws."""
        blocks = _blocks(self.tree, _block_size(self.tree))
        parts = [ClassSummary.of(probabilities(block)) for block in blocks]
        return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)

    @cached_property
    def mutual_information(self) -> np.ndarray:
        """Mutual information (m,) between label and function, in nats."""
        total = scipy.special.entr(self.classes.mean).sum(axis=-1)
        return total - self.classes.expected_entropy

    @cached_property
    def moments(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Mean and variance (m c) of the latent function in closed form, if known."""
        if "closed_form" not in self.tree.children:
            return None
        mean, variance = (
            ordered(self.tree, f"closed_form/{name}").astype(float) for name in _MOMENTS
        )
        return mean, np.maximum(variance, 0)  # a difference of 0 may be rounded below it

    @cached_property
    def normal(self) -> tuple[np.ndarray, ...] | None:
        """Of a Gaussian function in closed form: moments, draws, variance of the noise, targets."""
        if self.moments is None:
            return None
        noise = np.broadcast_to(observation_variance(self.tree), self.moments[0].shape)
        return *self.moments, self.latent, noise, self.observations

    @cached_property
    def latent(self) -> np.ndarray:
        """Draws of the latent function (s m c)."""
        return pooled(self.tree)

    @cached_property
    def error(self) -> np.ndarray:
        """Monte-Carlo error (m c) of the mean class probabilities."""
        return self._by_blocks(distances.mean_probability_error)

    @cached_property
    def quantile_error(self) -> np.ndarray:
        """Monte-Carlo error (m c) of the quantiles: of class probabilities, or latent functions."""
        if self.is_classification:
            return self._by_blocks(distances.probability_quantile_error)
        return distances.quantile_error(self.tree)

    @cached_property
    def squared_quantile_error(self) -> np.ndarray:
        """The same, squared, of latent functions in the sense of Wasserstein-2."""
        return distances.squared_quantile_error(self.tree)

    def spread_distance(self, other: "Predictive") -> np.ndarray:
        """Wasserstein-1 distance (m,) between the draws of class probabilities, point by point."""
        size = min(_block_size(self.tree), _block_size(other.tree))
        blocks = zip(_blocks(self.tree, size), _blocks(other.tree, size), strict=True)
        return np.concatenate(
            [pointwise_class_distance(probabilities(a), probabilities(b)) for a, b in blocks]
        )

    def _by_blocks(self, function: Callable[[xr.DataTree], np.ndarray]) -> np.ndarray:
        blocks = _blocks(self.tree, _block_size(self.tree))
        return np.concatenate([function(block) for block in blocks])

    @cached_property
    def new_observations(self) -> np.ndarray:
        """Draws (s m c) of new observations of a regression, jointly over the points.

        Latent draws, evenly spaced where there are many and repeated where there are few, each
        with noise of its own from a fixed seed.
        """
        latent = self.latent.astype(float)
        chosen = np.linspace(0, len(latent), NUM_NEW, endpoint=False).astype(int)
        noise = np.random.default_rng(0).normal(size=(NUM_NEW, *latent.shape[1:]))
        variance = np.broadcast_to(observation_variance(self.tree), latent.shape)
        return latent[chosen] + np.sqrt(variance[chosen]) * noise

    @cached_property
    def mixture(self) -> tuple[np.ndarray, np.ndarray]:
        """`predictive_mixture` of a regression."""
        return predictive_mixture(self.tree)

    @cached_property
    def rates(self) -> np.ndarray:
        """Poisson rates (s m) of counts.

        Raises
        ------
        ValueError
            If the likelihood of the counts is another.
        """
        name = json.loads(self.tree.attrs["likelihood"])["name"]
        if name != "Poisson":
            raise ValueError(
                "metrics of counts need the Poisson likelihood, but that of "
                f"{self.tree.attrs['method']} is {name}."
            )
        return np.exp(self.latent[..., 0].astype(float))

    @cached_property
    def pit(self) -> np.ndarray:
        """Probability integral transforms (m c) of a regression, or of counts, randomised."""
        if self.task == "counts":
            return count_mixtures.pit(self.rates, self.observations[:, 0].astype(float))[:, None]
        return mixtures.pit(*self.mixture, self.observations)


def predictive_mixture(tree: xr.DataTree) -> tuple[np.ndarray, np.ndarray]:
    """Means (s m c) and variance, noise included, of the components of `mixtures`.

    One component where mean and variance are known in closed form, else one per draw; the variance
    is (m c), or (s m c) where every draw has its own.

    Raises
    ------
    ValueError
        If the observation noise is not Gaussian.
    """
    noise = observation_variance(tree)
    if "closed_form" in tree.children:
        mean, variance = (ordered(tree, f"closed_form/{k}").astype(float) for k in _MOMENTS)
        return mean[None], variance + noise
    means = pooled(tree).astype(float)
    return means, noise if noise.ndim == 3 else np.broadcast_to(noise, means.shape[1:])


def observation_variance(tree: xr.DataTree) -> np.ndarray:
    """Variance of the noise: of each draw (s m c) where they have their own, else one number.

    Raises
    ------
    ValueError
        If the observation noise is not Gaussian.
    """
    if "noise" in tree.children:
        return pooled(tree, "noise/variance").astype(float)
    likelihood = json.loads(tree.attrs["likelihood"])
    if "noise_variance" not in likelihood:
        raise ValueError(
            "metrics of a regression need Gaussian noise, but the likelihood of "
            f"{tree.attrs['method']} is {likelihood['name']}."
        )
    return np.asarray(likelihood["noise_variance"], dtype=float)


def _block_size(tree: xr.DataTree) -> int:
    """How many points at a time have few enough class probabilities."""
    latent = tree["posterior/latent"]
    return max(BLOCK_SIZE * latent.sizes["obs_id"] // latent.size, 1)


def _blocks(tree: xr.DataTree, size: int) -> Iterator[xr.DataTree]:
    """Cut predictions into ranges of points."""
    num_points = tree["posterior/latent"].sizes["obs_id"]
    if size >= num_points:
        yield tree
        return
    for start in range(0, num_points, size):
        yield tree.isel(obs_id=slice(start, start + size))
