"""Two classes that the first three steps tell."""

from functools import cache

import jax
import numpy as np
import pytest

from jax_lstm.tasks import TwoClasses

TASK = TwoClasses(50)


@cache
def drawn():
    """Inputs (B, T), targets (B,) and mask (B, T) of one batch."""
    batch = TASK.sequences(jax.random.key(0), 2000)
    return np.asarray(batch.xs)[..., 0], np.asarray(batch.targets)[:, 0], np.asarray(batch.mask)


def test_only_the_first_three_steps_depend_on_the_class():
    X, Y, _ = drawn()
    assert set(Y.tolist()) == {np.float32(0.2), np.float32(0.8)}
    sign = np.where(Y > 0.5, -1, 1)
    np.testing.assert_allclose((X[:, :3] * sign[:, None]).mean(axis=0), 1, atol=0.05)
    assert abs((X[:, 3:50] * sign[:, None]).mean()) < 0.01
    np.testing.assert_allclose((X[:, :3] - sign[:, None]).var(), 0.2, rtol=0.05)
    np.testing.assert_allclose(X[:, 3:50].var(), 0.2, rtol=0.05)


def test_lengths_are_spread_evenly_and_the_rest_is_padding():
    X, _, mask = drawn()
    lengths = mask.sum(axis=1)
    assert set(lengths.tolist()) == set(range(50, 56))
    assert (X[~mask] == 0).all()


def test_targets_are_noisy_in_training_only():
    key = jax.random.key(1)
    noisy = np.asarray(TASK.train_batch(key, 0, 2000).targets)
    # Two normal distributions about 0.2 and 0.8, as likely: 0.3² between them, and 0.1 within.
    np.testing.assert_allclose((noisy.mean(), noisy.var()), (0.5, 0.09 + 0.1), rtol=0.07)
    assert set(np.unique(np.asarray(TASK.test().targets)).tolist()) == {np.float32(0.2), np.float32(0.8)}
    assert not np.array_equal(noisy, TASK.train_batch(key, 1, 2000).targets)


def test_a_short_length_is_refused():
    with pytest.raises(ValueError, match="shortest must be at least 10, but is 9"):
        TwoClasses(9)
