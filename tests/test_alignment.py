"""Points are who their identifiers say, and classes what their names say, wherever methods meet."""

import dataclasses
import itertools

import jax
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import ntkbayes as nb
from ntkbayes import evaluation
from ntkbayes.evaluation import observations, pooled, probabilities
from ntkbayes.evaluation.alignment import aligned, aligned_with

KEY = jax.random.key(0)
M, S = 40, 30
RNG = np.random.default_rng(0)
ORDER = RNG.permutation(M)
LABELS = np.repeat([0, 1, 2, 0], M // 4)
LOGITS = {name: RNG.normal(size=(S, M, 3)) for name in ("a", "b")}
TARGETS = RNG.normal(size=M)
LATENT = {name: RNG.normal(size=(S, M, 1)) for name in ("a", "b")}
X = RNG.normal(size=(M, 2))


def classes(name, order=slice(None), **settings):
    settings = {"method": name, "x": X[order]} | settings
    return nb.from_draws(
        LOGITS[name][:, order], nb.Categorical(3), LABELS[order], key=KEY, **settings
    )


def regression(name, order=slice(None), **settings):
    latent = LATENT[name][:, order]
    moments = (latent.mean(axis=0), latent.var(axis=0))
    return nb.from_draws(
        latent, nb.Gaussian(0.5), TARGETS[order], key=KEY, method=name, closed_form=moments,
        **settings,
    )  # fmt: skip


def given(name, order=slice(None), **settings):
    p = np.exp(LOGITS[name]) / np.exp(LOGITS[name]).sum(axis=-1, keepdims=True)
    return nb.from_probabilities(p[:, order], LABELS[order], key=KEY, method=name, **settings)


MAKERS = {"classes": classes, "regression": regression, "given": given}
IDS = {
    "row numbers": np.arange(M),
    "numbers": 3 * np.arange(M) + 7,
    "text": np.array([f"patient {i:02d}" for i in range(M)]),
}
PAIRED = {
    "compare": lambda trees: evaluation.compare(trees, reference="a"),
    "paired_differences": lambda trees: evaluation.paired_differences(
        trees, baseline="a", reference="a"
    ),
    "distance_matrix": lambda trees: evaluation.distance_matrix(trees),
    "energy distances": lambda trees: evaluation.distance_matrix(trees, measure="energy_distance"),
    "compare_joint": lambda trees: evaluation.compare_joint(
        trees, reference="a", far=np.arange(M) < M // 2
    ),
}


def numbers(table):
    return table.select_dtypes("number").to_numpy()


@pytest.mark.parametrize("task", MAKERS)
@pytest.mark.parametrize("function", PAIRED.values(), ids=PAIRED)
def test_predictions_in_another_order_of_points_give_the_same_numbers(task, function):
    make, ids = MAKERS[task], IDS["numbers"]
    straight = {"a": make("a", obs_ids=ids), "b": make("b", obs_ids=ids)}
    mixed = {"a": make("a", obs_ids=ids), "b": make("b", ORDER, obs_ids=ids[ORDER])}
    expected = numbers(function(straight))
    np.testing.assert_allclose(numbers(function(mixed)), expected, rtol=1e-10, atol=1e-12)


def test_calibration_and_conformal_tables_pair_points_by_their_identifiers():
    ids = IDS["text"]
    trees, mixed = (
        {"a": given("a", obs_ids=ids), "b": given("b", order, obs_ids=ids[order])}
        for order in (slice(None), ORDER)
    )
    tables = [evaluation.calibration_table(each) for each in (trees, mixed)]
    np.testing.assert_allclose(*map(numbers, tables), rtol=1e-10)
    val = {name: given(name, split="val") for name in "ab"}
    for score in ("lac", "aps"):
        tables = [
            evaluation.conformal_table(val, each, level=0.8, score=score) for each in (trees, mixed)
        ]
        np.testing.assert_allclose(*map(numbers, tables), rtol=1e-10)


@pytest.mark.parametrize("ids", IDS.values(), ids=IDS)
def test_every_variable_of_a_point_moves_with_it(ids):
    for make in MAKERS.values():
        one, other = make("a", obs_ids=ids), make("a", ORDER, obs_ids=ids[ORDER])
        for first, second in ((one, other), (other, one)):
            found = aligned({"first": first, "second": second})
            wanted = np.sort(ids)
            for tree, source in ((found["first"], first), (found["second"], second)):
                assert tree.attrs == source.attrs
                for name, group in source.children.items():
                    if "obs_id" in group.dims:
                        expected = group.dataset.sel(obs_id=wanted)
                        assert tree[name].dataset.identical(expected), name


def test_points_are_sorted_by_their_identifiers():
    """Numbers, and texts; what came in stays as it was."""
    for ids in (np.arange(M), IDS["text"]):
        trees = {"a": classes("a", ORDER, obs_ids=ids[ORDER]), "b": classes("b", obs_ids=ids)}
        np.testing.assert_array_equal(pooled(aligned(trees)["b"]), LOGITS["b"][:, np.argsort(ids)])
        assert trees["a"]["posterior/obs_id"].values.tolist() == ids[ORDER].tolist()


@pytest.mark.parametrize("ids", [np.arange(M), IDS["text"]], ids=["row numbers", "text"])
def test_the_order_of_points_changes_no_table(ids):
    """Batches of points, what is drawn for each, and floors go by identifiers."""
    tables = [
        evaluation.compare(
            {"a": classes("a", one, obs_ids=ids[one]), "b": classes("b", obs_ids=ids)}
        )
        for one in (slice(None), ORDER)
    ]
    pd.testing.assert_frame_equal(*tables, rtol=1e-9)


@pytest.mark.parametrize("score", ["lac", "aps"])
def test_the_order_of_points_changes_no_conformal_set(score):
    val = [classes("a", one, obs_ids=IDS["text"][one], split="val") for one in (slice(None), ORDER)]
    test = [classes("b", one, obs_ids=IDS["text"][one], method="a") for one in (slice(None), ORDER)]
    sets = [
        evaluation.conformal_sets(*pair, level=0.8, score=score)
        for pair in zip(val, test, strict=True)
    ]
    assert sets[0].threshold == pytest.approx(sets[1].threshold, rel=1e-12)
    np.testing.assert_array_equal(np.asarray(sets[0].members)[ORDER], sets[1].members)


@pytest.mark.parametrize(
    "convert",
    [np.int32, np.uint64, np.uint8, list, pd.Index, lambda ids: np.array(ids)[::1]],
    ids=["int32", "uint64", "uint8", "list", "pandas", "view"],
)
def test_whole_numbers_are_equal_whatever_their_type(convert):
    ids = 3 * np.arange(M) + 7
    other = convert(ids[ORDER]) if convert is not pd.Index else np.asarray(pd.Index(ids[ORDER]))
    trees = {"a": classes("a", obs_ids=ids), "b": classes("b", ORDER, obs_ids=other)}
    np.testing.assert_array_equal(observations(aligned(trees)["b"]), LABELS)


def test_huge_whole_numbers_are_told_apart():
    ids = 2**63 + np.arange(M, dtype=np.uint64)  # as floating numbers all are one
    trees = {"a": classes("a", obs_ids=ids), "b": classes("b", ORDER, obs_ids=ids[ORDER])}
    np.testing.assert_array_equal(pooled(aligned(trees)["b"]), LOGITS["b"])


def test_groups_of_one_method_in_different_orders_are_put_together():
    tree = classes("a").copy()
    tree["posterior"].dataset = tree["posterior"].dataset.isel(obs_id=ORDER)
    np.testing.assert_array_equal(pooled(aligned({"a": tree})["a"]), LOGITS["a"])
    tree["posterior"].dataset = tree["posterior"].dataset.isel(obs_id=slice(0, 5))
    with pytest.raises(ValueError, match="posterior of a has 5 and observed_data 40"):
        aligned({"a": tree})


def test_predictions_from_disk_are_aligned_too(tmp_path):
    ids = IDS["text"]
    tree = given("b", ORDER, obs_ids=ids[ORDER])
    nb.save_predictions(tree, tmp_path / "b.nc")
    loaded = nb.load_predictions(tmp_path / "b.nc")
    found = aligned({"a": given("a", obs_ids=ids), "b": loaded})["b"]
    np.testing.assert_array_equal(probabilities(found), probabilities(given("b")))


WRONG_POINTS = {
    "some are others": (
        {"obs_ids": np.arange(M)},
        {"obs_ids": np.arange(M) + 2},
        r"b lacks 2 of the 40 points of a, such as 0, 1",
    ),
    "text and numbers": ({}, {"obs_ids": [str(i) for i in range(M)]}, r"such as 0, 1, 2; .*'1'"),
    "text and row numbers": ({"obs_ids": IDS["text"]}, {}, "or neither any"),
}


@pytest.mark.parametrize(("one", "other", "message"), WRONG_POINTS.values(), ids=WRONG_POINTS)
def test_points_of_which_some_are_others_are_refused_with_some_of_them(one, other, message):
    for trees in (
        {"a": classes("a", **one), "b": classes("b", **other)},
        {"a": classes("b", **other), "b": classes("a", **one)},
    ):
        with pytest.raises(ValueError, match=r"a and b cannot be compared: .*of the 40 points"):
            nb.compare(trees, reference=None)
    with pytest.raises(ValueError, match=message):
        nb.compare({"a": classes("a", **one), "b": classes("b", **other)}, reference=None)


def test_a_part_of_the_points_is_refused():
    few = slice(0, 30)
    trees = {"a": classes("a", few, obs_ids=np.arange(30)), "b": classes("b")}
    with pytest.raises(ValueError, match=r"a lacks 10 of the 40 points of b"):
        nb.compare(trees, reference=None)


def test_identifiers_that_repeat_are_refused():
    tree = xr.DataTree.from_dict(
        {
            name: xr.concat([group.dataset.isel(obs_id=[0])] * 2, dim="obs_id")
            if "obs_id" in group.dims
            else group.dataset
            for name, group in classes("a").children.items()
        }
    )
    tree.attrs = classes("a").attrs
    with pytest.raises(ValueError, match="obs_ids of twice must differ, but 0 occurs"):
        nb.compare({"twice": tree}, reference=None)


def test_the_same_points_with_other_observations_are_refused():
    other = nb.from_draws(
        LOGITS["b"], nb.Categorical(3), np.where(np.arange(M) == 5, 2, LABELS), key=KEY, method="b"
    )
    with pytest.raises(ValueError, match="their observations differ at 1 of 40 points, such as 5"):
        nb.compare({"a": classes("a"), "b": other}, reference=None)
    shifted = nb.from_draws(
        LATENT["b"], nb.Gaussian(0.5), TARGETS + 1e-9, key=KEY, method="b", obs_ids=IDS["text"]
    )
    with pytest.raises(ValueError, match=r"differ at 40 of 40 points, such as 'patient 00'"):
        nb.compare({"a": regression("a", obs_ids=IDS["text"]), "b": shifted}, reference=None)


def binary(name, likelihood, **settings):
    latent, settings = LOGITS[name][:, :, : likelihood.num_outputs], {"method": name} | settings
    return nb.from_draws(latent, likelihood, LABELS % 2, key=KEY, **settings)


EVERYWHERE = PAIRED | {
    "calibration_table": evaluation.calibration_table,
    "conformal_table": lambda trees: evaluation.conformal_table(trees, trees, level=0.8),
    "plot_reliability": evaluation.plot_reliability,
    "plot_confidence_histogram": evaluation.plot_confidence_histogram,
    "plot_risk_coverage": evaluation.plot_risk_coverage,
    "plot_convergence": lambda trees: evaluation.plot_convergence(trees, "nll"),
}


@pytest.mark.parametrize("function", EVERYWHERE.values(), ids=EVERYWHERE)
def test_contradictory_names_and_numbers_of_classes_are_refused_everywhere(function):
    names = {"a": ["x", "y", "z"], "b": ["z", "y", "x"]}
    trees = {name: classes(name, output_names=names[name]) for name in names}
    with pytest.raises(ValueError, match="names of their classes differ, number 0 being 'x' and"):
        function(trees)
    wider = nb.from_draws(
        RNG.normal(size=(S, M, 4)), nb.Categorical(4), LABELS, key=KEY, method="b"
    )
    with pytest.raises(ValueError, match="they predict 3 and 4 classes"):
        function({"a": classes("a"), "b": wider})


@pytest.mark.parametrize("order", list(itertools.permutations("abc")), ids="".join)
def test_names_contradict_each_other_wherever_the_unnamed_one_stands(order):
    two = nb.Categorical(2)
    names = {"a": None, "b": ["cat", "dog"], "c": ["dog", "cat"]}
    trees = {n: binary("a", two, method=n, output_names=names[n]) for n in order}
    with pytest.raises(ValueError, match="names of their classes differ, number 0 being"):
        aligned(trees)
    del trees["c"]
    assert list(aligned(trees)) == [n for n in order if n != "c"]


def test_names_of_targets_are_compared_and_numbers_contradict_none():
    named = {"a": regression("a", output_names=["height"]), "b": regression("b")}
    assert set(nb.compare(named, reference="a")["method"]) == {"a", "b"}
    other = {**named, "b": regression("b", output_names=["weight"])}
    with pytest.raises(ValueError, match=r"names of their targets differ, .*'height' and 'weight'"):
        nb.compare(other, reference=None)


def test_one_logit_is_compared_with_two_by_the_name_of_its_class():
    two, one = nb.Categorical(2), nb.Bernoulli()
    for names in (None, ["healthy", "ill"]):
        trees = {
            "a": binary("a", two, output_names=["healthy", "ill"]),
            "b": binary("b", one, output_names=names),
        }
        assert set(nb.compare(trees, reference="a")["method"]) == {"a", "b"}
    trees["b"] = binary("b", one, output_names=["ill", "healthy"])
    with pytest.raises(ValueError, match="number 1 being 'ill' and 'healthy'"):
        nb.compare(trees, reference=None)
    with pytest.raises(ValueError, match="they predict 2 and 3 classes"):
        nb.compare({"a": trees["b"], "b": classes("b")}, reference=None)


def test_pictures_are_those_of_the_points_they_stand_beside():
    data = nb.load_dataset("digits", num_train=50)
    data = dataclasses.replace(data, x_test=data.x_test[:M], y_test=data.y_test[:M])
    y = np.asarray(data.y_test)
    p = np.random.default_rng(1).dirichlet(np.ones(10), size=M)
    made = [
        nb.from_probabilities(
            p[order], y[order], key=KEY, method="m", dataset="digits", obs_ids=np.arange(M)[order]
        )
        for order in (slice(None), ORDER)
    ]
    shown = []
    for tree in made:
        figure = evaluation.plot_predictive_distributions({"m": tree}, data, num_points=6)
        shown.append([axes.images[0].get_array() for axes in figure.axes[::2]])
    for one, other in itertools.zip_longest(*shown):
        np.testing.assert_array_equal(one, other)
    nameless = nb.from_probabilities(
        p[ORDER], y[ORDER], key=KEY, method="m", dataset="digits"
    )  # whose row numbers are none of the dataset's
    with pytest.raises(ValueError, match="its observations differ from those of m"):
        evaluation.plot_predictive_distributions({"m": nameless}, data)
    for ids, cause in ((np.arange(M), "taken for its row numbers"), (IDS["text"], "in its order")):
        moved = nb.from_probabilities(
            p[ORDER], y[ORDER], key=KEY, method="m", dataset="digits", obs_ids=ids
        )
        with pytest.raises(ValueError, match=rf"{cause}.*their rows in it as obs_ids"):
            aligned_with({"m": moved}, data)
