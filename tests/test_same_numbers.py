"""What the same key gives in other processes, on other cores and devices, in other portions."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from every_draw import every_draw

from ntkbayes.ensembles import convex, weight_space
from ntkbayes.lazy import dynamics
from ntkbayes.networks import empirical
from ntkbayes.posteriors import chains, expectations, linearized
from ntkbayes.posteriors.weights import base, dual
from ntkbayes.solvers import certificate

FLAGS = os.environ.get("XLA_FLAGS", "")
THREADS = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
ROUNDING = 1e-7
"""Relative to the largest number; a few steps of a chain over weights amplify 1e-16 to 1e-8."""


def draws_of_a_process(path, flag="", environment=(), *, num_cores=None):
    """Let another process make every draw."""
    cores = [] if num_cores is None else [str(num_cores)]
    subprocess.run(
        [sys.executable, Path(__file__).with_name("every_draw.py"), path, *cores],
        env=os.environ | {"XLA_FLAGS": f"{FLAGS} {flag}"} | dict(environment),
        check=True,
    )  # fmt: skip
    with np.load(path) as file:
        return dict(file)


def differing(draws, others):
    """Name → largest difference, relative to the largest number; where there is one."""
    assert draws.keys() == others.keys()
    found = {
        name: np.nanmax(np.abs(draws[name] - others[name])) / np.nanmax(np.abs(draws[name]))
        for name in draws
        if not np.array_equal(draws[name], others[name], equal_nan=True)
    }
    print(found)
    return found


@pytest.fixture(scope="module")
def draws(tmp_path_factory):
    return draws_of_a_process(tmp_path_factory.mktemp("draws") / "draws.npz")


@pytest.mark.slow
def test_another_process_gives_the_same_numbers_to_the_last_bit(draws, tmp_path):
    assert differing(draws, draws_of_a_process(tmp_path / "draws.npz")) == {}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not let one choose cores")
def test_cores_and_threads_change_rounding_only(draws, tmp_path):
    flag = "--xla_cpu_multi_thread_eigen=false"
    others = draws_of_a_process(tmp_path / "draws.npz", flag, THREADS, num_cores=1)
    assert max(differing(draws, others).values(), default=0.0) < ROUNDING


@pytest.mark.slow
def test_the_number_of_devices_changes_rounding_only(draws, tmp_path):
    flag = "--xla_force_host_platform_device_count=4"
    others = draws_of_a_process(tmp_path / "draws.npz", flag)
    assert max(differing(draws, others).values(), default=0.0) < ROUNDING


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_size_of_portions_changes_rounding_only(draws, monkeypatch):
    for module, name, value in (
        (convex, "SLOT_BYTES", 1),
        (convex, "SLOT_MULTIPLE", 2),
        (weight_space, "BLOCK_BYTES", 4000),
        (certificate, "BLOCK_BYTES", 4000),
        (empirical, "WORKSPACE_BYTES", 200_000),
        (expectations, "BLOCK", 100),
        (linearized, "DRAWS_AT_ONCE", 3),
        (base, "CHUNK_NUMBERS", 2000),
        (dual, "PRODUCTS_AT_ONCE", 3),
        (dual, "BLOCK_POINTS", 8),
        (chains, "STEPS_PER_CHUNK", 2),
        (dynamics, "CHUNKS", 3),
    ):
        monkeypatch.setattr(module, name, value)
    assert max(differing(draws, every_draw()).values(), default=0.0) < ROUNDING
