"""What a network supplies: its kernels at infinite width and its functions at finite width."""

import abc
from typing import Any

import equinox as eqx

from ntkbayes._types import Array, Float, Key

__all__ = ["KernelPair", "Network", "WideNetwork"]


class KernelPair(eqx.Module):
    """The two kernels of a wide network, per output: the full kernels are these ⊗ I_c.

    Parameters
    ----------
    nngp
        Q = cov f₀, the covariance of the untrained network over initialisations.
    ntk
        Θ = J Jᵀ, the neural tangent kernel.
    """

    nngp: Float[Array, "n m"]
    ntk: Float[Array, "n m"]


class Network(eqx.Module):
    """An architecture without its parameters: what is needed to make and evaluate networks.

    Examples
    --------
    >>> params = network.init(key, num_features=2, num_outputs=3)
    >>> network.apply(params, data.x_test).shape
    (300, 3)
    """

    @abc.abstractmethod
    def init(self, key: Key, *, num_features: int, num_outputs: int) -> Any:
        """Random parameters (a pytree) of one finite network."""

    @abc.abstractmethod
    def apply(self, params: Any, x: Float[Array, "n d"]) -> Float[Array, "n c"]:
        """Evaluate one finite network at each row of x."""

    @abc.abstractmethod
    def settings(self) -> dict[str, Any]:
        """Architecture, as written into results."""


class WideNetwork(Network):
    """A network whose kernels at infinite width are known."""

    @abc.abstractmethod
    def kernel(self, x1: Float[Array, "n d"], x2: Float[Array, "m d"] | None = None) -> KernelPair:
        """Infinite-width kernels between rows of x1 and x2; `x2` None means x1, symmetric."""

    @abc.abstractmethod
    def nngp(
        self, x1: Float[Array, "n d"], x2: Float[Array, "m d"] | None = None
    ) -> Float[Array, "n m"]:
        """Return the NNGP kernel of `kernel` alone; cheaper than both."""

    @abc.abstractmethod
    def ntk(
        self, x1: Float[Array, "n d"], x2: Float[Array, "m d"] | None = None
    ) -> Float[Array, "n m"]:
        """Return the NTK of `kernel` alone; cheaper than both."""
