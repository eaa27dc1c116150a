"""Every reader of files, with files that it takes, and a process in which it may read others.

A process of its own, because libraries of C may hang, crash or ask for all memory at damaged files.
"""

import hashlib
import multiprocessing
import os
import pickle
import resource
import shutil
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import filelock
import jax
import numpy as np
import pandas as pd

import ntkbayes as nb
from ntkbayes._files import locked
from ntkbayes.experiment import load_comparison, preset, read_settings, run_comparison, running
from ntkbayes.experiment.description import methods_table, versions
from ntkbayes.experiment.directory import (
    check_same_settings,
    fingerprint,
    predictions_path,
    read_predictions,
)
from ntkbayes.experiment.running import problem_of
from ntkbayes.experiment.tuning import read_selection
from ntkbayes.lazy.cells import Cells
from ntkbayes.posteriors.checkpoints import RunIdentity, Snapshot, load, save

SECONDS = 60.0
"""After which a reader counts as hanging."""
ADDRESSES = 16 << 30
"""Bytes of memory, beyond which a file asks for too much."""
CONFIG = preset("moons", methods=("mode",), num_draws=2, num_train=12, tune=True)
COLUMNS = ("width", "value")
NUM_WARMUP = 2
IDENTITY = RunIdentity("0123", np.array([1.0, 2.0]))


# Files that are read


def make_files(directory):
    """Write what every reader takes: a file, or a directory of files."""
    run = directory / "moons-run"
    make_run(run)
    shutil.copy(run / "config.toml", directory / "settings.toml")
    tree = predictions()
    nb.save_predictions(tree, directory / "sealed.nc")
    tree.to_netcdf(directory / "foreign.nc", engine="netcdf4")
    nb.save_predictions(tree, directory / "group.zarr")
    save(directory / "chains.npz", IDENTITY, chains(num_steps=3), num_warmup=NUM_WARMUP)
    Cells(directory, COLUMNS).write("cells", {"seed": 0}, pd.DataFrame([(8, 0.5)], columns=COLUMNS))
    (directory / "own.csv").write_text("a,b,label\n" + "1,2.5,x\n2,0.5,y\n" * 12, encoding="utf-8")
    (directory / "held").mkdir()
    (directory / "held" / ".running.json").write_text('{"pid": 1, "host": "h"}', encoding="utf-8")


def make_run(directory):
    """Run a comparison, without figures and report."""
    with mock.patch.object(running, "write_figures_and_report"):
        run_comparison(CONFIG, directory)


def predictions():
    p = np.random.default_rng(0).dirichlet(np.ones(3), size=(2, 5))
    return nb.from_probabilities(p, np.arange(5) % 3, key=jax.random.key(0), method="m")


def chains(num_steps):
    state = {"z": np.zeros((2, 3)), "key": jax.random.split(jax.random.key(0), 2)}
    return Snapshot(num_steps, state, {"position": np.zeros((2, 4, 3))})


# Readers


def read_options(path):
    found = read_settings(path)
    with suppress(ValueError):  # which names the setting, wherever it comes from
        preset("moons", **{name: value for name, value in found.items() if name != "dataset"})


def read_run(directory):
    """Read as ``ntkbayes report`` does, figures aside."""
    comparison = load_comparison(directory)
    versions(directory)
    methods_table(comparison)


def continue_run(directory):
    """Read as ``ntkbayes compare`` does with the `--out` of an earlier run."""
    check_same_settings(directory, CONFIG.settings(), free="methods")
    read_selection(CONFIG, problem_of(CONFIG), directory)
    read_predictions(predictions_path(directory, "mode"), fingerprint(CONFIG))


def read_chains(path):
    load(path, IDENTITY, chains(num_steps=0), num_warmup=NUM_WARMUP)


def read_cells(path):
    Cells(path.parent, COLUMNS).read(path.stem, {"seed": 0})


def read_held(directory):
    with filelock.FileLock(directory / ".lock"), locked(directory):
        pass


def read_own(path):
    """Hand over what pandas makes of a table, if it makes anything of it."""
    try:
        frame = pd.read_csv(path)
    except Exception:
        return
    with suppress(ValueError):  # which names the column, not the file
        nb.make_dataset(frame.iloc[:, :-1], frame.iloc[:, -1], task="classification", name="own")


