"""Deep ensembles: their limits, their certificate, and what training says about itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from models import classification_data, regression_data, softmax
from scipy.optimize import minimize

import ntkbayes as nb
from ntkbayes._problem import Objective, training_set
from ntkbayes.ensembles import training
from ntkbayes.networks import Network
from ntkbayes.solvers import find_mode, softmax_hessian, solve_stationarity

NOISE = 0.3


def dense(width=512, activation="relu"):
    return nb.dense_network(depth=2, width=width, bias_scale=0.3, activation=activation)


class BareNetwork(Network):
    """A network of which only ``init`` and ``apply`` may be used."""

    inside: Network

    def init(self, key, *, num_features, num_outputs):
        return self.inside.init(key, num_features=num_features, num_outputs=num_outputs)

    def apply(self, params, x):
        return self.inside.apply(params, x)

    def settings(self):
        return {}


def train_regression(network, *, seed=0, **settings):
    x, y, x_test = regression_data()
    settings = {"prior_precision": 1.0, "num_members": 2, **settings}
    key = jax.random.key(seed)
    ensemble = nb.deep_ensemble(network, nb.Gaussian(NOISE), x, y, key=key, **settings)
    return ensemble, np.asarray(
        ensemble.draw(key, x_test, num_draws=settings["num_members"]).latent
    )


def initial_functions(network, x, *, num_members, num_outputs, seed=0):
    keys = jax.random.split(jax.random.key(seed), num_members)
    params = [network.init(key, num_features=2, num_outputs=num_outputs) for key in keys]
    return np.stack([network.apply(member, x) for member in params])


def distance(a, b, start):
    """‖a − b‖ relative to ‖b − start‖, of each member."""
    axes = tuple(range(1, np.ndim(a)))
    return np.sqrt(np.sum((a - b) ** 2, axis=axes) / np.sum((b - start) ** 2, axis=axes))


def distance_to_regression_limit(network, num_members, **settings):
    """To theory 1.2 with each member's own f₀."""
    ensemble, trained = train_regression(network, num_members=num_members, **settings)
    x, y, x_test = regression_data()
    f0, f0_test = (
        initial_functions(network, points, num_members=num_members, num_outputs=1)[..., 0]
        for points in (x, x_test)
    )
    k = np.asarray(network.kernel(np.concatenate([x, x_test])).ntk)
    n = len(x)
    a = np.linalg.solve(k[:n, :n] + NOISE * np.eye(n), (np.asarray(y) - f0).T)
    limit = f0_test + (k[n:, :n] @ a).T
    return ensemble, distance(trained[..., 0], limit, f0_test)


def distance_to_classification_limit(network, num_members, **settings):
    """To theory 1.4 with each member's own f₀, at the training inputs."""
    x, y, _ = classification_data()
    likelihood, key = nb.Categorical(3), jax.random.key(0)
    ensemble = nb.deep_ensemble(
        network, likelihood, x, y, prior_precision=0.5, key=key, num_members=num_members, **settings
    )
    f0 = initial_functions(network, x, num_members=num_members, num_outputs=3)
    k, targets = network.kernel(x).ntk / 0.5, likelihood.targets(y)
    mode = find_mode(k, likelihood, targets, tolerance=1e-8).a
    hessian = softmax_hessian(k, jax.nn.softmax(k @ mode))
    solution = solve_stationarity(
        k,
        likelihood,
        targets,
        jnp.asarray(f0),
        jnp.zeros_like(f0),
        mode,
        hessian,
        tolerance=1e-8,
        num_slots=1,
    )
    trained = np.asarray(ensemble.sample(key, x, num_draws=num_members))
    return ensemble, distance(trained, f0 + np.asarray(k @ solution.a), f0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "distance_to_limit", [distance_to_regression_limit, distance_to_classification_limit]
)
def test_wide_relu_networks_end_at_the_limit_of_their_own_initial_function(distance_to_limit):
    """O(width^-1/2): 1 to 3.5 times that was measured, and four seeds leave a factor of 2."""
    (_, narrow), (ensemble, wide) = (
        distance_to_limit(dense(width), 4, tolerance=1e-2) for width in (64, 1024)
    )
    assert ensemble.converged.all()
    assert wide.max() < 4 / 1024**0.5
    assert 2 < np.linalg.norm(narrow) / np.linalg.norm(wide) < 8


def test_wide_erf_networks_end_at_the_limit_of_their_own_initial_function():
    _, distances = distance_to_regression_limit(dense(512, "erf"), 4, tolerance=1e-3)
    assert distances.max() < 4 / 512**0.5


def test_networks_that_cannot_move_keep_their_initial_function():
    """λ = 1e8: what is left is ``network.init`` of the split key."""
    network = dense(32)
    _, trained = train_regression(network, num_members=3, prior_precision=1e8)
    x_test = regression_data()[2]
    f0 = initial_functions(network, x_test, num_members=3, num_outputs=1)
    np.testing.assert_allclose(trained, f0, atol=1e-5)


