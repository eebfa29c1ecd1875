"""The Linen modules hold names: every number is the core's, and Flax's own cells agree with them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import errors, nnx
from flax import linen as nn
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jax_lstm as jl
from jax_lstm import linen as jl_linen
from jax_lstm import nnx as jl_nnx

IN, H, B, T = 3, 4, 2, 6
CELLS = [jl.LSTM(IN, H), jl.GRU(IN, H), jl.RNN(IN, H)]
TOLERANCE = {jnp.float32: 1e-6, jnp.float64: 1e-12}

each_cell = pytest.mark.parametrize("cell", CELLS, ids=lambda cell: type(cell).__name__)
core = jl.batched(jl.unroll)


def draw(*shape, dtype=jnp.float64, seed=1):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def layer(cell, **options) -> Any:
    return jl_linen.Recurrent(cell, **options)


def flaxs_rnn(cell, param_dtype: Any = jnp.float64, **options) -> Any:
    return nn.RNN(jl_linen.RecurrentCell(cell, param_dtype=param_dtype), **options)


def weights(cell, dtype: Any = jnp.float64):
    """Params whose every leaf, biases too, is random."""
    leaves, treedef = jax.tree.flatten(cell.init(jax.random.key(0), dtype))
    return treedef.unflatten(draw(*leaf.shape, dtype=dtype, seed=10 + k) for k, leaf in enumerate(leaves))


def everything(cell, dtype=jnp.float64):
    """Arguments for a call in which each of them matters."""
    zero = cell.initial_state(weights(cell, dtype))
    state = jax.tree.map(lambda a: draw(B, *a.shape, dtype=dtype, seed=2), zero)
    mask = jnp.asarray([[True] * 6, [False, True, True, False, True, False]])
    reset = jnp.asarray([[False, False, True, False, False, False], [False, False, False, False, True, True]])
    return state, {"mask": mask, "reset": reset, "reverse": True}


def as_carry(state):
    return (state.c, state.h) if isinstance(state, jl.LSTMState) else state.h


def assert_equal(actual, desired):
    assert jax.tree.structure(actual) == jax.tree.structure(desired)
    jax.tree.map(np.testing.assert_array_equal, actual, desired)


def assert_close(actual, desired, tolerance):
    assert jax.tree.structure(actual) == jax.tree.structure(desired)
    jax.tree.map(lambda a, d: np.testing.assert_allclose(a, d, rtol=tolerance, atol=tolerance), actual, desired)


@each_cell
def test_states_and_outputs_equal_the_cores_with_all_arguments(cell):
    lstm, params, xs = layer(cell), weights(cell), draw(B, T, IN)
    variables = {"params": params._asdict()}
    state, choices = everything(cell)
    ours = lstm.apply(variables, xs, state, **choices)
    assert_equal(ours, core(cell, params, xs, state, **choices))
    assert_equal(lstm.apply(variables, xs), core(cell, params, xs))
    for name in choices:  # each of them matters, so that one left out would be seen
        others = {k: v for k, v in choices.items() if k != name}
        assert not np.allclose(ours[1], lstm.apply(variables, xs, state, **others)[1])
    assert not np.allclose(ours[1], lstm.apply(variables, xs, **choices)[1])


@each_cell
def test_gradients_under_jit_are_the_cores(cell):
    lstm, params, xs, weight = layer(cell), weights(cell), draw(B, T, IN), draw(B, T, H, seed=3)
    state, choices = everything(cell)

    def loss(variables, xs, state):
        return (lstm.apply(variables, xs, state, **choices)[1] * weight).sum()

    def core_loss(params, xs, state):
        return (core(cell, params, xs, state, **choices)[1] * weight).sum()

    ours, *rest = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))({"params": params._asdict()}, xs, state)
    want, *want_rest = jax.grad(core_loss, argnums=(0, 1, 2))(params, xs, state)
    assert all(np.abs(leaf).max() > 0 for leaf in want)
    assert_close((ours["params"], rest), (want._asdict(), want_rest), 1e-12)


@each_cell
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_weights_can_be_set_and_read_unchanged(cell, dtype):
    lstm, params = layer(cell, param_dtype=dtype), cell.init(jax.random.key(7), dtype)
    variables = {"params": params._asdict()}
    assert_equal(lstm.bind(variables).params, params)
    assert_equal(cell.params_from(variables["params"]), params)
    drawn = lstm.init(jax.random.key(0), jnp.zeros((B, T, IN), dtype))
    assert set(drawn) == {"params"}
    assert set(drawn["params"]) == set(params._fields)
    assert type(lstm.bind(drawn).params) is type(params)
    assert jax.tree.map(jax.typeof, drawn["params"]) == jax.tree.map(jax.typeof, params._asdict())


@pytest.mark.parametrize("make", [layer, flaxs_rnn])
def test_weights_are_drawn_by_the_cells_own_init(make):
    cell = jl.LSTM(IN, H, chrono=50.0)
    variables = make(cell).init(jax.random.key(0), jnp.zeros((B, T, IN), jnp.float32))["params"]
    params = cell.params_from(variables.get("cell", variables))
    b_i, b_f, b_g, b_o = jnp.split(params.b, 4)
    assert_equal(b_i, -b_f)
    assert np.ptp(b_f) > 0.1
    assert not np.any(jnp.concatenate([b_g, b_o]))
    for w in jnp.split(params.w_h, 4, axis=1):
        np.testing.assert_allclose(w.T @ w, np.eye(H), atol=1e-6)
    other = make(cell).init(jax.random.key(1), jnp.zeros((B, T, IN), jnp.float32))["params"]
    assert not np.allclose(params.w_x, other.get("cell", other)["w_x"])


def test_many_seeds_at_once_are_a_vmap_over_the_module():
    many: Any = nn.vmap(
        jl_linen.Recurrent, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=None, axis_size=3
    )(CELLS[0])  # fmt: skip
    xs = draw(B, T, IN, dtype=jnp.float32)
    variables = many.init(jax.random.key(0), xs)
    _, hs = many.apply(variables, xs)
    for k in range(3):
        one = jax.tree.map(lambda a, k=k: a[k], variables)
        assert_close(hs[k], layer(CELLS[0]).apply(one, xs)[1], 1e-6)
    assert np.abs(hs[0] - hs[1]).max() > 1e-2


@each_cell
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_a_cell_in_flaxs_rnn_is_the_layer(cell, dtype):
    params, xs = weights(cell, dtype)._asdict(), draw(B, T, IN, dtype=dtype)
    rnn = flaxs_rnn(cell, dtype, return_carry=True)
    carry, hs = rnn.apply({"params": {"cell": params}}, xs)
    state, want = layer(cell).apply({"params": params}, xs)
    assert hs.dtype == dtype
    assert_close((carry, hs), (as_carry(state), want), TOLERANCE[dtype])


@each_cell
@pytest.mark.parametrize("reverse", [False, True])
def test_lengths_in_flaxs_rnn_are_a_mask_in_the_layer(cell, reverse):
    params, xs = weights(cell)._asdict(), draw(B, T, IN)
    lengths = jnp.asarray([4, 6])
    mask = jnp.arange(T)[None] < lengths[:, None]
    state, _ = everything(cell)
    rnn = flaxs_rnn(cell, return_carry=True, reverse=reverse, keep_order=True)
    carry, hs = rnn.apply({"params": {"cell": params}}, xs, seq_lengths=lengths, initial_carry=as_carry(state))
    state, want = layer(cell).apply({"params": params}, xs, state, mask=mask, reverse=reverse)
    assert_close(jnp.where(mask[..., None], hs, jnp.zeros_like(hs)), want, 1e-12)
    assert_close(carry, as_carry(state), 1e-12)


@each_cell
def test_gradients_through_flaxs_rnn_are_the_layers(cell):
    params, xs = weights(cell)._asdict(), draw(B, T, IN)
    rnn = flaxs_rnn(cell)
    through_rnn = jax.grad(lambda p: (rnn.apply({"params": {"cell": p}}, xs) ** 2).sum())(params)
    through_layer = jax.grad(lambda p: (layer(cell).apply({"params": p}, xs)[1] ** 2).sum())(params)
    assert_close(through_rnn, through_layer, 1e-10)


def flaxs_lstm_weights(params):
    w_x, w_h, b = (jnp.split(a, 4, axis=-1) for a in params)
    return {f"i{gate}": {"kernel": w_x[k]} for k, gate in enumerate("ifgo")} | {
        f"h{gate}": {"kernel": w_h[k], "bias": b[k]} for k, gate in enumerate("ifgo")
    }


def flaxs_gru_weights(params):
    w_x, w_h, b = (jnp.split(a, 3, axis=-1) for a in params[:3])
    to_x = {f"i{gate}": {"kernel": w_x[k], "bias": b[k]} for k, gate in enumerate("rzn")}
    to_h = {f"h{gate}": {"kernel": w_h[k]} for k, gate in enumerate("rzn")}
    return to_x | to_h | {"hn": {"kernel": w_h[2], "bias": params.b_hn}}


@pytest.mark.parametrize(
    ("cell", "flaxs", "weights_of"),
    [
        (CELLS[0], nn.LSTMCell, flaxs_lstm_weights),
        (CELLS[0], nn.OptimizedLSTMCell, flaxs_lstm_weights),
        (CELLS[1], nn.GRUCell, flaxs_gru_weights),
    ],
    ids=["RecurrentCell", "OptimizedLSTMCell", "GRUCell"],
)
def test_flaxs_own_cell_with_the_same_weights_gives_the_same(cell, flaxs, weights_of):
    params, xs = weights(cell), draw(B, T, IN)
    rnn: Any = nn.RNN(flaxs(H, param_dtype=jnp.float64), return_carry=True)
    carry, hs = rnn.apply({"params": {"cell": weights_of(params)}}, xs)
    state, want = layer(cell).apply({"params": params._asdict()}, xs)
    assert_close((carry, hs), (as_carry(state), want), 1e-12)
    rolled = weights_of(params._replace(w_x=jnp.roll(params.w_x, H, axis=-1)))
    _, other = rnn.apply({"params": {"cell": rolled}}, xs)
    assert np.abs(other - hs).max() > 1e-2  # gates in another order are noticed


@each_cell
def test_the_layer_and_flax_rnn_run_on_an_explicit_mesh(cell):
    lstm, params, xs = layer(cell), weights(cell), draw(B, T, IN)
    variables = {"params": params._asdict()}
    want = lstm.apply(variables, xs)
    mesh = jax.make_mesh((min(B, jax.device_count()),), ("data",), (AxisType.Explicit,))
    with jax.set_mesh(mesh):
        spread = jax.device_put(xs, NamedSharding(mesh, P("data")))
        state, hs = jax.jit(lstm.apply)(variables, spread)
        assert jax.typeof(hs).sharding.spec == P("data", None, None)
        assert_close((state, hs), want, 1e-12)
        carry = as_carry(jl.initial_states(cell, params, B, like=spread))
        rnn = flaxs_rnn(cell)
        hs = rnn.apply({"params": {"cell": variables["params"]}}, spread, initial_carry=carry)
        assert_close(hs, want[1], 1e-12)


@each_cell
def test_a_step_takes_any_batch_axes(cell):
    variables, xs = {"params": weights(cell)._asdict()}, draw(2, 3, IN)
    one = jl_linen.RecurrentCell(cell).bind(variables)
    zero = one.initialize_carry(jax.random.key(0), xs.shape)
    carry = jax.tree.map(lambda a: draw(*a.shape, seed=4), zero)
    got, ys = one(carry, xs)
    assert jax.tree.structure(got) == jax.tree.structure(zero)
    for i, j in np.ndindex(2, 3):
        alone, y = one(jax.tree.map(lambda a, i=i, j=j: a[i, j], carry), xs[i, j])
        assert_close((jax.tree.map(lambda a, i=i, j=j: a[i, j], got), ys[i, j]), (alone, y), 1e-12)


@each_cell
def test_the_initial_carry_is_the_cells_initial_state(cell):
    zero = jnp.zeros((5, H))
    want = (zero, zero) if isinstance(cell, jl.LSTM) else zero
    one = jl_linen.RecurrentCell(cell, param_dtype=jnp.float64)
    assert one.num_feature_axes == 1
    assert_equal(one.initialize_carry(jax.random.key(0), (5, IN)), want)
    bound = one.bind({"params": weights(cell)._asdict()})
    assert_equal(bound.initialize_carry(jax.random.key(0), (5, IN)), want)
    theirs = jl_nnx.RecurrentCell(cell, rngs=nnx.Rngs(0), param_dtype=jnp.float64)
    assert_equal(theirs.initialize_carry((5, IN)), want)


class Learned:
    """The least a cell may have: nested params whose leaves are drawn together, a learned start, its own state."""

    input_size, hidden_size = IN, H

    def init(self, key, dtype=jnp.float32):
        w = jax.random.normal(key, (IN, H), dtype)
        return {"a": {"w": w}, "start": w[0]}

    def initial_state(self, params):
        return {"now": params["start"], "last": jnp.zeros_like(params["start"])}

    def step(self, params, state, x):
        now = jnp.tanh(x @ params["a"]["w"] + state["now"] - state["last"])
        return {"now": now, "last": state["now"]}, now


def test_the_layers_accept_any_cell_with_the_three_methods():
    cell, xs = Learned(), draw(B, T, IN)
    lstm, rnn = layer(cell, param_dtype=jnp.float64), flaxs_rnn(cell, return_carry=True)
    variables = lstm.init(jax.random.key(0), xs)
    assert set(variables["params"]) == {"a", "start"}
    assert_equal(variables["params"]["start"], variables["params"]["a"]["w"][0])  # all leaves are of one draw
    variables["params"]["start"] = draw(H, seed=5)
    want = core(cell, lstm.bind(variables).params, xs)
    assert_equal(lstm.apply(variables, xs), want)
    assert_close(rnn.apply({"params": {"cell": variables["params"]}}, xs), want, 1e-12)
    assert set(rnn.init(jax.random.key(0), xs)["params"]["cell"]) == {"a", "start"}


@pytest.mark.parametrize(("cls", "arguments"), [(jl_linen.Recurrent, 1), (jl_linen.RecurrentCell, 2)])
def test_a_wrong_constructor_argument_is_named(cls, arguments):
    with pytest.raises(TypeError, match=r"cell"):
        cls(jl.LSTM)
    with pytest.raises(TypeError, match=r"dtype.*int32"):
        cls(CELLS[0], param_dtype=jnp.int32).init(jax.random.key(0), *([jnp.zeros((1, 1, IN))] * arguments))


def test_wrong_arguments_are_refused_in_the_cores_words():
    cell, xs = CELLS[0], draw(B, T, IN)
    variables = {"params": weights(cell)._asdict()}

    def lstm(*args, variables=variables, **choices):
        return layer(cell).apply(variables, *args, **choices)

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
    with pytest.raises(ValueError, match=r"params\.w_h has shape \(3, 16\).*\(4, 16\)"):
        lstm(xs, variables={"params": weights(cell)._replace(w_h=jnp.zeros((3, 16)))._asdict()})
    with pytest.raises(errors.ScopeCollectionNotFound):
        lstm(xs, variables={})


def test_a_wrong_carry_is_refused():
    one, x = jl_linen.RecurrentCell(CELLS[0]).bind({"params": weights(CELLS[0])._asdict()}), draw(B, IN)
    c, h = one.initialize_carry(jax.random.key(0), x.shape)
    with pytest.raises(TypeError, match=r"carry must be Flax's pair \(c, h\), but is a LSTMState"):
        one(jl.LSTMState(h, c), x)
    with pytest.raises(TypeError, match=r"pair"):
        one(h, x)
    with pytest.raises(ValueError, match=r"carry.*\(2,\).*\(3, 4\)"):
        one((jnp.zeros((3, H)), h), x)
    with pytest.raises(ValueError, match=r"state\.c has shape \(7,\)"):
        one((jnp.zeros((B, 7)), h), x)
