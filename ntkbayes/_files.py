"""Writing files so that a killed run leaves no half of one."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path`; move it there when the block ends without an error.

    The block writes a file or a directory. No system call that Python has replaces one directory
    by another, so an older one is moved aside first: a process killed between the two moves leaves
    nothing at `path`, and both whole directories beside it.

    Raises
    ------
    FileNotFoundError
        If the directory of `path` is missing.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path} cannot be written: there is no directory {path.parent}.")
    unique = f".{path.name}.{uuid4().hex}"
    temporary, older = path.with_name(f"{unique}.tmp"), path.with_name(f"{unique}.old")
    try:
        yield temporary
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


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
