"""Signatures are checked at every call, and what is wrong is said in one line."""

import inspect
from collections.abc import Sequence

import jax
import numpy as np
import pandas as pd
import pytest
from beartype import beartype
from jaxtyping import TypeCheckError, jaxtyped

import ntkbayes as nb
from ntkbayes import _typed
from ntkbayes._types import AnyArray, Float, Int, Key, typed

X, Y, KEY = np.ones((3, 2)), np.array([0, 1, 0]), jax.random.key(0)


@typed
def example(
    x: Float[AnyArray, "n d"],
    y: Int[AnyArray, "n"],
    *,
    key: Key,
    scale: float = 1.0,
    more: dict[str, Float[AnyArray, "n"]] | None = None,
) -> Float[AnyArray, "n d"]:
    """Return x, or for a negative scale what is not promised."""
    return x if scale >= 0 else y


X_IS, Y_IS = "x must be Float array of shape (n d), but is", "y must be Int array of shape (n)"


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("y", Y[:2], f"{Y_IS} with n = 3, but is int64 ndarray of shape (2,)"),
        ("y", Y * 0.5, f"{Y_IS} with n = 3, but is float64 ndarray of shape (3,)"),
        ("x", jax.numpy.ones(3), f"{X_IS} float64 Array of shape (3,)"),
        ("x", pd.DataFrame(X), f"{X_IS} DataFrame of shape (3, 2); pass it with .to_numpy()"),
        ("x", X.tolist(), f"{X_IS} list; pass np.asarray of it"),
        ("key", 0, "key must be random key, but is int 0; jax.random.key(0) makes one"),
        ("scale", "1", "scale must be float, but is str '1'"),
        ("scale", np.int64(1), "scale must be float, but is int64 of shape (); pass its .item()"),
        ("scale", float, "scale must be float, but is the class float"),
        (
            *("more", {"a": X}),
            "more must be dict[str, Float array of shape (n)] | None with n = 3, "
            "but is dict of 'a': float64 ndarray of shape (3, 2)",
        ),
    ],
)
def test_one_line_names_the_argument_what_was_wanted_and_what_came(argument, value, message):
    with pytest.raises(TypeCheckError) as raised:
        example(**({"x": X, "y": Y, "key": KEY} | {argument: value}))
    assert str(raised.value) == f"example: {message}."


@typed
def of_arrays(p: Float[np.ndarray, "m c"], names: Sequence[str] = (), x: AnyArray = X) -> None:
    """Take arrays of NumPy only."""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"p": [0.5, 0.5]},
            "p must be Float array of shape (m c), but is list of float 0.5",
        ),
        ({"p": pd.Series([0.5])}, "p must be .* but is float64 Series .*; pass it with .to_numpy"),
        ({"p": X, "names": [1]}, r"names must be Sequence\[str\], but is list of int 1\.$"),
        ({"p": X, "names": pd.Index([1])}, r"names must be Sequence\[str\], .* of shape \(1,\)\.$"),
        ({"p": X, "x": np.float64(3)}, r"x must be array, but is float64 of shape \(\)\.$"),
    ],
)
def test_hints_fit_what_is_wanted(arguments, message):
    with pytest.raises(TypeCheckError, match=message.replace("(m c)", r"\(m c\)")):
        of_arrays(**arguments)


@pytest.mark.parametrize(
    ("spelled", "words"),
    [
        ("jaxtyping.Key[Array, ''] | UInt32[Array, '2'] | UInt32[Array, '4']", "random key"),
        ("Float[Array, 'n d'] | Float[ndarray, 'n d']", "Float array of shape (n d)"),
        (
            "dict[str, Int[Array, 'n'] | Int[numpy.ndarray, 'n']] | None",
            "dict[str, Int array of shape (n)] | None",
        ),
        (
            "typing.Union[Int[Array, 'n'], Bool[Array, 'n']]",
            "Int array of shape (n) | Bool array of shape (n)",
        ),
    ],
)
def test_unions_are_read_as_every_python_writes_them(spelled, words):
    assert _typed._wanted(f"Expected type: {spelled}.") == words


def test_several_keys_are_not_one():
    with pytest.raises(TypeCheckError, match=r"key must be random key, .*; pass one of them"):
        example(X, Y, key=jax.random.split(KEY))


def test_missing_and_unknown_arguments_come_with_the_name_of_the_function():
    with pytest.raises(TypeError, match=r"^example: missing a required .*argument: 'key'\.$"):
        example(X, Y)
    with pytest.raises(TypeError, match=r"^example: got an unexpected keyword argument 'keys'\.$"):
        example(X, Y, key=KEY, keys=KEY)


def test_whole_numbers_are_real_and_the_signature_stays():
    np.testing.assert_array_equal(example(X, Y, key=KEY, scale=1), X)
    assert list(inspect.signature(example).parameters)[:2] == ["x", "y"]


def test_mistakes_of_the_function_itself_are_not_taken_for_the_callers():
    with pytest.raises(TypeCheckError, match="return value of"):
        example(X, Y, key=KEY, scale=-1)

    @typed
    def outer(size: int) -> float:
        """Call another function wrongly."""
        return example(np.ones(size), Y, key=KEY)

    with pytest.raises(TypeCheckError, match=r"^example: x must be Float array"):
        outer(3)


def test_a_mistake_in_code_that_is_handed_over_keeps_its_own_words():
    @jaxtyped(typechecker=beartype)
    def apply(params, x: Float[AnyArray, "n 5"]):
        """Want another number of features than there are."""
        return x @ params

    network = nb.finite_network(lambda key: jax.numpy.ones((5, 2)), apply)
    with pytest.raises(TypeCheckError, match=r"parameters of .*apply"):
        nb.linearize(network, jax.numpy.ones((5, 2)), X)


def test_what_a_method_is_given_by_mistake_is_named():
    data = nb.load_dataset("moons", num_train=10)
    model = (nb.dense_network(depth=1), nb.Categorical, data.x_train, data.y_train)
    with pytest.raises(TypeCheckError, match="likelihood must be Likelihood, but is the class Cat"):
        nb.laplace(*model, prior_precision=1.0)
