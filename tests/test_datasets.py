import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import sklearn.datasets

from ntkbayes.datasets import DATASETS, Dataset, load_dataset, make_dataset

SPLITS = ("train", "val", "test")
BUNDLED = [name for name in DATASETS if name not in ("moons", "sine")]
CLASSIFICATION = [name for name, info in DATASETS.items() if info.task == "classification"]
REGRESSION = [name for name, info in DATASETS.items() if info.task == "regression"]
ROUNDING = 1e-10  # float64 sums over at most 1,797 rows of standardised values


def raw_bundled(name):
    options = {"scaled": False} if name == "diabetes" else {}
    bunch = getattr(sklearn.datasets, f"load_{name}")(**options)
    return np.column_stack([bunch.data, bunch.target])


def original_rows(data, split):
    """Inputs and target of one split in original units, side by side."""
    x, y = getattr(data, f"x_{split}"), getattr(data, f"y_{split}")
    y = np.asarray(y) * data.target_scale + data.target_mean
    return np.column_stack([data.original_inputs(x), y])


def sorted_rows(rows):
    rows = np.round(rows, 8)
    return rows[np.lexsort(rows.T)]


def points(rows):
    return {tuple(row) for row in np.round(rows, 8)}


@pytest.fixture
def xy():
    generator = np.random.default_rng(0)
    return generator.normal(3.0, 2.0, size=(50, 3)), np.arange(50) % 2


@pytest.mark.parametrize("name", DATASETS)
def test_training_inputs_are_centred_and_scaled(name):
    x = np.asarray(load_dataset(name).x_train)
    np.testing.assert_allclose(x.mean(axis=0), 0.0, atol=ROUNDING)
    deviations = np.sqrt(np.mean(x**2)) if name == "digits" else x.std(axis=0)
    np.testing.assert_allclose(deviations, 1.0, atol=ROUNDING)


@pytest.mark.parametrize("name", REGRESSION)
def test_regression_targets_are_standardised_and_return_to_original_units(name):
    data = load_dataset(name)
    y = np.asarray(data.y_train)
    assert abs(y.mean()) < ROUNDING
    assert y.std() == pytest.approx(1.0, abs=ROUNDING)
    original = original_rows(data, "train")[:, -1]
    assert original.mean() == pytest.approx(data.target_mean)
    assert original.std() == pytest.approx(data.target_scale)


def test_standardisation_uses_the_training_split_only(xy):
    x, y = xy
    plain = make_dataset(x, y, task="classification")
    held_out = points(np.concatenate([original_rows(plain, s) for s in ("val", "test")])[:, :-1])
    shifted = np.array([row + 1e3 if tuple(np.round(row, 8)) in held_out else row for row in x])
    moved = make_dataset(shifted, y, task="classification")
    np.testing.assert_array_equal(moved.x_train, plain.x_train)
    np.testing.assert_array_equal(moved.x_scale, plain.x_scale)
    assert np.min(moved.x_test) > 100


def test_a_regression_target_is_standardised_by_the_training_split_only(xy):
    x, _ = xy
    y = np.arange(50.0)
    plain = make_dataset(x, y, task="regression")
    test_rows = np.isin(y, np.round(original_rows(plain, "test")[:, -1]))
    moved = make_dataset(x, np.where(test_rows, y + 1e3, y), task="regression")
    np.testing.assert_array_equal(moved.y_train, plain.y_train)
    assert moved.target_scale == plain.target_scale


def test_a_constant_feature_is_only_centred(xy):
    x, y = xy
    data = make_dataset(np.column_stack([x, np.full(50, 0.1)]), y, task="classification")
    np.testing.assert_allclose(data.x_train[:, -1], 0.0, atol=1e-15)
    assert data.x_scale[-1] == 1.0


