"""Which predictions are of the same points, classes and targets, and in which order.

Everything that sets several methods side by side begins with `aligned`. Points are who their
``obs_id`` says, not where they stand: row numbers, unless the predictions were given others. Names
that say nothing, ``unnamed`` datasets and outputs numbered ``output_0`` …, contradict no others.

Outputs whose names stand in another order are refused and not permuted: labels, latent functions
and draws of new labels are all numbered by them, and predictions that number the same classes
differently were most likely made from differently encoded labels.
"""

from collections.abc import Iterable
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import xarray as xr

from ntkbayes.datasets import Dataset
from ntkbayes.evaluation._checked import check_distinct
from ntkbayes.evaluation.schema import POINTWISE_GROUPS, STANDARDISED, UNNAMED, output_names
from ntkbayes.evaluation.storage import observations

__all__ = [
    "aligned",
    "aligned_with",
    "check_same_outputs",
    "check_same_targets",
    "check_validation_pair",
    "dataset_of",
    "ranks",
]

_NUM_SHOWN = 3
"""How many identifiers or names an error shows."""


def aligned(trees: dict[str, xr.DataTree]) -> dict[str, xr.DataTree]:
    """Return predictions of the same observations, all with their points in one order.

    It is that of the identifiers, so that batches of points and what is drawn for each of them do
    not depend on how a method's points were arranged.

    Raises
    ------
    ValueError
        If `trees` is no dictionary of predictions or empty, or the predictions are not of one
        dataset (unless unnamed), split and task, not of the same classes or targets, or not of the
        same points and observations.
    """
    _check_predictions(trees)
    _check_attributes(trees)
    _check_units(trees)
    # Every two: what the first leaves unnamed others may name, and contradict each other.
    for one, other in combinations(trees.items(), 2):
        check_same_outputs(*one, *other)
    (first_name, first), *others = trees.items()
    ids = _sorted(_ids(first_name, first))
    found = {}
    for name, tree in trees.items():
        _check_same_points(first_name, ids, name, _ids(name, tree))
        found[name] = _in_order(tree, ids)
    y = observations(found[first_name])
    for name, _ in others:
        _check_same_observations(first_name, y, name, observations(found[name]), ids)
    return found


def aligned_with(
    trees: dict[str, xr.DataTree], data: Dataset
) -> tuple[dict[str, xr.DataTree], np.ndarray]:
    """Return `aligned` predictions, and the rows of a dataset's split that they predict.

    They are the identifiers, where all are whole numbers below the number of its points; else the
    points must stand in its order.

    Raises
    ------
    ValueError
        As in `aligned`, and if the observations are not those of the dataset.
    """
    found = aligned(trees)
    name, tree = next(iter(found.items()))
    split = tree.attrs["split"]
    y, ids = np.asarray(getattr(data, f"y_{split}")), _ids(name, tree)
    numbered = all(isinstance(one, int) and 0 <= one < len(y) for one in ids)
    rows = np.array(ids if numbered else range(len(ids)))
    if len(rows) > len(y) or not np.array_equal(observations(tree).ravel(), y[rows].ravel()):
        taken = (
            "whose obs_ids are taken for its row numbers"
            if numbered
            else "in its order, as their obs_ids are not its row numbers"
        )
        raise ValueError(
            f"data must hold the {split} points that were predicted, but its observations differ "
            f"from those of {name}, {taken}; pass the dataset that predict was given, and if "
            "points were chosen or moved, their rows in it as obs_ids."
        )
    return found, rows


def ranks(tree: xr.DataTree) -> np.ndarray:
    """Return the place of every point in the order of `aligned`."""
    ids = _ids("the predictions", tree)
    place = {one: i for i, one in enumerate(_sorted(ids))}
    return np.array([place[one] for one in ids])


def dataset_of(trees: dict[str, xr.DataTree]) -> str:
    """Return the dataset that comparable predictions are of."""
    names = [tree.attrs["dataset"] for tree in trees.values()]
    return next((name for name in names if name != UNNAMED), UNNAMED)


def check_validation_pair(tree_val: xr.DataTree, tree_test: xr.DataTree) -> None:
    """Raise `ValueError` unless predictions are one method's at validation and at other points."""
    val, test = tree_val.attrs, tree_test.attrs
    if val["split"] != "val" or test["split"] == "val":
        raise ValueError(
            "tree_val must be predictions at the validation split, and tree_test at another, but "
            f"they are of {val['split']} and {test['split']}; predict with split='val'."
        )
    # A shifted or reduced dataset is named after its source, as in "digits/rotation-3".
    sources = [attrs["dataset"].split("/")[0] for attrs in (val, test)]
    check_same_outputs("tree_val", tree_val, "tree_test", tree_test)
    names = ("method", "task", "likelihood", "settings")
    what = {name: [attrs[name] for attrs in (val, test)] for name in names}
    for name, (one, other) in (what | {"dataset": sources}).items():
        if one != other:
            raise ValueError(
                f"tree_val and tree_test must be of one {name}, but are of {one} and {other}."
            )


def check_same_outputs(one_name: str, one: xr.DataTree, name: str, tree: xr.DataTree) -> None:
    """Raise `ValueError` unless two predictions are of the same classes, or the same targets."""
    names = [output_names(each) for each in (one, tree)]
    what = "classes" if one.attrs["task"] == "classification" else "targets"
    if len(names[0]) != len(names[1]):
        raise ValueError(
            f"{one_name} and {name} cannot be compared: they predict {len(names[0])} and "
            f"{len(names[1])} {what}."
        )
    for i, (mine, theirs) in enumerate(zip(*names, strict=True)):
        if mine is not None and theirs is not None and mine != theirs:
            raise ValueError(
                f"{one_name} and {name} cannot be compared: the names of their {what} differ, "
                f"number {i} being {mine!r} and {theirs!r}; predict them in one order, under one "
                "name each (output_names)."
            )


