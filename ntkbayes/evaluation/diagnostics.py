"""Convergence of Markov chains, judged by the predictions rather than by the parameters.

The parameters of a wide network are not identified and may mix badly while its predictions are
fine, and the other way round. So R-hat and ESS are those of the class probabilities, or of the
latent mean function in regression, at every test point; the worst one counts.

References
----------
Vehtari, Gelman, Simpson, Carpenter & Bürkner (2021), doi:10.1214/20-BA1221: rank-normalised split
R-hat (section 4.1), bulk ESS (section 4.2) and the two thresholds.
"""

from typing import Literal

import arviz as az
import equinox as eqx
import numpy as np
import xarray as xr

from ntkbayes.evaluation.storage import pooled, probabilities

__all__ = ["ChainDiagnostics", "chain_diagnostics", "effective_sample_size"]

MAX_RHAT = 1.01
MIN_ESS = 400.0


class ChainDiagnostics(eqx.Module):
    """How well several chains agree on the predictions.

    Parameters
    ----------
    max_rhat
        Largest rank-normalised split R-hat over test points and outputs; infinite if chains do
        not move.
    share_above
        Share of the predictions (points × outputs) with R-hat above 1.01. The largest of many
        R-hats exceeds 1 by chance: over 5,000 predictions from four chains of *independent* draws
        it is about 1.014 at 250 draws per chain, 1.008 at 500 and 1.004 at 1,000. A tiny share
        means short chains, a large one chains that disagree.
    min_ess
        Smallest bulk effective sample size over test points and outputs, at most `num_draws`.
    num_divergences
        Number of divergent transitions; 0 if the sampler does not report them.
    num_chains, num_draws
        Number of chains, and of draws over all chains.
    """

    max_rhat: float
    share_above: float
    min_ess: float
    num_divergences: int
    num_chains: int
    num_draws: int

    @property
    def reliable(self) -> bool:
        """Whether R-hat ≤ 1.01 and ESS ≥ 400, the thresholds of Vehtari et al. (2021)."""
        return self.max_rhat <= MAX_RHAT and self.min_ess >= MIN_ESS

    @property
    def verdict(self) -> str:
        """One sentence in plain words."""
        numbers = (
            f"{self.num_chains} chains, {self.num_draws} draws: largest R-hat of the predictions "
            f"{self.max_rhat:.3f}, smallest ESS {self.min_ess:.0f}, "
            f"{self.num_divergences} divergence{'' if self.num_divergences == 1 else 's'}"
        )
        reasons = []
        if not self.max_rhat <= MAX_RHAT:
            reasons.append(
                f"R-hat is above {MAX_RHAT} for {self.share_above:.1%} of the predictions "
                f"(the chains disagree or are short)"
            )
        if not self.min_ess >= MIN_ESS:
            reasons.append(f"ESS is below {MIN_ESS:.0f} (too few independent draws)")
        if reasons:
            return f"{numbers}. Not reliable: {' and '.join(reasons)}. Run the chains longer."
        caution = "; look into the divergences" if self.num_divergences else ""
        return f"{numbers}. The chains agree{caution}."


def chain_diagnostics(tree: xr.DataTree) -> ChainDiagnostics:
    """Diagnose the chains by their predictions at the test points.

    Parameters
    ----------
    tree
        Predictions with at least two chains.

    Raises
    ------
    ValueError
        If there is one chain only: it cannot be compared with anything.
    """
    num_chains = int(tree.attrs["num_chains"])
    if num_chains < 2:
        raise ValueError(
            f"chain diagnostics need at least 2 chains, but {tree.attrs['method']} has 1; "
            "independent draws need none, a Markov chain should be run several times."
        )
    draws = probabilities(tree) if tree.attrs["task"] == "classification" else pooled(tree)
    # A prediction that no draw changes says nothing; one that changes and gives NaN is stuck.
    chains = _varying_chains(draws, num_chains)
    with np.errstate(divide="ignore", invalid="ignore"):
        rhat = np.nan_to_num(az.rhat(chains, chain_axis=0, draw_axis=1), nan=np.inf)
        ess = np.nan_to_num(az.ess(chains, chain_axis=0, draw_axis=1), nan=0.0)
    stats = tree["sample_stats"].to_dataset() if "sample_stats" in tree.children else {}
    return ChainDiagnostics(
        max_rhat=float(rhat.max(initial=1.0)),
        share_above=float(np.sum(rhat > MAX_RHAT) / draws[0].size),
        min_ess=float(ess.min(initial=len(draws))),
        num_divergences=int(stats["diverging"].sum()) if "diverging" in stats else 0,
        num_chains=num_chains,
        num_draws=len(draws),
    )


def effective_sample_size(
    tree: xr.DataTree, draws: np.ndarray, *, kind: Literal["bulk", "mean"]
) -> np.ndarray:
    """Effective sample size of pooled draws (s …), at least 1; s for a single chain.

    Parameters
    ----------
    tree
        Says how many chains the draws are from.
    draws
        Quantities with chains pooled in order.
    kind
        "mean" for averages, "bulk" for the distribution (rank-normalised).
    """
    num_chains = int(tree.attrs["num_chains"])
    sizes = np.full(draws.shape[1:], float(len(draws)))
    if num_chains > 1:
        with np.errstate(divide="ignore", invalid="ignore"):
            chains = _varying_chains(draws, num_chains)
            ess = az.ess(chains, method=kind, chain_axis=0, draw_axis=1)
        sizes[_varies(draws)] = np.maximum(np.nan_to_num(ess, nan=1.0), 1.0)
    return sizes


def _varying_chains(draws: np.ndarray, num_chains: int) -> np.ndarray:
    """Separate the chains again (chain draw k), for the k quantities that vary at all."""
    return draws[:, _varies(draws)].reshape(num_chains, len(draws) // num_chains, -1)


def _varies(draws: np.ndarray) -> np.ndarray:
    return np.ptp(draws, axis=0) > 0
