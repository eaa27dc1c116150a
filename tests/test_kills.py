"""A comparison that is killed again and again ends with the numbers of an undisturbed one.

Processes are killed by SIGINT, SIGTERM and SIGKILL at random moments and started again, until
`NUM_KILLS` were killed (12, or what the environment variable of this name says); a run that ends
before its turn begins anew in another directory. Nothing that a run has reported finished may be
computed again, and nothing half written may be left.
"""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

import ntkbayes as nb

NUM_KILLS = int(os.environ.get("NUM_KILLS", "12"))
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
SETTINGS = """
num_train = 20
num_warmup = 40
num_chains = 2
depth = 1
"""
RUN = """
import sys
from ntkbayes import cli
from ntkbayes.experiment import running
from ntkbayes.posteriors import chains
chains.CHECKPOINT_SECONDS = 0.0  # as often as can be
running.write_figures_and_report = lambda *a, **k: None  # always written anew, and slow
sys.argv[0] = "ntkbayes"
cli.main()
"""


def start(directory, cache):
    """Run the command, with compiled programs from an earlier run."""
    settings = cache.parent / "settings.toml"
    settings.write_text(SETTINGS, encoding="utf-8")
    options = ["--methods", "mode,laplace,ntk-ensemble,hmc", "--num-draws", "40"]
    command = ["compare", "iris", *options, "--config", str(settings), "--out", str(directory)]
    kept = {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return subprocess.Popen(
        [sys.executable, "-c", RUN, *command],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | kept,
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
                print(f"kill {sum(kills.values())}: {number.name} after {after:.1f} s", flush=True)
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
    print(f"{sum(kills.values())} kills in {rounds} runs, {whole:.1f} s each")
