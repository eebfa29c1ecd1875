"""Sequences stored without padding, and the batches gathered from them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_lstm.data.arrays import sequences_of
from jax_lstm.data.sequences import joined
from jax_lstm.data.targets import rows_that_count
from jax_lstm.data.values import Wanted, valid_places

RNG = np.random.default_rng(0)
LENGTHS = np.array([4, 1, 3, 0, 4])
N, T, I, O = 5, 4, 2, 1
XS, YS = RNG.normal(size=(N, T, I)).astype(np.float32), RNG.normal(size=(N, T, O)).astype(np.float32)
WEIGHTS = RNG.random((N, T)).astype(np.float32)
MASK = np.arange(T)[None] < LENGTHS[:, None]
WANT = Wanted("test", kind="numbers")


def listed(a):
    return [row[:length] for row, length in zip(a, LENGTHS, strict=True)]


PADDED = sequences_of(WANT, XS, YS, lengths=LENGTHS, weights=WEIGHTS)
LISTED = sequences_of(WANT, listed(XS), listed(YS), weights=listed(WEIGHTS))


@pytest.mark.parametrize("data", [PADDED, LISTED], ids=["array", "list"])
@pytest.mark.parametrize("on_device", [False, True])
def test_a_batch_has_the_rows_that_were_asked_for(data, on_device):
    rows, present = np.array([2, 0, 3, 2]), np.array([True, True, True, False])
    data = data.on_device() if on_device else data
    batch = data.take(jnp.asarray(rows) if on_device else rows, present=present)
    np.testing.assert_array_equal(batch.mask, MASK[rows])
    np.testing.assert_array_equal(batch.weights, np.where(MASK[rows] & present[:, None], WEIGHTS[rows], 0))
    for got, want in ((batch.xs, XS), (batch.targets, YS)):
        np.testing.assert_array_equal(np.asarray(got)[MASK[rows]], want[rows][MASK[rows]])
    assert isinstance(batch.xs, jax.Array) == on_device
    assert data.take(rows[:1], 2).xs.shape == (1, 2, I)


def test_even_sequences_have_no_mask():
    data = sequences_of(WANT, XS, YS[:, 0])
    batch = data.take(np.array([1, 3]))
    assert batch.mask is None
    assert batch.weights is None
    np.testing.assert_array_equal(batch.xs, XS[[1, 3]])
    np.testing.assert_array_equal(data.take(np.array([1, 3]), present=np.array([True, False])).weights, [1, 0])


def test_parts_are_joined_in_their_order():
    other = sequences_of(WANT, XS[:2, :3], YS[:2, :3])
    both = joined([LISTED, other])
    assert len(both) == N + 2
    for row, (xs, ys) in enumerate(
        [*zip(listed(XS), listed(YS), strict=True), *zip(XS[:2, :3], YS[:2, :3], strict=True)]
    ):
        batch: Any = both.take(np.array([row]))
        np.testing.assert_array_equal(batch.xs[batch.mask], xs)
        np.testing.assert_array_equal(batch.targets[batch.mask], ys)
        np.testing.assert_array_equal(batch.weights[batch.mask], WEIGHTS[row, : len(xs)] if row < N else 1)


def test_data_on_the_device_are_a_copy():
    xs, ys = XS.copy(), YS.copy()
    for data in (sequences_of(WANT, xs, ys), sequences_of(WANT, [xs[0]], [ys[0]])):
        here = data.on_device()
        before = np.array(here.xs), np.array(here.targets)
        xs[:], ys[:] = 7, 8
        np.testing.assert_array_equal(here.xs, before[0])
        np.testing.assert_array_equal(here.targets, before[1])
        assert (before[0] != 7).all()
        xs[:], ys[:] = XS, YS


def test_arrays_of_32_bits_are_not_copied_on_the_host():
    assert np.shares_memory(sequences_of(WANT, XS, YS).xs, XS)
    assert not np.shares_memory(sequences_of(WANT, XS.astype(np.float64), YS).xs, XS)


def test_places_and_rows_that_count():
    np.testing.assert_array_equal(valid_places(PADDED), MASK.ravel())
    assert valid_places(LISTED).all()
    missing = np.where(np.arange(N)[:, None, None] == 1, np.nan, YS)
    for data in (
        sequences_of(WANT, XS, missing, lengths=LENGTHS, weights=WEIGHTS * (np.arange(N) != 4)[:, None]),
        sequences_of(WANT, listed(XS), listed(missing), weights=listed(WEIGHTS * (np.arange(N) != 4)[:, None])),
    ):
        assert rows_that_count(data).tolist() == [True, False, True, False, False]


def test_numbers_too_large_for_32_bits_are_refused():
    with pytest.raises(ValueError, match=r"inputs must be finite, but inputs\[0, 0, 0\] .* is inf"):
        sequences_of(WANT, np.full((1, 2, 1), 1e300))
    with pytest.raises(ValueError, match="inputs must hold integers of 32 bits, but holds 1099511627776"):
        sequences_of(WANT, np.full((1, 2, 1), 2**40))
