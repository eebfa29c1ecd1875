"""Splits of rows and steps."""

import hashlib

import numpy as np
import pytest

from jax_lstm.data import split_rows, split_steps


def test_rows_are_sorted_by_their_hash():
    train, validation, test = split_rows(20, (0.5, 0.25, 0.25), seed=3)
    order = sorted(range(20), key=lambda row: hashlib.sha256(f"3 {row}".encode()).digest())
    assert sorted(order[:10]) == train.tolist()
    assert sorted(order[10:15]) == validation.tolist()
    assert sorted(order[15:]) == test.tolist()
    assert (train != split_rows(20, (0.5, 0.25, 0.25), seed=4)[0]).any()


@pytest.mark.parametrize("count", [3, 4, 5, 7, 10, 100, 101])
def test_every_row_and_step_is_in_one_part(count):
    parts = split_rows(count)
    assert sorted(np.concatenate(parts).tolist()) == list(range(count))
    assert [len(part) for part in parts] == [p.stop - p.start for p in split_steps(count)]
    assert min(len(part) for part in parts) >= 1
    if count >= 10:
        np.testing.assert_allclose([len(part) / count for part in parts], (0.7, 0.15, 0.15), atol=0.06)


def test_steps_are_split_in_the_order_of_time():
    assert split_steps(100, (0.8, 0.2)) == (slice(0, 80), slice(80, 100))


@pytest.mark.parametrize("fractions", [(0.7, 0.2), (1.2, -0.2), (1.0, 0.0), ()])
def test_fractions_that_are_no_shares_are_refused(fractions):
    with pytest.raises(ValueError, match=r"split_rows: fractions must be positive numbers with the sum 1, but are \("):
        split_rows(10, fractions)


def test_too_few_rows_are_refused():
    with pytest.raises(ValueError, match="split_steps: wanted at least 3 steps, one for each of 3 parts, but got 2"):
        split_steps(2)
