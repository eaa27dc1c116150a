"""Predictions of other tools: what they may hand over, and what is refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from simple_predictors import Normal, Numbered

import ntkbayes as nb
from ntkbayes.datasets import load_dataset
from ntkbayes.evaluation import (
    compare,
    from_draws,
    from_normals,
    from_probabilities,
    load_predictions,
    observations,
    pooled,
    predict,
    probabilities,
    save_predictions,
)
from ntkbayes.likelihoods import Bernoulli, Categorical, Gaussian


@pytest.fixture(scope="module")
def iris():
    return load_dataset("iris")


@pytest.fixture(scope="module")
def sine():
    return load_dataset("sine")


@pytest.fixture
def key():
    return jax.random.key(0)


LABELS = np.array([0, 2, 1, 1])


def draws(*shape, seed=0, dtype=float):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def test_draws_of_another_tool_need_no_training_data(key):
    latent = draws(6, 4, 3)
    tree = from_draws(
        latent, Categorical(3), LABELS, key=key, method="theirs", num_chains=2, x=draws(4, 2, 2),
        obs_ids=["a", "b", "c", "d"], output_names=["cat", "dog", "cow"], dataset="pets",
        split="train", stats={"diverging": np.zeros(6, bool)}, settings={"lr": np.float32(0.5)},
        is_posterior=True,
    )  # fmt: skip
    np.testing.assert_array_equal(tree["posterior/latent"], latent.reshape(2, 3, 4, 3))
    expected = scipy.special.log_softmax(latent, axis=-1)[:, np.arange(4), LABELS]
    np.testing.assert_allclose(pooled(tree, "log_likelihood/y"), expected, rtol=1e-12)
    assert tree["posterior/output"].values.tolist() == ["cat", "dog", "cow"]
    assert tree["observed_data/obs_id"].values.tolist() == ["a", "b", "c", "d"]
    assert tree["constant_data/x"].shape == (4, 4)
    assert tree["sample_stats/diverging"].shape == (2, 3)
    attrs = {"method": "theirs", "dataset": "pets", "split": "train", "num_chains": 2}
    assert attrs | {"is_posterior": 1, "settings": '{"lr": 0.5}'} == {
        name: tree.attrs[name] for name in (*attrs, "is_posterior", "settings")
    }


def test_a_chain_dimension_says_how_many_chains_there_are(key):
    latent = draws(2, 3, 4, 3)
    chained = from_draws(latent, Categorical(3), LABELS, key=key, method="a")
    flat = from_draws(
        latent.reshape(6, 4, 3), Categorical(3), LABELS, key=key, method="a", num_chains=2
    )
    assert chained.identical(flat)
    assert "constant_data" not in flat.children


def test_predict_makes_the_tree_that_its_draws_make(iris, key):
    predictor = Numbered(Categorical(3), chains=2)
    tree = predict(predictor, iris, key=key, num_draws=4)
    made = predictor.draw(None, iris.x_test, num_draws=4)
    again = from_draws(
        made.latent, predictor.likelihood, iris.y_test, key=jax.random.split(key)[1],
        method="numbered", x=iris.x_test, num_chains=2, output_names=iris.class_names,
        dataset="iris", stats=made.stats, settings=predictor.settings,
    )  # fmt: skip
    features = {"feature": list(iris.feature_names)}
    again["constant_data"] = again["constant_data"].to_dataset().assign_coords(features)
    assert again.identical(tree)


def test_half_precision_is_kept_exactly_in_single_precision(key):
    latent = draws(5, 4, 3, dtype=np.float16)
    tree = from_draws(latent, Categorical(3), LABELS, key=key, method="a")
    assert tree["posterior/latent"].dtype == np.float32
    np.testing.assert_array_equal(pooled(tree), latent)


@pytest.mark.parametrize("shape", [(4, 3), (6, 4, 3), (2, 3, 4, 3)])
def test_probabilities_of_draws_and_chains_come_back(key, shape):
    p = np.random.default_rng(0).dirichlet(np.ones(3), size=shape[:-1])
    tree = from_probabilities(p, LABELS, key=key, method="forest", output_names=list("abc"))
    np.testing.assert_array_equal(probabilities(tree), p.reshape(-1, 4, 3))
    logarithms = scipy.special.softmax(pooled(tree), axis=-1)
    np.testing.assert_allclose(logarithms, p.reshape(-1, 4, 3), rtol=1e-14)
    expected = np.log(p.reshape(-1, 4, 3)[:, np.arange(4), LABELS])
    np.testing.assert_allclose(pooled(tree, "log_likelihood/y"), expected, rtol=1e-12)
    assert tree.attrs["num_chains"] == (2 if len(shape) == 4 else 1)
    assert json.loads(tree.attrs["likelihood"])["name"] == "Categorical"
    assert tree["posterior/output"].values.tolist() == ["a", "b", "c"]


PRINTED = np.array([[0.333, 0.333, 0.333], [0.5, 0.3, 0.2], [0.667, 0.334, 0.0], [0.1, 0.8, 0.1]])


@pytest.mark.filterwarnings("ignore:probabilities holds")
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_given_probabilities_are_kept_to_the_last_bit_on_disk_too(key, dtype, tmp_path):
    p = PRINTED.astype(dtype)
    tree = from_probabilities(p, LABELS, key=key, method="printed")
    save_predictions(tree, tmp_path / "p.nc")
    for kept in (tree, load_predictions(tmp_path / "p.nc"), tree.isel(obs_id=slice(0, 4))):
        np.testing.assert_array_equal(probabilities(kept)[0], p)  # not divided by their sum
        expected = np.log(p[np.arange(4), LABELS].astype(float))
        np.testing.assert_array_equal(pooled(kept, "log_likelihood/y")[0], expected)
    table = compare({"printed": tree}, reference=None).set_index("metric")["value"]
    brier = np.mean(
        [(q**2).sum() - 2 * q[y] + 1 for q, y in zip(p.astype(float), LABELS, strict=True)]
    )
    assert table["brier"] == pytest.approx(brier, rel=1e-14)


def test_what_rounding_leaves_outside_of_zero_and_one_is_set_to_the_end(key):
    above = np.nextafter(1.0, 2)
    p = np.array([[1 - above, above], [1.0005, -0.0005], [0.4, 0.6]])
    with pytest.warns(UserWarning, match=r"holds zeros \(2 of 6 numbers\)"):
        tree = from_probabilities(p, np.array([1, 0, 0]), key=key, method="calibrated")
    np.testing.assert_array_equal(probabilities(tree)[0], [[0, 1], [1, 0], [0.4, 0.6]])
    table = compare({"calibrated": tree}, reference=None).set_index("metric")["value"]
    assert table["nll"] == pytest.approx(-np.log(0.4) / 3)
    for wrong in ([[-0.002, 1.002]], [[1.002, -0.002]]):
        with pytest.raises(ValueError, match="must be nonnegative, but 1 of 3"):
            from_probabilities(np.array([*wrong, *p[1:]]), LABELS[:3] % 2, key=key, method="m")


@pytest.mark.parametrize(("dtype", "logarithm"), [(np.float64, -708), (np.float32, -87)])
def test_zeros_become_the_smallest_number_and_are_reported(key, dtype, logarithm):
    p = np.array([[1, 0, 0], [0.5, 0.5, 0], [0, 1, 0], [1, 0, 0]], dtype=dtype)
    with pytest.warns(
        UserWarning, match=rf"zeros \(7 of 12 numbers\), .* likelihood: .*{logarithm} nat"
    ):
        tree = from_probabilities(p, LABELS, key=key, method="certain")
    np.testing.assert_array_equal(probabilities(tree)[0], p)
    scores = np.log(np.finfo(dtype).tiny) * np.array([0, 1, 0, 1])
    np.testing.assert_allclose(pooled(tree, "log_likelihood/y")[0], scores, rtol=1e-6)


@pytest.mark.parametrize(
    ("p", "message"),
    [
        ([[0.5, 0.5, 0.0]] * 3 + [[0.6, 0.6, -0.2]], "must be nonnegative, but 1 of 4 do not.*"
         r"draw 0, point 3: \[ 0.6  0.6 -0.2\]"),
        ([[0.5, 0.3, 0.2], [0.5, 0.5, 0.1]] * 2, "must sum to 1.*2 of 4.*draw 0, point 1"),
        ([[0.5, np.nan, 0.5]] * 4, r"probabilities must be finite.*\(0, 0, 1\)"),
        ([[1, 0, 0]] * 4, "probabilities must hold real numbers, but has dtype int64"),
        ([[0.5]] * 4, r"two or more classes.*\(1, 4, 1\)"),
        ([0.5] * 4, r"must have a column for each class, but has shape \(4,\)"),
        (np.zeros((0, 4, 3)), r"probabilities is empty \(shape \(0, 4, 3\)\)"),
    ],
)  # fmt: skip
def test_what_is_no_distribution_over_classes_is_refused(key, p, message):
    with pytest.raises(ValueError, match=message):
        from_probabilities(np.array(p), LABELS, key=key, method="theirs")


GAUSSIAN = (draws(6, 4, 1), Gaussian(0.1), draws(4))
CLASSES = (draws(6, 4, 3), Categorical(3), LABELS)


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        ((draws(6, 5, 3), *CLASSES[1:]), {}, r"latent must have shape \(s, 4, 3\).*\(6, 5, 3\)"),
        ((draws(6, 4), *CLASSES[1:]), {}, r"shape \(draws, 4, 3\), or .*has \(6, 4\)"),
        ((draws(0, 4, 3), *CLASSES[1:]), {}, "latent is empty"),
        ((np.ones((6, 4, 3), int), *CLASSES[1:]), {}, "latent must hold real numbers.*int64"),
        ((np.full((6, 4, 3), np.inf), *CLASSES[1:]), {}, r"latent must be finite.*\(0, 0, 0\)"),
        ((*CLASSES[:2], LABELS.astype(float)), {}, "y must hold integer class indices.*float64"),
        ((*CLASSES[:2], np.array([0, 1, 2, 3])), {}, "class indices 0 to 2, but holds 0 to 3"),
        ((*CLASSES[:2], np.array([0, 1, 2, -1])), {}, "class indices 0 to 2, but holds -1 to 2"),
        ((draws(6, 4, 1), Bernoulli(), np.array([0, 1, 2, 1])), {}, "class indices 0 to 1"),
        ((draws(6, 4, 1), Bernoulli(), np.array([0.0, 1, 1, 1])), {}, "integer class indices"),
        ((*CLASSES[:2], LABELS[:0]), {}, "y is empty"),
        ((*GAUSSIAN[:2], LABELS), {}, "real values with a Gaussian likelihood"),
        ((*GAUSSIAN[:2], np.array([0, 1, np.nan, 1])), {}, "y must be finite"),
        (CLASSES, {"num_chains": 4}, "multiple of the 4 chains, but is 6; 4 would do"),
        (CLASSES, {"num_chains": 0}, "num_chains must be at least 1, but is 0"),
        (
            (draws(2, 3, 4, 3), *CLASSES[1:]),
            {"num_chains": 3},
            "num_chains must be .* of latent, 2, but is 3",
        ),
        (CLASSES, {"x": draws(3, 2)}, r"x must have one row for each of the 4 points.*\(3, 2\)"),
        (CLASSES, {"obs_ids": [1, 2, 2, 3]}, "obs_ids must differ, but 2 occurs"),
        (CLASSES, {"obs_ids": [1, 2]}, r"obs_ids must hold .* 4 points, but has shape \(2,\)"),
        (CLASSES, {"obs_ids": draws(4)}, "obs_ids must hold a whole number or text.*float64"),
        (
            CLASSES,
            {"output_names": ["a", "b"]},
            "output_names .* per class or target, 3, but holds 2: a, b",
        ),
        (CLASSES, {"output_names": ["a", "b", "a"]}, "output_names must differ, but 'a'"),
        (CLASSES, {"split": "ood"}, "unknown split 'ood'"),
        (CLASSES, {"stats": {"energy": draws(5)}}, r"stats\['energy'\] .*\(6,\).*has shape \(5,\)"),
        (CLASSES, {"closed_form": (draws(4, 3), np.ones((4, 3)))}, "is for a Gaussian likelihood"),
        (GAUSSIAN, {"closed_form": (draws(4), np.ones((4, 1)))}, r"mean must have shape \(4, 1\)"),
        (GAUSSIAN, {"closed_form": (draws(4, 1), -np.ones((4, 1)))}, "variance must be nonneg"),
    ],
)
def test_draws_that_do_not_fit_together_are_refused(key, arguments, settings, message):
    with pytest.raises(ValueError, match=message):
        from_draws(*arguments, key=key, method="theirs", **settings)


def test_class_probabilities_of_a_regression_are_refused(sine, key):
    tree = predict(Normal(Gaussian(0.3)), sine, key=key, num_draws=2)
    with pytest.raises(ValueError, match="need a classification task, but sine is regression"):
        probabilities(tree)


def test_one_logit_predicts_what_two_logits_of_the_same_difference_do():
    data = load_dataset("moons", seed=0, num_train=20)
    logit = jax.random.normal(jax.random.key(0), (6, len(data.x_test), 1))
    two = jnp.concatenate([-0.5 * logit, 0.5 * logit], axis=-1)
    trees = [
        from_draws(latent, likelihood, data.y_test, key=jax.random.key(1), method="mine")
        for likelihood, latent in ((Bernoulli(), logit), (Categorical(2), two))
    ]
    np.testing.assert_allclose(*(probabilities(tree) for tree in trees), atol=1e-15)
    np.testing.assert_allclose(*(pooled(t, "log_likelihood/y") for t in trees), atol=1e-14)


@pytest.mark.parametrize(
    "likelihood", [Categorical(2), Bernoulli(), Gaussian(0.1), Gaussian(0.1, 2)]
)
def test_a_single_point_keeps_its_dimension(likelihood, key):
    c = likelihood.num_outputs
    y = np.ones((1, c)) if isinstance(likelihood, Gaussian) else np.array([1])
    tree = from_draws(draws(5, 1, c), likelihood, y, key=key, method="one")
    for path in ("posterior_predictive/y", "log_likelihood/y", "posterior/latent"):
        assert tree[path].sizes["obs_id"] == 1
    assert observations(tree).shape == y.shape
    table = compare({"one": tree, "two": tree}, reference="one").set_index("metric")["value"]
    # Of one point there is no pair of a right and a wrong one.
    assert np.isfinite(table.drop("error_auroc", errors="ignore")).all()


# Normal predictive distributions


def normals(*shape):
    generator = np.random.default_rng(1)
    return generator.normal(size=shape), generator.uniform(0.1, 2.0, size=shape)


@pytest.mark.parametrize("shape", [(4,), (5, 4), (2, 5, 4)])
@pytest.mark.parametrize("outputs", [(), (3,)])
def test_normals_of_members_and_chains_are_mixtures(key, shape, outputs):
    means, variances = normals(*shape, *outputs)
    y = draws(4, *outputs)
    tree = from_normals(means, variances, y, key=key, method="ensemble")
    flat = [v.reshape(-1, 4, *(outputs or (1,))) for v in (means, variances)]
    density = scipy.stats.norm.logpdf(y.reshape(4, -1), flat[0], np.sqrt(flat[1])).sum(axis=-1)
    np.testing.assert_allclose(pooled(tree, "log_likelihood/y"), density, rtol=1e-12)
    table = compare({"ensemble": tree}, reference=None).set_index("metric")["value"]
    nll = -np.mean(scipy.special.logsumexp(density, axis=0) - np.log(len(density)))
    assert table["nll"] == pytest.approx(nll, rel=1e-10)
    assert table["rmse"] == pytest.approx(
        np.sqrt(np.mean((flat[0].mean(axis=0) - y.reshape(4, -1)) ** 2))
    )
    expected = np.sqrt(np.mean(flat[1].mean(axis=0) + flat[0].var(axis=0)))
    assert table["sharpness"] == pytest.approx(expected)
    assert tree.attrs["num_chains"] == (2 if len(shape) == 3 else 1)


def test_normals_of_one_common_variance_score_as_draws_of_that_noise(key, tmp_path):
    means, y = draws(6, 40), draws(40, seed=3)
    own = from_normals(means, np.full((6, 40), 0.3), y, key=key, method="m")
    common = from_draws(means[..., None], Gaussian(0.3), y, key=key, method="m")
    save_predictions(own, tmp_path / "own.nc")
    for tree in (own, load_predictions(tmp_path / "own.nc")):
        a, b = (
            compare({"m": t}, reference=None).set_index("metric")["value"] for t in (tree, common)
        )
        assert set(a.index) == set(b.index)
        for metric in a.index:
            if metric != "energy_score":  # of draws, in another order
                assert a[metric] == pytest.approx(b[metric], rel=1e-9), metric


def test_new_observations_of_normals_have_their_moments(key):
    means, variances = normals(50, 4)
    tree = from_normals(
        np.repeat(means, 400, axis=0), np.repeat(variances, 400, axis=0), draws(4), key=key,
        method="m",
    )  # fmt: skip
    new = pooled(tree, "posterior_predictive/y")
    total = variances.mean(axis=0) + means.var(axis=0)
    np.testing.assert_allclose(new.mean(axis=0), means.mean(axis=0), atol=5 * np.sqrt(2 / 20_000))
    np.testing.assert_allclose(new.var(axis=0), total, rtol=0.06)


def test_normals_are_aligned_compared_and_made_conformal(key):
    means, variances = normals(5, 60)
    y, order = draws(60), np.random.default_rng(2).permutation(60)
    first = from_normals(means, variances, y, key=key, method="a", dataset="d")
    second = from_normals(
        means[:, order], variances[:, order], y[order], key=key, method="b", dataset="d",
        obs_ids=order,
    )  # fmt: skip
    table = compare({"a": first, "b": second}, reference="a")
    wide = table.pivot(index="metric", columns="method", values="value")
    assert wide.loc["wasserstein_1", "b"] == pytest.approx(0, abs=1e-12)
    assert wide.loc["crps", "a"] == pytest.approx(wide.loc["crps", "b"], rel=1e-12)
    val = from_normals(means, variances, y, key=key, method="a", dataset="d", split="val")
    found = nb.evaluation.conformal_intervals(val, first, level=0.9)
    assert np.mean(found.covered) >= 0.9  # of the points that it was calibrated by


@pytest.mark.parametrize(
    ("means", "variances", "message"),
    [
        (np.zeros((5, 4)), np.ones((5, 3)), "means and variances must have the same shape"),
        (np.zeros((5, 3)), np.ones((5, 3)), r"means must be shaped like y, \(4,\), or"),
        (np.zeros(4), np.zeros(4), "variances must be positive, but holds 0"),
        (np.zeros(4), -np.ones(4), "variances must be positive, but holds -1"),
        (np.full(4, np.nan), np.ones(4), "latent must be finite"),
        (np.zeros(4), np.full(4, np.inf), "variances must be finite"),
        (np.full(4, "a"), np.full(4, "b"), "means must hold real numbers"),
    ],
)
def test_normals_that_are_none_are_refused(key, means, variances, message):
    with pytest.raises(ValueError, match=message):
        from_normals(means, variances, np.zeros(4), key=key, method="m")


# One network, lists, and labels in other forms


def test_one_networks_logits_are_one_draw(key):
    logits = draws(4, 3)
    one = from_draws(logits, Categorical(3), LABELS, key=key, method="m")
    same = from_draws(logits[None], Categorical(3), LABELS, key=key, method="m")
    assert one.identical(same)


@pytest.mark.parametrize(("shape", "full"), [((4, 1), (1, 4, 1)), ((5, 4), (5, 4, 1))])
def test_a_regressions_draws_need_no_axis_of_outputs(key, shape, full):
    values = draws(*shape)
    short, long = (
        from_draws(v, Gaussian(0.1), draws(4), key=key, method="m")
        for v in (values, values.reshape(full))
    )
    assert short.identical(long)


def test_lists_are_the_arrays_they_hold(key):
    p = [[0.2, 0.3, 0.5]] * 4
    made = from_probabilities(p, LABELS.tolist(), key=key, method="m")
    assert made.identical(from_probabilities(np.array(p), LABELS, key=key, method="m"))
    logits = draws(2, 4, 3)
    made = from_draws(logits.tolist(), Categorical(3), LABELS.tolist(), key=key, method="m")
    assert made.identical(from_draws(logits, Categorical(3), LABELS, key=key, method="m"))


def test_a_tensor_that_records_gradients_is_its_numbers(key):
    class Tensor:
        """Stand in for a tensor, which refuses to be an array before it is detached."""

        def __init__(self, values):
            self.values = values

        def detach(self):
            return self

        def cpu(self):
            return self.values

    p = np.full((4, 3), 1 / 3)
    made = from_probabilities(Tensor(p), LABELS, key=key, method="m")
    assert made.identical(from_probabilities(p, LABELS, key=key, method="m"))


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.eye(3)[LABELS], r"pass y.argmax\(axis=1\) if its rows are one-hot"),
        (np.eye(3, dtype=int)[LABELS], r"pass y.argmax\(axis=1\)"),
        (LABELS[:, None], r"pass y\[:, 0\]"),
        (np.array(["a", "c", "b", "b"]), r"np.unique\(y, return_inverse=True\)\[1\]"),
        (LABELS.astype(float), r"use y.astype\(int\)"),
        (LABELS + 1, "y must hold class indices 0 to 2"),
    ],
)
def test_labels_in_another_form_say_how_to_bring_them(key, y, message):
    with pytest.raises(ValueError, match=message):
        from_probabilities(np.full((4, 3), 1 / 3), y, key=key, method="m")


def test_probabilities_of_class_one_alone_say_what_to_pass(key):
    with pytest.raises(ValueError, match=r"pass np.stack\(\[1 - p, p\], axis=-1\)"):
        from_probabilities(np.full(4, 0.5), LABELS % 2, key=key, method="m")
