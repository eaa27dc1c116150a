"""What a run was computed with."""

import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import xarray as xr

from ntkbayes._files import atomic_path, read_json

__all__ = ["environment", "other_versions", "read_environment", "write_environment"]

PACKAGES = ("ntkbayes", "jax", "jaxlib", "numpy", "scipy", "numpyro", "gpjax", "arviz", "equinox")


def environment() -> dict[str, Any]:
    """Name → value: versions, hardware, dtype and git revision, as written to a run's directory."""
    return {
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "num_cpus": os.cpu_count(),
        "devices": [str(device) for device in jax.devices()],
        "dtype": str(jnp.result_type(float)),
        "git_revision": _git_revision(),
    }


def write_environment(directory: Path, predictions: Mapping[str, xr.DataTree]) -> None:
    """Write ``environment.json``: what this run was computed with, and each method's predictions.

    The latter may have been kept from an earlier run, with other versions.
    """
    made = {title: _versions(tree) for title, tree in predictions.items()}
    content = environment() | {"predictions": made}
    with atomic_path(directory / "environment.json") as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_environment(directory: Path) -> dict[str, Any]:
    """Return what `write_environment` has written.

    Raises
    ------
    ValueError
        If the file is missing, unreadable or holds something else.
    """
    path = directory / "environment.json"
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("packages"), dict):
        raise ValueError(f"{path} does not say what the run was computed with.")
    return content


def other_versions(tree: xr.DataTree) -> str:
    """Name the versions that predictions were made with, where they are not today's; else ""."""
    made = _versions(tree)
    others = [
        f"{name} {found}"
        for name, found in made.items()
        if found != importlib.metadata.version(name)
    ]
    return ", ".join(others)


def _versions(tree: xr.DataTree) -> dict[str, str]:
    suffix = "_version"
    return {
        str(name).removesuffix(suffix): value
        for name, value in tree.attrs.items()
        if str(name).endswith(suffix)
    }


def _git_revision() -> str | None:
    """Revision of the checkout this package runs from; None if it is installed elsewhere."""
    checkout = Path(__file__).parents[2]
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
