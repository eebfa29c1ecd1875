"""Product of the Jacobians of any number of steps, stored so that no part of it underflows or overflows.

    ∂s_T/∂s_k = J_T J_{T−1} … J_{k+1}        J_t = ∂s_t/∂s_{t−1}

The plain product of about 40 Jacobians of a plain RNN underflows float32. Here the transposed product is stored as
P = Q diag(e^d) U. Q is orthogonal, from a QR decomposition at every step (Benettin et al. 1980). U is upper triangular
with rows of size 1. The scale of each row is stored as its logarithm, d. So one direction may fall any distance below
the others and is still exact after those reach zero. The product is as precise as the Jacobians themselves.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jax_lstm.gates import at_least_float32
from jax_lstm.gradflow.jacobians import jacobian
from jax_lstm.gradflow.trajectory import states_before


class Product(NamedTuple):
    """The factors of (∂s_T/∂s_k)ᵀ = Q diag(e^d) U."""

    Q: Float[Array, "N N"]
    d: Float[Array, " N"]
    U: Float[Array, "N N"]


@partial(jax.jit, static_argnames=("caller", "read", "cell"))
def products(
    caller: str, read: Callable[[Product], Any], cell: Any, params: Any, xs: Float[Array, "T I"], state: Any
) -> Any:
    """Apply `read` to the product from s_k to s_T for every k = 0..T, and stack the results over k.

    `read` must be a module-level function, because it is a static argument of a jitted function.
    """
    s_tm1s = states_before(caller, cell, params, xs, state)
    J = jax.eval_shape(partial(jacobian, cell, params), state, xs[:1].sum(0))
    eye = jnp.eye(len(J), dtype=at_least_float32(J.dtype))

    def body(P: Product, stream: tuple) -> tuple[Product, Any]:
        J_t = jacobian(cell, params, *stream).astype(eye.dtype)
        Q, R = jnp.linalg.qr(J_t.T @ P.Q)
        P = Product(Q, *_left_multiplied(R, P.d, P.U))
        return P, read(P)

    with jax.default_matmul_precision("highest"):
        none_yet = Product(eye, jnp.zeros_like(eye[0]), eye)
        _, before = jax.lax.scan(body, none_yet, (s_tm1s, xs), reverse=True)
        return jax.tree.map(lambda a, b: jnp.concatenate([a, b[None]]), before, read(none_yet))


def _left_multiplied(
    R: Float[Array, "N N"], d: Float[Array, " N"], U: Float[Array, "N N"]
) -> tuple[Float[Array, " N"], Float[Array, "N N"]]:
    """Factors d, U of R diag(e^d) U.

    The logarithm of every entry is formed first, and then the scale of each row is divided out.
    """
    log_a = jnp.log(jnp.abs(R)) + d[None, :]
    top = log_a.max(axis=1)
    a = jnp.sign(R) * jnp.exp(log_a - finite(top)[:, None])
    V = a @ U
    size = jnp.abs(V).max(axis=1)
    return top + jnp.log(size), V / jnp.where(size == 0, 1, size)[:, None]


def finite(top: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """The log-scale to divide by: 0 in place of −inf, so that −inf is never subtracted from −inf."""
    return jnp.where(top == -jnp.inf, 0, top)
