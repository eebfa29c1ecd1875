"""`batched` gives a batch to any function of one sequence; an eager call of a run is one compiled program."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify
from jax.sharding import AxisType
from programs import compilations

import jax_lstm as jl
from jax_lstm import gradflow

B, T, I, H = 3, 5, 2, 4
CELL = jl.LSTM(I, H)
RNG = np.random.default_rng(0)
XS, X = RNG.normal(size=(B, T, I)), RNG.normal(size=(B, I))
MASK, RESET = np.arange(T) < np.array([[5], [0], [3]]), np.arange(T) == np.array([[1], [2], [9]])
STATE = jl.LSTMState(RNG.normal(size=(B, H)), RNG.normal(size=(B, H)))
MODEL = jl.Model(CELL, 2)
SYMBOLS = jl.Model(CELL, 3, vocabulary=3)
close = partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-12)


def params_of(cell):
    return cell.init(jax.random.key(0), jnp.float64)


def loss(states):
    return jnp.sum(states.h**2)


@cache
def calls():
    """Name -> (function, arguments without a batch axis, arguments with one by keyword)."""
    params, of_model, of_symbols = params_of(CELL), params_of(MODEL), params_of(SYMBOLS)
    sequence = {"xs": XS, "state": STATE, "mask": MASK, "reset": RESET}
    symbols = {"xs": RNG.integers(0, 3, (B, T)), "mask": MASK}
    measured = {"xs": XS, "state": STATE}
    return {
        "step": (jl.step, (CELL, params), {"state": STATE, "x": X, "mask": MASK[:, 0], "reset": RESET[:, 1]}),
        "gates_of": (jl.gates_of, (CELL, params), sequence),
        "unroll_states": (jl.unroll_states, (CELL, params), sequence),
        "apply": (MODEL.apply, (of_model,), sequence),
        "apply_last": (MODEL.apply_last, (of_model,), sequence),
        "apply of symbols": (SYMBOLS.apply, (of_symbols,), symbols),
        "a partial": (partial(jl.tbptt, CELL, window=4, stride=2), (params,), sequence),
        "a partial of a model": (partial(SYMBOLS.apply_last, of_symbols), (), symbols),
        "jit": (jax.jit(jl.unroll), (CELL, params), sequence),
        "sensitivity": (gradflow.sensitivity, (CELL, params), measured),
        "step_jacobians": (gradflow.step_jacobians, (CELL, params), measured),
        "adjoint_norms": (gradflow.adjoint_norms, (loss, CELL, params), measured),
        "horizon": (gradflow.horizon, (CELL, params), {"state": STATE, "x": X}),
        "data_horizon": (gradflow.data_horizon, (CELL, params), measured),
        "your own": (lambda p, xs, mask: jl.lstm(p, xs, None, mask)[1].sum(), (params,), {"xs": XS, "mask": MASK}),
    }  # fmt: skip


NAMES = (
    "step",
    "gates_of",
    "unroll_states",
    "apply",
    "apply_last",
    "apply of symbols",
    "a partial",
    "a partial of a model",
    "jit",
    "sensitivity",
    "step_jacobians",
    "adjoint_norms",
    "horizon",
    "data_horizon",
    "your own",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_is_one_call_per_sequence(name):
    fn, fixed, arrays = calls()[name]
    ours = jl.batched(fn)(*fixed, **arrays)
    each = [fn(*fixed, **jax.tree.map(lambda a, b=b: a[b], arrays)) for b in range(B)]
    jax.tree.map(lambda a, *one: close(a, np.stack(one)), ours, *each)


@pytest.mark.parametrize(
    ("fn", "fixed", "result_axes"),
    [
        (jl.unroll, (CELL,), (0, 1)),
        (jl.unroll_states, (CELL,), 1),
        (jl.gates_of, (CELL,), 1),
        (MODEL.apply, (), (0, 1)),
        (MODEL.apply_last, (), (0, 0)),
    ],
    ids=["unroll", "unroll_states", "gates_of", "apply", "apply_last"],
)
def test_time_major_swaps_time_and_batch_only(fn, fixed, result_axes):
    params = params_of(CELL if fixed else MODEL)
    expected = jl.batched(fn)(*fixed, params, XS, STATE, MASK, RESET)
    ours = jl.batched(fn, time_major=True)(*fixed, params, XS.swapaxes(0, 1), STATE, MASK.T, RESET.T)
    if not isinstance(result_axes, tuple):
        ours, expected, result_axes = (ours,), (expected,), (result_axes,)
    for a, b, axis in zip(ours, expected, result_axes, strict=True):
        jax.tree.map(lambda a, b, axis=axis: close(np.moveaxis(a, axis, 0), b), a, b)


def test_every_sequence_of_a_batch_draws_its_own_noise():
    cell = jl.Dropout(CELL, zoneout=0.5)
    model = jl.Model(cell, 2)
    params, key = params_of(model), jax.random.key(1)
    same = np.broadcast_to(XS[:1], XS.shape)
    ys = jl.batched(model.apply)(params, same, key=key)[1]
    assert len({np.asarray(y).tobytes() for y in ys}) == B
    hs = jl.batched(jl.unroll)(cell, params.cell, same, key=key)[1]
    close(ys, np.asarray(hs) @ np.asarray(params.readout.w) + np.asarray(params.readout.b))
    # The same key in every call of a vmap is one mask for the whole batch.
    shared = jax.vmap(partial(jl.unroll, key=key), (None, None, 0))(cell, params.cell, same)[1]
    assert len({np.asarray(y).tobytes() for y in shared}) == 1


def test_sampling_takes_a_batch_of_prompts():
    prompts = RNG.integers(0, 3, (B, 2))
    key = jax.random.key(0)
    draw = partial(jl.sample, SYMBOLS, params_of(SYMBOLS), steps=4)
    ours = jl.batched(draw)(key=key, prompt=prompts)[1]
    for b, k in enumerate(jax.random.split(key, B)):
        np.testing.assert_array_equal(ours[b], draw(key=k, prompt=prompts[b])[1])


def test_acting_in_a_batch_equals_the_replay():
    params, state, hs = params_of(CELL), None, []
    for t in range(T):
        state, h = jl.batched(jl.step)(CELL, params, state, XS[:, t], MASK[:, t], RESET[:, t])
        hs.append(h)
    expected = jl.batched(jl.unroll)(CELL, params, XS, None, MASK, RESET)
    jax.tree.map(close, (state, np.stack(hs, 1)), expected)
    first = jl.batched(jl.step)(CELL, params, jl.initial_states(CELL, params, B), XS[:, 0])
    jax.tree.map(close, first, jl.batched(jl.step)(CELL, params, None, XS[:, 0]))
    close(first[1][0], jl.step(CELL, params, None, XS[0, 0])[1])


def test_initial_states_are_placed_as_the_data_are():
    cell = jl.LearnedInitialState(jl.Stack((jl.LSTM(I, H), jl.GRU(H, H))))
    model = jl.Model(cell, 2)
    params = params_of(model)
    params = params._replace(cell=jax.tree.map(lambda a: a + 0.25, params.cell))
    want = cell.initial_state(params.cell)
    mesh = jax.make_mesh((3,), ("data",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        for like in (XS, X):
            x = jax.device_put(like, jax.P("data"))
            for make in (jl.initial_states, jax.jit(jl.initial_states, static_argnums=2)):
                states = make(cell, params.cell, B, x)
                assert all(jax.typeof(leaf).sharding.spec[0] == "data" for leaf in jax.tree.leaves(states))
                jax.tree.map(lambda a, s: close(a, np.broadcast_to(s, (B, *s.shape))), states, want)
    states = jl.initial_states(model, params, B)
    jax.tree.map(lambda a, s: close(a, np.broadcast_to(s, (B, *s.shape))), states, want)
    assert jl.initial_states(CELL, params_of(CELL), 0).h.shape == (0, H)
    for like in (None, XS):
        assert jl.initial_states(CELL, params_of(CELL), (B, T), like).c.shape == (B, T, H)


RUNS = {
    "step": lambda p: jl.step(CELL, p, jax.tree.map(lambda a: a[0], STATE), X[0], True, False),
    "batched step": lambda p: jl.batched(jl.step)(CELL, p, STATE, X, MASK[:, 0]),
    "unroll": lambda p: jl.unroll(CELL, p, XS[0], None, MASK[0], RESET[0]),
    "batched unroll": lambda p: jl.batched(jl.unroll)(CELL, p, XS, STATE, MASK, RESET),
    "unroll_states": lambda p: jl.unroll_states(CELL, p, XS[0]),
    "tbptt": lambda p: jl.tbptt(CELL, p, XS[0], window=2),
    "lstm_step": lambda p: jl.lstm_step(p, jax.tree.map(lambda a: a[0], STATE), X[0]),
}


@pytest.mark.parametrize("name", RUNS)
def test_an_eager_call_is_one_compiled_program(name):
    params = params_of(CELL)
    jaxpr = jax.make_jaxpr(RUNS[name])(params)
    assert [eqn.primitive.name for eqn in jaxpr.eqns] == ["jit"]
    RUNS[name](params)
    other = jax.tree.map(lambda a: -a, params)
    with compilations() as seen:
        RUNS[name](other)
    assert seen == []


@pytest.mark.parametrize("time_major", [False, True])
@pytest.mark.parametrize("fn", [jl.unroll, jl.unroll_states, partial(jl.tbptt, window=2)])
def test_nan_in_padding_passes_the_checks_of_jax(fn, time_major):
    params, xs = params_of(CELL), np.where(MASK[..., None], XS, np.nan)
    if time_major:
        xs = xs.swapaxes(0, 1)
    run = partial(jl.batched(fn, time_major=time_major), CELL, params)
    mask = MASK.T if time_major else MASK
    with jax.debug_nans(True):
        ys = run(xs, mask=mask)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(ys))
    error, _ = checkify.checkify(lambda xs: run(xs, mask=mask), errors=checkify.float_checks)(xs)
    error.throw()


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda p: jl.batched(jl.step)(CELL, p, STATE, X[0]), ValueError, r"x must be \(B, I\), but has 1 axes"),
        (lambda p: jl.batched(jl.step)(CELL, p, STATE, XS), ValueError, r"x must be \(B, I\), but has 3 axes"),
        (lambda p: jl.batched(jl.step)(CELL, p, STATE, X[:2]), ValueError, "state must have a leading batch axis of 2"),
        (lambda p: jl.batched(jl.step)(CELL, p, STATE, X, MASK), ValueError, r"mask must have shape \(3,\), as x has"),
        (lambda p: jl.batched(jl.step)(CELL, p), TypeError, "step: missing .*'state'; it takes cell"),
        (lambda p: jl.batched(jl.unroll)(CELL, p, XS, resets=RESET), TypeError, "'resets'; it takes .*reset"),
        (lambda p: jl.batched(jl.gates_of)(CELL, p, XS[0, 0]), ValueError, "xs must be an array with a batch axis"),
        (lambda p: jl.batched(gradflow.horizon)(CELL, p), TypeError, "x must be a JAX or NumPy array with a batch"),
        (lambda p: jl.batched(lambda a: a), TypeError, "an argument xs or x"),
        (lambda p: jl.batched(3), TypeError, "but is a int"),
        (lambda p: jl.batched(gradflow.sensitivity, time_major=True), TypeError, "time_major is for functions over"),
        (lambda p: jl.initial_states(CELL, p, -1), ValueError, "batch_size must be at least 0"),
        (lambda p: jl.initial_states(CELL, p, 2.0), TypeError, "batch_size must be a Python integer"),
        (lambda p: jl.initial_states(CELL, p, 2, X), ValueError, r"like must have the leading batch axes \(2,\)"),
        (lambda p: jl.initial_states(jl.LSTM, p, 2), TypeError, "cell must be a cell, layer or Model, but is LSTM"),
    ],
)  # fmt: skip
def test_what_does_not_fit_a_batch_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call(params_of(CELL))


def test_a_function_of_keywords_gets_the_same_batch():
    cell = jl.Dropout(CELL, zoneout=0.5)
    params, key = params_of(cell), jax.random.key(3)

    def by_keywords(cell, params, xs, **rest):
        return jl.unroll(cell, params, xs, **rest)

    rest = {"mask": MASK, "state": STATE}
    expected = jl.batched(jl.unroll)(cell, params, XS, key=key, **rest)
    jax.tree.map(close, jl.batched(by_keywords)(cell, params, XS, key=key, **rest), expected)
    fixed = jax.jit(partial(jl.unroll, cell, key=key))  # the key is a default of its signature
    jax.tree.map(close, jl.batched(fixed)(params, XS, **rest), expected)
    with pytest.raises(ValueError, match=r"gates_of: mask must have shape \(5,\), one bool per step, but has \(\)"):
        jl.batched(jl.gates_of)(CELL, params, XS, mask=True)
    with pytest.raises(TypeError, match=r"must have names.*\*args; pass them by keyword"):
        jl.batched(lambda xs, *rest: xs)(XS, MASK)


def test_one_bool_is_the_mask_of_a_whole_batch():
    params = params_of(CELL)
    for mask, reset in ((True, False), (False, np.bool_(True))):
        ours = jl.batched(jl.step)(CELL, params, STATE, X, mask, reset)
        jax.tree.map(close, ours, jl.batched(jl.step)(CELL, params, STATE, X, np.full(B, mask), np.full(B, reset)))


def test_a_state_not_sharded_as_the_data_is_named():
    params, mesh = params_of(CELL), jax.make_mesh((3,), ("data",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        xs = jax.device_put(XS, jax.P("data"))
        with pytest.raises(ValueError, match=r"every leaf of state must be sharded as xs.*initial_states\(.*like=xs\)"):
            jl.batched(jl.unroll)(CELL, params, xs, jl.initial_states(CELL, params, B))
        state = jl.initial_states(CELL, params, B, like=xs)
        jax.tree.map(close, jl.batched(jl.unroll)(CELL, params, xs, state), jl.batched(jl.unroll)(CELL, params, xs))
