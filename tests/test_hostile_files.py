"""Files and directories that were locked, damaged, cut off, full or of something else."""

import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import xarray as xr
from command_line import IRIS, assert_refused, invoke, jax_has_started  # noqa: F401

import ntkbayes as nb
from ntkbayes._files import atomic_path, locked, remove_leftovers
from ntkbayes.experiment import preset, run_comparison, running
from ntkbayes.experiment.directory import holds_results


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture
def tree(key):
    p = np.random.default_rng(0).dirichlet(np.ones(3), size=(4, 30))
    return nb.from_probabilities(p, np.arange(30) % 3, key=key, method="m", dataset="d")


HOLDER = """
import sys, time
from pathlib import Path
from ntkbayes._files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the directory."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


# Locks


def test_a_directory_in_use_is_refused_with_the_number_of_the_process(holder, tmp_path):
    result = invoke(*IRIS, "--out", tmp_path)
    assert_refused(result, f"in use by process {holder.pid} on ", "choose another directory")
    assert not (tmp_path / "metrics.parquet").exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_lock_of_a_process_that_was_killed_holds_nobody_up(holder, tmp_path, number):
    holder.send_signal(number)
    holder.wait()
    assert (tmp_path / ".running.json").exists()  # it had no time to tidy up
    with locked(tmp_path):
        owner = json.loads((tmp_path / ".running.json").read_text(encoding="utf-8"))
        assert owner["pid"] == os.getpid()
    assert not (tmp_path / ".running.json").exists()


def test_a_lock_is_given_up_where_the_block_fails(tmp_path):
    with pytest.raises(KeyError), locked(tmp_path):
        raise KeyError
    with locked(tmp_path):
        pass


# Leftovers of killed processes


def test_what_a_killed_save_left_is_no_result_and_is_removed(tmp_path):
    (tmp_path / "predictions").mkdir()
    left = tmp_path / "predictions" / ".mode.nc.0123abcd.tmp"
    left.write_bytes(b"half")
    assert not holds_results(tmp_path)
    run_comparison(preset("iris", methods=("mode",), num_draws=1), tmp_path)
    assert not left.exists()
    files = [p.name for p in tmp_path.rglob("*") if p.name.endswith((".tmp", ".old"))]
    assert files == []


def test_a_whole_directory_that_was_moved_aside_comes_back(tmp_path):
    """Killed between moving the old one aside and moving the new one in."""
    aside = tmp_path / ".data.zarr.0123abcd.old"
    aside.mkdir()
    (aside / "content").write_text("old", encoding="utf-8")
    (tmp_path / ".data.zarr.0123abcd.tmp").mkdir()
    remove_leftovers(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["data.zarr"]
    assert (tmp_path / "data.zarr" / "content").read_text(encoding="utf-8") == "old"


# Writing


def test_a_symbolic_link_stays_one(tmp_path, tree):
    (tmp_path / "store").mkdir()
    target, link = tmp_path / "store" / "real.nc", tmp_path / "link.nc"
    nb.save_predictions(tree, target)
    link.symlink_to(target)
    before = target.stat().st_mtime_ns
    nb.save_predictions(tree, link)
    assert link.is_symlink()
    assert target.stat().st_mtime_ns > before
    assert nb.load_predictions(link).identical(tree)
    dangling = tmp_path / "dangling.nc"
    dangling.symlink_to(tmp_path / "store" / "new.nc")
    nb.save_predictions(tree, dangling)
    assert (tmp_path / "store" / "new.nc").exists()


def test_a_file_does_not_replace_a_directory(tmp_path, tree):
    (tmp_path / "a.nc").mkdir()
    (tmp_path / "a.nc" / "content").write_text("kept", encoding="utf-8")
    with pytest.raises(IsADirectoryError, match=r"a\.nc is a directory; choose another name"):
        nb.save_predictions(tree, tmp_path / "a.nc")
    assert [p.name for p in tmp_path.iterdir()] == ["a.nc"]
    assert (tmp_path / "a.nc" / "content").exists()


FULL = """
import resource, signal, sys
import jax, numpy as np
import ntkbayes as nb
p = np.full((50, 1000, 3), 1 / 3)
tree = nb.from_probabilities(p, np.zeros(1000, int), key=jax.random.key(0), method="m")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    nb.save_predictions(tree, sys.argv[1])
except OSError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file sizes are those of Unix")
def test_a_file_that_does_not_fit_says_so_and_leaves_nothing(tmp_path):
    """A limit of the file's size stands for a full disk: the same calls fail."""
    path = tmp_path / "a.nc"
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=False
    )
    assert f"OSError {path} cannot be written (" in done.stdout, done.stderr
    assert "MB are free there." in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_ends_the_command_in_one_line(tmp_path, monkeypatch):
    def full(*arguments, **settings):
        raise RuntimeError("NetCDF: HDF error")

    monkeypatch.setattr(xr.DataTree, "to_netcdf", full)
    result = invoke(*IRIS, "--out", tmp_path)
    assert result.exit_code == 2
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "mode.nc cannot be written (NetCDF: HDF error)" in last
    assert "MB are free there." in last


