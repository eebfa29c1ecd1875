"""Noise, for flossing."""

import jax
import numpy as np
import pytest

from jax_lstm.tasks import Noise


def test_noise_has_its_amplitude_and_its_targets_are_zeros():
    batch = Noise(50).train_batch(jax.random.key(0), 0, 100)
    xs = np.asarray(batch.xs)
    assert xs.shape == (100, 50, 8)
    np.testing.assert_allclose((xs.mean(), xs.std()), (0, 0.1), atol=0.002)
    assert batch.targets.shape == (100, 10)
    assert not np.asarray(batch.targets).any()


def test_a_length_of_one_is_refused():
    with pytest.raises(ValueError, match="length must be at least 2, but is 1"):
        Noise(1)
