"""Rates of `sample_noise`: a number or array for one draw, in place of the rates of the cell."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_lstm as jl
from jax_lstm.engines.driver import run
from jax_lstm.engines.engine import Inputs, Options
from jax_lstm.engines.run import ENGINES

I, H, T = 3, 4, 5
KEY = jax.random.key
XS = np.random.default_rng(0).normal(size=(T, I))
close = partial(np.testing.assert_allclose, rtol=0, atol=1e-12)


def dropout(inputs=0.0, hidden=0.0, zoneout=0.0, zoneout_c=0.0):
    return jl.Dropout(jl.LSTM(I, H), inputs, hidden, zoneout, zoneout_c)


def stack(p, sigma, hidden):
    cells = jl.Dropout(jl.LSTM(I, H), hidden=hidden), jl.GRU(H, H), jl.RNN(H, 2, noise=sigma)
    return jl.Stack(cells, dropout=p)


# A cell, rates for a draw, and the cell that has these rates in its fields.
ROWS = {
    "other rates": (
        dropout(0.5, 0.5, 0.5, 0.5),
        {"inputs": 0.2, "hidden": 0.3, "zoneout": 0.1, "zoneout_c": 0.4},
        dropout(0.2, 0.3, 0.1, 0.4),
    ),
    "one rate": (dropout(0.5, 0.5, 0.5, 0.5), {"zoneout_c": 0.2}, dropout(0.5, 0.5, 0.5, 0.2)),
    "no rates before": (dropout(), {"hidden": 0.4, "zoneout": 0.2}, dropout(hidden=0.4, zoneout=0.2)),
    "RNN": (jl.RNN(I, H, noise=0.1), {"noise": 0.7}, jl.RNN(I, H, noise=0.7)),
    "RNN without noise": (jl.RNN(I, H), {"noise": 0.7}, jl.RNN(I, H, noise=0.7)),
    "noise inside": (
        jl.Dropout(jl.RNN(I, H), inputs=0.1),
        {"inputs": 0.3, "cell": {"noise": 0.5}},
        jl.Dropout(jl.RNN(I, H, noise=0.5), inputs=0.3),
    ),
    "stack": (
        stack(0.5, 0.1, 0.5),
        {"dropout": 0.2, "cells": ({"hidden": 0.3}, None, {"noise": 0.4})},
        stack(0.2, 0.4, 0.3),
    ),
    "stack without noise": (
        stack(0.0, 0.0, 0.0),
        {"dropout": 0.2, "cells": ({"hidden": 0.3}, None, {"noise": 0.4})},
        stack(0.2, 0.4, 0.3),
    ),
    "bidirectional": (
        jl.Bidirectional(dropout(0.1), jl.RNN(I, 2)),
        {"forward": {"inputs": 0.5}, "backward": {"noise": 0.5}},
        jl.Bidirectional(dropout(0.5), jl.RNN(I, 2, noise=0.5)),
    ),
    "learned": (jl.LearnedInitialState(dropout(0.1)), {"inputs": 0.5}, jl.LearnedInitialState(dropout(0.5))),
    "Truncated": (jl.gradflow.Truncated(dropout(0.1)), {"inputs": 0.5}, jl.gradflow.Truncated(dropout(0.5))),
}


@pytest.mark.parametrize("name", ROWS)
def test_rates_draw_what_a_cell_with_these_rates_draws(name):
    cell, rates, other = ROWS[name]
    params = cell.init(KEY(0), jnp.float64)
    expected = other.sample_noise(params, KEY(1), T)
    jax.tree.map(close, cell.sample_noise(params, KEY(1), T, rates=rates), expected)
    traced = jax.jit(lambda rates: cell.sample_noise(params, KEY(1), T, rates=rates))
    jax.tree.map(close, traced(rates), expected)
    jax.tree.map(np.testing.assert_array_equal, cell.sample_noise(params, KEY(1), T, rates={}),
                 cell.sample_noise(params, KEY(1), T))  # fmt: skip
    assert jax.tree.leaves(expected)


def test_one_program_takes_every_rate():
    cell, n = jl.Dropout(jl.LSTM(I, 400), hidden=0.5, zoneout=0.5), 400
    params, traces = cell.init(KEY(0), jnp.float64), []

    @jax.jit
    def sample(p):
        traces.append(p)
        return cell.sample_noise(params, KEY(1), T, rates={"hidden": p, "zoneout": p / 2})

    for p in (0.0, 0.25, 0.9):
        noise = sample(p)
        hidden, stays = np.asarray(noise.sequence.hidden), np.asarray(noise.steps.zoneout["h"])
        close(np.unique(hidden), [0, 1 / (1 - p)] if p else [1])
        assert abs((hidden == 0).mean() - p) <= 5 * (p * (1 - p) / n) ** 0.5
        assert set(np.unique(stays)) <= {0, 1}
        assert abs(stays.mean() - p / 2) <= 5 * (p / 2 * (1 - p / 2) / n / T) ** 0.5
    assert len(traces) == 1
    many = jax.vmap(sample)(jnp.array([0.25, 0.9]))
    close(many.sequence.hidden[1], sample(0.9).sequence.hidden)


def test_a_rate_may_differ_between_units_and_steps():
    cell, n = jl.Dropout(jl.RNN(2, 1000), zoneout=0.1), 1000
    params, rising = cell.init(KEY(0), jnp.float64), np.linspace(0, 0.8, T)[:, None]
    per_unit = np.repeat([0.0, 0.5], n // 2)
    rates = {"zoneout": rising, "hidden": per_unit, "cell": {"noise": np.linspace(0, 2, n)}}
    noise = cell.sample_noise(params, KEY(1), T, rates=rates)
    stays, hidden = noise.steps.zoneout["h"], np.asarray(noise.sequence.hidden)
    assert (np.abs(stays.mean(1) - rising[:, 0]) <= 5 * (0.25 / n) ** 0.5).all()
    close(hidden[: n // 2], 1)
    close(np.unique(hidden[n // 2 :]), [0, 2])
    unit = jl.RNN(2, n).sample_noise(params, KEY(2), T, rates={"noise": 1.0}).steps
    scaled = jl.RNN(2, n).sample_noise(params, KEY(2), T, rates={"noise": np.linspace(0, 2, n)}).steps
    close(scaled, np.asarray(unit) * np.linspace(0, 2, n))


@pytest.mark.slow
def test_a_schedule_of_rates_in_float32_params_keeps_their_dtype():
    for dtype in (jnp.float32, jnp.bfloat16):
        params = ROWS["stack"][0].init(KEY(0), dtype)
        rates = {"dropout": jnp.float32(0.2), "cells": ({"hidden": np.float64(0.5)}, None, {"noise": np.int32(2)})}
        noise = ROWS["stack"][0].sample_noise(params, KEY(1), T, rates=rates)
        assert {leaf.dtype for leaf in jax.tree.leaves(noise)} == {jnp.dtype(dtype)}


def test_the_rate_of_dropped_weights_may_be_traced():
    params, traces = jl.LSTM(I, 30).init(KEY(0), jnp.float64), []

    @jax.jit
    def drop(p):
        traces.append(p)
        return jl.drop_weights(KEY(1), params, p)

    for p in (0.0, 0.3, 0.8):
        jax.tree.map(close, drop(p), jl.drop_weights(KEY(1), params, p))
        ratio = np.asarray(drop(p).w_h / params.w_h)
        close(np.unique(ratio.round(9)), [0, 1 / (1 - p)] if p else [1], atol=1e-8)
        assert abs((ratio == 0).mean() - p) <= 5 * (p * (1 - p) / ratio.size) ** 0.5
    assert len(traces) == 1
    with pytest.raises(
        ValueError, match=r"drop_weights: p must be a number or broadcast to \(\), but has shape \(2,\)"
    ):
        jl.drop_weights(KEY(1), params, np.zeros(2))


# A run needs only the noise: the rates of the cell are not read.


def run_with(cell, params, xs, noise, engine):
    inputs = Inputs(params, cell.initial_state(params), None, xs, noise.steps, noise.sequence)
    return run(ENGINES[engine], cell, inputs, Options())[1]


def loop(params, xs, noise):
    """A tanh RNN with dropout on inputs and h and with zoneout, from the equations."""
    (w_x, w_h, b), h, hs = params, jnp.zeros(H), []
    for t, x in enumerate(xs):
        z = x * noise.sequence.inputs @ w_x + h * noise.sequence.hidden @ w_h + b + noise.steps.cell[t]
        stays = noise.steps.zoneout["h"][t]
        h = stays * h + (1 - stays) * jnp.tanh(z)
        hs.append(h)
    return jnp.stack(hs)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["hoisted", "plain"])
@pytest.mark.parametrize("rates", [(0.0, 0.0, 0.0), (0.1, 0.1, 0.1)])
def test_a_run_and_its_gradient_use_the_rates_of_the_draw(rates, engine):
    """Also where the rate of the cell is 0: then the cell's own derivative would leave the zoneout out."""
    cell = jl.Dropout(jl.RNN(I, H), *rates)
    params = cell.init(KEY(0), jnp.float64)
    given = {"inputs": 0.3, "hidden": 0.4, "zoneout": 0.5, "cell": {"noise": 0.2}}
    noise = cell.sample_noise(params, KEY(3), T, rates=given)

    def loss(run, params, xs):
        hs = run(params, xs)
        return jnp.sum(hs**2), hs

    ours = partial(run_with, cell, noise=noise, engine=engine)
    mine, theirs = (
        jax.value_and_grad(partial(loss, f), (0, 1), has_aux=True)(params, jnp.asarray(XS))
        for f in (ours, partial(loop, noise=noise))
    )
    jax.tree.map(close, mine, theirs)
    assert 0 < np.asarray(noise.steps.zoneout["h"]).mean() < 1


