"""What a study has finished: tables in files of their own, marked with all that decides them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd

from ntkbayes._files import atomic_path
from ntkbayes._types import AnyArray, Key

__all__ = ["Cells", "digest"]

MARK = "settings"


class Cells:
    """Finished tables with these columns, kept in `directory` if there is one."""

    def __init__(self, directory: Path | None, columns: Sequence[str]):
        self.directory, self.columns = directory, tuple(columns)

    def read(self, name: str, settings: Mapping[str, Any]) -> pd.DataFrame | None:
        """Return a table if it is there, whole, and of the same settings."""
        if self.directory is None:
            return None
        try:
            table = pd.read_parquet(self.directory / f"{name}.parquet")
        except Exception:  # not there, or not a whole file: Arrow raises errors of any kind
            return None
        same = table.attrs.get(MARK) == _mark(settings)
        return table if same and tuple(table.columns) == self.columns else None

    def write(self, name: str, settings: Mapping[str, Any], table: pd.DataFrame) -> None:
        """Keep a finished table."""
        if self.directory is None:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        marked = table.copy(deep=False)
        marked.attrs[MARK] = _mark(settings)
        with atomic_path(self.directory / f"{name}.parquet") as temporary:
            marked.to_parquet(temporary, index=False)


def digest(*arrays: AnyArray, key: Key) -> str:
    """Return a hash of arrays and a key."""
    found = hashlib.sha256()
    for array in (*arrays, jax.random.key_data(key)):
        values = np.ascontiguousarray(array)
        found.update(f"{values.dtype}{values.shape}".encode() + values.tobytes())
    return found.hexdigest()


def _mark(settings: Mapping[str, Any]) -> str:
    return json.dumps(dict(settings), sort_keys=True, default=str)
