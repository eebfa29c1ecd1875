"""Numbers at their limits: saturation, long sequences, narrow dtypes, and the memory that a gradient takes."""

from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import slow_except

import jax_lstm as jl


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def params_of(cell, dtype, seed=0):
    shapes = jax.eval_shape(cell.init, jax.eval_shape(lambda: jax.random.key(0)))
    return jax.tree.map(lambda s: jnp.asarray(normal([seed, *s.shape], *s.shape) / 2, dtype), shapes)


def as_float64(tree):
    return jax.tree.map(lambda a: a.astype(jnp.float64), tree)


def all_finite(tree):
    return all(bool(jnp.isfinite(a).all()) for a in jax.tree.leaves(tree))


@lru_cache
def with_gradient(cell, **options):
    """Outputs, and the gradient of a loss on all of them to params, state and xs."""

    def loss(params, state, xs):
        state, hs = jl.unroll(cell, params, xs, state, **options)
        weights = jnp.asarray(normal(3, *hs.shape), hs.dtype)
        return (hs * weights).sum() + sum(a.sum() for a in state), (state, hs)

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))


def test_a_compute_dtype_of_wider_range_than_params_is_refused():
    cell = jl.LSTM(3, 4, compute_dtype="bfloat16")
    with pytest.raises(TypeError, match=r"float16.*compute_dtype bfloat16"):
        jl.unroll(cell, cell.init(jax.random.key(0), jnp.float16), jnp.zeros((2, 3), jnp.float16))


# Saturation. Many features of both signs: in a sum of them, two overflows would make NaN.

I, H, T = 64, 8, 4
HUGE = {
    "float32": [1e4, 3e38, float(jnp.finfo("float32").max)],
    "bfloat16": [1e4, 3e38, float(jnp.finfo("bfloat16").max)],
    "float16": [1e4, float(jnp.finfo("float16").max)],
    "float64": [1e4, float(jnp.finfo("float64").max)],
}


@pytest.mark.parametrize(
    ("kind", "dtype", "compute_dtype"),
    [
        *((kind, dtype, None) for kind in ("LSTM", "RNN", "GRU") for dtype in HUGE),
        ("LSTM", "float32", "bfloat16"),
    ],
)
def test_saturated_gates_give_finite_outputs_and_gradients(kind, dtype, compute_dtype):
    cell = getattr(jl, kind)(I, H, compute_dtype=compute_dtype)
    params, signs = params_of(cell, dtype), np.sign(normal(1, T, I))
    state = jax.tree.map(lambda a: jnp.asarray(np.tanh(normal(2, H)), dtype), cell.initial_state(params))
    for size in HUGE[dtype]:
        for xs in (signs * size, np.abs(signs) * size, np.where(np.arange(T)[:, None] == 2, signs * size, signs)):
            (_, (end, hs)), grads = with_gradient(cell)(params, state, jnp.asarray(xs, dtype))
            assert hs.dtype == end.h.dtype == jnp.dtype(dtype)
            assert bool((jnp.abs(hs) <= 1).all()), f"{size} in {dtype}"
            assert all_finite((end, grads)), f"{size} in {dtype}"
            # The gates of huge inputs are shut: an input of ordinary size has another answer.
            (_, (_, ordinary)), _ = with_gradient(cell)(params, state, jnp.asarray(xs / size, dtype))
            assert bool((jnp.abs(ordinary - hs) > 1e-2).any())


@pytest.mark.parametrize("engine", ["hoisted", "plain"])
@pytest.mark.parametrize("live", [np.nan, np.inf, -np.inf])
def test_a_live_nan_or_infinity_is_never_hidden(cell, live, engine):
    params = params_of(cell, "float32")
    state = cell.initial_state(params)
    xs = normal(1, T, 3).astype(np.float32)
    assert all_finite(with_gradient(cell, engine=engine)(params, state, xs))
    xs[1, 2] = live
    (_, (_, hs)), (d_params, _, _) = with_gradient(cell, engine=engine)(params, state, xs)
    # An infinity may shut a gate in an honest way; its weights' gradient says that it was there.
    assert not all_finite(d_params.w_x)
    assert all_finite(hs[:1])
    if np.isnan(live):
        assert bool(jnp.isnan(hs[1:]).all())
    xs[1, 1] = -live
    assert not all_finite(with_gradient(cell, engine=engine)(params, state, xs))


# Ten thousand steps.