def test_the_masks_of_a_stack_contain_their_scale():
    cell = jl.Stack((jl.RNN(I, H), jl.RNN(H, 2)), dropout=0.1)
    params = cell.init(KEY(0), jnp.float64)
    noise = cell.sample_noise(params, KEY(3), T, rates={"dropout": 0.5})
    mask = noise.steps[0].mask
    close(np.unique(mask), [0, 2])
    assert noise.steps[1].mask is None
    hs = jl.unroll(jl.RNN(I, H), params[0], XS)[1]
    expected = jl.unroll(jl.RNN(H, 2), params[1], hs * mask)[1]
    close(run_with(cell, params, jnp.asarray(XS), noise, "auto"), expected)


@pytest.mark.usefixtures("own_messages")
@pytest.mark.parametrize(
    ("cell", "rates", "error", "words"),
    [
        (dropout(0.1), {"input": 0.1}, ValueError, "Dropout.sample_noise: rates has input, but takes inputs, hidden"),
        (dropout(0.1), {"inputs": 1.0}, ValueError, "inputs must be a rate of at least 0 and below 1, but is 1.0"),
        (dropout(0.1), {"hidden": np.array([0, 0, 0, -1])}, ValueError, "hidden must be a rate.*but is -1"),
        (dropout(0.1), {"hidden": np.zeros(3)}, ValueError, r"hidden must.*broadcast to \(4,\), but has shape \(3,\)"),
        (dropout(0.1), {"zoneout": "0.1"}, TypeError, "zoneout must be a number, or an array that.*'0.1'"),
        (dropout(0.1), 0.1, TypeError, "Dropout.sample_noise: rates must be a dict by name, but is a float"),
        (dropout(0.1), {"cell": {"noise": 0.1}}, ValueError, "LSTM.sample_noise: rates has noise, but takes none"),
        (jl.Dropout(jl.GRU(I, H)), {"zoneout_c": 0.1}, ValueError, "Dropout.sample_noise: the state of cell GRU must"),
        (jl.Dropout(jl.MinGRU(I, H)), {"hidden": 0.1}, ValueError, "Dropout.sample_noise: hidden acts on h before"),
        (jl.RNN(I, H), {"noise": -1}, ValueError, "RNN.sample_noise: noise must be 0 or more, but is -1"),
        (jl.RNN(I, H), {"leak": 0.1}, ValueError, "RNN.sample_noise: rates has leak, but takes noise"),
        (jl.GRU(I, H), {"noise": 0.1, "b": 1}, ValueError, "GRU.sample_noise: rates has noise, b, but takes none"),
        (
            stack(0.0, 0.0, 0.0),
            {"cells": ({},)},
            ValueError,
            "Stack.sample_noise: cells in rates must be a tuple of 3 rates",
        ),
        (
            stack(0.0, 0.0, 0.0),
            {"cells": (None, {"p": 1}, None)},
            ValueError,
            "GRU.sample_noise: rates has p, but takes none",
        ),
        (
            stack(0.0, 0.0, 0.0),
            {"hidden": 0.1},
            ValueError,
            "Stack.sample_noise: rates has hidden, but takes dropout, cells",
        ),
        (jl.Bidirectional(jl.RNN(I, H)), {"noise": 0.1}, ValueError, "rates has noise, but takes forward, backward"),
    ],
)
def test_wrong_rates_are_refused_by_name(cell, rates, error, words):
    params = cell.init(KEY(0), jnp.float64)
    with pytest.raises(error, match=words):
        cell.sample_noise(params, KEY(1), T, rates=rates)


class Own:
    """A cell of a user, with the protocol only and noise without rates."""

    input_size, hidden_size, has_noise = I, I, True

    def init(self, key, dtype=jnp.float32):
        return jl.RNNParams(*(jnp.zeros(1, dtype) for _ in range(3)))

    def initial_state(self, params, like=None):
        return jl.RNNState(jnp.zeros(I))

    def sample_noise(self, params, key, T):
        return jl.Noise(steps=jax.random.normal(key, (T, I)))

    def step(self, params, state, x, noise=None):
        return state, x


def test_a_cell_whose_noise_has_no_rates_still_draws_in_a_layer():
    cell = jl.Bidirectional(Own(), jl.RNN(I, H))
    params = cell.init(KEY(0))
    noise = cell.sample_noise(params, KEY(1), T, rates={"backward": {"noise": 0.1}})
    assert noise.steps[0].shape == (T, I)
    with pytest.raises(ValueError, match="sample_noise of cell Own takes no rates; leave them out"):
        cell.sample_noise(params, KEY(1), T, rates={"forward": {"noise": 0.1}})
