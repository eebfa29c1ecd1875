"""Fixed points of a cell's step at a constant input, and the eigenvalues of the step's Jacobian there.

    F(s) = step(params, s, x) at one input x        r(s) = F(s) − s        J = ∂F/∂s

The Levenberg–Marquardt method solves r = 0 from each start: (AᵀA + μ I) δ = −Aᵀ r with A = J − I. μ decreases after an
iteration that lowers |r| and increases after one that does not.

The method stops at a minimum of |r|, where r may be far from 0. It cannot see an entry that moves by a constant per
step, because r does not depend on that entry: m of an sLSTM, as long as ln f + m exceeds z_i. Plain steps s ← F(s) do
move it. So a start that does not converge is searched once more, from the state to which plain steps lead. A start that
converges at once is not simulated: it may have found an unstable fixed point, which plain steps leave.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Complex, Float

from jax_lstm import checks
from jax_lstm.abilities import check_pure
from jax_lstm.cell import Cell
from jax_lstm.gates import at_least_float32
from jax_lstm.gradflow.bound import weights_of, with_weights
from jax_lstm.gradflow.flat import flatten_state, unflatten_state
from jax_lstm.gradflow.jacobians import jacobian
from jax_lstm.gradflow.trajectory import checked_step


class FixedPoints(NamedTuple):
    """The result of `fixed_points`; each array has one row per start."""

    points: Any  # the cell's own state type
    speeds: Float[Array, " S"]  # |F(s) − s|: zero at a fixed point, small at a slow point
    eigenvalues: Complex[Array, "S N"]  # of J at the point, which is stable if all lie inside the unit circle


def fixed_points(
    cell: Cell, params: Any, x: ArrayLike, starts: Any, *, iterations: int = 100, constants: Any = None
) -> FixedPoints:
    """Fixed points of a cell's step at one constant input, searched from several starts.

    The method minimizes |F(s) − s| from each start by Levenberg–Marquardt iterations. This finds unstable fixed points
    too. If the speed is then above ε^(3/4), with ε the precision of the dtype, the start is simulated for 100 ·
    `iterations` steps s ← F(s), and the search is repeated from there. The second result is kept if its speed is lower,
    and at most √ε.

    Several starts may converge to the same point. A start may also end at a slow point that is not a fixed point, so
    check the speeds.

    Args:
        cell: a causal cell or layer, as for `step`.
        params: the parameters, as returned by `cell.init`. Points are more exact in float64.
        x: (I,), the input, held constant.
        starts: S states as one pytree; each leaf has a leading axis of length S. For example, what `unroll_states`
            returns.
        iterations: Levenberg–Marquardt iterations of one search.
        constants: as for `unroll`.

    Returns:
        FixedPoints, in the params' dtype or float32, whichever is wider:
        points, the cell's state type, each leaf with a leading axis of length S;
        speeds (S,), |F(s) − s|: zero at a fixed point, small at a slow point;
        eigenvalues (S, N), complex, of J at each point. The point is stable if all lie inside the unit circle. Not
        every backend computes them; a CPU does.

    Raises:
        ValueError: `starts` has no leading axis, no entries, or shapes unlike the cell's state; other cases as for
            `step`.
        TypeError: as for `step`.

    Source: Sussillo & Barak 2013, who minimize |F(s) − s|²/2. Repeating the search after a simulation is added here,
    for cells such as `SLSTM`, of which some entries move by a constant per step.
    """
    cell = checks.check_cell("fixed_points", cell)
    dtype = checks.check_params("fixed_points", cell, params)[1]
    x = checks.check_input("fixed_points", "x", x, cell, dtype, "(I,)")
    iterations = checks.positive_int("fixed_points", "iterations", iterations)
    leaves = [checks.as_array("fixed_points", "every leaf of starts", leaf) for leaf in jax.tree.leaves(starts)]
    if not leaves or any(leaf.ndim == 0 or len(leaf) != len(leaves[0]) for leaf in leaves):
        shapes = ", ".join(str(leaf.shape) for leaf in leaves)
        raise ValueError(
            "fixed_points: every leaf of starts must have the same leading axis, but "
            + (f"the shapes are {shapes}" if leaves else "starts has no leaves")
            + "; stack the starts along axis 0"
        )
    if len(leaves[0]) == 0:
        raise ValueError(
            "fixed_points: starts must have at least 1 entry on its leading axis, but has 0; pass one or more states"
        )
    starts = jax.vmap(lambda state: checks.check_state("fixed_points", cell, state, dtype))(starts)
    first = jax.tree.map(lambda a: a[0], starts)
    cell, params, x, _ = checked_step("fixed_points", cell, params, x, first, constants)
    wide = at_least_float32(dtype)
    x, starts = jax.tree.map(lambda a: a.astype(wide), (x, starts))
    params = with_weights(params, jax.tree.map(lambda a: a.astype(wide), weights_of(params)))
    return _fixed_points(cell, iterations, params, x, starts)


@partial(jax.jit, static_argnames=("cell", "iterations"))
def _fixed_points(cell: Any, iterations: int, params: Any, x: Float[Array, " I"], starts: Any) -> FixedPoints:
    one = jax.tree.map(lambda a: a[0], starts)
    check_pure(cell, params, one, x[None])

    def J(s: Float[Array, " N"]) -> Float[Array, "N N"]:
        return jacobian(cell, params, unflatten_state(s, one), x)

    def F(s: Float[Array, " N"]) -> Float[Array, " N"]:
        return flatten_state(cell.step(params, unflatten_state(s, one), x)[0])

    def r(s: Float[Array, " N"]) -> Float[Array, " N"]:
        return F(s) - s

    def body(search: tuple, _: None) -> tuple[tuple, None]:
        s, mu = search
        eye = jnp.eye(s.size, dtype=s.dtype)
        A, here = J(s) - eye, r(s)
        there = s - jnp.linalg.solve(A.T @ A + mu * eye, A.T @ here)
        better = jnp.linalg.norm(r(there)) < jnp.linalg.norm(here)
        least = jnp.finfo(s.dtype).eps
        return (jnp.where(better, there, s), jnp.where(better, jnp.maximum(mu / 10, least), mu * 4)), None

    def search(s: Float[Array, " N"]) -> tuple[Float[Array, " N"], Float[Array, ""]]:
        (s, _), _ = jax.lax.scan(body, (s, jnp.ones_like(s[0])), length=iterations)
        return s, jnp.linalg.norm(r(s))

    def simulated(s: Float[Array, "S N"]) -> Float[Array, "S N"]:
        return jax.lax.scan(lambda s, _: (jax.vmap(F)(s), None), s, length=100 * iterations)[0]

    starts = jax.vmap(flatten_state)(starts)
    eps = jnp.finfo(starts.dtype).eps

    def attempt(best: tuple, again: Bool[Array, ""]) -> tuple[tuple, None]:
        """Search from each start that has not converged; `again`: from where its simulation ends."""

        def one(at: tuple) -> tuple[Float[Array, " N"], Float[Array, ""]]:
            start, s, speed = at
            new, its_speed = jax.lax.cond(speed <= eps**0.75, lambda _: (s, speed), search, start)
            take = ~again | ((its_speed <= eps**0.5) & ~(its_speed >= speed))
            return jnp.where(take, new, s), jnp.where(take, its_speed, speed)

        def all_of(best: tuple) -> tuple:
            return jax.lax.map(one, (jax.lax.cond(again, simulated, lambda s: s, starts), *best))

        return jax.lax.cond((best[1] <= eps**0.75).all(), lambda best: best, all_of, best), None

    with jax.default_matmul_precision("highest"):
        unsearched = starts, jnp.full_like(starts[:, 0], jnp.inf)
        (s, speeds), _ = jax.lax.scan(attempt, unsearched, jnp.array([False, True]))
        eigenvalues = jax.lax.map(lambda s: jnp.linalg.eigvals(J(s)), s)
    return FixedPoints(jax.vmap(partial(unflatten_state, like=one))(s), speeds, eigenvalues)
