"""The exact posterior of the infinitely wide model, by Hamiltonian Monte Carlo.

The function at the training points is f = L z with K = L Lᵀ and z (n c) ~ N(0, I), whose
posterior log density is, up to a constant,

    −½ ‖z‖² + Σᵢ log p(yᵢ | (L z)ᵢ).

Chains start at random around the mode and move in coordinates that make the *posterior* nearly
isotropic: the eigenbasis of K, scaled by (K⁻¹ + w I)⁻¹ᐟ² with w a typical curvature of the
likelihood.
At test points the same function continues as B z + C ε, with [B, C] the rows that extend L.
"""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpyro.infer import NUTS

from ntkbayes._checks import check_at_least, check_choice, check_positive
from ntkbayes._linalg import covariance_factor, extend_factor
from ntkbayes._problem import (
    TrainingSet,
    checked_inputs,
    kernel_name,
    prior_kernel,
    training_set,
)
from ntkbayes._types import AnyArray, Array, Float, Key, Progress, silent, typed
from ntkbayes.likelihoods import Likelihood
from ntkbayes.networks import Network
from ntkbayes.predictors import Draws, Predictor
from ntkbayes.solvers import find_mode

__all__ = ["HMCPredictor", "hmc"]

TARGET_ACCEPT = 0.8
MAX_TREE_DEPTH = 8
START_TOLERANCE = 1e-2
STEPS_PER_CHUNK = 25
"""Steps between two reports of progress; a computation can be interrupted only there."""


class HMCPredictor(Predictor):
    """Posterior functions visited by Markov chains; made by `hmc`.

    Attributes
    ----------
    factor
        L, with L Lᵀ the prior covariance at the training points.
    whitened
        The visited z, chain by chain: ``factor @ z`` is the function at the training points.
    stats
        Per draw: ``diverging``, ``num_steps`` (leapfrog steps), ``accept_prob`` and
        ``potential_energy`` (minus the log density above, in nats).
    """

    likelihood: Likelihood
    train: TrainingSet
    network: Network
    factor: Float[Array, "n n"]
    whitened: Float[Array, "s n c"]
    stats: dict[str, Array]
    prior_precision: float
    kernel: str = eqx.field(static=True)
    chains: int = eqx.field(static=True)
    num_warmup: int = eqx.field(static=True)

    @typed
    def draw(self, key: Key, x: AnyArray, *, num_draws: int, progress: Progress = silent) -> Draws:
        """Continue `num_draws` visited functions, evenly spaced in every chain, to the rows of x.

        The functions are the same for every key; the key decides only what the posterior leaves
        open given the function at the training points. Costs O(m³ + m² c s) time.

        Raises
        ------
        ValueError
            If x does not fit the training data, or `num_draws` is not a multiple of the number
            of chains or exceeds what the chains visited.
        """
        inputs = checked_inputs(self.train, x)
        chosen = self._evenly_spaced(num_draws)
        prior = partial(
            prior_kernel, self.network, prior_precision=self.prior_precision, kind=self.kernel
        )
        name = kernel_name(self.network, self.kernel)
        cross, conditional = extend_factor(
            self.factor, prior(self.train.x, inputs), prior(inputs), name=name
        )
        z = self.whitened[chosen]
        noise = jax.random.normal(key, (num_draws, len(inputs), z.shape[2]), z.dtype)
        latent = jnp.einsum("mn,snc->smc", cross, z)
        latent = latent + jnp.einsum("mk,skc->smc", conditional, noise)
        progress(1.0)
        return Draws(latent, {name: values[chosen] for name, values in self.stats.items()})

    @property
    def num_available(self) -> int:
        """Number of visited functions, all chains together."""
        return self.whitened.shape[0]

    @property
    def num_chains(self) -> int:
        """Number of Markov chains; draws are ordered chain by chain."""
        return self.chains

    @property
    def settings(self) -> dict[str, Any]:
        """Method, prior, network and length of the chains."""
        return {
            "method": "hmc",
            "prior_precision": float(self.prior_precision),
            "kernel": self.kernel,
            "num_warmup": self.num_warmup,
            "num_chains": self.chains,
            **self.network.settings(),
        }

    def _evenly_spaced(self, num_draws: int) -> np.ndarray:
        check_at_least("num_draws", num_draws, 1)
        if num_draws % self.chains or num_draws > self.num_available:
            raise ValueError(
                f"num_draws must be a multiple of the {self.chains} chains and at most the "
                f"{self.num_available} draws they hold, but is {num_draws}."
            )
        per_chain, length = num_draws // self.chains, self.num_available // self.chains
        within = (np.arange(per_chain) + 1) * length // per_chain - 1
        return (np.arange(self.chains)[:, None] * length + within[None, :]).ravel()


