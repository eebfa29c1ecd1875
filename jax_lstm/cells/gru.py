"""The gated recurrent unit (GRU; Cho et al. 2014), in the variant of PyTorch and cuDNN, and in that of the paper.

    r = σ(x_t w_xr + h_{t−1} w_hr + b_r)
    z = σ(x_t w_xz + h_{t−1} w_hz + b_z)
    n = tanh(x_t w_xn + b_n + r ⊙ (h_{t−1} w_hn + b_hn))
    h_t = (1 − z) ⊙ n + z ⊙ h_{t−1}

In this variant r multiplies the product h w_hn and its bias b_hn, not h. So b_hn is a parameter of its own and not part
of b. In the variant of the paper, `reset_after=False`, r multiplies h before the product, and there is no b_hn:

    n = tanh(x_t w_xn + b_n + (r ⊙ h_{t−1}) w_hn)

The gates are side by side in w_x, w_h and b, in the order r, z, n.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jax_lstm import checks, gates
from jax_lstm.cell import SplitCell
from jax_lstm.cells.initializers import draw_per_gate, lecun_normal, orthogonal
from jax_lstm.cells.linear import bounded, product
from jax_lstm.gates import GRUPreactivation


class GRUParams(NamedTuple):
    """Weights of a `GRU`; the gates are side by side in the order r, z, n.

    w_x: (I, 3H), multiplies the input.
    w_h: (H, 3H), multiplies h.
    b: (3H,), added to x w_x.
    b_hn: (H,), added to h w_hn, the candidate's part of h w_h; None with `reset_after=False`.
    """

    w_x: Float[Array, "I 3*H"]
    w_h: Float[Array, "H 3*H"]
    b: Float[Array, " 3*H"]
    b_hn: Float[Array, " H"] | None = None


class GRUState(NamedTuple):
    """State of a `GRU`: h (H,), which is also its output."""

    h: Float[Array, " H"]


@dataclass(frozen=True)
class GRU(SplitCell):
    """Gated recurrent unit (GRU) cell (Cho et al. 2014), in the variant of PyTorch and cuDNN.

    One step::

        r = σ(x_t w_xr + h_{t−1} w_hr + b_r)
        z = σ(x_t w_xz + h_{t−1} w_hz + b_z)
        n = tanh(x_t w_xn + b_n + r ⊙ (h_{t−1} w_hn + b_hn))
        h_t = (1 − z) ⊙ n + z ⊙ h_{t−1}

    x_t (I,) is the input, h_t (H,) the output and the state. r is the reset gate, z the update gate, n the candidate
    for h. In this variant r multiplies the product h w_hn and its bias, not h. σ is the sigmoid, ⊙ the elementwise
    product. The columns of w_x, w_h and b are in the order r, z, n, H columns each: w_xr is the first H columns of w_x.

    With `reset_after=False`, r multiplies h before the product, as in the paper::

        n = tanh(x_t w_xn + b_n + (r ⊙ h_{t−1}) w_hn)

    The weights have the same shapes, but give other numbers: convert weights of another library with the variant that
    they were trained with. This variant has no b_hn. Its step has two matrix products with the state, one after the
    other, so it runs on the engine "plain", and `Dropout` cannot wrap it.

    The cell holds options only. Its weights are a `GRUParams`, its state a `GRUState`.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> import jax_lstm as jl
    >>> cell = jl.GRU(input_size=3, hidden_size=4)
    >>> params = cell.init(jax.random.key(0))
    >>> state, hs = jl.unroll(cell, params, jnp.ones((6, 3), jnp.float32))
    >>> params.w_x.shape, state.h.shape, hs.shape
    ((3, 12), (4,), (6, 4))

    Args:
        input_size: I, the number of features of x.
        hidden_size: H, the number of units, and of features of h.
        compute_dtype: dtype that the operands of matrix products are rounded to, such as "bfloat16". Sums, gates and
            state keep the params' dtype. None: no rounding. Prefer it to bfloat16 params: a bfloat16 state to which
            every step adds 1 stops at 256.
        reset_after: whether r multiplies h w_hn + b_hn, as in PyTorch, cuDNN, Flax, and Keras by default. If False, r
            multiplies h, as in the paper, Haiku, Keras with reset_after=False and ONNX by default.

    Raises:
        ValueError: a field is out of range; the message names it.
        TypeError: a field has a wrong type; the message names it.
    """

    input_size: int
    hidden_size: int
    compute_dtype: str | None = None
    reset_after: bool = True

    def __post_init__(self):
        checks.check_fields(self)
        object.__setattr__(self, "reset_after", checks.check_bool("GRU", "reset_after", self.reset_after))

    @property
    def splits(self) -> bool:
        """Whether the step splits into `project`, `recur` and `update`: only with `reset_after`."""
        return self.reset_after

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> GRUParams:
        """Draw the weights: for each gate w_x LeCun normal and w_h orthogonal; b and b_hn zero.

        Args:
            key: one random key, for example `jax.random.key(0)`. Do not reuse it.
            dtype: floating dtype of every leaf, float32 by default. Values are drawn in float32 or wider, then cast.

        Returns:
            GRUParams(w_x (I, 3H), w_h (H, 3H), b (3H,), b_hn (H,)); b_hn is None with `reset_after=False`.

        Raises:
            TypeError: key is not a random key, or dtype is not floating.
        """
        key, dtype = checks.check_key("GRU.init", key), checks.float_dtype("GRU.init", "dtype", dtype)
        H = self.hidden_size
        key_x, key_h = jax.random.split(key)
        return GRUParams(
            w_x=draw_per_gate(lecun_normal, key_x, 3, (self.input_size, H), dtype),
            w_h=draw_per_gate(orthogonal, key_h, 3, (H, H), dtype),
            b=jnp.zeros(3 * H, dtype),
            b_hn=jnp.zeros(H, dtype) if self.reset_after else None,
        )

    def initial_state(self, params: GRUParams) -> GRUState:
        """The state before the first step: h = 0.

        Args:
            params: what `init` returns; only the dtype is read.

        Returns:
            GRUState(h), h (H,).
        """
        return GRUState(jnp.zeros(self.hidden_size, params.w_h.dtype))

    def project(self, params: GRUParams, x: Float[Array, " I"]) -> GRUPreactivation:
        """The input's part of the pre-activation: x w_x, one leaf (H,) per gate, from x (I,)."""
        x = bounded(x, params.w_x.dtype)
        return GRUPreactivation(*jnp.split(product(x, params.w_x, self.compute_dtype), 3), m=None)

    def recur(self, params: GRUParams, state: GRUState) -> GRUPreactivation:
        """The state's part of the pre-activation: h w_h, one leaf (H,) per gate; that of n is m."""
        r, z, m = jnp.split(product(state.h, params.w_h, self.compute_dtype), 3)
        return GRUPreactivation(r, z, None, m)

    def update(self, params: Any, state: GRUState, z: GRUPreactivation) -> GRUState:
        """The next state h_t; b and b_hn are added to z here."""
        return GRUState(gates.gru_state(state.h, gates.gru_gates(z, params.b, params.b_hn)))

    def composed(self, params: GRUParams, state: GRUState, x: Float[Array, " I"], **given: Any) -> GRUState:
        """The next state h_t, without checks of the arguments; with `reset_after=False` this is the step."""
        if self.reset_after:
            return super().composed(params, state, x, **given)
        H = self.hidden_size

        def recur_n(r: Float[Array, " H"]) -> Float[Array, " H"]:
            return product(r * state.h, params.w_h[:, 2 * H :], self.compute_dtype)

        zh_r, zh_z = jnp.split(product(state.h, params.w_h[:, : 2 * H], self.compute_dtype), 2)
        rzn = gates.gru_gates_reset_before(self.project(params, x), params.b, zh_r, zh_z, recur_n)
        return GRUState(gates.gru_state(state.h, rzn))
