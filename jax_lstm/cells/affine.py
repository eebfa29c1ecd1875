"""What the cells have in common whose pre-activation is affine in the input and in h:

    z = x w_x + h w_h + b

Such a cell adds its own `update`, `linearise` and `along` to this. b is left to those: it costs no pass there.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jax_lstm.cells.base import SplitCell
from jax_lstm.cells.weights import bounded, product, product_by_transpose


class AffineCell(SplitCell):
    """A cell whose params are called w_x, w_h and b, and whose state has an h."""

    @property
    @abstractmethod
    def compute_dtype(self) -> str | None:
        """What products round their operands to."""

    def project(self, params: Any, x: Float[Array, " I"]) -> Float[Array, " Z"]:
        """zx = x w_x."""
        return product(bounded(x, params.w_x.dtype), params.w_x, self.compute_dtype)

    def recur(self, params: Any, state: Any) -> Float[Array, " Z"]:
        """zh = h w_h."""
        return product(state.h, params.w_h, self.compute_dtype)

    def drive(
        self, params: Any, dparams: Any, x: Float[Array, " I"], dx: Array | None, state: Any
    ) -> Float[Array, " Z"] | None:
        """dz = x dw_x + h dw_h + db + dx w_x, with h held fixed; None where neither dparams nor dx is given.

        b rides along as one more row of w_x, on a feature that is always 1: a sum on its own would join an array that
        has a batch axis to one that has none (trajectory.py), and its gradient would be one more pass over every step.
        """
        parts = []
        if dparams is not None:
            x_1 = jax.lax.pad(bounded(x, params.w_x.dtype), jnp.ones((), params.w_x.dtype), [(0, 1, 0)])
            parts.append(product(x_1, jnp.concatenate([dparams.w_x, dparams.b[None]]), self.compute_dtype))
            parts.append(product(state.h, dparams.w_h, self.compute_dtype))
        if dx is not None:
            parts.append(product(dx.astype(params.w_x.dtype), params.w_x, self.compute_dtype))
        return sum(parts[1:], parts[0]) if parts else None

    def recur_along(self, params: Any) -> Callable[[Any], Float[Array, " Z"]]:
        """dh ↦ dh w_h."""
        w_t = params.w_h.T
        return lambda dstate: product_by_transpose(dstate.h, w_t, self.compute_dtype)
