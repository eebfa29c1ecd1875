"""Sensitivity of the last state to the states s_0 … s_T: the norm of a product of Jacobians (product.py)."""

from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jax_lstm.cell import Cell
from jax_lstm.gradflow.product import Product, finite, products
from jax_lstm.gradflow.trajectory import checked


def sensitivity(
    cell: Cell, params: Any, xs: ArrayLike, state: Any = None, *, truncate: str | None = None, constants: Any = None
) -> Float[Array, " K"]:
    """Gradient profile: log-norm of the derivative of the last state with respect to each of the states s_0 … s_T.

        ℓ_k = log ‖∂s_T/∂s_k‖₂        s_k the state after k steps, so ℓ_T = 0

    N is the number of entries of the state: 2H for an LSTM, H for a GRU. As if by::

        log_norms, product = np.empty(T + 1), np.eye(N)
        for k in range(T, 0, -1):
            log_norms[k] = np.log(np.linalg.norm(product, 2))
            product = product @ step_jacobians(cell, params, xs, state)[k - 1]
        log_norms[0] = np.log(np.linalg.norm(product, 2))

    but without underflow, and with memory O(T N + N²) instead of O(T N²). Do not differentiate the result, for example
    in a loss: its gradient is NaN, because the logarithm of an exact zero is computed on the way.

    Args:
        cell: a causal cell or layer, as for `step`.
        params: the parameters, as returned by `cell.init`.
        xs: (T, I) floats, one sequence. For a batch xs (B, T, I):
            `jax.vmap(lambda xs: jl.gradflow.sensitivity(cell, params, xs))(xs)`.
        state: s_0, the state before the first step; None: `cell.initial_state(params)`.
        truncate: "1997" stops the gradient at every h that enters a step (see `Truncated`); None: full gradient.
        constants: as for `unroll`.

    Returns:
        (K,) with K = T + 1: natural logs (nats) of spectral norms, in the params' dtype or float32, whichever is wider.
        Finite if the norm is positive, also after thousands of steps; −inf if it is exactly zero.

    Raises:
        ValueError, TypeError: as for `unroll`.

    Source: Pascanu, Mikolov & Bengio 2013, eq. 5, for the product; Benettin et al. 1980 for a QR decomposition at every
    step, which keeps the product from underflowing.
    """
    return products("sensitivity", _log_norm, *checked("sensitivity", cell, params, xs, state, truncate, constants))


def _log_norm(P: Product) -> Float[Array, ""]:
    """log ‖P‖₂ = log ‖diag(e^d) U‖₂."""
    top = finite(P.d.max())
    return top + jnp.log(jnp.linalg.norm(jnp.exp(P.d - top)[:, None] * P.U, 2))
