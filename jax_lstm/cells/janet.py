"""JANET (van der Westhuizen & Lasenby 2018, "The unreasonable effectiveness of the forget gate").

    [z_f, z_g] = x_t w_x + h_{t−1} w_h + b
    g = tanh(z_g)
    h_t = σ(z_f) ⊙ h_{t−1} + (1 − σ(z_f − β)) ⊙ g

An LSTM with a forget gate only. With β = 0, h_t is a weighted mean of h_{t−1} and g; β > 0 raises the weight of g. The
paper uses β = 1, and draws b_f as `chrono` does. |h| stays below e^β.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from jax_lstm import checks, gates
from jax_lstm.cells.initializers import draw_per_gate, forget_biases, forget_choice, lecun_normal, orthogonal
from jax_lstm.cells.linear import PreactivationCell


class JANETParams(NamedTuple):
    """Weights of a `JANET`; forget gate and candidate are side by side in the order f, g.

    w_x: (I, 2H), multiplies the input.
    w_h: (H, 2H), multiplies h.
    b: (2H,), added.
    """

    w_x: Float[Array, "I 2*H"]
    w_h: Float[Array, "H 2*H"]
    b: Float[Array, " 2*H"]


class JANETState(NamedTuple):
    """State of a `JANET`: h (H,), which is also its output."""

    h: Float[Array, " H"]


@dataclass(frozen=True)
class JANET(PreactivationCell):
    """JANET cell: an LSTM with a forget gate only (van der Westhuizen & Lasenby 2018).

    One step::

        [z_f, z_g] = x_t w_x + h_{t−1} w_h + b
        g = tanh(z_g)
        h_t = σ(z_f) ⊙ h_{t−1} + (1 − σ(z_f − β)) ⊙ g

    x_t (I,) is the input, h_t (H,) the output and the state. σ(z_f) is the forget gate, g the candidate for h. σ is the
    sigmoid, ⊙ the elementwise product. The columns of w_x, w_h and b are in the order f, g, H columns each.

    The cell holds options only. Its weights are a `JANETParams`, its state a `JANETState`.

    Args:
        input_size: I, the number of features of x.
        hidden_size: H, the number of units, and of features of h.
        beta: β. The larger it is, the larger is the weight 1 − σ(z_f − β) of the candidate g.
        forget_bias: initial value of b_f. The default is 1 unless `chrono` is given.
        chrono: T_max, the longest dependency in time steps, above 2. For each unit `init` draws u uniformly from
            (1, T_max − 1), and sets b_f = log u. The units' time constants then spread over 1 to T_max steps (Tallec &
            Ollivier 2018). You cannot set both `chrono` and `forget_bias`.
        compute_dtype: dtype that the operands of matrix products are rounded to, such as "bfloat16". Sums, gates and
            state keep the params' dtype. None: no rounding. Prefer it to bfloat16 params: a bfloat16 state to which
            every step adds 1 stops at 256.

    Raises:
        ValueError: a field is out of range; the message names it.
        TypeError: a field has a wrong type; the message names it.
    """

    input_size: int
    hidden_size: int
    beta: float | int = 1.0
    forget_bias: float | int | None = None
    chrono: float | int | None = None
    compute_dtype: str | None = None

    def __post_init__(self):
        checks.check_fields(self)
        forget_bias, chrono = checks.check_forget_bias("JANET", self.forget_bias, self.chrono)
        object.__setattr__(self, "beta", checks.finite_number("JANET", "beta", self.beta))
        object.__setattr__(self, "forget_bias", forget_bias)
        object.__setattr__(self, "chrono", chrono)

    def init(
        self, key: Array, dtype: DTypeLike = jnp.float32, *,
        forget_bias: ArrayLike | None = None, chrono: ArrayLike | None = None,
    ) -> JANETParams:  # fmt: skip
        """Draw the weights: per gate w_x LeCun normal and w_h orthogonal; b_f from `forget_bias` or `chrono`, b_g zero.

        Args:
            key: one random key, for example `jax.random.key(0)`. Do not reuse it.
            dtype: floating dtype of every leaf, float32 by default. Values are drawn in float32 or wider, then cast.
            forget_bias: b_f for this draw, in place of the fields `forget_bias` and `chrono`: a number, or an array of
                shape () or (H,), which may be traced. None: as the fields say.
            chrono: T_max for this draw, in place of both fields; a number or an array as for `forget_bias`, above 2
                (not checked if traced).

        Returns:
            JANETParams(w_x (I, 2H), w_h (H, 2H), b (2H,)).

        Raises:
            ValueError: `forget_bias` or `chrono` is out of range or has a wrong shape; or both are given.
            TypeError: key is not a random key, dtype is not floating, or `forget_bias` or `chrono` is not a number.
        """
        key, dtype = checks.check_key("JANET.init", key), checks.float_dtype("JANET.init", "dtype", dtype)
        H = self.hidden_size
        key_x, key_h, key_b = jax.random.split(key, 3)
        given = forget_choice("JANET.init", H, (forget_bias, chrono), (self.forget_bias, self.chrono))
        b_f = forget_biases(key_b, H, dtype, *given)
        return JANETParams(
            w_x=draw_per_gate(lecun_normal, key_x, 2, (self.input_size, H), dtype),
            w_h=draw_per_gate(orthogonal, key_h, 2, (H, H), dtype),
            b=jnp.concatenate([b_f, jnp.zeros_like(b_f)]),
        )

    def initial_state(self, params: JANETParams) -> JANETState:
        """The state before the first step: h = 0.

        Args:
            params: what `init` returns; only the dtype is read.

        Returns:
            JANETState(h), h (H,).
        """
        return JANETState(jnp.zeros(self.hidden_size, params.w_h.dtype))

    def update(self, params: JANETParams, state: JANETState, z: Float[Array, " Z"]) -> JANETState:
        """The next state h_t; b is added to z here, which is (2H,)."""
        return JANETState(gates.janet_state(state.h, *self._gates(z + params.b)))

    def _gates(self, z: Float[Array, " Z"]) -> tuple[Float[Array, " H"], Float[Array, " H"], Float[Array, " H"]]:
        z_f, z_g = jnp.split(z, 2)
        return gates.janet_gates(z_f, z_g, self.beta)
