"""The minimal LSTM (Feng, Tung, Hassan Ahmed, Bengio & Hajimirsadeghi 2024): its gates see the input only.

    [z_f, z_i, z_g] = x_t w_x + b
    f = σ(z_f)    i = σ(z_i)
    h_t = f/(f + i) ⊙ h_{t−1} + i/(f + i) ⊙ z_g

It is linear in h, so that ∂h_T/∂h_k is a product of gates that the data chose: nothing in it depends on the state. Such
factors, between 0 and 1, cannot tell an odd number of ones from an even one (Grazzi et al. 2024). It is here as the
contrast to cells whose gates read h.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jax_lstm.cells import door
from jax_lstm.cells.base import check_fields, zeros
from jax_lstm.cells.input_gated import InputGatedCell
from jax_lstm.cells.weights import draw_per_gate, lecun_normal


class MinLSTMParams(NamedTuple):
    """w_x acts on the input, b is added: side by side in the order f, i, g."""

    w_x: Float[Array, "I 3*H"]
    b: Float[Array, " 3*H"]


class MinLSTMState(NamedTuple):
    """The output h, which is the whole state."""

    h: Float[Array, " H"]


@jax.tree_util.register_static
@dataclass(frozen=True)
class MinLSTM(InputGatedCell):
    """The minimal LSTM: choices only; its arrays are in MinLSTMParams.

    Args:
        input_size: I, the number of features of x.
        hidden_size: H, the number of units.
        compute_dtype: round the operands of the product to this ("bfloat16"); gates and state keep the params' dtype.

    Raises:
        ValueError, TypeError: a field out of range or of another type; the message names it.
    """

    input_size: int
    hidden_size: int
    compute_dtype: str | None = None

    state_type = MinLSTMState

    def __post_init__(self):
        check_fields(self)

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> MinLSTMParams:
        """w_x LeCun normal, b zero; `key` and `dtype` as for the LSTM."""
        key, dtype = door.prng_key("MinLSTM.init", key), door.float_dtype("MinLSTM.init", "dtype", dtype)
        return MinLSTMParams(
            w_x=draw_per_gate(lecun_normal, key, 3, (self.input_size, self.hidden_size), dtype),
            b=jnp.zeros(3 * self.hidden_size, dtype),
        )

    def initial_state(self, params: MinLSTMParams, like: Array | None = None) -> MinLSTMState:
        """h = 0, shape (H,); with `like` (*B, T, I), shape (*B, H), on devices as `like`'s leading axes are."""
        return MinLSTMState(zeros(self.hidden_size, params.w_x.dtype, like))

    def coefficients(self, z: Float[Array, " Z"]) -> tuple[Float[Array, " H"], Float[Array, " H"]]:
        """f/(f + i) as σ(ln f − ln i), which neither overflows nor divides by zero, and i/(f + i) ⊙ z_g."""
        z_f, z_i, z_g = jnp.split(z, 3)
        keep = jax.nn.sigmoid(jax.nn.log_sigmoid(z_f) - jax.nn.log_sigmoid(z_i))
        return keep, (1 - keep) * z_g
