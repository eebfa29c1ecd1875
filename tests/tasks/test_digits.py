"""The digits task: its split, its epochs and its baseline."""

import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits

from jax_lstm.tasks import Digits
from jax_lstm.tasks.digits import TEST, TRAIN, VALIDATION, _part, _split_order


def test_the_three_parts_are_disjoint_and_together_complete():
    order = _split_order(1797)
    parts = [set(order[part].tolist()) for part in (TRAIN, VALIDATION, TEST)]
    assert [len(part) for part in parts] == [1297, 200, 300]
    assert set.union(*parts) == set(range(1797))
    assert sum(map(len, parts)) == 1797


def test_the_split_is_the_documented_order_of_hashes():
    # The first and last few in the order of SHA-256("digit n"), which any language can recompute.
    order = _split_order(1797)
    assert order[:5].tolist() == [1486, 168, 347, 1140, 566]
    assert order[-5:].tolist() == [1092, 1278, 733, 857, 726]


def test_a_sequence_is_the_scanned_image_pixel_by_pixel():
    images, labels = load_digits(return_X_y=True)
    n = _split_order(1797)[TEST][7]
    test = Digits().test()
    assert test.xs.shape == (300, 64, 1)
    np.testing.assert_array_equal(np.asarray(test.xs[7, :, 0]) * 16, images[n])
    assert int(test.targets[7]) == labels[n]


def test_pixels_fill_the_range_from_zero_to_one():
    xs = np.asarray(_part(TRAIN).xs)
    assert (xs.min(), xs.max(), xs.dtype) == (0.0, 1.0, np.float32)


def test_the_baseline_is_the_share_of_the_commonest_digit():
    _, labels = load_digits(return_X_y=True)
    assert Digits().baselines("test")["always the most frequent digit"] == np.bincount(labels).max() / len(labels)


def test_every_part_has_every_digit():
    for part in (TRAIN, VALIDATION, TEST):
        assert len(np.unique(np.asarray(_part(part).targets))) == 10


def test_an_epoch_shows_each_digit_once_in_a_new_order():
    task, key, size = Digits(), jax.random.key(0), 256
    batches = 1297 // size
    epochs = [
        np.concatenate([np.asarray(task.train_batch(key, e * batches + b, size).xs) for b in range(batches)])
        for e in range(2)
    ]
    train = np.asarray(_part(TRAIN).xs)
    assert len(np.unique(train, axis=0)) == len(train)  # so that a row names its digit
    for epoch in epochs:
        assert len(np.unique(epoch, axis=0)) == batches * size
    assert not np.array_equal(epochs[0], epochs[1])


def test_a_batch_is_a_pure_function_of_key_and_step():
    task, key = Digits(), jax.random.key(1)
    once, again = task.train_batch(key, 40, 8), jax.jit(task.train_batch, static_argnums=2)(key, 40, 8)
    np.testing.assert_array_equal(once.xs, again.xs)
    np.testing.assert_array_equal(once.targets, again.targets)
    assert not np.array_equal(once.xs, task.train_batch(jax.random.key(2), 40, 8).xs)


def test_a_batch_larger_than_the_training_digits_is_refused():
    with pytest.raises(ValueError, match=r"size.*at most 1297.*is 1298"):
        Digits().train_batch(jax.random.key(0), 0, 1298)
