"""Base class of the cells whose pre-activation is affine in the input and in h:

    z = x w_x + h w_h + b

A subclass adds `update`, `linearise` and `along`. These add b, because there it costs no extra pass over the data.
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
    """Base class of LSTM, RNN and JANET: z = x w_x + h w_h + b.

    The params have the fields w_x, w_h and b; the state has a field h.
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

    def drive(
        self, params: Any, dparams: Any, x: Float[Array, " I"], dx: Array | None, state: Any
    ) -> Float[Array, " Z"] | None:
        """The tangent of the pre-activation with h held fixed: dz = x dw_x + h dw_h + db + dx w_x, (Z,).

        The parts of dparams and of dx are left out where these are None; the result is None where both are.

        db is computed as one more row of dw_x, for an input feature that is always 1. Adding db on its own would join
        an array that has a batch axis to one that has none (trajectory.py), and its gradient would be one more pass
        over every step.
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
        """A function that computes dh w_h from a tangent of the state, with w_h transposed once beforehand."""
        w_t = params.w_h.T
        return lambda dstate: product_by_transpose(dstate.h, w_t, self.compute_dtype)
