"""What the cells have in common whose gates see the input only, and that are linear in h:

    z = x_t w_x + b
    h_t = a(z) ⊙ h_{t−1} + b(z)

Such a cell adds its own a and b. It runs step by step, on the engine, or as a parallel prefix (`affine`).
"""

from abc import abstractmethod
from typing import Any

from jaxtyping import Array, Float

from jax_lstm.cells.base import SplitCell
from jax_lstm.cells.weights import bounded, product


class InputGatedCell(SplitCell):
    """A cell whose params are called w_x and b, and whose state is h."""

    @property
    @abstractmethod
    def compute_dtype(self) -> str | None:
        """What the product rounds its operands to."""

    @property
    @abstractmethod
    def state_type(self) -> Any:
        """The NamedTuple of h."""

    @abstractmethod
    def coefficients(self, z: Float[Array, " Z"]) -> tuple[Float[Array, " H"], Float[Array, " H"]]:
        """a and b of one step."""

    def project(self, params: Any, x: Float[Array, " I"]) -> Float[Array, " Z"]:
        """zx = x w_x."""
        return product(bounded(x, params.w_x.dtype), params.w_x, self.compute_dtype)

    def recur(self, params: Any, state: Any) -> Float[Array, " H"]:
        """h itself: no weight acts on it."""
        return state.h

    def update(self, params: Any, state: Any, zx: Float[Array, " Z"], zh: Float[Array, " H"]) -> Any:
        """h_t = a ⊙ h_{t−1} + b."""
        a, b = self.coefficients(zx + params.b)
        return self.state_type(a * zh + b)

    def affine(self, params: Any, x: Float[Array, " I"]) -> tuple[Any, Any]:
        """The step as s_t = a ⊙ s_{t−1} + b: a and b, as states."""
        a, b = self.coefficients(self.project(params, x) + params.b)
        return self.state_type(a), self.state_type(b)