LONG = 10_000
MODES = {"float32": {}, "products of bfloat16": {"compute_dtype": "bfloat16"}, "params of bfloat16": {}}
# The largest difference of any output from the same numbers run in float64, over seeds 0 to 4, as measured with
# jax 0.10.2 and 0.12.0.1 on a CPU; the tests allow twice that.
MEASURED = {
    ("LSTM", "float32"): 3.1e-7,
    ("LSTM", "products of bfloat16"): 1.29e-2,
    ("LSTM", "params of bfloat16"): 1.68e-2,
    ("RNN", "float32"): 5.0e-7,
    ("RNN", "products of bfloat16"): 2.09e-2,
    ("RNN", "params of bfloat16"): 1.18e-2,
    ("GRU", "float32"): 3.1e-7,
    ("GRU", "products of bfloat16"): 1.90e-2,
    ("GRU", "params of bfloat16"): 1.76e-2,
}


def long_case(kind, mode, seed):
    """A cell, its params as drawn, xs, and the cell that computes in their full width."""
    wide, cell = (getattr(jl, kind)(4, 16, **options) for options in ({}, MODES[mode]))
    dtype = jnp.bfloat16 if mode == "params of bfloat16" else jnp.float32
    return cell, cell.init(jax.random.key(seed), dtype), jnp.asarray(normal(seed, LONG, 4), dtype), wide


@pytest.mark.parametrize(("kind", "mode"), slow_except([("LSTM", "float32")], MEASURED))
def test_ten_thousand_steps_stay_near_those_in_float64(kind, mode):
    drifts = []
    for seed in range(5):
        cell, params, xs, wide = long_case(kind, mode, seed)
        state, hs = jl.unroll(cell, params, xs)
        assert hs.dtype == params.w_h.dtype
        assert all_finite((state, hs))
        drifts.append(float(jnp.abs(as_float64(hs) - jl.unroll(wide, *as_float64((params, xs)))[1]).max()))
    assert max(drifts) <= 2 * MEASURED[kind, mode]
    # A bound that no run comes near would say nothing.
    assert max(drifts) >= MEASURED[kind, mode] / 4


@pytest.mark.parametrize("mode", slow_except(["float32"], MODES))
def test_gradients_of_10000_steps_are_finite_and_near_float64(mode):
    cell, params, xs, wide = long_case("LSTM", mode, seed=0)
    _, (ours, _, _) = with_gradient(cell)(params, cell.initial_state(params), xs)
    params, xs = as_float64((params, xs))
    _, (theirs, _, _) = with_gradient(wide)(params, wide.initial_state(params), xs)
    # Relative to the leaf's largest entry, as each is a sum over ten thousand steps; twice what was measured.
    allowed = 2 * {"float32": 1.2e-6, "products of bfloat16": 4.0e-3, "params of bfloat16": 1.6e-2}[mode]
    for a, b in zip(ours, theirs, strict=True):
        assert all_finite(a)
        assert 0 < float(jnp.abs(as_float64(a) - b).max() / jnp.abs(b).max()) < allowed


@lru_cache
def temporary_bytes(cell, steps, **options):
    """What the compiled gradient of the last output takes besides its arguments and results."""

    def loss(params, xs):
        return jl.unroll(cell, params, xs, **options)[0].h.sum()

    params = jax.eval_shape(cell.init, jax.eval_shape(lambda: jax.random.key(0)))
    xs = jax.ShapeDtypeStruct((steps, cell.input_size), jnp.float32)
    analysis: Any = jax.jit(jax.grad(loss)).lower(params, xs).compile().memory_analysis()
    return analysis.temp_size_in_bytes


@pytest.mark.parametrize("kind", ["LSTM", "RNN", "GRU"])
def test_memory_is_linear_in_time_and_with_remat_its_square_root(kind):
    cell = getattr(jl, kind)(4, 16)
    steps = 1024
    short, long = (temporary_bytes(cell, n) for n in (steps, 4 * steps))
    assert 3.8 < long / short < 4.2
    # Segments of the square root of the steps: twice the memory for four times the steps, and far less of it.
    few, many = (temporary_bytes(cell, n, remat_every=round(n**0.5)) for n in (steps, 4 * steps))
    assert 1.6 < many / few < 2.4
    assert few < short / 10


# Dtypes.


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_state_and_outputs_have_the_params_dtype(cell, dtype):
    params, xs = params_of(cell, dtype), jnp.asarray(normal(1, T, 3), dtype)
    state, hs = jl.unroll(cell, params, xs)
    stepped, h = jl.step(cell, params, cell.initial_state(params), xs[0])
    assert {a.dtype for a in jax.tree.leaves((state, hs, stepped, h))} == {jnp.dtype(dtype)}
    # The same numbers in float64: as far off as the dtype's own rounding allows, and no further.
    want = jl.unroll(cell, *as_float64((params, xs)))[1]
    error, eps = float(jnp.abs(as_float64(hs) - want).max()), float(jnp.finfo(dtype).eps)
    assert error <= 8 * eps
    assert (error > 0) == (dtype != "float64")


