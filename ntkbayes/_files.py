"""Files: written so that a killed run leaves no half of one, and read whatever they hold."""

import json
import os
import shutil
import socket
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import filelock

_TEMPORARY, _OLDER = ".tmp", ".old"
_LOCK, _OWNER = ".lock", ".running.json"


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path`; move it there when the block ends without an error.

    The block writes a file or a directory. No system call that Python has replaces one directory
    by another, so an older one is moved aside first: a process killed between the two moves leaves
    nothing at `path`, and both whole directories beside it. A symbolic link stays one: what it
    points to is replaced.

    Raises
    ------
    FileNotFoundError
        If the directory of `path` is missing.
    IsADirectoryError
        If the block writes a file, and `path` is a directory.
    OSError
        If it cannot be written, with the space that is left on the disk.
    """
    path = Path(path)
    path = path.resolve() if path.is_symlink() else path
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path} cannot be written: there is no directory {path.parent}.")
    unique = f".{path.name[:100]}.{uuid4().hex}"
    temporary, older = (path.with_name(unique + end) for end in (_TEMPORARY, _OLDER))
    try:
        with _told_of_full_disks(path):
            yield temporary
        if path.is_dir() and not temporary.is_dir():
            raise IsADirectoryError(f"{path} is a directory; choose another name for the file.")
        if temporary.is_dir() and path.is_dir():
            os.replace(path, older)
        try:
            os.replace(temporary, path)
        except OSError:
            if older.exists():
                os.replace(older, path)
            raise
    finally:
        _remove(temporary)
        _remove(older)


@contextmanager
def _told_of_full_disks(path: Path) -> Iterator[None]:
    """Turn what libraries raise of a write that failed into one error that says what is left."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _of_files(error):
            raise
        free = shutil.disk_usage(path.parent).free
        raise OSError(
            f"{path} cannot be written ({' '.join(str(error).split())}); {free / 1e6:.4g} MB are "
            "free there."
        ) from error


def _of_files(error: RuntimeError) -> bool:
    """Whether a library for files has raised this, and not what was to be written."""
    return any(name in str(error) for name in ("NetCDF", "HDF", "zarr"))


def read_toml(path: Path) -> dict[str, Any]:
    """Return what a TOML file holds.

    Raises
    ------
    ValueError
        If it is not there or not readable.
    """
    return _parsed(path, tomllib.loads, "TOML")


def read_json(path: Path) -> Any:
    """Return what a JSON file holds; as `read_toml`."""
    return _parsed(path, json.loads, "JSON")


def _parsed(path: Path, parse: Callable[[str], Any], kind: str) -> Any:
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # the latter of a thousand brackets
        raise ValueError(f"{path} is not a readable {kind} file ({error}).") from error


def remove_leftovers(directory: Path) -> None:
    """Remove what processes that were killed while writing have left in a directory.

    A whole directory that was moved aside, with nothing in its place, is moved back. Only for the
    process that holds the directory's lock: another may be writing.
    """
    for older in directory.glob(f".*{_OLDER}"):
        name = older.name.removeprefix(".").rsplit(".", 2)[0]
        if not (directory / name).exists():
            os.replace(older, directory / name)
        else:
            _remove(older)
    for temporary in directory.glob(f".*{_TEMPORARY}"):
        _remove(temporary)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold a directory for this process alone; the system gives it up when the process ends.

    Raises
    ------
    ValueError
        If another process holds it, with that one's number.
    """
    lock, owner = filelock.FileLock(directory / _LOCK), directory / _OWNER
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise ValueError(
            f"{directory} is in use by {_described(owner)}; wait for it, or choose another "
            "directory."
        ) from None
    try:
        content = {"pid": os.getpid(), "host": socket.gethostname()}
        owner.write_text(json.dumps(content), encoding="utf-8")
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def _described(owner: Path) -> str:
    try:
        content = read_json(owner)
        return f"process {content['pid']} on {content['host']}"
    except (ValueError, KeyError, TypeError, IndexError):
        return "another process"


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
