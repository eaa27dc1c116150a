"""The check of a signature at every call, with errors of one line.

jaxtyping finds the wrong argument, but says so in pages: all parameters, all annotations, whole
data frames.
"""

import inspect
import re
import reprlib
from collections.abc import Callable
from functools import wraps
from typing import Any

import jax
import numpy as np
from beartype import BeartypeConf, beartype
from jaxtyping import TypeCheckError, jaxtyped

__all__ = ["INT_IS_FLOAT", "ArgumentTypeError", "typed"]

INT_IS_FLOAT = BeartypeConf(is_pep484_tower=True)

_check = jaxtyped(typechecker=beartype(conf=INT_IS_FLOAT))

_KEY = "random key"
MAX_ITEMS = 4
"""Up to which dictionaries, lists and tuples are described item by item."""
_SIMPLER = (
    (r"(?:\w+\.)+(?=\w)", ""),  # names of modules
    (r"Union\[((?:[^\[\]]|\[[^\[\]]*\])*)\]", lambda found: found[1].replace("], ", "] | ")),
    (r"Key\[Array, ''\] \| UInt32\[Array, '2'\] \| UInt32\[Array, '4'\]", _KEY),
    (r"(\w+\[)Array, ('[^']*'\])(?: \| \1ndarray, \2)+", r"\1Array, \2"),
    (r"(\w+)\[(?:Array|ndarray), '([^']*)'\]", r"\1 array of shape (\2)"),
    (r"\bShaped array", "array"),
    (r"\bArray \| ndarray\b", "array"),
    (r"^<class '(.*)'>$", r"\1"),
)
"""From an annotation to words; Python 3.14 writes unions with bars."""


class ArgumentTypeError(TypeCheckError):
    """A type or shape other than the signature says."""


def typed[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function: check the shapes and types its signature promises, at every call.

    An int is a float too. Masked arrays are refused if their masks hide anything.
    """
    checked, signature = _check(function), inspect.signature(function)

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        if any(map(_hides, (*args, *kwargs.values()))):
            _refuse_masks(function, signature, args, kwargs)
        try:
            return checked(*args, **kwargs)
        except TypeError as error:
            short = _short(function, signature, args, kwargs, error)
            if short is None:
                raise
        raise short

    return wrapped


def _hides(value: Any) -> bool:
    """Whether an array, or one in a list, tuple or dictionary, has entries hidden by a mask."""
    if isinstance(value, np.ndarray):
        return isinstance(value, np.ma.MaskedArray) and bool(np.ma.getmaskarray(value).any())
    if isinstance(value, tuple | list):
        return any(map(_hides, value))
    return isinstance(value, dict) and any(map(_hides, value.values()))


def _refuse_masks(
    function: Callable[..., Any], signature: inspect.Signature, args: Any, kwargs: Any
) -> None:
    """Raise `ValueError` that names the argument: arrays lose their masks on the way to JAX."""
    given = signature.bind(*args, **kwargs).arguments
    names = [name for name, value in given.items() if _hides(value)]
    raise ValueError(
        f"{function.__qualname__.removesuffix('.__init__')}: {' and '.join(names)} must have no "
        "missing values, but a mask hides some; drop or impute them."
    )


def _short(
    function: Callable[..., Any],
    signature: inspect.Signature,
    args: Any,
    kwargs: Any,
    error: TypeError,
) -> TypeError | None:
    """Return an error that names the argument; None where the call itself is not at fault."""
    name = function.__qualname__.removesuffix(".__init__")
    try:
        given = signature.bind(*args, **kwargs).arguments
    except TypeError as unbound:
        return TypeError(f"{name}: {unbound}.")
    ours = f"parameters of {function.__module__}.{function.__qualname__}." in str(error)
    found = re.search(r"parameter '(\w+)'\.", str(error))
    if not (ours and found and found[1] in given):
        return None
    value = given[found[1]]
    wanted = _wanted(str(error))
    return ArgumentTypeError(
        f"{name}: {found[1]} must be {wanted}, but is {_described(value)}{_hint(wanted, value)}."
    )


def _wanted(text: str) -> str:
    """Find what was expected, in words, and the sizes that other arguments have settled."""
    found = re.search(r"^Expected type: (.*?)\.?$", text, re.MULTILINE)
    words = found[1] if found else "something else"
    for pattern, simpler in _SIMPLER:
        words = re.sub(pattern, simpler, words)
    axes = dict(re.findall(r"^(\w+)=(\d+)$", text, re.MULTILINE))
    sizes = [f"{axis} = {size}" for axis, size in axes.items() if re.search(rf"\b{axis}\b", words)]
    return words + (f" with {', '.join(sizes)}" if sizes else "")


def _described(value: Any) -> str:
    kind = "Array" if isinstance(value, jax.Array) else type(value).__name__
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(getattr(value, "shape", None), tuple):
        dtype = str(getattr(value, "dtype", kind))
        return f"{kind if dtype == kind else f'{dtype} {kind}'} of shape {value.shape}"
    if isinstance(value, str | int | float):
        return f"{kind} {reprlib.repr(value)}"
    if isinstance(value, dict) and 0 < len(value) <= MAX_ITEMS:
        return f"dict of {', '.join(f'{key!r}: {_described(item)}' for key, item in value.items())}"
    flat = isinstance(value, tuple | list) and not any(isinstance(v, tuple | list) for v in value)
    if flat and 0 < len(value) <= MAX_ITEMS:
        return f"{kind} of {', '.join(map(_described, value))}"
    return kind


def _hint(wanted: str, value: Any) -> str:
    array = "array" in wanted
    if wanted.startswith(_KEY):
        several = hasattr(value, "dtype") and value.ndim == 1
        return "; pass one of them" if several else "; jax.random.key(0) makes one"
    if array and hasattr(value, "to_numpy"):
        return "; pass it with .to_numpy()"
    if array and isinstance(value, list | tuple):
        return "; pass np.asarray of it"
    number = re.match(r"(int|float|bool)\b", wanted)
    if number and hasattr(value, "item") and getattr(value, "shape", None) == ():
        return "; pass its .item()"
    return ""
