"""Products of group elements, against permutations composed in Python."""

import itertools

import jax
import numpy as np
import pytest

from jax_lstm.tasks import GroupProduct, Parity
from jax_lstm.tasks.group_product import products, table


@pytest.mark.parametrize("group", ["Z2", "Z60", "A5"])
def test_the_table_is_that_of_a_group(group):
    t = table(group)
    n = len(t)
    assert n == {"Z2": 2, "Z60": 60, "A5": 60}[group]
    for line in (*t, *t.T):
        assert set(line.tolist()) == set(range(n))
    np.testing.assert_array_equal(t[0], np.arange(n))
    np.testing.assert_array_equal(t[:, 0], np.arange(n))
    np.testing.assert_array_equal(t[t], t[:, t])  # (ab)c = a(bc)


def test_a5_is_the_even_permutations_and_not_commutative():
    t = table("A5")
    assert (t != t.T).any()
    assert (table("Z60") == table("Z60").T).all()
    # Orders of A5's elements: 1 of order 1, 15 of order 2, 20 of order 3, 24 of order 5.
    orders = []
    for g in range(60):
        power, order = g, 1
        while power != 0:
            power, order = t[power, g], order + 1
        orders.append(order)
    assert np.bincount(orders).tolist() == [0, 1, 15, 20, 0, 24]


def test_products_equal_the_running_products():
    g = np.random.default_rng(0).integers(0, 60, 20)
    expected = list(itertools.accumulate(g.tolist(), lambda a, b: int(table("A5")[a, b])))
    assert np.asarray(products("A5", g)).tolist() == expected


def test_training_starts_with_two_products_and_test_scores_all():
    task = GroupProduct("A5", ramp=10)
    test = task.test()
    assert test.xs.shape == (task.test_size, 32, 60)
    assert (np.asarray(test.weights) == 1).all()
    g = np.asarray(test.xs).argmax(axis=2)
    np.testing.assert_array_equal(test.targets[3], products("A5", g[3]))
    key = jax.random.key(0)
    for step, counted in ((0, 2), (9, 2), (10, 3), (139, 15), (140, 16), (1000, 16)):
        weights = np.asarray(task.train_batch(key, step, 4).weights)
        assert weights.shape == (4, 16)
        assert (weights.sum(axis=1) == counted).all()
        assert (weights[:, :counted] == 1).all()


def test_parity_counts_ones_and_test_strings_are_longer():
    task = Parity()
    for batch, shortest, longest in ((task.train_batch(jax.random.key(0), 0, 3000), 1, 40), (task.test(), 41, 256)):
        lengths = np.asarray(batch.mask).sum(axis=1)
        assert lengths.min() == shortest
        assert lengths.max() == longest
        ones = np.asarray(batch.xs)[..., 1].sum(axis=1)
        np.testing.assert_array_equal(batch.targets, ones % 2)
        np.testing.assert_array_equal(np.asarray(batch.xs).sum(axis=2), batch.mask)


def test_another_group_is_refused():
    with pytest.raises(ValueError, match="group must be Z60 or A5, but is 'S5'"):
        GroupProduct("S5")  # pyrefly: ignore
    with pytest.raises(ValueError, match="ramp must be at least 1, but is 0"):
        GroupProduct("A5", ramp=0)
