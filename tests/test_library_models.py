"""Models as people write them, in three libraries: what is trained of them, and what is not.

Each is made in evaluation mode, as `finite_network` wants it. Numbers of weights are counted by
hand; functions are those of the library's own call.
"""

from functools import partial

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from finite_models import double
from flax import nnx
from jax.flatten_util import ravel_pytree

import ntkbayes as nb

D, H, C = 4, 6, 3
KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(12, D))
Y = np.arange(12) % C
STATISTICS = {"mean": jnp.asarray(np.full(H, 0.3)), "var": jnp.asarray(np.full(H, 2.0))}
"""Running statistics of a network that has seen data."""


class NnxBatchNorm(nnx.Module):
    def __init__(self, rngs, **settings):
        self.first = nnx.Linear(D, H, rngs=rngs)
        self.norm = nnx.BatchNorm(H, **settings, rngs=rngs)
        self.norm.mean.set_value(STATISTICS["mean"])
        self.norm.var.set_value(STATISTICS["var"])
        self.last = nnx.Linear(H, C, rngs=rngs)

    def __call__(self, x):
        return self.last(nnx.relu(self.norm(self.first(x))))


class NnxDropout(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(D, H, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.last = nnx.Linear(H, C, rngs=rngs)

    def __call__(self, x):
        return self.last(self.drop(nnx.relu(self.first(x))))


class NnxGroupNorm(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(D, H, rngs=rngs)
        self.norm = nnx.GroupNorm(H, num_groups=2, rngs=rngs)
        self.last = nnx.Linear(H, C, rngs=rngs)

    def __call__(self, x):
        return self.last(nnx.relu(self.norm(self.first(x))))


class NnxTied(nnx.Module):
    """One hidden layer, used three times under two names."""

    def __init__(self, rngs):
        self.first = nnx.Linear(D, H, rngs=rngs)
        self.hidden = nnx.Linear(H, H, rngs=rngs)
        self.again = self.hidden
        self.last = nnx.Linear(H, C, rngs=rngs)

    def __call__(self, x):
        h = nnx.tanh(self.first(x))
        return self.last(nnx.tanh(self.again(nnx.tanh(self.hidden(h)))))


class NnxScan(nnx.Module):
    """A recurrent network over the features."""

    def __init__(self, rngs):
        self.cell = nnx.Linear(H + 1, H, rngs=rngs)
        self.last = nnx.Linear(H, C, rngs=rngs)

    def __call__(self, x):
        def step(h, feature):
            return nnx.tanh(self.cell(jnp.concatenate([h, feature[:, None]], axis=1))), None

        return self.last(jax.lax.scan(step, jnp.zeros((len(x), H), x.dtype), x.T)[0])


class NnxAttention(nnx.Module):
    def __init__(self, rngs):
        self.embed = nnx.Linear(1, H, rngs=rngs)
        self.attend = nnx.MultiHeadAttention(2, H, decode=False, rngs=rngs)
        self.last = nnx.Linear(H, C, rngs=rngs)

    def __call__(self, x):
        h = self.embed(x[:, :, None])
        return self.last(self.attend(h).mean(axis=1))


def of_nnx(module):
    def make(key):
        model = module(nnx.Rngs(key))
        model.eval()
        return model

    return make, lambda model, x: model(x)


class LinenBatchNorm(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(H)(x))
        return nn.Dense(C)(nn.relu(x))


class LinenDropout(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.Dropout(0.5, deterministic=not train)(nn.relu(nn.Dense(H)(x)))
        return nn.Dense(C)(x)


class LinenGroupNorm(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(C)(nn.relu(nn.GroupNorm(num_groups=2)(nn.Dense(H)(x))))


class LinenTied(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        hidden = nn.Dense(H)
        h = nn.tanh(nn.Dense(H)(x))
        return nn.Dense(C)(nn.tanh(hidden(nn.tanh(hidden(h)))))


class LinenScan(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        # Its first state has the parameters' type, which must be that of x.
        layer = nn.RNN(nn.SimpleCell(H, param_dtype=float))
        return nn.Dense(C)(layer(x[:, :, None])[:, -1])


class LinenAttention(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        h = nn.Dense(H)(x[:, :, None])
        return nn.Dense(C)(nn.MultiHeadDotProductAttention(2)(h).mean(axis=1))


def of_linen(module):
    def make(key):
        variables = module.init(key, jnp.zeros((1, D)), train=False)
        if "batch_stats" in variables:
            variables = variables | {"batch_stats": {"BatchNorm_0": STATISTICS}}
        return variables

    return make, lambda variables, x: module.apply(variables, x, train=False)


class EquinoxBatchNorm(eqx.Module):
    first: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    last: eqx.nn.Linear

    def __init__(self, key):
        keys = jax.random.split(key)
        self.first = eqx.nn.Linear(D, H, key=keys[0])
        self.norm = eqx.nn.BatchNorm(H, axis_name="batch", mode="ema")
        self.last = eqx.nn.Linear(H, C, key=keys[1])

    def __call__(self, x, state):
        x, state = self.norm(self.first(x), state)
        return self.last(jax.nn.relu(x))


def equinox_batch_norm(key):
    model, state = eqx.nn.make_with_state(EquinoxBatchNorm)(key)
    state = state.set(model.norm.ema_state_index, (STATISTICS["mean"], STATISTICS["var"]))
    state = state.set(model.norm.ema_first_time_index, jnp.array(False))
    return eqx.nn.inference_mode(model), state


def apply_stateful(model_and_state, x):
    model, state = model_and_state
    return jax.vmap(model, in_axes=(0, None), axis_name="batch")(x, state)


def equinox_mlp(*between):
    def make(key):
        keys = jax.random.split(key)
        layers = [eqx.nn.Linear(D, H, key=keys[0]), *between, eqx.nn.Lambda(jax.nn.relu)]
        model = eqx.nn.Sequential([*layers, eqx.nn.Linear(H, C, key=keys[1])])
        return eqx.nn.inference_mode(model)

    return make, lambda model, x: jax.vmap(model)(x)


class EquinoxTied(eqx.Module):
    shared: eqx.nn.Shared

    def __init__(self, key):
        keys = jax.random.split(key, 3)
        first, hidden, last = (
            eqx.nn.Linear(*sizes, key=k)
            for sizes, k in zip(((D, H), (H, H), (H, C)), keys, strict=True)
        )
        again = eqx.nn.Linear(H, H, key=key)
        self.shared = eqx.nn.Shared(
            (first, hidden, again, last), lambda m: m[2].weight, lambda m: m[1].weight
        )

    def __call__(self, x):
        first, hidden, again, last = self.shared()
        return last(jnp.tanh(again(jnp.tanh(hidden(jnp.tanh(first(x)))))))


class EquinoxScan(eqx.Module):
    cell: eqx.nn.GRUCell
    last: eqx.nn.Linear

    def __init__(self, key):
        keys = jax.random.split(key)
        self.cell = eqx.nn.GRUCell(1, H, key=keys[0])
        self.last = eqx.nn.Linear(H, C, key=keys[1])

    def __call__(self, x):
        h = jax.lax.scan(lambda h, v: (self.cell(v[None], h), None), jnp.zeros(H, x.dtype), x)[0]
        return self.last(h)


class EquinoxAttention(eqx.Module):
    embed: eqx.nn.Linear
    attend: eqx.nn.MultiheadAttention
    last: eqx.nn.Linear

    def __init__(self, key):
        keys = jax.random.split(key, 3)
        self.embed = eqx.nn.Linear(1, H, key=keys[0])
        self.attend = eqx.nn.MultiheadAttention(2, H, key=keys[1])
        self.last = eqx.nn.Linear(H, C, key=keys[2])

    def __call__(self, x):
        h = jax.vmap(self.embed)(x[:, None])
        return self.last(self.attend(h, h, h).mean(axis=0))


def of_equinox(module):
    return module, lambda model, x: jax.vmap(model)(x)


MLP = D * H + H + H * C + C
TIED = MLP + H * H + H
ATTENTION = (H + H) + 4 * H * H + (H * C + C)
MODELS = {
    "nnx batch norm": (of_nnx(NnxBatchNorm), MLP + 2 * H),
    "nnx dropout": (of_nnx(NnxDropout), MLP),
    "nnx group norm": (of_nnx(NnxGroupNorm), MLP + 2 * H),
    "nnx tied": (of_nnx(NnxTied), TIED),
    "nnx scan": (of_nnx(NnxScan), (H + 1) * H + H + H * C + C),
    "nnx attention": (of_nnx(NnxAttention), ATTENTION + 4 * H),
    "linen batch norm": (of_linen(LinenBatchNorm()), MLP + 2 * H),
    "linen dropout": (of_linen(LinenDropout()), MLP),
    "linen group norm": (of_linen(LinenGroupNorm()), MLP + 2 * H),
    "linen tied": (of_linen(LinenTied()), TIED),
    "linen scan": (of_linen(LinenScan()), H + H * H + H + H * C + C),
    "linen attention": (of_linen(LinenAttention()), ATTENTION + 4 * H),
    "equinox batch norm": ((equinox_batch_norm, apply_stateful), MLP + 2 * H),
    "equinox dropout": (equinox_mlp(eqx.nn.Dropout(0.5)), MLP),
    "equinox group norm": (equinox_mlp(eqx.nn.GroupNorm(2, H)), MLP + 2 * H),
    "equinox tied": (of_equinox(EquinoxTied), TIED + H),
    "equinox scan": (of_equinox(EquinoxScan), 3 * H + 3 * H * H + 4 * H + H * C + C),
    "equinox attention": (of_equinox(EquinoxAttention), ATTENTION),
}


@pytest.fixture(autouse=True)
def _ranks_may_differ():
    """The libraries' own layers rely on it."""
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.parametrize("name", MODELS)
def test_the_weights_are_what_the_library_trains(name):
    (make, apply), num_weights = MODELS[name]
    network = nb.finite_network(make, apply)
    assert network.num_parameters == num_weights
    params = network.init(KEY, num_features=D, num_outputs=C)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == num_weights
    np.testing.assert_allclose(network.apply(params, X), apply(make(KEY), X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_the_tangent_kernel_is_that_of_the_weights_alone(name):
    """Against the Jacobian by the weights as one vector; some layers compute in float32."""
    (make, apply), _ = MODELS[name]
    network = nb.finite_network(make, apply)
    params = double(network.init(KEY, num_features=D, num_outputs=C))
    flat, unravel = ravel_pytree(params)
    jacobian = np.asarray(jax.jit(jax.jacobian(lambda w: network.apply(unravel(w), X[:3])))(flat))
    expected = np.einsum("icp,jdp->icjd", jacobian, jacobian)
    np.testing.assert_allclose(nb.empirical_ntk(network, params, X[:3]), expected, atol=1e-5)


def fit_all(network):
    """Every method for finite networks, and the weights or functions that it found."""
    model, settings = (network, nb.Categorical(C), X, Y), {"prior_precision": 1.0, "key": KEY}
    found = nb.map_estimate(*model, **settings, tolerance=1e-2)
    laplace = nb.linearized_laplace(
        *model, prior_precision=1.0, params=found.params, max_newton_decrement=np.inf
    )
    linear = nb.linearized_ensemble(*model, **settings, num_members=2)
    deep = nb.deep_ensemble(*model, **settings, num_members=2, tolerance=0.1)
    hmc = nb.hmc(*model, **settings, space="weight", num_warmup=20, num_draws=10, num_chains=1)
    return found, (laplace, linear, deep, hmc)


QUICK = "nnx batch norm"
LONG = ("nnx dropout", "nnx tied", "nnx scan", "linen batch norm")
"""Each takes half a minute, most of it compiling; the others are tried as functions above."""


@pytest.mark.parametrize(
    "name",
    [QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in LONG)],
)
@pytest.mark.filterwarnings("ignore:the network is still in training")
@pytest.mark.filterwarnings("ignore:the chains do not agree|.*R-hat.*|.*effective")
def test_every_method_trains_the_weights_and_nothing_else(name):
    (make, apply), num_weights = MODELS[name]
    network = nb.finite_network(make, apply)
    found, predictors = fit_all(network)
    assert sum(leaf.size for leaf in jax.tree.leaves(found.params)) == num_weights
    trained, fresh = network.complete(found.params), make(KEY)
    carried = [what.path for what in network.leaves if what.source is None]
    for one, other, what in zip(
        *(jax.tree.leaves(tree, is_leaf=lambda n: n is None) for tree in (trained, fresh)),
        network.leaves,
        strict=True,
    ):
        if (
            what.path in carried
            and isinstance(one, jax.Array)
            and not jax.dtypes.issubdtype(one.dtype, jax.dtypes.prng_key)
        ):
            np.testing.assert_array_equal(one, other)
    f = apply(trained, X)
    laplace, *others = predictors
    np.testing.assert_allclose(laplace.mean(X), f, rtol=1e-5, atol=1e-5)
    assert np.all(np.linalg.norm(np.asarray(f), axis=1) > 0)
    for predictor in others:
        draws = predictor.sample(KEY, X[:2], num_draws=2)
        assert draws.shape == (2, 2, C)
        assert np.all(np.std(draws, axis=0) > 0)


def test_a_variable_in_two_places_is_trained_as_one():
    make, apply = of_nnx(NnxTied)
    network = nb.finite_network(make, apply)
    params = jax.tree.map(jnp.ones_like, network.init(KEY, num_features=D, num_outputs=C))
    model = network.complete(params)
    np.testing.assert_array_equal(model.again.kernel[...], model.hidden.kernel[...])
    np.testing.assert_array_equal(model.again.kernel[...], np.ones((H, H)))


class Standardized(eqx.Module):
    """A module whose arrays are not all parameters, and which does not say so."""

    mean: jax.Array
    std: jax.Array
    last: eqx.nn.Linear

    def __init__(self, key):
        self.mean, self.std = jnp.ones(D), jnp.full(D, 2.0)
        self.last = eqx.nn.Linear(D, C, key=key)

    def __call__(self, x):
        return self.last((x - self.mean) / self.std)


class Fourier(eqx.Module):
    """Random features, fixed by their type (NumPy) or by stop_gradient."""

    features: np.ndarray | jax.Array
    last: eqx.nn.Linear

    def __call__(self, x):
        return self.last(jnp.sin(x @ jax.lax.stop_gradient(jnp.asarray(self.features))))


def fourier(features):
    def make(key):
        return Fourier(features, eqx.nn.Linear(H, C, key=key))

    return make, lambda model, x: jax.vmap(model)(x)


FEATURES = np.random.default_rng(1).normal(size=(D, H))


def test_what_is_trained_can_be_said():
    """The last layer of a module with constants: what stays is the same for every key."""
    network = nb.finite_network(*of_equinox(Standardized), weights=lambda model: model.last)
    assert network.num_parameters == D * C + C
    params = network.init(KEY, num_features=D, num_outputs=C)
    assert params.mean is None
    x = X @ np.diag([1.0, 2.0, 3.0, 4.0])
    np.testing.assert_allclose(network.apply(params, x), jax.vmap(Standardized(KEY))(x), rtol=1e-12)


def test_numpy_arrays_of_an_equinox_module_are_constants():
    network = nb.finite_network(*fourier(FEATURES))
    assert network.num_parameters == H * C + C
    params = network.init(KEY, num_features=D, num_outputs=C)
    expected = jax.vmap(fourier(FEATURES)[0](KEY))(X)
    np.testing.assert_allclose(network.apply(params, X), expected, rtol=1e-12)


def pure_nnx(key):
    return nnx.to_pure_dict(nnx.state(of_nnx(NnxBatchNorm)[0](key), nnx.Not(nnx.RngState)))


def of_dict(**more):
    return (lambda key: {"params": {"w": jax.random.normal(key, (D, C))}} | more), (
        lambda p, x: x @ p["params"]["w"]
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (pure_nnx, r"\['norm'\]\['mean'\] and \['norm'\]\['var'\] look like statistics"),
        (Standardized, r"\.mean and \.std look like statistics.*finite_network's `weights`"),
        (
            lambda key: {"running_mean": jnp.zeros(3), "running_var": jnp.ones(3)},
            r"running_mean'\] and \['running_var'\] look like statistics",
        ),
        (of_dict(lora={"a": jnp.ones(3)})[0], "has a collection 'lora' beside 'params'"),
        (
            lambda key: {"w": jax.random.normal(key, (3, 3)), "order": jnp.arange(3) > 1},
            r"\['order'\] is bool",
        ),
    ],
)
def test_arrays_of_which_nobody_says_what_they_are_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        nb.finite_network(make, lambda params, x: x)


class Layers(eqx.Module):
    intermediates: list[eqx.nn.Linear]
    head: eqx.nn.Linear

    def __init__(self, key):
        self.intermediates = [eqx.nn.Linear(D, D, key=key)]
        self.head = eqx.nn.Linear(D, C, key=key)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda key: {"cache": jnp.ones((2, 3)), "head": jnp.ones(3)}, 9),
        (lambda key: {"cache": {"params": jnp.ones(2)}}, 2),
        (lambda key: {"params": {"cache": jnp.ones(3)}, "cache": jnp.ones(2)}, 3),
        (lambda key: {"params": {"mean": jnp.ones(3), "std": jnp.ones(3)}}, 6),
        (Layers, D * D + D + D * C + C),
    ],
)
def test_names_say_what_is_trained_among_the_collections_of_linen_only(make, expected):
    assert nb.finite_network(make, lambda params, x: x).num_parameters == expected


def test_what_is_no_weight_stays_so_inside_params():
    def make(key):
        return {"params": fourier(FEATURES)[0](key)}

    assert nb.finite_network(make, lambda params, x: x).num_parameters == H * C + C
    with pytest.raises(ValueError, match=r"\['params'\]\['n'\] is int64"):
        nb.finite_network(lambda key: {"params": {"n": jnp.arange(3)}}, lambda params, x: x)


def training_mode(module):
    return (lambda key: module(nnx.Rngs(key))), (lambda model, x: model(x))


@pytest.mark.parametrize(
    ("make", "apply", "message"),
    [
        (
            *training_mode(partial(NnxBatchNorm, use_running_average=False, dtype=np.float32)),
            r"another value alone or repeated than among others.*model\.eval",
        ),
        (*training_mode(NnxDropout), "another value alone or repeated than among others"),
        (lambda key: jnp.eye(D)[:, :C], lambda w, x: (x - x.mean(0)) @ w, "another value alone"),
        (
            of_linen(LinenBatchNorm())[0],
            lambda variables, x: LinenBatchNorm().apply(variables, x, train=True),
            r"apply_fn failed on a \(2, 4\) input of float64: ",
        ),
        (*fourier(jnp.asarray(FEATURES)), r"depends on \.features, but has no derivative there"),
        (
            lambda key: {"w": jnp.eye(D)[:, :C], "step": jnp.ones(())},
            lambda p, x: x @ p["w"] + jnp.round(p["step"]),
            r"depends on \['step'\], but has no derivative",
        ),
    ],
)
def test_networks_that_do_not_behave_are_refused(make, apply, message):
    with pytest.raises(ValueError, match=message):
        nb.finite_network(make, apply).init(KEY, num_features=D, num_outputs=C)


def test_a_trained_model_with_other_statistics_is_refused_and_with_its_own_accepted():
    make, apply = of_linen(LinenBatchNorm())
    network = nb.finite_network(make, apply)
    whole = make(KEY)
    ntk = nb.empirical_ntk(network, whole, X[:2])
    params = network.init(KEY, num_features=D, num_outputs=C)
    np.testing.assert_array_equal(ntk, nb.empirical_ntk(network, params, X[:2]))
    moved = jax.tree.map(lambda leaf: leaf + 1, whole["batch_stats"])
    with pytest.raises(ValueError, match=r"other values of \['batch_stats'\].* than the network"):
        nb.empirical_ntk(network, whole | {"batch_stats": moved}, X[:2])
    again = nb.finite_network(lambda key: make(key) | {"batch_stats": moved}, apply)
    np.testing.assert_allclose(again.apply(again.init(KEY, num_features=D, num_outputs=C), X),
                               apply(whole | {"batch_stats": moved}, X), atol=1e-6)  # fmt: skip


def test_weights_that_cannot_be_trained_are_refused():
    make, apply = of_dict(order=jnp.arange(3))
    with pytest.raises(ValueError, match=r"weights picks the leaf \['order'\], which is int64"):
        nb.finite_network(make, apply, weights=lambda p: p)
    with pytest.raises(ValueError, match="holds no floating-point array that is a parameter"):
        nb.finite_network(make, apply, weights=lambda p: ())
    assert nb.finite_network(make, apply, weights=lambda p: p["params"]).num_parameters == D * C


def test_one_matrix_in_two_places_of_a_plain_tree_is_told():
    def make(key):
        w = jax.random.normal(key, (D, D))
        return {"a": w, "b": w}

    with pytest.warns(UserWarning, match=r"\['a'\] and \['b'\] are one array, but are trained as"):
        nb.finite_network(make, lambda p, x: x @ p["a"] @ p["b"])
