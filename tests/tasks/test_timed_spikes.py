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


def test_the_two_gaps_between_the_three_spikes_are_equal():
    X, Y, first, second = spikes()
    assert X.shape == Y.shape == (4_000, 150)
    assert set(np.unique(X)) == set(np.unique(Y)) == {0, 1}
    np.testing.assert_array_equal(Y.sum(axis=1), 1)
    np.testing.assert_array_equal(Y.argmax(axis=1) - second, second - first)


def test_delays_and_starts_are_uniform_and_independent():
    _, _, first, second = spikes()
    for delays, least, most in ((second - first, 30, 60), (first, 0, 29)):
        assert set(delays.tolist()) == set(range(least, most + 1))
        np.testing.assert_allclose(delays.mean(), (least + most) / 2, atol=0.6)
    assert abs(np.corrcoef(first, second - first)[0, 1]) < 0.05


def test_weights_start_at_spike_2_and_are_10_at_spike_3():
    _, Y, _, second = spikes()
    np.testing.assert_array_equal(drawn().weights, (np.arange(150) >= second[:, None]) + 9 * Y)


def test_only_spikes_in_the_scored_steps_count():
    batch = drawn()
    assert score(batch.targets, batch.targets, batch.weights) == 1
    assert score(jnp.roll(batch.targets, 1, axis=1), batch.targets, batch.weights) == 0
    assert score(batch.targets.at[:, 0].set(1), batch.targets, batch.weights) == 1
    assert score(batch.targets.at[:, 149].add(1), batch.targets, batch.weights) < 0.01


def test_the_baseline_is_the_score_of_the_best_fixed_spike():
    pairs = [(s, D) for s in range(30) for D in range(30, 61)]
    hits = np.bincount([s + 2 * D for s, D in pairs])
    np.testing.assert_allclose(TASK.baselines("test")["always step 90"], hits.max() / len(pairs))
    assert hits[90] == hits.max()
    batch = drawn()
    fixed = jnp.zeros_like(batch.targets).at[:, 90].set(1)
    np.testing.assert_allclose(
        score(fixed, batch.targets, batch.weights), TASK.baselines("test")["always step 90"], atol=0.006
    )
