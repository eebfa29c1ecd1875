"""The plain LSTM's weights in textbook form: one matrix W (H, H + I) and one bias (H,) per gate.

    z_k = W_k [h_{t−1}, x_t] + b_k for each gate k = f, i, C, o

The library keeps the same weights transposed and side by side, in the order i, f, g (= C), o: w_x (I, 4H), w_h (H, 4H),
b (4H,).
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jax_lstm import checks
from jax_lstm.cells.lstm import LSTMParams, cell_of


class TextbookParams(NamedTuple):
    """The plain LSTM's weights in textbook form: z_k = W_k [h, x] + b_k for k = f, i, C, o.

    W_f, W_i, W_C, W_o: (H, H + I), multiply the column vector [h, x].
    b_f, b_i, b_C, b_o: (H,), added.

    f is the forget gate, i the input gate, C the candidate (g in `LSTM`), o the output gate.
    """

    W_f: Float[Array, "H H+I"]
    W_i: Float[Array, "H H+I"]
    W_C: Float[Array, "H H+I"]
    W_o: Float[Array, "H H+I"]
    b_f: Float[Array, " H"]
    b_i: Float[Array, " H"]
    b_C: Float[Array, " H"]
    b_o: Float[Array, " H"]


def to_textbook(params: LSTMParams) -> TextbookParams:
    """Convert the plain LSTM's weights to textbook form: one matrix and one bias per gate, z_f = W_f [h, x] + b_f.

    Args:
        params: LSTMParams(w_x (I, 4H), w_h (H, 4H), b (4H,)).

    Returns:
        TextbookParams: four matrices (H, H + I) and four biases (H,).

    Raises:
        ValueError: the shapes of params do not fit each other.
        TypeError: params is not an LSTMParams of arrays.
    """
    cell_of("to_textbook", params)
    W = jnp.concatenate([params.w_h, params.w_x]).T
    W_i, W_f, W_C, W_o = jnp.split(W, 4)
    b_i, b_f, b_C, b_o = jnp.split(jnp.asarray(params.b), 4)
    return TextbookParams(W_f, W_i, W_C, W_o, b_f, b_i, b_C, b_o)


def from_textbook(textbook: TextbookParams) -> LSTMParams:
    """Convert textbook weights to the plain LSTM's params; the inverse of `to_textbook`, bit for bit.

    Args:
        textbook: TextbookParams: four matrices (H, H + I) and four biases (H,).

    Returns:
        LSTMParams(w_x (I, 4H), w_h (H, 4H), b (4H,)).

    Raises:
        ValueError: not all matrices are (H, H + I), or not all biases are (H,).
        TypeError: textbook is not a TextbookParams of arrays.
    """
    if not isinstance(textbook, TextbookParams):
        raise TypeError(f"from_textbook: textbook must be TextbookParams, but is a {type(textbook).__name__}")
    t = TextbookParams(
        *(checks.as_array("from_textbook", n, a) for n, a in zip(textbook._fields, textbook, strict=True))
    )
    H = t.b_f.shape[0] if t.b_f.ndim == 1 else 0
    for name, a in zip(t._fields, t, strict=True):
        wide = a.ndim == 2 and a.shape == t.W_f.shape and a.shape[0] == H < a.shape[1]
        if not (wide if name.startswith("W") else a.shape == (H,)):
            raise ValueError(
                f"from_textbook: {name} has shape {a.shape}, but every W_* must be (H, H + I) and every b_* (H,), "
                f"with the sizes of W_f {t.W_f.shape} and b_f {t.b_f.shape}"
            )
    w = jnp.concatenate([t.W_i, t.W_f, t.W_C, t.W_o]).T
    return LSTMParams(w_x=w[H:], w_h=w[:H], b=jnp.concatenate([t.b_i, t.b_f, t.b_C, t.b_o]))
