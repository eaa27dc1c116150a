"""Split conformal prediction: sets and intervals that cover whatever the method is worth.

Scores s_1 … s_n say how badly each validation observation fits its prediction. With

    q = the ⌈(n + 1) level⌉-th smallest of the s_i,

the observations of score at most q form a prediction set, and if validation and test points are
exchangeable it holds a new observation with probability at least ``level``, and at most
level + 1/(n + 1) if scores do not tie: over both the validation points and the new one, on average
over inputs, not at each of them. A better method shows in smaller sets, not in coverage. The
guarantee is lost under `ntkbayes.datasets.shift`, and weakened where the validation points also
chose hyperparameters or a temperature.

Scores of a class y with predictive probabilities p (the mean over draws):

- ``lac``: 1 − p_y, the smallest sets on average [2]_;
- ``aps``: Σ_{c: p_c > p_y} p_c + u p_y with u uniform on (0, 1) per point: sets that adapt to the
  point and are less often too small where the point is hard [3]_ (section 2).

Either can leave a set empty. Of a regression target the score is |y − mean| / deviation, with the
predictive deviation, noise included [4]_ (section 5.2).

References
----------
.. [1] Papadopoulos, Proedrou, Vovk & Gammerman (2002), doi:10.1007/3-540-36755-1_29.
.. [2] Sadinle, Lei & Wasserman (2019), doi:10.1080/01621459.2017.1395341.
.. [3] Romano, Sesia & Candès (2020), arXiv 2006.02544.
.. [4] Lei, G'Sell, Rinaldo, Tibshirani & Wasserman (2018), doi:10.1080/01621459.2017.1307116.
"""

import math

import equinox as eqx
import numpy as np
import xarray as xr

from ntkbayes._checks import check_at_least, check_choice, check_fraction
from ntkbayes._types import AnyArray, Float, typed
from ntkbayes.evaluation import mixtures
from ntkbayes.evaluation.alignment import check_validation_pair, ranks
from ntkbayes.evaluation.predictive import predictive_mixture
from ntkbayes.evaluation.storage import observations, probabilities

__all__ = [
    "ConformalIntervals",
    "ConformalSets",
    "conformal_intervals",
    "conformal_sets",
]

SCORES = ("lac", "aps")


class ConformalSets(eqx.Module):
    """Prediction sets of classes.

    Attributes
    ----------
    members
        Whether a class is in the set of a test point (m c).
    covered
        Whether the observed class is (m,).
    size
        Number of classes in each set (m,).
    threshold
        q of the module's docstring.
    """

    members: AnyArray
    covered: AnyArray
    size: AnyArray
    threshold: float


class ConformalIntervals(eqx.Module):
    """Prediction intervals of targets.

    Attributes
    ----------
    lower, upper
        Ends of the intervals (m c), in standardised target units.
    covered
        Whether the observed target lies inside (m c).
    size
        Width (m c).
    threshold
        q of each output (c,): a predictive deviation is multiplied by it.
    """

    lower: AnyArray
    upper: AnyArray
    covered: AnyArray
    size: AnyArray
    threshold: AnyArray