class Reader(NamedTuple):
    """A function, the file or directory it is given, and the file there that is damaged."""

    read: Callable[[Path], None]
    given: str
    damaged: str = ""


READERS = {
    "settings": Reader(read_options, "settings.toml"),
    "predictions": Reader(nb.load_predictions, "sealed.nc"),
    "foreign predictions": Reader(nb.load_predictions, "foreign.nc"),
    "zarr root": Reader(nb.load_predictions, "group.zarr", "zarr.json"),
    "zarr chunk": Reader(nb.load_predictions, "group.zarr", "posterior/latent/c/0/0/0/0"),
    "checkpoint": Reader(read_chains, "chains.npz"),
    "cells": Reader(read_cells, "cells.parquet"),
    "held directory": Reader(read_held, "held", ".running.json"),
    "own table": Reader(read_own, "own.csv"),
    **{
        f"{name} of a run to {purpose}": Reader(read, "moons-run", name)
        for name in (
            *("config.toml", "environment.json", "hyperparameters.json", "metrics.parquet"),
            "predictions/mode.nc",
        )
        for purpose, read in (("report", read_run), ("continue", continue_run))
    },
}


# The process


class Outcome(NamedTuple):
    """What came of a file: the kinds of the error (none of a value), its text, and lapses."""

    kinds: tuple[str, ...] = ()
    text: str = ""
    lapses: tuple[str, ...] = ()


class ReaderProcess:
    """A process that reads files, started again where it hangs or crashes."""

    def __init__(self):
        self._start()

    def _start(self):
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()
        assert self.connection.recv() == "ready"

    def read(self, name, path):
        """Let a reader read; a hang or a crash is a lapse."""
        self.connection.send((name, path))
        try:
            if self.connection.poll(SECONDS):
                return self.connection.recv()
            lapse = f"hangs for {SECONDS} s"
        except EOFError:
            self.process.join()
            lapse = f"ends the process with {self.process.exitcode}"
        self.end()
        self._start()
        return Outcome(lapses=(lapse,))

    def end(self):
        """End the process."""
        self.process.kill()
        self.process.join()
        self.connection.close()


def _serve(connection):
    jax.config.update("jax_enable_x64", True)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    warnings.simplefilter("ignore")
    watched = []  # events while a reader reads
    reading = []
    sys.addaudithook(lambda event, args: reading and watched.append((event, args)))
    connection.send("ready")
    while True:
        name, path = connection.recv()
        before = _contents(path)
        kinds, text = (), ""
        with _without_pickle():
            reading.append(name)
            try:
                READERS[name].read(path)
            except Exception as error:
                kinds = tuple(kind.__name__ for kind in type(error).__mro__)
                text = f"{error}\n{''.join(traceback.format_tb(error.__traceback__)[-3:])}"
            reading.clear()
        lapses = [f"{event}{args}" for event, args in watched if _forbidden(event, args, path)]
        watched.clear()
        if _contents(path) != before:
            lapses.append("changes files")
        connection.send(Outcome(kinds, text, tuple(lapses)))


@contextmanager
def _without_pickle():
    refused = AssertionError("unpickles")
    with (
        mock.patch.object(pickle, "load", side_effect=refused),
        mock.patch.object(pickle, "loads", side_effect=refused),
        mock.patch.object(pickle, "Unpickler", side_effect=refused),
    ):
        yield


def _forbidden(event, args, path):
    """Whether an event of Python's audit hooks is none of reading `path`."""
    elsewhere = not str(args[0] if args else "").startswith(str(path))
    if event == "open":
        return elsewhere and bool(args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    if event in ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink"):
        return elsewhere
    runs = ("subprocess.Popen", "os.system", "os.exec", "os.fork", "pickle.find_class")
    return event in runs or event == "socket.connect"


def _contents(path):
    """Digest of every file, by name; locks aside."""
    files = path.rglob("*") if path.is_dir() else [path]
    return {
        file: hashlib.sha256(file.read_bytes()).digest()
        for file in files
        if file.is_file() and file.name not in (".lock",)
    }
