"""Shifted test points and held-out classes: what moves, by how much, and what must stay."""

import dataclasses

import numpy as np
import pytest
import sklearn.svm

from ntkbayes.datasets import (
    DATASETS,
    SHIFTS,
    away_inputs,
    hold_out_classes,
    load_dataset,
    make_dataset,
    shift,
)

PICTURES = [name for name, info in SHIFTS.items() if info.needs == "pictures"]
FEATURES = [name for name, info in SHIFTS.items() if info.needs == "features"]
FITTING = [("digits", kind) for kind in PICTURES] + [("wine", kind) for kind in FEATURES]
FITTING += [("sine", "away"), ("sine", "feature-noise"), ("diabetes", "feature-shift")]
ROUNDING = 1e-10  # float64, standardised there and back
SEVERITIES = range(1, 6)


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


@pytest.fixture(scope="module")
def wine():
    return load_dataset("wine")


@pytest.fixture(scope="module")
def sine():
    return load_dataset("sine")


def picture_data(pictures, *, test):
    """Data whose training pictures range from 0 to 10, and whose test pictures are `test`."""
    generator = np.random.default_rng(0)
    raw = generator.uniform(0, 10, size=(40, pictures[0] * pictures[1]))
    raw[:5] = np.arange(5)[:, None] * 2.5
    data = make_dataset(
        raw, np.arange(40) % 2, task="classification", image_shape=pictures, test_fraction=0.1
    )
    low, high = np.min(data.images(data.x_train)), np.max(data.images(data.x_train))
    x = (np.reshape(test, (len(test), -1)) - np.asarray(data.x_mean)) / np.asarray(data.x_scale)
    changed = dataclasses.replace(data, x_test=x, y_test=np.zeros(len(test), int))
    return changed, (float(low), float(high))


def moved(data, kind, severity, **options):
    """Distance of every test point from where it was."""
    difference = np.asarray(shift(data, kind, severity, **options).x_test - data.x_test)
    return np.linalg.norm(difference, axis=1)


@pytest.mark.parametrize(("name", "kind"), FITTING)
def test_only_the_test_points_are_shifted_and_the_name_says_how(name, kind):
    data = load_dataset(name)
    shifted = shift(data, kind, 3, seed=1)
    assert shifted.name == f"{name}/{kind}-3"
    assert shifted.x_test.shape == data.x_test.shape
    assert np.linalg.norm(shifted.x_test - data.x_test) > 0.1 * np.linalg.norm(data.x_test)
    for field in ("x_train", "y_train", "x_val", "y_val", "x_mean", "x_scale"):
        np.testing.assert_array_equal(getattr(shifted, field), getattr(data, field))
    if kind != "away":
        np.testing.assert_array_equal(shifted.y_test, data.y_test)
    assert shift(data, kind, 0) is data


@pytest.mark.parametrize(("name", "kind"), [f for f in FITTING if f[1] != "away"])
def test_a_higher_severity_moves_nearly_every_point_further(name, kind):
    data = load_dataset(name)
    distances = np.stack([moved(data, kind, severity) for severity in SEVERITIES])
    assert np.all(np.diff(distances.mean(axis=1)) > 0)
    assert np.mean(np.diff(distances, axis=0) >= 0) > 0.9


@pytest.mark.parametrize("kind", ["noise", "translation", "feature-noise", "feature-shift", "away"])
def test_a_seed_decides_what_is_random(kind, digits, sine):
    data = digits if kind in PICTURES else sine if kind == "away" else load_dataset("wine")
    first, again, other = (shift(data, kind, 2, seed=seed) for seed in (4, 4, 5))
    np.testing.assert_array_equal(first.x_test, again.x_test)
    np.testing.assert_array_equal(first.y_test, again.y_test)
    assert np.any(np.asarray(first.x_test != other.x_test))


@pytest.mark.parametrize("kind", PICTURES)
@pytest.mark.parametrize("severity", SEVERITIES)
def test_pictures_stay_in_the_range_of_the_training_intensities(digits, kind, severity):
    shifted = shift(digits, kind, severity)
    pictures = np.asarray(shifted.images(shifted.x_test))
    assert pictures.min() > -ROUNDING
    assert pictures.max() < 16 + ROUNDING


