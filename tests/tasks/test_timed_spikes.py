"""Two spikes, and a third as long after the second."""

import jax
import jax.numpy as jnp
import numpy as np

from jax_lstm.tasks import Timing
from jax_lstm.train.losses import BY_NAME

TASK = Timing()
BATCH = TASK.sequences(jax.random.key(0), 4_000)
X, Y = (np.asarray(a)[..., 0] for a in (BATCH.xs, BATCH.targets))
WEIGHTS = np.asarray(BATCH.weights)
FIRST, SECOND = np.nonzero(X)[1].reshape(-1, 2).T
score = BY_NAME[TASK.metric]


def test_the_third_spike_is_as_long_after_the_second_as_that_is_after_the_first():
    assert X.shape == Y.shape == (4_000, 150)
    assert set(np.unique(X)) == set(np.unique(Y)) == {0, 1}
    np.testing.assert_array_equal(Y.sum(axis=1), 1)
    np.testing.assert_array_equal(Y.argmax(axis=1) - SECOND, SECOND - FIRST)


def test_delays_of_30_to_60_steps_and_the_first_30_starts_are_as_likely():
    for drawn, least, most in ((SECOND - FIRST, 30, 60), (FIRST, 0, 29)):
        assert set(drawn.tolist()) == set(range(least, most + 1))
        np.testing.assert_allclose(drawn.mean(), (least + most) / 2, atol=0.6)
    assert abs(np.corrcoef(FIRST, SECOND - FIRST)[0, 1]) < 0.05


def test_what_is_asked_for_begins_at_the_second_spike_and_the_third_weighs_ten_steps():
    np.testing.assert_array_equal(WEIGHTS, (np.arange(150) >= SECOND[:, None]) + 9 * Y)


def test_a_spike_that_is_one_step_late_counts_as_wrong_and_one_before_anything_is_asked_for_does_not():
    assert score(BATCH.targets, BATCH.targets, BATCH.weights) == 1
    assert score(jnp.roll(BATCH.targets, 1, axis=1), BATCH.targets, BATCH.weights) == 0
    assert score(BATCH.targets.at[:, 0].set(1), BATCH.targets, BATCH.weights) == 1
    assert score(BATCH.targets.at[:, 149].add(1), BATCH.targets, BATCH.weights) < 0.01


def test_the_baseline_is_the_share_that_is_right_with_a_spike_at_the_best_step_of_all():
    pairs = [(s, D) for s in range(30) for D in range(30, 61)]
    hits = np.bincount([s + 2 * D for s, D in pairs])
    np.testing.assert_allclose(TASK.baseline, hits.max() / len(pairs))
    assert hits[90] == hits.max()
    fixed = jnp.zeros_like(BATCH.targets).at[:, 90].set(1)
    np.testing.assert_allclose(score(fixed, BATCH.targets, BATCH.weights), TASK.baseline, atol=0.006)
