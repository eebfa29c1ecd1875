"""How much the last state still feels an earlier one: the norm of a product of Jacobians.

    ∂s_T/∂s_k = J_T J_{T−1} … J_{k+1}        J_t = ∂s_t/∂s_{t−1}

Multiplied as they stand, some forty Jacobians of a plain RNN underflow float32. Here the transposed product is kept
as P = Q diag(e^d) U, Q orthogonal from a QR decomposition at every step (Benettin et al. 1980), U upper triangular with
rows of size 1, and each row's own scale d as a logarithm. A direction may then fall any distance below the others and
still be there when those die, and the result is as good as the Jacobians themselves.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jax_lstm.cells.base import Cell
from jax_lstm.cells.weights import at_least_float32
from jax_lstm.gradflow.jacobians import jacobian
from jax_lstm.gradflow.trajectory import checked, states_before


def sensitivity(cell: Cell, params: Any, xs: ArrayLike, state: Any = None) -> Float[Array, " K"]:
    """The log-norm of the last state's derivative by every state before it.

        ℓ_k = log ‖∂s_T/∂s_k‖₂        s_k the state after k steps, so ℓ_T = 0

    As if by::

        product = np.eye(N)
        for k in range(T, 0, -1):
            log_norms[k] = np.log(np.linalg.norm(product, 2))
            product = product @ step_jacobians(cell, params, xs, state)[k - 1]
        log_norms[0] = np.log(np.linalg.norm(product, 2))

    but without its underflow, and with memory O(T N + N²), not O(T N²). It is a measurement and not a loss: the logs of
    exact zeros inside make its own derivative NaN.

    Args:
        cell: any cell; one with only `step` too.
        params: what `cell.init` gave.
        xs: (T, I), one sequence. A batch: `jax.vmap(sensitivity, in_axes=(None, None, 0))`.
        state: s_0; `cell.initial_state(params)` if None.

    Returns:
        (K,) with K = T + 1: natural logs (nats) of spectral norms, in the params' dtype or float32, whichever is
        wider. Finite wherever the norm is positive, after thousands of steps too; −inf where it is exactly zero.

    Raises:
        ValueError, TypeError: as `unroll`.

    Source: Pascanu, Mikolov & Bengio 2013, eq. 5, for the product; Benettin et al. 1980 for the QR.
    """
    return _sensitivity(*checked("sensitivity", cell, params, xs, state))


@partial(jax.jit, static_argnames="cell")
def _sensitivity(cell: Any, params: Any, xs: Float[Array, "T I"], state: Any) -> Float[Array, "T+1"]:
    s_tm1s = states_before("sensitivity", cell, params, xs, state)
    J = jax.eval_shape(partial(jacobian, cell, params), state, xs[:1].sum(0))
    eye = jnp.eye(len(J), dtype=at_least_float32(J.dtype))

    def body(P: tuple, stream: tuple) -> tuple[tuple, Float[Array, ""]]:
        Q, d, U = P
        J_t = jacobian(cell, params, *stream).astype(Q.dtype)
        Q, R = jnp.linalg.qr(J_t.T @ Q)
        d, U = _left_multiplied(R, d, U)
        return (Q, d, U), _log_norm(d, U)

    with jax.default_matmul_precision("highest"):
        _, log_norms = jax.lax.scan(body, (eye, jnp.zeros_like(eye[0]), eye), (s_tm1s, xs), reverse=True)
    return jnp.append(log_norms, 0)


def _left_multiplied(
    R: Float[Array, "N N"], d: Float[Array, " N"], U: Float[Array, "N N"]
) -> tuple[Float[Array, " N"], Float[Array, "N N"]]:
    """d, U of R diag(e^d) U: every entry's logarithm is taken before a row's scale is taken out of it."""
    log_a = jnp.log(jnp.abs(R)) + d[None, :]
    top = log_a.max(axis=1)
    a = jnp.sign(R) * jnp.exp(log_a - _finite(top)[:, None])
    V = a @ U
    size = jnp.abs(V).max(axis=1)
    return top + jnp.log(size), V / jnp.where(size == 0, 1, size)[:, None]


def _log_norm(d: Float[Array, " N"], U: Float[Array, "N N"]) -> Float[Array, ""]:
    """The log of ‖diag(e^d) U‖₂."""
    top = _finite(d.max())
    return top + jnp.log(jnp.linalg.norm(jnp.exp(d - top)[:, None] * U, 2))


def _finite(top: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """The scale to divide by: 0 for that of a zero, so that −inf is never taken from −inf."""
    return jnp.where(top == -jnp.inf, 0, top)
