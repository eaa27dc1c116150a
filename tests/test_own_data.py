"""What users bring: masks, labels, names, pictures, fixed splits, several targets, counts."""

import jax
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.datasets import load_iris
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import LabelEncoder, StandardScaler

import ntkbayes as nb
from ntkbayes.datasets.values import is_constant

N = 60


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(3.0, 2.0, size=(N, 3))


@pytest.fixture
def labels():
    return np.tile([0, 1, 2], N // 3)


@pytest.fixture
def key():
    return jax.random.key(0)


def hidden(values, where):
    """Return a masked array with one entry hidden, whose fill value lies under the mask."""
    mask = np.zeros(np.shape(values), bool)
    mask[where] = True
    return np.ma.masked_array(values, mask)


# Masks


def test_a_mask_is_refused_wherever_arrays_enter(x, labels, key):
    network, classes, targets = nb.dense_network(depth=1), nb.Categorical(3), x[:, 0]
    masked, masked_labels, masked_targets = (
        hidden(x, (5, 1)), hidden(labels, 5), hidden(targets, 5),
    )  # fmt: skip
    posterior = nb.laplace(network, classes, x[:6], labels[:6], prior_precision=1.0)
    p = np.full((N, 3), 1 / 3)
    metrics = nb.evaluation.metrics
    calls = [
        lambda: nb.make_dataset(masked, labels, task="classification"),
        lambda: nb.make_dataset(x, masked_labels, task="classification"),
        lambda: nb.make_dataset(x, masked_targets, task="regression"),
        lambda: nb.make_dataset(x, labels, test=(masked, labels), task="classification"),
        lambda: nb.make_dataset(x, labels, test=hidden(np.arange(9), 3), task="classification"),
        lambda: nb.Dataset(
            x_train=masked, y_train=labels, x_test=x, y_test=labels, task="classification"
        ),
        lambda: nb.Dataset(
            x_train=x, y_train=labels, x_test=x, y_test=masked_labels, task="classification"
        ),
        lambda: nb.load_dataset("sine").original_targets(masked_targets),
        lambda: network.ntk(masked),
        lambda: network.nngp(x, masked),
        lambda: classes.targets(masked_labels),
        lambda: nb.Gaussian(0.1).targets(masked_targets),
        lambda: nb.Poisson().targets(masked_labels),
        lambda: nb.laplace(network, classes, masked, labels, prior_precision=1.0),
        lambda: posterior.sample(key, masked, num_draws=2),
        lambda: posterior.mean(masked),
        lambda: nb.from_probabilities(hidden(p, (0, 0)), labels, key=key, method="m"),
        lambda: nb.from_probabilities(p, masked_labels, key=key, method="m"),
        lambda: nb.from_draws(hidden(p[None], (0, 0, 0)), classes, labels, key=key, method="m"),
        lambda: metrics.brier(hidden(p, (0, 0)), labels, metrics.uniform_weights(N)),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="mask hides"):
            call()


def test_a_mask_that_hides_nothing_changes_nothing(x, labels):
    plain = nb.make_dataset(x, labels, task="classification")
    masked = nb.make_dataset(
        np.ma.masked_array(x), np.ma.masked_equal(labels, -1), task="classification"
    )
    np.testing.assert_array_equal(masked.x_train, plain.x_train)
    np.testing.assert_array_equal(masked.y_test, plain.y_test)


# Units


@pytest.mark.parametrize(
    "column",
    [
        np.where(np.arange(N) % 2, 0.3, 0.1 + 0.2),
        1e9 * np.where(np.arange(N) % 2, 0.3, 0.1 + 0.2),
        np.log(np.exp(np.full(N, 0.3))) + np.where(np.arange(N) % 3, 0, 1e-16),
        np.full(N, 1e300),
        np.zeros(N),
    ],
)
def test_a_column_constant_up_to_rounding_has_scale_one_as_in_scikit_learn(x, labels, column):
    x[:, 1] = column
    data = nb.make_dataset(x, labels, task="classification", test_fraction=0.1)
    assert np.asarray(data.x_scale)[1] == 1.0
    if column[0] < 1e150:  # beyond, its squares overflow
        assert StandardScaler().fit(x).scale_[1] == 1.0
    assert np.abs(data.x_train[:, 1]).max() <= 1e-15 * max(np.abs(column).max(), 1)


def test_a_column_that_varies_little_but_truly_is_standardised(x, labels):
    x[:, 1] = 1e6 + np.random.default_rng(1).normal(size=N) * 1e-6
    data = nb.make_dataset(x, labels, task="classification")
    assert np.asarray(data.x_train)[:, 1].std() == pytest.approx(1)
    assert float(data.x_scale[1]) == pytest.approx(1e-6, rel=0.2)


def test_rounding_is_that_of_the_type_a_column_came_in(x, labels):
    noisy = np.float32(0.3) * (1 + np.finfo(np.float32).eps * (np.arange(N) % 2))
    narrow = x.astype(np.float32)
    narrow[:, 1] = noisy
    assert nb.make_dataset(narrow, labels, task="classification").x_scale[1] == 1
    frame = pd.DataFrame(x).astype({1: np.float32})
    frame[1] = noisy.astype(np.float32)
    assert nb.make_dataset(frame, labels, task="classification").x_scale[1] == 1
    wide = x.copy()
    wide[:, 1] = 0.3 * (1 + 1e-7 * (np.arange(N) % 2))
    assert nb.make_dataset(wide, labels, task="classification").x_scale[1] < 1e-6
    years = x.astype(np.float32)
    years[:, 1] = 1990 + np.arange(N) % 2
    assert nb.make_dataset(years, labels, task="classification").x_scale[1] > 0.4


def test_the_bound_of_a_constant_is_scikit_learns_for_many_points():
    values = 1.0 + 1e-12 * (np.arange(50_000) % 2)
    assert is_constant(values, 0.0)
    assert StandardScaler().fit(values[:, None]).scale_[0] == 1.0
    assert not is_constant(values[:1000], 0.0)
    assert StandardScaler().fit(values[:1000, None]).scale_[0] < 1e-11


def test_a_constant_target_is_refused_whatever_rounding_left_of_it(x):
    for y in (np.full(N, 0.1), np.where(np.arange(N) % 2, 0.3, 0.1 + 0.2), np.full(N, 1e300)):
        with pytest.raises(ValueError, match="y_train is constant"):
            nb.make_dataset(x, y, task="regression")
    two = np.stack([x[:, 0], np.full(N, 7.0)], axis=1)
    with pytest.raises(ValueError, match=r"y_train is constant \(target 'price'\)"):
        nb.make_dataset(x, two, task="regression", target_names=["size", "price"])


@pytest.mark.parametrize("unit", [1e-200, 1e-30, 1e30, 1e200, 1e300])
def test_units_however_extreme_are_only_units(x, labels, unit):
    plain = nb.make_dataset(x, x[:, 0], task="regression")
    data = nb.make_dataset(x * unit, x[:, 0] * unit, task="regression")
    np.testing.assert_allclose(data.x_train, plain.x_train, rtol=1e-12)
    np.testing.assert_allclose(data.y_test, plain.y_test, rtol=1e-12)
    np.testing.assert_allclose(data.original_inputs(data.x_test) / unit,
                               plain.original_inputs(plain.x_test), rtol=1e-12)  # fmt: skip
    np.testing.assert_allclose(
        data.original_targets(data.y_train) / unit, plain.original_targets(plain.y_train)
    )


@pytest.mark.parametrize("unit", [1e200, 1e-200])
def test_units_that_single_precision_does_not_hold_are_refused_by_name(x, labels, unit):
    with jax.enable_x64(False):
        with pytest.raises(ValueError, match=r"x has a column .* float32 does not hold: use float"):
            nb.make_dataset(x * unit, labels, task="classification")
        nb.make_dataset(x * 1e30, labels, task="classification")


def test_a_test_point_beyond_all_numbers_is_refused_by_name(x, labels):
    x_test = np.full((2, 3), 1e308)
    with pytest.raises(ValueError, match="x holds values further from the training points than"):
        nb.make_dataset(x * 1e-3, labels, test=(x_test, [0, 1]), task="classification")


# Labels


@pytest.mark.parametrize(
    ("kinds", "names"),
    [
        (np.array([1, 2, 10], object), ("1", "2", "10")),
        (np.array([1.0, 2, np.int64(10)], object), ("1", "2", "10")),
        (np.array([10.0, 2.0, 1.0]), ("1", "2", "10")),
        (np.array([-1, 0, 3], np.int8), ("-1", "0", "3")),
        (np.array([3, 1, 2], np.uint64), ("1", "2", "3")),
        (np.array(["1", "2", "10"]), ("1", "10", "2")),  # text sorts as text
        (np.array(["b", "a", "c"], object), ("a", "b", "c")),
        (pd.array([1, 2, 10], "Int64"), ("1", "2", "10")),
        (pd.array(["x", "z", "y"], "string"), ("x", "y", "z")),
        (pd.Categorical([10, 1, 2]), ("1", "2", "10")),
    ],
)
def test_labels_are_sorted_as_scikit_learn_sorts_them(x, labels, kinds, names):
    y = pd.Series(kinds)[labels] if not isinstance(kinds, np.ndarray) else kinds[labels]
    data = nb.make_dataset(x, y, task="classification", test=np.arange(9), validation_fraction=0)
    assert data.class_names == names
    encoded = LabelEncoder().fit_transform(np.asarray(list(y)))
    np.testing.assert_array_equal(data.y_test, encoded[:9])


def test_truth_values_are_two_classes(x, labels):
    for y in (labels > 0, (labels > 0).astype(object)):
        assert nb.make_dataset(x, y, task="classification").class_names == ("False", "True")


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ([1, "1", "b"], r"one kind, but holds numbers \(1\) and text \('1'\): if 1 and '1' are"),
        ([True, 2, 3], r"one kind, but holds booleans \(True\) and numbers \(2\)"),
        (["a", None, "b"], "entry 1 is missing"),
        (["a", np.nan, "b"], "entry 1 is missing"),
        ([1, pd.NA, 2], "entry 1 is missing"),
        ([1, 2.5, 3], "holds fractions"),
        ([1, 2**70, 3], "holds 1180591620717411303424"),
        ([1.0, 2.0, 1e300], "holds 1e"),
        ([b"a", b"b", b"c"], r"entry 0 is b'a' \(bytes\)"),
        ([pd.Timestamp("2020-01-01")] * 3, r"entry 0 is Timestamp.*astype\(str\)"),
    ],
)
def test_labels_that_are_none_are_refused(x, labels, kinds, message):
    y = np.array(kinds, dtype=object)[labels]
    with pytest.raises(ValueError, match=message):
        nb.make_dataset(x, y, task="classification")


