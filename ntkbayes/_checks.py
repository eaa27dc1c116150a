"""Checks of values that a type cannot express; each error names the argument and what came."""

import math
import warnings
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from numbers import Integral
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np

from ntkbayes._arrays import is_traced, more_digits
from ntkbayes._types import AnyArray

_NOT_THE_CALLER = (str(Path(__file__).parent), str(Path(jaxtyping.__file__).parent))


def check_finite(name: str, array: AnyArray) -> None:
    """Raise `ValueError` if `array` holds NaN, infinity or no numbers, or a mask hides entries.

    The message says where or what. Of a traced array the values are not known, and not checked.
    """
    if is_traced(array):
        return
    check_unmasked(name, array)
    values = np.asarray(array)
    if values.dtype.kind in "OSU":
        raise ValueError(f"{name} must hold numbers, but has dtype {values.dtype}.")
    finite = np.isfinite(values)
    if not finite.all():
        bad = np.argwhere(~finite)
        where = tuple(int(i) for i in bad[0])
        raise ValueError(
            f"{name} must be finite, but holds {len(bad)} NaN or infinite value(s), "
            f"the first at index {where}; drop or impute them."
        )


def check_unmasked(name: str, value: Any) -> None:
    """Raise `ValueError` if a masked array hides entries, which would become data otherwise."""
    if isinstance(value, np.ma.MaskedArray) and (hidden := np.ma.getmaskarray(value)).any():
        where = tuple(int(i) for i in np.argwhere(hidden)[0])
        raise ValueError(
            f"{name} must have no missing values, but its mask hides {hidden.sum()}, the first at "
            f"index {where}; drop or impute them."
        )


def checked_texts(name: str, values: Any, *, wanted: str) -> tuple[str, ...]:
    """Return names as text, from a list, a tuple, an array or an index; they must differ.

    Raises
    ------
    ValueError
        If they are a single text, no sequence, hold what is neither text nor a whole number, or
        repeat.
    """
    items = values.tolist() if hasattr(values, "tolist") else values
    if isinstance(items, str | bytes) or not isinstance(items, Collection):
        raise ValueError(f"{name} must be a sequence of {wanted}, but is {values!r}.")
    for item in items:
        if not isinstance(item, str | Integral) or isinstance(item, bool):
            raise ValueError(f"{name} must hold {wanted}, but holds {item!r}.")
    texts = tuple(str(item) for item in items)
    for text in texts:
        check_text(name, text)
    check_distinct(name, texts)
    return texts


def check_distinct(name: str, values: Iterable[Any]) -> None:
    """Raise `ValueError` if a value occurs more than once, naming the first."""
    seen = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{name} must differ, but {value!r} occurs more than once.")
        seen.add(value)


def check_kept(name: str, array: AnyArray, dtype: Any, *, whole: bool = False) -> None:
    """Raise `ValueError` unless a type keeps numbers finite, and if asked whole ones the same."""
    if is_traced(array):
        return
    values = np.asarray(array)
    with np.errstate(over="ignore"):
        kept = values.astype(dtype)
    lost = ~np.isfinite(kept) if not whole else kept.astype(values.dtype) != values
    if lost.any():
        largest = np.asarray(values[lost]).ravel()[np.argmax(np.abs(values[lost]))]
        why = "which it does not keep whole" if whole else "beyond its largest number"
        raise ValueError(
            f"{name} is computed with in {np.dtype(dtype).name}, but holds {largest:.17g}, {why}: "
            f"{more_digits(dtype)}rescale {name}."
        )


def check_not_empty(name: str, array: AnyArray) -> None:
    """Raise `ValueError` if `array` has no entries."""
    if array.size == 0:
        raise ValueError(f"{name} is empty (shape {tuple(array.shape)}); at least one is needed.")


def check_positive(name: str, value: float, *, or_zero: bool = False) -> None:
    """Raise `ValueError` unless `value` is finite and > 0 (or ≥ 0 with `or_zero`)."""
    if isinstance(value, str):
        raise ValueError(f"{name} must be a number, but is {value!r}.")
    if not (_is_finite(value) and (value > 0 or (or_zero and value == 0))):
        wanted = "zero or positive" if or_zero else "positive"
        raise ValueError(f"{name} must be {wanted} and finite, but is {value}.")


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond all floating ones
        return False


def check_fraction(name: str, value: float) -> None:
    """Raise `ValueError` unless `value` lies between 0 and 1, both excluded."""
    if not 0 < value < 1:
        raise ValueError(f"{name} must lie between 0 and 1, but is {value}.")


def check_at_least(name: str, value: int, minimum: int) -> None:
    """Raise `ValueError` unless `value` is a whole number, and not below `minimum`."""
    if not isinstance(value, Integral):
        raise ValueError(f"{name} must be a whole number, but is {value!r}.")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, but is {value}.")


LARGEST_SEED = 2**32 - 1
"""What every generator of random numbers takes."""


def check_seed(name: str, value: int) -> None:
    """Raise `ValueError` unless a seed is a whole number from 0 to 2³² − 1."""
    check_at_least(name, value, 0)
    if value > LARGEST_SEED:
        raise ValueError(f"{name} must be at most {LARGEST_SEED}, but is {value}.")


def check_text(name: str, value: str) -> None:
    """Raise `ValueError` if a text cannot be kept in files: it holds NUL, or half a character."""
    if "\0" in value:
        raise ValueError(f"{name} must be text without NUL characters, but is {value!r}.")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(
            f"{name} must be text that UTF-8 has, but {value!r} holds half of a surrogate pair."
        ) from None


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """Raise `ValueError` unless `value` is one of `choices`, naming the closest ones."""
    if value not in choices:
        close = [choice for choice in choices if value and choice.startswith(value)][:3]
        close = close or get_close_matches(value, choices, n=3, cutoff=0.65)
        hint = (
            f"did you mean {' or '.join(close)}?" if close else f"choose from {', '.join(choices)}."
        )
        raise ValueError(f"unknown {name} {value!r}: {hint}")


def warn_caller(message: str) -> None:
    """Issue a `UserWarning` that points at the first line outside this package."""
    warnings.warn(message, UserWarning, skip_file_prefixes=_NOT_THE_CALLER)
