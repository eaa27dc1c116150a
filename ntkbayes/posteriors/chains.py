"""Markov chains on any density, by NumPyro's Hamiltonian Monte Carlo.

Where a target says how long a trajectory should be, trajectories have that length on average, each
another one, so that no direction comes back to where it was in all of them. Where it does not, the
No-U-Turn sampler finds their ends, at two to six times the cost.

The chains are shared out over JAX's local devices and vectorised on each. They advance in chunks
of 25 steps, between which progress is reported, and every few minutes the run is saved.

References
----------
Neal 2011, Handbook of Markov Chain Monte Carlo, ch. 5, §5.4.2.2 (varying lengths). Hoffman & Gelman
2014, JMLR 15, 1593 (NUTS). Phan, Pradhan & Jankowiak 2019, arXiv 1912.11554
(NumPyro).
"""

import abc
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ntkbayes._checks import check_at_least
from ntkbayes._types import Array, Float, Key, Progress
from ntkbayes.kernels.memory import check_memory
from ntkbayes.posteriors.checkpoints import RunIdentity, Snapshot, fingerprint, load, save

if TYPE_CHECKING:
    from numpyro.infer import HMC

__all__ = ["Chains", "Target", "run_chains"]

TARGET_ACCEPT = 0.8
MAX_TREE_DEPTH = 8
GOLDEN_RATIO = (5**0.5 - 1) / 2
"""Its multiples, modulo 1, fill the unit interval evenly from the first on."""
STEPS_PER_CHUNK = 25
"""Steps between two reports of progress; a computation can be interrupted only there."""
CHECKPOINT_SECONDS = 180.0
"""Least time between two checkpoints; what a killed run has to repeat."""


class Target(eqx.Module):
    """A density to sample, up to a constant; positions are arrays of one shape."""

    @abc.abstractmethod
    def potential(self, position: Float[Array, "..."]) -> Float[Array, ""]:
        """Minus the log density at a position, in nats."""

    @abc.abstractmethod
    def start(self, key: Key) -> Float[Array, "..."]:
        """Draw where a chain starts."""

    @property
    @abc.abstractmethod
    def trajectory_length(self) -> float | None:
        """Mean length of trajectories, with a mass matrix of the posterior's variances; or None."""

    @abc.abstractmethod
    def settings(self) -> dict[str, Any]:
        """Say of the density what its arrays do not, to tell one problem from another."""


class Chains(eqx.Module):
    """What several chains visited after warm-up, chain by chain.

    Parameters
    ----------
    position
        The visited positions.
    stats
        Per draw: ``diverging``, ``num_steps`` (leapfrog steps), ``accept_prob``,
        ``potential_energy`` (`Target.potential`) and ``energy`` (with the kinetic energy), in
        nats.
    num_chains, num_warmup
        Number of chains, and the steps of adaptation each did before.
    """

    position: Float[Array, "s ..."]
    stats: dict[str, Array]
    num_chains: int = eqx.field(static=True)
    num_warmup: int = eqx.field(static=True)

    def evenly_spaced(self, num_draws: int) -> np.ndarray:
        """Choose `num_draws` draws, evenly spaced in every chain, by their indices.

        Raises
        ------
        ValueError
            If `num_draws` is not a multiple of the number of chains or more than there are.
        """
        check_at_least("num_draws", num_draws, 1)
        available = len(self.position)
        if num_draws % self.num_chains or num_draws > available:
            raise ValueError(
                f"num_draws must be a multiple of the {self.num_chains} chains and at most the "
                f"{available} draws they hold, but is {num_draws}."
            )
        per_chain, length = num_draws // self.num_chains, available // self.num_chains
        within = (np.arange(per_chain) + 1) * length // per_chain - 1
        return (np.arange(self.num_chains)[:, None] * length + within[None, :]).ravel()


def run_chains(
    target: Target,
    key: Key,
    *,
    num_warmup: int,
    num_draws: int,
    num_chains: int,
    checkpoint: Path | None,
    progress: Progress,
) -> Chains:
    """Run chains from independent starts, or on from where a checkpoint of this run stands.

    The same key gives the same draws on the same number of devices, resumed or not.

    Raises
    ------
    ValueError
        If the record of what is visited does not fit into memory, or `checkpoint` is a file of
        anything but this run.
    """
    mesh = _chain_mesh(num_chains)
    per_chain = NamedSharding(mesh, PartitionSpec("chain"))
    target = eqx.filter_shard(target, NamedSharding(mesh, PartitionSpec()))
    keys = jax.device_put(jax.random.split(key, num_chains), per_chain)
    start = _initial_states(target, keys, mesh, num_warmup)
    run = Snapshot(0, start, _empty_record(start, num_draws))
    lengths = {"num_warmup": num_warmup, "num_draws": num_draws, "num_chains": num_chains}
    identity = None
    if checkpoint is not None:
        described = target.settings() | lengths | {"num_devices": mesh.size}
        identity = RunIdentity(
            fingerprint(target, key, described), np.asarray(start.potential_energy)
        )
        run = load(checkpoint, identity, run, num_warmup=num_warmup)
        run = Snapshot(run.num_steps, jax.device_put(run.state, per_chain), run.visited)
    total, saved = num_warmup + num_draws, time.monotonic()
    if run.num_steps:
        progress(run.num_steps / total)
    while run.num_steps < total:
        run = _advance_chunk(target, run, mesh, num_warmup, total)
        due = time.monotonic() - saved >= CHECKPOINT_SECONDS or run.num_steps == total
        if checkpoint is not None and identity is not None and due:
            save(checkpoint, identity, run, num_warmup=num_warmup)
            saved = time.monotonic()
        progress(run.num_steps / total)
    pooled = {
        name: jnp.asarray(values.reshape(num_chains * num_draws, *values.shape[2:]))
        for name, values in run.visited.items()
    }
    return Chains(pooled.pop("position"), pooled, num_chains, num_warmup)