def test_text_in_one_split_and_numbers_in_another_are_refused(x, labels):
    with pytest.raises(ValueError, match="labels of one kind"):
        nb.make_dataset(x, labels, test=(x[:3], ["0", "1", "2"]), task="classification")


# Names


def test_names_are_taken_as_other_libraries_give_them():
    iris = load_iris()
    data = nb.make_dataset(
        iris.data, iris.target, task="classification",
        class_names=iris.target_names, feature_names=pd.Index(iris.feature_names),
    )  # fmt: skip
    assert data.class_names == ("setosa", "versicolor", "virginica")
    assert data.feature_names == tuple(iris.feature_names)
    assert all(type(name) is str for name in (*data.class_names, *data.feature_names))


def test_predictions_take_names_and_identifiers_as_arrays_and_indexes(key):
    iris, p = load_iris(), np.full((3, 3), 1 / 3)
    tree = nb.from_probabilities(
        p, np.arange(3), key=key, method="m",
        output_names=iris.target_names, obs_ids=pd.RangeIndex(5, 8),
    )  # fmt: skip
    assert tree["posterior"]["output"].values.tolist() == list(iris.target_names)
    assert tree["posterior"]["obs_id"].values.tolist() == [5, 6, 7]
    text = nb.from_probabilities(
        p, np.arange(3), key=key, method="m", obs_ids=pd.Index(list("abc"))
    )
    assert text["posterior"]["obs_id"].values.tolist() == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"class_names": ["a", "b", "a"]}, "class_names must differ, but 'a' occurs more than"),
        ({"feature_names": ["a", "b", "a"]}, "feature_names must differ, but 'a' occurs"),
        (
            {"class_names": "abc"},
            "class_names must be a sequence of names of classes, but is 'abc'",
        ),
        (
            {"class_names": ["a", "b", None]},
            "must hold names of classes, but holds None",
        ),
        ({"feature_names": 3}, "feature_names must be a sequence of column names, but is 3"),
        ({"feature_names": ["a", "b"]}, r"x_train must have shape \(rows, 2\)"),
        ({"target_names": ["a", "b"]}, "target_names must hold one name for each of the 1 targets"),
    ],
)
def test_names_that_name_nothing_are_refused(x, labels, names, message):
    with pytest.raises(ValueError, match=message):
        nb.make_dataset(x, labels, task="classification", **names)


