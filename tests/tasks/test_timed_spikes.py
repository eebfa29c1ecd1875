"""Two spikes, and a third as long after the second."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from jax_lstm.tasks import Timing
from jax_lstm.train.losses import BY_NAME

TASK = Timing()
score = BY_NAME[TASK.metric]


@cache
def drawn():
    return TASK.sequences(jax.random.key(0), 4_000)


def spikes():
    """Inputs and targets (B, T), and the steps (B,) of the first and the second spike."""
    X, Y = (np.asarray(a)[..., 0] for a in (drawn().xs, drawn().targets))
    return X, Y, *np.nonzero(X)[1].reshape(-1, 2).T


def test_the_third_spike_is_as_long_after_the_second_as_that_is_after_the_first():
    X, Y, first, second = spikes()
    assert X.shape == Y.shape == (4_000, 150)
    assert set(np.unique(X)) == set(np.unique(Y)) == {0, 1}
    np.testing.assert_array_equal(Y.sum(axis=1), 1)
    np.testing.assert_array_equal(Y.argmax(axis=1) - second, second - first)


def test_delays_of_30_to_60_steps_and_the_first_30_starts_are_as_likely():
    _, _, first, second = spikes()
    for delays, least, most in ((second - first, 30, 60), (first, 0, 29)):
        assert set(delays.tolist()) == set(range(least, most + 1))
        np.testing.assert_allclose(delays.mean(), (least + most) / 2, atol=0.6)
    assert abs(np.corrcoef(first, second - first)[0, 1]) < 0.05


def test_what_is_asked_for_begins_at_the_second_spike_and_the_third_weighs_ten_steps():
    _, Y, _, second = spikes()
    np.testing.assert_array_equal(drawn().weights, (np.arange(150) >= second[:, None]) + 9 * Y)


def test_a_spike_that_is_one_step_late_counts_as_wrong_and_one_before_anything_is_asked_for_does_not():
    batch = drawn()
    assert score(batch.targets, batch.targets, batch.weights) == 1
    assert score(jnp.roll(batch.targets, 1, axis=1), batch.targets, batch.weights) == 0
    assert score(batch.targets.at[:, 0].set(1), batch.targets, batch.weights) == 1
    assert score(batch.targets.at[:, 149].add(1), batch.targets, batch.weights) < 0.01


def test_the_baseline_is_the_share_that_is_right_with_a_spike_at_the_best_step_of_all():
    pairs = [(s, D) for s in range(30) for D in range(30, 61)]
    hits = np.bincount([s + 2 * D for s, D in pairs])
    np.testing.assert_allclose(TASK.baseline, hits.max() / len(pairs))
    assert hits[90] == hits.max()
    batch = drawn()
    fixed = jnp.zeros_like(batch.targets).at[:, 90].set(1)
    np.testing.assert_allclose(score(fixed, batch.targets, batch.weights), TASK.baseline, atol=0.006)
