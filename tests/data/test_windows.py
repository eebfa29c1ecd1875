"""Windows: every step is covered, none crosses the end of a sequence."""

import numpy as np
import pytest

from jax_lstm.data.windows import cut_windows, rows_of, with_weight

STARTS, LENGTHS = np.array([0, 7, 10, 10]), np.array([7, 3, 0, 12])


@pytest.mark.parametrize(("window", "stride"), [(None, None), (3, None), (3, 1), (4, 2), (12, 5), (50, None)])
def test_windows_cover_every_step_of_their_sequence(window, stride):
    windows = cut_windows(STARTS, LENGTHS, window, stride)
    covered = {}
    for start, length in zip(*windows, strict=True):
        n = max(n for n in range(4) if STARTS[n] <= start and LENGTHS[n])
        assert start + length <= STARTS[n] + LENGTHS[n]
        assert length == min(window or LENGTHS[n], LENGTHS[n])
        covered.setdefault(n, set()).update(range(start, start + length))
    assert covered == {n: set(range(STARTS[n], STARTS[n] + LENGTHS[n])) for n in (0, 1, 3)}


def test_the_last_window_ends_at_the_end_of_the_sequence():
    assert cut_windows(np.array([5]), np.array([10]), 4, 3).starts.tolist() == [5, 8, 11]
    assert cut_windows(np.array([5]), np.array([11]), 4, 3).starts.tolist() == [5, 8, 11, 12]
    assert cut_windows(np.array([5]), np.array([8]), 4).starts.tolist() == [5, 9]
    assert cut_windows(np.array([0]), np.array([0])).starts.tolist() == []


def test_short_windows_repeat_their_last_row():
    windows = cut_windows(STARTS, LENGTHS, 4)
    rows = rows_of(windows)
    assert rows[:3].tolist() == [[0, 1, 2, 3], [3, 4, 5, 6], [7, 8, 9, 9]]


def test_windows_without_weight_after_the_warmup_are_left_out():
    windows = cut_windows(np.array([0]), np.array([12]), 4)
    weights = np.array([1, 1, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0])
    assert with_weight(windows, weights, 0).starts.tolist() == [0, 4]
    assert with_weight(windows, weights, 2).starts.tolist() == [4]
    assert with_weight(windows, weights, 9).starts.tolist() == []
