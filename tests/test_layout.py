"""The layouts of a run: each gives the same numbers and the same derivatives, and each is taken where it should be."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import slow_except

import jax_lstm as jl
from jax_lstm.engines import layout as engines_layout
from jax_lstm.engines import recurrence, tangent
from jax_lstm.engines.layout import Layout, choose_layout
from jax_lstm.engines.segments import segment_length

B, T, I, H = 5, 7, 3, 4
LAYOUTS = [Layout(False, True), Layout(False, False), Layout(True, True)]


@pytest.fixture
def laid_out(monkeypatch):
    """A function that fixes the layout of every run from here on, in programs compiled anew."""

    def fix(layout, merged):
        for module in (recurrence, tangent):
            monkeypatch.setattr(module, "choose_layout", lambda *_: layout)
        monkeypatch.setattr(engines_layout, "can_merge_axes", lambda: merged)
        jax.clear_caches()

    yield fix
    jax.clear_caches()


def problem(name, dtype=jnp.float64):
    cell = getattr(jl, name)(I, H)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda a: a + jnp.asarray(0.3 * rng.normal(size=a.shape), dtype), cell.init(jax.random.key(0), dtype)
    )
    xs = jnp.asarray(rng.normal(size=(B, T, I)), dtype)
    mask = jnp.asarray(rng.random((B, T)) < 0.8)
    reset = jnp.asarray(rng.random((B, T)) < 0.2)
    return cell, params, xs, mask, reset


def loss(cell, engine, params, xs, mask, reset):
    state, hs = jl.batched(jl.unroll)(cell, params, xs, None, mask, reset, engine=engine, reverse=True)
    return jnp.sum(hs**2) + jnp.sum(jnp.sin(jax.tree.leaves(state)[0]))


@pytest.mark.parametrize(("name", "masks"), slow_except([("RNN", False)], [("LSTM", True), ("RNN", False)]))
def test_each_layout_equals_the_plain_engine_to_second_order(laid_out, name, masks):
    cell, params, xs, *masks = problem(name)
    masks = masks if masks else (None, None)
    along = jax.tree.map(jnp.cos, params)

    def everything(engine):
        gradient = jax.grad(partial(loss, cell, engine), (0, 1))
        value = loss(cell, engine, params, xs, *masks)
        return jax.jit(lambda: (value, gradient(params, xs, *masks),
                                jax.jvp(lambda p: gradient(p, xs, *masks), (params,), (along,))[1]))()  # fmt: skip

    expected = everything("plain")
    for layout in LAYOUTS:
        for merged in (False, True):
            laid_out(layout, merged)
            jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-11), everything("hoisted"), expected)


@pytest.mark.parametrize("merged", [False, True])
def test_a_gru_over_a_merged_batch_is_right_in_every_leaf(laid_out, merged):
    cell, params, xs, mask, reset = problem("GRU")
    laid_out(Layout(False, True), merged)
    ours, plain = (jax.grad(partial(loss, cell, e), (0, 1))(params, xs, mask, reset) for e in ("hoisted", "plain"))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-12), ours, plain)


@pytest.fixture
def layouts(monkeypatch):
    """What `choose_layout` was asked, in programs compiled anew."""
    seen = []

    def watched(batch, members=1):
        seen.append((batch, members))
        return choose_layout(batch, members)

    for module in (recurrence, tangent):
        monkeypatch.setattr(module, "choose_layout", watched)
    jax.clear_caches()
    yield seen
    jax.clear_caches()


def test_a_layout_is_chosen_for_all_sequences_of_a_vmap(layouts):
    cell, params, xs, *_ = problem("LSTM")
    many = jax.tree.map(lambda a: jnp.stack([a, 2 * a]), params)

    def run(params, xs):
        return jl.unroll(cell, params, xs)[1]

    def last(f, *args):
        layouts.clear()
        jax.clear_caches()
        jax.jit(f)(*args)
        return layouts[-1]

    over_xs, over_params = jax.vmap(run, (None, 0)), jax.vmap(run, (0, None))
    assert last(run, params, xs[0]) == ((), 1)
    assert last(over_xs, params, xs) == ((B,), 1)
    assert last(over_params, many, xs[0]) == ((), 2)
    assert last(jax.vmap(over_xs, (0, None)), many, xs) == ((B,), 2)
    assert last(jax.vmap(over_params, (None, 0)), many, xs) == ((B,), 2)
    assert last(jax.vmap(over_xs, (None, 1)), params, xs[None].repeat(3, 0).swapaxes(0, 1)) == ((3, B), 1)
    assert last(lambda p, x: jl.batched(jl.unroll)(cell, p, x), params, xs) == ((B,), 1)
    assert last(jax.grad(lambda p, x: jnp.sum(over_xs(p, x))), params, xs) == ((B,), 1)
    assert last(jax.vmap(jax.grad(lambda p, x: jnp.sum(run(p, x))), (None, 0)), params, xs) == ((), B)


def test_a_transposed_copy_is_for_several_sequences_on_a_cpu():
    assert choose_layout((16,)) == choose_layout((2, 8)) == choose_layout((), members=4) == Layout(True, True)
    assert choose_layout(()) == choose_layout((3,)) == Layout(inline=True, transposed=False)
    (rows,) = jax.export.symbolic_shape("rows")
    assert choose_layout((rows,)) == Layout(inline=True, transposed=True)


def test_many_devices_merge_only_in_a_shard_map_over_all_axes():
    assert jax.device_count() > 1
    assert not engines_layout.can_merge_axes()
    mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    seen = []

    def body(x):
        seen.append(engines_layout.can_merge_axes())
        return x

    x = jnp.arange(4.0)
    jax.shard_map(body, mesh=mesh, in_specs=jax.P("data"), out_specs=jax.P("data"))(x)
    jax.shard_map(body, mesh=mesh, in_specs=jax.P("data"), out_specs=jax.P("data"), axis_names={"data"})(x)
    assert seen[0] is True
    assert seen[-1] is False


def test_segments_have_about_the_square_root_of_the_steps():
    assert [segment_length(steps) for steps in (0, 1, 7, 100, 10_000, 100_000)] == [1, 1, 1, 10, 100, 250]
    for steps in range(1, 400):
        n = segment_length(steps)
        assert steps**0.5 / 2 - 1 <= n <= 2 * steps**0.5 + 1


def test_auto_remat_keeps_the_numbers_and_uses_less_memory():
    cell, params, xs, mask, reset = problem("LSTM")
    weights = jnp.asarray(np.random.default_rng(2).normal(size=(T, H)))

    def gradient(remat_every):
        run = partial(jl.unroll, cell, remat_every=remat_every)
        return jax.grad(lambda p: jnp.vdot(weights, run(p, xs[0], None, mask[0], reset[0])[1]))(params)

    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-13), gradient("auto"), gradient(None))

    def temporary(remat_every):
        run = partial(jl.unroll, cell, remat_every=remat_every)
        args = params, jax.ShapeDtypeStruct((4096, I), jnp.float64)
        memory = jax.jit(jax.grad(lambda p, x: jnp.sum(run(p, x)[0].h))).lower(*args).compile().memory_analysis()
        assert memory is not None
        return memory.temp_size_in_bytes

    assert temporary("auto") < 0.1 * temporary(None)
    with pytest.raises(TypeError, match="remat_every must be a Python integer"):
        jl.unroll(cell, params, xs[0], remat_every="some")