def test_pixels_share_one_scale_so_rare_strokes_stay_small():
    data = load_dataset("digits")
    assert np.ptp(data.x_scale) == 0
    # The root mean square of a normalised picture is 1; pixels run from 0 to 16.
    assert np.max(np.abs(data.x_test)) <= 16 / float(data.x_scale[0])
    raw = np.asarray(data.original_inputs(data.x_train))
    smallest = raw.std(axis=0)[raw.std(axis=0) > 0].min()
    assert smallest < 0.05 * float(data.x_scale[0])  # the pixel that its own scale would blow up


@pytest.mark.parametrize("name", BUNDLED)
def test_splits_are_disjoint_and_cover_the_data(name):
    data = load_dataset(name)
    together = np.concatenate([original_rows(data, split) for split in SPLITS])
    np.testing.assert_allclose(sorted_rows(together), sorted_rows(raw_bundled(name)), atol=1e-7)


def test_own_rows_keep_their_labels_through_the_split(xy):
    x, _ = xy
    data = make_dataset(x, x[:, 0] ** 2, task="regression")
    for split in SPLITS:
        rows = original_rows(data, split)
        np.testing.assert_allclose(rows[:, -1], rows[:, 0] ** 2, rtol=1e-10)


def test_digits_has_1000_training_297_validation_and_500_test_points():
    data = load_dataset("digits")
    assert [len(getattr(data, f"x_{s}")) for s in SPLITS] == [1000, 297, 500]


@pytest.mark.parametrize("name", CLASSIFICATION)
def test_every_split_holds_the_classes_in_proportion(name):
    data = load_dataset(name)
    all_labels = np.concatenate([getattr(data, f"y_{s}") for s in SPLITS])
    shares = np.bincount(all_labels, minlength=data.num_classes) / len(all_labels)
    for split in SPLITS:
        y = np.asarray(getattr(data, f"y_{split}"))
        counts = np.bincount(y, minlength=data.num_classes)
        # The slice between two proportional prefixes is off by fewer than two points per class.
        assert np.all(np.abs(counts - shares * len(y)) < 2)


@pytest.mark.parametrize("name", DATASETS)
def test_the_same_seed_gives_the_same_data_and_another_seed_other_data(name):
    first, again, other = (load_dataset(name, seed=seed) for seed in (3, 3, 4))
    assert first.feature_names == again.feature_names
    for split in SPLITS:
        np.testing.assert_array_equal(original_rows(first, split), original_rows(again, split))
    assert points(original_rows(first, "train")) != points(original_rows(other, "train"))


@pytest.mark.parametrize("name", DATASETS)
def test_num_train_sets_the_training_size_and_leaves_the_test_points(name):
    full, small = load_dataset(name), load_dataset(name, num_train=21)
    assert len(small.x_train) == len(small.y_train) == 21
    assert points(original_rows(full, "test")) == points(original_rows(small, "test"))


@pytest.mark.parametrize("name", BUNDLED)
def test_a_smaller_training_set_is_part_of_a_larger_one(name):
    small, large = (load_dataset(name, num_train=n) for n in (25, 60))
    assert points(original_rows(small, "train")) < points(original_rows(large, "train"))


def test_a_rare_class_can_be_split():
    x, y = np.arange(40.0)[:, None], np.repeat(["common", "rare"], [37, 3])
    data = make_dataset(x, y, task="classification", test_fraction=0.3)
    rare = [int(np.sum(getattr(data, f"y_{s}") == 1)) for s in SPLITS]
    assert sum(rare) == 3
    assert rare[0] >= 1


def test_the_gap_of_sine_holds_no_training_or_validation_inputs_but_test_inputs():
    data = load_dataset("sine", num_train=400)
    observed = np.concatenate([original_rows(data, s)[:, 0] for s in ("train", "val")])
    assert np.all((np.abs(observed) >= 0.75 - 1e-12) & (np.abs(observed) <= 2 + 1e-12))
    assert {-1.0, 1.0} == set(np.sign(observed))
    x_test = original_rows(data, "test")[:, 0]
    assert np.sum(np.abs(x_test) < 0.7) > 40
    np.testing.assert_allclose(x_test, np.linspace(-3, 3, 200), atol=1e-12)