def test_errors_of_what_is_written_are_not_called_those_of_the_disk(tmp_path):
    with pytest.raises(RuntimeError, match="mine"), atomic_path(tmp_path / "a"):
        raise RuntimeError("mine")


# Reading


def test_any_flipped_bit_is_found_before_the_file_is_opened(tmp_path, tree, monkeypatch):
    """The library that reads netCDF hangs at some of them."""
    path = tmp_path / "a.nc"
    nb.save_predictions(tree, path)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    opened = []
    read = xr.open_datatree
    monkeypatch.setattr(xr, "open_datatree", lambda *a, **k: opened.append(a) or read(*a, **k))
    for position in rng.integers(len(whole) - 80, size=150):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="its content has changed since it was written"):
            nb.load_predictions(path)
    assert opened == []
    path.write_bytes(whole)
    assert nb.load_predictions(path).identical(tree)


def test_other_readers_of_netcdf_do_not_mind_the_digest(tmp_path, tree):
    path = tmp_path / "a.nc"
    nb.save_predictions(tree, path)
    with xr.open_datatree(path, engine="netcdf4") as file:
        np.testing.assert_array_equal(file["posterior/latent"], tree["posterior/latent"])


def test_a_file_of_another_tool_needs_no_digest(tmp_path, tree):
    path = tmp_path / "a.nc"
    tree.to_netcdf(path, engine="netcdf4")
    assert nb.load_predictions(path).identical(tree)


def test_a_file_with_the_right_groups_but_no_attributes_is_refused_by_name(tmp_path, tree):
    foreign = tree.copy()
    foreign.attrs = {}
    path = tmp_path / "a.nc"
    foreign.to_netcdf(path, engine="netcdf4")
    with pytest.raises(ValueError, match=r"predictions of ntkbayes: attribute method, .* missing"):
        nb.load_predictions(path)


def without(path):
    def change(tree):
        group, name = path.split("/")
        tree[group] = xr.DataTree(tree[group].to_dataset().drop_vars(name))

    return change


def renamed(tree):
    tree["posterior"] = xr.DataTree(tree["posterior"].to_dataset().rename(obs_id="row"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("posterior/latent"), "posterior/latent missing"),
        (without("log_likelihood/y"), "log_likelihood/y missing"),
        (without("observed_data/y"), "observed_data/y missing"),
        (renamed, "dimension obs_id of posterior/latent missing"),
        (lambda tree: tree.attrs.update(task="ranking"), "task 'ranking', which is none of class"),
    ],
)
def test_predictions_that_were_altered_by_hand_are_refused_by_name(tmp_path, tree, change, message):
    altered = tree.copy(deep=True)
    change(altered)
    path = tmp_path / "a.nc"
    altered.to_netcdf(path, engine="netcdf4")
    with pytest.raises(ValueError, match=message):
        nb.load_predictions(path)


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
@pytest.mark.parametrize("where", ["method", "dataset", "output_names", "obs_ids"])
def test_text_that_no_file_can_hold_is_refused(key, text, where):
    given = {"method": "m", "dataset": "d", where: text}
    if where in ("output_names", "obs_ids"):
        given[where] = [text, "b"]
    with pytest.raises(ValueError, match=f"{where} must be text"):
        nb.from_probabilities(np.full((2, 2), 0.5), np.array([0, 1]), key=key, **given)


@pytest.mark.parametrize(
    "header", [b"[]", b"null", b'"text"', b"3", b"{}", b'{"format": null}', b"\xff\xfe", b""]
)
def test_a_checkpoint_with_another_header_is_refused_by_name(tmp_path, header):
    path = tmp_path / "run.npz"
    np.savez(path, header=np.frombuffer(header, np.uint8), start_energy=np.zeros(2))
    x = np.random.default_rng(0).normal(size=(8, 1))
    with pytest.raises(ValueError, match="is damaged or no checkpoint"):
        nb.hmc(
            nb.dense_network(depth=1), nb.Gaussian(0.1), x, x[:, 0], prior_precision=1.0,
            key=jax.random.key(0), num_warmup=2, num_draws=2, num_chains=2, checkpoint=path,
        )  # fmt: skip


# Versions


