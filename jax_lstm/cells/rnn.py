"""The simple recurrent network, or vanilla RNN (Elman 1990).

    z   = x_t w_x + h_{t−1} w_h + b + σ ε_t
    h_t = (1 − a) h_{t−1} + a φ(z)

φ is tanh, sigmoid, relu, hard sigmoid or the identity ("linear"). ε_t is standard normal, drawn from a key; without a
key it is 0. The default a = 1 has no leak. With a < 1 this is the firing-rate network of computational neuroscience;
a = Δt/τ is the time step over the time constant. The noise is that of Song, Yang & Wang (2016).
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jax_lstm import checks, gates
from jax_lstm.cell import Noise
from jax_lstm.cells.initializers import draw_per_gate, lecun_normal, orthogonal, zeros
from jax_lstm.cells.linear import PreactivationCell
from jax_lstm.gates import ACTIVATIONS, at_least_float32


class RNNParams(NamedTuple):
    """Weights of an `RNN`.

    w_x: (I, H), multiplies the input.
    w_h: (H, H), multiplies h.
    b: (H,), added.
    """

    w_x: Float[Array, "I H"]
    w_h: Float[Array, "H H"]
    b: Float[Array, " H"]


class RNNState(NamedTuple):
    """State of an `RNN`: h (H,), which is also its output."""

    h: Float[Array, " H"]


@dataclass(frozen=True)
class RNN(PreactivationCell):
    """Simple recurrent network (vanilla RNN) cell, with optional leak and noise (Elman 1990).

    One step::

        z   = x_t w_x + h_{t−1} w_h + b + σ ε_t
        h_t = (1 − a) h_{t−1} + a φ(z)

    x_t (I,) is the input, h_t (H,) the output and the state, a the leak, φ the activation function. σ is the standard
    deviation of the noise. ε_t is standard normal, drawn from the key given to `unroll`; without a key it is 0.

    The cell holds options only. Its weights are an `RNNParams`, its state an `RNNState`.

    Args:
        input_size: I, the number of features of x.
        hidden_size: H, the number of units, and of features of h.
        activation: φ: "tanh", "sigmoid", "relu", "linear" or "hard_sigmoid".
        compute_dtype: dtype that the operands of matrix products are rounded to, such as "bfloat16". Sums, gates and
            state keep the params' dtype. None: no rounding.
        leak: a, the weight of the new value in h_t; above 0, at most 1. 1: no leak.
        noise: σ, the standard deviation of the noise added to the pre-activation; 0 or more.

    Raises:
        ValueError: a field is out of range; the message names it.
        TypeError: a field has a wrong type; the message names it.
    """

    input_size: int
    hidden_size: int
    activation: str = "tanh"
    compute_dtype: str | None = None
    leak: float | int = 1.0
    noise: float | int = 0.0

    def __post_init__(self):
        checks.check_fields(self)
        checks.one_of("RNN", "activation", self.activation, tuple(ACTIVATIONS))
        for name in ("leak", "noise"):
            object.__setattr__(self, name, checks.finite_number("RNN", name, getattr(self, name)))
        if not 0 < self.leak <= 1:
            raise ValueError(f"RNN: leak must be above 0 and at most 1, but is {self.leak}")
        if self.noise < 0:
            raise ValueError(f"RNN: noise must be 0 or more, but is {self.noise}")

    @property
    def has_noise(self) -> bool:
        """Whether the cell draws random numbers: True if `noise` is above 0."""
        return self.noise > 0

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> RNNParams:
        """Draw the weights: w_x LeCun normal, w_h orthogonal, b zero.

        Args:
            key: one random key, for example `jax.random.key(0)`. Do not reuse it.
            dtype: floating dtype of every leaf, float32 by default. Values are drawn in float32 or wider, then cast.

        Returns:
            RNNParams(w_x (I, H), w_h (H, H), b (H,)).

        Raises:
            TypeError: key is not a random key, or dtype is not floating.
        """
        key, dtype = checks.check_key("RNN.init", key), checks.float_dtype("RNN.init", "dtype", dtype)
        H = self.hidden_size
        key_x, key_h = jax.random.split(key)
        return RNNParams(
            w_x=draw_per_gate(lecun_normal, key_x, 1, (self.input_size, H), dtype),
            w_h=draw_per_gate(orthogonal, key_h, 1, (H, H), dtype),
            b=jnp.zeros(H, dtype),
        )

    def initial_state(self, params: RNNParams, like: Array | None = None) -> RNNState:
        """The state before the first step: h = 0.

        Args:
            params: what `init` returns; only the dtype is read.
            like: data (*B, T, I) of a batch. If given, the state has the leading axes *B, sharded like the data.

        Returns:
            RNNState(h), h (H,), or (*B, H) with `like`.
        """
        return RNNState(zeros(self.hidden_size, params.w_h.dtype, like))

    def project(self, params: RNNParams, x: Float[Array, " I"], noise: Noise | None = None) -> Float[Array, " H"]:
        """The input's part of the pre-activation: zx = x w_x, (H,) from x (I,); plus σ ε_t where there is noise."""
        zx = super().project(params, x)
        return zx if noise is None else zx + noise.steps

    preactivation_jvp = PreactivationCell.preactivation_jvp  # the noise is constant

    def update(self, params: RNNParams, state: RNNState, zx: Float[Array, " H"], zh: Float[Array, " H"]) -> RNNState:
        """The next state h_t from z = zx + zh + b; zx and zh are (H,)."""
        return RNNState(gates.rnn_state(state.h, ACTIVATIONS[self.activation](zx + zh + params.b), self.leak))

    def update_with_residuals(
        self, params: RNNParams, state: RNNState, z: Float[Array, " H"]
    ) -> tuple[RNNState, Float[Array, " H"]]:
        """The next state h_t from z = zx + zh (b is added here), and φ'(z), the residual that its JVP needs."""
        new, slope = jax.jvp(ACTIVATIONS[self.activation], (z + params.b,), (jnp.ones_like(z),))
        return RNNState(gates.rnn_state(state.h, new, self.leak)), slope

    def update_jvp(self, residuals: Float[Array, " H"], dstate: RNNState, dz: Float[Array, " H"]) -> RNNState:
        """The JVP of the step: dh_t = (1 − a) dh_{t−1} + a φ' ⊙ dz."""
        return RNNState(gates.rnn_state(dstate.h, residuals * dz, self.leak))

    def sample_noise(self, params: RNNParams, key: Array, T: Any) -> Noise:
        """Draw the noise σ ε_t of every step, (T, H), from a key."""
        ε = jax.random.normal(key, (T, self.hidden_size), at_least_float32(params.b.dtype)).astype(params.b.dtype)
        return Noise(steps=self.noise * ε)