@pytest.mark.parametrize("kind", PICTURES)
def test_digits_are_harder_at_every_severity_and_mild_at_first(digits, kind):
    machine = sklearn.svm.SVC(gamma=1 / 64).fit(digits.x_train, digits.y_train)
    accuracies = [
        machine.score(shift(digits, kind, severity).x_test, digits.y_test) for severity in range(6)
    ]
    assert accuracies[1] > 0.9
    assert accuracies[5] < 0.8
    assert np.all(np.diff(accuracies) < 0.005)


@pytest.mark.parametrize(("name", "kind"), [("wine", kind) for kind in FEATURES])
def test_measurements_are_hard_at_the_last_severity_and_mild_at_the_first(name, kind):
    data = load_dataset(name)
    machine = sklearn.svm.SVC().fit(data.x_train, data.y_train)
    mild, hard = (machine.score(shift(data, kind, s).x_test, data.y_test) for s in (1, 5))
    assert mild > 0.9 > 0.6 > hard


def test_a_blurred_dot_is_a_gaussian_of_the_stated_width():
    dot = np.zeros((1, 24, 24))
    dot[0, 12, 12] = 9.0
    data, bounds = picture_data((24, 24), test=dot + 0.5)
    blurred = np.asarray(shift(data, "blur", 5).images(shift(data, "blur", 5).x_test))[0] - 0.5
    assert bounds[0] <= 0.5
    width = 0.13 * 24
    distance = np.arange(24) - 12
    profile = np.where(
        abs(distance) <= int(4 * width + 0.5), np.exp(-0.5 * (distance / width) ** 2), 0
    )
    profile /= profile.sum()
    # The tails are reflected into the picture; 12 pixels are 3.8 standard deviations.
    np.testing.assert_allclose(blurred, 9 * np.outer(profile, profile), atol=9e-4)


def test_noise_has_the_stated_deviation_of_the_range():
    data, (low, high) = picture_data((20, 20), test=np.full((30, 20, 20), 5.0))
    shifted = shift(data, "noise", 1)
    noise = np.asarray(shifted.images(shifted.x_test)) - 5.0
    assert noise.std() == pytest.approx(0.08 * (high - low), rel=4 / np.sqrt(2 * noise.size))
    assert abs(noise.mean()) < 4 * noise.std() / np.sqrt(noise.size)


def test_full_inversion_is_the_negative_and_half_way_is_half_of_it():
    test = np.random.default_rng(1).uniform(2, 8, (2, 4, 4))
    data, (low, high) = picture_data((4, 4), test=test)
    for severity, share in zip(SEVERITIES, SHIFTS["inversion"].levels, strict=True):
        shifted = shift(data, "inversion", severity)
        expected = (1 - share) * test + share * (low + high - test)
        np.testing.assert_allclose(shifted.images(shifted.x_test), expected, atol=ROUNDING)


def center_of_mass(picture):
    rows, columns = np.indices(picture.shape)
    return np.array([(rows * picture).sum(), (columns * picture).sum()]) / picture.sum()


def blob(h, w, row, column):
    rows, columns = np.indices((h, w))
    return np.exp(-0.5 * ((rows - row) ** 2 + (columns - column) ** 2) / 1.5**2)


def test_a_picture_is_turned_counterclockwise_by_the_stated_angle():
    data, (low, _) = picture_data((31, 31), test=8 * blob(31, 31, 15, 23)[None])
    for severity, angle in zip(SEVERITIES, np.deg2rad(SHIFTS["rotation"].levels), strict=True):
        shifted = shift(data, "rotation", severity)
        turned = np.asarray(shifted.images(shifted.x_test))[0]
        # Right of the middle turns to above it, which are lower row numbers.
        expected = 15 + 8 * np.array([-np.sin(angle), np.cos(angle)])
        np.testing.assert_allclose(center_of_mass(turned - low), expected, atol=0.05)


def test_pictures_move_by_the_stated_distance_each_in_its_own_direction():
    data, (low, _) = picture_data((20, 30), test=8 * np.stack([blob(20, 30, 10, 15)] * 12))
    shifted = shift(data, "translation", 5)
    centers = [center_of_mass(p - low) for p in np.asarray(shifted.images(shifted.x_test))]
    offsets = np.array(centers) - [10, 15]
    np.testing.assert_allclose(np.linalg.norm(offsets, axis=1), 0.16 * 20, atol=0.05)
    angles = np.arctan2(*offsets.T)
    assert np.ptp(angles) > np.pi


