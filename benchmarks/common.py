"""What several benchmarks share: data, time and memory, our kernel for scikit-learn, results."""

import ctypes
import gc
import json
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import sklearn.datasets
from sklearn.gaussian_process.kernels import Kernel

RESULTS = Path(__file__).parent / "results"


class PrecomputedKernel(Kernel):
    """The network's kernel in scikit-learn's form, without parameters."""

    def __init__(self, network, prior_precision):
        self.network = network
        self.prior_precision = prior_precision

    def __call__(self, X, Y=None, eval_gradient=False):
        """Kernel between rows of X and Y."""
        return np.asarray(self.network.ntk(X, Y)) / self.prior_precision

    def diag(self, X):
        """Diagonal of the kernel."""
        return np.diag(self(X))

    def is_stationary(self):
        """Whether it depends on differences only."""
        return False


def digits(num_points):
    """Centred digits in random order, divided by one common scale."""
    x, y = sklearn.datasets.load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))[:num_points]
    x = x[order] - x[order].mean(axis=0)
    return x / np.sqrt(np.mean(x**2)), y[order]


class Measured(NamedTuple):
    """What a call returned, its seconds, and the gigabytes it took beside what was held before."""

    result: Any
    seconds: float
    gigabytes: float | None  # at the peak; None where the system does not say


def measured(function, *, warm_up=True):
    """Measure a call; with `warm_up` a second one, because the first one compiles."""
    if warm_up:
        jax.block_until_ready(function())
    before = _reset_peak()
    start = time.perf_counter()
    result = jax.block_until_ready(function())
    seconds = time.perf_counter() - start
    peak = None if before is None else _status("VmHWM") - before
    return Measured(result, seconds, peak)


def _reset_peak():
    """Forget the largest resident memory so far; return the present one, GB, or None.

    What was freed, but is kept by the allocator for the next call, is given back first: otherwise
    that call would seem to take nothing.
    """
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # see proc(5)
    except (AttributeError, OSError):
        return None
    return _status("VmRSS")


def _status(name):
    text = Path("/proc/self/status").read_text()
    return int(re.search(rf"{name}:\s+(\d+) kB", text)[1]) / 1e6


def add_out(parser, default=RESULTS):
    """Add the option of the directory that results go into, checked when arguments are parsed."""
    parser.add_argument(
        "--out", type=out_directory, default=str(default), help="directory of the results"
    )


def out_directory(text):
    """Make the directory of `--out`; end with one line and exit code 2 if it cannot be one."""
    path = Path(text)
    if path.is_file():
        _end(f"{path} is a file; give a directory")
    if path.suffix in (".json", ".png") and not path.is_dir():
        _end(f"{path} is the name of a file; give a directory")
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        _end(f"{path} is not a directory one can write to ({error.strerror})")
    return path


def _end(reason):
    print(f"error: --out {reason}.", file=sys.stderr)
    raise SystemExit(2)


def write_results(directory, name, result):
    """Write a benchmark's results as JSON."""
    path = directory / f"{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"written: {path}")
