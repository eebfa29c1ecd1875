"""The minimal LSTM (minLSTM; Feng, Tung, Hassan Ahmed, Bengio & Hajimirsadeghi 2024): its gates read the input only.

    [z_f, z_i, z_g] = x_t w_x + b
    f = σ(z_f)    i = σ(z_i)
    h_t = f/(f + i) ⊙ h_{t−1} + i/(f + i) ⊙ z_g

It is linear in h, so ∂h_T/∂h_k is a product of gates that depend on the inputs and not on the state. With factors
between 0 and 1 it cannot compute the parity of a sequence of bits (Grazzi et al. 2024). The library has it for
comparison with cells whose gates read h.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jax_lstm import checks, gates
from jax_lstm.cells.initializers import draw_per_gate, lecun_normal
from jax_lstm.cells.linear import LinearRecurrentCell


class MinLSTMParams(NamedTuple):
    """Weights of a `MinLSTM`; gates and candidate are side by side in the order f, i, g.

    w_x: (I, 3H), multiplies the input.
    b: (3H,), added.
    """

    w_x: Float[Array, "I 3*H"]
    b: Float[Array, " 3*H"]


class MinLSTMState(NamedTuple):
    """State of a `MinLSTM`: h (H,), which is also its output."""

    h: Float[Array, " H"]


class MinLSTMPreactivation(NamedTuple):
    """What the loop of a `MinLSTM` reads of an input: ln f − ln i, and z_g, the candidate; each (H,)."""

    log_ratio: Float[Array, " H"]
    g: Float[Array, " H"]


@dataclass(frozen=True)
class MinLSTM(LinearRecurrentCell):
    """Minimal LSTM (minLSTM) cell: the gates read the input only, so a step is linear in h (Feng et al. 2024).

    One step::

        [z_f, z_i, z_g] = x_t w_x + b
        f = σ(z_f)    i = σ(z_i)
        h_t = f/(f + i) ⊙ h_{t−1} + i/(f + i) ⊙ z_g

    x_t (I,) is the input, h_t (H,) the output and the state. f is the forget gate, i the input gate, z_g the candidate
    for h. σ is the sigmoid, ⊙ the elementwise product. The columns of w_x and b are in the order f, i, g, H columns
    each.
    There are no recurrent weights. `unroll(..., engine="associative")` runs the cell as a parallel prefix over time.

    The cell holds options only. Its weights are a `MinLSTMParams`, its state a `MinLSTMState`.

    Args:
        input_size: I, the number of features of x.
        hidden_size: H, the number of units, and of features of h.
        compute_dtype: dtype that the operands of matrix products are rounded to, such as "bfloat16". Sums, gates and
            state keep the params' dtype. None: no rounding. Prefer it to bfloat16 params: a bfloat16 state to which
            every step adds 1 stops at 256.

    Raises:
        ValueError: a field is out of range; the message names it.
        TypeError: a field has a wrong type; the message names it.
    """

    input_size: int
    hidden_size: int
    compute_dtype: str | None = None

    state_type = MinLSTMState

    def __post_init__(self):
        checks.check_fields(self)

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> MinLSTMParams:
        """Draw the weights: w_x LeCun normal per gate, b zero.

        Args:
            key: one random key, for example `jax.random.key(0)`. Do not reuse it.
            dtype: floating dtype of every leaf, float32 by default. Values are drawn in float32 or wider, then cast.

        Returns:
            MinLSTMParams(w_x (I, 3H), b (3H,)).

        Raises:
            TypeError: key is not a random key, or dtype is not floating.
        """
        key, dtype = checks.check_key("MinLSTM.init", key), checks.float_dtype("MinLSTM.init", "dtype", dtype)
        return MinLSTMParams(
            w_x=draw_per_gate(lecun_normal, key, 3, (self.input_size, self.hidden_size), dtype),
            b=jnp.zeros(3 * self.hidden_size, dtype),
        )

    def initial_state(self, params: MinLSTMParams) -> MinLSTMState:
        """The state before the first step: h = 0.

        Args:
            params: what `init` returns; only the dtype is read.

        Returns:
            MinLSTMState(h), h (H,).
        """
        return MinLSTMState(jnp.zeros(self.hidden_size, params.w_x.dtype))

    def project(self, params: MinLSTMParams, x: Float[Array, " I"]) -> MinLSTMPreactivation:
        """ln f − ln i and z_g, each (H,), from one x (I,). The loop computes the rest of a step: σ of the first."""
        z_f, z_i, z_g = jnp.split(super().project(params, x) + params.b, 3)
        return MinLSTMPreactivation(gates.log_ratio(z_f, z_i), z_g)

    def update(self, params: MinLSTMParams, state: MinLSTMState, z: MinLSTMPreactivation) -> MinLSTMState:
        """The next state: h_t = a ⊙ h_{t−1} + (1 − a) ⊙ z_g, with a = f/(f + i) = σ(ln f − ln i)."""
        a = jax.nn.sigmoid(z.log_ratio)
        return MinLSTMState(gates.linear_state(state.h, a, (1 - a) * z.g))

    def affine(self, params: MinLSTMParams, x: Float[Array, " I"]) -> tuple[MinLSTMState, MinLSTMState]:
        """The coefficients of the step h_t = a ⊙ h_{t−1} + b for one input x (I,): (a, b), each a state with h (H,)."""
        a, b = self.coefficients(super().project(params, x) + params.b)
        return MinLSTMState(a), MinLSTMState(b)

    def coefficients(self, z: Float[Array, " Z"]) -> tuple[Float[Array, " H"], Float[Array, " H"]]:
        """The coefficients of one step, each (H,): f/(f + i) and i/(f + i) ⊙ z_g, from the pre-activations (3H,)."""
        return gates.min_lstm_coefficients(*jnp.split(z, 3))
