"""A run of Markov chains on disk: saved every few minutes, resumed to the same draws.

One NPZ file, without pickle: a JSON header, the leaves of the chains' states in order (adaptation
and random keys among them), and what was visited so far. Files are replaced atomically, so there
are no half-written ones; whatever does not belong to the run at hand is refused and left alone.
"""

import hashlib
import json
import tempfile
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ntkbayes._files import atomic_path
from ntkbayes._types import Array, Key

__all__ = ["RunIdentity", "Snapshot", "check_checkpoint", "fingerprint", "load", "save"]

FORMAT = "ntkbayes chains 1"


class RunIdentity(eqx.Module):
    """What two runs that give the same draws have in common.

    Parameters
    ----------
    fingerprint
        Of data, settings, key and versions.
    start_energy
        The density where the chains start, in nats; it also depends on what has no fingerprint,
        such as the code of a network. Compared up to rounding.
    """

    fingerprint: str
    start_energy: np.ndarray


class Snapshot(eqx.Module):
    """A run after a number of steps.

    Parameters
    ----------
    num_steps
        Steps of every chain so far, warm-up included.
    state
        State of the chains, stacked.
    visited
        Name → (chains, draws, …), filled as far as `num_steps` says.
    """

    num_steps: int
    state: Any
    visited: dict[str, np.ndarray]


def check_checkpoint(path: Path) -> None:
    """Raise `ValueError` unless a file can be written there, before anything is computed."""
    if path.is_dir():
        raise ValueError(f"checkpoint {path} is a directory; give the path of a file.")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ValueError(
            f"checkpoint {path} cannot be written ({error.strerror}); choose another path."
        ) from error


def fingerprint(target: Any, key: Key, settings: dict[str, Any]) -> str:
    """Hash the arrays of `target` bit by bit, with key, settings and the versions that matter."""
    settings = settings | {name: version(name) for name in ("jax", "numpyro")}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    arrays = jax.tree.leaves(eqx.filter(target, eqx.is_array))
    for array in (*arrays, jax.random.key_data(key)):
        values = np.ascontiguousarray(array)
        digest.update(f"{values.dtype}{values.shape}".encode())
        digest.update(values)
    return digest.hexdigest()


def save(path: Path, identity: RunIdentity, run: Snapshot, *, num_warmup: int) -> None:
    """Write a run to `path`, replacing the older file."""
    header = {"format": FORMAT, "fingerprint": identity.fingerprint, "num_steps": run.num_steps}
    leaves = jax.tree.leaves(run.state)
    num_kept = max(run.num_steps - num_warmup, 0)
    arrays = {
        "header": np.frombuffer(json.dumps(header).encode(), np.uint8),
        "start_energy": identity.start_energy,
        **{f"state_{i}": _plain(leaf) for i, leaf in enumerate(leaves)},
        **{f"visited_{name}": values[:, :num_kept] for name, values in run.visited.items()},
    }
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def load(path: Path, identity: RunIdentity, start: Snapshot, *, num_warmup: int) -> Snapshot:
    """Read the run at `path`, or return `start` if there is no file.

    Parameters
    ----------
    start
        The run at its beginning: it says what structure to expect, and its record is filled.

    Raises
    ------
    ValueError
        If the file is damaged, something else, or of another run.
    """
    if not path.exists():
        return start
    try:
        with path.open("rb") as raw, np.load(_archive(raw), allow_pickle=False) as file:
            header = json.loads(file["header"].tobytes())
            if header["format"] != FORMAT:
                raise ValueError(header["format"])
            if type(header["num_steps"]) is not int or header["num_steps"] < 0:
                raise ValueError(header["num_steps"])
            same = header["fingerprint"] == identity.fingerprint
            if same and _close(file["start_energy"], identity.start_energy):
                return _resumed(file, header["num_steps"], start, num_warmup)
    except Exception as error:  # zip, NumPy and JSON raise errors of any kind
        raise ValueError(
            f"checkpoint {path} is damaged or no checkpoint of ntkbayes ({type(error).__name__}); "
            "delete it or choose another path."
        ) from error
    raise ValueError(
        f"checkpoint {path} is of another run: data, model, settings, key, number of devices, "
        "machine or versions differ; delete it or choose another path."
    )


def _archive(raw: BinaryIO) -> BinaryIO:
    """Pass on a file only if `np.load` will make an archive of it, rather than an array."""
    if not zipfile.is_zipfile(raw):
        raise zipfile.BadZipFile
    raw.seek(0)
    return raw


def _resumed(file: Any, num_steps: int, start: Snapshot, num_warmup: int) -> Snapshot:
    leaves, structure = jax.tree.flatten(start.state)
    saved = [_like(file[f"state_{i}"], leaf) for i, leaf in enumerate(leaves)]
    num_kept = max(num_steps - num_warmup, 0)
    for name, values in start.visited.items():
        if num_kept > values.shape[1]:
            raise ValueError(num_steps)
        values[:, :num_kept] = _like(file[f"visited_{name}"], values[:, :num_kept])
    return Snapshot(num_steps, jax.tree.unflatten(structure, saved), start.visited)


def _plain(leaf: Array | np.ndarray) -> np.ndarray:
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _like(values: np.ndarray, leaf: Array | np.ndarray) -> Array | np.ndarray:
    if (values.shape, values.dtype) != (_plain(leaf).shape, _plain(leaf).dtype):
        raise ValueError("another state")
    if _is_key(leaf):
        return jax.random.wrap_key_data(jnp.asarray(values), impl=jax.random.key_impl(leaf))
    return values


def _is_key(leaf: Array | np.ndarray) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _close(saved: np.ndarray, now: np.ndarray) -> bool:
    rounding = float(np.finfo(now.dtype).eps) ** 0.5
    return saved.shape == now.shape and np.allclose(saved, now, rounding, 0, equal_nan=True)
