"""Ensembles of linearised finite networks, each trained exactly in its own tangent space.

Member i draws θ₀, is linearised there, f(x; θ₀ + δ) ≈ f₀(x) + J(x) δ, and minimises

    −Σ log p(yᵢ | f(xᵢ)) − ξ·f(X) + ½ λ ‖δ‖²

over δ (p), by damped Newton steps (λ I + Jᵀ W J) step = Jᵀ (s(f) + ξ) − λ δ, each by conjugate
gradients with Jacobian–vector products. The minimum is δ = Jᵀ a / λ with a = s(f(X)) + ξ: the
trained function is f₀(x) + K(x, X) a, with K = J Jᵀ / λ the member's own empirical kernel. The
initial function is one of

- ``"nngp"``: f₀, the network's own;
- ``"ntk"``: J(x) z / √λ with z ~ N(0, I) (p), a draw from the prior of Bayes over δ;
- ``"zero"``: 0, the network minus its initial function.

References
----------
Lee et al. 2019, arXiv 1902.06720 (linearised networks). He, Lakshminarayanan, Teh 2020, arXiv
2007.05864 (``"ntk"``, perturbed targets).
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from ntkbayes._checks import check_at_least, check_choice, check_positive
from ntkbayes._problem import TrainingSet, checked_inputs, initial_params, training_set
from ntkbayes._progress import bar_in_notebooks
from ntkbayes._types import AnyArray, Array, Float, Key, Progress, silent, typed
from ntkbayes.ensembles.initial import INITIAL
from ntkbayes.ensembles.weight_space import WeightSpaceProblem, minimize_precisely
from ntkbayes.likelihoods import Gaussian, Likelihood
from ntkbayes.networks import Network, linearize
from ntkbayes.predictors import Draws, Predictor, check_available
from ntkbayes.solvers import Solution, default_tolerance, require_converged

__all__ = ["LinearizedEnsemble", "linearized_ensemble"]

GOAL = 1e-4
"""Fraction of the tolerance aimed at: a member costs little beside its network's products."""
NOISE_STREAM = 2**32 - 1
"""Folded into the ensemble's key for all noise; members' keys are its first children."""


class LinearizedEnsemble(Predictor):
    """Trained linearised networks; every member is one draw.

    Attributes
    ----------
    params
        θ₀ of every member, stacked.
    tangent
        Direction v of every member's function f₀(x) + J(x) v; with ``"zero"`` and ``"ntk"`` without
        f₀, and for ``"ntk"`` including z / √λ.
    solution
        The dual coefficients a of every member with their certificate: ``error_bound`` in standard
        deviations of the member's own prior, by fresh products; with targets perturbed at the
        mode, the mode's if that is larger.
    """

    likelihood: Likelihood
    network: Network
    train: TrainingSet
    prior_precision: float
    initial: str = eqx.field(static=True)
    perturb_targets: bool = eqx.field(static=True)
    params: Any
    tangent: Any
    solution: Solution

    def draw(self, key: Key, x: AnyArray, *, num_draws: int, progress: Progress = silent) -> Draws:
        """Evaluate the first `num_draws` members at the rows of x; the key is not used.

        ``stats`` holds ``error_bound``, ``residual``, ``iterations`` and ``gemm_equivalents``
        (products with the empirical kernel J Jᵀ) of each member's training.

        Raises
        ------
        ValueError
            If x does not fit the training data, or there are fewer members.
        """
        x_test = checked_inputs(self.train, x)
        check_available(num_draws, self.num_available)
        members, solution = jax.tree.map(
            lambda leaf: leaf[:num_draws], ((self.params, self.tangent), self.solution)
        )
        latent = _evaluate(self.network, members, x_test, self.initial == "nngp")
        progress(1.0)
        names = ("error_bound", "residual", "iterations", "gemm_equivalents")
        return Draws(latent, {name: getattr(solution, name) for name in names})

    @property
    def num_available(self) -> int:
        """Number of members."""
        return len(self.solution.residual)

    @property
    def is_posterior(self) -> bool:
        """Whether members are randomised maximum a posteriori with Gaussian noise.

        Each is then an exact draw from the posterior of its own linear model. That all these models
        are one holds for infinite width, and up to the spread of empirical kernels below it.
        """
        randomised = self.initial == "ntk" and self.perturb_targets
        return randomised and isinstance(self.likelihood, Gaussian)

    @property
    def settings(self) -> dict[str, Any]:
        """Method and settings."""
        return {
            "method": "linearized_ensemble",
            "prior_precision": self.prior_precision,
            "num_members": self.num_available,
            "initial": self.initial,
            "perturb_targets": self.perturb_targets,
            **self.network.settings(),
        }


