"""The losses and scores, against their definitions in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_lstm.train.losses import BY_NAME

RNG = np.random.default_rng(0)
YS = RNG.normal(size=(6, 4)).astype(np.float32)
CLASSES = np.array([0, 3, 1, 1, 2, 0], np.int32)


def test_cross_entropy_is_the_mean_negative_log_of_the_softmax():
    p = np.exp(YS) / np.exp(YS).sum(axis=1, keepdims=True)
    expected = -np.mean([np.log(p[b, k]) for b, k in enumerate(CLASSES.tolist())])
    np.testing.assert_allclose(BY_NAME["cross_entropy"](YS, CLASSES), expected, rtol=1e-6)


def test_bits_per_byte_is_the_cross_entropy_in_bits():
    bits, nats = BY_NAME["bits_per_byte"], BY_NAME["cross_entropy"]
    np.testing.assert_allclose(bits(YS, CLASSES) * np.log(2), nats(YS, CLASSES), rtol=1e-6)
    even = bits(jnp.zeros((2, 5, 256), jnp.float32), jnp.ones((2, 5), jnp.int32), jnp.ones((2, 5), jnp.float32))
    np.testing.assert_allclose(even, 8, rtol=1e-6)


def test_cross_entropy_is_finite_for_huge_logits():
    assert np.isfinite(BY_NAME["cross_entropy"](YS * 1e30, CLASSES))


def test_accuracy_counts_the_largest_outputs():
    ys = np.full((6, 4), -1.0, np.float32)
    ys[np.arange(6), CLASSES] = 1.0
    assert BY_NAME["accuracy"](jnp.asarray(ys), CLASSES) == 1
    ys[0] = ys[0, ::-1]
    np.testing.assert_allclose(BY_NAME["accuracy"](jnp.asarray(ys), CLASSES), 5 / 6, rtol=1e-6)


def test_mse_is_the_mean_square():
    targets = jnp.asarray(RNG.normal(size=(6, 4)), jnp.float32)
    np.testing.assert_allclose(BY_NAME["mse"](YS, targets), np.mean((YS - targets) ** 2), rtol=1e-6)


def test_within_counts_sequences_whose_numbers_are_all_close():
    targets = jnp.asarray(RNG.normal(size=(4, 2)), jnp.float32)
    off = jnp.array([[0.0, 0.0], [0.039, -0.039], [0.0, 0.041], [-1.0, 1.0]], jnp.float32)
    np.testing.assert_allclose(BY_NAME["within_0.04"](targets + off, targets), 0.5)


def test_exact_needs_every_weighted_step_to_be_within_a_half():
    off = jnp.array([[0.4, 0, -0.4], [0, 0.6, 0], [0.6, 0, 0.3], [0, 0, -0.6]], jnp.float32)[..., None]
    targets = jnp.zeros((4, 3, 1), jnp.float32).at[:, 1].set(1)
    weights = jnp.array([[0, 1, 2]] * 4, jnp.float32)
    np.testing.assert_allclose(BY_NAME["exact"](targets + off, targets, weights), 0.5)
    np.testing.assert_allclose(BY_NAME["exact"](targets + off, targets, jnp.ones_like(weights)), 0.25)
    np.testing.assert_allclose(BY_NAME["exact"](off[:, 0], targets[:, 0]), 0.75)


def test_weights_choose_the_steps_that_count():
    targets = jnp.asarray(RNG.integers(0, 4, (5, 6)), jnp.int32)
    ys = jnp.asarray(RNG.normal(size=(5, 6, 4)), jnp.float32)
    weights = jnp.asarray(RNG.integers(0, 3, (5, 6)), jnp.float32)
    hits = np.asarray(ys).argmax(axis=2) == np.asarray(targets)
    np.testing.assert_allclose(
        BY_NAME["accuracy"](ys, targets, weights),
        ((hits * np.asarray(weights)).sum(axis=1) / weights.sum(axis=1)).mean(),
        rtol=1e-6,
    )
    flat = BY_NAME["cross_entropy"](ys.reshape(30, 4), targets.reshape(30))
    np.testing.assert_allclose(BY_NAME["cross_entropy"](ys, targets, jnp.ones((5, 6))), flat, rtol=1e-6)
    perfect = jax.jit(lambda ys: BY_NAME["accuracy"](ys, jnp.zeros((1, 41), jnp.int32), jnp.ones((1, 41), jnp.float32)))
    assert perfect(jnp.zeros((1, 41, 2), jnp.float32).at[..., 0].set(1)) == 1, "exactly"
    one = jnp.zeros((5, 6)).at[:, 3].set(7.0)
    numbers = jnp.asarray(RNG.normal(size=(5, 6, 4)), jnp.float32)
    np.testing.assert_allclose(BY_NAME["mse"](ys, numbers, one), np.mean((ys - numbers)[:, 3] ** 2), rtol=1e-5)


@pytest.mark.parametrize("name", ["cross_entropy", "bits_per_byte", "accuracy", "mse", "exact"])
def test_a_target_without_weight_is_not_read(name):
    rng, weights = np.random.default_rng(1), jnp.array([[1.0, 2.0, 0.0], [0.0, 1.0, 0.0]])
    ys = jnp.asarray(rng.normal(size=(2, 3, 4)))
    classes = name not in ("mse", "exact")
    targets = rng.integers(0, 4, size=(2, 3)) if classes else rng.normal(size=(2, 3, 4))
    want = jax.value_and_grad(BY_NAME[name])(ys, jnp.asarray(targets), weights)
    for pad in (-1, 4, 2**31 - 1) if classes else (np.nan, np.inf):
        padded = jnp.asarray(np.where(weights.reshape(2, 3, *(1,) * (targets.ndim - 2)) > 0, targets, pad))
        with jax.debug_nans(True):
            got = jax.value_and_grad(BY_NAME[name])(ys, padded, weights)
        jax.tree.map(np.testing.assert_array_equal, got, want)


def test_the_largest_error_is_of_all_numbers():
    targets = jnp.zeros((3, 2))
    assert BY_NAME["largest_error"](jnp.array([[0.0, 0.1], [-0.75, 0.2], [0.3, 0.0]]), targets) == 0.75
