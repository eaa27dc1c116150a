"""Laplace approximation of a finite network, linearised at its trained weights.

At θ̂ the network is replaced by f(x; θ̂) + J(x)(θ − θ̂), and the posterior of its weights by
N(θ̂, P⁻¹), P = λ I + Σᵢ Jᵢᵀ Wᵢ Jᵢ (or one of its approximations, `ntkbayes.posteriors.weights`). The
function is then Gaussian with mean f(x; θ̂) and covariance J(x) P⁻¹ J(x')ᵀ.

θ̂ should be a mode. How far from one it is, is measured by the Newton decrement

    √(∇Fᵀ P⁻¹ ∇F):

at no input is the mode of the linearised model further from f(x; θ̂) than so many posterior standard
deviations of f(x).

References
----------
Immer, Korzepa, Bauer 2021, arXiv 2008.08400. Daxberger et al. 2021, arXiv 2106.14806 (structures,
subsets of weights). MacKay 1992, doi 10.1162/neco.1992.4.3.448 (log marginal likelihood).
"""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from ntkbayes._checks import check_choice, check_finite, check_positive
from ntkbayes._problem import (
    Objective,
    TrainingSet,
    check_draws,
    checked_center,
    checked_inputs,
    training_set,
)
from ntkbayes._types import AnyArray, Array, Float, Key, Progress, silent, typed
from ntkbayes.likelihoods import Likelihood
from ntkbayes.networks import Network, linearize
from ntkbayes.networks.finite import weights_of
from ntkbayes.posteriors.weights import (
    SelectedWeights,
    WeightPosterior,
    diagonal_weights,
    dual_weights,
    full_weights,
    kronecker_weights,
    select_weights,
)
from ntkbayes.posteriors.weights.selection import Where
from ntkbayes.predictors import Draws, GaussianPredictor

__all__ = ["LinearizedLaplace", "linearized_laplace"]

STRUCTURES = ("full", "kron", "diag")
FORMS = ("auto", "weight", "dual")
KRON_BIASES = ("joint", "separate")
DRAWS_AT_ONCE = 16


class LinearizedLaplace(GaussianPredictor):
    """A finite network with Gaussian weights, linear in them.

    Attributes
    ----------
    posterior
        N(θ̂, P⁻¹) of the selected weights.
    log_marginal_likelihood
        log p(y | f(X; θ̂)) − ½ λ ‖θ̂ − c‖² − ½ log det(P / λ), in nats, over the selected weights.
    newton_decrement
        Distance of θ̂ from a mode, in posterior standard deviations.
    """

    likelihood: Likelihood
    train: TrainingSet
    prior_precision: float
    posterior: WeightPosterior
    hessian_structure: str = eqx.field(static=True)
    log_marginal_likelihood: Float[Array, ""]
    newton_decrement: Float[Array, ""]

    def mean(self, x: AnyArray) -> Float[Array, "m c"]:
        """f(x; θ̂), in latent units."""
        weights = self.posterior.weights
        return _evaluate(weights, checked_inputs(self.train, x))

    def covariance(self, x: AnyArray) -> Float[Array, "m c m c"]:
        """J(x) P⁻¹ J(x')ᵀ between points and outputs; noise excluded."""
        return self.posterior.covariance(checked_inputs(self.train, x))

    def variance(self, x: AnyArray) -> Float[Array, "m c"]:
        """Diagonal of `covariance`, without the rest."""
        return self.posterior.variance(checked_inputs(self.train, x))

    def draw(self, key: Key, x: AnyArray, *, num_draws: int, progress: Progress = silent) -> Draws:
        """Draw weights, and evaluate the linearised network at the rows of x."""
        x_test = checked_inputs(self.train, x)
        check_draws("num_draws", num_draws, self.train, x_test)
        moved = _draw_weights(self.posterior, key, num_draws)
        progress(0.5)
        latent = _linear_functions(self.posterior.weights, x_test, moved)
        progress(1.0)
        return Draws(latent, {})

    @property
    def is_posterior(self) -> bool:
        """The Laplace approximation, in the tangent space at θ̂."""
        return True

    @property
    def settings(self) -> dict[str, Any]:
        """Method and settings."""
        return {
            "method": "linearized_laplace",
            "prior_precision": self.prior_precision,
            "hessian_structure": self.hessian_structure,
            **self.posterior.settings(),
            "log_marginal_likelihood": float(self.log_marginal_likelihood),
            "newton_decrement": float(self.newton_decrement),
            **self.posterior.weights.settings(),
        }


