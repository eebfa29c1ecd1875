"""The minimal GRU (minGRU; Feng, Tung, Hassan Ahmed, Bengio & Hajimirsadeghi 2024): its gate reads the input only.

    [z_z, z_g] = x_t w_x + b
    z = σ(z_z)
    h_t = (1 − z) ⊙ h_{t−1} + z ⊙ z_g

It is linear in h, like the minimal LSTM, and has one gate fewer: 1 − z takes the place of the forget gate.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jax_lstm import checks, gates
from jax_lstm.cells.initializers import draw_per_gate, lecun_normal
from jax_lstm.cells.linear import LinearRecurrentCell


class MinGRUParams(NamedTuple):
    """Weights of a `MinGRU`; gate and candidate are side by side in the order z, g.

    w_x: (I, 2H), multiplies the input.
    b: (2H,), added.
    """

    w_x: Float[Array, "I 2*H"]
    b: Float[Array, " 2*H"]


class MinGRUState(NamedTuple):
    """State of a `MinGRU`: h (H,), which is also its output."""

    h: Float[Array, " H"]


@dataclass(frozen=True)
class MinGRU(LinearRecurrentCell):
    """Minimal GRU (minGRU) cell: the gate reads the input only, so a step is linear in h (Feng et al. 2024).

    One step::

        [z_z, z_g] = x_t w_x + b
        z = σ(z_z)
        h_t = (1 − z) ⊙ h_{t−1} + z ⊙ z_g

    x_t (I,) is the input, h_t (H,) the output and the state. z is the update gate, z_g the candidate for h. σ is the
    sigmoid, ⊙ the elementwise product. The columns of w_x and b are in the order z, g, H columns each.
    There are no recurrent weights. `unroll(..., engine="associative")` runs the cell as a parallel prefix over time.

    The cell holds options only. Its weights are a `MinGRUParams`, its state a `MinGRUState`.

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

    state_type = MinGRUState

    def __post_init__(self):
        checks.check_fields(self)

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> MinGRUParams:
        """Draw the weights: w_x LeCun normal per gate, b zero.

        Args:
            key: one random key, for example `jax.random.key(0)`. Do not reuse it.
            dtype: floating dtype of every leaf, float32 by default. Values are drawn in float32 or wider, then cast.

        Returns:
            MinGRUParams(w_x (I, 2H), b (2H,)).

        Raises:
            TypeError: key is not a random key, or dtype is not floating.
        """
        key, dtype = checks.check_key("MinGRU.init", key), checks.float_dtype("MinGRU.init", "dtype", dtype)
        return MinGRUParams(
            w_x=draw_per_gate(lecun_normal, key, 2, (self.input_size, self.hidden_size), dtype),
            b=jnp.zeros(2 * self.hidden_size, dtype),
        )

    def initial_state(self, params: MinGRUParams) -> MinGRUState:
        """The state before the first step: h = 0.

        Args:
            params: what `init` returns; only the dtype is read.

        Returns:
            MinGRUState(h), h (H,).
        """
        return MinGRUState(jnp.zeros(self.hidden_size, params.w_x.dtype))

    def coefficients(self, z: Float[Array, " Z"]) -> tuple[Float[Array, " H"], Float[Array, " H"]]:
        """The coefficients of one step, each (H,): 1 − z and z ⊙ z_g, from the pre-activations (2H,)."""
        return gates.min_gru_coefficients(*jnp.split(z, 2))