def test_training_finds_scipys_minimum_of_the_objective_written_out():
    """Smooth and narrow, so that SciPy's L-BFGS ends at the same minimum to many digits."""
    network = dense(32, "erf")
    ensemble, trained = train_regression(network, num_members=1, tolerance=1e-6)
    x, y, x_test = regression_data()
    key = jax.random.split(jax.random.key(0), 1)[0]
    start, unravel = ravel_pytree(network.init(key, num_features=2, num_outputs=1))

    def objective(flat):
        error = y - network.apply(unravel(flat), x)[:, 0]
        return jnp.sum(error**2) / (2 * NOISE) + 0.5 * jnp.sum((flat - start) ** 2)

    found = minimize(
        jax.jit(jax.value_and_grad(objective)),
        start,
        jac=True,
        method="L-BFGS-B",
        options={"ftol": 1e-15, "gtol": 1e-8, "maxiter": 5000, "maxfun": 5000},
    )
    np.testing.assert_allclose(ravel_pytree(ensemble.params)[0], found.x, atol=1e-5)
    expected = network.apply(unravel(jnp.asarray(found.x)), x_test)
    np.testing.assert_allclose(trained[0], expected, atol=1e-5)


def test_the_gradient_vanishes_at_the_minimum_of_a_smooth_network():
    ensemble, _ = train_regression(dense(512, "erf"), tolerance=1e-6)
    assert ensemble.gradient_norm.max() < 1e-6


def test_beside_the_kinks_of_relu_the_gradient_stays_and_its_mean_vanishes():
    ensemble, _ = train_regression(dense(), tolerance=1e-2)
    assert ensemble.converged.all()
    assert ensemble.gradient_norm.min() > 5 * ensemble.residual.max()


@pytest.mark.parametrize("activation", ["relu", "erf"])
def test_converged_members_predict_what_many_more_steps_would(activation):
    network, x_test = dense(activation=activation), regression_data()[2]
    ensemble, trained = train_regression(network)
    longer, limit = train_regression(network, tolerance=1e-3 if activation == "erf" else 5e-3)
    assert ensemble.converged.all()
    assert (longer.num_steps > ensemble.num_steps).all()
    f0 = initial_functions(network, x_test, num_members=2, num_outputs=1)
    assert distance(trained, limit, f0).max() < ensemble.tolerance


def test_unfinished_training_warns_where_it_was_called_and_is_recorded():
    x_test = regression_data()[2]
    with pytest.warns(UserWarning, match="2 of 2 networks are still in training after 25") as seen:
        ensemble, _ = train_regression(dense(32), max_steps=25, tolerance=1e-3)
    assert seen[0].filename == __file__
    draws = ensemble.draw(jax.random.key(0), x_test, num_draws=2)
    assert not draws.stats["converged"].any()
    assert (draws.stats["residual"] > ensemble.tolerance).all()
    assert (draws.stats["num_steps"] == 25).all()
    assert ensemble.settings["num_converged"] == 0


def test_members_are_judged_one_by_one():
    """After 50 steps the first of these three is within the tolerance, and others are not."""
    ensemble, _ = train_regression(dense(), num_members=3, tolerance=1e-2)
    assert len(set(np.asarray(ensemble.num_steps))) > 1
    cut = int(ensemble.num_steps.min())
    with pytest.warns(UserWarning, match="are still in training"):
        shorter, _ = train_regression(dense(), num_members=3, tolerance=1e-2, max_steps=cut)
    np.testing.assert_array_equal(shorter.converged, ensemble.num_steps <= cut)


def test_a_gradient_small_against_the_first_is_no_convergence():
    """λ = 1e-4: stiff directions are fitted long before the others have moved."""
    precision, network = 1e-4, dense(512, "erf")
    with pytest.warns(UserWarning, match="2 of 2"):
        ensemble, _ = train_regression(network, prior_precision=precision, max_steps=100)
    x, y, _ = regression_data()
    for i, key in enumerate(jax.random.split(jax.random.key(0), 2)):
        start, unravel = ravel_pytree(network.init(key, num_features=2, num_outputs=1))

        def fit(flat, unravel=unravel):
            return jnp.sum((y - network.apply(unravel(flat), x)[:, 0]) ** 2) / (2 * NOISE)

        trained = ravel_pytree(jax.tree.map(lambda leaf, i=i: leaf[i], ensemble.params))[0]
        last = jax.grad(fit)(trained) + precision * (trained - start)
        assert jnp.linalg.norm(last) < 1e-2 * jnp.linalg.norm(jax.grad(fit)(start))
        relative = jnp.linalg.norm(last) / (precision * jnp.linalg.norm(trained - start))
        np.testing.assert_allclose(ensemble.gradient_norm[i], relative, rtol=1e-6)
        assert not ensemble.converged[i]