def test_the_noise_of_sine_has_the_stated_scale():
    data = load_dataset("sine", num_train=4000)
    for split in ("train", "test"):
        x, y = original_rows(data, split).T
        residual = (y - np.sin(2 * x)) / data.target_scale
        standard_error = data.noise_scale / np.sqrt(2 * len(x))
        assert abs(residual.std() - data.noise_scale) < 4 * standard_error
    assert data.noise_scale * data.target_scale == pytest.approx(0.1)


def test_moons_lie_on_the_half_circles_up_to_the_noise():
    data = load_dataset("moons", num_train=2000)
    x, y = original_rows(data, "train")[:, :2], np.asarray(data.y_train)
    centres = np.array([[0.0, 0.0], [1.0, 0.5]])[y]
    radial = np.linalg.norm(x - centres, axis=1) - 1
    # Radial noise is the coordinate noise 0.2 up to curvature (mean +0.02) and the arc's ends.
    assert radial.std() == pytest.approx(0.2, abs=0.01)


def test_images_are_scikit_learns_pictures_with_their_digits():
    data = load_dataset("digits", seed=1)
    bunch = sklearn.datasets.load_digits()
    digit = {
        image.tobytes(): label for image, label in zip(bunch.images, bunch.target, strict=True)
    }
    for split in SPLITS:
        pictures = np.asarray(data.images(getattr(data, f"x_{split}")))
        np.testing.assert_allclose(pictures, np.round(pictures), atol=1e-12)
        labels = [digit[(np.round(picture) + 0.0).tobytes()] for picture in pictures]
        np.testing.assert_array_equal(labels, getattr(data, f"y_{split}"))


def test_text_labels_become_sorted_class_indices(xy):
    x, y = xy
    data = make_dataset(x, np.array(["b", "a"])[y], task="classification")
    assert data.class_names == ("a", "b")
    by_index = make_dataset(x, 1 - y, task="classification", class_names=("a", "b"))
    np.testing.assert_array_equal(data.y_train, by_index.y_train)
    same = make_dataset(x, np.array(["b", "a"], dtype=object)[y], task="classification")
    np.testing.assert_array_equal(data.y_test, same.y_test)


def test_a_dataset_passes_through_jit_with_its_names():
    data = load_dataset("iris")
    returned = jax.jit(lambda d: d)(data)
    np.testing.assert_array_equal(returned.x_train, data.x_train)
    assert returned.class_names == data.class_names


def test_without_double_precision_the_data_are_the_same_in_single_precision():
    double = load_dataset("diabetes")
    with jax.enable_x64(False):
        single = load_dataset("diabetes")
    assert (single.x_train.dtype, single.y_train.dtype) == (jnp.float32, jnp.float32)
    np.testing.assert_array_equal(single.x_train, np.asarray(double.x_train, dtype=np.float32))


def test_every_listed_dataset_loads_with_the_listed_task():
    for name, info in DATASETS.items():
        data = load_dataset(name)
        assert (data.name, data.task) == (name, info.task)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "digit"}, r"unknown dataset 'digit': did you mean digits"),
        ({"name": "iris", "seed": -1}, r"seed must be at least 0, but is -1"),
        (
            {"name": "iris", "num_train": 91},
            r"num_train must be at most 90, but is 91; the other 60",
        ),
        ({"name": "iris", "num_train": 0}, r"num_train must be at least 2, but is 0"),
        ({"name": "digits", "num_train": 5}, r"class \d has none of the 5 training points"),
    ],
)
def test_load_dataset_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_dataset(**arguments)


