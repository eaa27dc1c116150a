"""Distances between the predictions of two methods, and how small Monte Carlo lets them be.

As in `metrics`, distances are functions of weighted test points. Two finite sets of draws of the
*same* distribution are never at distance 0: the **Monte-Carlo floor** is the distance they would
show, estimated from the spread of the draws and their effective sample size (ESS). A distance
near its floor says that the methods cannot be told apart with these draws.

References
----------
Izmailov et al. (2021), What are Bayesian neural network posteriors really like?, arXiv
2104.14421, section 5.1 (agreement, total variation) · Vehtari et al. (2021),
doi:10.1214/20-BA1221 (ESS).
"""

from ntkbayes.evaluation.distances.classes import (
    agreement,
    jensen_shannon,
    jensen_shannon_floor,
    mean_probability_error,
    total_variation,
    total_variation_floor,
)
from ntkbayes.evaluation.distances.marginals import (
    normal_wasserstein_1,
    normal_wasserstein_2,
    probability_quantile_error,
    probability_wasserstein_1,
    probability_wasserstein_floor,
    quantile_error,
    squared_quantile_error,
    wasserstein_1,
    wasserstein_2,
    wasserstein_2_floor,
    wasserstein_floor,
)

__all__ = [
    "agreement",
    "jensen_shannon",
    "jensen_shannon_floor",
    "mean_probability_error",
    "normal_wasserstein_1",
    "normal_wasserstein_2",
    "probability_quantile_error",
    "probability_wasserstein_1",
    "probability_wasserstein_floor",
    "quantile_error",
    "squared_quantile_error",
    "total_variation",
    "total_variation_floor",
    "wasserstein_1",
    "wasserstein_2",
    "wasserstein_2_floor",
    "wasserstein_floor",
]
