"""Split the rows of the task `series` into training, validation and test part.

By time, a row belongs to the part of the step that it predicts:

    |-------- training --------|-- validation --|-- test --|     the steps of a sequence
    windows                    |                |                training: windows that end before the validation part
    state only ----------------| scored         |                validation: from the start of the sequence
    state only ---------------------------------| scored         test: from the start of the sequence

If the times are dates, the two dates of the split are the same for all sequences. Otherwise each sequence is split by
its own steps. By sequence, whole sequences belong to a part.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jax_lstm.data.grouping import Rows
from jax_lstm.data.places import bad_file
from jax_lstm.data.split import split_rows, split_steps
from jax_lstm.data.windows import Windows, cut_windows, with_weight

PARTS = ("train", "validation", "test")


class Part(NamedTuple):
    """One part of the split.

    Args:
        windows: the windows of rows that are run; each has a row that counts.
        weights: 1 for the rows that count, (R,); others have 0.
    """

    windows: Windows
    weights: Float[np.ndarray, " R"]


def split_parts(task: Any, rows: Rows, known: Bool[np.ndarray, " R"]) -> tuple[dict[str, Part], Bool[np.ndarray, " R"]]:
    """Split the rows.

    Args:
        task: the task `series`.
        rows: the sequences.
        known: the rows whose target is known.

    Returns:
        The parts by name, and True at the rows of the training part, to which the scaling is fitted.
    """
    starts, T = rows.starts[:-1], rows.lengths
    position = np.arange(len(known), dtype=np.int32) - np.repeat(starts.astype(np.int32), T)
    if task.split_by == "time":
        if len(known) < len(PARTS):
            raise bad_file(task.path, f"wanted at least 3 rows, one for each part, but got {len(known)}")
        a, b = _ends(rows, task.fractions)
        own = [(0 * T, a), (a, b), (b, T)]  # the steps of each part
        ends = [a, b, T]
        before = 0  # of validation and test: the true past warms the state up
    else:
        if len(T) < len(PARTS):
            how = "name the column of the sequences as sequence" if task.sequence is None else "give more sequences"
            raise bad_file(task.path, f"wanted at least 3 sequences to split by sequence, but got {len(T)}; {how}")
        chosen = [np.isin(np.arange(len(T)), part) for part in split_rows(len(T), task.fractions)]
        own = [(0 * T, np.where(part, T, 0)) for part in chosen]
        ends = [end for _, end in own]
        before = task.warmup
    parts = {}
    for name, (first, last), end in zip(PARTS, own, ends, strict=True):
        predicted = position + task.shift
        within = (predicted >= np.repeat(first, T)) & (predicted < np.repeat(last, T))
        training = name == "train"
        counts = within & known & (position >= (0 if training else before))
        windows = cut_windows(
            starts, np.maximum(end - task.shift, 0), *((task.window, task.stride) if training else ())
        )
        weights = counts.astype(np.float32)
        windows = with_weight(windows, weights, task.warmup if training else 0)
        if not len(windows.starts):
            raise bad_file(
                task.path,
                f"wanted known targets in the {name} part, but there are none; change fractions, which are "
                f"{task.fractions}, {'ahead, ' * (task.shift > 0)}warmup or split_by",
            )
        parts[name] = Part(windows, weights)
    return parts, position < np.repeat(own[0][1], T)


def _ends(rows: Rows, fractions: tuple[float, ...]) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"]]:
    """The number of steps of each sequence before the end of the training part, and of the validation part."""
    if rows.times is not None and rows.times.dtype.kind == "M":
        in_order = np.sort(rows.times)
        _, *later = split_steps(len(in_order), fractions)
        dates = [in_order[part.start] for part in later]
        found = [[int(np.searchsorted(times, date)) for times in rows.split(rows.times)] for date in dates]
    else:
        parts = [_steps(T, fractions) for T in rows.lengths.tolist()]
        found = [[part[k].stop for part in parts] for k in (0, 1)]
    a, b = np.array(found)
    return a, b


def _steps(T: int, fractions: tuple[float, ...]) -> tuple[slice, ...]:
    """The steps of each part; a sequence with fewer steps than parts is training only."""
    return split_steps(T, fractions) if len(PARTS) <= T else (slice(0, T),) * len(PARTS)
