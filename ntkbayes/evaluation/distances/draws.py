"""What joint distances compare: draws of the latent function at all test points together.

A draw is one vector of m c numbers. Its geometry is all that is needed, so the (s + t)² Gram
matrix of two sets of draws is the largest intermediate result; it is a sum over points, taken in
blocks.
"""

import equinox as eqx
import numpy as np
import xarray as xr

from ntkbayes._checks import check_at_least, check_finite
from ntkbayes._types import Float
from ntkbayes.evaluation.effective_size import effective_draws
from ntkbayes.evaluation.storage import pooled

__all__ = ["Estimate", "JointDraws", "gram_matrix", "joint_draws"]

MAX_DRAWS = 1000
BLOCK = 2**22
"""Numbers in one block of points, 32 MB."""
MAX_COORDINATES = 1000
"""How many points × outputs at most the effective number of draws is computed from."""


class Estimate(eqx.Module):
    """A number known up to the choice of the draws.

    Parameters
    ----------
    value
        The estimate.
    standard_error
        Its Monte-Carlo standard error, over draws at fixed test points.
    """

    value: float
    standard_error: float


class JointDraws(eqx.Module):
    """Draws of a latent function, noise excluded, jointly over test points.

    Parameters
    ----------
    latent
        Draws (s m c), ordered chain by chain. A single draw is a deterministic predictor.
    num_chains
        Number of Markov chains, of equal length; 1 for independent draws.
    num_effective
        Effective number of draws, above 0 and in general at most s. Default: s.
    """

    latent: Float[np.ndarray, "s m c"]
    num_chains: int
    num_effective: float

    def __init__(
        self, latent: np.ndarray, *, num_chains: int = 1, num_effective: float | None = None
    ):
        self.latent = latent
        self.num_chains = num_chains
        self.num_effective = float(len(latent) if num_effective is None else num_effective)

    def __check_init__(self):
        if self.latent.ndim != 3 or self.latent.size == 0:
            raise ValueError(f"latent must have shape (s, m, c), but has {self.latent.shape}.")
        check_finite("latent", self.latent)
        check_at_least("num_chains", self.num_chains, 1)
        if len(self.latent) % self.num_chains:
            raise ValueError(
                f"latent must hold chains of equal length, but has {len(self.latent)} draws of "
                f"{self.num_chains} chains."
            )
        if not self.num_effective > 0:
            raise ValueError(f"num_effective must be positive, but is {self.num_effective}.")

    @property
    def chains(self) -> list[np.ndarray]:
        """Numbers of the draws of each chain."""
        return np.split(np.arange(len(self.latent)), self.num_chains)


def joint_draws(tree: xr.DataTree, *, max_draws: int = MAX_DRAWS) -> JointDraws:
    """Prepare predictions for joint distances.

    Evenly spaced draws of every chain are kept, `max_draws` at most. In classification logits
    are centred over the classes at each point: adding a number to all of them changes no
    probability, and two methods may well differ in that direction of function space, on which the
    likelihood has nothing to say. A single logit stays as it is.

    The effective number of draws is Σ var / Σ (var / ESS) over at most 1,000 points × outputs,
    for means: the one with which the error of the mean vector, a sum over coordinates, is right.

    Parameters
    ----------
    tree
        What `predict` returned.
    max_draws
        Number of draws kept, at least one in each chain.

    Raises
    ------
    ValueError
        If `max_draws` is below the number of chains.
    """
    num_chains = int(tree.attrs["num_chains"])
    check_at_least("max_draws", max_draws, num_chains)
    latent = pooled(tree)
    length = len(latent) // num_chains
    kept = np.linspace(0, length - 1, min(length, max_draws // num_chains)).round().astype(int)
    latent = latent[(np.arange(num_chains)[:, None] * length + kept).ravel()]
    if tree.attrs["task"] == "classification" and latent.shape[-1] > 1:
        latent = latent - latent.mean(axis=-1, keepdims=True)
    return JointDraws(
        latent, num_chains=num_chains, num_effective=_effective_number(latent, num_chains)
    )


def gram_matrix(a: JointDraws, *others: JointDraws) -> np.ndarray:
    """Inner products over m c, (s+t s+t), of all draws together, centred by their common mean.

    Summed in double precision over blocks of points of 32 MB; time (s + t)² m c.

    Raises
    ------
    ValueError
        If the sets are not at equally many points and outputs.
    """
    sets = (a, *others)
    for b in others:
        if a.latent.shape[1:] != b.latent.shape[1:]:
            raise ValueError(
                "a and b must be at the same points and outputs, but have shapes "
                f"{a.latent.shape} and {b.latent.shape}."
            )
    num_draws = sum(len(draws.latent) for draws in sets)
    _, num_points, num_outputs = a.latent.shape
    step = max(BLOCK // (num_draws * num_outputs), 1)
    gram = np.zeros((num_draws, num_draws))
    for start in range(0, num_points, step):
        block = [draws.latent[:, start : start + step] for draws in sets]
        z = np.concatenate(block).astype(float).reshape(num_draws, -1)
        z -= z.mean(axis=0)
        gram += z @ z.T
    return gram / (num_points * num_outputs)


def _effective_number(latent: np.ndarray, num_chains: int) -> float:
    coordinates = latent.reshape(len(latent), -1)
    step = -(-coordinates.shape[1] // MAX_COORDINATES)
    coordinates = coordinates[:, ::step].astype(float)
    variance = coordinates.var(axis=0)
    if num_chains == 1 or not variance.any():
        return float(len(latent))
    ess = effective_draws(coordinates, num_chains=num_chains, kind="mean")
    return float(variance.sum() / np.sum(variance / ess))