def test_features_move_together_by_training_deviations_and_constant_ones_stay():
    generator = np.random.default_rng(2)
    x = generator.normal(size=(60, 4)) * [1, 10, 0, 0.1] + [0, 5, 7, 0]
    data = make_dataset(x, np.arange(60) % 2, task="classification")
    deviation = data.original_inputs(data.x_train).std(axis=0)
    shifted = shift(data, "feature-shift", 4, seed=3)
    difference = np.asarray(
        shifted.original_inputs(shifted.x_test) - data.original_inputs(data.x_test)
    )
    np.testing.assert_allclose(difference, difference[:1].repeat(len(difference), 0), atol=1e-12)
    np.testing.assert_allclose(abs(difference[0]), 1.5 * deviation, atol=1e-12)
    assert difference[0, 2] == 0


def test_features_move_up_and_down():
    data = load_dataset("breast_cancer")
    difference = np.asarray(shift(data, "feature-shift", 1).x_test - data.x_test)[0]
    np.testing.assert_allclose(abs(difference), 0.25, atol=1e-12)
    assert 5 < np.sum(difference > 0) < 25


def test_feature_noise_has_the_stated_deviation():
    data = load_dataset("breast_cancer")
    noise = np.asarray(shift(data, "feature-noise", 5).x_test - data.x_test)
    assert noise.std() == pytest.approx(1.5, rel=4 / np.sqrt(2 * noise.size))


def test_sine_away_from_the_data_has_noisy_targets_of_the_true_function(sine):
    for severity in SEVERITIES:
        shifted = shift(sine, "away", severity)
        x = np.asarray(shifted.original_inputs(shifted.x_test))[:, 0]
        y = np.asarray(shifted.y_test) * sine.target_scale + sine.target_mean
        residual = y - np.sin(2 * x)
        assert residual.std() == pytest.approx(0.1, rel=4 / np.sqrt(2 * len(x)))
        # Independent of where the point is: the noise is not drawn with the numbers of the inputs.
        assert abs(np.corrcoef(residual, x)[0, 1]) < 4 / np.sqrt(len(x))
        assert abs(residual.mean()) < 4 * 0.1 / np.sqrt(len(x))


@pytest.mark.parametrize("name", ["sine", "moons", "wine"])
def test_points_away_lie_in_shells_that_touch_and_grow(name):
    data = load_dataset(name)
    x_train = np.asarray(data.x_train)
    largest = np.linalg.norm(x_train, axis=1).max()
    edges = [1.0, *SHIFTS["away"].levels]
    for severity in SEVERITIES:
        x = np.asarray(away_inputs(data, severity, num_points=400))
        assert x.shape == (400, data.num_features)
        radius = np.linalg.norm(x, axis=1) / largest
        inner, outer = edges[severity - 1], edges[severity]
        assert inner <= radius.min() < inner + 0.05 * (outer - inner)
        assert outer - 0.05 * (outer - inner) < radius.max() <= outer + ROUNDING
        nearest = np.linalg.norm(x[:, None] - x_train[None], axis=-1).min()
        assert nearest >= (inner - 1) * largest
        assert np.linalg.norm(np.mean(x / np.linalg.norm(x, axis=1, keepdims=True), axis=0)) < 0.25


@pytest.mark.parametrize("severity", [-1, 6])
def test_a_severity_out_of_range_is_refused(digits, sine, severity):
    with pytest.raises(ValueError, match=f"severity must lie between 0 and 5, but is {severity}"):
        shift(digits, "blur", severity)
    with pytest.raises(ValueError, match="severity must lie between 1 and 5"):
        away_inputs(sine, severity)


def test_a_shift_that_does_not_fit_the_data_is_refused_with_those_that_do(digits, wine, sine):
    with pytest.raises(ValueError, match=r"needs pictures, but 'wine' is not.*feature-shift"):
        shift(wine, "rotation", 1)
    with pytest.raises(ValueError, match=r"needs data that are no pictures.*rotation"):
        shift(digits, "feature-noise", 1)
    with pytest.raises(ValueError, match=r"true function.*away_inputs"):
        shift(wine, "away", 1)
    with pytest.raises(ValueError, match="unknown shift 'rotations': did you mean rotation"):
        shift(digits, "rotations", 1)
    with pytest.raises(ValueError, match=r"no pictures.*hold_out_classes"):
        away_inputs(digits, 1)
    with pytest.raises(ValueError, match="seed must be at least 0"):
        shift(digits, "noise", 1, seed=-1)
    with pytest.raises(ValueError, match="num_points must be at least 1"):
        away_inputs(sine, 1, num_points=0)


