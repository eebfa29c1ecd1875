"""What is said of a NaN: the data that have it, if the loss reads it there."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jax_lstm import train
from jax_lstm.data import Batch
from jax_lstm.train.finite import in_data
from tests.train.toy import PROBLEM, batch

NAN = np.float32(np.nan)


def with_nan(shape, *indices, value=NAN):
    array = np.zeros(shape, np.float32)
    for index in indices:
        array[index] = value
    return array


def test_the_first_value_that_is_not_finite_is_named():
    assert (
        in_data({"a": np.arange(3), "b": [with_nan((2, 3)), with_nan((4, 5), (2, 1), (3, 0))]})
        == "nan in b.1 at (2, 1)"
    )
    assert in_data(with_nan((2,), 1, value=-np.inf)) == "-inf in it at (1,)"
    assert in_data((np.ones(3), np.array([2**31 - 1]), True)) is None


def test_padding_and_missing_targets_may_be_nan():
    mask = np.arange(5) < np.array([[3], [5]])
    weights = mask & (np.arange(5) != 1)
    xs, targets = with_nan((2, 5, 3), (0, 3, 0), (0, 4, 2)), with_nan((2, 5, 1), (0, 3, 0), (1, 1, 0))
    assert in_data(Batch(xs, targets, mask, weights.astype(np.float32))) is None
    assert in_data(Batch(xs, targets, None, weights)) == "nan in xs at (0, 3, 0)"
    assert in_data(Batch(xs, targets, mask, mask)) == "nan in targets at (1, 1, 0)"
    assert in_data(Batch(with_nan((2, 5, 3), (0, 2, 1)), targets, mask, weights)) == "nan in xs at (0, 2, 1)"
    assert in_data(Batch(xs[:, :3], with_nan((2,), 1), mask[:, :3])) == "nan in targets at (1,)"


@pytest.mark.parametrize("devices", [1, 4])
def test_nan_in_the_data_is_blamed_on_the_data(devices):
    def bad(key, step):
        x, y = batch(key, step)
        return x.at[5, 1].set(jnp.where(step == 4, NAN, x[5, 1])), y

    said = (
        r"^step 5, seed 0: wanted finite data, but the batch has nan in 0 at \(5, 1\); fill or mask these values; no "
        "checkpoint was written$"
    )
    with pytest.raises(train.NotFiniteError, match=said):
        train.fit(replace(PROBLEM, batch=bad), optax.sgd(0.1), 10, devices=devices, progress=False)
