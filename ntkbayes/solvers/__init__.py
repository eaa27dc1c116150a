"""Solvers of the regularised, linearised training problem where there is no closed form."""

from ntkbayes.solvers.certificate import (
    default_tolerance,
    largest_deviation,
    require_accurate,
    require_resolved,
)
from ntkbayes.solvers.flow import Flow, FlowSolution, prepare_flow, solve_flow
from ntkbayes.solvers.hessian import (
    Hessian,
    SoftmaxHessian,
    hessian_at,
    preconditioner,
    softmax_hessian,
    uniform_hessian,
)
from ntkbayes.solvers.stationarity import (
    Solution,
    find_mode,
    require_converged,
    solve_stationarity,
)

__all__ = [
    "Flow",
    "FlowSolution",
    "Hessian",
    "SoftmaxHessian",
    "Solution",
    "default_tolerance",
    "find_mode",
    "hessian_at",
    "largest_deviation",
    "preconditioner",
    "prepare_flow",
    "require_accurate",
    "require_converged",
    "require_resolved",
    "softmax_hessian",
    "solve_flow",
    "solve_stationarity",
    "uniform_hessian",
]
