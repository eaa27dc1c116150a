"""Train networks of several widths under several conditions, and keep what is finished.

References
----------
Jacot et al. 2018, arXiv 1806.07572; Lee et al. 2019, arXiv 1902.06720 (squared error).
Calvo-Ordoñez et al. 2026, arXiv 2605.17606 (classification: regularisation or non-degenerate
targets).
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import pandas as pd

from ntkbayes._progress import bar_in_notebooks
from ntkbayes._types import AnyArray, Float, Int, Key, OnProgress, Progress, silent, typed
from ntkbayes.lazy.cells import Cells, digest
from ntkbayes.lazy.conditions import CONDITIONS, Condition
from ntkbayes.lazy.dynamics import InitialNetworks, Record, initial_networks, train_width
from ntkbayes.lazy.planning import NetworkOfWidth, Plan, make_plan

__all__ = ["COLUMNS", "DEFAULT_WIDTHS", "WidthSweep", "at_end", "run_sweep", "width_sweep"]

COLUMNS = ("condition", "width", "seed", "time", "measure", "layer", "value")
"""Of a sweep's table."""
DEFAULT_WIDTHS = (32, 64, 128, 256, 512)


@dataclasses.dataclass(frozen=True)
class WidthSweep:
    """What a sweep measured.

    Attributes
    ----------
    table
        Long form: condition, width, seed, time, measure (`ntkbayes.lazy.MEASURES`), layer ("all",
        or one of the network's, from 1), value.
    conditions
        The conditions by name.
    steps
        Step size of gradient descent under each condition.
    """

    table: pd.DataFrame
    conditions: dict[str, Condition]
    steps: dict[str, float]


@bar_in_notebooks
@typed
def width_sweep(
    network: NetworkOfWidth,
    x_train: Float[AnyArray, "n d"],
    y_train: Int[AnyArray, "n"],
    x_test: Float[AnyArray, "m d"],
    *,
    key: Key,
    conditions: Mapping[str, Condition] | None = None,
    widths: Sequence[int] = DEFAULT_WIDTHS,
    num_seeds: int = 5,
    time: float = 10.0,
    num_records: int = 12,
    step: float | None = None,
    num_kernel_points: int = 16,
    directory: str | os.PathLike[str] | None = None,
    progress: Progress = silent,
) -> WidthSweep:
    """Train real networks by gradient descent and measure how far from linear they are.

    Parameters
    ----------
    network
        A dense network, whose width is replaced, or a function from width to network.
    x_train, y_train, x_test
        Training inputs and class indices, and where trained functions are compared. Networks are
        trained in the dtype of `x_train`; those of infinite width are solved in JAX's default.
    key
        Of all initial weights. Those at one width do not depend on the other widths, nor on the
        condition: all conditions start from the same networks.
    conditions
        Objectives by name. Default: `CONDITIONS`.
    widths
        Units per hidden layer.
    num_seeds
        Networks per width, trained side by side.
    time
        Training time > 0 of gradient flow at unit rate on the summed loss; with a `step` of one's
        own, training ends at the multiple of it next to this.
    num_records
        How many times, even in log time, are looked at, besides time 0; fewer where they would fall
        on the same step.
    step
        Step size of gradient descent. Default: per condition, at most 0.2 of the stability limit.
    num_kernel_points
        Training points at which the change of the NTK is measured.
    directory
        Where every condition and width is kept when it is finished, in a file of its own; one that
        is there and has the same settings and data is read instead of computed.
    progress
        Called with the finished fraction.

    Raises
    ------
    ValueError
        If a setting is out of range, a step is not below the stability limit, training diverges, or
        a width does not fit memory; the last before anything of that size is allocated.

    Notes
    -----
    A step costs one gradient per seed. Memory: six times the weights of all seeds, and three times
    an (n + m) c × n c kernel per seed.

    Examples
    --------
    >>> sweep = nb.lazy.width_sweep(
    ...     network, data.x_train, data.y_train, data.x_test[:20], key=key,
    ...     conditions={"regularized": nb.lazy.CONDITIONS["regularized"]},
    ...     widths=(32, 128), num_seeds=2, time=1.0, num_records=3,
    ... )
    >>> list(sweep.table.columns), sweep.table["width"].unique().tolist()
    (['condition', 'width', 'seed', 'time', 'measure', 'layer', 'value'], [32, 128])
    """
    plan = make_plan(
        network,
        x_train,
        y_train,
        x_test,
        key=key,
        conditions=CONDITIONS if conditions is None else conditions,
        widths=widths,
        num_seeds=num_seeds,
        time=time,
        num_records=num_records,
        step=step,
        num_kernel_points=num_kernel_points,
    )
    where = None if directory is None else Path(directory)
    return run_sweep(plan, where, lambda _, fraction, part: progress(fraction))


