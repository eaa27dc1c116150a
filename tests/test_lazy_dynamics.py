"""Networks in training and what they are compared with, against the definitions."""

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import LINEAR, classification_data

import ntkbayes as nb
from ntkbayes.lazy import CONDITIONS, Condition
from ntkbayes.lazy.dynamics import initial_networks, train_width
from ntkbayes.lazy.planning import make_plan
from ntkbayes.lazy.references import DualState, descend_linearized, infinite_width_at
from ntkbayes.lazy.steps import Schedule, make_schedule, stability_limit

X, Y, X_TEST = classification_data()
NETWORK = nb.dense_network(depth=1, width=16, activation="erf")
DECAY = 0.3
OBJECTIVES = {
    "regularized": Condition("", "", prior_precision=DECAY),
    "unregularized": Condition("", ""),
    "smoothed": Condition("", "", label_smoothing=0.2),
    "decay_to_zero": Condition("", "", prior_precision=DECAY, decay="zero"),
    "squared_error": Condition("", "", prior_precision=DECAY, loss="squared_error"),
    "squared_error_to_zero": Condition(
        "", "", prior_precision=DECAY, loss="squared_error", decay="zero"
    ),
}


def plan_of(network=NETWORK, conditions=OBJECTIVES, widths=(16,), **settings):
    settings = {"num_seeds": 2, "time": 1.0, "num_records": 3, "step": None} | settings
    return make_plan(
        network, X, Y, X_TEST, key=jax.random.key(0), conditions=conditions, widths=widths,
        num_kernel_points=4, **settings,
    )  # fmt: skip


def networks_of(plan, width=16):
    return initial_networks(
        plan.networks[width], plan.x_train, plan.x_test, num_outputs=3, num_seeds=plan.num_seeds,
        num_kernel_points=plan.num_kernel_points, key=jax.random.key(1),
    )  # fmt: skip


def first_seed(tree):
    return jax.tree.map(lambda leaf: leaf[0], tree)


def objective(condition, f, params, initial):
    """The definition, in a plain sum."""
    with jax.ensure_compile_time_eval():
        targets = np.asarray(condition.targets(Y, 3))
    if condition.loss == "squared_error":
        fit = 0.5 * jnp.sum((targets - f) ** 2) + 0.5 * f.size * math.log(2 * math.pi)
    else:
        fit = -jnp.sum(targets * jax.nn.log_softmax(f, axis=1))
    center = 0.0 if condition.decay == "zero" else 1.0
    moved = jax.tree.map(lambda a, b: jnp.sum((a - center * b) ** 2), params, initial)
    return fit + 0.5 * condition.prior_precision * sum(jax.tree.leaves(moved))


def descend_by_hand(function, condition, initial, step, num_steps):
    @jax.jit
    def one(params):
        gradient = jax.grad(lambda p: objective(condition, function(p, X), p, initial))(params)
        return jax.tree.map(lambda a, g: a - step * g, params, gradient)

    params = initial
    for _ in range(num_steps):
        params = one(params)
    return params


@pytest.mark.parametrize("name", OBJECTIVES)
def test_linearised_networks_descend_as_in_weight_space(name):
    """Theory: δ = Jᵀ b + γ θ₀ holds whatever the loss, and whatever weights decay to."""
    plan, condition = plan_of(), OBJECTIVES[name]
    networks, num_steps, step = networks_of(plan), 7, 0.05
    state = DualState(jnp.zeros((2, 7, 3)), jnp.zeros(()))
    count = jnp.asarray(num_steps)
    state = descend_linearized(
        networks.tangent, plan.problems[name], state, jnp.asarray(step), count
    )
    initial = first_seed(networks.params)

    def linear(params, x):
        delta = jax.tree.map(lambda a, b: a - b, params, initial)
        value, moved = jax.jvp(lambda p: networks.network.apply(p, x), (initial,), (delta,))
        return value + moved

    params = descend_by_hand(linear, condition, initial, step, num_steps)
    np.testing.assert_allclose(networks.tangent.test(state)[0], linear(params, X_TEST), atol=1e-12)
    np.testing.assert_allclose(networks.tangent.train(state)[0], linear(params, X), atol=1e-12)
    assert bool(state.gamma != 0) == (condition.decay == "zero")


