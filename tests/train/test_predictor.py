"""Predictions in original units, in chunks of rows."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_lstm as jl
from jax_lstm.data import Batch, Scaling
from jax_lstm.train import Predictor, predictor

I, O = 3, 2
MODEL = jl.Model(jl.LSTM(I, 4), O)
SCALING = Scaling(*(np.array(a, np.float32) for a in ([1, 2, 3], [1, 2, 4], [5, -6], [2, 3])))
RNG = np.random.default_rng(0)
LENGTHS = [5, 3, 8, 8, 1]
XS = [RNG.normal(size=(T, I)) for T in LENGTHS]
PADDED = np.stack([np.pad(x, ((0, 8 - len(x)), (0, 0)), constant_values=np.nan) for x in XS])


@pytest.fixture(scope="module")
def params():
    return MODEL.init(jax.random.key(0))


@pytest.fixture(scope="module")
def expected(params):
    """The outputs of each sequence at every step, one sequence at a time and without jax_lstm.train."""
    apply = jax.jit(lambda x: MODEL.apply(params, x)[1])
    outputs = []
    for x in XS:
        scaled = (np.pad(x, ((0, 8 - len(x)), (0, 0))) - SCALING.input_mean) / SCALING.input_scale
        y = np.asarray(apply(scaled.astype(np.float32)))[: len(x)]
        outputs.append(y * SCALING.target_scale + SCALING.target_mean)
    return outputs


@pytest.mark.parametrize("every_step", [False, True])
def test_lists_and_padded_arrays_are_predicted_alike(params, expected, every_step):
    predict = Predictor(MODEL, SCALING, every_step).predict
    listed, padded = predict(params, XS), predict(params, PADDED, lengths=LENGTHS)
    for y, row, want in zip(listed, padded, expected, strict=True):
        np.testing.assert_allclose(y, want if every_step else want[-1], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(row[: len(want)] if every_step else row, y, rtol=1e-5, atol=1e-5)
    mask = np.arange(8)[None] < np.array(LENGTHS)[:, None]
    np.testing.assert_array_equal(predict(params, PADDED, mask=mask), padded)
    if every_step:
        assert isinstance(listed, list)
        assert np.isnan(padded[1, 3:]).all(), "padding has no prediction"
        assert np.isfinite(padded[mask]).all()
    else:
        assert padded.shape == (5, O)


def test_chunks_give_the_outputs_of_one_batch(params, monkeypatch):
    predict, xs = Predictor(MODEL, SCALING).predict, RNG.normal(size=(11, 8, I))
    whole = predict(params, xs)
    monkeypatch.setattr(predictor, "ROWS", 4)
    np.testing.assert_allclose(predict(params, xs), whole, rtol=1e-6)
    assert predict(params, xs[:1]).shape == (1, O)


def cached():
    """The number of programs that predict."""
    return predictor._predicted._cache_size()  # pyrefly: ignore[missing-attribute]


def test_a_shape_is_compiled_once(params):
    model = jl.Model(jl.LSTM(I, 5), O)  # no other test has compiled it
    params, before = model.init(jax.random.key(1)), cached()
    for rows in (8, 8, 7, 5):  # filled up to 8
        assert Predictor(model, SCALING).predict(params, RNG.normal(size=(rows, 4, I))).shape == (rows, O)
    assert cached() == before + 1


def test_a_cell_predicts_its_outputs(params):
    cell = MODEL.cell
    ys = Predictor(cell, every_step=True).predict(params.cell, XS)
    np.testing.assert_allclose(ys[1], jl.unroll(cell, params.cell, XS[1].astype(np.float32))[1], rtol=1e-5, atol=1e-6)


def test_tokens_are_embedded():
    model = jl.Model(jl.GRU(I, 4), O, vocabulary=7)
    params, tokens = model.init(jax.random.key(0)), RNG.integers(0, 7, (3, 8))
    tokens[1, 5:] = -1
    got = Predictor(model).predict(params, tokens, lengths=[8, 5, 8])
    want = model.apply_last(params, jnp.asarray(tokens[1, :5], jnp.int32))[1]
    np.testing.assert_allclose(got[1], want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        Predictor(model).predict(params, list(tokens[[0, 2]])), got[[0, 2]], rtol=1e-5, atol=1e-6
    )


def test_window_and_state_reach_the_cell(params):
    xs, mask = jnp.asarray(PADDED[:, :4], jnp.float32), jnp.asarray(np.isfinite(PADDED[:, :4, 0]))
    batch = Batch(xs, None, mask)  # pyrefly: ignore[bad-argument-type]
    state, ys = Predictor(MODEL, every_step=True).outputs(params, batch)
    more, again = Predictor(MODEL, every_step=True, window=2).outputs(params, batch, state)
    np.testing.assert_array_equal(Predictor(MODEL, window=2).outputs(params, batch)[1][2], ys[2, 3])
    assert (np.asarray(again[2]) != ys[2]).any()
    assert more.h.shape == (5, 4)


def test_a_residual_stack_gives_its_last_output(params):
    stack = jl.Stack((jl.RNN(I, I), jl.RNN(I, I)), residual=True)
    weights = stack.init(jax.random.key(0))
    ys = Predictor(stack).predict(weights, XS)
    want = jl.unroll(stack, weights, XS[1].astype(np.float32))[1][-1]
    np.testing.assert_allclose(ys[1], want, rtol=1e-5, atol=1e-6)


def test_json_gives_back_the_predictor(params):
    before = Predictor(MODEL, SCALING, every_step=True, window=5)
    after = Predictor.from_config(json.loads(json.dumps(before.to_config())))
    assert (after.model, after.every_step, after.window) == (MODEL, True, 5)
    for a, b in zip(after.scaling, SCALING, strict=True):
        np.testing.assert_array_equal(a, b)
    assert Predictor.from_config(Predictor(MODEL).to_config()).scaling is None


class Own(jl.LSTM):
    """A cell whose class is not registered."""


def test_an_unregistered_class_must_be_given(params):
    config = Predictor(Own(I, 4), SCALING).to_config()
    assert config["model"] is None
    with pytest.raises(
        ValueError, match=r"from_config: wanted the config of a model, but .*; pass model=, or decorate"
    ):
        Predictor.from_config(config)
    assert Predictor.from_config(config, Own(I, 4)).model == Own(I, 4)


@pytest.mark.parametrize(
    ("inputs", "lengths", "said"),
    [
        (PADDED, None, r"inputs must be finite, but inputs\[0, 5, 0\] \(row 0, step 5, feature 0\) is nan"),
        (PADDED, [5, 3, 8, 8, 0], "wanted at least 1 step in every sequence, but sequence 4 has none"),
        (XS[0], None, r"must have the shape \(N, T, I\), but have \(5, 3\); pass .* inputs\[None\] for one sequence"),
        (PADDED[..., :2], LENGTHS, "have 2 features on their last axis, but the cell takes 3"),
        (XS, LENGTHS, "lengths must be None for a list of sequences"),
        ([], None, "must have at least 1 sequence, but is an empty list"),
    ],
)
def test_inputs_that_cannot_be_predicted_are_refused(params, inputs, lengths, said):
    with pytest.raises(ValueError, match=f"^predict: .*{said}"):
        Predictor(MODEL, SCALING).predict(params, inputs, lengths=lengths)
