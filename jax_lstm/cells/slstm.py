"""The sLSTM, the scalar-memory cell of xLSTM (Beck et al. 2024, "xLSTM: Extended Long Short-Term Memory").

    [z_i, z_f, z_g, z_o] = x_t w_x + h_{t−1} w_h + b
    i = exp(z_i)    f = σ(z_f) or exp(z_f)    g = tanh(z_g)    o = σ(z_o)
    m_t = max(ln f + m_{t−1}, z_i)
    i' = exp(z_i − m_t)    f' = exp(ln f + m_{t−1} − m_t)
    c_t = f' ⊙ c_{t−1} + i' ⊙ g
    n_t = f' ⊙ n_{t−1} + i'
    h_t = o ⊙ c_t / n_t

c_t / n_t is a weighted mean of all g up to step t. Its weights are products of gates. The stabilizer m keeps these from
overflowing, and cancels in the mean. One of i' and f' is 1, so n_t ≥ 1 from the first step on. The paper calls g z.

w_h is block-diagonal: a unit reads only the units of its own head. The gates are in the order i, f, g, o.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from jax_lstm import checks, gates
from jax_lstm.cell import SplitCell
from jax_lstm.cells.initializers import draw_per_gate, full, lecun_normal, orthogonal
from jax_lstm.cells.linear import bounded, product
from jax_lstm.gates import LOG_FORGET, Gates


class SLSTMParams(NamedTuple):
    """Weights of an `SLSTM`; the gates are side by side in the order i, f, g, o.

    w_x: (I, 4H), multiplies the input.
    w_h: (heads, n, 4n), n = H / heads; w_h[k] multiplies the units k n to (k + 1) n of h, which are head k.
    b: (4H,), added.
    """

    w_x: Float[Array, "I 4*H"]
    w_h: Float[Array, "heads n 4*n"]
    b: Float[Array, " 4*H"]


class SLSTMState(NamedTuple):
    """State of an `SLSTM`.

    h: (H,), the output.
    c: (H,), the cell state, divided by exp(m).
    n: (H,), the normalizer, divided by exp(m).
    m: (H,), the stabilizer: the logarithm of the factor that c and n are divided by.
    """

    h: Float[Array, " H"]
    c: Float[Array, " H"]
    n: Float[Array, " H"]
    m: Float[Array, " H"]


@dataclass(frozen=True)
class SLSTM(SplitCell):
    """sLSTM cell, the scalar-memory cell of xLSTM, with exponential gates (Beck et al. 2024).

    One step::

        [z_i, z_f, z_g, z_o] = x_t w_x + h_{t−1} w_h + b
        i = exp(z_i)    f = σ(z_f) or exp(z_f)    g = tanh(z_g)    o = σ(z_o)
        m_t = max(ln f + m_{t−1}, z_i)
        i' = exp(z_i − m_t)    f' = exp(ln f + m_{t−1} − m_t)
        c_t = f' ⊙ c_{t−1} + i' ⊙ g
        n_t = f' ⊙ n_{t−1} + i'
        h_t = o ⊙ c_t / n_t

    x_t (I,) is the input, h_t (H,) the output. c_t is the cell state and n_t its normalizer, both divided by exp(m_t).
    m_t keeps the exponentials from overflowing. i is the input gate, f the forget gate, o the output gate, and g the
    candidate for c. σ is the sigmoid, ⊙ the elementwise product. w_x and b have H columns each for i, f, g, o, in that
    order. w_h is block-diagonal: a unit reads only the units of its own head.

    The cell holds options only. Its weights are an `SLSTMParams`, its state an `SLSTMState`.

    Args:
        input_size: I, the number of features of x.
        hidden_size: H, the number of units, and of features of h.
        heads: the number of diagonal blocks of w_h; it must divide H.
        forget_gate: the function of z_f that gives f: "sigmoid", or "exp", which can exceed 1.
        forget_bias: initial value of b_f. The default is 1 for "sigmoid", and 0 for "exp", where f then starts near 1.
        compute_dtype: dtype that the operands of matrix products are rounded to, such as "bfloat16". Sums, gates and
            state keep the params' dtype. None: no rounding. Prefer it to bfloat16 params: a bfloat16 state to which
            every step adds 1 stops at 256.

    Raises:
        ValueError: a field is out of range; the message names it.
        TypeError: a field has a wrong type; the message names it.
    """

    input_size: int
    hidden_size: int
    heads: int = 1
    forget_gate: str = "sigmoid"
    forget_bias: float | int | None = None
    compute_dtype: str | None = None

    def __post_init__(self):
        checks.check_fields(self)
        object.__setattr__(self, "heads", checks.positive_int("SLSTM", "heads", self.heads))
        if self.hidden_size % self.heads:
            raise ValueError(
                f"SLSTM: heads must divide hidden_size, but heads is {self.heads} and hidden_size {self.hidden_size}"
            )
        forget_gate = checks.one_of("SLSTM", "forget_gate", self.forget_gate, tuple(LOG_FORGET))
        usual = 1.0 if forget_gate == "sigmoid" else 0.0
        b_f = usual if self.forget_bias is None else checks.finite_number("SLSTM", "forget_bias", self.forget_bias)
        object.__setattr__(self, "forget_bias", b_f)

    def init(self, key: Array, dtype: DTypeLike = jnp.float32, *, forget_bias: ArrayLike | None = None) -> SLSTMParams:
        """Draw the weights: w_x LeCun normal per gate, w_h orthogonal per gate and head, b zero except for b_f.

        Args:
            key: one random key, for example `jax.random.key(0)`. Do not reuse it.
            dtype: floating dtype of every leaf, float32 by default. Values are drawn in float32 or wider, then cast.
            forget_bias: b_f for this draw, in place of the field `forget_bias`: a number, or an array of shape () or
                (H,), which may be traced. None: the field.

        Returns:
            SLSTMParams(w_x (I, 4H), w_h (heads, n, 4n), b (4H,)), n = H / heads.

        Raises:
            ValueError: `forget_bias` is not finite or has a wrong shape.
            TypeError: key is not a random key, dtype is not floating, or `forget_bias` is not a number.
        """
        key, dtype = checks.check_key("SLSTM.init", key), checks.float_dtype("SLSTM.init", "dtype", dtype)
        H, n = self.hidden_size, self.hidden_size // self.heads
        key_x, key_h = jax.random.split(key)
        b_f = self.forget_bias
        if forget_bias is not None:
            b_f = checks.number_or_array("SLSTM.init", "forget_bias", forget_bias, (H,))
        zero = jnp.zeros(H, dtype)
        draw = jax.vmap(lambda key: draw_per_gate(orthogonal, key, 1, (n, n), dtype))
        blocks = draw(jax.random.split(key_h, self.heads * 4)).reshape(self.heads, 4, n, n)
        return SLSTMParams(
            w_x=draw_per_gate(lecun_normal, key_x, 4, (self.input_size, H), dtype),
            w_h=blocks.swapaxes(1, 2).reshape(self.heads, n, 4 * n),
            b=jnp.concatenate([zero, full("init", "forget_bias", b_f, H, dtype), zero, zero]),
        )

    def initial_state(self, params: SLSTMParams) -> SLSTMState:
        """The state before the first step: h = c = n = 0, and m so low that f' = 0 and i' = 1 in the first step.

        Args:
            params: what `init` returns; only the dtype is read.

        Returns:
            SLSTMState(h, c, n, m), each (H,).
        """
        H, dtype = self.hidden_size, params.w_x.dtype
        h, c, n, m = (jnp.zeros(H, dtype) for _ in SLSTMState._fields)  # four arrays: each may be donated
        return SLSTMState(h, c, n, m - 2 * gates.slstm_limit(dtype))

    def project(self, params: SLSTMParams, x: Float[Array, " I"]) -> Gates:
        """The input's part of the pre-activation: x w_x, one leaf (H,) per gate, from x (I,)."""
        x = bounded(x, params.w_x.dtype)
        return Gates(*jnp.split(product(x, params.w_x, self.compute_dtype), 4))

    def recur(self, params: SLSTMParams, state: SLSTMState) -> Gates:
        """The state's part of the pre-activation: h w_h, head by head, one leaf (H,) per gate."""
        by_head = jax.vmap(partial(product, compute_dtype=self.compute_dtype))
        zh = by_head(state.h.reshape(self.heads, -1), params.w_h)
        return Gates(*(z.reshape(-1) for z in jnp.split(zh, 4, axis=1)))

    def update(self, params: SLSTMParams, state: SLSTMState, z: Gates) -> SLSTMState:
        """The next state (h_t, c_t, n_t, m_t); b is added to z here."""
        z = Gates(*(a + b for a, b in zip(z, jnp.split(params.b, 4), strict=True)))
        return SLSTMState(*gates.slstm_state(state.c, state.n, state.m, z, self.forget_gate))
