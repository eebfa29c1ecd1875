"""The run's choices: schedules, chunks, and what is refused."""

import json
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jax_lstm.train import OptConfig, TrainConfig, learning_rate, optimizer


def rates(steps=100, **choices):
    lr = learning_rate(OptConfig(lr=0.1, **choices), steps)
    return np.array([float(lr(t)) for t in range(steps + 1)])


def test_a_constant_schedule_is_constant():
    np.testing.assert_allclose(rates(schedule="constant"), 0.1, rtol=1e-6)


def test_a_cosine_falls_from_the_peak_to_zero():
    t = np.arange(101)
    np.testing.assert_allclose(rates(schedule="cosine"), 0.05 * (1 + np.cos(np.pi * t / 100)), atol=1e-7)


def test_warmup_rises_linearly_and_then_stays_constant():
    np.testing.assert_allclose(
        rates(schedule="warmup", warmup_steps=10), 0.1 * np.minimum(np.arange(101) / 10, 1), atol=1e-7
    )


def test_warmup_cosine_rises_linearly_and_falls_to_zero():
    t = np.arange(101)
    fall = 0.05 * (1 + np.cos(np.pi * (t - 20) / 80))
    expected = np.where(t < 20, 0.1 * t / 20, fall)
    np.testing.assert_allclose(rates(schedule="warmup_cosine", warmup_steps=20), expected, atol=1e-7)


@pytest.mark.parametrize(
    ("choices", "key"),
    [
        ({"lr": 0.0}, "opt.lr"),
        ({"lr": float("nan")}, "opt.lr"),
        ({"lr": float("inf")}, "opt.lr"),
        ({"schedule": "linear"}, "opt.schedule"),
        ({"schedule": "warmup"}, "opt.warmup_steps"),
        ({"schedule": "cosine", "warmup_steps": 5}, "opt.warmup_steps"),
        ({"clip": -1.0}, "opt.clip"),
        ({"weight_decay": -0.1}, "opt.weight_decay"),
        ({"accumulate": 0}, "opt.accumulate"),
    ],
)
def test_a_bad_optimizer_choice_is_refused_by_its_key(choices, key):
    with pytest.raises(ValueError, match=f"^{key}: wanted .*, but got"):
        OptConfig(**choices)


def test_a_warm_up_as_long_as_the_run_is_refused():
    with pytest.raises(ValueError, match=r"^opt.warmup_steps: wanted fewer than train.steps \(10\), but got 10"):
        learning_rate(OptConfig(schedule="warmup", warmup_steps=10), 10)


@pytest.mark.parametrize(
    ("choices", "key"),
    [
        ({"steps": 0}, "train.steps"),
        ({"steps": 1e3}, "train.steps"),
        ({"eval_every": 0.5}, "train.eval_every"),
        ({"batch_size": 0}, "train.batch_size"),
        ({"devices": 0}, "train.devices"),
        ({"devices": -2}, "train.devices"),
        ({"devices": "all"}, "train.devices"),
        ({"devices": 3}, "train.devices"),
        ({"log_every": -1}, "train.log_every"),
        ({"eval_every": 0}, "train.eval_every"),
        ({"probe": 0}, "train.probe"),
        ({"patience": 0}, "train.patience"),
        ({"ema": 1.0}, "train.ema"),
        ({"ema": 0.0}, "train.ema"),
        ({"seeds": ()}, "train.seeds"),
        ({"seeds": (1, 1)}, "train.seeds"),
        ({"seeds": (-1,)}, "train.seeds"),
        ({"seeds": (2**32,)}, "train.seeds"),
        ({"seeds": (0.5,)}, "train.seeds"),
    ],
)
def test_a_bad_choice_of_the_loop_is_refused_by_its_key(choices, key):
    with pytest.raises(ValueError, match=f"^{key}: wanted .*, but got"):
        TrainConfig(**choices)


def test_seeds_of_numpy_become_ints_that_json_can_hold():
    assert json.dumps(TrainConfig(seeds=tuple(np.arange(2))).seeds) == "[0, 1]"


def test_devices_that_do_not_divide_the_batch_are_refused():
    with pytest.raises(ValueError, match=r"^train.devices: wanted a divisor of train.batch_size \(64\), but got 3$"):
        TrainConfig(devices=3)


@pytest.mark.parametrize(
    ("steps", "log_every", "eval_every", "chunk"), [(1500, 50, 100, 50), (2, 50, 100, 2), (7, 5, 10, 1)]
)
def test_a_chunk_meets_every_log_every_validation_and_the_end(steps, log_every, eval_every, chunk):
    train = TrainConfig(steps=steps, log_every=log_every, eval_every=eval_every)
    assert train.chunk == chunk
    assert all(n % train.chunk == 0 for n in (steps, log_every, eval_every))


def test_the_optimizer_is_adam_with_decoupled_weight_decay():
    params = jnp.array([2.0, -3.0], jnp.float32)
    g = jnp.array([0.3, 0.1], jnp.float32)

    def update(tx) -> Any:
        return tx.update(g, tx.init(params), params)[0]

    def ours(weight_decay):
        return update(optimizer(OptConfig(lr=0.1, clip=None, weight_decay=weight_decay), 10))

    np.testing.assert_allclose(ours(0.0), update(optax.adam(0.1)), rtol=1e-6)
    np.testing.assert_allclose(ours(0.5) - ours(0.0), -0.1 * 0.5 * params, rtol=1e-5)


def test_a_schedule_counts_batches_where_gradients_accumulate():
    """Three updates of two batches each: each has the rate of its first batch."""
    opt = OptConfig(lr=0.1, clip=None, schedule="cosine", accumulate=2)
    params, g = jnp.array([2.0, -3.0], jnp.float32), jnp.array([0.3, 0.1], jnp.float32)
    tx: Any = optimizer(opt, 6)
    state, moved = tx.init(params), []
    for scale in (1.0, 3.0) * 3:
        updates, state = tx.update(scale * g, state, params)
        moved.append(float(updates[0]))
    np.testing.assert_allclose(moved[::2], 0)
    lr = learning_rate(OptConfig(lr=0.1, schedule="cosine"), 6)
    np.testing.assert_allclose(moved[1::2], [-float(lr(t)) for t in (0, 2, 4)], rtol=1e-5)
    with pytest.raises(ValueError, match=r"^opt.accumulate: wanted at most train.steps \(6\), but got 7"):
        learning_rate(OptConfig(accumulate=7), 6)


def test_the_options_of_fit_are_all_but_the_batch_size():
    train = TrainConfig(steps=7, seeds=(3,), ema=0.9)
    assert TrainConfig(**train.options) == train
    assert "batch_size" not in train.options