@bar_in_notebooks
@typed
def linearized_ensemble(
    network: Network,
    likelihood: Likelihood,
    x: AnyArray,
    y: AnyArray,
    *,
    prior_precision: float,
    num_members: int,
    key: Key,
    initial: str = "nngp",
    perturb_targets: bool = False,
    progress: Progress = silent,
) -> LinearizedEnsemble:
    """Train `num_members` finite networks in the tangent spaces at their initialisations.

    Memory is a few times p numbers and one evaluation of the training data while a member trains,
    2 p numbers per member afterwards. Member i starts from the same network as member i of
    `ntkbayes.deep_ensemble` with the same key and `num_members`.

    Parameters
    ----------
    network
        Any network; only finite ones made by its ``init`` are used.
    likelihood, x, y
        As in `ntkbayes.ntk_ensemble`.
    prior_precision
        λ > 0, weight of ½‖θ − θ₀‖² against the summed loss.
    num_members
        Number of networks, at least 1.
    key
        Decides the members.
    initial
        Initial function: ``"nngp"``, ``"ntk"`` or ``"zero"``, see the module.
    perturb_targets
        Add score noise ξ of mean 0 and covariance W to each member's targets: y + N(0, σ²) for
        `Gaussian`, else at the mode f₀ = 0 of the member's own kernel, which costs a second
        training.
    progress
        Called after every member.

    Raises
    ------
    ValueError
        If data or settings are out of range, or a member may be off by more than 0.05 latent units
        at a training point; more than 1e-3, or 1e-2 in float32, is a warning.

    Examples
    --------
    >>> ensemble = nb.linearized_ensemble(*model, prior_precision=1.0, num_members=3, key=key)
    >>> ensemble.sample(key, data.x_test, num_draws=3).shape
    (3, 300, 2)
    >>> bool((ensemble.solution.latent_error < 1e-3).all())
    True
    """
    check_positive("prior_precision", prior_precision)
    check_at_least("num_members", num_members, 1)
    check_choice("initial", initial, INITIAL)
    train = training_set(likelihood, x, y)
    problem = _Problem(network, likelihood, train, jnp.asarray(prior_precision, train.x.dtype))
    keys = jax.random.split(key, num_members)
    keys_noise = jax.random.split(jax.random.fold_in(key, NOISE_STREAM), num_members)
    members = []
    for i in range(num_members):
        member = _train_member(problem, initial, perturb_targets, keys[i], keys_noise[i])
        require_converged(member[2], tolerance=default_tolerance(train.x.dtype))
        members.append(member)
        progress((i + 1) / num_members)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    return LinearizedEnsemble(
        likelihood, network, train, float(prior_precision), initial, perturb_targets, *stacked
    )


class _Problem(eqx.Module):
    network: Network
    likelihood: Likelihood
    train: TrainingSet
    prior_precision: Float[Array, ""]

    def training(self, params: Any, f_initial: Array, noise: Array) -> WeightSpaceProblem:
        return WeightSpaceProblem(
            self.network, params, self.train.x, self.likelihood, self.train.targets,
            f_initial, noise, self.prior_precision,
        )  # fmt: skip


def _train_member(
    problem: _Problem, initial: str, perturb_targets: bool, key_init: Key, key_noise: Key
) -> tuple[Any, Any, Solution]:
    """θ₀, the tangent direction and the certified solution of one member."""
    key_function, key_targets = jax.random.split(key_noise)
    tolerance = default_tolerance(problem.train.x.dtype)
    accuracy = {"tolerance": tolerance, "goal": GOAL * tolerance}
    params, origin, f_initial = _initial_member(problem, initial, key_init, key_function)
    noise = start = f_mode = jnp.zeros_like(f_initial)
    mode = None
    if perturb_targets:
        if not isinstance(problem.likelihood, Gaussian):  # whose noise is the same everywhere
            at_zero = problem.training(params, f_mode, noise)
            found, mode = minimize_precisely(at_zero, start, **accuracy)
            start, f_mode = found.dual, found.function
        keys = jax.random.split(key_targets, len(noise))
        noise = jax.vmap(problem.likelihood.score_noise)(keys, f_mode)
    training = problem.training(params, f_initial, noise)
    trained, solution = minimize_precisely(training, start, **accuracy)
    return params, optax.tree.add(origin, trained.weights), _including(mode, solution)


@eqx.filter_jit
def _initial_member(
    problem: _Problem, initial: str, key_init: Key, key_function: Key
) -> tuple[Any, Any, Float[Array, "n c"]]:
    """θ₀, the origin of the tangent direction, and f₀ at the training inputs."""
    x = problem.train.x
    params = initial_params(problem.network, problem.likelihood, problem.train, key_init)
    origin = optax.tree.zeros_like(params)
    match initial:
        case "nngp":
            return params, origin, problem.network.apply(params, x)
        case "ntk":
            z = optax.tree.random_like(key_function, params, jax.random.normal)
            origin = jax.tree.map(lambda leaf: leaf / jnp.sqrt(problem.prior_precision), z)
    return params, origin, linearize(problem.network, params, x).jvp(origin)


def _including(mode: Solution | None, solution: Solution) -> Solution:
    """Add the mode's work, and certify the worse of the two."""
    if mode is None:
        return solution
    return Solution(
        solution.a,
        jnp.maximum(solution.error_bound, mode.error_bound),
        jnp.maximum(solution.latent_error, mode.latent_error),
        jnp.maximum(solution.ordinary_error, mode.ordinary_error),
        jnp.maximum(solution.residual, mode.residual),
        solution.iterations + mode.iterations,
        solution.gemm_equivalents + mode.gemm_equivalents,
    )


@eqx.filter_jit
def _evaluate(
    network: Network, members: tuple[Any, Any], x: Array, add_initial: bool
) -> Float[Array, "s m c"]:
    """J(x) v, plus f₀(x) if asked, one member after the other."""

    def one_member(member: tuple[Any, Any]) -> Float[Array, "m c"]:
        params, tangent = member
        value, moved = jax.jvp(lambda p: network.apply(p, x), (params,), (tangent,))
        return value + moved if add_initial else moved

    return jax.lax.map(one_member, members)