def test_a_users_own_data_named_sine_do_not_pass_for_the_synthetic_ones():
    x = np.random.default_rng(0).normal(size=(30, 1))
    mine = make_dataset(x, x[:, 0], task="regression", name="sine")
    with pytest.raises(ValueError, match="true function"):
        shift(mine, "away", 1)


def test_every_shift_has_five_growing_levels_and_data_that_it_fits():
    for kind, info in SHIFTS.items():
        assert np.all(np.diff(info.levels) > 0)
        assert any(kind == fitting for _, fitting in FITTING)
        assert len(info.levels) == 5


UNSEEN = ["9", "5", "6", "7", "8"]


def test_held_out_classes_are_in_no_split_and_their_test_points_apart(digits):
    data, x_unseen = hold_out_classes(digits, UNSEEN)
    assert data.name == "digits/without-5-6-7-8-9"
    assert data.class_names == ("0", "1", "2", "3", "4")
    for split in ("train", "val", "test"):
        rows = np.asarray(getattr(digits, f"y_{split}")) < 5
        kept = np.asarray(digits.original_inputs(getattr(digits, f"x_{split}")))[rows]
        found = data.original_inputs(getattr(data, f"x_{split}"))
        np.testing.assert_allclose(found, kept, atol=ROUNDING)
        labels = np.asarray(getattr(digits, f"y_{split}"))[rows]
        np.testing.assert_array_equal(getattr(data, f"y_{split}"), labels)
    expected = np.asarray(digits.original_inputs(digits.x_test))[np.asarray(digits.y_test) >= 5]
    np.testing.assert_allclose(data.original_inputs(x_unseen), expected, atol=ROUNDING)
    assert data.image_shape == (8, 8)


def test_classes_held_out_of_the_middle_renumber_the_others(wine):
    data, x_unseen = hold_out_classes(wine, [wine.class_names[1]])
    assert data.class_names == (wine.class_names[0], wine.class_names[2])
    y = np.asarray(wine.y_test)
    np.testing.assert_array_equal(data.y_test, y[y != 1] // 2)
    assert len(x_unseen) == np.sum(y == 1)


@pytest.mark.parametrize("name", ["digits", "wine"])
def test_inputs_are_standardised_by_the_training_points_that_remain(name):
    original = load_dataset(name)
    data, _ = hold_out_classes(original, original.class_names[:1])
    x = np.asarray(data.x_train)
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=ROUNDING)
    spread = np.sqrt(np.mean(x**2)) if name == "digits" else x.std(axis=0)
    np.testing.assert_allclose(spread, 1, atol=ROUNDING)
    assert np.any(np.abs(np.asarray(data.x_mean - original.x_mean)) > 0.01)


def test_what_cannot_be_held_out_is_refused(digits, wine, sine):
    with pytest.raises(ValueError, match="unknown class '11'"):
        hold_out_classes(digits, ["11"])
    with pytest.raises(ValueError, match="at least two of the 3 classes of 'wine', but leaves 1"):
        hold_out_classes(wine, wine.class_names[:2])
    with pytest.raises(ValueError, match="but leaves 0"):
        hold_out_classes(wine, wine.class_names)
    with pytest.raises(ValueError, match="needs classes, but 'sine' is regression"):
        hold_out_classes(sine, ["y"])
    with pytest.raises(ValueError, match="list of class names, but is '56'"):
        hold_out_classes(digits, "56")
    with pytest.raises(ValueError, match=r"list of class names, but is \[\]"):
        hold_out_classes(digits, [])


def test_held_out_classes_without_test_points_are_refused(wine):
    rows = np.asarray(wine.y_test) != 0
    without = dataclasses.replace(wine, x_test=wine.x_test[rows], y_test=wine.y_test[rows])
    with pytest.raises(ValueError, match="x_test has no points of the held-out classes"):
        hold_out_classes(without, wine.class_names[:1])


def test_every_dataset_has_a_shift_that_fits():
    for name in DATASETS:
        data = load_dataset(name)
        kind = "blur" if data.image_shape else "feature-noise"
        assert moved(data, kind, 1).min() > 0
