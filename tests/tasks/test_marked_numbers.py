"""The original adding problem and multiplication: their marks, lengths and targets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_lstm.tasks import MarkedNumbers

T = 40


def sequences(operation, size=2_000, seed=0):
    return MarkedNumbers(operation, T).sequences(jax.random.key(seed), size)


def baseline(operation):
    return MarkedNumbers(operation).baselines("test")["always the mean"]


def parts(batch):
    """Values, marks and lengths, in NumPy."""
    xs = np.asarray(batch.xs)
    return xs[:, :, 0], xs[:, :, 1], np.asarray(batch.mask).sum(axis=1)


def test_every_length_from_t_to_1_1_t_occurs_and_no_other():
    _, _, n = parts(sequences("sum"))
    assert set(n) == set(range(T, T * 11 // 10 + 1))


def test_both_ends_are_marked_minus_one_and_padding_is_zero():
    batch = sequences("sum")
    v, m, n = parts(batch)
    rows = np.arange(len(n))
    np.testing.assert_array_equal(m[:, 0], -1)
    np.testing.assert_array_equal(m[rows, n - 1], -1)
    np.testing.assert_array_equal((m == -1).sum(axis=1), 2)
    dead = ~np.asarray(batch.mask)
    assert dead.any()
    assert not v[dead].any()
    assert not m[dead].any()


def test_the_marks_are_in_the_first_ten_steps_and_the_first_half():
    _, m, _ = parts(sequences("sum", 20_000))
    places = [np.flatnonzero(row == 1) for row in m]
    one = [p for p in places if len(p) == 1]
    two = np.array([p for p in places if len(p) == 2])
    assert len(one) + len(two) == len(m)
    np.testing.assert_allclose(len(one) / len(m), 0.1, atol=0.015)  # where the very first step would be X_1
    assert two.min() == 1
    assert (two.min(axis=1) < 10).all()
    assert two.max() == T // 2 - 2


@pytest.mark.parametrize(
    ("operation", "least", "absent", "y"),
    [("sum", -1, 0.0, lambda a, b: 0.5 + (a + b) / 4), ("product", 0, 1.0, lambda a, b: a * b)],
)
def test_the_target_follows_from_the_marked_values(operation, least, absent, y):
    batch = sequences(operation)
    v, m, _ = parts(batch)
    assert least <= v.min()
    assert v.max() < 1
    assert (v.min() < -0.9) == (operation == "sum")
    for row, mark, target in zip(v, m, np.asarray(batch.targets)[:, 0], strict=True):
        values = row[mark == 1].tolist()
        X_1, X_2 = values if len(values) == 2 else (absent, *values)
        np.testing.assert_allclose(target, y(X_1, X_2), rtol=1e-5, atol=1e-6)


def test_the_baselines_are_those_of_the_best_constant():
    y = np.asarray(sequences("sum", 100_000).targets, np.float64)
    np.testing.assert_allclose((np.abs(y - 0.5) < 0.04).mean(), baseline("sum"), atol=0.005)
    np.testing.assert_allclose(y.var(), 1 / 24, rtol=0.06)
    y = np.asarray(sequences("product", 100_000).targets, np.float64)
    np.testing.assert_allclose(y.var(), baseline("product"), rtol=0.015)
    assert baseline("product") > 1.1 * 7 / 144


def test_batches_are_functions_of_key_and_step_and_splits_differ():
    task, key = MarkedNumbers("sum", T), jax.random.key(5)
    once, again = task.train_batch(key, 3, 4), jax.jit(task.train_batch, static_argnums=2)(key, 3, 4)
    jax.tree.map(np.testing.assert_array_equal, once, again)
    assert not np.array_equal(once.xs, task.train_batch(key, 4, 4).xs)
    assert not np.array_equal(task.validation().xs[:100], task.test().xs[:100])
    assert once.xs.dtype == once.targets.dtype == jnp.float32


def test_an_unknown_operation_or_short_length_is_refused():
    with pytest.raises(ValueError, match="operation must be sum or product"):
        MarkedNumbers("difference")
    with pytest.raises(ValueError, match="shortest must be at least 24, but is 23"):
        MarkedNumbers("sum", 23)