@typed
def hmc(
    network: Network,
    likelihood: Likelihood,
    x: AnyArray,
    y: AnyArray,
    *,
    prior_precision: float,
    key: Key,
    num_warmup: int = 500,
    num_draws: int = 1000,
    num_chains: int = 4,
    kernel: str = "ntk",
    product_dtype: str | None = None,
    progress: Progress = silent,
) -> HMCPredictor:
    """Sample the posterior of the infinitely wide model with the No-U-Turn sampler.

    The target of whitened z (n c) is −½ ‖z‖² + Σ log p(yᵢ | (L z)ᵢ), with L Lᵀ = K = Θ / λ.
    The chains are shared out over JAX's local devices: on a CPU, set ``jax_num_cpu_devices``
    before the first computation and every device runs its chains at their own pace. The same
    key gives the same draws on the same number of devices. Sampling is done in JAX's default
    floating type and returned in that of x.

    Parameters
    ----------
    network, likelihood
        The model; the network counts by its infinite-width kernel only.
    x, y
        Training inputs (n d) and observations, as the likelihood's ``targets`` takes them.
    prior_precision
        λ > 0, precision of the prior on the linearised weights.
    num_warmup
        Steps per chain, ≥ 1, spent on adapting step size and diagonal mass matrix; discarded.
    num_draws
        Kept steps *per chain*.
    kernel
        Prior covariance: ``"ntk"`` (Θ / λ) or ``"nngp"`` (Q / λ).
    product_dtype
        Type of the two matrix products of a leapfrog step, None for JAX's default floating type.
        ``"float32"`` under float64 halves the time; the log density, everything else in float64,
        is then off by some 1e-4 nats, which is nothing beside the Monte-Carlo error.
    progress
        Called after every 25 steps of all chains; a keyboard interrupt takes effect there.

    Raises
    ------
    ValueError
        If data or settings are out of range, or K is not positive definite.

    Notes
    -----
    A leapfrog step costs two products of (n n) with (n c). Memory is O(n²) plus the draws,
    n · c · num_draws · num_chains numbers.

    References
    ----------
    Hoffman & Gelman 2014, JMLR 15, 1593 (NUTS). Murray & Adams 2010, arXiv 1006.0868 (whitening).
    Phan, Pradhan & Jankowiak 2019, arXiv 1912.11554 (NumPyro).
    """
    check_positive("prior_precision", prior_precision)
    check_at_least("num_warmup", num_warmup, 1)
    check_at_least("num_draws", num_draws, 1)
    check_at_least("num_chains", num_chains, 1)
    check_choice("kernel", kernel, ("ntk", "nngp"))
    train = training_set(likelihood, x, y)
    covariance = prior_kernel(network, train.x, prior_precision=prior_precision, kind=kernel)
    factor = covariance_factor(covariance, name=kernel_name(network, kernel))
    # NumPyro draws momenta in the default type, and its loops refuse to mix types.
    default = jnp.result_type(float)
    check_choice("product_dtype", product_dtype or str(default), ("float32", "float64"))
    target = _target(
        likelihood,
        covariance.astype(default),
        factor.astype(default),
        train.targets.astype(default),
    )
    sampled = target
    if product_dtype is not None:
        sampled = eqx.tree_at(lambda t: t.root, target, target.root.astype(product_dtype))
    visited = _run_chains(sampled, key, num_warmup, num_draws, num_chains, progress)
    visited = {name: jnp.asarray(values) for name, values in visited.items()}
    rotation = solve_triangular(factor, target.root.astype(factor.dtype), lower=True)
    position = visited.pop("position").astype(train.x.dtype)
    whitened = jnp.einsum("ij,sjc->sic", rotation, position)
    return HMCPredictor(
        likelihood,
        train,
        network,
        factor,
        whitened,
        visited,
        prior_precision,
        kernel,
        num_chains,
        num_warmup,
    )


class _Target(eqx.Module):
    """The density of position u, with f = R u and R Rᵀ = (K⁻¹ + w I)⁻¹ in K's eigenbasis."""

    likelihood: Likelihood
    root: Float[Array, "n n"]
    prior_weight: Float[Array, "n"]
    targets: Float[Array, "n c"]
    mode: Float[Array, "n c"]

    def potential(self, u: Float[Array, "n c"]) -> Float[Array, ""]:
        """½ ‖z‖² − Σ log p(yᵢ | fᵢ), where ‖z‖² = fᵀ K⁻¹ f = Σ prior_weight u²."""
        f = (self.root @ u.astype(self.root.dtype)).astype(u.dtype)
        log_likelihood = jax.vmap(self.likelihood.log_prob)(self.targets, f)
        return 0.5 * jnp.sum(self.prior_weight[:, None] * u**2) - jnp.sum(log_likelihood)