def test_predictions_of_another_version_are_made_again_and_versions_are_kept(tmp_path, monkeypatch):
    config = preset("iris", methods=("mode",), num_draws=1)
    run_comparison(config, tmp_path)
    path = tmp_path / "predictions" / "mode.nc"
    tree = nb.load_predictions(path)
    tree.attrs["ntkbayes_version"] = "0.0.1"
    nb.save_predictions(tree, path)
    steps = []
    run_comparison(config, tmp_path, on_progress=lambda step, fraction, part: steps.append(step))
    assert "Mode" in steps
    assert nb.load_predictions(path).attrs["ntkbayes_version"] == nb.__version__
    tree.attrs |= {"ntkbayes_version": nb.__version__, "jax_version": "0.0.2"}
    nb.save_predictions(tree, path)
    steps.clear()
    run_comparison(config, tmp_path, on_progress=lambda step, fraction, part: steps.append(step))
    assert "Mode: kept from an earlier run with jax 0.0.2" in steps
    content = json.loads((tmp_path / "environment.json").read_text(encoding="utf-8"))
    assert content["predictions"]["Mode"]["jax"] == "0.0.2"
    assert content["packages"]["jax"] == jax.__version__


# The command line


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--seed", 2**65], ["seed must be at most 4294967295"]),
        (["--seed", -1], ["seed must be at least 0"]),
        (["--num-train", 10**12], ["num_train must be at most 90"]),
        (["--num-draws", 10**12], ["num_draws = 1000000000000 functions", "GB", "ask for fewer"]),
        (["--out", "x" * 300], ["is not writable (File name too long)"]),
    ],
)
def test_huge_numbers_and_names_end_in_one_line(tmp_path, options, words, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = invoke("compare", "iris", "--methods", "laplace", *options)
    assert result.exit_code == 2
    last = result.stderr.strip().splitlines()[-1]  # lines of progress may come before
    assert last.startswith("error: ")
    assert all(word in last for word in words), last


def test_more_points_than_memory_has_are_refused_before_they_are_made(tmp_path):
    result = invoke("compare", "moons", "--num-train", 10**12, "--out", tmp_path / "a")
    assert_refused(result, "num_train points needs", "GB")


@pytest.mark.parametrize("method", ["laplace", "ntk", "bayesian", "gp"])
def test_draws_that_do_not_fit_the_memory_are_refused_before_they_are_made(method, key):
    x = np.random.default_rng(0).normal(size=(12, 2))
    y, model = x[:, 0], (nb.dense_network(depth=1), nb.Gaussian(0.1))
    if method in ("laplace", "gp"):
        fit = nb.laplace if method == "laplace" else nb.gp_posterior
        predictor = fit(*model, x, y, prior_precision=1.0)
    else:
        predictor = nb.ntk_ensemble(
            *model, x, y, prior_precision=1.0, perturb_targets=method == "bayesian"
        )
    begin = time.perf_counter()
    with pytest.raises(ValueError, match=r"num_\w+ = 1000000000000 functions .* needs .* GB"):
        predictor.sample(key, x, num_draws=10**12)
    assert time.perf_counter() - begin < 20  # and not the minutes that allocation would take


def test_an_interrupt_inside_of_a_callback_is_an_interrupt(tmp_path, monkeypatch):
    def hidden(*arguments):
        raise RuntimeError("INTERNAL: CpuCallback error: Traceback ... KeyboardInterrupt")

    monkeypatch.setattr(running, "_compute", hidden)
    result = invoke(*IRIS, "--out", tmp_path)
    assert result.exit_code == 130
    assert "no method had finished" in result.stderr


def test_an_interrupt_while_importing_ends_with_its_code(tmp_path):
    """A module that interrupts stands for Ctrl-C at the worst moment."""
    (tmp_path / "gpjax.py").write_text("raise KeyboardInterrupt", encoding="utf-8")
    (tmp_path / "sklearn.py").write_text("raise KeyboardInterrupt", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "ntkbayes", "compare", "moons", "--out", str(tmp_path / "run")],
        env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert "interrupted" in done.stderr


@pytest.mark.parametrize("kind", ["pdf", "svg"])
def test_figures_are_files_of_the_kind_that_is_asked_for(tmp_path, kind):
    options = ("--methods", "mode", "--num-draws", 1, "--out", tmp_path, "--figures", kind)
    assert invoke("compare", "iris", *options).exit_code == 0
    files = list((tmp_path / "figures").iterdir())
    assert files
    assert {path.suffix for path in files} == {f".{kind}"}
    begin = files[0].read_bytes()[:200]
    assert (b"%PDF" if kind == "pdf" else b"<?xml") in begin
    assert invoke("report", tmp_path, "--figures", "png").exit_code == 0
    assert {path.suffix for path in (tmp_path / "figures").iterdir()} == {f".{kind}", ".png"}
    assert_refused(invoke("compare", "iris", *options[:-1], "bmp"), "unknown figure_format 'bmp'")
