"""Networks: what is trained, with kernels at infinite and functions at finite width."""

from ntkbayes.networks.base import KernelPair, Network, WideNetwork
from ntkbayes.networks.dense import DenseNetwork, dense_network
from ntkbayes.networks.empirical import (
    empirical_ntk,
    empirical_ntk_trace,
    known_layers,
    known_stack,
)
from ntkbayes.networks.finite import FiniteNetwork, finite_network
from ntkbayes.networks.linearization import Linearization, linearize
from ntkbayes.networks.stack import DenseLayer, DenseStack
from ntkbayes.networks.stax import StaxNetwork, stax_network

__all__ = [
    "DenseLayer",
    "DenseNetwork",
    "DenseStack",
    "FiniteNetwork",
    "KernelPair",
    "Linearization",
    "Network",
    "StaxNetwork",
    "WideNetwork",
    "dense_network",
    "empirical_ntk",
    "empirical_ntk_trace",
    "finite_network",
    "known_layers",
    "known_stack",
    "linearize",
    "stax_network",
]