@typed
def linearized_laplace(
    network: Network,
    likelihood: Likelihood,
    x: AnyArray,
    y: AnyArray,
    *,
    prior_precision: float,
    params: Any,
    center: Any = None,
    hessian_structure: str = "full",
    subset_of_weights: str | Where = "all",
    form: str = "auto",
    kron_bias: str = "joint",
    max_newton_decrement: float = 0.5,
) -> LinearizedLaplace:
    """Approximate the posterior of a trained finite network by its linearisation at θ̂.

    Parameters
    ----------
    network, likelihood, x, y
        The model and its training data, as in `ntkbayes.linearized_ensemble`.
    prior_precision
        λ > 0, precision of the prior on every weight.
    params
        θ̂, such as ``map_estimate(...).params``.
    center
        Mean c of the prior, laid out like `params` or a whole model; None for zero.
    hessian_structure
        ``"full"``, ``"kron"`` (a Kronecker product for each dense layer) or ``"diag"``.
    subset_of_weights
        Which weights are random, the others being held at θ̂: ``"all"``, ``"last_layer"``, or a
        function that picks a part of `params`, as in `equinox.tree_at`.
    form
        Of the full structure: ``"weight"`` factors a p × p matrix, ``"dual"`` one of
        (n c) × (n c); they agree to rounding. ``"auto"`` takes the smaller one.
    kron_bias
        Of the ``"kron"`` structure: ``"joint"`` takes a layer's bias as one more input of its
        weights, ``"separate"`` gives it a block of its own, as laplace-torch does. The first keeps
        the correlation of weights and bias; the second has the bias' exact block. Their log
        marginal likelihoods differ (by 0.7 to 4 nats in networks that were tried): compare models
        with the same one.
    max_newton_decrement
        Largest distance of θ̂ from a mode that is accepted, in posterior standard deviations.
        Smooth networks reach 1e-3 easily; ReLU networks, whose modes lie on kinks, were left with
        0.1 to 0.3. ``jnp.inf`` accepts any θ̂.

    Raises
    ------
    ValueError
        If data or settings are out of range, θ̂ is too far from a mode, the network's layers are
        not known for ``"kron"`` or ``"last_layer"``, or a matrix does not fit memory.

    Notes
    -----
    Time: n c p² + p³ (weight form), (n c)³ (dual), n c p (diag), n c p + Σ w³ (kron, layers of
    width w). For a Gaussian likelihood and a network linear in its weights the full structure is
    exact.

    Examples
    --------
    >>> found = nb.map_estimate(*model_sine, prior_precision=1.0, key=key)
    >>> posterior = nb.linearized_laplace(*model_sine, prior_precision=1.0, params=found.params)
    >>> np.allclose(posterior.mean(sine.x_test), smooth.apply(found.params, sine.x_test))
    True
    >>> posterior.variance(sine.x_test).shape
    (200, 1)
    """
    check_positive("prior_precision", prior_precision)
    check_choice("hessian_structure", hessian_structure, STRUCTURES)
    check_choice("form", form, FORMS)
    check_choice("kron_bias", kron_bias, KRON_BIASES)
    if kron_bias != "joint" and hessian_structure != "kron":
        raise ValueError(f"kron_bias={kron_bias!r} goes with hessian_structure='kron' only.")
    if form != "auto" and hessian_structure != "full":
        raise ValueError(f"form={form!r} goes with hessian_structure='full' only.")
    train = training_set(likelihood, x, y)
    given = weights_of(network, params, train.x.shape[1])
    theta = jax.tree.map(lambda leaf: leaf.astype(train.x.dtype), given)
    check_finite("params", ravel_pytree(theta)[0])
    middle = checked_center(network, train, center, theta)
    weights = select_weights(network, theta, subset_of_weights, train.x)
    precision = float(prior_precision)
    num_targets = len(train.targets) * likelihood.num_outputs
    fit = _structure(hessian_structure, form, kron_bias, weights, num_targets)
    posterior = fit(weights, likelihood, train.x, prior_precision=precision)
    objective = Objective(network, likelihood, train, jnp.asarray(precision), middle)
    decrement, log_joint = _at_theta(objective, posterior)
    if not decrement <= max_newton_decrement:
        raise ValueError(
            f"params are no mode of the posterior: the mode of the linearised network is up to "
            f"{float(decrement):.2g} posterior standard deviations away (max_newton_decrement is "
            f"{max_newton_decrement:.2g}). Train further (map_estimate, with the same "
            "prior_precision and center), or raise max_newton_decrement."
        )
    log_marginal_likelihood = log_joint - 0.5 * posterior.log_det
    return LinearizedLaplace(
        likelihood, train, precision, posterior, hessian_structure, log_marginal_likelihood,
        decrement,
    )  # fmt: skip


def _structure(
    hessian_structure: str, form: str, kron_bias: str, weights: SelectedWeights, num_targets: int
) -> Any:
    """Choose the function that fits the structure."""
    if hessian_structure == "kron":
        return partial(kronecker_weights, joint_bias=kron_bias == "joint")
    if hessian_structure == "diag":
        return diagonal_weights
    if form == "auto":
        form = "weight" if weights.theta.size <= num_targets else "dual"
    return {"weight": full_weights, "dual": dual_weights}[form]


@eqx.filter_jit
def _at_theta(
    objective: Objective, posterior: WeightPosterior
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Newton decrement, and log p(y | θ̂) − ½ λ ‖θ̂ − c‖² over the selected weights."""
    weights = posterior.weights
    value, gradient = jax.value_and_grad(lambda theta: objective(weights.complete(theta)))(
        weights.theta
    )
    decrement = jnp.sqrt(jnp.vdot(gradient, posterior.product(gradient[None])[0]))
    every = optax.tree.norm(optax.tree.sub(weights.params, objective.center), squared=True)
    center = ravel_pytree(weights.where(objective.center))[0]
    selected = jnp.sum((weights.theta - center) ** 2)
    return decrement, 0.5 * objective.prior_precision * (every - selected) - value


@eqx.filter_jit
def _evaluate(weights: SelectedWeights, x: Array) -> Float[Array, "m c"]:
    return weights.apply(weights.theta, x)


@eqx.filter_jit
def _draw_weights(posterior: WeightPosterior, key: Key, num_draws: int) -> Float[Array, "s p"]:
    return posterior.draw(key, num_draws)


@eqx.filter_jit
def _linear_functions(
    weights: SelectedWeights, x: Array, moved: Float[Array, "s p"]
) -> Float[Array, "s m c"]:
    linear = linearize(weights, weights.theta, x)
    functions = jax.lax.map(linear.jvp, moved, batch_size=DRAWS_AT_ONCE)
    return linear.value[None] + functions
