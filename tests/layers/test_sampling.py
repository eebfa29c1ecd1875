"""Sampling: a Python loop of steps at temperature 0, the distribution it claims at others, compiled once."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from programs import compilations

import jax_lstm as jl
from jax_lstm.layers.sampling import draw

V, I, H = 5, 3, 6
MODEL = jl.Model(jl.Stack((jl.LSTM(I, H), jl.GRU(H, H))), V, V)
# Larger weights than drawn, so that one symbol does not win at every step.
PROMPT = np.array([1, 4, 0])
LOGITS = np.log([0.1, 0.4, 0.05, 0.25, 0.2])
close = partial(np.testing.assert_allclose, rtol=0, atol=1e-12)


@cache
def model_params():
    return jax.tree.map(lambda a: 3 * a, MODEL.init(jax.random.key(0), jnp.float64))


def test_temperature_zero_equals_a_greedy_python_loop():
    state, y = MODEL.cell.initial_state(model_params().cell), None
    w, b = model_params().readout

    def fed(state, k):
        state, h = jl.step(MODEL.cell, model_params().cell, state, model_params().embedding.w[k])
        return state, h @ w + b

    for k in PROMPT:
        state, y = fed(state, k)
    symbols = []
    for _ in range(12):
        symbols.append(int(jnp.argmax(y)))
        state, y = fed(state, symbols[-1])
    end, ours = jl.sample(MODEL, model_params(), jax.random.key(1), PROMPT, steps=12, temperature=0.0)
    assert ours.tolist() == symbols
    assert len(set(symbols)) > 1
    assert ours.dtype == jnp.int32
    jax.tree.map(close, end, state)


def test_one_key_gives_one_text_and_another_key_another():
    run = partial(jl.sample, MODEL, model_params(), prompt=PROMPT, steps=30)
    np.testing.assert_array_equal(run(key=jax.random.key(1))[1], run(key=jax.random.key(1))[1])
    assert (run(key=jax.random.key(1))[1] != run(key=jax.random.key(2))[1]).any()


def test_it_goes_on_from_the_state_that_it_left():
    end, symbols = jl.sample(MODEL, model_params(), jax.random.key(1), PROMPT, steps=4, temperature=0.0)
    whole = jl.sample(MODEL, model_params(), jax.random.key(1), PROMPT, steps=9, temperature=0.0)[1]
    _, y = MODEL.apply(model_params(), np.concatenate([PROMPT, symbols]))
    first = jnp.argmax(y[-1])[None].astype(jnp.int32)
    more = jl.sample(MODEL, model_params(), jax.random.key(2), first, end, steps=4, temperature=0.0)[1]
    np.testing.assert_array_equal(whole, jnp.concatenate([symbols, first, more]))


def test_new_keys_prompts_and_temperatures_compile_nothing():
    jl.sample(MODEL, model_params(), jax.random.key(0), PROMPT, steps=7, temperature=0.5, top_p=0.5)
    keys, other = list(jax.random.split(jax.random.key(9), 4)), PROMPT[::-1].copy()
    with compilations() as seen:
        for key in keys:
            jl.sample(MODEL, model_params(), key, other, steps=7, temperature=0.7, top_p=0.9)
    assert [event for event in seen if "backend_compile" in event] == []


@pytest.mark.parametrize(
    ("temperature", "top_p", "kept"),
    [(1.0, 1.0, [0, 1, 2, 3, 4]), (0.5, 1.0, [0, 1, 2, 3, 4]), (1.0, 0.6, [1, 3]), (1.0, 0.66, [1, 3, 4]),
     (2.0, 0.5, [1, 3]), (1.0, 0.01, [1])],
)  # fmt: skip
def test_symbols_are_drawn_from_the_smallest_set_with_top_p(temperature, top_p, kept):
    n = 20_000
    keys = jax.random.split(jax.random.key(0), n)
    drawn = jax.jit(jax.vmap(lambda key: draw(key, jnp.asarray(LOGITS), jnp.asarray(temperature), jnp.asarray(top_p))))(
        keys
    )
    p = np.exp(np.asarray(LOGITS) / temperature)
    p /= p.sum()
    smallest = np.argsort(-p)[: int(np.searchsorted(np.cumsum(np.sort(p)[::-1]), top_p - 1e-12)) + 1]
    assert sorted(smallest.tolist()) == kept
    p = np.where(np.isin(np.arange(V), kept), p, 0)
    p /= p.sum()
    often = np.bincount(drawn, minlength=V) / n
    assert (np.abs(often - p) <= 5 * np.sqrt(p * (1 - p) / n)).all()


@pytest.mark.parametrize("temperature", [1e-3, 1e-10, 1e-30, 1e-45])
@pytest.mark.parametrize("scale", [1.0, 1e30])
def test_a_tiny_temperature_takes_the_most_likely_symbol(temperature, scale):
    y = scale * jnp.asarray(np.log([0.1, 0.2, 0.05, 0.25, 0.4]), jnp.float32)
    for key in jax.random.split(jax.random.key(0), 3):
        assert jax.jit(draw)(key, y, jnp.float32(temperature), jnp.float32(1)) == 4


def test_narrow_logits_of_many_symbols_are_drawn_as_wide_ones():
    """4,096 symbols alike: in bfloat16 their probabilities do not add up."""
    y, n = jnp.zeros(4096, jnp.bfloat16), 4000
    keys = jax.random.split(jax.random.key(0), n)
    drawn = jax.jit(jax.vmap(lambda key: draw(key, y, jnp.asarray(1.0), jnp.asarray(0.5))))(keys)
    assert 2040 <= drawn.max() <= 2048
    low = np.mean(drawn < 1024)
    assert abs(low - 0.5) <= 5 * (0.25 / n) ** 0.5


@pytest.mark.parametrize(
    "changed",
    [{"prompt": np.array([1, V])}, {"prompt": np.array([-1])}, {"temperature": np.float32(-1)},
     {"top_p": np.zeros(())}, {"top_p": np.float32(1.5)}, {"temperature": np.float32(np.nan)}],
)  # fmt: skip
def test_invalid_values_on_the_device_give_symbol_minus_one(changed):
    on_device = {name: jnp.asarray(value) for name, value in changed.items()}
    given = {"prompt": PROMPT, "temperature": 1.0, "top_p": 1.0} | on_device
    assert jl.sample(MODEL, model_params(), jax.random.key(0), steps=3, **given)[1].tolist() == [-1] * 3


def test_symbols_follow_the_softmax_of_the_outputs_before_them():
    keys = jax.random.split(jax.random.key(0), 5000)
    texts = jax.jit(jax.vmap(lambda key: jl.sample(MODEL, model_params(), key, PROMPT, steps=2)[1]))(keys)
    p = jax.nn.softmax(MODEL.apply(model_params(), PROMPT)[1][-1])
    often = np.bincount(texts[:, 0], minlength=V) / 5000
    assert (np.abs(often - p) <= 5 * np.sqrt(p * (1 - p) / 5000)).all()
    k = int(np.argmax(p))
    after = texts[texts[:, 0] == k, 1]
    p = jax.nn.softmax(MODEL.apply(model_params(), np.append(PROMPT, k))[1][-1])
    assert (np.abs(np.bincount(after, minlength=V) / len(after) - p) <= 5 * np.sqrt(p * (1 - p) / len(after))).all()


def test_no_key_is_used_twice_and_the_given_one_is_used_up():
    with jax.debug_key_reuse(True):
        jax.jit(lambda key: jl.sample(MODEL, model_params(), key, PROMPT, steps=3)[1])(jax.random.key(0))
        with pytest.raises(jax.errors.KeyReuseError):
            jax.jit(lambda key: (jl.sample(MODEL, model_params(), key, PROMPT, steps=3)[1], jax.random.bits(key)))(
                jax.random.key(0)
            )


@pytest.mark.usefixtures("own_messages")
@pytest.mark.parametrize(
    ("changed", "error", "says"),
    [
        (
            {"model": jl.Model(jl.LSTM(I, H), V)},
            ValueError,
            "sample: model must have output_size equal to.*vocabulary=None",
        ),
        ({"model": jl.Model(jl.LSTM(I, H), 3, V)}, ValueError, "sample: model must.*vocabulary=5 and output_size=3"),
        ({"model": jl.Model(jl.Bidirectional(jl.LSTM(I, H)), V, V)}, ValueError, "sample: cell Bidirectional looks at"),
        ({"prompt": PROMPT[:0]}, ValueError, "sample: prompt must.*one symbol or more.*0"),
        ({"prompt": PROMPT[None]}, ValueError, r"sample: prompt must have shape \(P,\)"),
        ({"prompt": np.array([1.0])}, TypeError, "symbols must be integers"),
        ({"key": 3}, TypeError, "sample: key must be one random key"),
        ({"steps": 2.5}, TypeError, "sample: steps must be a Python integer"),
        ({"temperature": -1.0}, ValueError, "sample: temperature must be 0 or more.*-1.0"),
        ({"top_p": 0.0}, ValueError, "sample: top_p must be above 0 and at most 1.*0.0"),
        ({"top_p": 1.5}, ValueError, "sample: top_p must be.*1.5"),
        ({"temperature": "1"}, TypeError, "sample: temperature must be a Python number, but is '1'"),
        ({"temperature": True}, TypeError, "sample: temperature must be a Python number, but is True"),
        ({"top_p": None}, TypeError, "sample: top_p must be a Python number, but is None"),
        ({"model": jl.LSTM(I, H)}, TypeError, "sample: model must be a Model, but is a LSTM"),
        (
            {"params": jl.LSTMParams(*np.zeros((3, 1)))},
            TypeError,
            "Model: params must be ModelParams, as init makes them",
        ),
    ],
)
def test_an_invalid_sampling_argument_is_refused_by_name(changed, error, says):
    given = {"model": MODEL, "params": model_params(), "key": jax.random.key(0), "prompt": PROMPT, "steps": 2}
    with pytest.raises(error, match=says):
        jl.sample(**(given | changed))


def test_a_temperature_with_an_axis_is_refused():
    with pytest.raises(ValueError, match=r"sample: temperature must be one number, but is .*\[2\]"):
        jl.sample(MODEL, model_params(), jax.random.key(0), PROMPT, steps=2, temperature=jnp.ones(2))
