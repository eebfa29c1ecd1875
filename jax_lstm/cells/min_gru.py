"""The minimal GRU (Feng, Tung, Hassan Ahmed, Bengio & Hajimirsadeghi 2024): its gate sees the input only.

    [z_z, z_g] = x_t w_x + b
    z = σ(z_z)
    h_t = (1 − z) ⊙ h_{t−1} + z ⊙ z_g

It is linear in h, as the minimal LSTM is, and has one gate less: what is forgotten makes room for what is written.
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


class MinGRUParams(NamedTuple):
    """w_x acts on the input, b is added: side by side in the order z, g."""

    w_x: Float[Array, "I 2*H"]
    b: Float[Array, " 2*H"]


class MinGRUState(NamedTuple):
    """The output h, which is the whole state."""

    h: Float[Array, " H"]


@jax.tree_util.register_static
@dataclass(frozen=True)
class MinGRU(InputGatedCell):
    """The minimal GRU: choices only; its arrays are in MinGRUParams.

    Args:
        input_size: I, the number of features of x.
        hidden_size: H, the number of units.
        compute_dtype: round the operands of the product to this ("bfloat16"); gate and state keep the params' dtype.

    Raises:
        ValueError, TypeError: a field out of range or of another type; the message names it.
    """

    input_size: int
    hidden_size: int
    compute_dtype: str | None = None

    state_type = MinGRUState

    def __post_init__(self):
        check_fields(self)

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> MinGRUParams:
        """w_x LeCun normal, b zero; `key` and `dtype` as for the LSTM."""
        key, dtype = door.prng_key("MinGRU.init", key), door.float_dtype("MinGRU.init", "dtype", dtype)
        return MinGRUParams(
            w_x=draw_per_gate(lecun_normal, key, 2, (self.input_size, self.hidden_size), dtype),
            b=jnp.zeros(2 * self.hidden_size, dtype),
        )

    def initial_state(self, params: MinGRUParams, like: Array | None = None) -> MinGRUState:
        """h = 0, shape (H,); with `like` (*B, T, I), shape (*B, H), on devices as `like`'s leading axes are."""
        return MinGRUState(zeros(self.hidden_size, params.w_x.dtype, like))

    def coefficients(self, z: Float[Array, " Z"]) -> tuple[Float[Array, " H"], Float[Array, " H"]]:
        """1 − z and z ⊙ z_g."""
        z_z, z_g = jnp.split(z, 2)
        z = jax.nn.sigmoid(z_z)
        return 1 - z, z * z_g
