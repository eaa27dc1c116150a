"""Any finite network: a function that makes parameters and a function that evaluates them."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ntkbayes._types import Array, Float, Key, typed
from ntkbayes.networks.base import Network
from ntkbayes.networks.stack import DenseStack

__all__ = ["FiniteNetwork", "finite_network", "parameters"]


class FiniteNetwork(Network):
    """A network without infinite-width kernels; made by `finite_network`.

    Attributes
    ----------
    rest
        What ``init_fn`` returns besides parameters: activation functions, sizes and the like.
    num_parameters
        Number of weights p.
    """

    init_fn: Callable[..., Any] = eqx.field(static=True)
    apply_fn: Callable[..., Any] = eqx.field(static=True)
    input_shape: tuple[int, ...] | None = eqx.field(static=True)
    stack_fn: Callable[..., DenseStack] | None = eqx.field(static=True)
    num_parameters: int = eqx.field(static=True)
    rest: Any

    def init(self, key: Key, *, num_features: int, num_outputs: int) -> Any:
        """Random parameters: what ``init_fn`` returns, with None where it is no parameter.

        Raises
        ------
        ValueError
            If ``apply_fn`` fails on inputs (n, `num_features`) or returns another number of
            outputs.
        """
        params = parameters(self.init_fn(key))
        inputs = jax.ShapeDtypeStruct((2, num_features), jnp.result_type(float))
        try:
            output = jax.eval_shape(self.apply, params, inputs)
        except Exception as error:  # whatever the user's own code raises
            raise ValueError(
                f"apply_fn failed on inputs with {num_features} features: {error}"
            ) from error
        if output.shape[1] != num_outputs:
            raise ValueError(
                f"apply_fn returns {output.shape[1]} outputs, but the likelihood needs "
                f"{num_outputs}: change the network's last layer."
            )
        return params

    def apply(self, params: Any, x: Float[Array, "n d"]) -> Float[Array, "n c"]:
        """Evaluate the network at each row of x.

        Raises
        ------
        ValueError
            If ``apply_fn`` does not return an array (n, c).
        """
        inputs = x if self.input_shape is None else x.reshape(len(x), *self.input_shape)
        output = self.apply_fn(self.complete(params), inputs)
        shape = getattr(output, "shape", None)
        if shape is None or len(shape) != 2 or shape[0] != len(x):
            raise ValueError(
                f"apply_fn must return an array of shape ({len(x)}, c) on {len(x)} inputs, "
                f"but returns {type(output).__name__ if shape is None else shape}."
            )
        return output

    def complete(self, params: Any) -> Any:
        """Put parameters back into what ``init_fn`` returned."""
        return eqx.combine(params, self.rest)

    def settings(self) -> dict[str, Any]:
        """Say that it is a finite network, with its size."""
        return {
            "network": "finite",
            "num_parameters": self.num_parameters,
            "input_shape": self.input_shape,
        }


@typed
def finite_network(
    init_fn: Callable[..., Any],
    apply_fn: Callable[..., Any],
    *,
    input_shape: tuple[int, ...] | None = None,
    dense_stack: Callable[..., DenseStack] | None = None,
) -> FiniteNetwork:
    """Describe a network by how it is made and evaluated, in any JAX library.

    Every floating-point array in ``init_fn``'s result is a parameter: it is trained, and its prior
    is N(0, 1/λ) as it stands. Arrays that are not to be trained belong into ``apply_fn`` or under
    `jax.lax.stop_gradient`. Multiplying a layer's output by a constant instead of its weights
    (NTK parameterisation) gives wide networks a kernel that does not depend on their width.

    Parameters
    ----------
    init_fn
        ``init_fn(key) -> params``, a pytree: an Equinox module, a Flax variable dictionary, ….
    apply_fn
        ``apply_fn(params, x) -> (n, c)``, deterministic, each row of x on its own.
    input_shape
        Shape that one flat row of x takes before ``apply_fn``, such as ``(8, 8, 1)``.
    dense_stack
        ``dense_stack(params)`` describes the network as a stack of dense layers, which makes its
        empirical NTK much cheaper (`ntkbayes.empirical_ntk`). The claim is checked there.

    Raises
    ------
    ValueError
        If ``init_fn``'s result holds no parameter, or an array that is not real floating-point.

    Examples
    --------
    Equinox:

    >>> import equinox as eqx
    >>> network = nb.finite_network(
    ...     lambda key: eqx.nn.MLP(2, 3, width_size=64, depth=2, key=key),
    ...     lambda model, x: jax.vmap(model)(x),
    ... )
    >>> network.num_parameters
    4547

    Flax Linen: ``nb.finite_network(lambda key: model.init(key, x[:1]), model.apply)``.

    Flax NNX, for a function ``make(rngs)`` that returns a module::

        graph, _ = nnx.split(make(nnx.Rngs(0)))
        network = nb.finite_network(
            lambda key: nnx.state(make(nnx.Rngs(key)), nnx.Param),
            lambda state, x: nnx.merge(graph, state)(x),
        )
    """
    made = eqx.filter_eval_shape(init_fn, jax.random.key(0))
    for path, leaf in jax.tree.leaves_with_path(made):
        if _is_array(leaf) and not _is_floating(leaf):
            raise ValueError(
                f"init_fn's result must hold real floating-point arrays only, but its leaf "
                f"{jax.tree_util.keystr(path)} is {leaf.dtype}: keep it in apply_fn."
            )
    shapes, rest = eqx.partition(made, _is_array)
    sizes = [leaf.size for leaf in jax.tree.leaves(shapes)]
    if not sizes:
        raise ValueError("init_fn's result holds no floating-point array, so no parameter.")
    return FiniteNetwork(init_fn, apply_fn, input_shape, dense_stack, sum(sizes), rest)


def parameters(params: Any) -> Any:
    """Keep floating-point arrays, as JAX arrays; None stands for anything else."""
    kept = eqx.filter(params, lambda leaf: _is_array(leaf) and _is_floating(leaf))
    return jax.tree.map(jnp.asarray, kept)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | jax.ShapeDtypeStruct)


def _is_floating(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.floating)
