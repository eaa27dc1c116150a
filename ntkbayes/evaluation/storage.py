"""Predictions on disk, and as plain arrays; `schema` says what the groups hold."""

import hashlib
import importlib.util
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import scipy.special
import xarray as xr

from ntkbayes._files import atomic_path
from ntkbayes._types import AnyArray, Float, typed

__all__ = [
    "class_probabilities",
    "load_predictions",
    "observations",
    "ordered",
    "pooled",
    "probabilities",
    "save_predictions",
]

_VARIABLES = {
    "posterior/latent": ("chain", "draw", "obs_id", "output"),
    "posterior_predictive/y": ("chain", "draw", "obs_id"),
    "log_likelihood/y": ("chain", "draw", "obs_id"),
    "observed_data/y": ("obs_id",),
}
"""What all predictions hold, and dimensions that it has at least."""
_ATTRIBUTES = ("method", "settings", "likelihood", "dataset", "split", "task", "num_chains")
_TASKS = ("classification", "regression", "counts")
_ROOT, _DIGESTS = "zarr.json", "file_digests"
"""The file that makes a directory a Zarr group, and the attribute that lists all others."""
_SEAL = b"\nntkbayes sha256 "
"""What stands before the digest at the end of a netCDF file, which readers of netCDF ignore."""


@typed
def save_predictions(tree: xr.DataTree, path: str | os.PathLike[str]) -> None:
    """Write predictions to one netCDF file or Zarr directory; a killed run leaves no half of it.

    Parameters
    ----------
    tree
        What `predict`, `from_draws` or `from_probabilities` returned.
    path
        File ending in ``.nc``, or directory ending in ``.zarr`` (which needs the extra ``zarr``);
        the directory it is in must exist. Older predictions there are replaced.

    Raises
    ------
    ValueError
        If `path` has another ending, or is a directory without predictions.
    OSError
        If it cannot be written, with the space that is left on the disk.
    ModuleNotFoundError
        If `path` ends in ``.zarr`` and the package zarr is missing.

    Examples
    --------
    >>> nb.save_predictions(trees["Laplace"], "laplace.nc")
    >>> nb.load_predictions("laplace.nc").identical(trees["Laplace"])
    True
    """
    path = Path(path)
    zarr = _is_zarr(path)
    if zarr and path.is_dir() and not (path / _ROOT).is_file():
        raise ValueError(f"{path} is a directory of something else; choose another name.")
    with atomic_path(path) as temporary:
        if zarr:
            _write_zarr(tree, temporary)
        else:
            tree.to_netcdf(temporary, engine="netcdf4")
            _seal(temporary)


@typed
def load_predictions(path: str | os.PathLike[str]) -> xr.DataTree:
    """Read predictions into memory, from netCDF or Zarr; the file is closed again.

    Parameters
    ----------
    path
        What `save_predictions` has written.

    Returns
    -------
    DataTree
        As it was saved.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file cannot be read, for instance because it is half written, if it is damaged (its
        digest is that of other content), if it holds something else, or if `path` ends in neither
        ``.nc`` nor ``.zarr``.
    ModuleNotFoundError
        If `path` ends in ``.zarr`` and the package zarr is missing.

    Examples
    --------
    >>> nb.save_predictions(trees["Laplace"], "laplace.nc")
    >>> tree = nb.load_predictions("laplace.nc")
    >>> tree.attrs["method"], tree.attrs["dataset"], tree.attrs["split"]
    ('laplace', 'moons', 'test')
    """
    path = Path(path)
    zarr = _is_zarr(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no file of predictions {path}.")
    try:
        tree = _read_zarr(path) if zarr else _read_netcdf(path)
    except Exception as error:  # HDF5, Zarr and xarray raise errors of any kind
        raise ValueError(
            f"{path} is not a readable file of predictions ({type(error).__name__}: {error}); it "
            "may be half written: delete it and run again."
        ) from error
    missing = list(_missing(tree))
    if missing:
        raise ValueError(
            f"{path} holds no predictions of ntkbayes: {', '.join(missing)} missing; from_draws "
            "makes them of draws."
        )
    if tree.attrs["task"] not in _TASKS:
        raise ValueError(
            f"{path} holds predictions of a task {tree.attrs['task']!r}, which is none of "
            f"{', '.join(_TASKS)}."
        )
    return tree


def _missing(tree: xr.DataTree) -> Iterator[str]:
    """Name what predictions have and this does not."""
    for path, dims in _VARIABLES.items():
        group, name = path.split("/")
        if group not in tree.children:
            yield group
        elif name not in tree[group].data_vars:
            yield path
        elif absent := [dim for dim in dims if dim not in tree[path].dims]:
            yield f"dimension {' and '.join(absent)} of {path}"
    for name in _ATTRIBUTES:
        if name not in tree.attrs:
            yield f"attribute {name}"


def _is_zarr(path: Path) -> bool:
    if path.suffix not in (".nc", ".zarr"):
        raise ValueError(f"path must end in .nc (netCDF) or .zarr (Zarr), but is {str(path)!r}.")
    if path.suffix == ".zarr" and importlib.util.find_spec("zarr") is None:
        raise ModuleNotFoundError(
            f"{path} needs the package zarr: pip install 'ntkbayes[zarr]', or use a name that "
            "ends in .nc."
        )
    return path.suffix == ".zarr"


def _seal(path: Path) -> None:
    """Append a digest of a file's content to it."""
    digest = _digest(path)
    with path.open("ab") as file:
        file.write(_SEAL + digest.encode())


def _check_seal(path: Path) -> None:
    """Raise `ValueError` if a file's content is another than when it was sealed.

    The library that reads netCDF may hang at a flipped bit. Files without a seal are of others.
    """
    length = len(_SEAL) + 64
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - length, 0))
        tail = file.read()
    if tail.startswith(_SEAL) and tail[len(_SEAL) :].decode("ascii", "replace") != _digest(
        path, size - length
    ):
        raise ValueError("its content has changed since it was written")


