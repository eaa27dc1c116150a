"""The initial functions f₀: their law, and draws that can be evaluated wherever one asks.

Exact draws of f₀ ~ GP(0, Q₀) are known at the points asked for so far and continued to new points
by the conditional law given all of them, so a function is the same in one call for all points or
in several calls. Every point has its own random numbers, decided by the key and its number in the
order of asking.

Beyond some ten thousand points a factor of Q₀ is too large; there the initial functions are really
drawn finite networks, Gaussian up to O(1/width).

References
----------
He, Lakshminarayanan, Teh 2020, arXiv 2007.05864 (``"ntk"``: J(x) z at a random network).
"""

import abc
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ntkbayes._linalg import covariance_factor, extend_factor, repeated_rows
from ntkbayes._problem import kernel_name, over_precision
from ntkbayes._types import Array, Float, Key
from ntkbayes.networks import KernelPair, WideNetwork

__all__ = [
    "INITIAL",
    "INITIAL_FUNCTIONS",
    "InitialFunctions",
    "InitialLaw",
    "initial_law",
]

INITIAL = ("nngp", "ntk", "zero")
INITIAL_FUNCTIONS = ("exact", "networks")


class InitialFunctions(eqx.Module):
    """Initial functions, one per member."""

    @abc.abstractmethod
    def evaluate(self, x: Float[Array, "m d"]) -> tuple[Float[Array, "s m c"], "InitialFunctions"]:
        """Values at x, and the functions with these values settled."""


class ZeroFunctions(InitialFunctions):
    """The initial function zero."""

    num_draws: int = eqx.field(static=True)
    num_outputs: int = eqx.field(static=True)

    def evaluate(self, x: Float[Array, "m d"]) -> tuple[Float[Array, "s m c"], InitialFunctions]:
        """Zeros."""
        return jnp.zeros((self.num_draws, len(x), self.num_outputs), x.dtype), self


class ExactFunctions(InitialFunctions):
    """Draws of GP(0, Q₀), f₀ = L z at the points known so far.

    Time is cubic in the number of new points and quadratic in that of the known ones.
    """

    law: "InitialLaw"
    key: Key
    points: Float[Array, "k d"]
    factor: Float[Array, "k k"]
    z: Float[Array, "s k c"]
    num_asked: int = eqx.field(static=True)

    def evaluate(self, x: Float[Array, "m d"]) -> tuple[Float[Array, "s m c"], InitialFunctions]:
        """B z + C z′, with [B, C] the rows that extend L; points that are known have their own."""
        z_new = _normals(self.key, self.num_asked, len(x), self.z.shape, x.dtype)
        known = repeated_rows(self.points, x)
        cross, own = extend_factor(
            self.factor,
            self.law.kernel(self.points, x),
            self.law.kernel(x),
            known=known,
            name=kernel_name(self.law.network, self.law.initial),
        )
        values = jnp.einsum("mk,skc->smc", cross, self.z)
        values = values + jnp.einsum("mk,skc->smc", own, z_new)
        new = np.flatnonzero(known < 0)
        above = jnp.zeros((len(self.points), len(new)), x.dtype)
        factor = jnp.block([[self.factor, above], [cross[new], own[new][:, new]]])
        z = jnp.concatenate([self.z, z_new[:, new]], axis=1)
        points = jnp.concatenate([self.points, x[new]])
        num_asked = self.num_asked + len(x)
        return values, ExactFunctions(self.law, self.key, points, factor, z, num_asked)


class NetworkFunctions(InitialFunctions):
    """Finite networks at their random initialisation.

    ``"nngp"``: the network itself; ``"ntk"``: J(x) z / √λ with z ~ N(0, I) in parameter space.
    """

    law: "InitialLaw"
    num_outputs: int = eqx.field(static=True)
    keys: Key

    def evaluate(self, x: Float[Array, "m d"]) -> tuple[Float[Array, "s m c"], InitialFunctions]:
        """One network after another, made anew from its key: memory of one network."""
        network = self.law.network
        apply = partial(network.apply, x=x)

        def one(key: Key) -> Array:
            key_params, key_direction = jax.random.split(key)
            params = network.init(key_params, num_features=x.shape[1], num_outputs=self.num_outputs)
            params = jax.tree.map(lambda leaf: leaf.astype(x.dtype), params)
            if self.law.initial == "nngp":
                return apply(params)
            direction = optax.tree.random_like(key_direction, params, jax.random.normal)
            return jax.jvp(apply, (params,), (direction,))[1] / self.law.prior_precision**0.5

        return jax.lax.map(one, self.keys), self


class InitialLaw(eqx.Module):
    """The law of f₀ as an ensemble has it.

    Attributes
    ----------
    initial
        ``"nngp"``, ``"ntk"`` or ``"zero"``.
    kind
        ``"exact"`` or ``"networks"``.
    factor
        L with L Lᵀ = Q₀(X, X) at the training points; None where it is not needed.
    """

    network: WideNetwork
    prior_precision: float
    initial: str = eqx.field(static=True)
    kind: str = eqx.field(static=True)
    factor: Float[Array, "n n"] | None

    def kernel(
        self, x1: Float[Array, "n d"], x2: Float[Array, "m d"] | None = None
    ) -> Float[Array, "n m"]:
        """Q₀ between rows: Q for ``"nngp"``, Θ / λ for ``"ntk"``."""
        if self.initial == "nngp":
            return self.network.nngp(x1, x2)
        return over_precision(self.network.ntk(x1, x2), self.prior_precision)

    def draw(
        self, key: Key, x_train: Float[Array, "n d"], *, num_draws: int, num_outputs: int
    ) -> tuple[Float[Array, "s n c"], InitialFunctions]:
        """Draw functions, and evaluate them at the training points."""
        if self.initial == "zero":
            return ZeroFunctions(num_draws, num_outputs).evaluate(x_train)
        if self.kind == "networks":
            keys = jax.random.split(key, num_draws)
            return NetworkFunctions(self, num_outputs, keys).evaluate(x_train)
        assert self.factor is not None  # made with the law where draws are exact
        z = _normals(key, 0, len(x_train), (num_draws, len(x_train), num_outputs), x_train.dtype)
        values = jnp.einsum("ij,sjc->sic", self.factor, z)
        return values, ExactFunctions(self, key, x_train, self.factor, z, len(x_train))


def initial_law(
    network: WideNetwork, kernel: KernelPair, initial: str, prior_precision: float, kind: str
) -> InitialLaw:
    """Make the law from the network's kernel(X); factors Q₀ for exact draws."""
    factor = None
    if initial != "zero" and kind == "exact":
        covariance = (
            kernel.nngp if initial == "nngp" else over_precision(kernel.ntk, prior_precision)
        )
        factor = covariance_factor(covariance, name=kernel_name(network, initial))
    return InitialLaw(network, prior_precision, initial, kind, factor)


def _normals(
    key: Key, first: int, number: int, shape: tuple[int, ...], dtype: jnp.dtype
) -> Float[Array, "s m c"]:
    """Draw normal numbers of the points first, first + 1, …: the same in any division."""

    def one_point(number: Array) -> Array:
        return jax.random.normal(jax.random.fold_in(key, number), (shape[0], shape[2]), dtype)

    return jnp.swapaxes(jax.vmap(one_point)(jnp.arange(first, first + number)), 0, 1)
