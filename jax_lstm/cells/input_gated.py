"""Base class of the cells whose gates read the input only, so that a step is linear in h:

    z = x_t w_x + b
    h_t = a(z) ⊙ h_{t−1} + b(z)

A subclass defines a(z) and b(z) in `coefficients`. Every engine can run it, "associative" included.
"""

from abc import abstractmethod
from typing import Any

from jaxtyping import Array, Float

from jax_lstm.cells.base import SplitCell
from jax_lstm.cells.weights import bounded, product


class InputGatedCell(SplitCell):
    """Base class of MinLSTM and MinGRU: h_t = a(z) ⊙ h_{t−1} + b(z) with z = x_t w_x + b.

    The params have the fields w_x and b; the state has the field h only.
    """

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

    def project(self, params: Any, x: Float[Array, " I"]) -> Float[Array, " Z"]:
        """The input's part of the pre-activation: zx = x w_x, (Z,) from x (I,)."""
        return product(bounded(x, params.w_x.dtype), params.w_x, self.compute_dtype)

    def recur(self, params: Any, state: Any) -> Float[Array, " H"]:
        """h itself, (H,): there are no recurrent weights."""
        return state.h

    def update(self, params: Any, state: Any, zx: Float[Array, " Z"], zh: Float[Array, " H"]) -> Any:
        """The next state: h_t = a(z) ⊙ h_{t−1} + b(z), with z = zx + b."""
        a, b = self.coefficients(zx + params.b)
        return self.state_type(a * zh + b)

    def affine(self, params: Any, x: Float[Array, " I"]) -> tuple[Any, Any]:
        """The coefficients of the step s_t = a ⊙ s_{t−1} + b for one input x (I,): (a, b), each a state with h (H,)."""
        a, b = self.coefficients(self.project(params, x) + params.b)
        return self.state_type(a), self.state_type(b)
