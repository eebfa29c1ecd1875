"""Four programs of research code, each with public names only and in at most 40 lines."""

import inspect
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jax_lstm as jl

pytestmark = pytest.mark.slow  # make test-all runs it


@contextmanager
def jaxs_defaults():
    """What research code runs with; Optax's Adam fails with strict promotion."""
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def attention_decoder(steps):
    """Train a decoder with attention to reverse strings of different lengths; return the loss of every step."""

    @dataclass(frozen=True)
    class Decoder(jl.LSTM):
        takes_constants = True

        def init(self, key, dtype=jnp.float32):  # pyrefly: ignore[bad-override]
            return jl.LSTM(self.input_size + self.hidden_size, self.hidden_size).init(key, dtype)

        def step(self, params, state, x, *, constants):  # pyrefly: ignore[bad-override]
            memory, used = constants
            context = jax.nn.softmax(jnp.where(used, memory @ state.h, -1e9)) @ memory
            return jl.lstm_step(params, state, jnp.concatenate([x, context]))

    V, B, T, H = 5, 32, 4, 24
    encoder, decoder = jl.LSTM(V + T, H), jl.Model(Decoder(V, H), V)
    keys = jax.random.split(jax.random.key(0), 3)
    params = encoder.init(keys[0]), decoder.init(keys[1])
    lengths = jnp.tile(jnp.array([4, 3, 2, 4]), B // 4)
    mask = jnp.arange(T) < lengths[:, None]
    source = jax.random.randint(keys[2], (B, T), 0, V)
    target = jnp.take_along_axis(source, jnp.where(mask, lengths[:, None] - 1 - jnp.arange(T), 0), 1)
    places = jnp.broadcast_to(jnp.eye(T), (B, T, T))
    read = jnp.concatenate([jax.nn.one_hot(source, V), places], -1)
    before = jnp.pad(jax.nn.one_hot(target, V)[:, :-1], ((0, 0), (1, 0), (0, 0)))

    def loss(params):
        _, memory = jl.batched(jl.unroll)(encoder, params[0], read, mask=mask)
        _, ys = jl.batched(decoder.apply)(params[1], before, mask=mask, constants=(memory, mask))
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(ys, target), where=mask)

    return trained(loss, params, optax.adam(2e-2), steps)


def trained(loss, params, optimizer, steps):
    def train_step(carry, _):
        value, grads = jax.value_and_grad(loss)(carry[0])
        updates, state = optimizer.update(grads, carry[1], carry[0])
        return (optax.apply_updates(carry[0], updates), state), value

    return jax.jit(lambda p: jax.lax.scan(train_step, (p, optimizer.init(p)), length=steps)[1])(params)


def acting_and_replay(T, B):
    """Act in B environments, then replay with burn-in; return both outputs, and the gradient by the replayed data."""
    cell = jl.Stack((jl.LSTM(3, 8), jl.GRU(8, 8)))
    params = cell.init(jax.random.key(0))

    def act(carry, key):
        state, position, first = carry
        seen = jnp.stack([position, position**2, first.astype(position.dtype)], -1)
        after, h = jl.batched(jl.step)(cell, params, state, seen, None, first)
        moved = position + jnp.tanh(h[:, 0]) + 0.3 * jax.random.normal(key, (B,))
        done = jnp.abs(moved) > 1
        return (after, jnp.where(done, 0.0, moved), done), (seen, first, state, h)

    start = jl.initial_states(cell, params, B), jnp.zeros(B), jnp.ones(B, bool)
    _, (seen, first, states, hs) = jax.jit(partial(jax.lax.scan, act))(start, jax.random.split(jax.random.key(1), T))

    at, burn_in = T // 3, T // 4
    stored = jax.tree.map(lambda s: s[at], states)
    run = jl.batched(jl.unroll, time_major=True)

    def replay(params, seen):
        state, early = run(cell, jax.lax.stop_gradient(params), seen[:burn_in], stored, None, first[at:][:burn_in])
        state = jax.lax.stop_gradient(state)
        return jnp.concatenate([early, run(cell, params, seen[burn_in:], state, None, first[at:][burn_in:])[1]])

    by_data = jax.grad(lambda seen: jnp.sum(replay(params, seen)[burn_in:] ** 2))(seen[at:])
    return first[at:], hs[at:], replay(params, seen[at:]), by_data[:burn_in], by_data[burn_in:]


def population_over_forget_biases(biases, steps):
    """Train one network per forget bias to add the first and the last input; return the loss of each at every step."""
    model = jl.Model(jl.LSTM(1, 8), output_size=1)
    xs = jax.random.uniform(jax.random.key(0), (64, 20, 1))
    target = xs[:, 0] + xs[:, -1]

    def born(bias):
        params = model.init(jax.random.key(1))
        return params._replace(cell=model.cell.init(jax.random.key(2), forget_bias=bias))

    def losses(population):
        def loss(params):
            _, ys = jl.batched(model.apply_last)(params, xs)
            return jnp.mean((ys - target) ** 2)

        return jax.vmap(loss)(population)

    population = jax.vmap(born)(biases)
    kept = jax.vmap(lambda p: jl.gradflow.data_horizon(model.cell, p.cell, xs[0]))(population)
    optimizer = optax.adam(1e-2)

    def train_step(carry, _):
        population, state = carry
        grads = jax.grad(lambda p: losses(p).sum())(population)
        updates, state = optimizer.update(grads, state)
        return (optax.apply_updates(population, updates), state), losses(population)

    start = population, optimizer.init(population)
    return kept, jax.jit(lambda s: jax.lax.scan(train_step, s, length=steps)[1])(start)


