"""Baselines by loops over the rows."""

import numpy as np
import pytest

from jax_lstm.data.baselines import persistence, seasonal_naive

STARTS = np.array([0, 9, 12, 20])
MEAN = np.array([-1.0, -2.0])


def targets():
    rng = np.random.default_rng(0)
    ys = rng.normal(size=(20, 2))
    return np.where(rng.random(ys.shape) < 0.3, np.nan, ys)


def last_known(ys, n, t, o):
    """The last value of sequence n at or before step t, or the mean."""
    for k in range(t, -1, -1):
        if not np.isnan(ys[STARTS[n] + k, o]):
            return ys[STARTS[n] + k, o]
    return MEAN[o]


def seasonal(ys, n, t, o, ahead, season):
    k = t + ahead - season
    while k > t - (ahead == 0):
        k -= season
    value = ys[STARTS[n] + k, o] if k >= 0 else np.nan
    return last_known(ys, n, t - (ahead == 0), o) if np.isnan(value) else value


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_baselines_know_the_past_of_their_sequence_only(ahead):
    ys = targets()
    found, seasons = persistence(ys, STARTS, ahead, MEAN), seasonal_naive(ys, STARTS, ahead, 2, MEAN)
    for n in range(3):
        for t in range(STARTS[n + 1] - STARTS[n]):
            for o in range(2):
                assert found[STARTS[n] + t, o] == last_known(ys, n, t - (ahead == 0), o)
                assert seasons[STARTS[n] + t, o] == seasonal(ys, n, t, o, ahead, 2)