def _digest(path: Path, size: int | None = None) -> str:
    """SHA-256 of a file, or of its first bytes, in hexadecimal digits."""
    found, left = hashlib.sha256(), path.stat().st_size if size is None else size
    with path.open("rb") as file:
        while left > 0 and (block := file.read(min(left, 1 << 20))):
            found.update(block)
            left -= len(block)
    return found.hexdigest()


def _read_netcdf(path: Path) -> xr.DataTree:
    _check_seal(path)
    with xr.open_datatree(path, engine="netcdf4") as file:
        return file.load().copy(deep=True)


def _write_zarr(tree: xr.DataTree, path: Path) -> None:
    """Write a Zarr group that knows its files: to Zarr, a lost one is a constant array."""
    # Consolidated metadata are no part of Zarr's format 3; they only help over a network.
    tree.to_zarr(path, mode="w-", consolidated=False, zarr_format=3)
    attrs = tree.attrs | {_DIGESTS: dict(_file_digests(path))}
    xr.Dataset(attrs=attrs).to_zarr(path, mode="a", consolidated=False)


def _read_zarr(path: Path) -> xr.DataTree:
    attrs = json.loads((path / _ROOT).read_text(encoding="utf-8"))["attributes"]
    if _DIGESTS not in attrs:
        raise ValueError("save_predictions has not written it")
    digests = dict(_file_digests(path))
    wrong = [name for name, digest in attrs[_DIGESTS].items() if digests.get(name) != digest]
    if wrong:
        raise ValueError(
            f"{len(wrong)} of {len(attrs[_DIGESTS])} files missing, cut off or changed, such as "
            f"{wrong[0]}"
        )
    with xr.open_datatree(path, engine="zarr", consolidated=False) as group:
        tree = group.load().copy(deep=True)
    del tree.attrs[_DIGESTS]
    return tree


def _file_digests(path: Path) -> Iterator[tuple[str, str]]:
    """Relative name and digest of every file but the root's own."""
    for file in path.rglob("*"):
        if file.is_file() and file != path / _ROOT:
            yield file.relative_to(path).as_posix(), _digest(file)


@typed
def pooled(tree: xr.DataTree, variable: str = "posterior/latent") -> np.ndarray:
    """Return a variable with chains and draws pooled into one leading dimension (s …).

    Parameters
    ----------
    tree
        What `predict` returned.
    variable
        Path of a variable with dimensions (chain draw …), such as ``"log_likelihood/y"``.

    Examples
    --------
    >>> nb.evaluation.pooled(trees["Laplace"]).shape
    (50, 300, 2)
    >>> nb.evaluation.pooled(trees["Laplace"], "log_likelihood/y").shape
    (50, 300)
    """
    values = ordered(tree, variable)
    return values.reshape(-1, *values.shape[2:])


def ordered(tree: xr.DataTree, variable: str) -> np.ndarray:
    """Return a variable with the dimensions it has in the order (chain draw obs_id output …)."""
    dims = ("chain", "draw", "obs_id", "output")
    return np.asarray(tree[variable].transpose(*dims, ..., missing_dims="ignore"))


@typed
def observations(tree: xr.DataTree) -> np.ndarray:
    """Return the observations: class indices (m,), or regression values (m c), also for c = 1.

    Parameters
    ----------
    tree
        What `predict` returned; regression values are in standardised target units.

    Examples
    --------
    >>> y = nb.evaluation.observations(trees["Laplace"])
    >>> np.array_equal(y, data.y_test)
    True
    >>> nb.evaluation.observations(trees_sine["GP"]).shape
    (200, 1)
    """
    y = ordered(tree, "observed_data/y")
    if tree.attrs["task"] == "classification":
        return y.astype(int)
    return y.reshape(len(y), -1)


@typed
def probabilities(tree: xr.DataTree) -> Float[np.ndarray, "s m c"]:
    """Return class probabilities of every draw, over all chains, in double precision.

    Those that `from_probabilities` was given, or softmax(latent), of which a single logit f counts
    as (0, f).

    Parameters
    ----------
    tree
        What `predict` or `from_probabilities` returned, of a classification.

    Raises
    ------
    ValueError
        If the task is not classification.

    Examples
    --------
    >>> p = nb.evaluation.probabilities(trees["Laplace"])
    >>> p.shape, np.allclose(p.sum(axis=-1), 1)
    ((50, 300, 2), True)
    """
    if tree.attrs["task"] != "classification":
        raise ValueError(
            f"class probabilities need a classification task, but {tree.attrs['dataset']} is "
            f"{tree.attrs['task']}."
        )
    if "probabilities" in tree.children:
        return pooled(tree, "probabilities/p").astype(float, copy=False)
    return class_probabilities(pooled(tree))


@typed
def class_probabilities(latent: Float[AnyArray, "s m c"]) -> Float[np.ndarray, "s m c2"]:
    """Return softmax(latent) of every draw, in float64; a single logit f counts as (0, f)."""
    logits = np.asarray(latent, dtype=float)
    if logits.shape[-1] == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], axis=-1)
    return scipy.special.softmax(logits, axis=-1)
