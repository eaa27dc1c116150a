"""Train networks of one width, all seeds at once, and measure how far from linear they are.

Per record and seed, with θ₀ the initial weights and Θ_t the network's own NTK at time t:

- ``ntk_change``  ‖Θ_t − Θ₀‖_F / ‖Θ₀‖_F over all outputs at some training points;
- ``weight_movement``  ‖θ_t − θ₀‖ / ‖θ₀‖, of all weights and of each layer;
- ``logit_norm``  root mean square of the outputs at the training points, after subtracting each
  point's mean over classes;
- ``objective``  −Σ log p + ½ λ ‖θ − center‖², in nats;
- ``linearization_gap``, ``flow_gap``, ``end_gap``  distance at the test points to the network's own
  linearisation trained with the same steps, to the infinitely wide network at the same time, and
  to that at the end of training (`ntkbayes.lazy.references`): root mean square over points and
  outputs of f_t − f_ref, over that of f_ref − f₀, what training moved. NaN where there is no
  reference, and at time 0, where nothing has moved.
"""

import math
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ntkbayes._types import Array, Float, Key, Progress, silent
from ntkbayes.lazy.references import (
    DualState,
    InfiniteWidth,
    Tangent,
    descend_linearized,
    infinite_width_at,
)
from ntkbayes.lazy.steps import (
    Schedule,
    TrainingProblem,
    check_step,
    descend,
    has_risen,
    stability_limit,
    start_descent,
)
from ntkbayes.networks import Network, empirical_ntk, linearize

__all__ = ["MEASURES", "InitialNetworks", "Record", "initial_networks", "train_width"]

MEASURES = {
    "ntk_change": "relative change of the NTK",
    "weight_movement": "relative movement of the weights",
    "logit_norm": "logit norm",
    "objective": "training objective (nats)",
    "linearization_gap": "distance to own linearisation",
    "flow_gap": "distance to infinite width, same time",
    "end_gap": "distance to infinite width, end of training",
}
"""Titles of the measures."""

ALL_LAYERS = "all"
CHUNKS = 10
"""Progress is reported this often per training at least."""


class InitialNetworks(eqx.Module):
    """Untrained networks of one width, common to all conditions.

    Parameters
    ----------
    params
        θ₀, stacked over seeds.
    tangent
        Their linearisations.
    x_subset, ntk_subset
        Where the kernel is followed, and Θ₀ there.
    largest_eigenvalue
        Of Θ₀ at the training points.
    """

    network: Network
    params: Any
    tangent: Tangent
    x_test: Float[Array, "m d"]
    x_subset: Float[Array, "q d"]
    ntk_subset: Float[Array, "s q c q c"]
    largest_eigenvalue: Float[Array, "s"]


class Record(eqx.Module):
    """All measures at one time: name and layer → values of all seeds."""

    time: float
    values: dict[tuple[str, str], np.ndarray]


def initial_networks(
    network: Network,
    x_train: Float[Array, "n d"],
    x_test: Float[Array, "m d"],
    *,
    num_outputs: int,
    num_seeds: int,
    num_kernel_points: int,
    key: Key,
) -> InitialNetworks:
    """Draw θ₀ of every seed, and linearise the networks there."""

    def init(key: Key) -> Any:
        params = network.init(key, num_features=x_train.shape[1], num_outputs=num_outputs)
        return jax.tree.map(lambda leaf: leaf.astype(x_train.dtype), params)

    keys = jax.random.split(key, num_seeds)
    params = eqx.filter_jit(lambda keys: jax.lax.map(init, keys))(keys)
    tangent = _tangents(network, params, x_train, x_test)
    n = len(x_train)
    chosen = np.unique(np.linspace(0, n - 1, min(num_kernel_points, n)).round().astype(int))
    size = n * num_outputs
    eigenvalues = jnp.linalg.eigvalsh(tangent.ntk_train.reshape(num_seeds, size, size))
    return InitialNetworks(
        network,
        params,
        tangent,
        x_test,
        x_train[chosen],
        tangent.ntk_train[:, chosen][:, :, :, chosen],
        eigenvalues[:, -1],
    )


@eqx.filter_jit
def _tangents(network: Network, params: Any, x_train: Array, x_test: Array) -> Tangent:
    n, x = len(x_train), jnp.concatenate([x_train, x_test])

    def one(params: Any) -> tuple[Array, Array, Array]:
        linear = linearize(network, params, x)
        return linear.value, linear.jvp(params), empirical_ntk(network, params, x, x_train)

    f0, along, ntk = jax.lax.map(one, params)
    return Tangent(f0[:, :n], f0[:, n:], ntk[:, :n], ntk[:, n:], along[:, :n], along[:, n:])


