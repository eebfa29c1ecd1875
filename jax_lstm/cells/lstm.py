"""The LSTM cell (Hochreiter & Schmidhuber 1997, with the forget gate of Gers, Schmidhuber & Cummins 2000).

    [z_i, z_f, z_g, z_o] = x_t w_x + h_{t−1} w_h + b
    i = σ(z_i)    f = σ(z_f)    g = tanh(z_g)    o = σ(z_o)
    c_t = f ⊙ c_{t−1} + i ⊙ g
    h_t = o ⊙ tanh(c_t)

Gates stand in the order i, f, g, o; weights are (in, out). The textbook writes the same with one matrix a gate,
W (H, H + I) acting on the column [h, x]: `to_textbook` and `from_textbook` go between the two.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jax_lstm import gates
from jax_lstm.cells import door
from jax_lstm.cells.affine import AffineCell
from jax_lstm.cells.base import check_fields, zeros
from jax_lstm.cells.weights import at_least_float32, draw_per_gate, lecun_normal, orthogonal
from jax_lstm.gates import Gates


class LSTMParams(NamedTuple):
    """w_x acts on the input, w_h on h, b is added: gates side by side in the order i, f, g, o."""

    w_x: Float[Array, "I 4*H"]
    w_h: Float[Array, "H 4*H"]
    b: Float[Array, " 4*H"]


class LSTMState(NamedTuple):
    """The output h and the cell state c."""

    h: Float[Array, " H"]
    c: Float[Array, " H"]


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


@jax.tree_util.register_static
@dataclass(frozen=True)
class LSTM(AffineCell):
    """The LSTM: choices only; its arrays are in LSTMParams.

    Args:
        input_size: I, the number of features of x.
        hidden_size: H, the number of units.
        forget_bias: what b_f starts at, added once, by `init`. 1 if neither this nor `chrono` is given.
        chrono: T_max, the longest dependency in steps: b_f = log U(1, T_max − 1) and b_i = −b_f, so that the units'
            memories spread over 1 to T_max steps (Tallec & Ollivier 2018). Instead of `forget_bias`.
        compute_dtype: round products' operands to this ("bfloat16"); gates, sums and state keep the params' dtype.

    Raises:
        ValueError, TypeError: a field out of range or of another type; the message names it.
    """

    input_size: int
    hidden_size: int
    forget_bias: float | int | None = None
    chrono: float | int | None = None
    compute_dtype: str | None = None

    def __post_init__(self):
        check_fields(self)
        if self.chrono is None:
            b_f = 1.0 if self.forget_bias is None else door.number("LSTM", "forget_bias", self.forget_bias)
            object.__setattr__(self, "forget_bias", b_f)
            return
        if self.forget_bias is not None:
            raise ValueError(
                f"LSTM: chrono sets the forget bias itself, but forget_bias={self.forget_bias} came with it; "
                "give one, and None for the other"
            )
        chrono = door.number("LSTM", "chrono", self.chrono)
        if chrono <= 2:
            raise ValueError(f"LSTM: chrono must be longer than 2 steps, but is {chrono}")
        object.__setattr__(self, "chrono", chrono)

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> LSTMParams:
        """w_x LeCun normal and w_h orthogonal, each a gate at a time; b zero but for the forget bias.

        Args:
            key: one random key; consumed.
            dtype: of every leaf. Numbers are drawn in float32 or wider, then cast.

        Raises:
            TypeError: key is no key, or dtype is not floating.
        """
        key, dtype = door.prng_key("LSTM.init", key), door.float_dtype("LSTM.init", "dtype", dtype)
        H = self.hidden_size
        key_x, key_h, key_b = jax.random.split(key, 3)
        zero = jnp.zeros(H, dtype)
        if self.chrono is None:
            b_i, b_f = zero, jnp.full_like(zero, self.forget_bias or 0.0)
        else:
            wide = at_least_float32(dtype)
            b_f = jnp.log(jax.random.uniform(key_b, (H,), wide, 1.0, self.chrono - 1.0)).astype(dtype)
            b_i = -b_f
        return LSTMParams(
            w_x=draw_per_gate(lecun_normal, key_x, 4, (self.input_size, H), dtype),
            w_h=draw_per_gate(orthogonal, key_h, 4, (H, H), dtype),
            b=jnp.concatenate([b_i, b_f, zero, zero]),
        )

    def initial_state(self, params: LSTMParams, like: Array | None = None) -> LSTMState:
        """h = c = 0, shape (H,); with `like` (*B, T, I), shape (*B, H), on devices as `like`'s leading axes are."""
        H, dtype = self.hidden_size, params.w_h.dtype
        return LSTMState(h=zeros(H, dtype, like), c=zeros(H, dtype, like))  # two arrays: each may be donated

    def update(self, params: LSTMParams, state: LSTMState, zx: Float[Array, " Z"], zh: Float[Array, " Z"]) -> LSTMState:
        """(h_t, c_t) from the gates of z = zx + zh + b."""
        return LSTMState(*gates.lstm_state(state.c, _gates(zx + zh + params.b)))

    def linearise(
        self, params: LSTMParams, state: LSTMState, z: Float[Array, " Z"]
    ) -> tuple[LSTMState, tuple[Array, Gates]]:
        """(h_t, c_t) from z = zx + zh, without b yet; its derivative hangs on c_{t−1} and the gates."""
        ifgo = _gates(z + params.b)
        return LSTMState(*gates.lstm_state(state.c, ifgo)), (state.c, ifgo)

    def along(self, at: tuple[Array, Gates], dstate: LSTMState, dz: Float[Array, " Z"]) -> LSTMState:
        """(dh_t, dc_t) from dc_{t−1} and dz; dh_{t−1} acts through dz alone."""
        return LSTMState(*gates.lstm_along(*at, dstate.c, Gates(*jnp.split(dz, 4))))

    def gates(self, params: LSTMParams, state: LSTMState, x: Float[Array, " I"]) -> Gates:
        """i, f, g, o of one step, from the state before it."""
        return _gates(self.project(params, x) + self.recur(params, state) + params.b)


def _gates(z: Float[Array, " Z"]) -> Gates:
    return gates.lstm_gates(Gates(*jnp.split(z, 4)))


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