def test_columns_of_the_same_name_are_refused(x, labels):
    frame = pd.DataFrame(x, columns=["a", "b", "a"])
    with pytest.raises(ValueError, match="feature_names must differ, but 'a'"):
        nb.make_dataset(frame, labels, task="classification")


# Columns that hold no numbers


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (["Rome"] * N, "column 'd' has dtype .* and holds text: encode it first"),
        (pd.Categorical(["Rome"] * N), "column 'd' has dtype category and holds text: encode"),
        (pd.date_range("2020", periods=N), "column 'd' has dtype datetime64.* times: make numbers"),
        (pd.to_timedelta(np.arange(N), "D"), "holds times: make numbers"),
        (np.full(N, 1j), "holds complex numbers: pass real and imaginary parts"),
        ([1.0, "two"] * (N // 2), "column 'd' has dtype object and holds text"),
    ],
)
def test_columns_without_numbers_say_what_to_do(x, labels, column, message):
    frame = pd.DataFrame(x, columns=list("abc")).assign(d=column)
    with pytest.raises(ValueError, match=message):
        nb.make_dataset(frame, labels, task="classification")
    with pytest.raises(ValueError, match="x must hold real numbers, but holds"):
        nb.make_dataset(frame.to_numpy(), labels, task="classification")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (lambda x: scipy.sparse.csr_array(x), r"x must be an array, but is a csr_array; .*toarray"),
        (lambda x: [[1.0], [1.0, 2.0]] * (N // 2), "x must be an array, but its rows differ"),
        (lambda x: x.astype(str), r"numbers as text, pass them with .astype\(float\)"),
        (lambda x: x.astype("S8"), "holds bytes: decode it"),
        (lambda x: np.full((N, 2), np.datetime64("2020")), "holds times"),
        (lambda x: np.where(x > 1, None, x), "x must be finite, but holds"),
    ],
)
def test_arrays_without_numbers_say_what_to_do(x, labels, values, message):
    with pytest.raises(ValueError, match=message):
        nb.make_dataset(values(x), labels, task="classification")


