"""GRU(reset_after=False): r multiplies h before the product with w_hn, as in Cho et al. 2014, Keras and ONNX."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import sigmoid
from tiers import slow_except

import jax_lstm as jl

I, H, T = 3, 4, 6
CELL = jl.GRU(I, H, reset_after=False)
RNG = np.random.default_rng(0)
XS = RNG.normal(size=(T, I))
PARAMS = jl.GRUParams(RNG.normal(size=(I, 3 * H)) / 2, RNG.normal(size=(H, 3 * H)) / 2, RNG.normal(size=3 * H))
MASK, RESET = np.array([1, 1, 0, 1, 1, 1], bool), np.array([0, 0, 0, 1, 0, 0], bool)
close = partial(np.testing.assert_allclose, rtol=0, atol=1e-12)


def onnx(W, R, B, xs, h):
    """The operator GRU of ONNX with linear_before_reset = 0; gates in the order z, r, h."""
    W_z, W_r, W_h = np.split(W, 3)
    R_z, R_r, R_h = np.split(R, 3)
    Wb_z, Wb_r, Wb_h, Rb_z, Rb_r, Rb_h = np.split(B, 6)
    hs = []
    for x in xs:
        z = sigmoid(x @ W_z.T + h @ R_z.T + Wb_z + Rb_z)
        r = sigmoid(x @ W_r.T + h @ R_r.T + Wb_r + Rb_r)
        n = np.tanh(x @ W_h.T + (r * h) @ R_h.T + Rb_h + Wb_h)
        h = (1 - z) * n + z * h
        hs.append(h)
    return np.stack(hs)


def loop(params, xs, h, mask=None, reset=None, numpy=np):
    w_x, w_h, b = params[:3]
    hs, w_hr, w_hz, w_hn = [], *(w_h[:, k * H : (k + 1) * H] for k in range(3))
    for t in range(len(xs)):
        if mask is not None and not mask[t]:
            hs.append(numpy.zeros(H))
            continue
        h = numpy.zeros(H) if reset is not None and reset[t] else h
        x_r, x_z, x_n = (xs[t] @ w_x + b)[:H], (xs[t] @ w_x + b)[H : 2 * H], (xs[t] @ w_x + b)[2 * H :]
        r, z = 1 / (1 + numpy.exp(-(x_r + h @ w_hr))), 1 / (1 + numpy.exp(-(x_z + h @ w_hz)))
        h = (1 - z) * numpy.tanh(x_n + (r * h) @ w_hn) + z * h
        hs.append(h)
    return h, numpy.stack(hs)


def test_a_run_is_the_gru_of_onnx():
    def zrh(a):
        r, z, n = np.split(a, 3, axis=-1)
        return np.concatenate([z, r, n], axis=-1)

    half = zrh(PARAMS.b) / 2  # ONNX has two biases, which are added
    h = RNG.normal(size=H)
    theirs = onnx(zrh(PARAMS.w_x).T, zrh(PARAMS.w_h).T, np.concatenate([half, half]), XS, h)
    state, hs = jl.unroll(CELL, PARAMS, XS, jl.GRUState(jnp.asarray(h)))
    close(hs, theirs)
    close(state.h, theirs[-1])
    after = jl.unroll(jl.GRU(I, H), PARAMS._replace(b_hn=np.zeros(H)), XS, jl.GRUState(jnp.asarray(h)))[1]
    assert np.abs(after - theirs).max() > 1e-2  # the same shapes, other numbers


@pytest.mark.parametrize("engine", slow_except(["auto"], ["auto", "plain"]))
def test_values_and_gradients_are_those_of_a_loop(engine):
    def ours(params, xs, h):
        return jnp.sum(jl.unroll(CELL, params, xs, jl.GRUState(h), MASK, RESET, engine=engine)[1] ** 2)

    def theirs(params, xs, h):
        return jnp.sum(loop(params, xs, h, MASK, RESET, jnp)[1] ** 2)

    args = PARAMS, XS, RNG.normal(size=H)
    jax.tree.map(close, *(jax.value_and_grad(f, (0, 1, 2))(*args) for f in (ours, theirs)))
    jax.tree.map(
        close, jl.unroll(CELL, PARAMS, XS, None, MASK, RESET)[1], loop(PARAMS, XS, np.zeros(H), MASK, RESET)[1]
    )


def test_batches_layers_steps_and_segments_run_it():
    xs = np.stack([XS, -XS])
    hs = np.stack([loop(PARAMS, x, np.zeros(H))[1] for x in xs])
    close(jl.batched(jl.unroll)(CELL, PARAMS, xs)[1], hs)
    close(jl.unroll(CELL, PARAMS, XS, remat_every=2)[1], hs[0])
    close(jl.tbptt(CELL, PARAMS, XS, window=2)[1], hs[0])
    state = CELL.initial_state(PARAMS)
    for t, x in enumerate(XS):
        state, h = jl.step(CELL, PARAMS, state, x)
        close(h, hs[0, t])
    both = jl.batched(jl.unroll)(jl.Bidirectional(CELL), jl.BidirectionalParams(PARAMS, PARAMS), xs)[1]
    close(both[..., :H], hs)
    back = np.stack([loop(PARAMS, x[::-1], np.zeros(H))[1][::-1] for x in xs])
    close(both[..., H:], back)
    above = jl.GRU(H, 2)
    stack = jl.Stack((CELL, above))
    params = above.init(jax.random.key(0), jnp.float64)
    close(jl.unroll(stack, (PARAMS, params), XS)[1], jl.unroll(above, params, hs[0])[1])
    h_0 = RNG.normal(size=H)
    learned = jl.unroll(jl.LearnedInitialState(CELL), jl.LearnedParams(PARAMS, jl.GRUState(h_0)), XS)[1]
    close(learned, loop(PARAMS, XS, h_0)[1])


def test_its_step_jacobians_are_those_of_its_loop():
    jacobians = jl.gradflow.step_jacobians(CELL, PARAMS, XS)
    h = np.zeros(H)
    for t, x in enumerate(XS):
        expected = jax.jacobian(lambda h, x=x: loop(PARAMS, x[None], h, numpy=jnp)[0])(jnp.asarray(h))
        close(np.reshape(jax.tree.leaves(jacobians)[0][t], (H, H)), expected)
        h = loop(PARAMS, x[None], h)[0]


def test_its_params_and_config_are_its_own():
    params = CELL.init(jax.random.key(0))
    assert [a.shape for a in params[:3]] == [(I, 3 * H), (H, 3 * H), (3 * H,)]
    assert params.b_hn is None
    assert type(params) is jl.GRUParams
    np.testing.assert_array_equal(params.w_h, jl.GRU(I, H).init(jax.random.key(0)).w_h)
    assert jl.from_config(json.loads(json.dumps(jl.to_config(CELL)))) == CELL
    assert CELL.params_from({"w_x": params.w_x, "w_h": params.w_h, "b": params.b}).b_hn is None
    with pytest.raises(ValueError, match=r"unroll: params lacks b_hn, which cell GRU needs with shape \(4,\)"):
        jl.unroll(jl.GRU(I, H), params, XS.astype(np.float32))
    with pytest.raises(ValueError, match="unroll: params has b_hn, which cell GRU does not take"):
        jl.unroll(CELL, PARAMS._replace(b_hn=np.zeros(H)), XS)


def test_an_engine_or_layer_that_needs_a_split_step_says_so():
    assert jl.engines.explain(CELL, XS).startswith("GRU: plain, a scan of its step")
    with pytest.raises(ValueError, match='engine "hoisted": cell GRU does not split its step with these options'):
        jl.unroll(CELL, PARAMS, XS, engine="hoisted")
    with pytest.raises(TypeError, match=r"Dropout: cell must split its step.*GRU does not with these options"):
        jl.Dropout(CELL, inputs=0.1)


def test_compute_dtype_rounds_both_operands_of_the_candidate():
    cell = jl.GRU(I, H, compute_dtype="bfloat16", reset_after=False)
    params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), PARAMS)
    rough, fine = (jl.unroll(c, params, XS.astype(np.float32))[1] for c in (cell, CELL))
    assert rough.dtype == jnp.float32
    assert 1e-5 < np.abs(rough - fine).max() < 3e-2
