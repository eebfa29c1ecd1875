"""The adding task: its sequences, their sums, and the baseline that they imply."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_lstm.tasks import Adding


@pytest.mark.parametrize("T", [2, 7, 100])
def test_each_half_of_a_sequence_has_exactly_one_mark(T):
    xs = np.asarray(Adding(T).sequences(jax.random.key(0), 200).xs)
    marks = xs[:, :, 1]
    assert set(np.unique(marks)) <= {0.0, 1.0}
    np.testing.assert_array_equal(marks[:, : T // 2].sum(axis=1), 1)
    np.testing.assert_array_equal(marks[:, T // 2 :].sum(axis=1), 1)


def test_every_step_of_a_half_is_marked_about_equally_often():
    marks = np.asarray(Adding(10).sequences(jax.random.key(1), 5_000).xs)[:, :, 1].mean(axis=0)
    # A share of 1/5 over 5,000 sequences has a standard deviation of 0.0057.
    np.testing.assert_allclose(marks, 0.2, atol=5 * 0.0057)


def test_the_target_is_the_sum_of_the_two_marked_values():
    batch = Adding(20).sequences(jax.random.key(2), 50)
    values, marks = np.asarray(batch.xs[:, :, 0]), np.asarray(batch.xs[:, :, 1])
    for b in range(50):
        first, second = np.flatnonzero(marks[b])
        np.testing.assert_allclose(batch.targets[b, 0], values[b, first] + values[b, second], rtol=1e-6)


def test_values_are_in_0_to_1_and_unmarked_ones_do_not_matter():
    batch = Adding(20).sequences(jax.random.key(3), 500)
    values, marks = np.asarray(batch.xs[:, :, 0]), np.asarray(batch.xs[:, :, 1])
    assert values.min() >= 0
    assert values.max() < 1
    unmarked = np.where(marks == 0, values, 0).sum(axis=1)
    assert abs(np.corrcoef(unmarked, batch.targets[:, 0])[0, 1]) < 0.2


def test_the_best_constant_prediction_has_the_baseline_error():
    task = Adding(10)
    y = np.asarray(task.sequences(jax.random.key(4), 100_000).targets, np.float64)
    # The squared deviation of a sum of two uniforms has a standard deviation of about 0.2: 0.0006 over 100,000.
    assert abs(np.mean((y - 1) ** 2) - 1 / 6) < 5 * 0.0007
    assert task.baselines("test") == {"always the mean": 1 / 6}
    assert np.mean((y - y.mean()) ** 2) <= np.mean((y - 1) ** 2)


def test_a_batch_is_a_pure_function_of_key_and_step():
    task, key = Adding(12), jax.random.key(5)
    once, again = task.train_batch(key, 3, 4), jax.jit(task.train_batch, static_argnums=2)(key, 3, 4)
    np.testing.assert_array_equal(once.xs, again.xs)
    np.testing.assert_array_equal(once.targets, again.targets)
    assert not np.array_equal(once.xs, task.train_batch(key, 4, 4).xs)
    assert not np.array_equal(once.xs, task.train_batch(jax.random.key(6), 3, 4).xs)


def test_validation_and_test_sequences_are_fixed_and_differ():
    task = Adding(12)
    np.testing.assert_array_equal(task.test().xs, Adding(12).test().xs)
    validation, test = np.asarray(task.validation().xs), np.asarray(task.test().xs)
    rows = {row.tobytes() for row in validation}
    assert len(rows) == len(validation)
    assert not any(row.tobytes() in rows for row in test)


def test_a_sequence_too_short_for_two_marks_is_refused():
    with pytest.raises(ValueError, match=r"length.*at least 2.*is 1"):
        Adding(1)


def test_batches_are_float32_also_where_float64_is_allowed():
    batch = Adding(4).sequences(jax.random.key(7), 2)
    assert batch.xs.dtype == batch.targets.dtype == jnp.float32