def test_every_column_that_is_in_the_way_is_named(x, labels):
    frame = pd.DataFrame(x, columns=list("abc"))
    text = frame.assign(d="Rome", e=pd.Timestamp("2020"), f=b"")
    with pytest.raises(ValueError, match=r"'d' .* text: .*: 'e' \(times\), 'f' \(bytes\)\.$"):
        nb.make_dataset(text, labels, task="classification")
    gaps = frame.assign(b=frame["b"].mask(frame.index < 2), c=np.inf)
    with pytest.raises(ValueError, match=rf"in its columns 'b' \(2\), 'c' \({N}\); drop"):
        nb.make_dataset(gaps, labels, task="classification")
    wide = pd.DataFrame(np.full((N, 12), np.nan))
    with pytest.raises(ValueError, match=r"9 \(\d+\) and 2 more; drop"):
        nb.make_dataset(wide, labels, task="classification")


@pytest.mark.parametrize("kind", [list, np.array, pd.DataFrame])
def test_whole_numbers_beyond_floats_are_infinite_not_an_error_of_python(kind, x, labels):
    rows = x.astype(object)
    rows[1, 2] = -(10**400)
    with pytest.raises(ValueError, match="x must be finite"):
        nb.make_dataset(kind(rows.tolist()), labels, task="classification")
    with pytest.raises(ValueError, match="y must be finite"):
        nb.make_dataset(x, kind([[10**400]] + [[1.5]] * (N - 1)), task="regression")
    with pytest.raises(ValueError, match=r"y must hold class labels, but holds 1000.*astype"):
        nb.make_dataset(x, [10**400, *[0, 1.5] * (N // 2)][:N], task="classification")


def test_numbers_in_an_object_array_are_numbers(x, labels):
    plain = nb.make_dataset(x, labels, task="classification")
    boxed = nb.make_dataset(x.astype(object), labels, task="classification")
    np.testing.assert_array_equal(boxed.x_train, plain.x_train)
    frame = pd.DataFrame(x).astype(object)
    np.testing.assert_array_equal(
        nb.make_dataset(frame, labels, task="classification").x_train, plain.x_train
    )


# Pictures


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3)])
def test_pictures_enter_as_they_are_and_come_back(shape, labels):
    pictures = np.random.default_rng(0).integers(0, 256, size=(N, *shape))
    data = nb.make_dataset(
        pictures, labels, task="classification", test=np.arange(9), validation_fraction=0
    )
    assert data.image_shape == shape
    np.testing.assert_allclose(data.images(data.x_test), pictures[:9], atol=1e-10)
    flat = nb.make_dataset(
        pictures.reshape(N, -1), labels, task="classification", image_shape=shape,
        test=np.arange(9), validation_fraction=0,
    )  # fmt: skip
    np.testing.assert_array_equal(flat.x_train, data.x_train)


