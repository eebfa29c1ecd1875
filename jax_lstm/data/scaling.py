"""Scale every column to mean 0 and standard deviation 1, and back.

    scaled = (value − mean) / scale        value = scaled · scale + mean

Mean and standard deviation are those of the training part. A constant column has scale 1.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Self

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32

CHUNK = 1 << 20  # numbers that are converted to float64 at a time
PRECISE = 1e5  # the largest mean over deviation that float32 holds with two digits of the deviation


class Scaling(NamedTuple):
    """Mean and scale of the I columns of the inputs and the O columns of the targets; NumPy arrays."""

    input_mean: Float32[np.ndarray, " I"]
    input_scale: Float32[np.ndarray, " I"]
    target_mean: Float32[np.ndarray, " O"]
    """(O,), or (1,) where the targets are classes: they are not scaled."""
    target_scale: Float32[np.ndarray, " O"]

    def inputs(self, xs: Any) -> Any:
        """Scale inputs (..., I), a NumPy or JAX array; the result is of the same kind and has the same float dtype."""
        return _scaled(xs, self.input_mean, self.input_scale)

    def targets(self, ys: Any) -> Any:
        """Scale targets (..., O), a NumPy or JAX array."""
        return _scaled(ys, self.target_mean, self.target_scale)

    def unscaled(self, ys: Any) -> Any:
        """Outputs or targets (..., O) in their original units, the inverse of `targets`."""
        ys = _floats(ys)
        return ys * _like(self.target_scale, ys) + _like(self.target_mean, ys)

    def to_dict(self) -> dict[str, list[float]]:
        """The four arrays as lists of numbers, for JSON; `from_dict` gives back the same float32 numbers."""
        return {name: [float(x) for x in values] for name, values in self._asdict().items()}

    @classmethod
    def from_dict(cls, values: dict[str, list[float]]) -> Self:
        """The scaling that `to_dict` wrote.

        Raises:
            ValueError: an array is missing, or there is one of another name.
        """
        if set(values) != set(cls._fields):
            raise ValueError(
                f"Scaling.from_dict: wanted {', '.join(cls._fields)}, but got {', '.join(sorted(values)) or 'nothing'}"
            )
        return cls(**{name: np.asarray(values[name], np.float32) for name in cls._fields})


def fit_scaling(
    inputs: Any,
    targets: Any = None,
    mask: Any = None,
    weights: Any = None,
    scale_inputs: bool = True,
    scale_targets: bool = True,
) -> Scaling:
    """Measure the mean and the standard deviation of each column. Sums are float64.

    Left out are NaN, steps where `mask` is False, and targets with weight 0.

    Args:
        inputs: (..., I) numbers, or a list of such arrays, one per sequence.
        targets: (..., O) numbers, one row per sequence or per step; a list where `inputs` is one; integers are classes.
            Classes and None are not scaled.
        mask: bools of the shape of inputs without the last axis, or a list. None: all steps count.
        weights: numbers of the shape of targets, or of targets without the last axis; or a list. None: all count.
        scale_inputs: False: leave the inputs as they are (mean 0, scale 1).
        scale_targets: the same for the targets.

    Returns:
        The scaling, float32.

    Raises:
        ValueError: a column has no number that counts, or its mean or deviation is not a finite float32.
    """
    columns = _list(inputs)[0].shape[-1]
    mean, scale = _moments("inputs", inputs, mask, columns) if scale_inputs else _identity(columns)
    first = None if targets is None else _list(targets)[0]
    if first is None or np.issubdtype(first.dtype, np.integer):
        return Scaling(mean, scale, *_identity(1))
    O = first.shape[-1]
    if not scale_targets:
        return Scaling(mean, scale, *_identity(O))
    masks = [None] * len(_list(targets)) if mask is None else _list(mask)
    # The mask is that of the steps: it does not apply to targets of whole sequences.
    per_step = [
        m if m is not None and m.shape == t.shape[:-1] else None for m, t in zip(masks, _list(targets), strict=True)
    ]
    counts = _both(per_step, None if weights is None else [np.asarray(w) > 0 for w in _list(weights)])
    return Scaling(mean, scale, *_moments("targets", targets, counts, O))


def _both(masks: Sequence[Any], weighted: Sequence[Any] | None) -> Sequence[Any]:
    """Where both count; None: everywhere."""
    if weighted is None:
        return masks
    both = []
    for m, w in zip(masks, weighted, strict=True):
        both.append(w if m is None else w & (m[..., None] if w.ndim > m.ndim else m))
    return both


def _moments(name: str, values: Any, counts: Any, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column over the rows that count."""
    n, total = np.zeros(columns), np.zeros(columns)
    least, most = np.full(columns, np.inf), np.full(columns, -np.inf)
    for chunk in _chunks(values, counts):
        with np.errstate(over="ignore", invalid="ignore"):
            sums = chunk.sum(axis=0)
            missing = np.isnan(chunk).sum(axis=0) if np.isnan(sums).any() else 0
            n += len(chunk) - missing
            total += np.nansum(chunk, axis=0) if np.any(missing) else sums
        least, most = np.fmin(least, np.fmin.reduce(chunk)), np.fmax(most, np.fmax.reduce(chunk))
    if not n.all():
        raise ValueError(
            f"fit_scaling: every column of {name} must have a number that counts, but column {int(n.argmin())} has "
            "none; leave the column out"
        )
    mean, squares = total / n, np.zeros(columns)
    for chunk in _chunks(values, counts):
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused below
            chunk -= mean
            squares += np.nansum(np.square(chunk, out=chunk), axis=0)
    # A constant column is found by its least and largest value: rounding leaves its deviation a little above 0.
    constant = least == most
    scale = np.where(constant, 1.0, np.sqrt(squares / n))
    mean = np.where(constant, least, mean)
    with np.errstate(over="ignore"):
        mean32, scale32 = mean.astype(np.float32), scale.astype(np.float32)
    bad = ~(np.isfinite(mean32) & np.isfinite(scale32) & (scale32 > 0))
    if bad.any():
        k = int(bad.argmax())
        raise ValueError(
            f"fit_scaling: the mean and deviation of {name} must be finite float32 numbers, but are {mean[k]:g} and "
            f"{scale[k]:g} in column {k}; remove infinite numbers, or change the unit"
        )
    return mean32, scale32