def test_the_step_follows_the_largest_eigenvalue_of_the_curvature_written_out():
    """JᵀWJ + λ with W = diag(p) − ppᵀ at very unequal points; the power method is from below."""
    x, y, _ = classification_data()
    likelihood, network, precision = nb.Categorical(3), dense(32), 0.5
    params = network.init(jax.random.key(0), num_features=2, num_outputs=3)
    flat, unravel = ravel_pytree(jax.tree.map(lambda leaf: 2 * leaf, params))
    f = network.apply(unravel(flat), x)
    jacobian = jax.jacobian(lambda theta: network.apply(unravel(theta), x).ravel())(flat)
    w = np.zeros((f.size, f.size))
    for i, p in enumerate(softmax(f)):
        w[3 * i : 3 * i + 3, 3 * i : 3 * i + 3] = np.diag(p) - np.outer(p, p)
    expected = np.linalg.eigvals(jacobian @ jacobian.T @ w).real.max() + precision
    objective = Objective(
        network, likelihood, training_set(likelihood, x, y), jnp.asarray(precision), params
    )
    start = jax.random.normal(jax.random.key(1), f.shape)
    _, found = training._largest_curvature(objective, unravel(flat), start, 60)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("too_long", [8.0, 1e3])
def test_steps_that_are_too_long_are_taken_back(too_long, monkeypatch):
    network = dense(512, "erf")
    _, expected = train_regression(network, tolerance=1e-3)
    monkeypatch.setattr(training, "SAFETY", too_long)
    ensemble, trained = train_regression(network, tolerance=1e-3)
    assert ensemble.converged.all()
    np.testing.assert_allclose(trained, expected, atol=2e-3)


def test_training_that_lowers_nothing_is_an_error(monkeypatch):
    monkeypatch.setattr(training, "SAFETY", 1e3)
    with pytest.raises(ValueError, match="did not lower the objective within 25 steps"):
        train_regression(dense(32), max_steps=25)


def test_only_init_and_apply_of_the_network_are_used():
    network = dense(32)
    _, expected = train_regression(network)
    _, trained = train_regression(BareNetwork(network))
    np.testing.assert_allclose(trained, expected, rtol=1e-12)


def test_unregularized_training_on_smoothed_labels_ends_at_their_logarithms():
    """Theory 1.5, at the training inputs: log Y up to a shift of each row."""
    x, y, _ = classification_data(num_train=4)
    targets = 0.8 * jnp.eye(3)[y] + 0.2 / 3
    key = jax.random.key(0)
    ensemble = nb.deep_ensemble(
        dense(activation="erf"),
        nb.Categorical(3),
        x,
        targets,
        prior_precision=0,
        key=key,
        num_members=1,
        tolerance=1e-5,
    )
    log_p = jax.nn.log_softmax(ensemble.sample(key, x, num_draws=1)[0])
    np.testing.assert_allclose(log_p, np.log(targets), atol=1e-3)


def test_single_precision_stays_and_agrees():
    x, y, x_test = regression_data()
    ensemble = nb.deep_ensemble(
        dense(32, "erf"),
        nb.Gaussian(NOISE),
        x.astype(jnp.float32),
        y,
        prior_precision=1.0,
        key=jax.random.key(0),
        num_members=2,
        tolerance=1e-3,
    )
    trained = ensemble.sample(jax.random.key(0), x_test, num_draws=2)
    assert trained.dtype == jnp.float32
    _, expected = train_regression(dense(32, "erf"), tolerance=1e-3)
    np.testing.assert_allclose(trained, expected, atol=2e-3)


def test_progress_rises_to_one():
    seen = []
    train_regression(dense(32), progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


@pytest.mark.parametrize(
    ("num_draws", "message"),
    [
        (6, "num_draws is 6, but the ensemble has 5 members"),
        (-1, "num_draws must be at least 1, but is -1"),
    ],
)
def test_draws_that_there_are_not_are_refused(num_draws, message):
    ensemble, _ = train_regression(dense(32), num_members=5)
    with pytest.raises(ValueError, match=message):
        ensemble.sample(jax.random.key(0), regression_data()[0], num_draws=num_draws)


def test_labels_without_a_finite_minimum_are_refused():
    x, y, _ = classification_data()
    with pytest.raises(ValueError, match="no finite solution"):
        nb.deep_ensemble(
            dense(32), nb.Categorical(3), x, y, prior_precision=0, key=jax.random.key(0)
        )


def test_a_network_that_is_not_finite_is_refused():
    class Broken(BareNetwork):
        def apply(self, params, x):
            return jnp.nan * self.inside.apply(params, x)

    with pytest.raises(ValueError, match="objective is not finite"):
        train_regression(Broken(dense(32)))