@pytest.mark.parametrize("kind", ["rotation", "translation", "blur", "noise", "inversion"])
def test_a_color_picture_is_shifted_as_its_channels_are(kind, labels):
    """Noise aside, every channel is shifted as a picture of one channel with the same bounds is."""
    gray = np.random.default_rng(0).uniform(size=(N, 6, 6))
    color = np.stack([gray, gray, gray], axis=-1)
    settings = {"task": "classification", "test": np.arange(9), "validation_fraction": 0}
    one, three = (nb.make_dataset(v, labels, **settings) for v in (gray, color))
    shifted, expected = (
        np.asarray(data.images(nb.shift(data, kind, 3).x_test)) for data in (three, one)
    )
    assert shifted.shape == (9, 6, 6, 3)
    if kind != "noise":
        for channel in range(3):
            np.testing.assert_allclose(shifted[..., channel], expected, atol=1e-10)
    assert np.abs(shifted - color[:9]).max() > 0.05


@pytest.mark.parametrize("shape", [(-1, -3), (0, 3), (3,), (1, 1, 1, 3)])
def test_a_shape_that_no_picture_has_is_refused(x, labels, shape):
    with pytest.raises(ValueError, match="image_shape must"):
        nb.make_dataset(x, labels, task="classification", image_shape=shape)


