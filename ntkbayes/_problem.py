"""The training problem every method shares: checked data and its kernels."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from ntkbayes._arrays import computing_dtype, is_traced, more_digits
from ntkbayes._checks import check_at_least, check_finite, check_kept, check_not_empty, warn_caller
from ntkbayes._types import AnyArray, Array, Float, Key
from ntkbayes.kernels.memory import check_bytes
from ntkbayes.kernels.ranges import check_kernel_range
from ntkbayes.likelihoods import Gaussian, Likelihood
from ntkbayes.networks import Network, WideNetwork
from ntkbayes.networks.finite import weights_of

HIDDEN = 128
"""Roundings of a prior variance that smaller noise is lost in."""


class TrainingSet(eqx.Module):
    """Inputs and targets in one dtype, checked."""

    x: Float[Array, "n d"]
    targets: Float[Array, "n c"]


class Objective(eqx.Module):
    """F(θ) = −Σ log p(yᵢ | f(xᵢ; θ)) + ½ λ ‖θ − θ₀‖², with θ₀ = `center`."""

    network: Network
    likelihood: Likelihood
    train: TrainingSet
    prior_precision: Float[Array, ""]
    center: Any

    def __call__(self, params: Any) -> Float[Array, ""]:
        """F(θ) in nats."""
        f = self.network.apply(params, self.train.x)
        fit = jnp.sum(jax.vmap(self.likelihood.log_prob)(self.train.targets, f))
        moved = optax.tree.norm(optax.tree.sub(params, self.center), squared=True)
        return 0.5 * self.prior_precision * moved - fit


def training_set(likelihood: Likelihood, x: AnyArray, y: AnyArray) -> TrainingSet:
    """Check inputs and observations and bring them to the inputs' floating dtype.

    Whole numbers, and numbers of less than single precision (float16, bfloat16), are taken to JAX's
    default floating type: every method computes in single or double precision.

    Raises
    ------
    ValueError
        If x is not a finite, non-empty (n, d) array, y does not fit the likelihood or x, or the
        inputs' type does not keep y's counts.
    """
    if x.ndim != 2:
        raise ValueError(f"x must have shape (n, d), but has {tuple(x.shape)}.")
    check_not_empty("x", x)
    check_finite("x", x)
    targets = likelihood.targets(y)
    if len(x) != len(targets):
        raise ValueError(f"x and y must have as many rows, but have {len(x)} and {len(targets)}.")
    dtype = computing_dtype(x)
    check_kept("x", x, dtype)
    check_kept("y", targets, dtype, whole=likelihood.counts)
    return TrainingSet(jnp.asarray(x, dtype), targets.astype(dtype))


def initial_params(network: Network, likelihood: Likelihood, train: TrainingSet, key: Key) -> Any:
    """Random parameters θ₀ of one finite network, in the inputs' dtype."""
    params = network.init(key, num_features=train.x.shape[1], num_outputs=likelihood.num_outputs)
    return jax.tree.map(lambda leaf: leaf.astype(train.x.dtype), params)


def checked_center(network: Network, train: TrainingSet, center: Any, like: Any) -> Any:
    """Return the prior mean of the weights in the inputs' dtype: zero if `center` is None.

    Parameters
    ----------
    center
        Laid out like the weights, or a whole model.
    like
        Weights, or their shapes.

    Raises
    ------
    ValueError
        If `center` has another structure or other shapes, or is not finite.
    """
    dtype = train.x.dtype
    if center is None:
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, dtype), like)
    is_whole = len(jax.tree.leaves(center)) > len(jax.tree.leaves(like))
    given = weights_of(network, center, train.x.shape[1]) if is_whole else center
    wanted, found = (
        (jax.tree.structure(tree), [np.shape(leaf) for leaf in jax.tree.leaves(tree)])
        for tree in (like, given)
    )
    if wanted != found:
        raise ValueError(
            f"center must be laid out like the network's parameters, with shapes {wanted[1]}, but "
            f"has shapes {found[1]}" + (" in another structure." if wanted[1] == found[1] else ".")
        )
    check_finite("center", ravel_pytree(given)[0])
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), given)