@pytest.mark.parametrize(
    ("params_dtype", "xs_dtype"),
    [("float32", "bfloat16"), ("float32", "float16"), ("float64", "float32"), ("float64", "bfloat16")],
)
def test_narrow_inputs_are_exact_and_their_gradients_are_narrow(cell, params_dtype, xs_dtype):
    params, xs = params_of(cell, params_dtype), jnp.asarray(normal(1, T, 3), xs_dtype)
    state = cell.initial_state(params)
    (_, narrow), (d_params, _, d_xs) = with_gradient(cell)(params, state, xs)
    (_, cast), (d_params_cast, _, d_xs_cast) = with_gradient(cell)(params, state, xs.astype(params_dtype))
    eps = float(jnp.finfo(params_dtype).eps)
    close = partial(np.testing.assert_allclose, rtol=0, atol=8 * eps)
    jax.tree.map(close, narrow, cast)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=32 * eps, atol=32 * eps), d_params, d_params_cast)
    assert d_xs.dtype == jnp.dtype(xs_dtype)
    np.testing.assert_allclose(
        d_xs.astype(np.float64), d_xs_cast.astype(np.float64), rtol=float(jnp.finfo(xs_dtype).eps), atol=32 * eps
    )
    # Had the products been rounded to the narrow dtype, they would differ by more.
    rounded = jl.unroll(cell, jax.tree.map(lambda p: p.astype(xs_dtype), params), xs)[1]
    assert float(jnp.abs(rounded.astype(np.float64) - cast[1].astype(np.float64)).max()) > 64 * eps


@pytest.mark.parametrize(("wide", "narrow"), [("float64", "float32"), ("float32", "bfloat16"), ("float32", "float16")])
def test_wide_inputs_are_refused_before_any_carry_is(cell, wide, narrow):
    params, xs = params_of(cell, narrow), jnp.asarray(normal(1, T, 3), wide)
    for way in (jl.unroll, jax.jit(jl.unroll), jl.unroll_states):
        with pytest.raises(TypeError, match=rf"xs is {wide}.*params' {narrow}.*cast.*xs.astype\(jnp.{narrow}\)"):
            way(cell, params, xs)
    assert jl.unroll(cell, params, xs.astype(narrow))[1].dtype == jnp.dtype(narrow)


def lstm_with_rounded_products(params, xs):
    """The LSTM in NumPy, in float32, its products' operands rounded to bfloat16 and nothing else."""

    def product(a, w):
        a, w = (np.asarray(v, jnp.bfloat16).astype(np.float64) for v in (a, w))
        return (a @ w).astype(np.float32)

    def σ(z):
        return 1 / (1 + np.exp(-z))

    h = c = np.zeros(params.w_h.shape[0], np.float32)
    hs = []
    for x in xs:
        i, f, g, o = np.split(product(x, params.w_x) + params.b + product(h, params.w_h), 4)
        c = σ(f) * c + σ(i) * np.tanh(g)
        h = σ(o) * np.tanh(c)
        hs.append(h)
    return np.stack(hs)


def test_a_compute_dtype_rounds_only_operands_of_products():
    cell, xs = jl.LSTM(3, 4, compute_dtype="bfloat16"), normal(1, T, 3).astype(np.float32)
    params = jax.tree.map(np.asarray, params_of(cell, "float32"))
    state, hs = jl.unroll(cell, params, xs)
    assert {a.dtype for a in (*state, hs)} == {jnp.dtype("float32")}
    np.testing.assert_allclose(hs, lstm_with_rounded_products(params, xs), atol=1e-6)
    exact = jl.unroll(jl.LSTM(3, 4), params, xs)[1]
    assert 1e-4 < float(jnp.abs(hs - exact).max()) < 2e-2


@pytest.mark.parametrize("kind", ["LSTM", "RNN", "GRU"])
@pytest.mark.parametrize("engine", ["hoisted", "plain"])
def test_compute_dtype_gradients_are_close_and_in_params_dtype(kind, engine):
    cell: Any = getattr(jl, kind)(3, 4, compute_dtype="bfloat16")
    exact: Any = getattr(jl, kind)(3, 4)
    params, xs = params_of(cell, "float32"), normal(1, T, 3).astype(np.float32)
    _, ours = with_gradient(cell, engine=engine)(params, cell.initial_state(params), xs)
    _, theirs = with_gradient(exact, engine=engine)(params, exact.initial_state(params), xs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.dtype == jnp.dtype("float32")
        assert 0 < float(jnp.abs(a - b).max() / jnp.abs(b).max()) < 0.05