def test_a_shape_other_than_that_of_the_pictures_is_refused(labels):
    pictures = np.random.default_rng(0).uniform(size=(N, 4, 5))
    with pytest.raises(ValueError, match=r"that of the pictures, \(4, 5\), but is \(5, 4\)"):
        nb.make_dataset(pictures, labels, task="classification", image_shape=(5, 4))


# Splits that are given


def test_a_given_test_set_is_scaled_by_the_training_points(x, labels):
    more, y = x[:9] + 1, labels[:9]
    data = nb.make_dataset(
        x, labels, test=(more, y), validation_fraction=0.0, task="classification"
    )
    np.testing.assert_allclose(data.x_train, (x - x.mean(axis=0)) / x.std(axis=0), rtol=1e-12)
    np.testing.assert_allclose(data.x_test, (more - x.mean(axis=0)) / x.std(axis=0), rtol=1e-12)
    np.testing.assert_array_equal(data.y_train, labels)  # in the order they came
    np.testing.assert_array_equal(data.y_test, y)
    assert data.x_val.shape == (0, 3)


def test_both_held_out_splits_can_be_given_and_training_takes_the_rest(x, labels):
    data = nb.make_dataset(
        x, labels, test=(x[:5], labels[:5]), validation=(x[5:9], labels[5:9]), task="classification"
    )
    assert [len(data.x_train), len(data.x_val), len(data.x_test)] == [N, 4, 5]
    drawn = nb.make_dataset(x, labels, test=(x[:5], labels[:5]), task="classification")
    assert [len(drawn.x_train), len(drawn.x_val), len(drawn.x_test)] == [48, 12, 5]


def test_folds_of_scikit_learn_are_splits(x, labels):
    for train, test in StratifiedKFold(4).split(x, labels):
        data = nb.make_dataset(x, labels, test=test, validation_fraction=0, task="classification")
        np.testing.assert_allclose(data.original_inputs(data.x_test), x[test], rtol=1e-12)
        np.testing.assert_allclose(data.original_inputs(data.x_train), x[train], rtol=1e-12)
        mask = np.isin(np.arange(N), test)
        same = nb.make_dataset(x, labels, test=mask, validation_fraction=0, task="classification")
        np.testing.assert_array_equal(same.x_train, data.x_train)


def test_a_temporal_split_of_a_frame_keeps_its_names():
    frame = pd.DataFrame({"a": np.arange(20.0), "b": np.arange(20.0) ** 2})
    y = pd.Series(np.sin(np.arange(20.0)), name="wave")
    early, late = slice(0, 15), slice(15, 20)
    data = nb.make_dataset(frame[early], y[early], test=(frame[late], y[late]), task="regression")
    assert (data.feature_names, data.target_names) == (("a", "b"), ("wave",))
    np.testing.assert_allclose(data.original_targets(data.y_test), y[late], rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: {"test": (x[:, :2], y)}, "x of test must have 3 columns as x, but has 2"),
        (lambda x, y: {"test": (x, y[1:])}, r"y of test must have shape \(60,\)"),
        (lambda x, y: {"test": (x, y + 5)}, "class 5 has none of the 60 training points"),
        (lambda x, y: {"test": (x[:0], y[:0])}, "x of test is empty"),
        (lambda x, y: {"test": (x, y), "test_fraction": 0.1}, "test_fraction must be left out"),
        (lambda x, y: {"test": [0, 1], "validation": [1, 2]}, "no row of x in common"),
        (lambda x, y: {"test": [0, 60]}, "test must hold rows of x, 0 to 59, but holds 0 to 60"),
        (lambda x, y: {"test": [-1, 3]}, "test must hold rows of x, 0 to 59, but holds -1"),
        (lambda x, y: {"test": [3, 3]}, "every row of x at most once"),
        (lambda x, y: {"test": np.zeros(N, bool)}, "x_test has zero test points"),
        (lambda x, y: {"test": x}, r"test must be a pair .* float64"),
        (lambda x, y: {"test": np.arange(N)}, "x_train has zero training points"),
        (lambda x, y: {"validation": x[0]}, "validation must be a pair"),
    ],
)
def test_splits_that_do_not_fit_are_refused(x, labels, change, message):
    settings = {"validation_fraction": 0} | change(x, labels)
    if "validation" in settings:
        del settings["validation_fraction"]
    with pytest.raises(ValueError, match=message):
        nb.make_dataset(x, labels, task="classification", **settings)


