"""The sLSTM: its equations in NumPy, with and without the stabiliser, its first step, its heads, and its limits."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from programs import equations

import jax_lstm as jl

I, H, T = 3, 16, 6
CELLS = {gate: jl.SLSTM(I, H, heads=2, forget_gate=gate) for gate in ("sigmoid", "exp")}
HALF = jl.SLSTM(I, H // 2)
BOTH = pytest.mark.parametrize("gate", list(CELLS))
NARROW = pytest.mark.parametrize(("gate", "dtype"), [("sigmoid", "float32"), ("exp", "bfloat16"), ("exp", "float16")])
MASK, RESET = np.array([1, 1, 0, 1, 1, 1], bool), np.array([0, 0, 1, 0, 1, 0], bool)
SIGNS = np.sign((np.arange(H) >> np.arange(4)[:, None]) % 2 - 0.5)  # of the four gates, every combination in a unit


def normal(seed, *shape):
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def cast(tree, dtype):
    return jax.tree.map(lambda a: jnp.asarray(a, dtype), tree)


def all_finite(tree):
    return all(np.isfinite(leaf.astype(jnp.float32)).all() for leaf in jax.tree.leaves(tree))


PARAMS = jl.SLSTMParams(normal(0, I, 4 * H), normal(0, 2, H // 2, 2 * H) / 2, normal(0, 4 * H))
XS, WEIGHTS = normal(1, T, I), (*(normal(2 + k, H) for k in range(4)), normal(2, T, H))
N = 1 + normal(3, H) ** 2
STATE = jl.SLSTMState(normal(1, H), N * np.tanh(normal(2, H)), N, normal(4, H))


def fresh():
    return CELLS["exp"].initial_state(PARAMS)


@partial(jax.jit, static_argnums=0)
@partial(jax.value_and_grad, argnums=(1, 2, 3), has_aux=True)
def with_gradient(gate, params, xs, state, mask, reset):
    end, hs = jl.unroll(CELLS[gate], params, xs, state, mask, reset)
    return sum(jnp.vdot(jnp.asarray(w, y.dtype), y) for w, y in zip(WEIGHTS, (*end, hs), strict=True)), (*end, hs)


@BOTH
@pytest.mark.parametrize("start", ["a state", "the fresh state"])
def test_outputs_and_every_gradient_are_those_of_the_equations(gate, start):
    step = partial(reference.slstm, forget_gate=gate)
    initial, state = (tuple(np.asarray(a) for a in s) for s in (fresh(), STATE if start == "a state" else fresh()))
    options = {"mask": MASK, "reset": RESET, "fresh": initial}
    (_, outputs), gradient = with_gradient(gate, PARAMS, XS, jl.SLSTMState(*state), MASK, RESET)
    end, hs = reference.unroll(step, PARAMS, XS, state, **options)
    for ours, theirs in zip(outputs, (*end, hs), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12 * max(1, np.abs(theirs).max()))
    expected = reference.gradient(step, PARAMS, XS, state, WEIGHTS, **options)
    for ours, theirs in zip(jax.tree.leaves(gradient), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10 * max(1, np.abs(theirs).max()))


@BOTH
def test_without_the_stabilizer_the_outputs_are_the_same(gate):
    w_x, w_h, b = PARAMS
    blocks = np.zeros((H, 4, H))  # w_h as one matrix, gates apart
    for k, at in enumerate((slice(0, H // 2), slice(H // 2, H))):
        blocks[at, :, at] = w_h[k].reshape(H // 2, 4, H // 2)
    h = c = n = np.zeros(H)
    hs = []
    for x in XS:
        z_i, z_f, z_g, z_o = np.split(x @ w_x + b + h @ blocks.reshape(H, 4 * H), 4)
        f = reference.sigmoid(z_f) if gate == "sigmoid" else np.exp(z_f)
        c, n = f * c + np.exp(z_i) * np.tanh(z_g), f * n + np.exp(z_i)
        h = reference.sigmoid(z_o) * c / n
        hs.append(h)
    (_, (*end, ours)), _ = with_gradient(gate, PARAMS, XS, fresh(), np.ones(T, bool), np.zeros(T, bool))
    np.testing.assert_allclose(ours, hs, rtol=0, atol=1e-12)
    np.testing.assert_allclose(end[1] * np.exp(end[3]), c, rtol=1e-12)
    np.testing.assert_allclose(end[2] * np.exp(end[3]), n, rtol=1e-12)


@BOTH
def test_scaling_a_state_and_its_stabilizer_keeps_the_outputs(gate):
    moved = STATE._replace(c=STATE.c * np.exp(-2.5), n=STATE.n * np.exp(-2.5), m=STATE.m + 2.5)
    (_, ours), (_, theirs) = (with_gradient(gate, PARAMS, XS, s, MASK, RESET)[0] for s in (moved, STATE))
    np.testing.assert_allclose(ours[-1], theirs[-1], rtol=0, atol=1e-12)


@partial(jax.jit, static_argnums=0)
def first_step(gate, params, x):
    return CELLS[gate].step(params, CELLS[gate].initial_state(params), x)[0]


@NARROW
@pytest.mark.parametrize("size", [0.5, 100, 1e4, 6e4])
def test_the_first_step_writes_the_candidate_for_any_gates(gate, dtype, size):
    params = cast(PARAMS._replace(b=size * SIGNS.ravel()), dtype)
    state = first_step(gate, params, jnp.zeros(I, dtype))
    z_i, _, z_g, z_o = jnp.split(params.b, 4)
    limit = float(jnp.finfo(dtype).max) / 4
    np.testing.assert_array_equal(state.n, np.ones(H))
    np.testing.assert_array_equal(state.c, jnp.tanh(z_g))
    np.testing.assert_array_equal(state.h, jax.nn.sigmoid(z_o) * jnp.tanh(z_g))
    np.testing.assert_array_equal(state.m, jnp.clip(z_i, -limit, limit))


@NARROW
def test_saturated_gates_give_finite_states_and_gradients(gate, dtype):
    for size in (100, 1e4, 6e4):
        params, xs, state = cast((PARAMS._replace(b=size * SIGNS.ravel()), XS, STATE), dtype)
        for s in (state, CELLS[gate].initial_state(params)):
            (_, outputs), gradient = with_gradient(gate, params, xs, s, MASK, RESET)
            assert all_finite((outputs, gradient))
            assert (jnp.abs(outputs[-1]) <= 1).all()


@NARROW
def test_the_normalizer_is_at_least_1_and_the_output_at_most_1(gate, dtype):
    b = PARAMS.b + 1e4 * (np.arange(4 * H) == H)  # one unit whose m rises for ever where f = exp(z_f)
    params, xs = cast((PARAMS._replace(b=b), 20 * normal(5, 300, I)), dtype)
    states = jl.unroll_states(CELLS[gate], params, xs)
    assert all_finite(states)
    assert (states.n >= 1).all()
    assert (jnp.abs(states.h) <= 1).all()


def test_float16_gradients_by_a_large_normalizer_match_float64():
    def h(n, dtype):
        args = cast((PARAMS, STATE, PARAMS.b), dtype)
        z = jl.Gates(*jnp.split(args[2], 4))
        return CELLS["exp"].update(args[0], args[1]._replace(c=0.9 * n, n=n, m=n * 0), z).h.sum()

    n = 300 + np.arange(H)
    ours, theirs = (jax.jit(jax.grad(h), static_argnums=1)(jnp.asarray(n, d), d) for d in ("float16", "float64"))
    np.testing.assert_allclose(ours.astype(jnp.float64), theirs, rtol=0.02, atol=2e-5)
    assert jnp.abs(theirs).max() > 2e-4


def test_a_unit_cannot_move_a_gate_of_another_head():
    zh = jax.jit(jax.vmap(lambda h: jnp.stack(CELLS["exp"].recur(PARAMS, STATE._replace(h=h)))))(jnp.eye(H))
    own = np.kron(np.eye(2), np.ones((H // 2, H // 2))) > 0  # (unit that moves, unit moved)
    for gate in range(4):
        np.testing.assert_array_equal(zh[:, gate] != 0, own)


def test_two_heads_are_two_cells_side_by_side():
    n = H // 2
    whole, half = (jax.jit(lambda p, s, x, cell=cell: cell.step(p, s, x)[0]) for cell in (CELLS["sigmoid"], HALF))
    state = STATE
    for x in XS[:2]:
        after = whole(PARAMS, state, x)
        for k, at in enumerate((slice(0, n), slice(n, H))):
            w_x, b = PARAMS.w_x.reshape(I, 4, H)[..., at].reshape(I, -1), PARAMS.b.reshape(4, H)[:, at].ravel()
            params = jl.SLSTMParams(w_x, PARAMS.w_h[k : k + 1], b)
            alone = half(params, jax.tree.map(lambda a, at=at: a[at], state), x)
            jax.tree.map(lambda a, b, at=at: np.testing.assert_allclose(a[at], b, rtol=1e-12), after, alone)
        state = after


def test_weights_are_drawn_separately_per_gate_and_head():
    params = jax.jit(partial(jl.SLSTM(400, 8, heads=2).init, dtype=jnp.float64))(jax.random.key(3))
    for w in np.split(params.w_x, 4, axis=1):
        np.testing.assert_allclose(w.var() * 400, 1, atol=0.1)
    blocks = np.moveaxis(np.reshape(params.w_h, (2, 4, 4, 4)), 2, 1).reshape(8, 4, 4)  # (heads × gates, n, n)
    for w in blocks:
        np.testing.assert_allclose(w.T @ w, np.eye(4), atol=1e-12)
    assert min(np.abs(a - b).max() for k, a in enumerate(blocks) for b in blocks[:k]) > 0.01
    # No decomposition is of several matrices at once (initializers.py says why).
    made = equations(jax.make_jaxpr(jl.SLSTM(400, 8, heads=2).init)(jax.random.key(3)))
    ranks = [e.invars[0].aval.ndim for e in made if e.primitive.name in ("geqrf", "geqp3", "qr")]
    assert ranks == [2]


@pytest.mark.parametrize(
    ("choices", "b_f"), [({}, 1), ({"forget_gate": "exp"}, 0), ({"forget_gate": "exp", "forget_bias": -2}, -2)]
)
def test_the_forget_bias_is_as_given_or_the_default_of_its_gate(choices, b_f):
    b = jax.jit(lambda key: jl.SLSTM(I, 4, **choices).init(key).b)(jax.random.key(0))  # jit drops the rest
    np.testing.assert_array_equal(b, np.repeat([0, b_f, 0, 0], 4))


def test_the_initial_states_of_a_batch_are_finite():
    like = jnp.full((5, T, I), jnp.nan, jnp.float32)
    params = cast(PARAMS, "float32")
    state, alone = jl.initial_states(CELLS["exp"], params, 5, like), CELLS["exp"].initial_state(params)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, np.tile(b, (5, 1)), strict=True), state, alone)
    assert all_finite(state)


@pytest.mark.parametrize(
    ("choices", "error", "words"),
    [
        ({"heads": 3}, ValueError, "SLSTM: heads must divide hidden_size, but heads is 3 and hidden_size 16"),
        ({"heads": 0}, ValueError, "SLSTM: heads must be at least 1, but is 0"),
        ({"heads": True}, TypeError, "SLSTM: heads must be an integer.*True"),
        ({"forget_gate": "relu"}, ValueError, "SLSTM: forget_gate must be one of sigmoid, exp, but is 'relu'"),
        ({"forget_bias": float("nan")}, ValueError, "SLSTM: forget_bias must be finite.*nan"),
    ],
)
def test_a_choice_out_of_range_is_refused_by_name(choices, error, words):
    with pytest.raises(error, match=words):
        jl.SLSTM(I, H, **choices)


@pytest.mark.parametrize("cell", [*CELLS.values(), jl.SLSTM(I, H, 4, forget_bias=3)], ids=repr)
def test_it_goes_to_plain_data_and_back(cell):
    assert jl.to_config(cell)["cell"] == "SLSTM"
    assert jl.from_config(jl.to_config(cell)) == cell
    assert jl.from_config(jl.to_config(cell) | {"heads": 8}) != cell


@pytest.mark.parametrize("engine", ["hoisted", "plain"])
def test_a_batch_has_the_gradients_of_its_sequences(engine):
    cell = jl.SLSTM(3, 5)  # jaxlib 0.10.2 once compiled this gradient wrongly for CPUs with AVX-512

    def loss(params, xs):
        return jnp.sum(jnp.sin(jl.unroll(cell, params, xs, engine=engine)[1]))

    one, batch = jax.jit(jax.grad(loss, (0, 1))), jax.jit(jax.vmap(jax.grad(loss, (0, 1)), (None, 0)))
    for seed in range(4):
        keys = jax.random.split(jax.random.key(seed), 5)
        params = cell.init(keys[0], jnp.float64)
        params = params._replace(**{
            name: a + 0.3 * jax.random.normal(key, a.shape, a.dtype)
            for (name, a), key in zip(params._asdict().items(), keys[1:], strict=False)
        })  # fmt: skip
        xs = jax.random.normal(keys[4], (4, 7, 3), jnp.float64)
        together = batch(params, xs)
        for k, x in enumerate(xs):
            for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(one(params, x)), strict=True):
                np.testing.assert_allclose(a[k], b, rtol=1e-9, atol=1e-12)
