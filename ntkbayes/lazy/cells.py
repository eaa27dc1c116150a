"""What a sweep has finished: one table per condition and width, in a file of its own."""

import hashlib
import json
from pathlib import Path

import jax
import numpy as np
import pandas as pd

from ntkbayes._files import atomic_path
from ntkbayes.lazy.dynamics import Record
from ntkbayes.lazy.planning import Plan

__all__ = ["COLUMNS", "Cells"]

COLUMNS = ("condition", "width", "seed", "time", "measure", "layer", "value")

MARK = "settings"


class Cells:
    """Finished tables, kept in `directory` if there is one, marked with all that decides them."""

    def __init__(self, plan: Plan, directory: Path | None):
        self.plan, self.directory = plan, directory
        self.data = _digest(plan)

    def read(self, name: str, width: int) -> pd.DataFrame | None:
        """Return a table if it is there, whole, and of the same settings and data."""
        if self.directory is None:
            return None
        try:
            table = pd.read_parquet(self._path(name, width))
        except (OSError, ValueError):  # not there, or not a whole file
            return None
        same = table.attrs.get(MARK) == self._mark(name, width)
        return table if same and tuple(table.columns) == COLUMNS else None

    def write(self, name: str, width: int, table: pd.DataFrame) -> None:
        """Keep a finished table."""
        if self.directory is None:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        marked = table.copy(deep=False)
        marked.attrs[MARK] = self._mark(name, width)
        with atomic_path(self._path(name, width)) as temporary:
            marked.to_parquet(temporary, index=False)

    def _path(self, name: str, width: int) -> Path:
        assert self.directory is not None
        return self.directory / f"{name}-{width}.parquet"

    def _mark(self, name: str, width: int) -> str:
        plan, schedule = self.plan, self.plan.schedules[name]
        settings = {
            "network": plan.networks[width].settings(),
            "condition": plan.conditions[name].settings(),
            "step": schedule.step,
            "records": schedule.records,
            "num_seeds": plan.num_seeds,
            "num_kernel_points": plan.num_kernel_points,
            "data": self.data,
        }
        return json.dumps(settings, sort_keys=True, default=str)


def to_table(name: str, width: int, records: list[Record]) -> pd.DataFrame:
    """Lay records out with one value per row."""
    rows = [
        (name, width, seed, record.time, measure, layer, value)
        for record in records
        for (measure, layer), values in record.values.items()
        for seed, value in enumerate(values.tolist())
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _digest(plan: Plan) -> str:
    """Of the data, in the dtype networks are trained in, and of the key."""
    digest = hashlib.sha256()
    labels = next(iter(plan.problems.values())).train.targets.argmax(axis=1)
    for array in (plan.x_train, plan.x_test, labels, plan.infinite.ntk_train):
        values = np.ascontiguousarray(array)
        digest.update(f"{values.dtype}{values.shape}".encode() + values.tobytes())
    digest.update(np.asarray(jax.random.key_data(plan.key)).tobytes())
    return digest.hexdigest()