def at_end(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a sweep's table at the end of each condition's training."""
    end = table.groupby("condition")["time"].transform("max")
    return table.loc[table["time"] == end, :]


def run_sweep(plan: Plan, directory: Path | None, on_progress: OnProgress) -> WidthSweep:
    """Compute what is missing in the directory, the narrow networks first."""
    cells, data = Cells(directory, COLUMNS), _data_digest(plan)
    order = [(name, width) for width in plan.networks for name in plan.conditions]
    found = {
        (name, width): table
        for name, width in order
        if (table := cells.read(f"{name}-{width}", _settings(plan, name, width, data))) is not None
    }
    missing = [cell for cell in order if cell not in found]
    total, done = sum(plan.cost(*cell) for cell in missing), 0.0
    initial: InitialNetworks | None = None
    for name, width in missing:
        if initial is None or initial.network is not plan.networks[width]:
            initial = None  # frees the narrower ones first
            initial = _initial(plan, width)
        title = f"width {width}, {plan.conditions[name].title}"
        cost = plan.cost(name, width)

        def progress(
            part: float, title: str = title, done: float = done, cost: float = cost
        ) -> None:
            on_progress(title, (done + cost * part) / total, part)

        progress(0.0)
        records = train_width(
            initial,
            plan.problems[name],
            plan.infinite,
            plan.schedules[name],
            name=f"{plan.conditions[name].title!r} at width {width}",
            progress=progress,
        )
        found[name, width] = _to_table(name, width, records)
        cells.write(f"{name}-{width}", _settings(plan, name, width, data), found[name, width])
        done += cost
    on_progress("done", 1.0, 1.0)
    steps = {name: schedule.step for name, schedule in plan.schedules.items()}
    table = pd.concat([found[cell] for cell in order], ignore_index=True)
    return WidthSweep(table, plan.conditions, steps)


def _initial(plan: Plan, width: int) -> InitialNetworks:
    return initial_networks(
        plan.networks[width],
        plan.x_train,
        plan.x_test,
        num_outputs=plan.num_outputs,
        num_seeds=plan.num_seeds,
        num_kernel_points=plan.num_kernel_points,
        key=jax.random.fold_in(plan.key, width),
    )


def _settings(plan: Plan, name: str, width: int, data: str) -> dict[str, Any]:
    """Say all that decides a table."""
    schedule = plan.schedules[name]
    return {
        "network": plan.networks[width].settings(),
        "condition": plan.conditions[name].settings(),
        "step": schedule.step,
        "records": schedule.records,
        "num_seeds": plan.num_seeds,
        "num_kernel_points": plan.num_kernel_points,
        "data": data,
    }


def _data_digest(plan: Plan) -> str:
    """Of the data, in the dtype networks are trained in, and of the key."""
    labels = next(iter(plan.problems.values())).train.targets.argmax(axis=1)
    arrays = (plan.x_train, plan.x_test, labels, plan.infinite.ntk_train)
    return digest(*arrays, key=plan.key)


def _to_table(name: str, width: int, records: list[Record]) -> pd.DataFrame:
    """Lay records out with one value per row."""
    rows = [
        (name, width, seed, record.time, measure, layer, value)
        for record in records
        for (measure, layer), values in record.values.items()
        for seed, value in enumerate(values.tolist())
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))