def with_entry(array, index, value):
    array = np.array(array, dtype=object if value is None else float)
    array[index] = value
    return array


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: {"x": with_entry(x, (4, 1), np.nan)}, r"x must be finite.*index \(4, 1\)"),
        (lambda x, y: {"y": with_entry(y, 7, np.inf)}, r"y must be finite.*index \(7,\)"),
        (lambda x, y: {"y": with_entry(y, 7, None)}, r"y must hold class labels, but entry 7 is"),
        (lambda x, y: {"y": y + 0.5}, r"y must hold class labels, but holds fractions"),
        (lambda x, y: {"y": y + 1j}, r"y must hold class labels, .* but holds complex numbers"),
        (
            lambda x, y: {"x": x.astype(str)},
            r"x must hold real numbers, but holds text: these are numbers as text",
        ),
        (lambda x, y: {"x": x[:0], "y": y[:0]}, r"x is empty \(shape \(0, 3\)\)"),
        (
            lambda x, y: {"y": y[1:]},
            r"y must have shape \(50,\), one entry per row of x, but has \(49,\)",
        ),
        (lambda x, y: {"y": 0 * y}, r"y_train holds one class only \('0'\)"),
        (lambda x, y: {"y": 1.0 + 0 * y, "task": "regression"}, r"y_train is constant"),
        (lambda x, y: {"task": "ranking"}, r"unknown task 'ranking'"),
        (
            lambda x, y: {"task": "regression", "class_names": ("a", "b")},
            r"class_names must be left",
        ),
        (lambda x, y: {"class_names": ("a",)}, r"y_train must hold class indices 0 to 0"),
        (
            lambda x, y: {"y": y.astype(str), "class_names": ("a", "b")},
            r"y must hold indices of class_names, but holds text",
        ),
        (lambda x, y: {"feature_names": ("a", "b")}, r"x_train must have shape \(rows, 2\)"),
        (lambda x, y: {"image_shape": (2, 2)}, r"image_shape must hold 3 pixels"),
        (lambda x, y: {"seed": -1}, r"seed must be at least 0"),
        (lambda x, y: {"test_fraction": -0.1}, r"test_fraction must lie between 0 and 1"),
        (lambda x, y: {"test_fraction": 0}, r"x_test has zero test points"),
        (lambda x, y: {"validation_fraction": 0.001}, r"x_val has zero validation points"),
        (lambda x, y: {"test_fraction": 0.8}, r"x_train has zero training points"),
    ],
)
def test_make_dataset_refuses(xy, change, message):
    x, y = xy
    with pytest.raises(ValueError, match=message):
        make_dataset(**{"x": x, "y": y, "task": "classification", **change(x, y)})


def test_a_class_without_training_points_is_refused(xy):
    x, y = xy
    y[0] = 2
    messages = []
    for seed in range(20):
        try:
            data = make_dataset(x, y, task="classification", seed=seed)
        except ValueError as error:
            messages.append(str(error))
        else:
            np.testing.assert_array_equal(np.unique(data.y_train), [0, 1, 2])
    # The lonely point is in training with probability 0.6: neither outcome fails 20 times.
    assert 0 < len(messages) < 20
    expected = (
        "class 2 has none of the 30 training points and 1 of all 50; use more points or drop it."
    )
    assert set(messages) == {expected}


