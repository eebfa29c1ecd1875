"""Ten symbols, a wait, a marker, and the ten symbols again."""

from functools import cache

import jax
import numpy as np
import pytest

from jax_lstm.tasks import CopyMemory
from jax_lstm.train.losses import BY_NAME

T = 30
TASK = CopyMemory(T)


@cache
def drawn():
    return TASK.sequences(jax.random.key(0), 400)


def test_the_targets_at_the_end_are_the_symbols_at_the_start():
    batch = drawn()
    read = np.asarray(batch.xs).argmax(axis=2)
    assert read.shape == (400, T + 20)
    np.testing.assert_array_equal(np.asarray(batch.xs).sum(axis=2), 1)
    np.testing.assert_array_equal(batch.targets[:, -10:], read[:, :10])
    assert (np.asarray(batch.targets)[:, :-10] == 0).all()
    assert (read[:, 10 + T - 1] == 9).all()
    assert (np.delete(read, [*range(10), 10 + T - 1], axis=1) == 0).all()
    np.testing.assert_allclose(np.bincount(read[:, :10].ravel(), minlength=9)[1:] / 4000, 1 / 8, atol=0.02)


def test_the_baseline_is_the_loss_of_guessing_at_the_right_time():
    batch = drawn()
    certain, guess = np.full(9, -50.0, np.float32), np.zeros(9, np.float32)
    certain[0], guess[0] = 50, -50
    ys = np.where((np.arange(T + 20) < T + 10)[:, None], certain, guess)
    loss = BY_NAME[TASK.loss](np.broadcast_to(ys, (400, T + 20, 9)), batch.targets, batch.weights)
    np.testing.assert_allclose(loss, TASK.baselines("test")["chance"], rtol=1e-5)


@pytest.mark.parametrize(("lag", "published"), [(50, 0.2971), (100, 0.1733)])
def test_the_baseline_has_its_known_value(lag, published):
    assert CopyMemory(lag).baselines("test")["chance"] == pytest.approx(published, abs=5e-5)


def test_no_lag_is_refused():
    with pytest.raises(ValueError, match="lag must be at least 1, but is 0"):
        CopyMemory(0)
