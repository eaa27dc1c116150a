"""Distances between the predictions of two methods, and how small Monte Carlo lets them be.

As in `metrics`, distances are functions of weighted test points. Two finite sets of draws of the
*same* distribution are never at distance 0: the **Monte-Carlo floor** is the distance they would
show, estimated from the spread of the draws and their effective sample size (ESS). A distance
near its floor says that the methods cannot be told apart with these draws.

Distances between joint distributions over all test points (`energy_distance`, `squared_mmd`,
`mean_distance`, `covariance_comparison`, `variance_ratio`) take no weights: they are estimates
without bias over `joint_draws`, 0 on average for equal distributions, each with its Monte-Carlo
standard error.

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
from ntkbayes.evaluation.distances.covariances import (
    CovarianceComparison,
    covariance_comparison,
    enough_for_covariance,
)
from ntkbayes.evaluation.distances.draws import Estimate, JointDraws, joint_draws
from ntkbayes.evaluation.distances.joint import (
    energy_distance,
    mean_distance,
    median_distance,
    squared_mmd,
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
from ntkbayes.evaluation.distances.variances import (
    distance_from_training,
    far_from_training,
    mean_variance,
    relative_to,
    variance_ratio,
)

__all__ = [
    "CovarianceComparison",
    "Estimate",
    "JointDraws",
    "agreement",
    "covariance_comparison",
    "distance_from_training",
    "energy_distance",
    "enough_for_covariance",
    "far_from_training",
    "jensen_shannon",
    "jensen_shannon_floor",
    "joint_draws",
    "mean_distance",
    "mean_probability_error",
    "mean_variance",
    "median_distance",
    "normal_wasserstein_1",
    "normal_wasserstein_2",
    "probability_quantile_error",
    "probability_wasserstein_1",
    "probability_wasserstein_floor",
    "quantile_error",
    "relative_to",
    "squared_mmd",
    "squared_quantile_error",
    "total_variation",
    "total_variation_floor",
    "variance_ratio",
    "wasserstein_1",
    "wasserstein_2",
    "wasserstein_2_floor",
    "wasserstein_floor",
]