def test_identical_pictures_keep_scale_one(xy):
    _, y = xy
    data = make_dataset(np.full((50, 4), 7.0), y, task="classification", image_shape=(2, 2))
    np.testing.assert_array_equal(data.images(data.x_test), np.full((10, 2, 2), 7.0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_test": np.zeros((0, 4)), "y_test": np.zeros(0, int)}, r"x_test has zero test points"),
        ({"y_val": np.zeros(3, int)}, r"y_val must have shape \(30,\), one entry per row of x_val"),
        ({"x_val": np.full((30, 4), np.nan)}, r"x_val must be finite"),
        ({"y_val": np.full(30, 3)}, r"y_val must hold class indices 0 to 2.*holds 3 to 3"),
        (
            {"y_val": np.zeros(30)},
            r"y_val must hold class indices for classification, but has float",
        ),
        ({"x_mean": np.zeros(3)}, r"x_mean and x_scale must have shape \(4,\)"),
        ({"x_scale": np.full(4, np.inf)}, r"x_scale must be finite"),
    ],
)
def test_a_dataset_refuses_arrays_that_do_not_fit(change, message):
    data = load_dataset("iris")
    fields = {field.name: getattr(data, field.name) for field in dataclasses.fields(Dataset)}
    with pytest.raises(ValueError, match=message):
        Dataset(**{**fields, **change})


def test_error_messages_are_one_line(xy):
    x, y = xy
    with pytest.raises(ValueError, match="zero test points") as error:
        make_dataset(x, y, task="classification", test_fraction=0.0)
    assert "\n" not in str(error.value)


def test_regression_has_no_classes_and_tables_no_images():
    data = load_dataset("diabetes")
    with pytest.raises(ValueError, match="num_classes needs classes, but 'diabetes'"):
        _ = data.num_classes
    with pytest.raises(ValueError, match="images needs a dataset of pictures, but 'diabetes'"):
        data.images(data.x_test)


def test_an_array_of_the_wrong_rank_does_not_broadcast(xy):
    x, y = xy
    with pytest.raises(ValueError, match=r"y must have shape \(\d+,\).* flatten it"):
        make_dataset(x, y[:, None], task="classification")
    with pytest.raises(ValueError, match=r"x must have shape \(n, d\), or .*, but has \(50,\)"):
        make_dataset(x[:, 0], y, task="classification")


def test_pandas_own_types_are_numbers_and_labels_too(xy):
    x, y = xy
    frame = pd.DataFrame(x, columns=["a", "b", "c"]).convert_dtypes()
    frame["d"] = pd.Series(y == 1, dtype="boolean")
    numbers = pd.Series(y, name=0, dtype="Int64")
    data = make_dataset(frame, numbers, task="classification")
    assert (data.feature_names, data.target_names) == (("a", "b", "c", "d"), ("0",))
    assert data.class_names == ("0", "1")
    objects = make_dataset(x, pd.Series(y * 8 + 2, dtype=object), task="classification")
    assert objects.class_names == ("2", "10")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x.assign(d="text"), y), "x must hold real numbers, but its column 'd' has"),
        (lambda x, y: (x.assign(d=pd.array([None] * 50, "Float64")), y), "x must be finite"),
        (lambda x, y: (x, y.astype("string").mask(y == 1)), "entry 1 is missing"),
        (lambda x, y: (x, y.astype("Int64").mask(y == 1)), "y must be finite"),
        (lambda x, y: (x, y.to_frame()), r"y must have shape \(50,\), .* \(50, 1\); flatten it"),
    ],
)
def test_data_frames_that_are_no_data_are_refused(xy, change, message):
    x, y = change(pd.DataFrame(xy[0]), pd.Series(xy[1]))
    with pytest.raises(ValueError, match=message):
        make_dataset(x, y, task="classification")


def test_data_frames_and_lists_are_the_arrays_they_hold(xy):
    x, y = xy
    expected = make_dataset(x, y, task="classification")
    names = [f"column {i}" for i in range(x.shape[1])]
    frame, labels = pd.DataFrame(x, columns=names), pd.Series(y, name="kind").astype("category")
    data = make_dataset(frame, labels, task="classification")
    assert (data.feature_names, data.target_names) == (tuple(names), ("kind",))
    lists = make_dataset(x.tolist(), y.tolist(), task="classification")
    for other in (data, lists):
        np.testing.assert_array_equal(other.x_train, expected.x_train)
        np.testing.assert_array_equal(other.y_test, expected.y_test)
        assert other.class_names == expected.class_names