@pytest.mark.parametrize("name", ["regularized", "decay_to_zero", "squared_error"])
def test_training_is_gradient_descent_and_every_measure_is_its_definition(name):
    plan, condition = plan_of(), OBJECTIVES[name]
    networks, schedule = networks_of(plan), Schedule(0.05, (0, 1, 6))
    records = train_width(
        networks, plan.problems[name], plan.infinite, schedule, name="the test's network"
    )
    initial, network = first_seed(networks.params), networks.network
    f0 = np.asarray(network.apply(initial, X_TEST))
    ntk0 = np.asarray(nb.empirical_ntk(network, initial, networks.x_subset))
    state = DualState(jnp.zeros((2, 7, 3)), jnp.zeros(()))
    for record, num_steps in zip(records, schedule.records, strict=True):
        params = descend_by_hand(network.apply, condition, initial, 0.05, num_steps)
        f, f_train = network.apply(params, X_TEST), network.apply(params, X)
        ntk = np.asarray(nb.empirical_ntk(network, params, networks.x_subset))
        centered = f_train - f_train.mean(axis=1, keepdims=True)
        moved, size = (
            [sum(float(jnp.sum(leaf**2)) for leaf in layer.values()) for layer in layers]
            for layers in (jax.tree.map(lambda a, b: a - b, params, initial), initial)
        )
        linear = np.asarray(networks.tangent.test(
            descend_linearized(
                networks.tangent, plan.problems[name], state, jnp.asarray(0.05),
                jnp.asarray(num_steps),
            )
        ))[0]  # fmt: skip
        expected = {
            ("ntk_change", "all"): np.linalg.norm(ntk - ntk0) / np.linalg.norm(ntk0),
            ("logit_norm", "all"): np.sqrt(np.mean(np.square(centered))),
            ("objective", "all"): objective(condition, f_train, params, initial),
            ("weight_movement", "1"): math.sqrt(moved[0] / size[0]),
            ("weight_movement", "2"): math.sqrt(moved[1] / size[1]),
            ("weight_movement", "all"): math.sqrt(sum(moved) / sum(size)),
            ("linearization_gap", "all"): math.nan
            if num_steps == 0
            else np.linalg.norm(f - linear) / np.linalg.norm(linear - f0),
        }
        assert record.time == pytest.approx(0.05 * num_steps)
        for which, value in expected.items():
            np.testing.assert_allclose(record.values[which][0], value, rtol=1e-9, atol=1e-12)
        if num_steps == 0:
            assert all(math.isnan(record.values[gap, "all"][0]) for gap in ("flow_gap",))


def test_a_linear_network_keeps_its_kernel_and_is_its_linearisation():
    conditions = {name: c for name, c in OBJECTIVES.items() if c.loss == "cross_entropy"}
    sweep = nb.lazy.width_sweep(
        lambda width: LINEAR, X, Y, X_TEST, key=jax.random.key(0), conditions=conditions,
        widths=(1,), num_seeds=2, time=1.0, num_records=3,
    )  # fmt: skip
    for measure in ("ntk_change", "linearization_gap"):
        values = sweep.table.loc[sweep.table["measure"] == measure, "value"].dropna()
        assert len(values) > 0
        assert values.max() < 1e-12


def test_eulers_error_falls_in_proportion_to_the_step():
    """The linear network is of infinite width: its distance to the flow is Euler's error alone."""
    gaps = []
    for step in (0.1, 0.05, 0.025):
        sweep = nb.lazy.width_sweep(
            lambda width: LINEAR, X, Y, X_TEST, key=jax.random.key(0),
            conditions={"regularized": OBJECTIVES["regularized"]}, widths=(1,), num_seeds=1,
            time=1.0, num_records=1, step=step,
        ).table  # fmt: skip
        gaps.append(sweep.query("measure == 'flow_gap' and time > 0")["value"].item())
    ratios = np.array(gaps[:-1]) / gaps[1:]
    np.testing.assert_allclose(ratios, 2.0, rtol=0.1)  # and not 1 or 4


def reference(name, times, f0_seed=3):
    plan = plan_of()
    f0 = jax.random.normal(jax.random.key(f0_seed), (2, 10, 3))
    functions = f0[:, :7], f0[:, 7:]
    return plan, f0, infinite_width_at(plan.infinite, plan.problems[name], *functions, times)


@pytest.mark.parametrize("name", ["regularized", "smoothed", "squared_error"])
def test_the_end_of_training_is_stationary(name):
    """Theory 1.1: λ b = s(f∞(X)), solved for b from what was predicted at the test points."""
    plan, _, _ = reference(name, [1.0])
    problem, infinite = plan.problems[name], plan.infinite
    at_train = eqx.tree_at(lambda i: i.ntk_test, infinite, infinite.ntk_train)
    f0 = jax.random.normal(jax.random.key(3), (2, 7, 3))
    (end,) = infinite_width_at(at_train, problem, f0, f0, [math.inf])
    b = np.linalg.solve(np.asarray(infinite.ntk_train), np.asarray(end - f0))
    score = jax.vmap(jax.vmap(problem.likelihood.score), in_axes=(None, 0))
    left = score(problem.train.targets, end) - problem.prior_precision * b
    np.testing.assert_allclose(left, 0.0, atol=2e-6)
    if name != "squared_error":  # the mean logit is never moved
        np.testing.assert_allclose(np.mean(end - f0, axis=2), 0.0, atol=1e-8)


def test_a_kernel_over_a_decay_that_overflows_is_named():
    plan = plan_of()
    large = eqx.tree_at(lambda i: i.ntk_train, plan.infinite, 1e308 * jnp.eye(7))
    f0 = jnp.zeros((2, 7, 3))
    with pytest.raises(ValueError, match=r"kernel over prior_precision = 0\.3, overflows float64"):
        infinite_width_at(large, plan.problems["regularized"], f0, f0[:, :3], [math.inf])


