"""Gaussian posteriors over the weights of a network linearised at θ̂.

The precision is P = λ I + G, with G = Σᵢ Jᵢᵀ Wᵢ Jᵢ the generalised Gauss–Newton matrix (GGN) of
the n data, Jᵢ = ∂f(xᵢ)/∂θ and Wᵢ the likelihood's curvature, or an approximation of G:

- `FullWeights`: G itself, a p × p matrix;
- `DualWeights`: the same posterior from an (n c) × (n c) matrix, for more weights than data;
- `KroneckerWeights`: one Kronecker product for each layer, no correlation between layers;
- `DiagonalWeights`: the diagonal of G.

Which weights are random, the rest being held fixed, is decided by `SelectedWeights`.

References
----------
Immer, Korzepa, Bauer 2021, arXiv 2008.08400 (linearised Laplace). Martens 2020, arXiv 1412.1193
(GGN). Martens & Grosse 2015, arXiv 1503.05671 (Kronecker factors).
"""

from ntkbayes.posteriors.weights.base import WeightPosterior
from ntkbayes.posteriors.weights.diagonal import DiagonalWeights, diagonal_weights
from ntkbayes.posteriors.weights.dual import DualWeights, dual_weights
from ntkbayes.posteriors.weights.full import FullWeights, full_weights
from ntkbayes.posteriors.weights.kronecker import KroneckerWeights, kronecker_weights
from ntkbayes.posteriors.weights.selection import SelectedWeights, select_weights

__all__ = [
    "DiagonalWeights",
    "DualWeights",
    "FullWeights",
    "KroneckerWeights",
    "SelectedWeights",
    "WeightPosterior",
    "diagonal_weights",
    "dual_weights",
    "full_weights",
    "kronecker_weights",
    "select_weights",
]
