"""What a run was computed with."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["environment"]

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
