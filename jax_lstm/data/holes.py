"""Fill the holes of inputs, and flag them.

    x_ti = the value, or if it is absent  the mean of column i in the training part     how = "mean"
                                          the last value of column i before t           how = "last"
    f_tj = 1 if the j-th flagged column is absent at step t, else 0

A column is flagged if it has a hole in the training part, so other data cannot change the number of features. With
"last", a hole before the first value gets the mean. After scaling, the mean is 0.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float, Int

How = Literal["mean", "last"]


def columns_with_holes(xs: Float[np.ndarray, "R I"]) -> tuple[int, ...]:
    """The columns that are flagged, given the rows of the training part."""
    return tuple(np.flatnonzero(np.isnan(xs).any(axis=0)).tolist())


def fill(
    xs: Float[np.ndarray, "R I"],
    starts: Int[np.ndarray, " N+1"],
    mean: Float[np.ndarray, " I"],
    flagged: tuple[int, ...],
    how: How,
) -> Float[np.ndarray, "R I+F"]:
    """Fill the holes of sequences, one after another, and add the flags.

    Args:
        xs: the inputs, with NaN for holes.
        starts: the first row of each of N sequences, and R at the end.
        mean: the mean of each column in the training part.
        flagged: the F columns that get a flag.
        how: "mean" or "last".

    Returns:
        The inputs without holes, then the flags.
    """
    absent = np.isnan(xs)
    filled = np.where(absent, mean, xs)
    if how == "last":
        row = np.arange(len(xs))[:, None]
        first = np.repeat(starts[:-1], np.diff(starts))[:, None]
        last = np.maximum.accumulate(np.where(absent, -1, row), axis=0)  # the last row with a value
        filled = np.where(absent & (last >= first), np.take_along_axis(filled, np.maximum(last, 0), axis=0), filled)
    return np.concatenate([filled, absent[:, list(flagged)]], axis=1)