def _target(likelihood: Likelihood, k: Array, factor: Array, targets: Array) -> _Target:
    """Scale the eigenbasis of K by a typical curvature w, the likelihood's at f = 0.

    Data narrow the posterior along leading eigenvectors only. In these coordinates that is a
    diagonal scale: w removes most of it, and the sampler's diagonal mass matrix learns the rest.
    """
    vectors, singular_values, _ = jnp.linalg.svd(factor)
    num_outputs = targets.shape[1]
    curvature = likelihood.curvature(jnp.zeros(num_outputs, targets.dtype))
    prior_weight = 1 / (1 + jnp.trace(curvature) / num_outputs * singular_values**2)
    root = vectors * (singular_values * jnp.sqrt(prior_weight))[None, :]
    # A rough mode will do: f = K a = R u at u = (s / √prior_weight) Vᵀ a.
    a = find_mode(k, likelihood, targets, tolerance=START_TOLERANCE).a
    mode = (singular_values / jnp.sqrt(prior_weight))[:, None] * (vectors.T @ a)
    return _Target(likelihood, root, prior_weight, targets, mode)


def _run_chains(
    target: _Target,
    key: Key,
    num_warmup: int,
    num_draws: int,
    num_chains: int,
    progress: Progress,
) -> dict[str, np.ndarray]:
    mesh = _chain_mesh(num_chains)
    shared = NamedSharding(mesh, PartitionSpec())
    per_chain = NamedSharding(mesh, PartitionSpec("chain"))
    target = eqx.filter_shard(target, shared)
    keys = jax.device_put(jax.random.split(key, num_chains), per_chain)
    state = _initial_states(target, keys, mesh, num_warmup)

    total = num_warmup + num_draws
    kept = []
    for done in range(0, total, STEPS_PER_CHUNK):
        num_steps = min(STEPS_PER_CHUNK, total - done)
        state, record = _advance(target, state, mesh, num_warmup, num_steps)
        jax.block_until_ready(record)
        skip = max(num_warmup - done, 0)
        if skip < num_steps:
            kept.append({name: np.asarray(values)[:, skip:] for name, values in record.items()})
        progress((done + num_steps) / total)

    visited = {}
    for name in list(kept[0]):
        values = np.concatenate([part.pop(name) for part in kept], axis=1)
        visited[name] = values.reshape(num_chains * num_draws, *values.shape[2:])
    return visited


def _chain_mesh(num_chains: int) -> Mesh:
    """As many local devices as share the chains evenly."""
    devices = jax.local_devices()
    size = max(k for k in range(1, len(devices) + 1) if num_chains % k == 0)
    return Mesh(np.array(devices[:size]), ("chain",))


def _sampler(target: _Target, key: Key, z: Array, num_warmup: int) -> tuple[NUTS, Any]:
    sampler = NUTS(
        potential_fn=target.potential,
        target_accept_prob=TARGET_ACCEPT,
        max_tree_depth=MAX_TREE_DEPTH,
    )
    return sampler, sampler.init(key, num_warmup, z, (), {})


@eqx.filter_jit
def _initial_states(target: _Target, keys: Array, mesh: Mesh, num_warmup: int) -> Any:
    def one_chain(target: _Target, key: Key) -> Any:
        key_position, key_chain = jax.random.split(key)
        shape, dtype = target.targets.shape, target.targets.dtype
        # Wider than the posterior, whose deviations are about 1 in these coordinates.
        position = target.mode + jax.random.uniform(key_position, shape, dtype, -2.0, 2.0)
        return _sampler(target, key_chain, position, num_warmup)[1]

    return _over_chains(one_chain, mesh, target, keys)


@eqx.filter_jit
def _advance(
    target: _Target, state: Any, mesh: Mesh, num_warmup: int, num_steps: int
) -> tuple[Any, dict[str, Array]]:
    """Move every chain by `num_steps`; record what each step visited, (chains, num_steps, …)."""

    def one_chain(target: _Target, state: Any) -> tuple[Any, dict[str, Array]]:
        # A NUTS object can step only after its `init`; the state it makes here is not used, and
        # the compiler drops it. In exchange, the data enter as arguments, not as constants.
        sampler, _ = _sampler(target, state.rng_key, state.z, num_warmup)

        def step(state: Any, _: None) -> tuple[Any, dict[str, Array]]:
            state = sampler.sample(state, (), {})
            return state, {
                "position": state.z,
                "diverging": state.diverging,
                "num_steps": state.num_steps,
                "accept_prob": state.accept_prob,
                "potential_energy": state.potential_energy,
            }

        return jax.lax.scan(step, state, None, length=num_steps)

    return _over_chains(one_chain, mesh, target, state)


def _over_chains(one_chain: Any, mesh: Mesh, target: _Target, chains: Any) -> Any:
    """Map over the leading axis of `chains`: `vmap` on a device, no exchange between devices."""
    arrays, static = eqx.partition(target, eqx.is_array)

    def local(arrays: Any, chains: Any) -> Any:
        return jax.vmap(one_chain, in_axes=(None, 0))(eqx.combine(arrays, static), chains)

    if mesh.size == 1:
        return local(arrays, chains)
    spec = PartitionSpec("chain")
    # NumPyro's loops start from constants, which the check of replication would refuse.
    mapped = jax.shard_map(
        local, mesh=mesh, in_specs=(PartitionSpec(), spec), out_specs=spec, check_vma=False
    )
    return mapped(arrays, chains)
