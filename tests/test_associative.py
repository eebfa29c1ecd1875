"""The engine "associative": a parallel prefix gives the numbers of the loop, and holds none."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from programs import scans
from tiers import slow_except

import jax_lstm as jl

I, H, T, B = 3, 4, 13, 3
CELLS = {
    "MinLSTM": jl.MinLSTM(I, H),
    "MinGRU": jl.MinGRU(I, H),
    "stack": jl.Stack((jl.MinGRU(I, H), jl.MinLSTM(H, 2))),
    "both ways": jl.Bidirectional(jl.MinGRU(I, H), jl.MinLSTM(I, 2)),
}
EACH = pytest.mark.parametrize("name", list(CELLS))
TWO_OF_THEM = pytest.mark.parametrize("name", slow_except(["MinGRU", "stack"], CELLS))
RNG = np.random.default_rng(0)
XS, MASK, RESET = RNG.normal(size=(B, T, I)), RNG.random((B, T)) < 0.7, RNG.random((B, T)) < 0.3
MASKED = {"bare": (None, None), "mask": (MASK, None), "reset": (None, RESET), "both": (MASK, RESET)}
TOLERANCE = {"float64": 1e-12, "float32": 1e-5}


@cache
def given(name, dtype="float64"):
    """params, xs and a state for each sequence."""
    cell = CELLS[name]
    params = cell.init(jax.random.key(0), dtype)
    state = jax.tree.map(
        lambda a: jnp.asarray(np.random.default_rng(1).normal(size=(B, *a.shape)), dtype), cell.initial_state(params)
    )
    return params, jnp.asarray(XS, dtype), state


@partial(jax.jit, static_argnames=("name", "engine", "reverse"))
def with_gradient(name, engine, params, xs, state, mask, reset, reverse=False):
    """Last state, outputs, and the gradient of a sum over both."""

    def loss(params, xs, state):
        end, ys = jl.unroll(CELLS[name], params, xs, state, mask, reset, engine=engine, reverse=reverse)
        return sum(jnp.sum(jnp.sin(a)) for a in jax.tree.leaves((end, ys))), (end, ys)

    (_, outputs), gradient = jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(params, xs, state)
    return outputs, gradient


def assert_equal(ours, theirs, dtype):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.dtype == b.dtype == jnp.dtype(dtype)
        np.testing.assert_allclose(a, b, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * np.abs(b).max(initial=1))


@EACH
@pytest.mark.parametrize("masks", slow_except(["both"], MASKED))
def test_values_and_gradients_equal_the_loop_for_any_flags(name, masks):
    params, xs, state = given(name)
    masks = [None if f is None else f[0] for f in MASKED[masks]]
    args = params, xs[0], jax.tree.map(lambda a: a[0], state), *masks
    assert_equal(with_gradient(name, "associative", *args), with_gradient(name, "hoisted", *args), "float64")


@TWO_OF_THEM
@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_reverse_runs_equal_the_loop_in_each_dtype(name, dtype):
    params, xs, state = given(name, dtype)
    args = params, xs[1], jax.tree.map(lambda a: a[1], state), MASK[1], RESET[1]
    ours, theirs = (with_gradient(name, engine, *args, reverse=True) for engine in ("associative", "hoisted"))
    assert_equal(ours, theirs, dtype)


@pytest.mark.parametrize("seed", [None, 3], ids=["in expectation", "drawn"])
def test_dropout_and_zoneout_leave_a_cell_linear_in_its_state(seed):
    key = None if seed is None else jax.random.key(seed)
    lower = jl.Dropout(jl.MinGRU(I, H), inputs=0.3, zoneout=0.4)
    stack = jl.Stack((lower, jl.Dropout(jl.MinLSTM(H, H), zoneout=0.3)), dropout=0.3, residual=True)
    params = stack.init(jax.random.key(0), jnp.float64)
    ours, theirs = (
        jl.unroll(stack, params, XS[0], None, MASK[0], RESET[0], key=key, engine=engine)
        for engine in ("associative", "hoisted")
    )
    assert_equal(ours, theirs, "float64")


@TWO_OF_THEM
def test_a_batch_is_its_sequences_one_by_one_by_vmap_or_batched(name):
    params, *data = given(name)
    run = partial(jl.unroll, CELLS[name], engine="associative")
    data = (*data, MASK, RESET)
    by_vmap = jax.vmap(run, (None, 0, 0, 0, 0))(params, *data)
    assert_equal(jl.batched(run)(params, *data), by_vmap, "float64")
    for k in range(B):
        one = jl.unroll(CELLS[name], params, *jax.tree.map(lambda a, k=k: a[k], data))
        assert_equal(jax.tree.map(lambda a, k=k: a[k], by_vmap), one, "float64")


@TWO_OF_THEM
def test_states_segments_and_short_sequences_are_the_loops(name):
    params, xs, _ = given(name)
    both = "associative", "hoisted"
    for steps in (0, 1, 2):
        ours, theirs = (jl.unroll(CELLS[name], params, xs[0, :steps], engine=engine) for engine in both)
        assert_equal(ours, theirs, "float64")
    ours, theirs = (
        jl.unroll_states(CELLS[name], params, xs[0], None, MASK[0], RESET[0], engine=engine, remat_every=5)
        for engine in both
    )
    assert_equal(ours, theirs, "float64")


def test_forward_mode_and_curvature_are_the_loops():
    params, xs, _ = given("MinLSTM")

    def curvature(engine):
        f = lambda p: jnp.sum(jl.unroll(CELLS["MinLSTM"], p, xs[0], None, MASK[0], RESET[0], engine=engine)[1] ** 2)  # noqa: E731
        return jax.jit(lambda: (jax.jvp(f, (params,), (params,)), jax.jvp(jax.grad(f), (params,), (params,))))()

    assert_equal(curvature("associative"), curvature("hoisted"), "float64")


def test_nan_at_a_masked_step_changes_no_bit():
    params, xs, state = given("MinGRU")
    args = jax.tree.map(lambda a: a[0], (xs, state, MASK, RESET))
    clean = with_gradient("MinGRU", "associative", params, *args)
    padded = with_gradient("MinGRU", "associative", params, jnp.where(MASK[0][:, None], xs[0], jnp.nan), *args[1:])
    jax.tree.map(np.testing.assert_array_equal, padded, clean)


@pytest.mark.parametrize("name", ["MinLSTM", "MinGRU", "stack"])
def test_it_has_no_loop_in_the_forward_or_backward_pass(name):
    params, xs, state = given(name)
    args = params, xs[0], jax.tree.map(lambda a: a[0], state), MASK[0], RESET[0]
    loops = [
        len(scans(jax.make_jaxpr(partial(with_gradient, name, engine))(*args))) for engine in ("associative", "hoisted")
    ]
    assert loops[0] == 0 < loops[1]


@pytest.mark.parametrize(
    "cell", [jl.LSTM(I, H), jl.Stack((jl.MinGRU(I, H), jl.LSTM(H, H)))], ids=["LSTM", "in a stack"]
)
def test_a_cell_not_linear_in_its_state_is_refused_by_name(cell):
    params = cell.init(jax.random.key(0), jnp.float64)
    for call in (jl.unroll, jl.unroll_states, partial(jl.tbptt, window=5)):
        with pytest.raises(ValueError, match=r'engine "associative": .* linear .* LSTM does not'):
            call(cell, params, XS[0], engine="associative")


class OneGate(jl.SplitCell):
    """h_t = f h_{t−1} + x w with one forget gate f for all units, so that `affine` returns a scalar."""

    input_size, hidden_size, linear_in_state = 3, 4, True

    def init(self, key, dtype=jnp.float32):
        return {"w": jax.random.normal(key, (3, 4), dtype), "v": jnp.ones(3, dtype)}

    def initial_state(self, params):
        return jl.RNNState(jnp.zeros(4, params["w"].dtype))

    def affine(self, params, x):
        return jl.RNNState(jax.nn.sigmoid(x @ params["v"])), jl.RNNState(x @ params["w"])

    def project(self, params, x):
        return x @ params["w"], x @ params["v"]

    def recur(self, params, state):
        return None

    def update(self, params, state, z):
        return jl.RNNState(jax.nn.sigmoid(z[1]) * state.h + z[0])


@pytest.mark.parametrize("B", [1, 3])
def test_a_coefficient_may_have_fewer_axes_than_the_state(B):
    cell, rng = OneGate(), np.random.default_rng(0)
    params, xs, reset = cell.init(jax.random.key(0), jnp.float64), rng.normal(size=(B, 3, 3)), rng.random((B, 3)) < 0.5
    run = jl.batched(jl.unroll)
    ours, expected = (run(cell, params, xs, None, None, reset, engine=engine) for engine in ("associative", "plain"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, strict=True), ours, expected)