def check_same_targets(one_name: str, one: xr.DataTree, name: str, tree: xr.DataTree) -> None:
    """Raise `ValueError` unless predictions are of the same points, outputs and observations."""
    check_same_outputs(one_name, one, name, tree)
    ids = _ids(one_name, one)
    _check_same_points(one_name, ids, name, _ids(name, tree))
    others = observations(_in_order(tree, ids))
    _check_same_observations(one_name, observations(one), name, others, ids)


def _check_predictions(trees: Any) -> None:
    if not isinstance(trees, dict):
        raise ValueError(
            f"trees must be a dictionary, method → predictions, but is a {type(trees).__name__}."
        )
    if not trees:
        raise ValueError("trees is empty: at least one method's predictions are needed.")
    for name, tree in trees.items():
        if not isinstance(tree, xr.DataTree):
            raise ValueError(
                f"trees must hold predictions, as predict makes them, but that of {name} is a "
                f"{type(tree).__name__}."
            )


def _check_attributes(trees: dict[str, xr.DataTree]) -> None:
    named = {name: t for name, t in trees.items() if t.attrs["dataset"] != UNNAMED}
    for what, alike in (("dataset", named), ("split", trees), ("task", trees)):
        for one, other in pairwise(alike):
            if alike[one].attrs[what] != alike[other].attrs[what]:
                raise ValueError(
                    f"{one} and {other} cannot be compared: their {what} differs "
                    f"({alike[one].attrs[what]} and {alike[other].attrs[what]})."
                )


def _check_units(trees: dict[str, xr.DataTree]) -> None:
    """Raise where observations differ because only some are standardised."""
    units = {name: tree.attrs.get("units", "") for name, tree in trees.items()}
    standardised = [name for name, unit in units.items() if unit == STANDARDISED]
    others = [name for name, unit in units.items() if unit != STANDARDISED]
    if not standardised or not others:
        return
    one, other = (observations(trees[names[0]]) for names in (standardised, others))
    if len(one) == len(other) and _differ(np.sort(one, axis=0), np.sort(other, axis=0)).any():
        raise ValueError(
            f"{standardised[0]} and {others[0]} cannot be compared: only the former's targets are "
            "standardised; use compare(…, units='original'), or nb.evaluation.original_units of "
            "each tree."
        )


def _ids(name: str, tree: xr.DataTree) -> list[Any]:
    """Return identifiers of the points, which differ."""
    ids = np.asarray(tree["observed_data"]["obs_id"]).tolist()
    check_distinct(f"obs_ids of {name}", ids)
    return ids


def _sorted(ids: list[Any]) -> list[Any]:
    """Sort identifiers, numbers before texts."""
    return sorted(ids, key=lambda one: (isinstance(one, str), one))


def _check_same_points(one_name: str, ids: list[Any], name: str, others: list[Any]) -> None:
    for a, b, (mine, theirs) in (
        (one_name, name, (ids, others)),
        (name, one_name, (others, ids)),
    ):
        there = set(theirs)
        missing = [one for one in mine if one not in there]
        if missing:
            raise ValueError(
                f"{one_name} and {name} cannot be compared: {b} lacks {len(missing)} of the "
                f"{len(mine)} points of {a}, such as {_shown(missing)}; give both the same obs_ids "
                "(1 is not '1'), or neither any (row numbers)."
            )


def _check_same_observations(
    one_name: str, y: np.ndarray, name: str, others: np.ndarray, ids: list[Any]
) -> None:
    if y.shape == others.shape:
        differs = np.flatnonzero(_differ(y, others).reshape(len(y), -1).any(axis=1))
        if not len(differs):
            return
        where = f" at {len(differs)} of {len(y)} points, such as {_shown(ids[i] for i in differs)}"
    else:
        where = f" (shapes {y.shape} and {others.shape})"
    raise ValueError(
        f"{one_name} and {name} cannot be compared: their observations differ{where}; "
        "predict with the same dataset and seed."
    )


def _differ(y: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Where observations differ; targets do if by more than rounding of the coarser type."""
    if y.dtype.kind != "f" or others.dtype.kind != "f":
        return y != others
    rounding = max(np.finfo(v.dtype).eps for v in (y, others))
    return ~(np.abs(y - others) <= 8 * rounding * np.abs(y).max(initial=0))


def _shown(values: Iterable[Any]) -> str:
    return ", ".join(repr(value) for value in list(values)[:_NUM_SHOWN])


def _in_order(tree: xr.DataTree, ids: list[Any]) -> xr.DataTree:
    """Predictions with the points of every group in the order of the identifiers."""
    wanted, changed = set(ids), {}
    for name, group in tree.children.items():
        if name not in POINTWISE_GROUPS or "obs_id" not in group.dims:
            continue
        own = np.asarray(group["obs_id"]).tolist()
        if own == ids:
            continue
        if len(own) != len(ids) or set(own) != wanted:
            raise ValueError(
                f"all groups of a method's predictions must be at the same points, but {name} of "
                f"{tree.attrs['method']} has {len(own)} and observed_data {len(ids)}, or others."
            )
        place = {one: i for i, one in enumerate(own)}
        changed[name] = group.dataset.isel(obs_id=[place[one] for one in ids])
    if not changed:
        return tree
    found = tree.copy()
    for name, dataset in changed.items():
        found[name].dataset = dataset
    return found