def test_frames_with_other_columns_are_refused(x, labels):
    frame = pd.DataFrame(x, columns=list("abc"))
    with pytest.raises(ValueError, match="column 0 is 'c' and not 'a'"):
        nb.make_dataset(frame, labels, test=(frame[["c", "b", "a"]], labels), task="classification")


def test_without_validation_points_what_needs_them_says_so(x, labels, key):
    data = nb.make_dataset(x, labels, validation_fraction=0, task="classification")
    assert (len(data.x_train), len(data.x_val), len(data.x_test)) == (48, 0, 12)
    posterior = nb.laplace(
        nb.dense_network(depth=1), nb.Categorical(3), data.x_train, data.y_train,
        prior_precision=1.0,
    )  # fmt: skip
    with pytest.raises(ValueError, match="x_val has no points: make the dataset with some"):
        nb.temperature_scaled(posterior, data, key=key)


# Several targets, and counts


def test_several_targets_are_standardised_each_and_predicted_together(x, key):
    y = np.stack([100 * x[:, 0], np.sin(x[:, 1]), x[:, 2] ** 2], axis=1)
    data = nb.make_dataset(
        x, pd.DataFrame(y, columns=["a", "b", "c"]), task="regression", test=np.arange(9),
        validation_fraction=0,
    )  # fmt: skip
    assert data.target_names == ("a", "b", "c")
    np.testing.assert_allclose(np.asarray(data.y_train).std(axis=0), 1, rtol=1e-10)
    np.testing.assert_allclose(data.original_targets(data.y_test), y[:9], rtol=1e-10)
    each = [
        nb.make_dataset(x, y[:, i], task="regression", test=np.arange(9), validation_fraction=0)
        for i in range(3)
    ]
    np.testing.assert_allclose(data.y_train, np.stack([d.y_train for d in each], 1), rtol=1e-12)
    network = nb.dense_network(depth=1)
    together = nb.gp_posterior(
        network, nb.Gaussian(0.1, 3), data.x_train, data.y_train, prior_precision=1.0
    )
    tree = nb.predict(together, data, key=key, num_draws=10)
    assert tree["posterior"]["output"].values.tolist() == ["a", "b", "c"]
    alone = nb.gp_posterior(
        network, nb.Gaussian(0.1), each[1].x_train, each[1].y_train, prior_precision=1.0
    )
    np.testing.assert_allclose(
        tree["closed_form/mean"].values[:, 1], alone.mean(each[1].x_test)[:, 0], rtol=1e-8
    )


def test_counts_are_kept_as_they_are(x):
    counts = np.random.default_rng(0).poisson(np.exp(x[:, 0] / 4))
    for y in (counts, counts.astype(float), pd.Series(counts, dtype="Int64")):
        data = nb.make_dataset(x, y, task="counts", test=np.arange(9), validation_fraction=0)
        np.testing.assert_array_equal(data.y_train, counts[9:])
        assert np.issubdtype(data.y_train.dtype, np.integer)
        assert (data.target_mean, data.target_scale) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.full(N, 0.5), "y must hold counts"),
        (np.full(N, -1), "y must hold counts"),
        (np.full(N, 2.0**40), "y must hold counts: whole numbers from 0 to"),
        (np.full(N, 3), "y_train is constant"),
    ],
)
def test_what_counts_nothing_is_refused(x, y, message):
    with pytest.raises(ValueError, match=message):
        nb.make_dataset(x, y, task="counts")


