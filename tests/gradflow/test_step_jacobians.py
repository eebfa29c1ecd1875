"""One step's Jacobian against the derivative written out by hand, and what follows from it exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from diagonal import Diagonal, DiagonalState

import jax_lstm as jl
from jax_lstm.gradflow import flatten_state, input_jacobians, step_jacobians, unflatten_state

I, H, T = 3, 4, 6


def problem(cell, seed=0):
    """Params, inputs and a state that are far from rest."""
    keys = jax.random.split(jax.random.key(seed), 5)
    params = cell.init(keys[0], jnp.float64)
    params = jax.tree.map(lambda p: p + 0.5 * jax.random.normal(keys[1], p.shape, p.dtype), params)
    state = jax.tree.map(lambda s: 0.7 * jax.random.normal(keys[2], s.shape, s.dtype), cell.initial_state(params))
    if hasattr(state, "c"):
        state = state._replace(c=1.5 * jax.random.normal(keys[3], (H,), jnp.float64))
    return params, jax.random.normal(keys[4], (T, I), jnp.float64), state


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def lstm_along(params, xs, state):
    """i, f, g, o, c, c' of every step, and U_i, U_f, U_g, U_o acting on the column h, in NumPy."""
    w_x, w_h, b, xs, h, c = (np.asarray(a) for a in (*params, xs, *state))
    U = [block.T for block in np.split(w_h, 4, axis=1)]
    steps = []
    for x in xs:
        z_i, z_f, z_g, z_o = np.split(x @ w_x + h @ w_h + b, 4)
        i, f, g, o = sigmoid(z_i), sigmoid(z_f), np.tanh(z_g), sigmoid(z_o)
        c_new = f * c + i * g
        steps.append((i, f, g, o, c, c_new))
        h, c = o * np.tanh(c_new), c_new
    return steps, U


def lstm_jacobian(i, f, g, o, c, c_new, U):
    """O1, in the order (h, c): h' = o tanh(c'), c' = f c + i g."""
    U_i, U_f, U_g, U_o = U
    dc_dh = np.diag(c * f * (1 - f)) @ U_f + np.diag(g * i * (1 - i)) @ U_i + np.diag(i * (1 - g**2)) @ U_g
    E = np.diag(o * (1 - np.tanh(c_new) ** 2))
    B = np.diag(np.tanh(c_new) * o * (1 - o)) @ U_o
    return np.block([[E @ dc_dh + B, E @ np.diag(f)], [dc_dh, np.diag(f)]])


def test_the_lstms_jacobian_is_the_one_written_out_by_hand():
    cell = jl.LSTM(I, H)
    params, xs, state = problem(cell)
    J = step_jacobians(cell, params, xs, state)
    steps, U = lstm_along(params, xs, state)
    by_hand = np.stack([lstm_jacobian(*step, U) for step in steps])
    np.testing.assert_allclose(J, by_hand, rtol=1e-12, atol=1e-14)
    c_first = np.roll(by_hand, H, axis=(1, 2))
    assert np.abs(J - c_first).max() > 0.1, "the other order of h and c must not pass"


def test_no_block_of_the_lstms_jacobian_is_above_its_bound():
    """O8: ‖∂c_t/∂h_{t−1}‖ ≤ max|c|/4 ‖U_f‖ + ‖U_i‖/4 + ‖U_g‖, and ‖B‖ ≤ ‖U_o‖/4."""
    cell = jl.LSTM(I, H)
    norm = lambda A: np.linalg.norm(A, 2)  # noqa: E731
    for seed in range(20):
        params, xs, state = problem(cell, seed)
        J = np.asarray(step_jacobians(cell, params, xs, state))
        steps, (U_i, U_f, U_g, U_o) = lstm_along(params, xs, state)
        for J_t, (_, _, _, o, c, c_new) in zip(J, steps, strict=True):
            bound = np.abs(c).max() / 4 * norm(U_f) + norm(U_i) / 4 + norm(U_g)
            B = J_t[:H, :H] - np.diag(o * (1 - np.tanh(c_new) ** 2)) @ J_t[H:, :H]
            assert 0 < norm(J_t[H:, :H]) <= bound
            assert 0 < norm(B) <= norm(U_o) / 4


def test_the_lstms_determinant_is_that_of_its_gates():
    """O2: log|det J| = Σ log f + Σ log|tanh(c') o (1 − o)| + log|det U_o|, at every step."""
    cell = jl.LSTM(I, H)
    params, xs, state = problem(cell)
    steps, (_, _, _, U_o) = lstm_along(params, xs, state)
    want = [
        np.log(f).sum() + np.log(np.abs(np.tanh(c_new) * o * (1 - o))).sum() + np.linalg.slogdet(U_o)[1]
        for _, f, _, o, _, c_new in steps
    ]
    got = jnp.linalg.slogdet(step_jacobians(cell, params, xs, state))[1]
    np.testing.assert_allclose(got, want, rtol=1e-12)
    without_f = [w - np.log(step[1]).sum() for w, step in zip(want, steps, strict=True)]
    assert np.abs(got - np.array(without_f)).min() > 0.1


def test_the_tanh_rnn_determinant_matches_slopes_and_weights():
    cell = jl.RNN(I, H)
    params, xs, state = problem(cell)
    hs = jl.unroll(cell, params, xs, state)[1]
    want = np.log1p(-(np.asarray(hs) ** 2)).sum(1) + np.linalg.slogdet(np.asarray(params.w_h))[1]
    got = jnp.linalg.slogdet(step_jacobians(cell, params, xs, state))[1]
    np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.parametrize("b_f", [0.0, 1.0, 2.0])
