"""The simple recurrent network (Elman 1990).

h_t = φ(x_t w_x + h_{t−1} w_h + b)    φ = tanh, σ, relu or the identity ("linear")
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jax_lstm.cells import door
from jax_lstm.cells.affine import AffineCell
from jax_lstm.cells.base import check_fields, zeros
from jax_lstm.cells.weights import draw_per_gate, lecun_normal, orthogonal

ACTIVATIONS = {"tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid, "relu": jax.nn.relu, "linear": lambda z: z}


class RNNParams(NamedTuple):
    """w_x acts on the input, w_h on h, b is added."""

    w_x: Float[Array, "I H"]
    w_h: Float[Array, "H H"]
    b: Float[Array, " H"]


class RNNState(NamedTuple):
    """The output h, which is the whole state."""

    h: Float[Array, " H"]


@jax.tree_util.register_static
@dataclass(frozen=True)
class RNN(AffineCell):
    """The simple recurrent network: choices only; its arrays are in RNNParams.

    Args:
        input_size: I, the number of features of x.
        hidden_size: H, the number of units.
        activation: φ: "tanh", "sigmoid", "relu" or "linear".
        compute_dtype: round the operands of products to this ("bfloat16"); sums and state keep the params' dtype.

    Raises:
        ValueError, TypeError: a field out of range or of another type; the message names it.
    """

    input_size: int
    hidden_size: int
    activation: str = "tanh"
    compute_dtype: str | None = None

    def __post_init__(self):
        check_fields(self)
        door.choice("RNN", "activation", self.activation, tuple(ACTIVATIONS))

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> RNNParams:
        """w_x LeCun normal, w_h orthogonal, b zero; `key` and `dtype` as for the LSTM."""
        key, dtype = door.prng_key("RNN.init", key), door.float_dtype("RNN.init", "dtype", dtype)
        H = self.hidden_size
        key_x, key_h = jax.random.split(key)
        return RNNParams(
            w_x=draw_per_gate(lecun_normal, key_x, 1, (self.input_size, H), dtype),
            w_h=draw_per_gate(orthogonal, key_h, 1, (H, H), dtype),
            b=jnp.zeros(H, dtype),
        )

    def initial_state(self, params: RNNParams, like: Array | None = None) -> RNNState:
        """h = 0, shape (H,); with `like` (*B, T, I), shape (*B, H), on devices as `like`'s leading axes are."""
        return RNNState(zeros(self.hidden_size, params.w_h.dtype, like))

    def update(self, params: RNNParams, state: RNNState, zx: Float[Array, " H"], zh: Float[Array, " H"]) -> RNNState:
        """h_t = φ(zx + zh + b)."""
        return RNNState(ACTIVATIONS[self.activation](zx + zh + params.b))

    def linearise(
        self, params: RNNParams, state: RNNState, z: Float[Array, " H"]
    ) -> tuple[RNNState, Float[Array, " H"]]:
        """h_t = φ(z + b), and φ'(z + b)."""
        h_t, slope = jax.jvp(ACTIVATIONS[self.activation], (z + params.b,), (jnp.ones_like(z),))
        return RNNState(h_t), slope

    def along(self, slope: Float[Array, " H"], dstate: RNNState, dz: Float[Array, " H"]) -> RNNState:
        """dh_t = φ'(z) ⊙ dz; dh_{t−1} acts through dz alone."""
        return RNNState(slope * dz)
