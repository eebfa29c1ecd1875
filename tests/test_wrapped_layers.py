"""Layers in the Flax modules: the numbers, draws and refusals are the core's, under names that can be read."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import linen as nn
from flax import nnx
from programs import equations

import jax_lstm as jl
from jax_lstm import linen as jl_linen
from jax_lstm import nnx as jl_nnx

I, H, B, T = 3, 4, 2, 6
LENGTHS = np.asarray([4, 6])
MASK = np.arange(T)[None] < LENGTHS[:, None]

STEPPED = {
    "LSTM": jl.LSTM(I, H),
    "GRU": jl.GRU(I, H),
    "SLSTM": jl.SLSTM(I, H, heads=2),
    "Stack": jl.Stack((jl.LSTM(I, H, peephole=True), jl.GRU(H, H))),
}
LAYERS = {
    "Stack": jl.Stack((jl.LSTM(I, H), jl.Dropout(jl.GRU(H, H), hidden=0.3)), dropout=0.4),
    "Stack of four": jl.Stack((jl.RNN(I, I, noise=0.1),) * 4, residual=True),
    "Bidirectional": jl.Bidirectional(jl.Dropout(jl.LSTM(I, H), inputs=0.4), jl.GRU(I, 2)),
    "LearnedInitialState": jl.LearnedInitialState(jl.Dropout(jl.LSTM(I, H), zoneout=0.3, zoneout_c=0.2)),
    "all of them": jl.Stack(
        (jl.Bidirectional(jl.LearnedInitialState(jl.LSTM(I, 2))), jl.LSTM(4, H, projection=2)), dropout=0.4
    ),
}
each_step = pytest.mark.parametrize("name", list(STEPPED))
each_layer = pytest.mark.parametrize("name", list(LAYERS))
core = jl.batched(jl.unroll)


def draw(*shape, dtype=jnp.float32, seed=1):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def weights(cell, dtype: Any = jnp.float32, seed=10):
    """Params whose every leaf is random."""
    leaves, treedef = jax.tree.flatten(cell.init(jax.random.key(0), dtype))
    return treedef.unflatten(draw(*leaf.shape, dtype=dtype, seed=seed + k) for k, leaf in enumerate(leaves))


def in_nnx(cell, params, cls: Any = jl_nnx.Recurrent) -> Any:
    module = cls(cell, rngs=nnx.Rngs(0), param_dtype=jax.tree.leaves(params)[0].dtype, deterministic=True)
    module.set_params(params)
    return module


def by_nnx(cell, params):
    return in_nnx(cell, params)


def by_linen(cell, params):
    module, variables = jl_linen.Recurrent(cell, deterministic=True), jl_linen.variables_of(params)
    return lambda *args, **choices: module.apply(variables, *args, **choices)


def nnx_rnn(cell, params, **options) -> Any:
    return nnx.RNN(in_nnx(cell, params, jl_nnx.RecurrentCell), return_carry=True, **options)


def linen_rnn(cell, params, **options) -> Any:
    rnn = nn.RNN(jl_linen.RecurrentCell(cell, deterministic=True), return_carry=True, **options)
    variables = {"params": {"cell": jl_linen.variables_of(params)["params"]}}
    return lambda *args, **choices: rnn.apply(variables, *args, **choices)


def nnx_both(cell, params) -> Any:
    one, two = (nnx_rnn(cell, p) for p in params)
    return nnx.Bidirectional(one, two, return_carry=True)


def linen_both(cell, params) -> Any:
    both = nn.Bidirectional(*(nn.RNN(jl_linen.RecurrentCell(cell)) for _ in params), return_carry=True)
    held = {
        name: {"cell": jl_linen.variables_of(p)["params"]}
        for name, p in zip(("forward_rnn", "backward_rnn"), params, strict=True)
    }
    return lambda *args, **choices: both.apply({"params": held}, *args, **choices)


each_way = pytest.mark.parametrize("wrapped", [by_nnx, by_linen])
each_rnn = pytest.mark.parametrize("rnn", [nnx_rnn, linen_rnn])


def as_carry(state):
    if isinstance(state, jl.LSTMState):
        return state.c, state.h
    return state.h if len(jax.tree.leaves(state)) == 1 else state


def assert_equal(actual, desired):
    assert jax.tree.structure(actual) == jax.tree.structure(desired)
    jax.tree.map(np.testing.assert_array_equal, actual, desired)


def assert_close(actual, desired, tolerance=1e-6):
    assert jax.tree.structure(actual) == jax.tree.structure(desired)
    jax.tree.map(lambda a, d: np.testing.assert_allclose(a, d, rtol=0, atol=tolerance), actual, desired)


def live(ys):
    """The outputs at steps that happen; what Flax gives in the padding is left open."""
    return jnp.where(MASK[..., None], ys, jnp.zeros_like(ys))


# Our cells in Flax's own loops.


@each_rnn
@each_step
def test_a_cell_in_flaxs_rnn_is_unroll(name, rnn):
    cell, xs = STEPPED[name], draw(B, T, I)
    params = weights(cell)
    state, ys = core(cell, params, xs)
    assert_close(rnn(cell, params)(xs), (as_carry(state), ys))


@each_rnn
@each_step
@pytest.mark.parametrize("reverse", [False, True])
def test_lengths_in_flaxs_rnn_are_a_mask(name, rnn, reverse):
    cell, xs = STEPPED[name], draw(B, T, I)
    params = weights(cell)
    carry, ys = rnn(cell, params, reverse=reverse, keep_order=True)(xs, seq_lengths=LENGTHS)
    state, want = core(cell, params, xs, None, MASK, reverse=reverse)
    assert_close((carry, live(ys)), (as_carry(state), want))
    assert np.abs(want - core(cell, params, xs)[1]).max() > 1e-2  # the lengths matter


@each_rnn
def test_an_initial_carry_of_a_stack_is_the_tuple_of_its_states(rnn):
    cell, xs = STEPPED["Stack"], draw(B, T, I)
    params = weights(cell)
    start = jax.tree.map(lambda a: draw(B, *a.shape, seed=5), cell.initial_state(params))
    assert_close(rnn(cell, params)(xs, initial_carry=start), core(cell, params, xs, start))


@pytest.mark.parametrize("both", [nnx_both, linen_both])
@each_step
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "lengths"])
def test_flax_bidirectional_of_two_cells_equals_ours(name, both, lengths):
    cell, xs = STEPPED[name], draw(B, T, I)
    params = jl.BidirectionalParams(weights(cell), weights(cell, seed=20))
    mask = None if lengths is None else MASK
    (one, two), ys = both(cell, params)(xs, seq_lengths=lengths)
    state, want = core(jl.Bidirectional(cell), params, xs, None, mask)
    ys = ys if lengths is None else live(ys)
    assert_close((one, two, ys), (as_carry(state.forward), as_carry(state.backward), want))


@each_rnn
def test_a_step_starts_from_the_learned_state_and_drops_nothing(rnn):
    cell, xs = LAYERS["LearnedInitialState"], draw(B, T, I)
    params = weights(cell)
    state, ys = core(cell, params, xs)
    assert_close(rnn(cell, params)(xs), (as_carry(state), ys))


# Our layers in our modules.


@each_way
@each_layer
def test_a_layer_in_a_module_is_the_core_with_and_without_a_key(name, wrapped):
    cell, xs = LAYERS[name], draw(B, T, I, dtype=jnp.float64)
    params = weights(cell, jnp.float64)
    reset = jnp.arange(T)[None] == jnp.asarray([[2], [3]])
    module, masks = wrapped(cell, params), {"mask": MASK, "reset": reset}
    assert_equal(module(xs, **masks), core(cell, params, xs, None, MASK, reset))
    drawn = module(xs, **masks, key=jax.random.key(3))
    assert_equal(drawn, core(cell, params, xs, None, MASK, reset, key=jax.random.key(3)))
    assert_equal(drawn, module(xs, **masks, key=jax.random.key(3)))
    for other in (None, jax.random.key(4)):
        assert np.abs(module(xs, **masks, key=other)[1] - drawn[1]).max() > 1e-3


@each_layer
def test_gradients_through_a_module_are_the_cores(name):
    cell, xs = LAYERS[name], draw(B, T, I, dtype=jnp.float64)
    params = weights(cell, jnp.float64)
    expected = jax.grad(lambda p: jnp.sum(core(cell, p, xs)[1] ** 2))(params)
    named = jl_linen.variables_of(expected)
    variables = jl_linen.variables_of(params)
    module: Any = jl_linen.Recurrent(cell, deterministic=True)
    assert_close(jax.grad(lambda v: jnp.sum(module.apply(v, xs)[1] ** 2))(variables), named, 1e-10)
    grads = nnx.grad(lambda m: jnp.sum(m(xs)[1] ** 2))(in_nnx(cell, params))
    assert_close(nnx.to_pure_dict(grads), named["params"], 1e-10)


NAMES = {
    "Stack": {"0": {"w_x", "w_h", "b"}, "1": {"w_x", "w_h", "b", "b_hn"}},
    "Bidirectional": {"forward": {"w_x", "w_h", "b"}, "backward": {"w_x", "w_h", "b", "b_hn"}},
    "LearnedInitialState": {"of": {"w_x", "w_h", "b"}, "state": {"h", "c"}},
}


@pytest.mark.parametrize("name", list(NAMES))
def test_param_names_are_one_dict_per_level_in_linen_and_nnx(name):
    cell = LAYERS[name]
    variables = jl_linen.Recurrent(cell, deterministic=True).init(jax.random.key(0), jnp.zeros((B, T, I), jnp.float32))
    module = jl_nnx.Recurrent(cell, rngs=nnx.Rngs(0))
    held = nnx.to_pure_dict(nnx.state(module, nnx.Param))
    for tree in (variables["params"], held):
        assert {outer: set(inner) for outer, inner in tree.items()} == NAMES[name]
    assert jax.tree.structure(held) == jax.tree.structure(variables["params"])
    assert_equal(held, jl_linen.variables_of(module.params)["params"])


def test_a_param_is_found_under_its_name():
    both: Any = jl_nnx.Recurrent(LAYERS["Bidirectional"], rngs=nnx.Rngs(0))
    assert_equal(both.forward.w_x[...], both.params.forward.w_x)
    learned: Any = jl_nnx.Recurrent(LAYERS["LearnedInitialState"], rngs=nnx.Rngs(0))
    assert_equal(learned.state.h[...], learned.params.state.h)
    assert learned.cell == LAYERS["LearnedInitialState"]
    stack = jl_nnx.Recurrent(LAYERS["Stack"], rngs=nnx.Rngs(0))
    assert_equal(getattr(stack, "1").b_hn[...], stack.params[1].b_hn)


@each_layer
@pytest.mark.parametrize("graph", [True, False], ids=["graph", "tree"])
def test_weights_go_in_and_out_and_through_split_and_merge(name, graph):
    cell, xs = LAYERS[name], draw(B, T, I)
    params = weights(cell)
    with nnx.set_graph_mode(graph):
        module = in_nnx(cell, params)
        assert_equal(module.params, params)
        graphdef, state, rest = nnx.split(module, nnx.Param, ...)
        again = nnx.merge(graphdef, jax.tree.map(lambda a: 2 * a, state), rest)
        assert_equal(again.params, jax.tree.map(lambda a: 2 * a, params))
        assert_close(nnx.jit(lambda m, xs: m(xs))(module, xs), core(cell, params, xs))
    bound: Any = jl_linen.Recurrent(cell).bind(jl_linen.variables_of(params))
    assert_equal(bound.params, params)


@each_layer
def test_weights_go_through_a_checkpoint(name, tmp_path):
    cell = LAYERS[name]
    module = in_nnx(cell, weights(cell))
    graphdef, state = nnx.split(module)
    variables = jl_linen.variables_of(module.params)
    with ocp.StandardCheckpointer() as checkpoints:
        checkpoints.save(tmp_path / "nnx", nnx.to_pure_dict(state))
        checkpoints.save(tmp_path / "linen", variables)
        checkpoints.wait_until_finished()
        empty = nnx.to_pure_dict(jax.tree.map(jnp.zeros_like, state))
        nnx.replace_by_pure_dict(state, checkpoints.restore(tmp_path / "nnx", empty))
        restored = checkpoints.restore(tmp_path / "linen", jax.tree.map(jnp.zeros_like, variables))
    assert_equal(nnx.merge(graphdef, state).params, module.params)
    bound: Any = jl_linen.Recurrent(cell).bind(restored)
    assert_equal(bound.params, module.params)


def test_seeds_of_a_stack_are_a_vmap_over_modules():
    keys, cell, xs = jax.random.split(jax.random.key(0), 3), LAYERS["Stack"], draw(B, T, I)
    many = nnx.vmap(lambda key: jl_nnx.Recurrent(cell, rngs=nnx.Rngs(key), deterministic=True))(keys)
    _, ys = nnx.vmap(lambda m, xs: m(xs), in_axes=(0, None))(many, xs)
    for k, key in enumerate(keys):
        assert_close(ys[k], jl_nnx.Recurrent(cell, rngs=nnx.Rngs(key), deterministic=True)(xs)[1])


# What is refused.


@pytest.mark.parametrize("name", ["Bidirectional", "all of them"])
def test_a_cell_that_looks_at_later_inputs_is_no_flax_cell(name):
    for make in (jl_linen.RecurrentCell, lambda cell: jl_nnx.RecurrentCell(cell, rngs=nnx.Rngs(0))):
        with pytest.raises(ValueError, match=r"RecurrentCell: cell (Bidirectional|Stack) looks at later inputs"):
            make(LAYERS[name])


@each_way
def test_an_unused_key_or_an_invalid_key_is_refused(wrapped):
    xs = draw(B, T, I)
    plain, stack = (wrapped(cell, weights(cell)) for cell in (STEPPED["LSTM"], LAYERS["Stack"]))
    with pytest.raises(ValueError, match="key was given, but cell LSTM draws nothing"):
        plain(xs, key=jax.random.key(3))
    with pytest.raises(TypeError, match=r"key must be one random key, but is .*jax\.random\.key"):
        stack(xs, key=0)


def test_a_carry_of_other_parts_is_refused():
    cell, x = STEPPED["Stack"], draw(B, I)
    one = in_nnx(cell, weights(cell), jl_nnx.RecurrentCell)
    (lower, upper) = one.initialize_carry(x.shape)
    with pytest.raises(TypeError, match=r"carry must have the structure .* for cell Stack"):
        one((lower,), x)
    with pytest.raises(TypeError, match=r"carry must have the structure"):
        one(((lower.c, lower.h), upper), x)


def test_a_weight_that_variables_lack_is_named():
    cell = LAYERS["Stack"]
    variables = jl_linen.variables_of(weights(cell))
    del variables["params"]["1"]["w_h"]
    with pytest.raises(ValueError, match=r"Recurrent: params lacks 1\.w_h, which cell Stack needs"):
        jl_linen.Recurrent(cell, deterministic=True).apply(variables, draw(B, T, I))


def test_two_weights_of_one_name_are_refused():
    with pytest.raises(ValueError, match="both be called of"):
        jl_linen.variables_of({"cell": jnp.zeros(1), "of": jnp.zeros(1)})


# Nothing is computed in a module.


def primitives(f, *args):
    return [eqn.primitive.name for eqn in equations(jax.make_jaxpr(f)(*args))]


@each_layer
def test_a_modules_program_is_the_cores(name):
    cell, xs = LAYERS[name], draw(B, T, I)
    params = weights(cell)
    want = primitives(lambda p, xs: core(cell, p, xs), params, xs)
    assert primitives(lambda p, xs: by_linen(cell, p)(xs), params, xs) == want
    graphdef, state = nnx.split(in_nnx(cell, params))
    assert primitives(lambda state, xs: nnx.merge(graphdef, state)(xs), state, xs) == want
    more = primitives(lambda p, xs: by_linen(cell, jax.tree.map(lambda a: 2 * a, p))(xs), params, xs)
    assert len(more) > len(want)  # arithmetic of its own would be seen
