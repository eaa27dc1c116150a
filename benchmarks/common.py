"""What several benchmarks share: data, timing, scikit-learn's view of our kernel, and results."""

import json
import time
from pathlib import Path

import jax
import numpy as np
import sklearn.datasets
from sklearn.gaussian_process.kernels import Kernel


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


def timed(function):
    """Return the result and the seconds of a second call; the first one compiles."""
    jax.block_until_ready(function())
    start = time.perf_counter()
    result = jax.block_until_ready(function())
    return result, time.perf_counter() - start


def results(name):
    """Path of a benchmark's results."""
    return Path(__file__).parent / "results" / f"{name}.json"


def write_results(path, result):
    """Write JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"written: {path}")