def test_without_weights_c_keeps_exactly_sigma_b_f_per_step(b_f):
    """O4."""
    cell = jl.LSTM(I, H, forget_bias=b_f)
    params = jax.tree.map(jnp.zeros_like, problem(cell)[0])
    params = params._replace(b=cell.init(jax.random.key(0), jnp.float64).b)
    J = step_jacobians(cell, params, jnp.ones((T, I)))
    product = np.linalg.multi_dot(np.asarray(J)[::-1])
    np.testing.assert_allclose(product[H:, H:], sigmoid(b_f) ** T * np.eye(H), rtol=1e-14)
    np.testing.assert_array_equal(product[:, :H], 0)


def test_an_input_reaches_the_state_by_its_own_jacobian(cell):
    params, xs, state = problem(cell)
    got, s = input_jacobians(cell, params, xs, state), state
    for J, x in zip(got, xs, strict=True):
        want = jax.jacfwd(lambda x, s=s: flatten_state(cell.step(params, s, x)[0]))(x)
        np.testing.assert_allclose(J, want, rtol=1e-12, atol=1e-15)
        s, _ = cell.step(params, s, x)
    assert got.shape == (T, flatten_state(state).size, I)
    assert np.abs(got[0] - got[1]).max() > 1e-3


def test_a_narrow_input_does_not_make_its_jacobian_coarse():
    cell = jl.LSTM(I, H)
    params, xs, state = problem(cell)
    xs = xs.astype(jnp.bfloat16)
    np.testing.assert_allclose(
        input_jacobians(cell, params, xs, state),
        input_jacobians(cell, params, xs.astype(jnp.float64), state),
        rtol=1e-12,
    )


def test_a_cell_that_has_only_step_is_measured_too():
    cell = Diagonal()
    xs = jnp.arange(1.0, 7.0).reshape(3, 2)
    J = step_jacobians(cell, cell.init(jax.random.key(0), jnp.float64), xs)
    np.testing.assert_array_equal(J, [np.diag(x) for x in np.asarray(xs)])


def test_a_batch_is_a_vmap_and_a_jit_changes_nothing(cell):
    params, xs, _ = problem(cell)
    batch = jnp.stack([xs, 2 * xs])
    one_by_one = jnp.stack([step_jacobians(cell, params, xs) for xs in batch])
    together = jax.jit(jax.vmap(step_jacobians, in_axes=(None, None, 0)))(cell, params, batch)
    np.testing.assert_allclose(together, one_by_one, rtol=1e-12, atol=1e-15)


def test_no_steps_have_no_jacobians(cell):
    params, xs, state = problem(cell)
    N = flatten_state(state).size
    assert step_jacobians(cell, params, xs[:0], state).shape == (0, N, N)


def test_a_state_survives_being_flattened_and_h_comes_first():
    state = jl.LSTMState(h=jnp.arange(4.0), c=jnp.arange(4.0, 8.0))
    s = flatten_state(state)
    np.testing.assert_array_equal(s, np.arange(8.0))
    back = unflatten_state(s, state)
    assert type(back) is jl.LSTMState
    jax.tree.map(np.testing.assert_array_equal, back, state)
    shapes = DiagonalState(jnp.zeros(1), jnp.zeros((1, 1)))
    assert unflatten_state(jnp.arange(2.0), shapes).b.shape == (1, 1)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda p, xs: (p, xs[:, :2]), ValueError, r"step_jacobians: xs has 2 features"),
        (lambda p, xs: (p, xs[None]), ValueError, r"step_jacobians: xs must be one sequence"),
        (lambda p, xs: (p, xs.astype(int)), TypeError, r"step_jacobians: xs must hold floats"),
        (lambda p, xs: (p._replace(b=p.b[:-1]), xs), ValueError, r"step_jacobians: params.b has shape"),
        (lambda p, xs: (p, xs, (p.b, p.b)), TypeError, r"step_jacobians: state must be a LSTMState"),
    ],
)
def test_a_wrong_argument_is_named_in_one_sentence(wrong, error, message):
    cell = jl.LSTM(I, H)
    params, xs, _ = problem(cell)
    with pytest.raises(error, match=message):
        step_jacobians(cell, *wrong(params, xs))


def test_a_state_that_is_no_vector_is_refused():
    with pytest.raises(TypeError, match="flatten_state: state must hold floats of one dtype, but holds float64, int"):
        flatten_state((jnp.zeros(2), jnp.zeros(2, jnp.int32)))
    with pytest.raises(ValueError, match=r"unflatten_state: s must have shape \(8,\)"):
        unflatten_state(jnp.zeros(7), jl.LSTMState(jnp.zeros(4), jnp.zeros(4)))


def test_a_cell_that_closes_over_a_traced_array_is_refused():
    class Leaky(Diagonal):
        def __init__(self, scale):
            self.scale = scale

        def step(self, params, state, x):
            return super().step(params, state, self.scale * x)

    with pytest.raises(TypeError, match="closes over a traced array"):
        jax.vmap(lambda scale: step_jacobians(Leaky(scale), Diagonal().init(None, jnp.float64), jnp.ones((2, 2))))(
            jnp.ones(2)
        )
