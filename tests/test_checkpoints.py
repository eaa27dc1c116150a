"""Checkpoints of HMC: a killed run resumes to the same draws; nothing foreign is touched."""

import os
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from finite_models import linear_model
from models import regression_data

import ntkbayes as nb
from ntkbayes.experiment import preset, run_comparison, running
from ntkbayes.posteriors import chains
from ntkbayes.posteriors.checkpoints import fingerprint
from ntkbayes.posteriors.hmc import hmc

X, Y, _ = regression_data()
LINEAR, WIDE = linear_model(), nb.dense_network(depth=1)


class StopError(Exception):
    pass


def interrupt(fraction):
    if fraction > 0.5:
        raise StopError


def run(space="weight", network=None, **changes):
    settings = dict(prior_precision=2.0, key=jax.random.key(0), space=space, num_chains=2)
    settings |= dict(num_warmup=40, num_draws=60) | changes
    network = network or {"weight": LINEAR, "function": WIDE}[space]
    return hmc(network, nb.Gaussian(0.3), X, Y, **settings)


def assert_same(one, two):
    np.testing.assert_array_equal(one.chains.position, two.chains.position)
    assert one.stats.keys() == two.stats.keys()
    for name, values in one.stats.items():
        np.testing.assert_array_equal(values, two.stats[name])


@pytest.fixture
def always(monkeypatch):
    """Save after every chunk, and count the chunks."""
    monkeypatch.setattr(chains, "CHECKPOINT_SECONDS", 0.0)
    advance, counted = chains._advance_chunk, []

    def count(*arguments):
        counted.append(arguments)
        return advance(*arguments)

    monkeypatch.setattr(chains, "_advance_chunk", count)
    return counted


@pytest.fixture
def saved(tmp_path, always):
    """A checkpoint of the default run, interrupted after three of four chunks."""
    path = tmp_path / "run.npz"
    with pytest.raises(StopError):
        run(checkpoint=path, progress=interrupt)
    return path


@pytest.mark.parametrize("space", ["weight", "function"])
@pytest.mark.parametrize("stop", [0.2, 0.5])
def test_an_interrupted_run_resumes_to_the_same_draws(space, stop, tmp_path, always):
    """During warm-up, whose adaptation must survive, and after it."""
    path = tmp_path / "run.npz"

    def interrupt(fraction):
        if fraction > stop:
            raise StopError

    with pytest.raises(StopError):
        run(space, checkpoint=path, progress=interrupt)
    always.clear()
    fractions = []
    resumed = run(space, checkpoint=str(path), progress=fractions.append)
    assert len(always) == {0.2: 3, 0.5: 1}[stop]
    assert fractions == {0.2: [0.25, 0.5, 0.75, 1.0], 0.5: [0.75, 1.0]}[stop]
    assert_same(resumed, run(space))
    assert [file.name for file in tmp_path.iterdir()] == ["run.npz"]


def test_a_finished_run_is_read_and_not_repeated(saved, always):
    finished = run(checkpoint=saved)
    always.clear()
    fractions = []
    assert_same(run(checkpoint=saved, progress=fractions.append), finished)
    assert not always
    assert fractions == [1.0]


def test_between_checkpoints_nothing_is_written(tmp_path):
    path = tmp_path / "run.npz"
    with pytest.raises(StopError):
        run(checkpoint=path, progress=interrupt)
    assert not path.exists()
    run(checkpoint=path)
    assert path.exists()


KILLED = """
import os, signal, sys
import jax
jax.config.update("jax_enable_x64", True)
sys.path.insert(0, "tests")
from models import regression_data
from ntkbayes import Gaussian, dense_network
from ntkbayes.posteriors import chains
from ntkbayes.posteriors.checkpoints import fingerprint
from ntkbayes.posteriors.hmc import hmc

chains.CHECKPOINT_SECONDS = 0.0

def kill(fraction):
    if fraction > 0.5:
        os.kill(os.getpid(), signal.SIGKILL)

x, y, _ = regression_data()
hmc(
    dense_network(depth=1), Gaussian(0.3), x, y, prior_precision=2.0, key=jax.random.key(0),
    num_chains=2, num_warmup=40, num_draws=60, checkpoint=sys.argv[1], progress=kill,
)
"""
"""What `run` does, in a process of its own."""


