"""Holes of inputs: filled and flagged."""

import numpy as np
import pytest

from jax_lstm.data.holes import columns_with_holes, fill

XS = np.array([[1, np.nan, 3], [np.nan, np.nan, 4], [5, 6, np.nan], [np.nan, 7, 8], [np.nan, np.nan, 9]])
STARTS = np.array([0, 3, 5])
MEAN = np.array([10.0, 20.0, 30.0])


@pytest.mark.parametrize(
    ("how", "filled"),
    [
        ("mean", [[1, 20, 3], [10, 20, 4], [5, 6, 30], [10, 7, 8], [10, 20, 9]]),
        ("last", [[1, 20, 3], [1, 20, 4], [5, 6, 4], [10, 7, 8], [10, 7, 9]]),
    ],
)
def test_holes_are_filled_and_flagged(how, filled):
    found = fill(XS, STARTS, MEAN, (0, 2), how)
    np.testing.assert_array_equal(found[:, :3], filled)
    np.testing.assert_array_equal(found[:, 3:], np.isnan(XS)[:, [0, 2]])
    assert fill(XS, STARTS, MEAN, (), how).shape == (5, 3)


def test_the_flagged_columns_are_those_with_holes_in_the_rows():
    assert columns_with_holes(XS) == (0, 1, 2)
    assert columns_with_holes(XS[:1]) == (1,)
    assert columns_with_holes(XS[:0]) == ()
