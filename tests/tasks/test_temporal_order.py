"""Temporal order: what stands where, and the class that follows from it."""

import jax
import numpy as np
import pytest

from jax_lstm.tasks import TemporalOrder

PLACES = {2: [(10, 20), (50, 60)], 3: [(10, 20), (33, 43), (66, 76)]}


def read(batch):
    """Every sequence as text, without its padding."""
    for xs, mask in zip(np.asarray(batch.xs), np.asarray(batch.mask), strict=True):
        n = mask.sum()
        np.testing.assert_array_equal(mask, np.arange(len(mask)) < n)
        np.testing.assert_array_equal(xs.sum(axis=1), mask)  # one-hot where it lives, zero where not
        yield "".join("BEabcdXY"[k] for k in xs[:n].argmax(axis=1))


@pytest.mark.parametrize("marks", [2, 3])
def test_sequences_are_noise_with_marks_at_the_right_places(marks):
    texts = list(read(TemporalOrder(marks).sequences(jax.random.key(0), 2_000)))
    assert {len(text) for text in texts} == set(range(100, 111))
    seen = [set() for _ in range(marks)]
    for text in texts:
        assert text[0] == "B"
        assert text[-1] == "E"
        places = [t for t, symbol in enumerate(text) if symbol in "XY"]
        assert len(places) == marks
        for k, t in enumerate(places):
            seen[k].add(t)
        assert set(text[1:-1]) - set("XY") == set("abcd")
    assert seen == [set(range(least, most + 1)) for least, most in PLACES[marks]]


@pytest.mark.parametrize("marks", [2, 3])
def test_the_class_is_the_order_read_as_a_binary_number(marks):
    task = TemporalOrder(marks)
    batch = task.sequences(jax.random.key(1), 500)
    for text, target in zip(read(batch), batch.targets.tolist(), strict=True):
        order = [symbol for symbol in text if symbol in "XY"]
        assert target == int("".join("01"[symbol == "Y"] for symbol in order), 2)
    counts = np.bincount(batch.targets, minlength=task.output_size) / 500
    np.testing.assert_allclose(counts, task.baselines("test")["chance"], atol=0.08)


def test_batches_are_functions_of_key_and_step_and_splits_differ():
    task, key = TemporalOrder(), jax.random.key(5)
    once, again = task.train_batch(key, 3, 4), jax.jit(task.train_batch, static_argnums=2)(key, 3, 4)
    jax.tree.map(np.testing.assert_array_equal, once, again)
    assert not np.array_equal(once.xs, task.train_batch(key, 4, 4).xs)
    assert not np.array_equal(task.validation().xs[:100], task.test().xs[:100])


def test_another_number_of_marks_is_refused():
    with pytest.raises(ValueError, match="marks must be 2 or 3, but is 4"):
        TemporalOrder(4)