# A record made by hand


def test_a_record_made_by_hand_derives_what_it_can(x, labels):
    data = nb.Dataset(x_train=x, y_train=labels, x_test=x, y_test=labels, task="classification")
    assert (data.class_names, data.feature_names) == (("0", "1", "2"), ("x0", "x1", "x2"))
    assert (data.name, data.target_names, len(data.x_val)) == ("custom", ("y",), 0)
    np.testing.assert_array_equal(data.original_inputs(x), x)
    two = nb.Dataset(x_train=x, y_train=x[:, :2], x_test=x, y_test=x[:, :2], task="regression")
    assert two.target_names == ("y0", "y1")
    np.testing.assert_array_equal(two.original_targets(x[:, :2]), x[:, :2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_names": ["a", "a", "b"]}, "class_names must differ"),
        ({"x_scale": np.array([1.0, 0.0, 1.0])}, r"x_scale must be positive, but holds 0.0"),
        ({"x_val": np.zeros((2, 3))}, "x_val and y_val must be given together"),
        ({"image_shape": (-1, -3)}, "image_shape must be height and width"),
        ({"target_scale": np.ones(2)}, r"target_scale must be a number for each target"),
        ({"y_test": np.zeros((N, 1), int)}, r"y_test must have shape \(60,\)"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(x, labels, change, message):
    fields = {"x_train": x, "y_train": labels, "x_test": x, "y_test": labels}
    with pytest.raises(ValueError, match=message):
        nb.Dataset(**fields | change, task="classification")


def test_a_number_too_large_for_the_type_is_named(x, labels):
    with (
        jax.enable_x64(False),
        pytest.raises(ValueError, match="x_test is computed with in float32, but holds 7"),
    ):
        nb.Dataset(
            x_train=x, y_train=labels, x_test=x * 1e100, y_test=labels, task="classification"
        )


# Anything like a dataset


def test_data_that_lack_a_field_are_told_which(x, labels, key):
    class Mine:
        name, x_test = "mine", x

    posterior = nb.laplace(
        nb.dense_network(depth=1), nb.Categorical(3), x, labels, prior_precision=1.0
    )
    with pytest.raises(ValueError, match=r"have its fields x_test, y_test, name, .* lacks y_test"):
        nb.predict(posterior, Mine(), key=key)
    Mine.y_test = labels
    tree = nb.predict(posterior, Mine(), key=key, num_draws=3)
    assert (tree.attrs["dataset"], tree["posterior"].sizes["obs_id"]) == ("mine", N)
    assert isinstance(Mine(), nb.evaluation.DatasetLike)


def test_one_index_in_two_orders_is_refused():
    """Rows go by position; the same index in another order says that they should not."""
    frame = pd.DataFrame({"a": np.arange(60.0), "b": np.arange(60.0) % 7})
    y = pd.Series(np.arange(60) % 2)
    with pytest.raises(ValueError, match=r"one index in two: use y\.loc\[x\.index\]"):
        nb.make_dataset(frame, y.sample(frac=1, random_state=0), task="classification")
    for same in (y, y.to_numpy(), y.set_axis(range(100, 160))):  # other indexes say nothing
        assert nb.make_dataset(frame, same, task="classification").x_train.shape[1] == 2


def test_pictures_with_their_channels_first_are_refused():
    x, y = np.random.default_rng(0).uniform(size=(60, 3, 8, 8)), np.arange(60) % 2
    with pytest.raises(ValueError, match=r"channels last, .* np\.moveaxis\(x, 1, -1\)"):
        nb.make_dataset(x, y, task="classification")
    data = nb.make_dataset(np.moveaxis(x, 1, -1), y, task="classification")
    assert data.image_shape == (8, 8, 3)
