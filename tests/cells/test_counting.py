"""How far a cell can count by ones in bfloat16: in its state, in the operands of its products, or in neither."""

import jax.numpy as jnp
import numpy as np
import pytest

import jax_lstm as jl

ONES = np.ones((1000, 1), np.float32)


def last(cell_and_params, dtype):
    cell, params = cell_and_params
    params = type(params)(*(jnp.asarray(leaf, dtype) for leaf in params))
    return float(jl.unroll(cell, params, ONES.astype(dtype))[1][-1, 0])


def rnn(**options):
    """h_t = h_{t−1} + x_t, where h passes through the product with w_h = 1."""
    return jl.RNN(1, 1, "linear", **options), jl.RNNParams([[1]], [[1]], [0])


def lstm(**options):
    """c_t = c_{t−1} + x_t and h_t = c_t: the gates i and o are 1, and f is left out."""
    activations = dict.fromkeys(("gate_activation", "cell_activation", "output_activation"), "linear")
    cell = jl.LSTM(1, 1, without="forget_gate", **activations, **options)
    return cell, jl.LSTMParams([[0, 1, 0]], [[0, 0, 0]], [1, 0, 1])


@pytest.mark.parametrize(
    ("counter", "in_bfloat16", "rounded_operands"), [(lstm, 256, 1000), (rnn, 256, 257)], ids=["LSTM", "RNN"]
)
def test_bfloat16_counts_to_256_and_compute_dtype_keeps_c(counter, in_bfloat16, rounded_operands):
    """An RNN's h is an operand of the product with w_h, so there compute_dtype rounds it at every step."""
    assert last(counter(), jnp.bfloat16) == in_bfloat16
    assert last(counter(), jnp.float32) == 1000
    assert last(counter(compute_dtype="bfloat16"), jnp.float32) == rounded_operands


@pytest.mark.parametrize("kind", [jl.LSTM, jl.RNN, jl.GRU, jl.JANET, jl.SLSTM, jl.MinLSTM, jl.MinGRU])
def test_the_docstring_says_where_bfloat16_stops(kind):
    _, _, about = (kind.__doc__ or "").partition("compute_dtype:")
    assert "256" in about.partition("None: no rounding.")[2]