@pytest.mark.parametrize("name", ["regularized", "squared_error"])
def test_late_times_are_the_end_of_training(name):
    _, _, (late, end) = reference(name, [60.0, math.inf])
    np.testing.assert_allclose(late, end, atol=1e-4)


def test_squared_error_at_a_time_is_the_closed_form_in_dense_matrices():
    plan, f0, (found,) = reference("squared_error", [0.7])
    theta, cross = np.asarray(plan.infinite.ntk_train), np.asarray(plan.infinite.ntk_test)
    e, v = np.linalg.eigh(theta)
    moved = v @ np.diag(1 - np.exp(-0.7 * (e + DECAY))) @ v.T
    gain = cross @ np.linalg.solve(theta + DECAY * np.eye(7), moved)
    onehot = np.eye(3)[np.asarray(Y)]
    expected = f0[:, 7:] + np.einsum("ij,sjc->sic", gain, onehot[None] - f0[:, :7])
    np.testing.assert_allclose(found, expected, atol=1e-10)


@pytest.mark.parametrize("name", ["unregularized", "decay_to_zero"])
def test_there_is_no_reference_where_training_has_no_such_end(name):
    _, _, (at_one, end) = reference(name, [1.0, math.inf])
    assert end is None
    assert (at_one is None) == (name == "decay_to_zero")


@pytest.mark.parametrize(
    ("likelihood", "curvature"),
    [(nb.Categorical(3), 0.5), (nb.Bernoulli(), 0.25), (nb.Gaussian(0.5), 2.0)],
)
def test_no_curvature_exceeds_the_one_in_the_stability_limit(likelihood, curvature):
    assert stability_limit(likelihood, 10.0, 0.3) == pytest.approx(2 / (10 * curvature + 0.3))
    f = 3 * jax.random.normal(jax.random.key(0), (500, likelihood.num_outputs))
    f = (
        f.at[0]
        .set(0.0)
        .at[0, -1:]
        .multiply(0.0)
        .at[1]
        .set(jnp.array([9.0, 9.0, -30.0])[: f.shape[1]])
    )
    largest = float(jnp.max(jnp.linalg.eigvalsh(jax.vmap(likelihood.curvature)(f))))
    assert 0.98 * curvature < largest <= curvature * (1 + 1e-9)


def test_a_step_above_the_limit_is_refused_with_the_limit():
    plan = plan_of()
    largest = float(jnp.linalg.eigvalsh(plan.infinite.ntk_train)[-1])
    limit = 2 / (0.5 * largest + DECAY)
    conditions = {"regularized": OBJECTIVES["regularized"]}
    with pytest.raises(ValueError, match=f"stable only below {limit:.3g} at infinite width"):
        plan_of(conditions=conditions, step=1.01 * limit)
    assert plan_of(conditions=conditions, step=0.99 * limit).schedules["regularized"].step < limit


def test_a_step_above_the_limit_of_a_networks_own_kernel_is_refused():
    plan = plan_of(conditions={"regularized": OBJECTIVES["regularized"]})
    networks = networks_of(plan)
    limit = 2 / (0.5 * float(networks.largest_eigenvalue.max()) + DECAY)
    with pytest.raises(ValueError, match=f"below {limit:.3g} for width 16"):
        train_width(
            networks, plan.problems["regularized"], plan.infinite, Schedule(1.01 * limit, (0, 1)),
            name="width 16",
        )  # fmt: skip


def test_divergence_stops_training_at_once_and_says_where():
    """With a limit that claims too much, which a kernel that grows in training would too."""
    plan = plan_of(conditions={"squared_error": OBJECTIVES["squared_error"]})
    networks = networks_of(plan)
    small = eqx.tree_at(lambda n: n.largest_eigenvalue, networks, jnp.array([0.1, 0.1]))
    problem, schedule = plan.problems["squared_error"], Schedule(1.5, (0, 1000))
    with pytest.raises(
        ValueError, match=r"width 16 diverged: the objective of seed \d .* \(step [1-9]\)"
    ):
        train_width(small, problem, plan.infinite, schedule, name="width 16")


def test_records_are_even_in_log_time_and_end_at_the_time():
    schedule = make_schedule(time=3.0, num_records=4, limit=0.0151)
    assert schedule.records[0] == 0
    assert schedule.times[-1] == pytest.approx(3.0)
    assert schedule.step <= 0.2 * 0.0151
    ratios = np.diff(np.log(schedule.records[1:]))
    np.testing.assert_allclose(ratios, ratios.mean(), rtol=0.05)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"prior_precision": -1.0}, "prior_precision"),
        ({"label_smoothing": 1.0}, "label_smoothing must be at least 0"),
        ({"decay": "zeros"}, "did you mean zero"),
        ({"loss": "hinge"}, "unknown loss"),
    ],
)
def test_settings_out_of_range_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        Condition("", "", **setting)
    assert dataclasses.replace(CONDITIONS["regularized"], prior_precision=2.0).prior_precision == 2
