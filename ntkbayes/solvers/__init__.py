"""Solvers of the regularised, linearised training problem where there is no closed form."""

from ntkbayes.solvers.hessian import (
    Hessian,
    SoftmaxHessian,
    hessian_at,
    softmax_hessian,
    uniform_hessian,
)
from ntkbayes.solvers.stationarity import (
    Solution,
    default_tolerance,
    find_mode,
    require_converged,
    solve_stationarity,
)

__all__ = [
    "Hessian",
    "SoftmaxHessian",
    "Solution",
    "default_tolerance",
    "find_mode",
    "hessian_at",
    "require_converged",
    "softmax_hessian",
    "solve_stationarity",
    "uniform_hessian",
]
