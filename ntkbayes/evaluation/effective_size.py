"""Effective sample sizes of draws that may come from Markov chains, by ArviZ."""

from typing import Literal

import arviz as az
import numpy as np
import xarray as xr

__all__ = ["effective_draws", "effective_sample_size", "varying_chains"]


def effective_sample_size(
    tree: xr.DataTree, draws: np.ndarray, *, kind: Literal["bulk", "mean"]
) -> np.ndarray:
    """Return `effective_draws` of quantities (s …) computed from the draws of a tree."""
    return effective_draws(draws, num_chains=int(tree.attrs["num_chains"]), kind=kind)


def effective_draws(
    draws: np.ndarray, *, num_chains: int, kind: Literal["bulk", "mean"]
) -> np.ndarray:
    """Effective sample size of pooled draws (s …), at least 1; s for a single chain.

    Parameters
    ----------
    draws
        Quantities with chains pooled in order.
    num_chains
        How many chains they are from.
    kind
        "mean" for averages, "bulk" for the distribution (rank-normalised).
    """
    sizes = np.full(draws.shape[1:], float(len(draws)))
    if num_chains > 1:
        with np.errstate(divide="ignore", invalid="ignore"):
            chains = varying_chains(draws, num_chains)
            ess = az.ess(chains, method=kind, chain_axis=0, draw_axis=1)
        sizes[_varies(draws)] = np.maximum(np.nan_to_num(ess, nan=1.0), 1.0)
    return sizes


def varying_chains(draws: np.ndarray, num_chains: int) -> np.ndarray:
    """Separate the chains again (chain draw k), for the k quantities that vary at all."""
    return draws[:, _varies(draws)].reshape(num_chains, len(draws) // num_chains, -1)


def _varies(draws: np.ndarray) -> np.ndarray:
    return np.ptp(draws, axis=0) > 0
