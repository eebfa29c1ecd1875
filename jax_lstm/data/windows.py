"""Cut sequences into windows of one length.

    window k of a sequence covers the steps from start_k to start_k + window − 1     start_k = k · stride

The last window ends at the last step, so every step is covered. A shorter sequence is one shorter window.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


class Windows(NamedTuple):
    """W windows of rows that stand one after another."""

    starts: Int[np.ndarray, " W"]
    """The first row of each window."""
    lengths: Int[np.ndarray, " W"]
    """The number of rows of each window."""


def cut_windows(
    starts: Int[np.ndarray, " N"], lengths: Int[np.ndarray, " N"], window: int | None = None, stride: int | None = None
) -> Windows:
    """Cut N sequences into windows.

    Args:
        starts: the first row of each sequence.
        lengths: the number of rows of each sequence; a sequence with 0 rows gives no window.
        window: the steps of a window; None: each sequence is one window.
        stride: the steps from one window to the next; None: the windows do not overlap, except the last of a sequence.

    Returns:
        The windows.
    """
    found = [(0, 0)][:0]
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        size = length if window is None else min(window, length)
        if size:
            last = length - size
            offsets = [*range(0, last, stride or size), last]
            found += [(start + offset, size) for offset in offsets]
    return Windows(*np.array(found, np.int64).reshape(-1, 2).T)


def rows_of(windows: Windows, chosen: Int[np.ndarray, " B"] | slice = slice(None)) -> Int[np.ndarray, "B L"]:
    """The rows of the chosen windows; a window that is shorter than L repeats its last row."""
    starts, lengths = windows.starts[chosen], windows.lengths[chosen]
    steps = np.arange(lengths.max())
    return starts[:, None] + np.minimum(steps, lengths[:, None] - 1)


def with_weight(windows: Windows, weights: Float[np.ndarray, " R"], warmup: int) -> Windows:
    """The windows in which a row after the first `warmup` steps has a weight above 0; the others teach nothing."""
    before = np.concatenate([[0], np.cumsum(weights > 0)])
    end = windows.starts + windows.lengths
    counted = before[end] > before[np.minimum(windows.starts + warmup, end)]
    return Windows(windows.starts[counted], windows.lengths[counted])
