"""Convergence of Markov chains, judged by the predictions rather than by the parameters.

The parameters of a wide network are not identified and may mix badly while its predictions are
fine, and the other way round. So R-hat, ESS and MCSE are those of the class probabilities, or of
the latent mean function in regression, at every test point; the worst one counts. Divergences and
E-BFMI, which only the sampler knows, are those it recorded with the draws.

Divergences. A transition diverges where the density is too steep for the step, a place the chain
then enters too rarely. If a share of 1 % diverges, what is missed has a probability of that order
and moves a predictive probability by no more: less than its Monte-Carlo error at an ESS of 400,
up to 0.5 / √400 = 0.025. That is the largest share accepted; it is a convention, not a theorem.

References
----------
Vehtari, Gelman, Simpson, Carpenter & Bürkner (2021), doi:10.1214/20-BA1221: rank-normalised split
R-hat (section 4.1), bulk ESS (section 4.2) and the two thresholds. Betancourt (2016), arXiv
1604.00695: E-BFMI; the threshold 0.3 is that of Stan and ArviZ.
"""

from collections.abc import Hashable, Mapping

import arviz as az
import equinox as eqx
import numpy as np
import xarray as xr

from ntkbayes._types import typed
from ntkbayes.evaluation.effective_size import varying_chains
from ntkbayes.evaluation.storage import ordered, pooled, probabilities

__all__ = [
    "ChainDiagnostics",
    "chain_diagnostics",
    "check_reliable",
    "from_markov_chains",
]

MAX_RHAT = 1.01
MIN_ESS = 400.0
MIN_BFMI = 0.3
MAX_DIVERGING = 0.01
MIN_DRAWS_PER_CHAIN = 4
"""What ArviZ needs for any of R-hat, ESS and MCSE."""


class ChainDiagnostics(eqx.Module):
    """How well several chains agree on the predictions.

    Parameters
    ----------
    max_rhat
        Largest rank-normalised split R-hat over test points and outputs; infinite if chains do
        not move, NaN if there is one chain or fewer than four draws in each, or if no prediction
        differs between any two draws.
    share_above
        Share of the predictions (points × outputs) with R-hat above 1.01. The largest of many
        R-hats exceeds 1 by chance: over 5,000 predictions from four chains of *independent* draws
        it is about 1.014 at 250 draws per chain, 1.008 at 500 and 1.004 at 1,000. A tiny share
        means short chains, a large one chains that disagree.
    min_ess
        Smallest bulk effective sample size over test points and outputs, at most `num_draws`; 0 if
        no prediction differs between any two draws.
    max_mcse
        Largest Monte-Carlo standard error of a predictive probability, or of the mean function in
        target units; infinite if chains do not move.
    bfmi
        E-BFMI of every chain; none if the sampler does not report energies. Of evenly spaced draws
        it is higher than of all, whose energies change less from one to the next.
    num_divergences
        Number of divergent transitions; 0 if the sampler does not report them.
    num_chains, num_draws
        Number of chains, and of draws over all chains.
    """

    max_rhat: float
    share_above: float
    min_ess: float
    max_mcse: float
    bfmi: tuple[float, ...]
    num_divergences: int
    num_chains: int
    num_draws: int

    @property
    def share_diverging(self) -> float:
        """Share of divergent transitions among the draws."""
        return self.num_divergences / self.num_draws

    @property
    def reliable(self) -> bool:
        """Whether several chains of four draws or more pass all four checks.

        R-hat ≤ 1.01 and ESS ≥ 400 for every prediction, E-BFMI ≥ 0.3 in every chain, and at most
        1 % divergent transitions.
        """
        return not self._reasons()

    @property
    def verdict(self) -> str:
        """In plain words, whether to use the chains as a reference; if not, why and what to do."""
        reasons = self._reasons()
        if not reasons:
            return f"reference is reliable: {self._numbers()}."
        return f"do not use as reference: {'; '.join(reasons)}. {self._numbers()}."

    def _reasons(self) -> list[str]:
        """Everything that speaks against the chains, each with a remedy."""
        per_chain = self.num_draws // self.num_chains
        if self.num_chains == 1:
            return ["one chain cannot be checked (run several: num_chains)"]
        if per_chain < MIN_DRAWS_PER_CHAIN:
            return [
                f"{per_chain} draws per chain cannot be checked, {MIN_DRAWS_PER_CHAIN} or more can "
                "(raise num_draws)"
            ]
        if np.isnan(self.max_rhat):
            return [
                "no prediction differs between any two draws, so all chains stand at one function, "
                "or every probability is 0 or 1 (start them anew, look at the latent function)"
            ]
        reasons = []
        if not self.max_rhat <= MAX_RHAT:
            reasons.append(
                f"R-hat is above {MAX_RHAT} for {self.share_above:.1%} of the predictions, so the "
                "chains disagree or are short (run them longer: num_warmup, num_draws; predict "
                "with all draws)"
            )
        if not self.min_ess >= MIN_ESS:
            reasons.append(
                f"ESS is below {MIN_ESS:.0f}: too few independent draws (raise num_draws; predict "
                "with all draws)"
            )
        if not all(bfmi >= MIN_BFMI for bfmi in self.bfmi):
            reasons.append(
                f"E-BFMI is {np.min(self.bfmi):.2f}, below {MIN_BFMI}, so the chains may miss the "
                "tails (raise num_warmup and num_draws)"
            )
        if not self.share_diverging <= MAX_DIVERGING:
            reasons.append(
                f"{self.share_diverging:.1%} of the transitions diverge, more than "
                f"{MAX_DIVERGING:.0%}, so the chains may not enter part of the posterior (raise "
                "num_warmup; use float64 if they ran in float32)"
            )
        return reasons

    def _numbers(self) -> str:
        counted = (self.num_chains, self.num_draws, self.num_divergences)
        plurals = ["" if n == 1 else "s" for n in counted]
        bfmi = f"smallest E-BFMI {np.min(self.bfmi):.2f}, " if self.bfmi else ""
        return (
            f"{self.num_chains} chain{plurals[0]}, {self.num_draws} draw{plurals[1]}: "
            f"largest R-hat of the predictions {self.max_rhat:.3f}, "
            f"smallest ESS {self.min_ess:.0f}, largest MCSE {self.max_mcse:.2g}, {bfmi}"
            f"{self.num_divergences} divergence{plurals[2]}"
        )


