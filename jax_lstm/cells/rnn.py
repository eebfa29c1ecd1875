"""The simple recurrent network, or vanilla RNN (Elman 1990).

    z   = x_t w_x + h_{t−1} w_h + b + σ ε_t
    h_t = (1 − a) h_{t−1} + a φ(z)

φ is an elementwise function of `jax.nn`, such as tanh. ε_t is standard normal, drawn from a key; without a key it is 0.
The default a = 1 has no leak. With a < 1 this is the firing-rate network of computational neuroscience; a = Δt/τ is the
time step over the time constant. The leak may be learned, one per unit: a = σ(α). The noise is that of Song, Yang &
Wang (2016).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from jax_lstm import checks, gates
from jax_lstm.cell import Noise
from jax_lstm.cells.initializers import draw_per_gate, full, lecun_normal, orthogonal
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


class LeakyRNNParams(NamedTuple):
    """Weights of an `RNN` with `learned_leak`.

    w_x: (I, H), multiplies the input.
    w_h: (H, H), multiplies h.
    b: (H,), added.
    alpha: (H,), α; the leak of each unit is σ(α).
    """

    w_x: Float[Array, "I H"]
    w_h: Float[Array, "H H"]
    b: Float[Array, " H"]
    alpha: Float[Array, " H"]


Params = RNNParams | LeakyRNNParams


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

    With `learned_leak` each unit has its own a = σ(α), where α (H,) is a parameter; σ(α) is the sigmoid. To fix leaks
    that differ between units, keep α constant in training: in the loss use
    `params._replace(alpha=jax.lax.stop_gradient(params.alpha))`, or mask the leaf called alpha in the optimizer.

    The cell holds options only. Its weights are an `RNNParams`, or a `LeakyRNNParams` with `learned_leak`; its state is
    an `RNNState`.

    Args:
        input_size: I, the number of features of x.
        hidden_size: H, the number of units, and of features of h.
        activation: φ, an elementwise function of `jax.nn`, by name or as the function, such as `jax.nn.relu`: "tanh",
            "sigmoid", "relu", "linear" (or "identity"), "hard_sigmoid", "celu", "elu", "gelu", "hard_silu" (or
            "hard_swish"), "hard_tanh", "leaky_relu", "log_sigmoid", "mish", "relu6", "selu", "silu" (or "swish"),
            "soft_sign", "softplus", "sparse_plus", "sparse_sigmoid" or "squareplus". The cell stores the name. Other
            arguments of the function, such as alpha of elu, have their defaults.
        compute_dtype: dtype that the operands of matrix products are rounded to, such as "bfloat16". Sums, gates and
            state keep the params' dtype. None: no rounding. Prefer it to bfloat16 params, whose state h keeps 8 bits.
            But h is an operand too: if every step adds 1 to it, it stops at 257, and at 256 with bfloat16 params.
        leak: a, the weight of the new value in h_t; above 0, at most 1. 1: no leak. With `learned_leak` its initial
            value in every unit, below 1.
        noise: σ, the standard deviation of the noise added to the pre-activation; 0 or more.
        learned_leak: whether a = σ(α) is a parameter, one per unit.

    Raises:
        ValueError: a field is out of range; the message names it.
        TypeError: a field has a wrong type; the message names it.
    """

    input_size: int
    hidden_size: int
    activation: str | Callable[..., Any] = "tanh"
    compute_dtype: str | None = None
    leak: float | int = 1.0
    noise: float | int = 0.0
    learned_leak: bool = False

    def __post_init__(self):
        checks.check_fields(self)
        object.__setattr__(self, "activation", checks.activation_name("RNN", "activation", self.activation))
        object.__setattr__(self, "learned_leak", checks.check_bool("RNN", "learned_leak", self.learned_leak))
        for name in ("leak", "noise"):
            object.__setattr__(self, name, checks.finite_number("RNN", name, getattr(self, name)))
        if not 0 < self.leak <= 1:
            raise ValueError(f"RNN: leak must be above 0 and at most 1, but is {self.leak}")
        if self.learned_leak and self.leak == 1:
            raise ValueError(
                "RNN: leak must be below 1 with learned_leak=True, because σ(α) is, but is 1.0; set a leak such as 0.5"
            )
        if self.noise < 0:
            raise ValueError(f"RNN: noise must be 0 or more, but is {self.noise}")

    @property
    def has_noise(self) -> bool:
        """Whether the cell draws random numbers: True if `noise` is above 0."""
        return self.noise > 0

    def init(self, key: Array, dtype: DTypeLike = jnp.float32, *, leak: ArrayLike | None = None) -> Any:
        """Draw the weights: w_x LeCun normal, w_h orthogonal, b zero; with `learned_leak` α = ln(a / (1 − a)).

        Args:
            key: one random key, for example `jax.random.key(0)`. Do not reuse it.
            dtype: floating dtype of every leaf, float32 by default. Values are drawn in float32 or wider, then cast.
            leak: a for this draw, in place of the field `leak`: a number, or an array of shape () or (H,), which may be
                traced; above 0 and below 1 (not checked if traced). Only with `learned_leak`. None: the field.

        Returns:
            RNNParams(w_x (I, H), w_h (H, H), b (H,)), or with `learned_leak` LeakyRNNParams(w_x, w_h, b, alpha (H,)).

        Raises:
            ValueError: `leak` is out of range or has a wrong shape, or is given without `learned_leak`.
            TypeError: key is not a random key, dtype is not floating, or `leak` is not a number.
        """
        key, dtype = checks.check_key("RNN.init", key), checks.float_dtype("RNN.init", "dtype", dtype)
        H = self.hidden_size
        if leak is not None and not self.learned_leak:
            raise ValueError(
                f"RNN.init: leak sets a learned leak, but this cell has the fixed leak {self.leak}; make it with "
                "learned_leak=True"
            )
        key_x, key_h = jax.random.split(key)
        params = RNNParams(
            w_x=draw_per_gate(lecun_normal, key_x, 1, (self.input_size, H), dtype),
            w_h=draw_per_gate(orthogonal, key_h, 1, (H, H), dtype),
            b=jnp.zeros(H, dtype),
        )
        if not self.learned_leak:
            return params
        if leak is not None:
            leak = checks.number_or_array("RNN.init", "leak", leak, (H,), lambda a: 0 < a < 1, "above 0 and below 1")
        a = self.leak if leak is None else leak
        if isinstance(a, float):  # in Python's precision: float32 rounds a leak close to 1 to 1
            alpha = full("RNN.init", "leak", math.log(a) - math.log1p(-a), H, dtype)
        else:
            a = full("RNN.init", "leak", a, H, at_least_float32(dtype))
            alpha = (jnp.log(a) - jnp.log1p(-a)).astype(dtype)
        return LeakyRNNParams(*params, alpha=alpha)

    def initial_state(self, params: Params) -> RNNState:
        """The state before the first step: h = 0.

        Args:
            params: what `init` returns; only the dtype is read.

        Returns:
            RNNState(h), h (H,).
        """
        return RNNState(jnp.zeros(self.hidden_size, params.w_h.dtype))

    def project(self, params: Params, x: Float[Array, " I"], noise: Noise | None = None) -> Float[Array, " H"]:
        """The input's part of the pre-activation: zx = x w_x, (H,) from x (I,); plus σ ε_t where there is noise."""
        zx = super().project(params, x)
        return zx if noise is None else zx + noise.steps

    def update(self, params: Params, state: RNNState, z: Float[Array, " H"]) -> RNNState:
        """The next state h_t; b is added to z here."""
        leak = jax.nn.sigmoid(params.alpha) if isinstance(params, LeakyRNNParams) else self.leak
        return RNNState(gates.rnn_state(state.h, self._φ(z + params.b), leak))

    def sample_noise(self, params: Params, key: Array, T: Any, rates: dict[str, Any] | None = None) -> Noise:
        """Draw the noise σ ε_t of every step.

        Args:
            params: what `init` returns; only the dtype is read.
            key: one random key. Do not reuse it.
            T: the number of steps.
            rates: {"noise": σ} sets σ for this draw: a number of 0 or more, or an array that broadcasts to (T, H),
                which may be traced. None: the field `noise`.

        Returns:
            Noise(steps (T, H)).

        Raises:
            ValueError: σ is below 0, or `rates` has another name or a wrong shape.
            TypeError: `rates` is not a dict of numbers and arrays.
        """
        caller, dtype, shape = "RNN.sample_noise", params.b.dtype, (T, self.hidden_size)
        key, σ = checks.check_key(caller, key), checks.check_rates(caller, rates, ("noise",)).get("noise", self.noise)
        σ = checks.number_or_array(caller, "noise", σ, shape, lambda σ: σ >= 0, "0 or more")
        ε = jax.random.normal(key, shape, at_least_float32(dtype)).astype(dtype)
        return Noise(steps=(σ if isinstance(σ, float) else jnp.broadcast_to(σ.astype(dtype), shape)) * ε)

    @property
    def _φ(self) -> Callable[[Array], Array]:
        name: Any = self.activation
        return ACTIVATIONS[name]
