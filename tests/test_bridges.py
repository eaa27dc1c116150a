"""The recipes for other tools' predictions: each block of the page runs where its tool is there."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest
import scipy.special
import scipy.stats

import ntkbayes as nb

PAGE = Path(__file__).parents[1] / "docs" / "other_tools.md"
SECTIONS = {
    title: re.findall(r"```python\n(.*?)```", body, re.DOTALL)
    for title, body in re.findall(
        r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
}
RNG = np.random.default_rng(0)
X_TRAIN, X_TEST = RNG.normal(size=(60, 2)), RNG.normal(size=(30, 2))
M = len(X_TEST)


def labels(x):
    return (x[:, 0] + 0.3 * x[:, 1] > 0).astype(int)


def targets(x):
    return np.sin(x[:, 0]) + 0.3 * np.sin(1000 * x[:, 1])  # the latter is noise to anyone


def run(title, index, *, first=0, **known):
    """Run the blocks of a section from `first` to `index`; return the predictions of the last."""
    names = {
        "nb": nb, "np": np, "jax": jax, "key": jax.random.key(0), "x_train": X_TRAIN,
        "x_test": X_TEST, "y_train": labels(X_TRAIN), "y": labels(X_TEST),
        "targets_train": targets(X_TRAIN), "targets": targets(X_TEST),
    }  # fmt: skip
    (section,) = [blocks for name, blocks in SECTIONS.items() if name.startswith(title)]
    names |= known
    for block in section[first : index + 1]:
        exec(block, names)
    return names["theirs"], names


def value(tree, metric):
    table = nb.compare({"theirs": tree})
    return table.set_index("metric")["value"][metric]


@pytest.mark.filterwarnings("ignore:There are not enough devices")
def test_numpyro_draws_keep_their_chains_and_score_as_their_probabilities():
    import numpyro
    import numpyro.distributions as dist

    numpyro.set_host_device_count(1)
    with jax.numpy_rank_promotion("allow"):
        tree, names = run("NumPyro", 0, numpyro=numpyro, dist=dist)
    assert tree.attrs["num_chains"] == 2
    p = scipy.special.expit(np.asarray(names["f"])).mean(axis=(0, 1))
    likelihood = np.where(labels(X_TEST) == 1, p, 1 - p)
    assert value(tree, "nll") == pytest.approx(-np.log(likelihood).mean(), rel=1e-5)


@pytest.mark.filterwarnings("ignore:probabilities holds zeros")
def test_scikit_learns_columns_are_our_classes():
    tree, names = run("scikit-learn", 0)
    accuracy = names["forest"].score(X_TEST, labels(X_TEST))
    assert value(tree, "accuracy") == pytest.approx(accuracy)
    assert tree["posterior/output"].values.tolist() == ["0", "1"]
    members, names = run("scikit-learn", 1)
    assert members["posterior"].sizes["draw"] == 100
    np.testing.assert_allclose(
        nb.evaluation.probabilities(members).mean(axis=0), names["forest"].predict_proba(X_TEST)
    )


@pytest.mark.filterwarnings("ignore:probabilities holds zeros")
def test_scikit_learns_gp_scores_as_its_normals():
    tree, names = run("scikit-learn", 2)
    density = scipy.stats.norm.logpdf(targets(X_TEST), names["mean"], names["deviation"])
    assert value(tree, "nll") == pytest.approx(-density.mean())


def test_a_deep_ensemble_of_means_and_variances_scores_as_its_mixture():
    means, variances = RNG.normal(size=(5, M)), RNG.uniform(0.1, 1, size=(5, M))
    tree, _ = run("Networks that predict", 0, means=means, variances=variances)
    density = scipy.stats.norm.pdf(targets(X_TEST), means, np.sqrt(variances)).mean(axis=0)
    assert value(tree, "nll") == pytest.approx(-np.log(density).mean())


def test_raw_draws_of_members_are_chains():
    raw = RNG.normal(size=(3, 4, M, 2))
    tree, _ = run("BDE", 0, raw=raw)
    assert (tree.attrs["num_chains"], tree["posterior"].sizes["draw"]) == (3, 4)
    density = scipy.stats.norm.pdf(targets(X_TEST), raw[..., 0], np.exp(raw[..., 1]))
    assert value(tree, "nll") == pytest.approx(-np.log(density.mean(axis=(0, 1))).mean())
    logits, _ = run("BDE", 1, raw=raw, logits=RNG.normal(size=(3, 4, M, 3)))
    assert logits["posterior"].sizes["output"] == 3


def test_samples_behind_the_points_are_brought_in_front():
    samples = RNG.dirichlet(np.ones(2), size=(M, 7))
    tree, _ = run("probly", 1, first=1, samples=samples)
    np.testing.assert_allclose(nb.evaluation.probabilities(tree), samples.swapaxes(0, 1))


def test_problys_samples_are_probabilities():
    torch, dropout = pytest.importorskip("torch"), pytest.importorskip("probly.method.dropout")
    network = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    model = dropout.dropout(network, p=0.25, predictor_type="logit_classifier")
    tree, names = run("probly", 1, model=model, x_test=torch.tensor(X_TEST, dtype=torch.float32))
    expected = np.asarray(names["samples"].detach()).swapaxes(0, 1)
    assert expected.shape == (50, M, 2)
    np.testing.assert_allclose(nb.evaluation.probabilities(tree), expected, rtol=1e-5)
    assert np.any(expected.std(axis=0) > 0.01)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")
def test_laplace_torchs_draws_are_probabilities():
    torch, laplace = pytest.importorskip("torch"), pytest.importorskip("laplace")
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    x = torch.tensor(X_TRAIN, dtype=torch.float32)
    data = torch.utils.data.TensorDataset(x, torch.tensor(labels(X_TRAIN)))
    tree, names = run(
        "laplace-torch", 0, Laplace=laplace.Laplace, network=network,
        loader=torch.utils.data.DataLoader(data, batch_size=60),
        x_test=torch.tensor(X_TEST, dtype=torch.float32),
    )  # fmt: skip
    many = names["la"].predictive_samples(names["x_test"], n_samples=20_000).numpy()
    draws = nb.evaluation.probabilities(tree)
    assert draws.shape == (100, M, 2)
    assert np.all(np.abs(draws.mean(0) - many.mean(0)) < 5 * many.std(0) / 10)
    expected = -np.log(draws.mean(0)[np.arange(M), labels(X_TEST)]).mean()
    assert value(tree, "nll") == pytest.approx(expected, rel=1e-5)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")
def test_laplace_torchs_regression_is_normal():
    torch, laplace = pytest.importorskip("torch"), pytest.importorskip("laplace")
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    x, y = (torch.tensor(a, dtype=torch.float32) for a in (X_TRAIN, targets(X_TRAIN)[:, None]))
    data = torch.utils.data.TensorDataset(x, y)
    la = laplace.Laplace(network, "regression", hessian_structure="full", sigma_noise=0.3)
    la.fit(torch.utils.data.DataLoader(data, batch_size=60))
    x_test = torch.tensor(X_TEST, dtype=torch.float32)
    tree, names = run("laplace-torch", 1, first=1, la=la, x_test=x_test)
    mean, variance = (np.asarray(names[name].detach()) for name in ("f_mean", "f_variance"))
    deviation = np.sqrt(variance[:, 0, 0] + 0.09)
    density = scipy.stats.norm.logpdf(targets(X_TEST), mean[:, 0], deviation)
    assert value(tree, "nll") == pytest.approx(-density.mean(), rel=1e-5)


def test_every_recipe_is_read_by_a_test():
    """Blocks are run by position: a new one needs a test of its own."""
    found = {re.split("[,:]", title)[0]: len(blocks) for title, blocks in SECTIONS.items()}
    assert found == {
        "NumPyro": 1,
        "scikit-learn": 3,
        "Networks that predict a mean and a variance": 1,
        "laplace-torch": 2,
        "BDE": 2,
        "probly": 2,
        "What can be done with them": 0,
    }
