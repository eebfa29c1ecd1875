"""The ways by which the gradient of the cell state comes back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from everything import Everything

import jax_lstm as jl
from jax_lstm.gradflow import paths, step_jacobians

I, H, T = 3, 4, 12
CELLS = {"LSTM": jl.LSTM(I, H), "peepholes and a projection": Everything(I, H)}


def problem(cell, dtype=jnp.float64):
    """Params, inputs and a state that is not zero."""
    params = cell.init(jax.random.key(0), dtype)
    state = jax.tree.map(lambda s: s + 0.3, cell.initial_state(params))
    return params, jax.random.normal(jax.random.key(1), (T, I), dtype), state


@pytest.mark.parametrize("name", CELLS)
def test_the_paths_along_c_and_through_h_sum_to_all_paths(name):
    """O11; each of the three is a recursion of its own."""
    cell = CELLS[name]
    every, cell_path, hidden = (paths(cell, *problem(cell), through=w) for w in ("all", "cell", "hidden"))
    np.testing.assert_allclose(cell_path + hidden, every, rtol=1e-12, atol=1e-14)
    assert np.abs(hidden[0]).max() > 1e-3 * np.abs(every[0]).max()


@pytest.mark.parametrize("name", CELLS)
def test_all_paths_equal_the_product_of_jacobians(name):
    cell = CELLS[name]
    params, xs, state = problem(cell)
    J, every = np.asarray(step_jacobians(cell, params, xs, state)), paths(cell, params, xs, state)
    product = np.eye(2 * H)
    for k in range(T, -1, -1):
        np.testing.assert_allclose(every[k], product[H:, H:], rtol=1e-12, atol=1e-15)
        product = product @ J[k - 1]


def test_the_path_along_c_is_the_product_of_the_forget_gates():
    cell = CELLS["LSTM"]
    params, xs, state = problem(cell)
    f = jl.gates_of(cell, params, xs, state).f
    want = np.stack([np.diag(np.prod(f[k:], axis=0)) for k in range(T + 1)])
    np.testing.assert_allclose(paths(cell, params, xs, state, through="cell"), want, rtol=1e-12)


def test_at_forget_bias_1_most_of_the_gradient_passes_through_h():
    """After 99 steps the largest product of forget gates is some ten decades below the whole."""
    cell = jl.LSTM(8, 64)
    params = cell.init(jax.random.key(0), jnp.float64)
    xs = jax.random.normal(jax.random.key(1), (100, 8), jnp.float64)
    along_c, through_h = (jnp.abs(paths(cell, params, xs, through=w)[1]).max() for w in ("cell", "hidden"))
    assert along_c < 1e-2 * through_h


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: paths(jl.GRU(I, H), *problem(jl.GRU(I, H))),
            "the state of cell GRU must be a NamedTuple with a field c",
        ),
        (
            lambda: paths(CELLS["LSTM"], *problem(CELLS["LSTM"]), through="c"),
            "through must be one of all, cell, hidden",
        ),
    ],
)
def test_a_wrong_argument_is_named_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()
