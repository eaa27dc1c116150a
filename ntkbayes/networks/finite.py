"""Any finite network: a function that makes parameters and a function that evaluates them."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from ntkbayes._arrays import is_traced
from ntkbayes._types import Array, Float, Key, typed
from ntkbayes.networks.base import Network
from ntkbayes.networks.conduct import Tried, check_derivatives, check_rows
from ntkbayes.networks.leaves import (
    Leaf,
    describe_leaves,
    is_array,
    is_floating,
    is_none,
    with_gaps,
)
from ntkbayes.networks.stack import DenseStack

__all__ = ["FiniteNetwork", "finite_network", "weights_of"]


class FiniteNetwork(Network):
    """A network without infinite-width kernels; made by `finite_network`.

    Attributes
    ----------
    num_parameters
        Number of weights p.
    leaves
        What each leaf of ``init_fn``'s result is.
    rest
        That result with None in place of the weights: statistics and other arrays that are not
        trained, activation functions, sizes and the like.
    """

    init_fn: Callable[..., Any] = eqx.field(static=True)
    apply_fn: Callable[..., Any] = eqx.field(static=True)
    input_shape: tuple[int, ...] | None = eqx.field(static=True)
    stack_fn: Callable[..., DenseStack] | None = eqx.field(static=True)
    num_parameters: int = eqx.field(static=True)
    leaves: tuple[Leaf, ...] = eqx.field(static=True)
    tried: Tried = eqx.field(static=True)
    rest: Any

    def init(self, key: Key, *, num_features: int, num_outputs: int) -> Any:
        """Random parameters: what ``init_fn`` returns, with None where it is no weight.

        Raises
        ------
        ValueError
            If ``apply_fn`` fails on two rows of `num_features`, returns another number of outputs,
            makes rows depend on one another, or has no derivative by a weight.
        """
        params = self._weights(self.init_fn(key))
        inputs = jax.ShapeDtypeStruct((2, num_features), jnp.result_type(float))
        try:
            # Not self.apply, which JAX would compare with others, and so the arrays in `rest`.
            output = jax.eval_shape(lambda params, x: self.apply(params, x), params, inputs)
        except Exception as error:  # whatever the user's own code raises
            raise ValueError(
                f"apply_fn failed on a {inputs.shape} input of {inputs.dtype}: {error}"
            ) from error
        if output.shape[1] != num_outputs:
            raise ValueError(
                f"apply_fn returns {output.shape[1]} outputs, but the likelihood needs "
                f"{num_outputs}: change the network's last layer."
            )
        self.check(num_features)
        return params

    def apply(self, params: Any, x: Float[Array, "n d"]) -> Float[Array, "n c"]:
        """Evaluate the network at each row of x.

        Raises
        ------
        ValueError
            If `params` do not fit, as in `complete`, or ``apply_fn`` does not return an array
            (n, c).
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
        """Put parameters back into what ``init_fn`` returned, in their floating-point type.

        Raises
        ------
        ValueError
            If `params` are laid out otherwise than what ``init_fn`` returns, or lack a weight.
        """
        given = self._laid_out(params)
        kept, structure = with_gaps(self.rest)
        weights = [leaf for what, leaf in zip(self.leaves, given, strict=True) if what.is_weight]
        dtype = jnp.result_type(*weights)

        def leaf(index: int, what: Leaf) -> Any:
            if what.source is not None:
                return given[what.source]
            found = kept[index] if given[index] is None else given[index]
            return found.astype(dtype) if is_array(found) and is_floating(found) else found

        return structure.unflatten([leaf(*numbered) for numbered in enumerate(self.leaves)])

    def weights(self, params: Any) -> Any:
        """Keep the weights of parameters, or of a whole model, as JAX arrays; None is the rest.

        Raises
        ------
        ValueError
            If `params` do not fit, as in `complete`, or hold other values of what is not trained
            than this network does.
        """
        for index, (what, given) in enumerate(
            zip(self.leaves, self._laid_out(params), strict=True)
        ):
            if what.source is None and given is not None:
                _check_same(what.path, given, with_gaps(self.rest)[0][index])
        return self._weights(params)

    def check(self, num_features: int) -> None:
        """Evaluate and differentiate ``apply_fn`` once, at the untrained network.

        Raises
        ------
        ValueError
            If a row's value depends on other rows or on chance, or a weight has no derivative.
        """
        if num_features in self.tried.sizes:
            return
        with jax.ensure_compile_time_eval():
            made = self.init_fn(jax.random.key(0))
            # Inside jit what this network carries along is traced, so it is taken from `made`.
            network = eqx.tree_at(lambda n: n.rest, self, self._carried(made), is_leaf=is_none)
            params = self._weights(made)
            inputs = jax.random.uniform(jax.random.key(1), (8, num_features))
            check_derivatives(network.apply, params, inputs)
            check_rows(network.apply, params, inputs)
        self.tried.sizes.add(num_features)

    def settings(self) -> dict[str, Any]:
        """Say that it is a finite network, with its size."""
        return {
            "network": "finite",
            "num_parameters": self.num_parameters,
            "input_shape": self.input_shape,
        }

    def _carried(self, made: Any) -> Any:
        leaves, structure = with_gaps(made)
        return structure.unflatten(
            [
                leaf if what.source is None else None
                for what, leaf in zip(self.leaves, leaves, strict=True)
            ]
        )

    def _weights(self, params: Any) -> Any:
        structure = with_gaps(self.rest)[1]
        given = self._laid_out(params)
        return structure.unflatten(
            [
                jnp.asarray(leaf) if what.is_weight else None
                for what, leaf in zip(self.leaves, given, strict=True)
            ]
        )

    def _laid_out(self, params: Any) -> list[Any]:
        """Leaves of `params`, of which none may be missing that is a weight."""
        given = with_gaps(params)[0]
        if len(given) != len(self.leaves):
            raise ValueError(
                f"params must be laid out like init_fn's result, which has {len(self.leaves)} "
                f"leaves, but have {len(given)}."
            )
        for what, leaf in zip(self.leaves, given, strict=True):
            if what.is_weight and leaf is None:
                raise ValueError(f"params lack the weight {what.path}.")
        return given