def checked_inputs(train: TrainingSet, x: AnyArray) -> Float[Array, "m d"]:
    """Check test inputs against the training inputs and bring them to the same dtype.

    Raises
    ------
    ValueError
        If x is not a finite, non-empty (m, d) array with the training data's d.
    """
    if not hasattr(x, "ndim"):
        raise ValueError(f"x must be an array, but is a {type(x).__name__}.")
    num_features = train.x.shape[1]
    if x.ndim != 2 or x.shape[1] != num_features:
        raise ValueError(f"x must have shape (m, {num_features}), but has {tuple(x.shape)}.")
    check_not_empty("x", x)
    check_finite("x", x)
    check_kept("x", x, train.x.dtype)
    return jnp.asarray(x, dtype=train.x.dtype)


def check_draws(name: str, number: int, train: TrainingSet, x: AnyArray | None = None) -> None:
    """Raise unless at least one function is to be drawn, and all fit the memory.

    Counted are four arrays of functions at the training points and at x: initial functions, noise,
    solutions and results.

    Raises
    ------
    ValueError
        With the estimate and what is available.
    """
    check_at_least(name, number, 1)
    points = len(train.x) + (0 if x is None else len(x))
    numbers = 4 * number * points * train.targets.shape[1]
    check_bytes(
        f"{name} = {number} functions at {points} points",
        numbers * train.x.dtype.itemsize,
        remedy="ask for fewer, or for fewer points at a time",
    )


def infinite_width(network: Network) -> WideNetwork:
    """Return the network if its kernels at infinite width are known.

    Raises
    ------
    ValueError
        If they are not, naming the methods that do without.
    """
    if not isinstance(network, WideNetwork):
        raise ValueError(
            f"a {type(network).__name__} has no infinite-width kernels: use dense_network or "
            "stax_network here, train it with linearized_ensemble or deep_ensemble, or sample its "
            'weights with hmc(…, space="weight").'
        )
    return network


def prior_kernel(
    network: Network,
    x1: Array,
    x2: Array | None = None,
    *,
    prior_precision: float,
    kind: str = "ntk",
) -> Float[Array, "n m"]:
    """K = Θ / λ (or Q / λ for ``kind="nngp"``): the prior covariance of the function.

    Raises
    ------
    ValueError
        If the network has no infinite-width kernels, or K leaves the range of its type.
    """
    wide = infinite_width(network)
    return over_precision((wide.ntk if kind == "ntk" else wide.nngp)(x1, x2), prior_precision)


def warn_of_hidden_noise(likelihood: Likelihood, variances: Float[Array, "n"]) -> None:
    """Warn if Gaussian noise is below `HIDDEN` roundings of the median prior variance K(x, x).

    A posterior variance at a training input is then a difference of numbers whose rounding is as
    large as it is itself: at 29 roundings single variances were off by 10 to 40 %, at 3 by 95 %. Of
    single outlying inputs the bound on solutions tells.
    """
    if not isinstance(likelihood, Gaussian) or is_traced(variances):
        return
    ordinary, eps = float(jnp.median(variances)), float(jnp.finfo(variances.dtype).eps)
    if likelihood.noise_variance < HIDDEN * eps * ordinary:
        warn_caller(
            f"noise_variance = {likelihood.noise_variance:.2g} is below {HIDDEN} roundings in "
            f"{variances.dtype} of the prior variance, {ordinary:.2g}: variances and draws near "
            "training inputs may be off by 20 % and more, elsewhere they are not; "
            f"{more_digits(variances.dtype)}choose a larger noise_variance."
        )


def over_precision(
    kernel: Float[Array, "*s"], prior_precision: float | Float[Array, ""]
) -> Float[Array, "*s"]:
    """Divide a kernel by λ, or its diagonal, or one between outputs too.

    Raises
    ------
    ValueError
        If the result overflows or vanishes; while it is traced nothing is checked.
    """
    covariance = kernel / prior_precision
    if not is_traced(covariance):
        check_kernel_range(
            f"the prior covariance, a kernel over prior_precision = {float(prior_precision):.3g},",
            covariance,
            source=kernel,
            remedy="choose another prior_precision",
        )
    return covariance


def kernel_name(network: Network, kind: str) -> str:
    """Name a kernel (``"ntk"`` or ``"nngp"``) and its network, for error messages."""
    settings = ", ".join(f"{key} {value}" for key, value in network.settings().items())
    return f"the {kind.upper()} covariance of the network ({settings})"
