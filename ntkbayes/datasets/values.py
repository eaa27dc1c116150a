"""Numbers out of whatever users hold them in; what is none is refused by name.

Arrays, nested lists, data frames and series, with pandas' nullable types, are read alike. What has
no value (NaN, None, pandas' NA, an entry hidden by a mask) is never turned into one.
"""

import numbers
from collections.abc import Iterable
from typing import Any

import numpy as np

from ntkbayes._checks import check_finite, check_kept, check_unmasked

__all__ = [
    "check_same_index",
    "column_rounding",
    "is_constant",
    "is_missing",
    "kind_of_dtype",
    "number_array",
    "plain_array",
]

_ADVICE = {
    "text": "encode it first (one column per value, as scikit-learn's OneHotEncoder) or drop it",
    "times": "make numbers of it, such as days since a first day",
    "complex numbers": "pass real and imaginary parts as two columns",
    "bytes": "decode it, and encode the text",
}
"""What to do about columns that hold no real numbers."""
_ROUNDINGS = 16
"""By how many roundings of its type a number that was computed may be off."""
_KINDS = {
    "U": "text",
    "T": "text",
    "S": "bytes",
    "M": "times",
    "m": "times",
    "c": "complex numbers",
}


def number_array(name: str, values: Any) -> np.ndarray:
    """Return finite real numbers as float64.

    Raises
    ------
    ValueError
        If entries are missing, hidden by a mask, not finite or no numbers, in words that say
        where; or if rows differ in length.
    """
    check_unmasked(name, values)
    frame = _as_frame(values)
    if frame is not None:
        _check_columns(name, frame)
        if "object" in map(str, frame.dtypes):
            array = _unboxed(name, frame.to_numpy(dtype=object))
        else:
            array = frame.to_numpy(dtype=float, na_value=np.nan)
        _check_finite_columns(name, frame.columns, array)
    else:
        array = plain_array(name, values)
    if array.dtype.kind == "O":
        array = _unboxed(name, array)
    if array.dtype.kind not in "biuf":
        what = kind_of_dtype(array.dtype)
        advice = f": {_ADVICE[what]}" if what in _ADVICE else ""
        if array.dtype.kind in "UT" and _reads_as_numbers(array):
            advice = ": these are numbers as text, pass them with .astype(float)"
        raise ValueError(f"{name} must hold real numbers, but holds {what}{advice}.")
    check_finite(name, array)
    check_kept(name, array, np.float64)
    return array.astype(np.float64)


def column_rounding(values: Any) -> np.ndarray | float:
    """Return the relative rounding of the type that values come in: of each column of a frame."""
    frame = _as_frame(values)
    if frame is not None:
        return np.array([_rounding(getattr(t, "numpy_dtype", t)) for t in frame.dtypes])
    return _rounding(getattr(values, "dtype", np.float64))


def is_constant(values: np.ndarray, rounding: np.ndarray | float) -> np.ndarray:
    """Whether columns (n d), or values (n,), do not vary by more than rounding does.

    `rounding` is that of the type the values came in; that of n numbers in float64, which is
    scikit-learn's bound in `StandardScaler`, is allowed in any case.
    """
    if len(values) == 0:
        return np.ones(values.shape[1:], bool)
    size = np.abs(values).max(axis=0)
    allowed = np.maximum(_ROUNDINGS * rounding, len(values) * np.finfo(float).eps) * size
    lowest, highest = values.min(axis=0), values.max(axis=0)
    return np.asarray(highest / 2 - lowest / 2 <= allowed / 2)  # the range itself may overflow


def kind_of_dtype(dtype: np.dtype) -> str:
    """Say in words what an array holds that holds no numbers."""
    return _KINDS.get(dtype.kind, f"entries of type {dtype}")


def _rounding(dtype: Any) -> float:
    kind = getattr(dtype, "kind", "")
    narrow = kind == "f" and dtype.itemsize < 8
    return float(np.finfo(dtype if narrow else np.float64).eps)


def _as_frame(values: Any) -> Any:
    """Return the data frame of pandas that values are; None if they are none."""
    if not hasattr(values, "to_numpy"):
        return None
    import pandas as pd  # slow, and only needed by those who have it already

    return values if isinstance(values, pd.DataFrame) else None


def check_same_index(name: str, values: Any, other_name: str, others: Any) -> None:
    """Raise `ValueError` if two of pandas' objects have the same index in another order."""
    first, second = (_index(each) for each in (values, others))
    if first is None or second is None or len(first) != len(second) or first.equals(second):
        return
    if not len(first.symmetric_difference(second)):
        raise ValueError(
            f"{name} and {other_name} must have their rows in one order, but have one index in "
            f"two: use {other_name}.loc[{name}.index], or to_numpy() of both if positions count."
        )


def _index(values: Any) -> Any:
    """Return the index of a frame or series; a list has a method of that name."""
    return values.index if hasattr(values, "to_numpy") and hasattr(values, "index") else None