def from_markov_chains(tree: xr.DataTree) -> bool:
    """Whether draws are from Markov chains: several, or one with what its sampler recorded."""
    stats = _sampler_stats(tree)
    return int(tree.attrs["num_chains"]) > 1 or "diverging" in stats or "energy" in stats


@typed
def chain_diagnostics(tree: xr.DataTree) -> ChainDiagnostics:
    """Diagnose Markov chains by their predictions at the test points.

    Parameters
    ----------
    tree
        Predictions from Markov chains. What cannot be checked, one chain or very few draws, is
        not `reliable`.

    Raises
    ------
    ValueError
        If the draws are from no Markov chain.

    Examples
    --------
    Four chains of independent draws, from another tool:

    >>> latent = np.random.default_rng(0).normal(size=(4, 1000, 3, 2))
    >>> y = np.array([0, 1, 1])
    >>> tree = nb.from_draws(latent, nb.Categorical(2), y, key=key, method="my sampler")
    >>> found = nb.evaluation.chain_diagnostics(tree)
    >>> found.num_chains, found.num_draws, found.reliable
    (4, 4000, True)
    """
    if not from_markov_chains(tree):
        raise ValueError(
            f"chain diagnostics need at least 2 chains, but {tree.attrs['method']} has 1; "
            "independent draws need none, a Markov chain should be run several times."
        )
    num_chains = int(tree.attrs["num_chains"])
    draws = probabilities(tree) if tree.attrs["task"] == "classification" else pooled(tree)
    # A prediction that no draw changes says nothing; one that changes and gives NaN is stuck.
    chains = varying_chains(draws, num_chains)
    with np.errstate(divide="ignore", invalid="ignore"):
        rhat = np.nan_to_num(az.rhat(chains, chain_axis=0, draw_axis=1), nan=np.inf)
        ess = np.nan_to_num(az.ess(chains, chain_axis=0, draw_axis=1), nan=0.0)
        mcse = az.mcse(chains, method="mean", chain_axis=0, draw_axis=1)
    moving = chains.shape[2] > 0
    checkable = moving and num_chains > 1 and chains.shape[1] >= MIN_DRAWS_PER_CHAIN
    stats = _sampler_stats(tree)
    return ChainDiagnostics(
        max_rhat=float(rhat.max(initial=1.0)) if checkable else np.nan,
        share_above=float(np.sum(rhat > MAX_RHAT) / draws[0].size),
        min_ess=float(ess.min(initial=len(draws))) if moving else 0.0,
        max_mcse=float(np.nan_to_num(mcse, nan=np.inf).max()) if moving else np.inf,
        bfmi=_bfmi(ordered(tree, "sample_stats/energy")) if "energy" in stats else (),
        num_divergences=int(stats["diverging"].sum()) if "diverging" in stats else 0,
        num_chains=num_chains,
        num_draws=len(draws),
    )


def _sampler_stats(tree: xr.DataTree) -> Mapping[Hashable, xr.DataArray]:
    return tree["sample_stats"].to_dataset() if "sample_stats" in tree.children else {}


def _bfmi(energy: np.ndarray) -> tuple[float, ...]:
    """E-BFMI of energies (chain draw); NaN for a chain whose energy never changes."""
    if energy.shape[1] < 2:
        return (np.nan,) * len(energy)
    with np.errstate(divide="ignore", invalid="ignore"):
        return tuple(float(b) for b in az.bfmi(energy, chain_axis=0, draw_axis=1))


def check_reliable(name: str, tree: xr.DataTree) -> None:
    """Raise `ValueError` with the verdict if a tree is from Markov chains that are not reliable."""
    if not from_markov_chains(tree):
        return
    found = chain_diagnostics(tree)
    if not found.reliable:
        raise ValueError(
            f"{name}: {found.verdict} To measure distances from it all the same, pass "
            "require_reliable=False."
        )
