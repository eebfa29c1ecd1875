"""Singular values of a product of Jacobians, with the small ones as precise as the large ones.

An SVD resolves small singular values only up to the rounding error of the largest, but a product of many steps spans
hundreds of decades. One-sided Jacobi rotations do not mix scales (Hestenes 1958; Demmel & Veselić 1992). Each rotation
makes two rows e^{d_i} u_i and e^{d_j} u_j orthogonal within their plane, and stores the scale of each row as its
logarithm. Once all rows are orthogonal, the scales are the singular values.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jax_lstm import checks
from jax_lstm.cell import Cell
from jax_lstm.gradflow.flat import flatten_state
from jax_lstm.gradflow.product import Product, finite, products
from jax_lstm.gradflow.trajectory import checked

PASSES = 6  # QR decompositions before the rotations, which then need fewer sweeps
SWEEPS = 40  # at most, over all pairs of rows; convergence is quadratic and needs far fewer


def singular_values(
    cell: Cell,
    params: Any,
    xs: ArrayLike,
    state: Any = None,
    *,
    k: int | None = None,
    truncate: str | None = None,
    constants: Any = None,
) -> Float[Array, "K k"]:
    """Log singular values of the derivative of the last state with respect to each of the states s_0 … s_T.

        log σ_1 ≥ log σ_2 ≥ …  of ∂s_T/∂s_t        s_t the state after t steps

    As if by::

        for t in range(T + 1):
            logs[t] = np.log(np.linalg.svd(J[T - 1] @ … @ J[t], compute_uv=False))[:k]

    where J is what `step_jacobians` returns, and the product is the identity for t = T. The result does not underflow,
    and small values are as precise as large ones. The first column equals `sensitivity` up to rounding.
    The precision is limited by the step with the widest spread: a QR decomposition resolves 16 decades of one J in
    float64, and 7 in float32.

    Args:
        cell: a causal cell or layer, as for `step`.
        params: the parameters, as returned by `cell.init`.
        xs: (T, I) floats, one sequence. For a batch xs (B, T, I):
            `jax.vmap(lambda xs: jl.gradflow.singular_values(cell, params, xs))(xs)`.
        state: s_0, the state before the first step; None: `cell.initial_state(params)`.
        k: number of values to return, the largest ones; None: all N, the number of entries of the state. All N
            are computed in either case.
        truncate: "1997" stops the gradient at every h that enters a step (see `Truncated`); None: full gradient.
        constants: as for `unroll`.

    Returns:
        (K, k) with K = T + 1: natural logs (nats), largest first, in the params' dtype or float32, whichever is wider.
        The last row is 0. A direction that a step maps to zero is −inf if it is exactly zero there. If rounding leaves
        something of it, it falls by as many decades as the dtype resolves.

    Raises:
        ValueError: k is larger than N; other cases as for `unroll`.
        TypeError: as for `unroll`.
    """
    cell, params, xs, state = checked("singular_values", cell, params, xs, state, truncate, constants)
    N = flatten_state(state).size
    k = N if k is None else checks.positive_int("singular_values", "k", k)
    if k > N:
        raise ValueError(
            f"singular_values: k must be at most {N}, the size of the state, but is {checks.shown(k)}; "
            f"None gives all {N}"
        )
    return products("singular_values", _log_singular_values, cell, params, xs, state)[:, :k]


def _log_singular_values(P: Product) -> Float[Array, " N"]:
    """Log singular values of diag(e^d) U, largest first."""
    N = len(P.d)
    odd = N % 2  # for odd N a row of zeros makes the number of rows even
    d, L = _nearly_orthogonal(P.d, P.U)
    rows = _normalised(jnp.pad(d, (0, odd), constant_values=-jnp.inf), jnp.pad(L, ((0, odd), (0, 0))))
    tolerance = N * jnp.finfo(d.dtype).eps

    def unfinished(loop: tuple) -> Any:
        n, _, _, cosine = loop
        return (n < SWEEPS) & (cosine > tolerance)

    def sweep(loop: tuple) -> tuple:
        n, d, u, _ = loop
        (d, u), cosines = jax.lax.scan(_round, (d, u), length=len(d) - 1)
        return n + 1, d, u, cosines.max()

    _, d, _, _ = jax.lax.while_loop(unfinished, sweep, (0, *rows, jnp.full_like(d[0], jnp.inf)))
    return jnp.sort(d, descending=True)[:N]


def _nearly_orthogonal(d: Float[Array, " N"], U: Float[Array, "N N"]) -> tuple[Float[Array, " N"], Float[Array, "N N"]]:
    """Another diag(e^d) L with the same singular values, in which rows of very different scales are almost orthogonal.

    D L = Q R D with R from a QR decomposition of D L D⁻¹, which has no scale above 1 if d is in falling order. And
    R D = (D Rᵀ)ᵀ has the same form as the start.
    """
    order = jnp.argsort(-d)
    d, L = d[order], jnp.linalg.qr(U[order].T)[1].T
    ratio = jnp.where(d[:, None] == -jnp.inf, 0, jnp.exp(jnp.minimum(d[:, None] - finite(d)[None, :], 0)))
    for _ in range(PASSES):
        L = jnp.linalg.qr(ratio * L)[1].T
    return d, L


def _round(rows: tuple, _: None) -> tuple[tuple, Float[Array, ""]]:
    """Rotate N/2 pairs of rows, then move on to the next pairs, in the order of a round-robin tournament."""
    d, u = rows
    half = len(d) // 2
    d_i, d_j, u_i, u_j = d[:half], d[half:][::-1], u[:half], u[half:][::-1]
    swap = d_j > d_i
    d_i, d_j = jnp.where(swap, d_j, d_i), jnp.where(swap, d_i, d_j)
    u_i, u_j = jnp.where(swap[:, None], u_j, u_i), jnp.where(swap[:, None], u_i, u_j)
    # Unit vectors u_i, u_j; g is the cosine between them, r ≤ 1 the ratio of their scales, t the rotation's tangent.
    r = jnp.exp(d_j - finite(d_i))
    g = (u_i * u_j).sum(axis=1)
    below = (1 - r * r) + jnp.sqrt((1 - r * r) ** 2 + (2 * r * g) ** 2)
    t_over_r = 2 * g / jnp.where(g == 0, 1, below)
    cos = 1 / jnp.sqrt(1 + (r * t_over_r) ** 2)
    v_i = cos[:, None] * (u_i + (r * r * t_over_r)[:, None] * u_j)
    v_j = cos[:, None] * (u_j - t_over_r[:, None] * u_i)
    d_i, v_i = _normalised(d_i, v_i)
    d_j, v_j = _normalised(d_j, v_j)
    d_i, d_j = jnp.where(swap, d_j, d_i), jnp.where(swap, d_i, d_j)
    v_i, v_j = jnp.where(swap[:, None], v_j, v_i), jnp.where(swap[:, None], v_i, v_j)
    d, u = jnp.concatenate([d_i, d_j[::-1]]), jnp.concatenate([v_i, v_j[::-1]])
    turn = partial(jnp.roll, shift=1, axis=0)
    return (jnp.concatenate([d[:1], turn(d[1:])]), jnp.concatenate([u[:1], turn(u[1:])])), jnp.abs(g).max()


def _normalised(d: Float[Array, " n"], u: Float[Array, "n N"]) -> tuple[Float[Array, " n"], Float[Array, "n N"]]:
    """Normalize e^d u to e^d v with |v| = 1; a row of zeros has d = −inf."""
    size = jnp.sqrt((u * u).sum(axis=1))
    zero = (size == 0) | (d == -math.inf)
    return jnp.where(zero, -jnp.inf, d + jnp.log(jnp.where(zero, 1, size))), jnp.where(
        zero[:, None], 0, u / jnp.where(zero, 1, size)[:, None]
    )
