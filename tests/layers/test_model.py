"""Models: the composition of embedding, cell and readout, at every step or at the end."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify
from jax.sharding import AxisType
from tiers import slow_except

import jax_lstm as jl

I, H, T, V, O = 3, 4, 6, 5, 2
RNG = np.random.default_rng(0)
XS, SYMBOLS = RNG.normal(size=(T, I)), RNG.integers(0, V, size=T)
MASK, RESET = np.array([1, 1, 0, 1, 1, 0], bool), np.array([0, 1, 0, 0, 1, 0], bool)
CELLS = {
    "LSTM": jl.LSTM(I, H),
    "projection": jl.LSTM(I, H, projection=2),
    "stack": jl.Stack((jl.GRU(I, H), jl.RNN(H, 2))),
    "both ways": jl.Bidirectional(jl.LSTM(I, H), jl.GRU(I, 2)),
    "dropout": jl.Dropout(jl.LSTM(I, H), inputs=0.3),
    "learned": jl.LearnedInitialState(jl.LSTM(I, H)),
}
EACH = pytest.mark.parametrize("name", list(CELLS))
close = partial(np.testing.assert_allclose, rtol=0, atol=1e-12)


@EACH
@pytest.mark.parametrize("symbols", [False, True])
def test_it_is_an_embedding_then_a_cell_then_a_readout(name, symbols):
    cell = CELLS[name]
    model = jl.Model(cell, O, V if symbols else None)
    params = model.init(jax.random.key(0), jnp.float64)
    xs = XS if params.embedding is None else np.asarray(params.embedding.w)[SYMBOLS]
    given = SYMBOLS if symbols else XS
    end, hs = jl.unroll(cell, params.cell, xs, None, MASK, RESET)
    w, b = (np.asarray(a) for a in params.readout)
    jax.tree.map(close, model.apply(params, given, None, MASK, RESET), (end, np.asarray(hs) @ w + b))
    jax.tree.map(close, model.apply_last(params, given, None, MASK, RESET), (end, np.asarray(cell.output(end)) @ w + b))
    assert model.embedding == (jl.Embedding(V, I) if symbols else None)
    assert (params.embedding is None) != symbols


def test_last_uses_the_last_live_step_of_each_direction():
    for name in CELLS:
        model = jl.Model(CELLS[name], O)
        params = model.init(jax.random.key(0), jnp.float64)
        _, ys = model.apply(params, XS, None, MASK)
        _, y = model.apply_last(params, XS, None, MASK)
        assert np.allclose(y, ys[4], rtol=0, atol=1e-12) == (name != "both ways")
    cell = CELLS["both ways"]
    model = jl.Model(cell, H + 2)
    params = model.init(jax.random.key(0), jnp.float64)
    params = params._replace(readout=jl.ReadoutParams(np.eye(H + 2), np.zeros(H + 2)))
    _, ys = model.apply(params, XS, None, MASK)
    close(model.apply_last(params, XS, None, MASK)[1], np.concatenate([ys[4, :H], ys[0, H:]]))


def test_a_key_goes_to_the_cell():
    model = jl.Model(CELLS["dropout"], O)
    params = model.init(jax.random.key(0), jnp.float64)
    w, b = (np.asarray(a) for a in params.readout)
    key = jax.random.key(3)
    _, hs = jl.unroll(model.cell, params.cell, XS, key=key)
    for run, h in ((model.apply, hs), (model.apply_last, hs[-1])):
        close(run(params, XS, key=key)[1], np.asarray(h) @ w + b)


@pytest.mark.parametrize("axis_type", slow_except([AxisType.Explicit], [AxisType.Explicit, AxisType.Auto]))
def test_sharded_symbols_give_the_results_of_one_device(axis_type):
    model = jl.Model(jl.LSTM(I, H), V, V)
    params, symbols = model.init(jax.random.key(0), jnp.float64), np.stack([SYMBOLS, SYMBOLS[::-1]])

    def loss(params, symbols):
        return jnp.sum(jax.vmap(model.apply, (None, 0))(params, symbols)[1] ** 2)

    def drawn(params, symbols):
        return jax.vmap(lambda prompt: jl.sample(model, params, jax.random.key(1), prompt, steps=3, top_p=0.9))(symbols)

    expected = jax.value_and_grad(loss)(params, symbols), drawn(params, symbols)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(axis_type,))
    with jax.set_mesh(mesh):
        sharded = jax.device_put(symbols, jax.NamedSharding(mesh, jax.P("data")))
        found = jax.jit(jax.value_and_grad(loss))(params, sharded), jax.jit(drawn)(params, sharded)
        jax.tree.map(close, found, expected)


@pytest.mark.parametrize(
    ("pad", "last"), slow_except([(-1, False)], [(pad, last) for pad in (-1, V, 2**31 - 1) for last in (False, True)])
)
def test_a_symbol_at_a_masked_step_may_be_any_integer(pad, last):
    model = jl.Model(jl.LSTM(I, H), O, V)
    params, mask = model.init(jax.random.key(0), jnp.float64), np.arange(len(SYMBOLS)) % 3 != 1

    def loss(params, symbols):
        run = model.apply_last if last else model.apply
        state, ys = jax.vmap(run, (None, 0, None, 0))(params, symbols, None, np.stack([mask, ~mask]))
        return jnp.sum(ys**2) + jnp.sum(state.h)

    padded, other = (np.stack([np.where(m, SYMBOLS, p) for m in (mask, ~mask)]) for p in (pad, 0))
    checked = checkify.checkify(jax.value_and_grad(loss), errors=checkify.index_checks | checkify.float_checks)
    error, found = jax.jit(checked)(params, padded)
    assert error.get() is None
    with jax.debug_nans(True):
        assert float(loss(params, padded)) == pytest.approx(float(found[0]), rel=1e-12)
    jax.tree.map(close, found, jax.value_and_grad(loss)(params, other))


def test_every_part_gets_a_gradient_and_a_key_of_its_own():
    model = jl.Model(jl.LSTM(I, H), H, V)
    with jax.debug_key_reuse(True):
        params = jax.jit(model.init)(jax.random.key(0))
    gradient = jax.grad(lambda p: jnp.sum(model.apply(p, SYMBOLS)[1] ** 2))(params)
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(gradient))
    unread = np.setdiff1d(np.arange(V), SYMBOLS)
    assert not gradient.embedding.w[unread].any()


@pytest.mark.usefixtures("own_messages")
def test_an_invalid_model_argument_is_refused_by_name():
    model = jl.Model(jl.LSTM(I, H), O, V)
    params = model.init(jax.random.key(0))
    with pytest.raises(TypeError, match="Model: cell must have init"):
        jl.Model(3, O)
    with pytest.raises(ValueError, match="Model: vocabulary must be at least 1"):
        jl.Model(jl.LSTM(I, H), O, 0)
    with pytest.raises(TypeError, match="symbols must be integers"):
        model.apply(params, XS)
    with pytest.raises(TypeError, match=r"Model: params must be ModelParams.*but are a LSTMParams"):
        model.apply(params.cell, SYMBOLS)
    with pytest.raises(ValueError, match="Model: params must have an embedding of"):
        model.apply(params._replace(embedding=None), SYMBOLS)
    with pytest.raises(TypeError, match=r"Model.init: key must be one random key"):
        model.init(0)