@typed
def finite_network(
    init_fn: Callable[..., Any],
    apply_fn: Callable[..., Any],
    *,
    input_shape: tuple[int, ...] | None = None,
    dense_stack: Callable[..., DenseStack] | None = None,
    weights: Callable[[Any], Any] | None = None,
) -> FiniteNetwork:
    """Describe a network by how it is made and evaluated, in any JAX library.

    The weights are trained, and their prior is N(0, 1/λ) as they stand. Which arrays of
    ``init_fn``'s result are weights is what its library says: in Flax NNX every `nnx.Param`, in
    Linen the collection ``params``, in Equinox every floating-point array but `eqx.nn.State` and
    NumPy arrays, elsewhere every floating-point array. All others, such as the running statistics
    of batch normalisation, stay what ``init_fn(jax.random.key(0))`` made them. `weights` says it
    where the library does not.

    Multiplying a layer's output by a constant instead of its weights (NTK parameterisation) gives
    wide networks a kernel that does not depend on their width.

    Parameters
    ----------
    init_fn
        ``init_fn(key) -> params``, a pytree: an Equinox or NNX module, a Linen variable
        dictionary, ….
    apply_fn
        ``apply_fn(params, x) -> (n, c)``, deterministic, each row of x on its own: dropout switched
        off, batch normalisation by its running statistics.
    input_shape
        Shape that one flat row of x takes before ``apply_fn``, such as ``(8, 8, 1)``.
    dense_stack
        ``dense_stack(params)`` describes the network as a stack of dense layers, which makes its
        empirical NTK much cheaper (`ntkbayes.empirical_ntk`). The claim is checked there.
    weights
        ``weights(params)`` picks what is trained, as in `equinox.tree_at`, such as
        ``lambda model: model.layers`` or ``lambda params: params["head"]``.

    Warns
    -----
    UserWarning
        If one matrix stands in two places of a tree that cannot say that it is one weight.

    Raises
    ------
    ValueError
        If ``init_fn``'s result holds no weight, or an array of which it does not say what it is
        and that cannot be one (integers, random keys) or looks like a statistic (a ``mean`` beside
        a ``var`` or ``std``).

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

    With batch normalisation, whose state goes along with the model::

        def make(key):
            return eqx.nn.make_with_state(Net)(key)

        def apply(model_and_state, x):
            model, state = model_and_state
            model = eqx.nn.inference_mode(model)
            return jax.vmap(model, in_axes=(0, None), out_axes=(0, None), axis_name="batch")(
                x, state
            )[0]

        network = nb.finite_network(make, apply)

    Flax NNX, whatever the module holds besides parameters::

        def make(key):
            model = Net(rngs=nnx.Rngs(key))
            model.eval()  # dropout off, running statistics
            return model

        network = nb.finite_network(make, lambda model, x: model(x))

    Flax Linen, where ``train=False`` is the module's own argument::

        network = nb.finite_network(
            lambda key: model.init(key, x[:1], train=False),
            lambda variables, x: model.apply(variables, x, train=False),
        )

    Statistics of a network that is trained already belong into what ``init_fn`` returns, such as
    ``{"params": fresh, "batch_stats": trained["batch_stats"]}``.
    """
    described: list[tuple[Leaf, ...]] = []

    def make(key: Key) -> Any:
        made = init_fn(key)
        described.append(describe_leaves(made, weights))
        return made

    shapes, structure = with_gaps(eqx.filter_eval_shape(make, jax.random.key(0)))
    (leaves,) = described[-1:]
    num_parameters = sum(
        shape.size for what, shape in zip(leaves, shapes, strict=True) if what.is_weight
    )
    carried = [what.source is None for what in leaves]
    kept = shapes
    if any(is_array(leaf) for leaf, is_carried in zip(shapes, carried, strict=True) if is_carried):
        kept = with_gaps(init_fn(jax.random.key(0)))[0]
    rest = structure.unflatten(
        [leaf if is_carried else None for leaf, is_carried in zip(kept, carried, strict=True)]
    )
    return FiniteNetwork(
        init_fn, apply_fn, input_shape, dense_stack, num_parameters, leaves, Tried(), rest
    )


def weights_of(network: Network, params: Any, num_features: int) -> Any:
    """Keep what is trained of a network's parameters, as JAX arrays; None stands for the rest.

    Raises
    ------
    ValueError
        As `FiniteNetwork.weights` and `FiniteNetwork.check`.
    """
    if isinstance(network, FiniteNetwork):
        network.check(num_features)
        return network.weights(params)
    kept = eqx.filter(params, lambda leaf: is_array(leaf) and is_floating(leaf))
    return jax.tree.map(jnp.asarray, kept)


def _check_same(path: str, given: Any, own: Any) -> None:
    """Raise if an array that is not trained has other values in a whole model than here."""
    if not (is_array(given) and is_array(own) and is_floating(given)):
        return
    if is_traced(given) or is_traced(own):
        return
    if given.shape != own.shape or not bool(jnp.all(given == own.astype(given.dtype))):
        raise ValueError(
            f"params hold other values of {path}, which is not trained, than the network: let "
            "init_fn return these, or say with finite_network's `weights` that it is trained."
        )
