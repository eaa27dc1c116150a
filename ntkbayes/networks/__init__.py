"""Networks: what is trained, with kernels at infinite and functions at finite width."""

from ntkbayes.networks.base import KernelPair, Network
from ntkbayes.networks.dense import DenseNetwork, dense_network
from ntkbayes.networks.stax import StaxNetwork, stax_network

__all__ = [
    "DenseNetwork",
    "KernelPair",
    "Network",
    "StaxNetwork",
    "dense_network",
    "stax_network",
]
