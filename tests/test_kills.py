"""A comparison that is killed again and again ends with the numbers of an undisturbed one.

Processes are killed by SIGINT, SIGTERM and SIGKILL at random moments and started again, until 100
were killed; a run that ends before its turn begins anew in another directory. Nothing that a run
has reported finished may be computed again, and nothing half written may be left.
"""

import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

import ntkbayes as nb

NUM_KILLS = 100
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
RUN = """
import sys
import jax
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_compilation_cache_dir", sys.argv[2])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
from ntkbayes.cli import _interruptible
from ntkbayes.experiment import preset, run_comparison
from ntkbayes.posteriors import chains
from pathlib import Path
chains.CHECKPOINT_SECONDS = 0.0
config = preset("iris", methods=("mode", "laplace", "ntk-ensemble", "hmc"), num_train=20,
                num_draws=40, num_warmup=40, num_chains=2, depth=1)
def say(step, fraction):
    print(f"{fraction:.3f} {step}", flush=True)
with _interruptible(Path(sys.argv[1])):
    run_comparison(config, sys.argv[1], on_progress=say)
"""


def start(directory, cache):
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(directory), str(cache)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finished(process, directory, cache):
    """Run to the end; return what it said."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


def leftovers(directory):
    return [
        path.name
        for path in directory.rglob("*")
        if path.name.endswith((".tmp", ".old", ".checkpoint.npz", ".running.json"))
    ]


def same_results(directory, other):
    """Whether tables and draws are equal to the last bit."""
    columns = ["method", "metric"]
    tables = [
        pd.read_parquet(path / "metrics.parquet").sort_values(columns).reset_index(drop=True)
        for path in (directory, other)
    ]
    pd.testing.assert_frame_equal(*tables)
    for path in (other / "predictions").glob("*.nc"):
        files = [folder / "predictions" / path.name for folder in (directory, other)]
        mine, theirs = (nb.load_predictions(file) for file in files)
        for tree in (mine, theirs):
            tree.attrs.pop("seconds")
        assert mine.identical(theirs), path.name


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_as_if_undisturbed(tmp_path):
    rng, cache = np.random.default_rng(0), tmp_path / "cache"
    undisturbed = tmp_path / "undisturbed"
    finished(start(undisturbed, cache), undisturbed, cache)  # fills the cache of compiled programs
    begin = time.perf_counter()
    finished(start(tmp_path / "warm", cache), tmp_path / "warm", cache)
    whole = time.perf_counter() - begin
    kills, rounds = dict.fromkeys(SIGNALS, 0), 0
    while sum(kills.values()) < NUM_KILLS:
        directory, reported = tmp_path / f"run{rounds}", {}
        rounds += 1
        while True:
            process = start(directory, cache)
            number = SIGNALS[int(rng.integers(len(SIGNALS)))]
            # Most of the time goes into imports: half of the kills come in the second half.
            after = whole * (rng.uniform() if rng.uniform() < 0.5 else rng.uniform(0.5, 1.0))
            try:
                err = process.communicate(timeout=after)[1]
            except subprocess.TimeoutExpired:
                process.send_signal(number)
                kills[number] += 1
                err = process.communicate(timeout=300)[1]
                assert process.returncode in (-number, 130, 0), err
                for path in (directory / "predictions").glob("[!.]*.nc"):
                    written = path.stat().st_mtime_ns
                    assert reported.setdefault(path.name, written) == written
                continue
            assert process.returncode == 0, err
            break
        for path in (directory / "predictions").glob("[!.]*.nc"):
            written = path.stat().st_mtime_ns
            assert reported.setdefault(path.name, written) == written
        same_results(directory, undisturbed)
        assert leftovers(directory) == []
    assert min(kills.values()) >= NUM_KILLS // 5
    print(f"{sum(kills.values())} kills in {rounds} runs, {whole:.1f} s each")
