"""The weights of one cell in one direction as the inputs W, R, B and P of ONNX's nodes, both ways.

ONNX's matrices are (gates, features), the transpose of ours. It adds two biases, Wb and Rb, where this library adds
one, and calls the candidate of the LSTM c, that of the GRU h:

    W (n H, I)    w_xᵀ        LSTM: gates i, o, f, c    GRU: z, r, h
    R (n H, H)    w_hᵀ
    B (2 n H,)    [Wb, Rb]    b = Wb + Rb; for n of a GRU with `reset_after` b = Wb and b_hn = Rb, which r multiplies
    P (3 H,)      p           gates i, o, f

`pack` writes b as Wb, and −0 as Rb, so that the sum is b, bit for bit.

Coupled gates: with input_forget=1, ONNX computes i = σ(z_i) and f = 1 − i; here it is i = 1 − f. Since σ(−z) = 1 − σ(z)
for sigmoid and hard_sigmoid, `pack` writes −z_f as z_i: the weights of i are those of f, negated. ONNX ignores those of
f; `pack` writes ours there.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jax_lstm.cells.gru import GRU, GRUParams
from jax_lstm.cells.lstm import LSTM, LSTMParams, LSTMVariantParams
from jax_lstm.cells.rnn import RNN, RNNParams
from jax_lstm.interop.parts import reordered

# The gates of each cell, first in our order, then in that of ONNX.
GATES: dict[type, tuple[str, str]] = {LSTM: ("ifgo", "iofg"), GRU: ("rzn", "zrn"), RNN: ("h", "h")}
PEEPHOLES = ("ifo", "iof")


def pack(cell: Any, params: Any) -> dict[str, np.ndarray]:
    """ONNX's W, R and B, and P with peepholes, from the params of an LSTM, GRU or RNN as NumPy arrays."""
    gates = GATES[type(cell)]
    Wb = _there(cell, params.b, gates)
    Rb = np.full_like(Wb, -0.0)
    if isinstance(cell, GRU) and cell.reset_after:
        Rb[2 * cell.hidden_size :] = params.b_hn
    packed = {
        "W": _there(cell, params.w_x.T, gates),
        "R": _there(cell, params.w_h.T, gates),
        "B": np.concatenate([Wb, Rb]),
    }
    if getattr(cell, "peephole", False):
        packed["P"] = _there(cell, params.p.reshape(-1), PEEPHOLES)
    return packed


def unpack(cell: Any, packed: Mapping[str, Any]) -> Any:
    """The params of a cell from ONNX's W, R and B, and P with peepholes; the inverse of `pack`."""
    gates = GATES[type(cell)]
    w_x, w_h = (_here(cell, packed[name], gates).T for name in "WR")
    Wb, Rb = np.split(packed["B"], 2)
    b: Any = Wb + Rb
    b_hn: Any = None
    if isinstance(cell, GRU) and cell.reset_after:
        n = 2 * cell.hidden_size
        b, b_hn = np.concatenate([b[:n], Wb[n:]]), Rb[n:]
    b = _here(cell, b, gates)
    if isinstance(cell, RNN):
        return RNNParams(w_x, w_h, b)
    if isinstance(cell, GRU):
        return GRUParams(w_x, w_h, b, b_hn)
    if not cell.peephole:
        return LSTMParams(w_x, w_h, b)
    return LSTMVariantParams(w_x, w_h, b, p=_here(cell, packed["P"], PEEPHOLES).reshape(-1, cell.hidden_size))


def _there(cell: Any, array: np.ndarray, gates: tuple[str, str]) -> np.ndarray:
    """The gates along the first axis in ONNX's order; i = 1 − f of a coupled cell is added."""
    if getattr(cell, "coupled", False):
        array = np.concatenate([-array[: cell.hidden_size], array])
    return reordered(array, *gates)


def _here(cell: Any, array: Any, gates: tuple[str, str]) -> Any:
    """The inverse of `_there`. Of a coupled cell ONNX runs the weights of i, so those are read."""
    array = reordered(array, *gates[::-1])
    if not getattr(cell, "coupled", False):
        return array
    i, _, *rest = np.split(array, len(gates[0]))
    return np.concatenate([-i, *rest])
