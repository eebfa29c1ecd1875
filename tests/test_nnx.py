"""The NNX modules hold names: every number is the core's, and Flax's own cells agree with them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jax_lstm as jl
from jax_lstm import nnx as jl_nnx

IN, H, B, T = 3, 4, 2, 6
CELLS = [jl.LSTM(IN, H), jl.GRU(IN, H), jl.RNN(IN, H)]
TOLERANCE = {jnp.float32: 1e-6, jnp.float64: 1e-12}

each_cell = pytest.mark.parametrize("cell", CELLS, ids=lambda cell: type(cell).__name__)
each_mode = pytest.mark.parametrize("graph", [True, False], ids=["graph", "tree"])
core = jl.batched(jl.unroll)


def module(cell, cls: Any = jl_nnx.Recurrent, dtype: Any = jnp.float64, seed=0) -> Any:
    """A module whose every weight, biases too, is random."""
    out = cls(cell, rngs=nnx.Rngs(seed), param_dtype=dtype)
    rng = np.random.default_rng(seed)
    out.set_params(jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), dtype), out.params))
    return out


def draw(*shape, dtype=jnp.float64, seed=1):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def everything(cell, dtype=jnp.float64):
    """Arguments for a call in which each of them matters."""
    zero = cell.initial_state(module(cell, dtype=dtype).params)
    state = jax.tree.map(lambda a: draw(B, *a.shape, dtype=dtype, seed=2), zero)
    mask = jnp.asarray([[True] * 6, [False, True, True, False, True, False]])
    reset = jnp.asarray([[False, False, True, False, False, False], [False, False, False, False, True, True]])
    return state, {"mask": mask, "reset": reset, "reverse": True}


def assert_equal(actual, desired):
    assert jax.tree.structure(actual) == jax.tree.structure(desired)
    jax.tree.map(np.testing.assert_array_equal, actual, desired)


def assert_close(actual, desired, tolerance):
    assert jax.tree.structure(actual) == jax.tree.structure(desired)
    jax.tree.map(lambda a, d: np.testing.assert_allclose(a, d, rtol=tolerance, atol=tolerance), actual, desired)


@each_cell
def test_states_and_outputs_equal_the_cores_with_all_arguments(cell):
    lstm, xs = module(cell), draw(B, T, IN)
    state, choices = everything(cell)
    ours = lstm(xs, state, **choices)
    assert_equal(ours, core(cell, lstm.params, xs, state, **choices))
    assert_equal(lstm(xs), core(cell, lstm.params, xs))
    for name in choices:  # each of them matters, so that one left out would be seen
        others = {k: v for k, v in choices.items() if k != name}
        assert not np.allclose(ours[1], lstm(xs, state, **others)[1])
    assert not np.allclose(ours[1], lstm(xs, **choices)[1])


@each_cell
def test_gradients_are_the_cores(cell):
    lstm, xs, weight = module(cell), draw(B, T, IN), draw(B, T, H, seed=3)
    state, choices = everything(cell)
    d_module, d_xs, d_state = nnx.grad(lambda m, xs, s: (m(xs, s, **choices)[1] * weight).sum(), argnums=(0, 1, 2))(
        lstm, xs, state
    )
    d_params, *rest = jax.grad(lambda p, xs, s: (core(cell, p, xs, s, **choices)[1] * weight).sum(), argnums=(0, 1, 2))(
        lstm.params, xs, state
    )
    assert_close([d_xs, d_state], rest, 1e-12)
    for name, leaf in d_params._asdict().items():
        assert np.abs(leaf).max() > 0
        np.testing.assert_allclose(d_module[name][...], leaf, rtol=1e-12, atol=1e-12)


@each_cell
@pytest.mark.parametrize("cls", [jl_nnx.Recurrent, jl_nnx.RecurrentCell])
def test_each_leaf_is_one_param_with_the_cores_initial_values(cell, cls):
    m = cls(cell, rngs=nnx.Rngs(params=5))
    names = {path[0]: leaf for path, leaf in nnx.to_flat_state(nnx.state(m, nnx.Param))}
    assert set(names) == set(m.params._fields)
    assert len(jax.tree.leaves(nnx.state(m))) == len(names)  # nothing besides
    assert_equal(m.params, cell.init(nnx.Rngs(params=5).params()))
    assert {leaf.dtype for leaf in m.params} == {jnp.dtype(jnp.float32)}
    assert {leaf.dtype for leaf in cls(cell, rngs=nnx.Rngs(5), param_dtype=jnp.bfloat16).params} == {
        jnp.dtype(jnp.bfloat16)
    }


@each_cell
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_weights_can_be_set_and_read_unchanged(cell, dtype):
    params = cell.init(jax.random.key(7), dtype)
    m: Any = jl_nnx.Recurrent(cell, rngs=nnx.Rngs(0))
    held = m.w_x
    m.set_params(params)
    assert_equal(m.params, params)
    assert m.params.w_x.dtype == dtype
    assert m.w_x is held  # the same Param with another value: whoever shares it sees it
    m.set_params(jax.tree.map(np.asarray, params))
    assert_equal(m.params, params)


def test_params_of_another_shape_or_cell_are_refused_by_name():
    m = module(CELLS[0])
    with pytest.raises(ValueError, match=r"params\.w_h has shape \(3, 16\).*\(4, 16\)"):
        m.set_params(m.params._replace(w_h=jnp.zeros((3, 16))))
    with pytest.raises(ValueError, match=r"params"):
        m.set_params(module(CELLS[1]).params)


@each_cell
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_a_cell_in_flaxs_rnn_is_the_layer(cell, dtype):
    lstm, one = module(cell, dtype=dtype), module(cell, jl_nnx.RecurrentCell, dtype)
    xs = draw(B, T, IN, dtype=dtype)
    carry, hs = nnx.RNN(one, return_carry=True)(xs)
    state, want = lstm(xs)
    carry = jl.LSTMState(h=carry[1], c=carry[0]) if isinstance(state, jl.LSTMState) else type(state)(carry)
    assert hs.dtype == dtype
    assert_close((carry, hs), (state, want), TOLERANCE[dtype])


@each_cell
@pytest.mark.parametrize("reverse", [False, True])
def test_lengths_in_flaxs_rnn_are_a_mask_in_the_layer(cell, reverse):
    lstm, one, xs = module(cell), module(cell, jl_nnx.RecurrentCell), draw(B, T, IN)
    lengths = jnp.asarray([4, 6])
    mask = jnp.arange(T)[None] < lengths[:, None]
    state, _ = everything(cell)
    start = (state.c, state.h) if isinstance(state, jl.LSTMState) else state.h
    rnn = nnx.RNN(one, return_carry=True, reverse=reverse, keep_order=True)
    carry, hs = rnn(xs, seq_lengths=lengths, initial_carry=start)
    state, want = lstm(xs, state, mask=mask, reverse=reverse)
    assert_close(jnp.where(mask[..., None], hs, jnp.zeros_like(hs)), want, 1e-12)
    assert_close(carry, (state.c, state.h) if isinstance(state, jl.LSTMState) else state.h, 1e-12)


def flaxs_lstm(params):
    cell: Any = nnx.LSTMCell(IN, H, rngs=nnx.Rngs(0), param_dtype=jnp.float64)
    w_x, w_h, b = (jnp.split(a, 4, axis=-1) for a in params)
    for k, (x, h) in enumerate(((cell.ii, cell.hi), (cell.if_, cell.hf), (cell.ig, cell.hg), (cell.io, cell.ho))):
        x.kernel[...], h.kernel[...], h.bias[...] = w_x[k], w_h[k], b[k]
    return cell


def flaxs_optimized_lstm(params):
    cell: Any = nnx.OptimizedLSTMCell(IN, H, rngs=nnx.Rngs(0), param_dtype=jnp.float64)
    cell.dense_i.kernel[...], cell.dense_h.kernel[...], cell.dense_h.bias[...] = params
    return cell


@pytest.mark.parametrize("flaxs", [flaxs_lstm, flaxs_optimized_lstm])
def test_flaxs_own_lstm_with_the_same_weights_gives_the_same(flaxs):
    lstm, xs = module(CELLS[0]), draw(B, T, IN)
    (c, h), hs = nnx.RNN(flaxs(lstm.params), return_carry=True)(xs)
    assert_close((jl.LSTMState(h, c), hs), lstm(xs), 1e-12)
    _, other = nnx.RNN(flaxs(jax.tree.map(lambda p: jnp.roll(p, H, axis=-1), lstm.params)), return_carry=True)(xs)
    assert np.abs(other - hs).max() > 1e-2  # gates in another order are noticed


def test_flaxs_own_gru_is_ours_with_no_bias_inside():
    gru, xs = module(CELLS[1]), draw(B, T, IN)
    gru.set_params(gru.params._replace(b_hn=jnp.zeros(H)))
    cell: Any = nnx.GRUCell(IN, H, rngs=nnx.Rngs(0), param_dtype=jnp.float64)
    cell.dense_i.kernel[...], cell.dense_h.kernel[...], cell.dense_i.bias[...] = gru.params[:3]
    h, hs = nnx.RNN(cell, return_carry=True)(xs)
    assert_close((jl.GRUState(h), hs), gru(xs), 1e-12)


@each_mode
@pytest.mark.parametrize("cls", [jl_nnx.Recurrent, jl_nnx.RecurrentCell])
def test_modules_are_clean_in_graph_mode_and_in_tree_mode(graph, cls):
    with nnx.set_graph_mode(graph):
        m, xs = module(CELLS[0], cls), draw(B, T, IN)

        def run(m, xs):
            return (m if cls is jl_nnx.Recurrent else nnx.RNN(m, return_carry=True))(xs)[1]

        want = core(m.cell, m.params, xs)[1]
        assert_close(run(m, xs), want, 1e-12)
        assert_close(nnx.jit(run)(m, xs), want, 1e-12)
        assert_close(run(nnx.merge(*nnx.split(m)), xs), want, 1e-12)
        assert_close(run(nnx.clone(m), xs), want, 1e-12)
        graphdef, state = nnx.split(m)
        assert_close(jax.jit(lambda state: run(nnx.merge(graphdef, state), xs))(state), want, 1e-12)

        grads = nnx.jit(nnx.grad(lambda m: run(m, xs).sum()))(m)
        d_params = jax.grad(lambda p: core(m.cell, p, xs)[1].sum())(m.params)
        got = {path[0]: leaf for path, leaf in nnx.to_flat_state(nnx.state(grads) if not graph else grads)}
        for name, leaf in d_params._asdict().items():
            np.testing.assert_allclose(got[name][...], leaf, rtol=1e-10, atol=1e-10)


def test_nnx_jit_training_changes_the_module_in_place():
    m, xs = module(CELLS[0]), draw(B, T, IN)

    @nnx.jit
    def descend(m):
        grads = nnx.grad(lambda m: (m(xs)[1] ** 2).sum())(m)
        m.set_params(jl.LSTMParams(*(p - 0.01 * grads[name][...] for name, p in m.params._asdict().items())))

    before = (m(xs)[1] ** 2).sum()
    for _ in range(3):
        descend(m)
    assert (m(xs)[1] ** 2).sum() < 0.99 * before


def test_many_seeds_at_once_are_a_vmap_over_modules():
    xs = draw(B, T, IN, dtype=jnp.float32)

    @nnx.vmap
    def make(key):
        return jl_nnx.Recurrent(CELLS[0], rngs=nnx.Rngs(key))

    keys = jax.random.split(jax.random.key(0), 3)
    many = make(keys)
    _, hs = nnx.vmap(lambda m, xs: m(xs), in_axes=(0, None))(many, xs)
    for k, key in enumerate(keys):
        assert_close(hs[k], jl_nnx.Recurrent(CELLS[0], rngs=nnx.Rngs(key))(xs)[1], 1e-6)


@each_cell
def test_the_layer_and_flax_rnn_run_on_an_explicit_mesh(cell):
    lstm, one, xs = module(cell), module(cell, jl_nnx.RecurrentCell), draw(B, T, IN)
    want = lstm(xs)
    mesh = jax.make_mesh((min(B, jax.device_count()),), ("data",), (AxisType.Explicit,))
    graphdef, weights = nnx.split(lstm)
    with jax.set_mesh(mesh):
        spread = jax.device_put(xs, NamedSharding(mesh, P("data")))
        state, hs = jax.jit(lambda weights, xs: nnx.merge(graphdef, weights)(xs))(weights, spread)
        assert jax.typeof(hs).sharding.spec == P("data", None, None)
        assert_close((state, hs), want, 1e-12)
        zero = jl.initial_states(cell, one.params, B, like=spread)
        carry = (zero.c, zero.h) if isinstance(zero, jl.LSTMState) else zero.h
        assert_close(nnx.RNN(one)(spread, initial_carry=carry), want[1], 1e-12)


@each_cell
def test_a_step_takes_any_batch_axes(cell):
    m = module(cell, jl_nnx.RecurrentCell)
    xs = draw(2, 3, IN)
    carry = m.initialize_carry(xs.shape, nnx.Rngs(0), nnx.initializers.normal(1.0))
    leaves = jax.tree.leaves(carry)
    assert [leaf.shape for leaf in leaves] == [(2, 3, H)] * len(leaves)
    assert all(np.ptp(leaf) > 0.1 for leaf in leaves)
    got, ys = m(carry, xs)
    assert jax.tree.structure(got) == jax.tree.structure(carry)
    for i, j in np.ndindex(2, 3):
        alone, y = m(jax.tree.map(lambda a, i=i, j=j: a[i, j], carry), xs[i, j])
        assert_close((jax.tree.map(lambda a, i=i, j=j: a[i, j], got), ys[i, j]), (alone, y), 1e-12)


@each_cell
def test_the_first_carry_is_the_cells_initial_state(cell):
    m = module(cell, jl_nnx.RecurrentCell)
    assert m.num_feature_axes == 1
    zero = jnp.zeros((5, H))
    assert_equal(m.initialize_carry((5, IN)), (zero, zero) if cell is CELLS[0] else zero)


class Learned:
    """The least a cell may have, with nested params, a learned start and a state of its own."""

    input_size, hidden_size = IN, H

    def init(self, key, dtype=jnp.float32):
        return {"a": {"w": jax.random.normal(key, (IN, H), dtype)}, "start": jnp.full(H, 0.5, dtype)}

    def initial_state(self, params):
        return {"now": params["start"], "last": jnp.zeros_like(params["start"])}

    def step(self, params, state, x):
        now = jnp.tanh(x @ params["a"]["w"] + state["now"] - state["last"])
        return {"now": now, "last": state["now"]}, now


def test_the_layers_accept_any_cell_with_the_three_methods():
    cell, xs = Learned(), draw(B, T, IN)
    lstm = jl_nnx.Recurrent(cell, rngs=nnx.Rngs(0), param_dtype=jnp.float64)
    one = jl_nnx.RecurrentCell(cell, rngs=nnx.Rngs(0), param_dtype=jnp.float64)
    assert {path for path, _ in nnx.to_flat_state(nnx.state(lstm))} == {("a", "w"), ("start",)}
    want = core(cell, lstm.params, xs)
    assert_equal(lstm(xs), want)
    assert_close(nnx.RNN(one, return_carry=True)(xs), want, 1e-12)


@pytest.mark.parametrize("cls", [jl_nnx.Recurrent, jl_nnx.RecurrentCell])
def test_a_wrong_constructor_argument_is_named(cls):
    with pytest.raises(TypeError, match=r"cell"):
        cls(jl.LSTM, rngs=nnx.Rngs(0))
    with pytest.raises(TypeError, match=r"rngs"):
        cls(CELLS[0], rngs=0)
    with pytest.raises(TypeError, match=r"dtype.*int32"):
        cls(CELLS[0], rngs=nnx.Rngs(0), param_dtype=jnp.int32)


def test_wrong_arguments_are_refused_in_the_cores_words():
    lstm, xs = module(CELLS[0]), draw(B, T, IN)
    with pytest.raises(ValueError, match=r"xs must be \(\*B, T, I\).*\(3,\)"):
        lstm(xs[0, 0])
    with pytest.raises(ValueError, match=r"4 features.*takes 3"):
        lstm(draw(B, T, 4))
    with pytest.raises(TypeError, match=r"mask must hold bools"):
        lstm(xs, mask=jnp.ones((B, T)))
    with pytest.raises(ValueError, match=r"reset.*\(2, 6\).*\(6, 2\)"):
        lstm(xs, reset=jnp.zeros((T, B), bool))
    with pytest.raises(TypeError, match=r"state must be a LSTMState, but is a tuple"):
        lstm(xs, (jnp.zeros((B, H)), jnp.zeros((B, H))))
    with pytest.raises(TypeError, match=r"float64.*float32"):
        module(CELLS[0], dtype=jnp.float32)(xs)


def test_a_wrong_carry_is_refused():
    one, x = module(CELLS[0], jl_nnx.RecurrentCell), draw(B, IN)
    c, h = one.initialize_carry(x.shape)
    with pytest.raises(TypeError, match=r"carry must be Flax's pair \(c, h\), but is a LSTMState"):
        one(jl.LSTMState(h, c), x)
    with pytest.raises(TypeError, match=r"pair"):
        one(h, x)
    with pytest.raises(ValueError, match=r"carry.*\(2,\).*\(3, 4\)"):
        one((jnp.zeros((3, H)), h), x)
    with pytest.raises(ValueError, match=r"state\.c has shape \(7,\)"):
        one((jnp.zeros((B, 7)), h), x)
    with pytest.raises(TypeError, match=r"state\.h must be float64"):
        one((c, h.astype(jnp.float32)), x)
    with pytest.raises(ValueError, match=r"rngs is None"):
        one.initialize_carry(x.shape, carry_init=nnx.initializers.normal())
