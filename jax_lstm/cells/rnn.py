"""The simple recurrent network (Elman 1990).

    z   = x_t w_x + h_{t−1} w_h + b + σ ε_t      ε_t standard normal, drawn from a key; without one, 0
    h_t = (1 − a) h_{t−1} + a φ(z)                φ = tanh, sigmoid, relu, hard sigmoid or the identity ("linear")

a is 1 if not said: no leak. With one it is the rate network of neuroscience, in steps of a time constants; its noise is
that of Song, Yang & Wang (2016).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jax_lstm.cells import door
from jax_lstm.cells.activations import ACTIVATIONS
from jax_lstm.cells.affine import AffineCell
from jax_lstm.cells.base import Drawn, SplitCell, check_fields, zeros
from jax_lstm.cells.weights import at_least_float32, draw_per_gate, lecun_normal, orthogonal


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
        activation: φ: "tanh", "sigmoid", "relu", "linear" or "hard_sigmoid".
        leak: a, the share of h that is new at each step; above 0, at most 1.
        noise: σ, the standard deviation of the noise in the pre-activation; it needs a key, and is 0 without one.
        compute_dtype: round the operands of products to this ("bfloat16"); sums and state keep the params' dtype.

    Raises:
        ValueError, TypeError: a field out of range or of another type; the message names it.
    """

    input_size: int
    hidden_size: int
    activation: str = "tanh"
    compute_dtype: str | None = None
    leak: float | int = 1.0
    noise: float | int = 0.0

    def __post_init__(self):
        check_fields(self)
        door.choice("RNN", "activation", self.activation, tuple(ACTIVATIONS))
        for name in ("leak", "noise"):
            object.__setattr__(self, name, door.number("RNN", name, getattr(self, name)))
        if not 0 < self.leak <= 1:
            raise ValueError(f"RNN: leak must be above 0 and at most 1, but is {self.leak}")
        if self.noise < 0:
            raise ValueError(f"RNN: noise must be 0 or more, but is {self.noise}")

    @property
    def draws(self) -> bool:
        """Whether it takes a key: with noise."""
        return self.noise > 0

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
        """h_t from z = zx + zh + b."""
        return RNNState(self._leaked(state.h, ACTIVATIONS[self.activation](zx + zh + params.b)))

    def linearise(
        self, params: RNNParams, state: RNNState, z: Float[Array, " H"]
    ) -> tuple[RNNState, Float[Array, " H"]]:
        """h_t from z, without b yet, and φ'."""
        new, slope = jax.jvp(ACTIVATIONS[self.activation], (z + params.b,), (jnp.ones_like(z),))
        return RNNState(self._leaked(state.h, new)), slope

    def along(self, slope: Float[Array, " H"], dstate: RNNState, dz: Float[Array, " H"]) -> RNNState:
        """dh_t = (1 − a) dh_{t−1} + a φ' ⊙ dz."""
        return RNNState(self._leaked(dstate.h, slope * dz))

    def draw(self, params: RNNParams, key: Array, steps: int) -> Drawn:
        """The noise of every step."""
        ε = jax.random.normal(key, (steps, self.hidden_size), at_least_float32(params.b.dtype)).astype(params.b.dtype)
        return Drawn(_Noisy(self), params, self.noise * ε)

    def _leaked(self, h_tm1: Float[Array, " H"], new: Float[Array, " H"]) -> Float[Array, " H"]:
        return new if self.leak == 1 else (1 - self.leak) * h_tm1 + self.leak * new


@dataclass(frozen=True)
class _Noisy(SplitCell):
    """An RNN whose x is followed by the noise that its pre-activation is to have."""

    rnn: RNN

    @property
    def input_size(self) -> int:
        return self.rnn.input_size + self.rnn.hidden_size

    @property
    def hidden_size(self) -> int:
        return self.rnn.hidden_size

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> RNNParams:
        return self.rnn.init(key, dtype)

    def initial_state(self, params: RNNParams, like: Array | None = None) -> RNNState:
        return self.rnn.initial_state(params, like)

    def project(self, params: RNNParams, x: Float[Array, " n"]) -> Float[Array, " H"]:
        x, noise = jnp.split(x, [self.rnn.input_size])
        return self.rnn.project(params, x) + noise

    def drive(self, params: RNNParams, dparams: Any, x: Array, dx: Array | None, state: RNNState) -> Array | None:
        n = self.rnn.input_size
        return self.rnn.drive(params, dparams, x[:n], None if dx is None else dx[:n], state)

    def recur(self, params: RNNParams, state: RNNState) -> Array:
        return self.rnn.recur(params, state)

    def update(self, params: RNNParams, state: RNNState, zx: Array, zh: Array) -> RNNState:
        return self.rnn.update(params, state, zx, zh)

    def linearise(self, params: RNNParams, state: RNNState, z: Array) -> tuple[RNNState, Array]:
        return self.rnn.linearise(params, state, z)

    def along(self, slope: Array, dstate: RNNState, dz: Array) -> RNNState:
        return self.rnn.along(slope, dstate, dz)

    def recur_along(self, params: RNNParams) -> Callable:
        return self.rnn.recur_along(params)