def train_width(
    networks: InitialNetworks,
    problem: TrainingProblem,
    infinite: InfiniteWidth,
    schedule: Schedule,
    *,
    name: str,
    progress: Progress = silent,
) -> list[Record]:
    """Train under one condition; `name` says in errors what is trained.

    Raises
    ------
    ValueError
        If the step is not below the stability limit of a seed's own kernel, or an objective rises
        or is not finite.
    """
    largest = float(jnp.max(networks.largest_eigenvalue))
    precision = float(problem.prior_precision)
    check_step(
        schedule.step, stability_limit(problem.likelihood, largest, precision), f"for {name}"
    )
    tangent = networks.tangent
    flow = infinite_width_at(
        infinite, problem, tangent.f0_train, tangent.f0_test, [*schedule.times, math.inf]
    )
    step = jnp.asarray(schedule.step, tangent.f0_train.dtype)
    _, values = _observe(networks, problem, networks.params)
    state = start_descent(networks.params, values["objective", ALL_LAYERS])
    dual = DualState(jnp.zeros_like(tangent.f0_train), jnp.zeros_like(step))
    records, done = [], 0
    for count, reference in zip(schedule.records, flow[:-1], strict=True):
        for until in _chunks(done, count, schedule.records[-1]):
            state = descend(
                networks.network, problem, state, networks.params, step, jnp.asarray(until)
            )
            _require_falling(state.failed, state.num_steps, schedule.step, name)
            progress(until / schedule.records[-1])
        dual = descend_linearized(tangent, problem, dual, step, jnp.asarray(count - done))
        done = count
        f, values = _observe(networks, problem, state.params)
        failed = has_risen(values["objective", ALL_LAYERS], state)
        _require_falling(failed, state.num_steps, schedule.step, name)
        references = {
            "linearization_gap": tangent.test(dual),
            "flow_gap": reference,
            "end_gap": flow[-1],
        }
        for gap, ref in references.items():
            values[gap, ALL_LAYERS] = jnp.asarray(_relative_gap(f, ref, tangent.f0_test))
        numbers = {which: np.asarray(value, float) for which, value in values.items()}
        records.append(Record(schedule.step * count, numbers))
    return records


def _chunks(done: int, until: int, total: int) -> Iterator[int]:
    size = max(1, total // CHUNKS)
    yield from range(done + size, until, size)
    if until > done:
        yield until


def _require_falling(failed: Array, num_steps: Array, step: float, name: str) -> None:
    seeds = np.flatnonzero(np.asarray(failed))
    if seeds.size:
        raise ValueError(
            f"training {name} diverged: the objective of seed {seeds[0]} rose or was not finite "
            f"at time {step * int(num_steps):.3g} (step {int(num_steps)}); take a smaller step."
        )


@eqx.filter_jit
def _observe(
    networks: InitialNetworks, problem: TrainingProblem, params: Any
) -> tuple[Float[Array, "s m c"], dict[tuple[str, str], Array]]:
    """Evaluate the networks at the test points, and every measure that needs no reference."""
    network, initial = networks.network, networks.params

    def kernel(params: Any) -> Array:
        return empirical_ntk(network, params, networks.x_subset)

    outputs = jax.vmap(network.apply, in_axes=(0, None))
    f = outputs(params, problem.train.x)
    centered = f - jnp.mean(f, axis=2, keepdims=True)
    ntk, before = jax.lax.map(kernel, params), networks.ntk_subset
    objective = jax.vmap(lambda p, p0: problem.objective(network, p0)(p))
    values = {
        ("ntk_change", ALL_LAYERS): _norm(ntk - before) / _norm(before),
        ("logit_norm", ALL_LAYERS): jnp.sqrt(jnp.mean(centered**2, axis=(1, 2))),
        ("objective", ALL_LAYERS): objective(params, initial),
    }
    moved = _squares(jax.tree.map(lambda a, b: a - b, params, initial))
    for layer, size in _squares(initial).items():
        values["weight_movement", layer] = jnp.sqrt(moved[layer] / size)
    return outputs(params, networks.x_test), values


def _squares(tree: Any) -> dict[str, Array]:
    """Squared norm of each seed's weights, of all and by the tree's first level."""
    squares: dict[str, Array] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        match path:
            case (jax.tree_util.SequenceKey(idx=index), *_):
                layer = str(index + 1)
            case _:
                layer = jax.tree_util.keystr(path[:1], simple=True)
        for name in {layer, ALL_LAYERS}:
            squares[name] = squares.get(name, 0) + _norm(leaf) ** 2
    return squares


def _norm(values: Float[Array, "s ..."]) -> Float[Array, "s"]:
    return jnp.sqrt(jnp.sum(values**2, axis=tuple(range(1, values.ndim))))


def _relative_gap(f: Array, reference: Array | None, f0: Array) -> np.ndarray:
    if reference is None:
        return np.full(len(f), math.nan)
    moved = np.asarray(_norm(reference - f0), float)
    gap = np.asarray(_norm(f - reference), float)
    return np.divide(gap, moved, out=np.full(len(f), math.nan), where=moved > 0)