@dataclass(frozen=True)
class GRUD:
    """GRU-D (Che et al. 2018): missing inputs decay from the last value to the mean, and h decays with the gap."""

    features: int
    hidden_size: int
    takes_constants = True  # the mean of each feature, of this sequence

    @property
    def input_size(self):
        return 3 * self.features  # values, whether each is observed, and the time since it was

    @property
    def gru(self):
        return jl.GRU(2 * self.features, self.hidden_size)

    def init(self, key, dtype=jnp.float32):
        one = jnp.full(self.features, 0.5, dtype)
        decay = jax.random.uniform(key, (self.features, self.hidden_size), dtype)
        return {"gru": self.gru.init(key, dtype), "x": one, "h": decay}

    def initial_state(self, params):
        return {"h": self.gru.initial_state(params["gru"]).h, "last": jnp.zeros_like(params["x"])}

    def step(self, params, state, x, *, constants):
        value, seen, gap = jnp.split(x, 3)
        keep = jnp.exp(-jax.nn.relu(params["x"] * gap))
        last = jnp.where(seen > 0, value, state["last"])
        filled = jnp.where(seen > 0, value, keep * last + (1 - keep) * constants)
        h = jl.GRUState(state["h"] * jnp.exp(-jax.nn.relu(gap @ params["h"])))
        s_t, y = self.gru.step(params["gru"], h, jnp.concatenate([filled, seen]))
        return {"h": s_t.h, "last": last}, y


@pytest.mark.slow
def test_an_attention_decoder_learns_to_reverse():
    with jaxs_defaults():
        losses = attention_decoder(steps=150)
    assert losses[0] > 1.4  # about log 5
    assert losses[-1] < 0.2


def test_acting_equals_the_replay_and_burn_in_has_no_gradient():
    with jaxs_defaults():
        first, acted, replayed, before, after = acting_and_replay(T=24, B=5)
    assert first.any()
    assert not first.all()
    np.testing.assert_allclose(replayed, acted, rtol=0, atol=1e-6)
    assert not before.any()
    assert after.any()


@pytest.mark.slow
def test_a_population_over_forget_biases_trains_in_one_program():
    with jaxs_defaults():
        kept, losses = population_over_forget_biases(jnp.array([-2.0, 0.0, 2.0, 4.0], jnp.float32), steps=200)
    assert (np.diff(kept) > 0).all()  # a higher forget bias remembers longer
    assert losses.shape == (200, 4)
    assert losses[-1, 2] < 0.6 * losses[-1, 0]


def test_gru_d_with_time_gaps_fills_in_what_is_missing():
    cell, rng = GRUD(2, 4), np.random.default_rng(0)
    params = cell.init(jax.random.key(0), jnp.float64)
    T, B = 6, 3
    value, seen, mean = rng.normal(size=(B, T, 2)), rng.random((B, T, 2)) < 0.5, rng.normal(size=(B, 2))
    gap = np.zeros((B, T, 2))
    for t in range(1, T):
        gap[:, t] = 1 + np.where(seen[:, t - 1], 0, gap[:, t - 1])
    xs = np.concatenate([np.where(seen, value, np.nan_to_num(value)), seen, gap], -1)
    _, hs = jl.batched(jl.unroll)(cell, params, xs, constants=mean)
    for b in range(B):  # the same as a NumPy loop around the GRU
        h, last = np.zeros(4), np.zeros(2)
        for t in range(T):
            keep = np.exp(-0.5 * gap[b, t])
            last = np.where(seen[b, t], value[b, t], last)
            x = np.where(seen[b, t], value[b, t], keep * last + (1 - keep) * mean[b])
            h = h * np.exp(-gap[b, t] @ np.asarray(params["h"]))
            h = np.asarray(cell.gru.step(params["gru"], jl.GRUState(h), np.concatenate([x, seen[b, t]]))[1])
            np.testing.assert_allclose(hs[b, t], h, rtol=1e-10, atol=1e-12)
    # What was never observed has no effect, and after a long gap only the mean counts.
    loss = lambda xs, mean: jnp.sum(jl.batched(jl.unroll)(cell, params, xs, constants=mean)[1] ** 2)  # noqa: E731
    by_xs, by_mean = jax.grad(loss, (0, 1))(jnp.asarray(xs), jnp.asarray(mean))
    assert not np.asarray(by_xs[..., :2])[~seen].any()
    assert np.asarray(by_mean).any()


@pytest.mark.parametrize("program", [attention_decoder, acting_and_replay, population_over_forget_biases, GRUD])
def test_a_program_is_short(program):
    assert len(inspect.getsource(program).splitlines()) <= 40
