"""What inputs must be: finite numbers, or tokens of a vocabulary."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from jax_lstm.data.sequences import Sequences, aligned

CHUNK = 1 << 20  # numbers that are checked at a time
Kind = Literal["classes", "numbers"]


@dataclass(frozen=True)
class Wanted:
    """What the data must be.

    Args:
        caller: the function that error messages name.
        features: I, the features of a step; None: any number, or tokens.
        vocabulary: the number of tokens; None: the inputs are features.
        kind: what the targets are: classes (integers) or numbers (floats); None: either.
        outputs: O, the number of outputs or classes; None: not known.
        prefix: what the names of arguments begin with in error messages, such as "validation ".
    """

    caller: str
    features: int | None = None
    vocabulary: int | None = None
    kind: Kind | None = None
    outputs: int | None = None
    prefix: str = ""

    def error(self, name: str, rest: str) -> str:
        """An error message about an argument."""
        return f"{self.caller}: {(self.prefix + name).strip()} {rest}"


def array_of(want: Wanted, name: str, value: Any) -> np.ndarray:
    """A NumPy array of numbers or bools, which shares memory with `value` where possible."""
    if isinstance(value, str | bytes | dict) or not (hasattr(value, "__array__") or isinstance(value, list | tuple)):
        raise TypeError(want.error(name, f"must be an array of numbers, but is a {type(value).__name__}"))
    try:
        a = np.asarray(value)
    except ValueError as error:  # nested lists of different lengths
        raise ValueError(want.error(name, f"must be an array, but {error}; make one array per sequence")) from None
    except Exception as error:
        raise TypeError(want.error(name, f"could not be converted to a NumPy array: {error}")) from error
    if a.dtype == np.bool_ or jnp.issubdtype(a.dtype, jnp.integer) or holds_floats(a):
        if not holds_floats(a) and a.dtype.itemsize > 4 and a.size and not -(2**31) <= a.min() <= a.max() < 2**31:
            raise ValueError(want.error(name, f"must hold integers of 32 bits, but holds {a.max()}; cast to floats"))
        return a
    advice = "cast it, for example astype(np.float32)"
    if a.dtype == object:
        advice = "it mixes types or lengths: pass a list of arrays, one per sequence"
    elif a.dtype.kind in "US":
        advice = "number the classes, for example with np.unique(labels, return_inverse=True)"
    elif a.dtype.kind in "mM":
        advice = "convert times to numbers, for example hours since the start"
    raise TypeError(want.error(name, f"must hold numbers, but holds {a.dtype}; {advice}"))


def stored(arrays: list[np.ndarray]) -> np.ndarray:
    """Arrays one after another, in one dtype of at most 32 bits: float32 where a list mixes dtypes.

    One array that has such a dtype is not copied.
    """
    dtypes = {_narrow(a.dtype) for a in arrays}
    dtype = dtypes.pop() if len(dtypes) == 1 else np.dtype(np.float32)
    if len(arrays) == 1 and arrays[0].dtype == dtype:
        return arrays[0]
    made = aligned((sum(len(a) for a in arrays), *arrays[0].shape[1:]), dtype)
    with np.errstate(over="ignore"):  # a number that becomes infinite is refused with its place
        np.concatenate(arrays, out=made, casting="unsafe")
    return made


def shares(a: np.ndarray, given: Any) -> bool:
    """Whether an array shares memory with what the caller gave, an array or a list of arrays."""
    if not isinstance(given, list | tuple):
        return np.may_share_memory(a, np.asarray(given))
    return len(given) == 1 and np.may_share_memory(a, np.asarray(given[0]))


def _narrow(dtype: np.dtype) -> np.dtype:
    if dtype.itemsize <= 4:
        return dtype
    return np.dtype(np.float32) if jnp.issubdtype(dtype, jnp.floating) else np.dtype(np.int32)


def valid_places(data: Sequences) -> Bool[np.ndarray, " P"]:
    """Which places are steps of a sequence: neither padding nor masked."""
    sizes = np.diff([*data.starts.tolist(), len(data.xs)])
    valid = np.ones(len(data.xs), bool)
    if not (sizes == data.lengths).all():  # of an array (N, T): all sequences have the same number of places
        valid = (np.arange(sizes.max(), dtype=np.int32)[None] < data.lengths[:, None]).reshape(-1)[: len(data.xs)]
    return valid if data.mask is None else valid & data.mask


def check_inputs(want: Wanted, data: Sequences, ragged: bool) -> None:
    """Refuse values that are not finite, and tokens outside the vocabulary, at steps that are not padding."""
    floats, tokens = holds_floats(data.xs), want.vocabulary
    if not floats and tokens is None:
        return
    for first, xs in pieces(data.xs):
        wrong = ~np.isfinite(xs) if floats else (xs < 0) | (xs >= (tokens or 0))
        for place in _first(data, first + np.flatnonzero(wrong.reshape(len(xs), -1).any(axis=1))):
            feature = [] if xs.ndim == 1 else [int(wrong[place - first].argmax())]
            at, where = place_of("inputs", data, place, feature, ragged)
            value = data.xs[(place, *feature)]
            if floats:
                raise ValueError(
                    want.error("inputs", f"must be finite, but {at} ({where}) is {value}; fill it, for example with "
                               "the mean of the training rows, or mask the step")
                )  # fmt: skip
            raise ValueError(
                want.error("inputs", f"must be tokens from 0 to {(tokens or 0) - 1}, but {at} ({where}) is {value}")
            )


def holds_floats(a: Any) -> bool:
    return bool(jnp.issubdtype(a.dtype, jnp.floating))


def _first(data: Sequences, places: np.ndarray) -> list[int]:
    """The first of these places that is a step of a sequence, as a list of at most one."""
    if not len(places):
        return []
    rows = np.searchsorted(data.starts, places, side="right") - 1
    real = places - data.starts[rows] < data.lengths[rows]
    real = real if data.mask is None else real & data.mask[places]
    return places[real][:1].tolist()


def place_of(name: str, data: Sequences, place: int, feature: list[int], ragged: bool) -> tuple[str, str]:
    """A place as Python code and in words."""
    row = int(np.searchsorted(data.starts, place, side="right")) - 1
    step = place - int(data.starts[row])
    code = f"{name}[{row}]{[step, *feature]}" if ragged else f"{name}{[row, step, *feature]}"
    return code, f"row {row}, step {step}" + "".join(f", feature {k}" for k in feature)


def pieces(a: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """A large array in parts, so that no copy of all of it is made; with the place of each part."""
    size = max(1, CHUNK // max(1, int(np.prod(a.shape[1:]))))
    for first in range(0, len(a), size):
        yield first, a[first : first + size]
