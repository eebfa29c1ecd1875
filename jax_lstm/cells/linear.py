"""Matrix products and their dtypes, and the two base classes of cells with a linear pre-activation z.

PreactivationCell     z = x_t w_x + h_{t−1} w_h + b        LSTM, RNN, JANET
LinearRecurrentCell   z = x_t w_x + b, h_t = a(z) ⊙ h_{t−1} + b(z)        MinLSTM, MinGRU
"""

from abc import abstractmethod
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jax_lstm.cell import SplitCell
from jax_lstm.gates import linear_state


def product(x: Float[Array, " n"], w: Float[Array, "n m"], compute_dtype: str | None = None) -> Float[Array, " m"]:
    """x @ w in w's dtype. If compute_dtype is given, the operands are rounded to it; sums stay in w's dtype."""
    if compute_dtype is None:
        return x @ w
    return jnp.matmul(x.astype(compute_dtype), w.astype(compute_dtype), preferred_element_type=w.dtype)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def bounded(x: Float[Array, " n"], dtype: DTypeLike) -> Float[Array, " n"]:
    """x in `dtype`, with finite entries clipped to ±max^¾ of the dtype, so that no x @ w is ∞ − ∞. NaN and ±∞ are kept.

    In float32 the limit is 6e28: far above where any gate saturates, far below where a product overflows.
    float16 is not clipped: its products are summed in a wider dtype, and its max^¾ (4,094) is a value that data can
    have. The derivative is 1 everywhere; beyond the limit, saturated gates pass no gradient anyway.
    """
    x = x.astype(dtype)
    if dtype == jnp.float16:
        return x
    limit = jnp.asarray(float(jnp.finfo(dtype).max) ** 0.75, dtype)
    return jnp.where(jnp.isinf(x), x, jnp.clip(x, -limit, limit))


@bounded.defjvp
def _bounded_jvp(dtype: DTypeLike, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return bounded(*primals, dtype), tangents[0].astype(dtype)


class PreactivationCell(SplitCell):
    """Base class of LSTM, RNN and JANET: z = x w_x + h w_h + b.

    The params have the fields w_x, w_h and b; the state has a field h. A subclass adds `update`, which adds b, because
    there it costs no extra pass over the data.
    """

    @property
    @abstractmethod
    def compute_dtype(self) -> str | None:
        """The dtype that the operands of matrix products are rounded to; None: the params' dtype."""

    def project(self, params: Any, x: Float[Array, " I"]) -> Float[Array, " Z"]:
        """The input's part of the pre-activation: zx = x w_x, (Z,) from x (I,)."""
        return product(bounded(x, params.w_x.dtype), params.w_x, self.compute_dtype)

    def recur(self, params: Any, state: Any) -> Float[Array, " Z"]:
        """The state's part of the pre-activation: zh = h w_h, (Z,)."""
        return product(state.h, params.w_h, self.compute_dtype)


class LinearRecurrentCell(SplitCell):
    """Base class of MinLSTM and MinGRU, whose gates read only the input: h_t = a(z) ⊙ h_{t−1} + b(z), z = x_t w_x + b.

    The bias b in z is not the coefficient b(z). The params have the fields w_x and b; the state has the field h only. A
    subclass defines a(z) and b(z) in `coefficients`. A step is linear in h, so every engine can run the cell,
    "associative" included.
    """

    @property
    def linear_in_state(self) -> bool:
        """True: a step is linear in h."""
        return True

    @property
    @abstractmethod
    def compute_dtype(self) -> str | None:
        """The dtype that the operands of the matrix product are rounded to; None: the params' dtype."""

    @property
    @abstractmethod
    def state_type(self) -> Any:
        """The NamedTuple class of the state."""

    @abstractmethod
    def coefficients(self, z: Float[Array, " Z"]) -> tuple[Float[Array, " H"], Float[Array, " H"]]:
        """The coefficients a(z) and b(z) of one step, each (H,), from z (Z,)."""

    def project(self, params: Any, x: Float[Array, " I"]) -> Any:
        """The input's part of the pre-activation: zx = x w_x, (Z,) from x (I,)."""
        return product(bounded(x, params.w_x.dtype), params.w_x, self.compute_dtype)

    def recur(self, params: Any, state: Any) -> None:
        """None: there are no recurrent weights."""
        return

    def update(self, params: Any, state: Any, z: Any) -> Any:
        """The next state: h_t = a(z) ⊙ h_{t−1} + b(z); b is added to z here."""
        return self.state_type(linear_state(state.h, *self.coefficients(z + params.b)))

    def affine(self, params: Any, x: Float[Array, " I"]) -> tuple[Any, Any]:
        """The coefficients of the step s_t = a ⊙ s_{t−1} + b for one input x (I,): (a, b), each a state with h (H,)."""
        a, b = self.coefficients(self.project(params, x) + params.b)
        return self.state_type(a), self.state_type(b)
