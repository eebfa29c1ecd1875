"""The two sequences that differ in their first symbol only."""

import jax
import numpy as np
import pytest

from jax_lstm.tasks import LongLag


def test_the_first_symbol_alone_differs_and_is_the_target():
    p = 7
    batch = LongLag(p).test()
    symbols = np.asarray(batch.xs).argmax(axis=2)
    np.testing.assert_array_equal(np.asarray(batch.xs).sum(axis=2), 1)
    assert symbols.shape == (2, p)
    np.testing.assert_array_equal(symbols[:, 1:], np.tile(np.arange(p - 1), (2, 1)))
    np.testing.assert_array_equal(symbols[:, 0], batch.targets)
    assert set(batch.targets.tolist()) == {p - 1, p}


def test_a_batch_mixes_both_and_is_a_function_of_key_and_step():
    task, key = LongLag(5), jax.random.key(0)
    once, again = task.train_batch(key, 3, 200), jax.jit(task.train_batch, static_argnums=2)(key, 3, 200)
    jax.tree.map(np.testing.assert_array_equal, once, again)
    assert 60 < (np.asarray(once.targets) == 5).sum() < 140
    np.testing.assert_array_equal(np.asarray(once.xs)[:, 0].argmax(axis=1), once.targets)
    assert not np.array_equal(once.targets, task.train_batch(key, 4, 200).targets)


def test_no_lag_is_refused():
    with pytest.raises(ValueError, match="lag must be at least 2, but is 1"):
        LongLag(1)
