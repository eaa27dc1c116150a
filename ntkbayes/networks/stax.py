"""Any architecture of neural-tangents' ``stax`` as a network."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ntkbayes._arrays import computing_dtype, is_traced, more_digits
from ntkbayes._checks import check_unmasked
from ntkbayes._types import AnyArray, Array, Float, Key, typed
from ntkbayes.kernels.memory import check_memory
from ntkbayes.kernels.ranges import check_kernel_range
from ntkbayes.networks.base import KernelPair, WideNetwork

__all__ = ["StaxNetwork", "stax_network"]


class StaxNetwork(WideNetwork):
    """A neural-tangents architecture; made by `stax_network`."""

    init_fn: Callable[..., Any] = eqx.field(static=True)
    apply_fn: Callable[..., Any] = eqx.field(static=True)
    kernel_fn: Callable[..., Any] = eqx.field(static=True)
    input_shape: tuple[int, ...] | None = eqx.field(static=True)

    def kernel(
        self, x1: Float[AnyArray, "n d"], x2: Float[AnyArray, "m d"] | None = None
    ) -> KernelPair:
        """Infinite-width kernels, (n m) each; `x2` None means x1.

        Raises
        ------
        ValueError
            If the result does not fit memory or leaves the range of its floating-point type.
            neural-tangents multiplies two variances: inputs beyond the fourth root of the type's
            range (1e±9 in float32, 1e±76 in float64) are too large or too small for it.
        """
        pair = self._kernels(x1, x2, ("nngp", "ntk"))
        return KernelPair(pair.nngp, pair.ntk)

    def nngp(
        self, x1: Float[AnyArray, "n d"], x2: Float[AnyArray, "m d"] | None = None
    ) -> Float[Array, "n m"]:
        """Return the NNGP kernel alone."""
        return self._kernels(x1, x2, "nngp")

    def ntk(
        self, x1: Float[AnyArray, "n d"], x2: Float[AnyArray, "m d"] | None = None
    ) -> Float[Array, "n m"]:
        """Return the NTK alone."""
        return self._kernels(x1, x2, "ntk")

    def init(self, key: Key, *, num_features: int, num_outputs: int) -> Any:
        """Random parameters; raises `ValueError` if the architecture has another output size."""
        shape = self.input_shape or (num_features,)
        (*_, outputs), params = self.init_fn(key, (-1, *shape))
        if outputs != num_outputs:
            raise ValueError(
                f"the stax network's last layer has {outputs} outputs, but the likelihood "
                f"needs {num_outputs}: change its last Dense layer."
            )
        return params

    def apply(self, params: Any, x: Float[Array, "n d"]) -> Float[Array, "n c"]:
        """Evaluate the finite network at each row of x."""
        return self.apply_fn(params, self._shaped(x))

    def settings(self) -> dict[str, Any]:
        """Say that it is a stax architecture, with its input shape."""
        return {"network": "stax", "input_shape": self.input_shape}

    def _kernels(self, x1: AnyArray, x2: AnyArray | None, kinds: str | tuple[str, ...]) -> Any:
        for name, x in (("x1", x1), ("x2", x2)):
            check_unmasked(name, x)
        num_kernels = 1 if isinstance(kinds, str) else len(kinds)
        dtype = computing_dtype(x1, x1 if x2 is None else x2)
        first, other = jnp.asarray(x1, dtype), None if x2 is None else jnp.asarray(x2, dtype)
        num_columns = len(first) if other is None else len(other)
        check_memory(
            "a stax network's kernel", len(first), num_columns, first.dtype,
            num_matrices=num_kernels,
        )  # fmt: skip
        shaped = None if other is None else self._shaped(other)
        kernels = self.kernel_fn(self._shaped(first), shaped, kinds)
        # neural-tangents promotes float32 where float64 is enabled.
        kernels = jax.tree.map(lambda kernel: kernel.astype(first.dtype), kernels)
        each = (kinds,) if isinstance(kinds, str) else kinds
        for kind, kernel in zip(each, jax.tree.leaves(kernels), strict=True):
            self._check_range(kernel, first, other, kind)
        return kernels

    def _check_range(self, kernel: Array, x1: Array, x2: Array | None, kind: str) -> None:
        """Refuse what overflows or underflows; nothing is checked while it is traced."""
        if any(is_traced(array) for array in (kernel, x1, x2)):
            return

        def own(x: Array) -> Array:
            one = jax.vmap(lambda row: self.kernel_fn(self._shaped(row[None]), None, kind)[0, 0])
            return one(x).astype(kernel.dtype)

        reach = float(jnp.max(jnp.abs(x1)))
        check_kernel_range(
            f"the kernel of a stax network at x1, with entries up to {reach:.3g},", kernel,
            source=np.zeros(()), remedy="scale the inputs, such as by standardising them, or "
            "change the layers' W_std or b_std",
        )  # fmt: skip
        _check_small("x1", x1, jnp.max(jnp.abs(kernel), axis=1), own)
        if x2 is not None:
            _check_small("x2", x2, jnp.max(jnp.abs(kernel), axis=0), own)

    def _shaped(self, x: Array) -> Array:
        return x if self.input_shape is None else x.reshape(x.shape[0], *self.input_shape)


def _check_small(name: str, x: Array, entries: Array, own: Callable[[Array], Array]) -> None:
    """Refuse rows of x whose kernel neural-tangents computes from underflowing squares.

    `entries` is their largest with any other input, and `own` their variance, asked for where there
    is a doubt: an entry may be zero, as between orthogonal inputs.
    """
    limits = jnp.finfo(entries.dtype)
    tiny = float(limits.tiny)
    largest = np.asarray(jnp.max(jnp.abs(x), axis=tuple(range(1, x.ndim))))
    small = largest < tiny**0.25
    doubtful = (largest > 0) & (small | np.asarray(entries < tiny**0.5))
    if not doubtful.any():
        return
    vanishing = doubtful.copy()
    vanishing[doubtful] = np.asarray(own(x[doubtful])) < tiny**0.5
    # One large input without variance among others is not seen by the network, which may be.
    vanishing &= small | vanishing[largest > 0].all()
    if vanishing.any():
        row = int(np.argmax(vanishing))
        raise ValueError(
            f"{name} makes a stax network's kernel underflow in {limits.dtype.name} at row {row}, "
            f"whose entries reach {largest[row]:.3g}: {more_digits(limits.dtype)}scale the inputs, "
            "set tiny ones to zero, or change the layers' W_std or b_std."
        )


@typed
def stax_network(
    triple: tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]],
    *,
    input_shape: tuple[int, ...] | None = None,
) -> StaxNetwork:
    """Wrap ``(init_fn, apply_fn, kernel_fn)`` of ``stax.serial(...)``.

    Import ``stax`` from `ntkbayes.networks.neural_tangents`, which needs the extra ``stax``.

    Parameters
    ----------
    triple
        What every ``stax`` layer or combinator returns.
    input_shape
        Shape that one flat row of x takes, such as ``(8, 8, 1)`` for convolutions; None for flat.

    References
    ----------
    Novak et al. 2020, arXiv 1912.02803 (neural-tangents).

    Examples
    --------
    >>> from ntkbayes.networks.neural_tangents import stax
    >>> wide = nb.stax_network(stax.serial(stax.Dense(64), stax.Relu(), stax.Dense(2)))
    >>> same = nb.dense_network(depth=1, weight_scale=1.0, bias_scale=0.0)
    >>> np.allclose(wide.ntk(data.x_train), same.ntk(data.x_train))
    True
    """
    init_fn, apply_fn, kernel_fn = triple
    return StaxNetwork(init_fn, apply_fn, kernel_fn, input_shape)
