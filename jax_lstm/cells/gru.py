"""The gated recurrent unit (Cho et al. 2014), in the form that cuDNN and PyTorch compute, order r, z, n.

    r = σ(x_t w_xr + h_{t−1} w_hr + b_r)
    z = σ(x_t w_xz + h_{t−1} w_hz + b_z)
    n = tanh(x_t w_xn + b_n + r ⊙ (h_{t−1} w_hn + b_hn))
    h_t = (1 − z) ⊙ n + z ⊙ h_{t−1}

b_hn stands inside the product with r, so it is a parameter of its own and not part of b.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jax_lstm import gates
from jax_lstm.cells import door
from jax_lstm.cells.base import SplitCell, check_fields, zeros
from jax_lstm.cells.weights import bounded, draw_per_gate, lecun_normal, orthogonal, product
from jax_lstm.gates import GRUGates


class GRUParams(NamedTuple):
    """w_x acts on the input, w_h on h, b is added to the input's part, b_hn to the candidate's state part."""

    w_x: Float[Array, "I 3*H"]
    w_h: Float[Array, "H 3*H"]
    b: Float[Array, " 3*H"]
    b_hn: Float[Array, " H"]


class GRUState(NamedTuple):
    """The output h, which is the whole state."""

    h: Float[Array, " H"]


@jax.tree_util.register_static
@dataclass(frozen=True)
class GRU(SplitCell):
    """The GRU: choices only; its arrays are in GRUParams.

    Args:
        input_size: I, the number of features of x.
        hidden_size: H, the number of units.
        compute_dtype: round products' operands to this ("bfloat16"); gates, sums and state keep the params' dtype.

    Raises:
        ValueError, TypeError: a field out of range or of another type; the message names it.
    """

    input_size: int
    hidden_size: int
    compute_dtype: str | None = None

    def __post_init__(self):
        check_fields(self)

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> GRUParams:
        """w_x LeCun normal and w_h orthogonal, each a gate at a time; biases zero; `key`, `dtype` as for the LSTM."""
        key, dtype = door.prng_key("GRU.init", key), door.float_dtype("GRU.init", "dtype", dtype)
        H = self.hidden_size
        key_x, key_h = jax.random.split(key)
        return GRUParams(
            w_x=draw_per_gate(lecun_normal, key_x, 3, (self.input_size, H), dtype),
            w_h=draw_per_gate(orthogonal, key_h, 3, (H, H), dtype),
            b=jnp.zeros(3 * H, dtype),
            b_hn=jnp.zeros(H, dtype),
        )

    def initial_state(self, params: GRUParams, like: Array | None = None) -> GRUState:
        """h = 0, shape (H,); with `like` (*B, T, I), shape (*B, H), on devices as `like`'s leading axes are."""
        return GRUState(zeros(self.hidden_size, params.w_h.dtype, like))

    def project(self, params: GRUParams, x: Float[Array, " I"]) -> GRUGates:
        """zx = x w_x + b, a leaf a gate."""
        x = bounded(x, params.w_x.dtype)
        return GRUGates(*jnp.split(product(x, params.w_x, self.compute_dtype) + params.b, 3))

    def recur(self, params: GRUParams, state: GRUState) -> GRUGates:
        """zh = h w_h, a leaf a gate."""
        return GRUGates(*jnp.split(product(state.h, params.w_h, self.compute_dtype), 3))

    def update(self, params: GRUParams, state: GRUState, zx: GRUGates, zh: GRUGates) -> GRUState:
        """h_t from the gates; b_hn enters here, so that `recur` stays linear."""
        return GRUState(gates.gru_state(state.h, gates.gru_gates(zx, zh, params.b_hn)))
