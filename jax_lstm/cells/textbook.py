"""The plain LSTM as the textbook writes it: one matrix W (H, H + I) and one bias a gate, acting on the column [h, x].

    z_f = W_f [h_{t−1}, x_t] + b_f, and so on

Here the same weights stand side by side, transposed: w_x (I, 4H), w_h (H, 4H), b (4H).
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jax_lstm.cells import door
from jax_lstm.cells.lstm import LSTM, LSTMParams


class TextbookParams(NamedTuple):
    """One matrix and one bias a gate, acting on the column [h, x]: z_f = W_f [h, x] + b_f, and so on."""

    W_f: Float[Array, "H H+I"]
    W_i: Float[Array, "H H+I"]
    W_C: Float[Array, "H H+I"]
    W_o: Float[Array, "H H+I"]
    b_f: Float[Array, " H"]
    b_i: Float[Array, " H"]
    b_C: Float[Array, " H"]
    b_o: Float[Array, " H"]


def cell_for(where: str, params: Any) -> LSTM:
    """The plain LSTM whose sizes these params have."""
    if not isinstance(params, LSTMParams):
        raise TypeError(
            f"{where}: params must be LSTMParams(w_x, w_h, b), but is a {type(params).__name__}; "
            f"for another cell call jl.unroll(cell, params, ...)"
        )
    w_x, w_h, b = (door.array(where, f"params.{n}", a) for n, a in zip(params._fields, params, strict=True))
    if w_h.ndim != 2 or w_h.shape[1] != 4 * w_h.shape[0]:
        raise ValueError(f"{where}: params.w_h must have shape (H, 4H), but has {w_h.shape}")
    if w_x.ndim != 2 or w_x.shape[1] != w_h.shape[1]:
        raise ValueError(f"{where}: params.w_x must have shape (I, {w_h.shape[1]}), but has {w_x.shape}")
    if b.shape != (w_h.shape[1],):
        raise ValueError(f"{where}: params.b must have shape {(w_h.shape[1],)}, but has {b.shape}")
    return LSTM(w_x.shape[0], w_h.shape[0])


def to_textbook(params: LSTMParams) -> TextbookParams:
    """The same weights as one matrix W (H, H + I) and one bias (H,) a gate, acting on the column [h, x]."""
    cell_for("to_textbook", params)
    W = jnp.concatenate([params.w_h, params.w_x]).T
    W_i, W_f, W_C, W_o = jnp.split(W, 4)
    b_i, b_f, b_C, b_o = jnp.split(jnp.asarray(params.b), 4)
    return TextbookParams(W_f, W_i, W_C, W_o, b_f, b_i, b_C, b_o)


def from_textbook(textbook: TextbookParams) -> LSTMParams:
    """LSTMParams from the textbook's matrices; the inverse of `to_textbook`, bit for bit.

    Raises:
        ValueError: matrices that are not all (H, H + I), or biases that are not all (H,).
        TypeError: no TextbookParams.
    """
    if not isinstance(textbook, TextbookParams):
        raise TypeError(f"from_textbook: textbook must be TextbookParams, but is a {type(textbook).__name__}")
    t = TextbookParams(*(door.array("from_textbook", n, a) for n, a in zip(textbook._fields, textbook, strict=True)))
    H = t.b_f.shape[0] if t.b_f.ndim == 1 else 0
    for name, a in zip(t._fields, t, strict=True):
        wide = a.ndim == 2 and a.shape == t.W_f.shape and a.shape[0] == H < a.shape[1]
        if not (wide if name.startswith("W") else a.shape == (H,)):
            raise ValueError(
                f"from_textbook: {name} has shape {a.shape}; W_* must all be (H, H + I) and b_* (H,), "
                f"as W_f {t.W_f.shape} and b_f {t.b_f.shape} say"
            )
    w = jnp.concatenate([t.W_i, t.W_f, t.W_C, t.W_o]).T
    return LSTMParams(w_x=w[H:], w_h=w[:H], b=jnp.concatenate([t.b_i, t.b_f, t.b_C, t.b_o]))