def _chunks(values: Any, counts: Any) -> Iterator[np.ndarray]:
    """The rows (n, columns) as float64, a few at a time; what does not count is NaN."""
    arrays = _list(values)
    for a, m in zip(arrays, [None] * len(arrays) if counts is None else _list(counts), strict=True):
        rows = a.reshape(-1, a.shape[-1])
        here = None if m is None else np.asarray(m).reshape(len(rows), -1) if m.size else np.ones((0, 1), bool)
        size = max(1, CHUNK // max(1, rows.shape[1]))
        for start in range(0, len(rows), size):
            chunk = rows[start : start + size].astype(np.float64)
            yield chunk if here is None else np.where(here[start : start + size], chunk, np.nan)


def _identity(columns: int) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(columns, np.float32), np.ones(columns, np.float32)


def _list(values: Any) -> list[Any]:
    """The arrays of a list as NumPy arrays; one array as a list of one."""
    return (
        [None if v is None else np.asarray(v) for v in values]
        if isinstance(values, list | tuple)
        else [np.asarray(values)]
    )


def _scaled(xs: Any, mean: np.ndarray, scale: np.ndarray) -> Any:
    xs = _floats(xs)
    return (xs - _like(mean, xs)) / _like(scale, xs)


def _floats(a: Any) -> Any:
    """The array itself; integers and bools as float32."""
    return a if jnp.issubdtype(a.dtype, jnp.floating) else a.astype(np.float32)


def _like(column: np.ndarray, a: Any) -> np.ndarray:
    """A column of numbers with the rank and dtype of `a`, so that no promotion is needed."""
    return column.astype(a.dtype).reshape((1,) * (a.ndim - 1) + column.shape)