def _chain_mesh(num_chains: int) -> Mesh:
    """As many local devices as share the chains evenly."""
    devices = jax.local_devices()
    size = max(k for k in range(1, len(devices) + 1) if num_chains % k == 0)
    return Mesh(np.array(devices[:size]), ("chain",))


@eqx.filter_jit
def _initial_states(target: Target, keys: Array, mesh: Mesh, num_warmup: int) -> Any:
    def one_chain(target: Target, key: Key) -> Any:
        key_position, key_chain = jax.random.split(key)
        return _sampler(target, key_chain, target.start(key_position), num_warmup)[1]

    return _over_chains(one_chain, mesh, target, keys)


def _sampler(target: Target, key: Key, position: Array, num_warmup: int) -> "tuple[HMC, Any]":
    from numpyro.infer import HMC, NUTS  # slow to import, and needed only here

    settings = {"potential_fn": target.potential, "target_accept_prob": TARGET_ACCEPT}
    length = target.trajectory_length
    if length is None:
        sampler = NUTS(max_tree_depth=MAX_TREE_DEPTH, **settings)
    else:
        sampler = HMC(trajectory_length=length, **settings)
    return sampler, sampler.init(key, num_warmup, position, (), {})


def _with_length(target: Target, state: Any) -> Any:
    """Choose the next trajectory's length: from half to one and a half the mean, by its number.

    The number is the same in all chains, which so wait little for one another on a device.
    """
    if target.trajectory_length is None:
        return state
    share = 0.5 + jnp.mod(state.i * GOLDEN_RATIO, 1.0)
    return state._replace(trajectory_length=target.trajectory_length * share)


def _empty_record(state: Any, num_draws: int) -> dict[str, np.ndarray]:
    """Room for what all chains will visit, (chains, draws, …)."""
    num_chains, *shape = state.z.shape
    check_memory(
        "the record of what the chains visit", num_chains * num_draws, int(np.prod(shape)),
        state.z.dtype, num_matrices=2,  # the one that is filled, and the one that is returned
        remedy="ask for fewer draws (num_draws, num_chains)",
    )  # fmt: skip
    return {
        name: np.empty((num_chains, num_draws, *values.shape[1:]), values.dtype)
        for name, values in _record(state).items()
    }


def _record(state: Any) -> dict[str, Array]:
    return {
        "position": state.z,
        "diverging": state.diverging,
        "num_steps": state.num_steps,
        "accept_prob": state.accept_prob,
        "potential_energy": state.potential_energy,
        "energy": state.energy,
    }


def _advance_chunk(
    target: Target, run: Snapshot, mesh: Mesh, num_warmup: int, total: int
) -> Snapshot:
    """Move on by a chunk of steps, writing what was visited after warm-up into the record."""
    num_steps = min(STEPS_PER_CHUNK, total - run.num_steps)
    state, record = _advance(target, run.state, mesh, num_warmup, num_steps)
    skip, begin = max(num_warmup - run.num_steps, 0), max(run.num_steps - num_warmup, 0)
    for name, values in record.items():
        kept = np.asarray(values)[:, skip:]
        run.visited[name][:, begin : begin + kept.shape[1]] = kept
    return Snapshot(run.num_steps + num_steps, state, run.visited)


@eqx.filter_jit
def _advance(
    target: Target, state: Any, mesh: Mesh, num_warmup: int, num_steps: int
) -> tuple[Any, dict[str, Array]]:
    """Move every chain by `num_steps`; record what each step visited, (chains, num_steps, …)."""

    def one_chain(target: Target, state: Any) -> tuple[Any, dict[str, Array]]:
        # A sampler can step only after its `init`; the state it makes here is not used, and
        # the compiler drops it. In exchange, the data enter as arguments, not as constants.
        sampler, _ = _sampler(target, state.rng_key, state.z, num_warmup)

        def step(state: Any, _: None) -> tuple[Any, dict[str, Array]]:
            state = sampler.sample(_with_length(target, state), (), {})
            return state, _record(state)

        return jax.lax.scan(step, state, None, length=num_steps)

    return _over_chains(one_chain, mesh, target, state)


def _over_chains(one_chain: Any, mesh: Mesh, target: Target, chains: Any) -> Any:
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
