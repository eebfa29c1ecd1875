"""Where the dynamics rest: states that a step maps onto themselves, and what happens near them.

    F(s) = step(params, s, x) at one input x        r(s) = F(s) − s        J = ∂F/∂s

Levenberg–Marquardt looks for r = 0 from each start: (AᵀA + μ I) δ = −Aᵀ r with A = J − I, μ smaller after a step that
lowers |r| and larger after one that does not.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Complex, Float

from jax_lstm.cells import contract, door
from jax_lstm.cells.base import Cell
from jax_lstm.cells.weights import at_least_float32
from jax_lstm.gradflow.flat import flatten_state, unflatten_state
from jax_lstm.gradflow.jacobians import jacobian


class FixedPoints(NamedTuple):
    """One row a start."""

    points: Any  # the cell's own state type
    speeds: Float[Array, " S"]  # |F(s) − s|: zero at a fixed point, small at a slow one
    eigenvalues: Complex[Array, "S N"]  # of J there; the point is stable where all lie inside the unit circle


def fixed_points(cell: Cell, params: Any, x: ArrayLike, starts: Any, *, iterations: int = 100) -> FixedPoints:
    """The fixed or slow points of the step at one input, one found from each start.

    Several starts may find the same point, and a start may end at a slow point that is not fixed: look at the speeds.

    Args:
        cell: any cell; one with only `step` too.
        params: what `cell.init` gave; in float64 the points are found more exactly.
        x: (I,), the input, held constant.
        starts: states, each leaf with a leading axis of S, for example what `unroll_states` returns.
        iterations: of Levenberg–Marquardt, from every start.

    Returns:
        FixedPoints(points, speeds, eigenvalues), S of each, in the params' dtype or float32, whichever is wider.
        Eigenvalues need a CPU.

    Raises:
        ValueError: starts without a leading axis, or of other shapes than the cell's state; the rest as `step`.
        TypeError: as `step`.

    Source: Sussillo & Barak 2013.
    """
    cell = door.cell("fixed_points", cell)
    params, dtype = door.params("fixed_points", cell, params)
    x = door.data("fixed_points", "x", x, cell, dtype, "(I,)")
    iterations = door.size("fixed_points", "iterations", door.knob("fixed_points", "iterations", iterations))
    leaves = [door.array("fixed_points", "every leaf of starts", leaf) for leaf in jax.tree.leaves(starts)]
    if not leaves or any(leaf.ndim == 0 or len(leaf) != len(leaves[0]) for leaf in leaves):
        raise ValueError(
            f"fixed_points: every leaf of starts must have the same leading axis, one entry a start, but have shapes "
            f"{', '.join(str(leaf.shape) for leaf in leaves) or 'of no leaf'}"
        )
    if len(leaves[0]) == 0:
        raise ValueError("fixed_points: starts must hold at least 1 start, but hold none")
    starts = jax.vmap(lambda state: door.state("fixed_points", cell, state, dtype))(starts)
    wide = at_least_float32(dtype)
    params, x, starts = jax.tree.map(lambda a: a.astype(wide), (params, x, starts))
    return _fixed_points(cell, iterations, params, x, starts)


@partial(jax.jit, static_argnames=("cell", "iterations"))
def _fixed_points(cell: Any, iterations: int, params: Any, x: Float[Array, " I"], starts: Any) -> FixedPoints:
    one = jax.tree.map(lambda a: a[0], starts)
    contract.no_closed_over_tracer("fixed_points", cell, params, one, x[None])

    def J(s: Float[Array, " N"]) -> Float[Array, "N N"]:
        return jacobian(cell, params, unflatten_state(s, one), x)

    def r(s: Float[Array, " N"]) -> Float[Array, " N"]:
        return flatten_state(cell.step(params, unflatten_state(s, one), x)[0]) - s

    def body(search: tuple, _: None) -> tuple[tuple, None]:
        s, mu = search
        eye = jnp.eye(s.size, dtype=s.dtype)
        A, here = J(s) - eye, r(s)
        there = s - jnp.linalg.solve(A.T @ A + mu * eye, A.T @ here)
        better = jnp.linalg.norm(r(there)) < jnp.linalg.norm(here)
        least = jnp.finfo(s.dtype).eps
        return (jnp.where(better, there, s), jnp.where(better, jnp.maximum(mu / 10, least), mu * 4)), None

    def search(s: Float[Array, " N"]) -> tuple[Float[Array, " N"], Float[Array, ""], Complex[Array, " N"]]:
        (s, _), _ = jax.lax.scan(body, (s, jnp.ones_like(s[0])), length=iterations)
        return s, jnp.linalg.norm(r(s)), jnp.linalg.eigvals(J(s))

    with jax.default_matmul_precision("highest"):
        s, speeds, eigenvalues = jax.lax.map(search, jax.vmap(flatten_state)(starts))
    return FixedPoints(jax.vmap(partial(unflatten_state, like=one))(s), speeds, eigenvalues)