@pytest.mark.slow
def test_a_killed_process_leaves_a_run_that_another_one_finishes(tmp_path, always):
    path = tmp_path / "run.npz"
    killed = subprocess.run([sys.executable, "-c", KILLED, path], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert os.listdir(tmp_path) == ["run.npz"]
    resumed = run("function", checkpoint=path)
    assert len(always) == 1
    assert_same(resumed, run("function"))


def other_network():
    """As many weights and the same settings, but another function."""
    return nb.finite_network(LINEAR.init_fn, lambda params, x: jnp.sin(LINEAR.apply_fn(params, x)))


@pytest.mark.parametrize(
    "changes",
    [
        {"key": jax.random.key(1)},
        {"prior_precision": 2.5},
        {"num_draws": 61},
        {"num_warmup": 39},
        {"num_chains": 1},
        {"center": np.ones(6)},
        {"network": other_network()},
        {"space": "function"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_checkpoints_of_other_runs_are_refused_and_kept(changes, saved, always):
    before = saved.read_bytes()
    always.clear()
    with pytest.raises(ValueError, match=r"run\.npz is of another run: .*delete it or choose"):
        run(**{"space": "weight"} | changes, checkpoint=saved)
    assert not always
    assert saved.read_bytes() == before


def test_the_fingerprint_tells_keys_arrays_and_settings_apart():
    def of(key=0, array=X, **settings):
        return fingerprint({"x": jnp.asarray(array)}, jax.random.key(key), {"a": 1} | settings)

    assert of() == of()
    assert len({of(), of(key=1), of(array=X[:4]), of(array=X + 1e-15), of(a=2), of(b=1)}) == 6


@pytest.mark.parametrize("kind", ["text", "empty", "truncated", "array", "other arrays", "pickle"])
def test_files_that_are_no_checkpoints_are_refused_and_kept(kind, saved, always):
    whole = saved.read_bytes()
    if kind == "array":
        with saved.open("wb") as file:
            np.save(file, X)
    elif kind == "other arrays":
        np.savez(saved, x=X)
    elif kind == "pickle":
        np.savez(saved, header=np.array({"format": "mine"}, object))
    else:
        contents = {"text": b"mine", "empty": b"", "truncated": whole[: len(whole) // 2]}
        saved.write_bytes(contents[kind])
    before = saved.read_bytes()
    always.clear()
    with pytest.raises(ValueError, match=r"run\.npz is damaged or no checkpoint of ntkbayes"):
        run(checkpoint=saved)
    assert not always
    assert saved.read_bytes() == before


@pytest.mark.parametrize(
    ("place", "match"),
    [("", "is a directory"), ("missing/run.npz", r"cannot be written \(No such file")],
)
def test_a_path_that_cannot_be_written_is_refused_before_anything_is_computed(
    place, match, tmp_path
):
    with pytest.raises(ValueError, match=match):
        # The data would be refused too, but later.
        hmc(LINEAR, nb.Gaussian(0.3), X, Y[:-1], prior_precision=1.0, key=jax.random.key(0),
            checkpoint=tmp_path / place)  # fmt: skip


@pytest.mark.slow
def test_a_comparison_resumes_inside_hmc_and_clears_up(tmp_path, always, monkeypatch):
    monkeypatch.setattr(running, "write_figures_and_report", lambda comparison, **kwargs: None)
    config = preset("iris", methods=("hmc",), num_draws=40, num_warmup=60, num_train=12)
    path = tmp_path / "resumed" / "predictions" / "hmc.checkpoint.npz"
    always.clear()

    def interrupt(step, fraction, part):
        if len(always) == 3:
            raise StopError

    with pytest.raises(StopError):
        run_comparison(config, tmp_path / "resumed", on_progress=interrupt)
    assert path.exists()
    always.clear()
    resumed, whole = (run_comparison(config, tmp_path / name) for name in ("resumed", "whole"))
    assert len(always) == 1 + 4
    assert not path.exists()
    a, b = (c.predictions["HMC"]["posterior/latent"] for c in (resumed, whole))
    assert a.equals(b)