@typed
def conformal_sets(
    tree_val: xr.DataTree,
    tree_test: xr.DataTree,
    *,
    level: float,
    score: str = "lac",
    seed: int = 0,
) -> ConformalSets:
    """Return prediction sets of classes that hold the observed one with probability `level`.

    Parameters
    ----------
    tree_val
        Predictions of one method at the validation points: ``predict(…, split="val")``.
    tree_test
        Predictions of the same method at the test points.
    level
        Wanted coverage, between 0 and 1.
    score
        "lac" or "aps".
    seed
        Draws the u of "aps"; zero or positive.

    Raises
    ------
    ValueError
        If the task is not classification, the trees are not of one method with one likelihood and
        one set of settings, task, dataset and outputs, the first is not of validation points or the
        second is, `score` is unknown, `seed` is negative, `level` is not between 0 and 1, or there
        are too few validation points for it.

    Examples
    --------
    >>> tree_val = nb.predict(predictors["Laplace"], data, key=key, num_draws=50, split="val")
    >>> sets = nb.evaluation.conformal_sets(tree_val, trees["Laplace"], level=0.9)
    >>> sets.members.shape, round(float(sets.covered.mean()), 1)
    ((300, 2), 0.9)
    """
    check_choice("score", score, SCORES)
    check_at_least("seed", seed, 0)
    check_validation_pair(tree_val, tree_test)
    p_val, p_test = (probabilities(tree).mean(axis=0) for tree in (tree_val, tree_test))
    y_val, y_test = observations(tree_val), observations(tree_test)
    if score == "lac":
        scores_val, scores_test = 1 - p_val, 1 - p_test
    else:
        generator = np.random.default_rng(seed)
        # A point's u is that of its identifier, wherever it stands.
        scores_val, scores_test = (
            _aps_scores(p, generator.uniform(size=len(p))[ranks(tree)])
            for p, tree in ((p_val, tree_val), (p_test, tree_test))
        )
    threshold = float(_threshold(np.take_along_axis(scores_val, y_val[:, None], 1), level)[0])
    members = scores_test <= threshold
    covered = np.take_along_axis(members, y_test[:, None], 1)[:, 0]
    return ConformalSets(members, covered, members.sum(axis=1), threshold)


@typed
def conformal_intervals(
    tree_val: xr.DataTree, tree_test: xr.DataTree, *, level: float
) -> ConformalIntervals:
    """Return intervals mean ± q · deviation that hold a target with probability `level`.

    Several outputs have a q each, and the level is that of each output by itself.

    Parameters
    ----------
    tree_val, tree_test, level
        As in `conformal_sets`, of a regression with Gaussian noise.

    Raises
    ------
    ValueError
        As in `conformal_sets`, and if the observation noise is not Gaussian.

    Examples
    --------
    >>> tree_val = nb.predict(predictors_sine["GP"], sine, key=key, num_draws=50, split="val")
    >>> intervals = nb.evaluation.conformal_intervals(tree_val, trees_sine["GP"], level=0.9)
    >>> intervals.lower.shape, bool((intervals.size > 0).all())
    ((200, 1), True)
    """
    check_validation_pair(tree_val, tree_test)
    if tree_val.attrs["task"] != "regression":
        raise ValueError(
            f"conformal_intervals needs a regression, but {tree_val.attrs['dataset']} is "
            f"{tree_val.attrs['task']}; use conformal_sets."
        )
    (mean_val, deviation_val), (mean, deviation) = _moments(tree_val), _moments(tree_test)
    threshold = _threshold(np.abs(observations(tree_val) - mean_val) / deviation_val, level)
    half, y = threshold * deviation, observations(tree_test)
    covered = np.abs(y - mean) / deviation <= threshold
    return ConformalIntervals(mean - half, mean + half, covered, 2 * half, threshold)


@typed
def _aps_scores(p: Float[np.ndarray, "m c"], u: Float[np.ndarray, "m"]) -> Float[np.ndarray, "m c"]:
    """Σ of the probabilities of more probable classes + u p_c; the lower of equal classes first."""
    order = np.argsort(-p, axis=1, kind="stable")
    ranked = np.take_along_axis(p, order, axis=1)
    scores = np.empty_like(p)
    above = np.cumsum(ranked, axis=1) - ranked
    np.put_along_axis(scores, order, above + u[:, None] * ranked, axis=1)
    return scores


@typed
def _threshold(scores: Float[np.ndarray, "n c"], level: float) -> Float[np.ndarray, "c"]:
    """Return the ⌈(n + 1) level⌉-th smallest score of each column."""
    check_fraction("level", level)
    n = len(scores)
    rank = math.ceil(round((n + 1) * level, 9))  # 100 · 0.55 is 55.000000000000007
    if rank > n:
        raise ValueError(
            f"level {level} needs at least {math.ceil(round(level / (1 - level), 9))} validation "
            f"points, but there are {n}."
        )
    return np.partition(scores, rank - 1, axis=0)[rank - 1]


def _moments(tree: xr.DataTree) -> tuple[np.ndarray, np.ndarray]:
    """Predictive mean and deviation (m c), noise included."""
    mean, variance = mixtures.moments(*predictive_mixture(tree))
    return mean, np.sqrt(variance)
