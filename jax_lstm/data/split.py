"""Split data into parts: sequences by a fixed shuffle, steps in the order of time.

The shuffle sorts the rows by the SHA-256 of "seed row". It needs no random generator, so it is the same in every
version of every library.
"""

import hashlib
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int


def split_rows(
    count: int, fractions: Sequence[float] = (0.7, 0.15, 0.15), seed: int = 0
) -> tuple[Int[np.ndarray, " n"], ...]:
    """Split the rows 0 to count − 1 at random: the same split for the same arguments, everywhere.

    Args:
        count: the number of rows.
        fractions: the share of each part, such as training, validation and test; their sum is 1.
        seed: another seed gives another shuffle.

    Returns:
        One array of row numbers per fraction, each in ascending order and with at least one row.

    Raises:
        ValueError: the fractions are not positive with the sum 1, or there are too few rows for every part to have one.
    """
    order = np.array(sorted(range(count), key=lambda row: hashlib.sha256(f"{seed} {row}".encode()).digest()), np.int32)
    return tuple(np.sort(order[part]) for part in _parts("split_rows", "rows", count, fractions))


def split_steps(T: int, fractions: Sequence[float] = (0.7, 0.15, 0.15)) -> tuple[slice, ...]:
    """Split the steps 0 to T − 1 in the order of time: the first part is the earliest.

    Args:
        T: the number of steps.
        fractions: the share of each part; their sum is 1.

    Returns:
        One slice per fraction, each with at least one step.

    Raises:
        ValueError: the fractions are not positive with the sum 1, or there are too few steps for every part to have
            one.
    """
    return _parts("split_steps", "steps", T, fractions)


def _parts(caller: str, what: str, count: int, fractions: Sequence[float]) -> tuple[slice, ...]:
    """Consecutive slices of these shares, each with at least one entry."""
    shares = [float(share) for share in fractions]
    if not shares or min(shares) <= 0 or not math.isclose(sum(shares), 1, abs_tol=1e-6):
        raise ValueError(
            f"{caller}: fractions must be positive numbers with the sum 1, but are {tuple(shares)}; for example "
            "(0.7, 0.15, 0.15)"
        )
    if count < len(shares):
        raise ValueError(
            f"{caller}: wanted at least {len(shares)} {what}, one for each of {len(shares)} parts, but got {count}; "
            "give more data or fewer parts"
        )
    sizes = np.diff([round(end * count) for end in np.cumsum([0, *shares]).tolist()])
    while not sizes.all():  # few rows: the largest part gives one up
        sizes[sizes.argmin()] += 1
        sizes[sizes.argmax()] -= 1
    sizes, ends = sizes.tolist(), np.cumsum(sizes).tolist()
    return tuple(slice(end - size, end) for end, size in zip(ends, sizes, strict=True))
