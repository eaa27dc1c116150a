"""Solvers of the regularised, linearised training problem where there is no closed form."""

from ntkbayes.solvers.softmax_hessian import SoftmaxHessian, softmax_hessian
from ntkbayes.solvers.stationarity import (
    Solution,
    default_tolerance,
    find_mode,
    require_converged,
    solve_stationarity,
)

__all__ = [
    "SoftmaxHessian",
    "Solution",
    "default_tolerance",
    "find_mode",
    "require_converged",
    "softmax_hessian",
    "solve_stationarity",
]
