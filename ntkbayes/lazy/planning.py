"""What a sweep will train, checked before anything large is allocated."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntkbayes._checks import check_at_least, check_finite, check_not_empty
from ntkbayes._problem import TrainingSet, checked_inputs, infinite_width, training_set
from ntkbayes._types import AnyArray, Array, Float, Key
from ntkbayes.kernels.memory import available_bytes, check_bytes
from ntkbayes.lazy.conditions import Condition
from ntkbayes.lazy.references import InfiniteWidth
from ntkbayes.lazy.steps import Schedule, TrainingProblem, make_schedule, stability_limit
from ntkbayes.networks import DenseNetwork, WideNetwork

__all__ = ["NetworkOfWidth", "Plan", "checked_widths", "make_plan", "of_width"]

NetworkOfWidth = DenseNetwork | Callable[[int], WideNetwork]

COPIES = 6
"""Arrays as large as the weights: θ₀, the center, θ, its gradient, the next θ, and one spare."""
KERNEL_COPIES = 3
"""Arrays as large as the kernel of all points with the training points, per seed."""
WORKSPACE_BYTES = 2**28
"""Of a tile of the empirical kernel."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """Networks by width, and objectives and times by condition."""

    networks: dict[int, WideNetwork]
    conditions: dict[str, Condition]
    problems: dict[str, TrainingProblem]
    schedules: dict[str, Schedule]
    infinite: InfiniteWidth
    x_test: Array
    num_seeds: int
    num_kernel_points: int
    key: Key

    @property
    def x_train(self) -> Float[Array, "n d"]:
        """Training inputs."""
        return next(iter(self.problems.values())).train.x

    @property
    def num_outputs(self) -> int:
        """Number of classes c."""
        return next(iter(self.problems.values())).train.targets.shape[1]

    def cost(self, name: str, width: int) -> float:
        """Relative time of one condition at one width: weights read, plus what every step takes."""
        params = _num_params(self.networks[width], self.x_train, self.num_outputs)
        return self.schedules[name].records[-1] * (params + 20_000.0)


def make_plan(
    network: NetworkOfWidth,
    x_train: AnyArray,
    y_train: AnyArray,
    x_test: AnyArray,
    *,
    key: Key,
    conditions: Mapping[str, Condition],
    widths: Sequence[int],
    num_seeds: int,
    time: float,
    num_records: int,
    step: float | None,
    num_kernel_points: int,
) -> Plan:
    """Check settings and data, choose steps, and refuse what does not fit memory.

    Raises
    ------
    ValueError
        If something is out of range, or does not fit.
    """
    check_at_least("num_seeds", num_seeds, 1)
    check_at_least("num_kernel_points", num_kernel_points, 1)
    widths = checked_widths(widths)
    check_at_least("the number of conditions", len(conditions), 1)
    check_not_empty("y_train", y_train)
    num_classes = max(2, int(np.max(np.asarray(y_train))) + 1)
    sets = {
        name: training_set(
            condition.likelihood(num_classes), x_train, condition.targets(y_train, num_classes)
        )
        for name, condition in conditions.items()
    }
    train = next(iter(sets.values()))
    inputs = checked_inputs(train, x_test)
    for width in widths:
        _check_memory(network, width, train, len(inputs), num_seeds)
    networks = {width: of_width(network, width) for width in widths}
    infinite = _infinite(networks[widths[0]], train.x, inputs)
    largest = float(jnp.linalg.eigvalsh(infinite.ntk_train)[-1])
    problems, schedules = {}, {}
    for name, condition in conditions.items():
        likelihood, decay = condition.likelihood(num_classes), condition.prior_precision
        problems[name] = TrainingProblem(
            likelihood,
            sets[name],
            jnp.asarray(decay, train.x.dtype),
            jnp.asarray(0.0 if condition.decays_to_zero else 1.0, train.x.dtype),
        )
        limit = stability_limit(likelihood, largest, decay)
        schedules[name] = make_schedule(time=time, num_records=num_records, limit=limit, step=step)
    return Plan(
        networks, dict(conditions), problems, schedules, infinite, inputs, num_seeds,
        num_kernel_points, key,
    )  # fmt: skip


def checked_widths(widths: Sequence[int]) -> list[int]:
    """Return the widths in rising order, each once.

    Raises
    ------
    ValueError
        If there is none, or one is not positive.
    """
    check_at_least("the number of widths", len(widths), 1)
    check_at_least("the smallest width", min(widths), 1)
    return sorted(set(widths))


def of_width(network: NetworkOfWidth, width: int) -> WideNetwork:
    """Return the network with this width."""
    if isinstance(network, DenseNetwork):
        return dataclasses.replace(network, width=width)
    return infinite_width(network(width))


def _infinite(network: WideNetwork, x_train: Array, x_test: Array) -> InfiniteWidth:
    """Θ in JAX's default precision, whatever networks are trained in."""
    dtype = jnp.result_type(float)
    train, test = (jnp.asarray(x, dtype) for x in (x_train, x_test))
    ntk_train, ntk_test = network.ntk(train), network.ntk(test, train)
    check_finite("the NTK", ntk_train)
    return InfiniteWidth(ntk_train, ntk_test)


def _num_params(network: WideNetwork, x_train: Array, num_outputs: int) -> int:
    def init(key: Key) -> Any:
        return network.init(key, num_features=x_train.shape[1], num_outputs=num_outputs)

    shapes = jax.eval_shape(init, jax.random.key(0))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


def _check_memory(
    network: NetworkOfWidth, width: int, train: TrainingSet, num_test: int, num_seeds: int
) -> None:
    """Refuse a width that does not fit, with the largest one that does."""
    (n, c), itemsize = train.targets.shape, train.x.dtype.itemsize
    kernels = KERNEL_COPIES * num_seeds * (n + num_test) * n * c**2 * itemsize + WORKSPACE_BYTES

    def needed(width: int) -> int:
        weights = num_seeds * _num_params(of_width(network, width), train.x, c)
        return COPIES * weights * itemsize + kernels

    if needed(width) <= available_bytes():
        return
    fits, too_wide = 0, width
    while too_wide - fits > max(1, fits // 100):
        middle = (fits + too_wide) // 2
        fits, too_wide = (
            (middle, too_wide) if needed(middle) <= available_bytes() else (fits, middle)
        )
    advice = f"up to width {fits} would fit" if fits else "take fewer training or test points"
    check_bytes(
        f"training {num_seeds} networks of width {width} in {train.x.dtype.name}",
        needed(width),
        remedy=f"{advice}; or take fewer seeds",
    )