def _check_columns(name: str, frame: Any) -> None:
    """Raise `ValueError` unless a frame's columns hold real numbers, saying what to do."""
    every = [(column, series.dtype, _what_is_held(series)) for column, series in frame.items()]
    others = [(column, dtype, what) for column, dtype, what in every if what != "real numbers"]
    if not others:
        return
    column, dtype, what = others[0]
    advice = f": {_ADVICE[what]}" if what in _ADVICE else ""
    more = _listed([f"{other!r} ({kind})" for other, _, kind in others[1:]])
    raise ValueError(
        f"{name} must hold real numbers, but its column {column!r} has dtype {dtype} and holds "
        f"{what}{advice}." + (f" Other columns without numbers: {more}." if more else "")
    )


def _check_finite_columns(name: str, columns: Any, array: np.ndarray) -> None:
    """Raise `ValueError` if numbers of a frame are not finite, by the names of their columns."""
    counts = (~np.isfinite(array)).sum(axis=0)
    if counts.any():
        found = [f"{columns[k]!r} ({counts[k]})" for k in np.flatnonzero(counts)]
        raise ValueError(
            f"{name} must be finite, but has NaN or infinite values in its columns "
            f"{_listed(found)}; drop or impute them."
        )


def _listed(words: list[str], at_most: int = 10) -> str:
    """Join words by commas; of many, say how many more there are."""
    shown = ", ".join(words[:at_most])
    return shown if len(words) <= at_most else f"{shown} and {len(words) - at_most} more"


def _what_is_held(series: Any) -> str:
    """Say what a column of a frame holds."""
    import pandas as pd  # as above

    types = pd.api.types
    if types.is_numeric_dtype(series.dtype) and not types.is_complex_dtype(series.dtype):
        return "real numbers"
    if series.dtype == object:
        found = _first_that_is_no_number(series.to_numpy())
        return "real numbers" if found is None else _kind_of(found[1])
    if types.is_datetime64_any_dtype(series.dtype) or types.is_timedelta64_dtype(series.dtype):
        return "times"
    return "complex numbers" if types.is_complex_dtype(series.dtype) else "text"


def plain_array(name: str, values: Any) -> np.ndarray:
    """Return an array, in which pandas' missing numbers are NaN."""
    if hasattr(values, "to_numpy"):
        import pandas as pd  # as above

        if isinstance(values, pd.Series):
            values = values.infer_objects()
            if pd.api.types.is_numeric_dtype(values.dtype) and values.hasnans:
                return values.to_numpy(dtype=float, na_value=np.nan)
            return values.to_numpy(dtype=getattr(values.dtype, "numpy_dtype", None))
    try:
        array = np.asarray(values)
    except ValueError:
        raise ValueError(f"{name} must be an array, but its rows differ in length.") from None
    if array.shape == () and array.dtype.kind == "O":
        hint = "; pass it with .toarray()" if hasattr(values, "toarray") else ""
        raise ValueError(f"{name} must be an array, but is a {type(values).__name__}{hint}.")
    return array


def _unboxed(name: str, array: np.ndarray) -> np.ndarray:
    """Return an object array of numbers as one of floats; what is missing becomes NaN."""
    found = _first_that_is_no_number(array)
    if found is not None:
        where, value = found
        what = _kind_of(value)
        advice = f": {_ADVICE[what]}" if what in _ADVICE else ""
        raise ValueError(
            f"{name} must hold real numbers, but holds {what} ({value!r} at index {where}){advice}."
        )
    flat = [np.nan if is_missing(value) else _nearest_float(value) for value in array.flat]
    return np.array(flat, dtype=float).reshape(array.shape)


def _nearest_float(value: Any) -> float:
    """Return a number as a float, ±∞ where it is a whole one of hundreds of digits."""
    try:
        return float(value)
    except OverflowError:
        return np.inf if value > 0 else -np.inf


def _first_that_is_no_number(array: np.ndarray) -> tuple[tuple[int, ...], Any] | None:
    """Find the first entry that is neither a real number nor missing, and where it is."""
    for where, value in np.ndenumerate(array):
        if not (isinstance(value, numbers.Real | np.bool_) or is_missing(value)):
            return where, value
    return None


def is_missing(value: Any) -> bool:
    """Whether an entry of an object array is None, NaN, or pandas' NA or NaT."""
    if value is None or type(value).__name__ in ("NAType", "NaTType", "MaskedConstant"):
        return True
    return isinstance(value, numbers.Real) and value != value


def _kind_of(value: Any) -> str:
    if isinstance(value, str):
        return "text"
    if isinstance(value, bytes):
        return "bytes"
    if isinstance(value, complex | np.complexfloating):
        return "complex numbers"
    if hasattr(value, "year") or hasattr(value, "total_seconds") or hasattr(value, "hour"):
        return "times"
    return f"entries of type {type(value).__name__}"


def _reads_as_numbers(values: Iterable[str]) -> bool:
    try:
        np.asarray(values).astype(float)
    except ValueError:
        return False
    return True
