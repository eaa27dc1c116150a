"""Predictions on disk: bit for bit, whole or not at all, as netCDF and as Zarr."""

import importlib.util
import json
import os
import subprocess
import sys

import jax
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from ntkbayes.evaluation import (
    compare,
    from_draws,
    leave_one_out,
    load_predictions,
    observations,
    pooled,
    save_predictions,
)
from ntkbayes.likelihoods import Categorical, Gaussian

needs_zarr = pytest.mark.skipif(
    importlib.util.find_spec("zarr") is None, reason="the package zarr is not installed"
)
SUFFIXES = ["nc", pytest.param("zarr", marks=needs_zarr)]


def classification(num_draws=6, seed=0, points=5):
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(2, num_draws // 2, points, 3)).astype(np.float32)
    return from_draws(
        latent, Categorical(3), rng.integers(3, size=points), key=jax.random.key(seed), method="a",
        x=rng.normal(size=(points, 2)), output_names=["é", "bb", "ccc"],
        obs_ids=[f"row {i}" for i in range(points)],
        stats={"diverging": np.zeros(num_draws, bool), "energy": rng.normal(size=num_draws)},
    )  # fmt: skip


def regression():
    rng = np.random.default_rng(0)
    y = np.array([0.0, -0.0, 1e-310, 1 / 3])
    moments = (rng.normal(size=(4, 1)), np.zeros((4, 1)))
    return from_draws(
        rng.normal(size=(3, 4, 1)), Gaussian(0.3), y, key=jax.random.key(0), method="b",
        closed_form=moments, is_posterior=True,
    )  # fmt: skip


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("tree", [classification(), regression()], ids=["classes", "values"])
def test_predictions_survive_the_disk_bit_for_bit(tree, suffix, tmp_path):
    path = tmp_path / f"a.{suffix}"
    save_predictions(tree, path)
    loaded = load_predictions(path)
    assert loaded.identical(tree)
    assert loaded.attrs == tree.attrs
    for group in tree.subtree:
        for name, variable in group.variables.items():
            again = loaded[f"{group.path}/{name}"]
            assert again.dtype == variable.dtype
            assert again.values.tobytes() == variable.values.tobytes()


@needs_zarr
def test_both_formats_hold_the_same(tmp_path):
    for suffix in ("nc", "zarr"):
        save_predictions(classification(), tmp_path / f"a.{suffix}")
    netcdf, zarr = (load_predictions(tmp_path / f"a.{suffix}") for suffix in ("nc", "zarr"))
    assert netcdf.identical(zarr)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_saving_replaces_what_was_there_and_leaves_nothing_beside_it(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    save_predictions(classification(4), path)
    loaded = load_predictions(path)
    save_predictions(classification(6), path)
    assert len(pooled(loaded)) == 4
    assert len(pooled(load_predictions(path))) == 6
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_failed_save_keeps_what_was_there(tmp_path, suffix):
    path, tree = tmp_path / f"a.{suffix}", classification()
    save_predictions(tree, path)
    unsavable = tree.copy()
    unsavable.attrs["settings"] = object()
    with pytest.raises(TypeError):
        save_predictions(unsavable, path)
    assert load_predictions(path).identical(tree)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_move_that_fails_puts_the_older_predictions_back(tmp_path, suffix, monkeypatch):
    path, tree = tmp_path / f"a.{suffix}", classification(4)
    save_predictions(tree, path)
    replace = os.replace

    def refuse(source, target):
        if str(source).endswith(".tmp"):
            raise OSError("no space left")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="no space left"):
        save_predictions(classification(6), path)
    monkeypatch.undo()
    assert load_predictions(path).identical(tree)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_half_written_file_is_refused_by_name(tmp_path, share):
    path = tmp_path / "half.nc"
    save_predictions(classification(200), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"half\.nc is not a readable file of predictions"):
        load_predictions(path)


@needs_zarr
@pytest.mark.parametrize("cut", [None, 0.0, 0.5])
def test_a_zarr_directory_without_any_one_of_its_files_is_refused(tmp_path, cut):
    path = tmp_path / "half.zarr"
    save_predictions(classification(), path)
    files = [file for file in path.rglob("*") if file.is_file()]
    assert len(files) > 30
    for file in files:
        content = file.read_bytes()
        if cut is None:
            file.unlink()
        else:
            file.write_bytes(content[: int(cut * len(content))])
        with pytest.raises(ValueError, match=r"half\.zarr is not a readable file of predictions"):
            load_predictions(path)
        file.write_bytes(content)
    assert load_predictions(path).identical(classification())


@needs_zarr
def test_zarr_groups_of_something_else_are_refused_and_directories_never_replaced(tmp_path):
    xr.DataTree.from_dict({"/posterior": xr.Dataset({"a": 1})}).to_zarr(
        tmp_path / "theirs.zarr", consolidated=False
    )
    with pytest.raises(ValueError, match="save_predictions has not written it"):
        load_predictions(tmp_path / "theirs.zarr")
    (tmp_path / "photos.zarr").mkdir()
    (tmp_path / "photos.zarr" / "cat.png").touch()
    with pytest.raises(ValueError, match=r"photos\.zarr is a directory of something else"):
        save_predictions(classification(), tmp_path / "photos.zarr")
    assert (tmp_path / "photos.zarr" / "cat.png").exists()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_other_and_missing_files_are_refused(tmp_path, suffix):
    other = tmp_path / f"other.{suffix}"
    save_predictions(classification().drop_nodes(["log_likelihood"]), other)
    with pytest.raises(ValueError, match="of ntkbayes: log_likelihood missing"):
        load_predictions(other)
    with pytest.raises(FileNotFoundError, match=rf"no file of predictions .*none\.{suffix}"):
        load_predictions(tmp_path / f"none.{suffix}")


def test_other_endings_are_refused(tmp_path):
    for call in (lambda path: save_predictions(classification(), path), load_predictions):
        with pytest.raises(ValueError, match=r"path must end in \.nc .* or \.zarr .*a\.h5"):
            call(tmp_path / "a.h5")


def test_without_the_package_zarr_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'ntkbayes\[zarr\]'"):
        save_predictions(classification(), tmp_path / "a.zarr")
    with pytest.raises(ModuleNotFoundError, match="package zarr"):
        load_predictions(tmp_path / "a.zarr")


def test_zarr_is_imported_only_when_it_is_used(tmp_path):
    code = (
        "import json, sys, ntkbayes as nb; nb.predict, nb.save_predictions; "
        "print(json.dumps([name for name in sys.modules if name.split('.')[0] == 'zarr']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_dimensions_are_known_by_their_names(task):
    """Of three points and three outputs no shape tells that they are the other way round."""
    rng, key = np.random.default_rng(0), jax.random.key(0)
    latent, targets = rng.normal(size=(100, 3, 3)), rng.normal(size=(3, 3))
    settings = {"key": key, "method": "m", "split": "train", "is_posterior": True}
    if task == "classification":
        tree = from_draws(latent, Categorical(3), np.array([0, 1, 0]), **settings)
    else:
        moments = (latent.mean(axis=0), np.full((3, 3), 0.2) + 0.1 * np.eye(3))
        tree = from_draws(latent, Gaussian(0.5, 3), targets, closed_form=moments, **settings)
        tree["closed_form"].attrs["independent_outputs"] = 1
    turned = tree.map_over_datasets(lambda group: group.transpose(*list(group.dims)[::-1]))
    turned.attrs = tree.attrs
    assert turned["posterior/latent"].dims == ("output", "obs_id", "draw", "chain")
    np.testing.assert_array_equal(pooled(turned), latent)
    np.testing.assert_array_equal(observations(turned), observations(tree))
    tables = [compare({"m": each}, reference=None) for each in (tree, turned)]
    pd.testing.assert_frame_equal(*tables)
    if task == "regression":
        turned["closed_form"].attrs = tree["closed_form"].attrs
        left_out = [leave_one_out(each).pointwise for each in (tree, turned)]
        np.testing.assert_array_equal(*left_out)
