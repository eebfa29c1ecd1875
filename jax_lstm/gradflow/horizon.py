"""Memory horizon: the number of steps in which a gradient's norm falls by a factor e.

    horizon         −1 / log ρ, with ρ the spectral radius of the step's Jacobian at one point
    data_horizon    1 / slope of the log-norms ℓ_k = log ‖∂s_T/∂s_k‖₂ over k, along a sequence

Both are inf if the norm does not fall.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jax_lstm import checks
from jax_lstm.abilities import check_pure
from jax_lstm.cell import Cell
from jax_lstm.gates import at_least_float32
from jax_lstm.gradflow.jacobians import jacobian
from jax_lstm.gradflow.sensitivity import sensitivity
from jax_lstm.gradflow.trajectory import checked, checked_step

SQUARINGS = 64  # n = 2⁶⁴: a constant factor in ‖Jⁿ‖ then changes log ‖Jⁿ‖ / n by less than float64 resolves


def horizon(
    cell: Cell, params: Any, state: Any = None, x: ArrayLike | None = None, *, constants: Any = None
) -> Float[Array, ""]:
    """Memory horizon at one state and one input: the number of steps in which the gradient falls by a factor e.

        −1 / log ρ        ρ the spectral radius of J = ∂s_t/∂s_{t−1}

    By default state and input are both zero, called "at rest" here. At rest an LSTM with the default initialization has
    ρ = max_k |σ(b_f) + λ_k/4|. λ_k are the eigenvalues of U_g, the H columns of w_h for g. A tanh RNN with orthogonal
    w_h has ρ = 1 at rest, however fast it forgets on data. So for a trained network report `data_horizon` instead,
    which measures along a sequence.

    As if by::

        radius = max(abs(np.linalg.eigvals(J)))
        return np.inf if radius >= 1 - 10 * eps * N else -1 / np.log(radius)

    where N is the number of entries of the state and eps the machine epsilon of the dtype. The implementation needs no
    eigenvalues, which not every backend computes: ρ = lim ‖Jⁿ‖^(1/n) (Gelfand 1941) for n = 2, 4, 8, ….
    Call it as `jl.gradflow.horizon(cell, params)`.

    Args:
        cell: a causal cell or layer, as for `step`.
        params: the parameters, as returned by `cell.init`.
        state: the state s_{t−1} at which J is computed; None: all zeros.
        x: (I,), the input x_t at which J is computed; None: zeros.
        constants: as for `unroll`.

    Returns:
        A scalar: the horizon in steps, never negative, in the params' dtype or float32, whichever is wider. inf if ρ is
        1 or more, up to rounding; 0 if ρ is 0.

    Raises:
        ValueError, TypeError: as for `step`.
    """
    cell = checks.check_cell("horizon", cell)
    params, dtype = checks.check_params("horizon", cell, params)
    state = jax.tree.map(jnp.zeros_like, cell.initial_state(params)) if state is None else state
    x = jnp.zeros(cell.input_size, dtype) if x is None else x
    cell, params, x, state = checked_step("horizon", cell, params, x, state, constants)
    return _horizon(cell, params, state, x)


@partial(jax.jit, static_argnames="cell")
def _horizon(cell: Any, params: Any, state: Any, x: Float[Array, " I"]) -> Float[Array, ""]:
    check_pure(cell, params, state, x[None])
    J = jacobian(cell, params, state, x)
    return _steps(_log_radius(J.astype(at_least_float32(J.dtype))), len(J))


def data_horizon(
    cell: Cell, params: Any, xs: ArrayLike, state: Any = None, *, constants: Any = None
) -> Float[Array, ""]:
    """Memory horizon along a sequence: the number of steps in which the gradient falls by a factor e.

        1 / slope of ℓ_k over k, by least squares        ℓ_k = log ‖∂s_T/∂s_k‖₂

    Report this one, not `horizon`, for a trained network. N is the number of entries of the state, eps the machine
    epsilon of the dtype. As if by::

        slope, _ = np.polyfit(np.arange(T + 1), sensitivity(cell, params, xs, state), 1)
        return np.inf if slope <= 10 * eps * N else 1 / slope

    Args:
        cell, params, xs, state, constants: as for `sensitivity`; T must be at least 1.

    Returns:
        A scalar: the horizon in steps, never negative, in the dtype of `sensitivity`. inf if the norm does not fall; 0
        if the last step's Jacobian is zero. Entries of −inf are left out of the fit. For a batch, average 1 / horizon,
        because a sequence whose gradient does not fall has an infinite horizon.

    Raises:
        ValueError: xs has no steps; other cases as for `unroll`.
        TypeError: as for `unroll`.
    """
    cell = checks.check_cell("data_horizon", cell)
    *_, measured, s_0 = checked("data_horizon", cell, params, xs, state, None, constants)
    if measured.shape[0] == 0:
        raise ValueError(
            f"data_horizon: xs must have at least 1 step, but has 0 (xs.shape={measured.shape}); pass a longer sequence"
        )
    size = sum(leaf.size for leaf in jax.tree.leaves(s_0))
    return _steps(-_slope(sensitivity(cell, params, xs, state, constants=constants)), size)


def _steps(log_ratio: Float[Array, ""], size: int) -> Float[Array, ""]:
    """−1 / log_ratio, where log_ratio is the log of the norm's factor per step; inf if the factor is 1 or more."""
    stays = log_ratio >= jnp.log1p(-10 * size * jnp.finfo(log_ratio.dtype).eps)
    return jnp.where(stays, jnp.inf, -1 / jnp.where(stays, -1, log_ratio))


def _log_radius(J: Float[Array, "N N"]) -> Float[Array, ""]:
    """Log of ρ(J) = lim ‖Jⁿ‖^(1/n) by repeated squaring.

    The norm n_m is divided out before squaring m, so log ρ = Σ_m log n_m / 2^m.
    """

    def square(A: Float[Array, "N N"], weight: Float[Array, ""]) -> tuple[Float[Array, "N N"], Float[Array, ""]]:
        norm = jnp.linalg.norm(A)
        A = A / jnp.where(norm == 0, 1, norm)
        return A @ A, weight * jnp.log(norm)

    with jax.default_matmul_precision("highest"):
        weights = 0.5 ** jnp.arange(SQUARINGS, dtype=J.dtype)
        return jax.lax.scan(square, J, weights)[1].sum()


def _slope(log_norms: Float[Array, " K"]) -> Float[Array, ""]:
    """Least-squares slope over k of the entries above −inf; inf if only the last entry is."""
    known = log_norms != -jnp.inf
    n = known.sum().astype(log_norms.dtype)
    k = jnp.arange(log_norms.shape[0], dtype=log_norms.dtype)
    y = jnp.where(known, log_norms, 0)
    dk = jnp.where(known, k - jnp.where(known, k, 0).sum() / n, 0)
    rise, run = (dk * y).sum(), (dk * dk).sum()
    return jnp.where(run == 0, jnp.inf, rise / jnp.where(run == 0, 1, run))
