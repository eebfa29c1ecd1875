"""Which rows a batch has, and the lengths at which it is run."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_lstm.data import Batch, cut, few_lengths, rows_of_step, shortest
from jax_lstm.data.batches import SHUFFLED

SIZE = 8


@pytest.fixture(scope="module")
def lengths():
    return np.random.default_rng(0).integers(1, 100, 40 * SIZE).astype(np.int32)


@pytest.fixture(scope="module")
def drawn(lengths):
    """The rows of all batches of two epochs, (2, 40, SIZE)."""
    draw = jax.jit(jax.vmap(lambda step: rows_of_step(jax.random.key(0), step, SIZE, lengths)))
    return np.asarray(draw(jnp.arange(80))).reshape(2, 40, SIZE)


def padded(rows, lengths):
    """The padded steps of these batches."""
    return (lengths[rows].max(axis=-1, keepdims=True) - lengths[rows]).sum()


def test_every_row_is_in_an_epoch_once(drawn, lengths):
    for epoch in drawn:
        np.testing.assert_array_equal(np.sort(epoch.ravel()), np.arange(len(lengths)))
    assert (drawn[0] != drawn[1]).mean() > 0.9


def test_rows_of_similar_length_share_a_batch(drawn, lengths):
    plain = np.random.default_rng(1).permutation(len(lengths)).reshape(40, SIZE)
    assert padded(drawn[0], lengths) < 0.2 * padded(plain, lengths)


def test_batches_are_not_in_the_order_of_their_lengths(drawn, lengths):
    longest = lengths[drawn[0]].max(axis=-1)
    assert abs(np.corrcoef(longest, np.arange(40))[0, 1]) < 0.5


def test_rows_depend_on_key_and_step_only(drawn, lengths):
    rows = rows_of_step(jax.random.key(0), 43, SIZE, lengths)
    np.testing.assert_array_equal(rows, drawn[1, 3])
    assert (rows_of_step(jax.random.key(1), 43, SIZE, lengths) != rows).any()


@pytest.mark.parametrize("count", [1, 3, SIZE, SIZE + 1, SIZE * 18 + 5])
def test_rows_left_over_are_skipped_and_few_rows_repeated(count):
    batches = max(1, count // SIZE)
    draw = jax.vmap(lambda step: rows_of_step(jax.random.key(2), step, SIZE, np.arange(1, count + 1)))
    seen = np.bincount(np.asarray(draw(jnp.arange(batches))).ravel(), minlength=count)
    assert len(seen) == count
    assert seen.sum() == batches * SIZE
    assert seen.max() == -(-SIZE // count)
    assert (seen == 0).sum() == max(0, count - batches * SIZE)


def test_the_rows_that_are_skipped_are_not_the_longest():
    lengths = np.arange(SIZE * 18 + 5)
    draw = jax.jit(jax.vmap(lambda step: rows_of_step(jax.random.key(3), step, SIZE, lengths)))
    epochs = np.asarray(draw(jnp.arange(18 * 20))).reshape(20, -1)
    skipped = [np.setdiff1d(lengths, epoch) for epoch in epochs]
    assert {len(rows) for rows in skipped} == {5}
    assert abs(np.mean(skipped) - lengths.mean()) < 20  # five deviations of a mean of 100


@pytest.mark.parametrize("count", [SHUFFLED + 1, 3 * SHUFFLED + 7])
def test_many_rows_are_shuffled_without_a_list_of_them(count):
    batches = count // SIZE
    draw = jax.jit(jax.vmap(lambda step: rows_of_step(jax.random.key(0), step, SIZE, np.ones(count, np.int32))))
    rows = np.asarray(draw(jnp.arange(2 * batches)))
    for epoch in rows.reshape(2, -1):
        assert len(np.unique(epoch)) == batches * SIZE
        assert epoch.max() < count
        halves = (epoch < count / 2).reshape(-1, SIZE).sum(axis=1)  # binomial with variance SIZE / 4, if rows are mixed
        assert 0.8 < halves.var() / (SIZE / 4) < 1.2
    assert (rows[:batches] != rows[batches:]).mean() > 0.99


def test_no_row_is_an_error():
    with pytest.raises(ValueError, match=r"rows_of_step: wanted at least 1 row"):
        rows_of_step(jax.random.key(0), 0, 4, np.zeros(0, np.int32))


def test_few_lengths_are_quantiles_and_end_with_the_longest():
    assert few_lengths(np.arange(1, 101)) == (25, 50, 75, 100)
    assert few_lengths(np.arange(1, 101), 2) == (50, 100)
    assert few_lengths([7] * 5) == (7,)
    assert few_lengths([95, 96, 97, 100]) == (100,), "close lengths are not worth a program of their own"
    with pytest.raises(ValueError, match="few_lengths: wanted at least one length"):
        few_lengths([])


BATCH: Any = Batch(
    np.arange(48.0).reshape(2, 8, 3), np.ones((2, 8), np.int32), np.arange(8)[None] < np.array([[3], [2]]),
    np.ones((2, 8)),
)  # fmt: skip


def test_cut_keeps_the_first_steps():
    for leaf, whole in zip(cut(BATCH, 3), BATCH, strict=True):
        np.testing.assert_array_equal(leaf, whole[:, :3])
    last = BATCH._replace(targets=jnp.ones((2, 4)), weights=jnp.ones(2))
    assert cut(last, 3).targets.shape == (2, 4)
    assert cut(last, 3).weights is last.weights
    assert cut(last._replace(weights=None, mask=None), 3).xs.shape == (2, 3, 3)


def masked_sum(params, batch, factor):
    """A function that tells at which length it was run."""
    kept = jnp.where(batch.mask[..., None], batch.xs, 0)
    return params * factor * kept.sum(), jnp.asarray(batch.xs.shape[1])


def test_a_batch_is_run_at_the_shortest_length_that_holds_it():
    run = jax.jit(shortest(masked_sum, (2, 4, 8)))
    for longest, length in ((1, 2), (2, 2), (3, 4), (5, 8), (8, 8)):
        mask = jnp.arange(8)[None] < jnp.array([[1], [longest]])
        got, at = run(2.0, BATCH._replace(mask=mask), 3.0)
        assert at == length
        np.testing.assert_allclose(got, masked_sum(2.0, BATCH._replace(mask=mask), 3.0)[0])
    assert shortest(masked_sum, (8,)) is masked_sum
    no_mask = shortest(lambda params, batch: batch.xs.shape, (2, 8))
    assert no_mask(None, BATCH._replace(mask=None)) == (2, 8, 3)


def test_one_branch_runs_for_all_seeds():
    value_and_grad = jax.value_and_grad(lambda p, batch: shortest(masked_sum, (2, 4, 8))(p, batch, 1.0), has_aux=True)
    masks = jnp.arange(8)[None, None] < jnp.array([[[1], [1]], [[3], [1]]])
    batches: Any = Batch(*(jnp.stack([a, a]) for a in BATCH))._replace(mask=masks)
    every = jax.vmap(value_and_grad)
    (values, lengths), gradients = every(jnp.array([1.0, 2.0]), batches)
    assert lengths.tolist() == [4, 4], "the length that holds the sequences of both"
    for n in range(2):
        want = masked_sum(1.0, Batch(*(leaf[n] for leaf in batches)), 1.0)[0]
        np.testing.assert_allclose(gradients[n], want)
        np.testing.assert_allclose(values[n], want * (n + 1))
    # `vmap` of a switch whose branch differs between seeds would run all branches and select.
    assert "cond[" in str(jax.make_jaxpr(every)(jnp.ones(2), batches))
