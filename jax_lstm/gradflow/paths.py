"""Split the gradient of the cell state into the direct path along c and the paths through h.

D_t = ∂c_t/∂c_{t−1} with h_{t−1} held fixed is a block of the step's Jacobian; in an LSTM it is diag(f_t). Then

    ∂c_T/∂c_k = D_T … D_{k+1}  +  the sum over all paths that pass through an h at least once
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jax_lstm import checks
from jax_lstm.cell import Cell
from jax_lstm.gates import at_least_float32
from jax_lstm.gradflow.flat import flatten_state, part
from jax_lstm.gradflow.jacobians import jacobian
from jax_lstm.gradflow.trajectory import checked, states_before

WAYS = ("all", "cell", "hidden")


def paths(
    cell: Cell, params: Any, xs: ArrayLike, state: Any = None, *, through: str = "all", constants: Any = None
) -> Float[Array, "K C C"]:
    """Derivative of the last cell state with respect to each of c_0 … c_T, along all paths or along some of them.

        all      ∂c_T/∂c_k
        cell     D_T D_{T−1} … D_{k+1}        D_t = ∂c_t/∂c_{t−1}, h_{t−1} held fixed: diag(f_t) for the LSTM
        hidden   the sum over all paths that pass through an h at least once

    all = cell + hidden, up to rounding. Each of the three is computed on its own, not as a difference.

    Args:
        cell: a causal cell, as for `step`, whose state is a NamedTuple with a field c.
        params: the parameters, as returned by `cell.init`.
        xs: (T, I) floats, one sequence. For a batch xs (B, T, I):
            `jax.vmap(lambda xs: jl.gradflow.paths(cell, params, xs))(xs)`.
        state: s_0, the state before the first step; None: `cell.initial_state(params)`.
        through: "all", "cell" or "hidden".
        constants: as for `unroll`.

    Returns:
        (K, C, C) with K = T + 1 and C the size of c, in the params' dtype or float32, whichever is wider. Entry
        [k, m, n] is the derivative of entry m of c_T with respect to entry n of c_k. This is a plain product: in
        float32 it underflows below 10⁻³⁸. `sensitivity` and `retention` return logs that do not underflow.

    Raises:
        ValueError: the state has no c, or `through` is not one of the three; other cases as for `unroll`.
        TypeError: as for `unroll`.
    """
    cell, params, xs, state = checked("paths", cell, params, xs, state, None, constants)
    through = checks.one_of("paths", "through", through, WAYS)
    if "c" not in checks.field_names(state):
        raise ValueError(
            f"paths: the state of cell {type(cell).__name__} must be a NamedTuple with a field c, such as LSTMState, "
            f"but is a {type(state).__name__}; without c all paths pass through h, so use step_jacobians or sensitivity"
        )
    return _paths(cell, through, params, xs, state)


@partial(jax.jit, static_argnames=("cell", "through"))
def _paths(cell: Any, through: str, params: Any, xs: Float[Array, "T I"], state: Any) -> Float[Array, "T+1 C C"]:
    s_tm1s = states_before("paths", cell, params, xs, state)
    s = flatten_state(state)
    c, wide = part("c", state), at_least_float32(s.dtype)

    def body(ways: tuple, stream: tuple) -> tuple[tuple, Float[Array, "C C"]]:
        everything, along_c, through_h = ways
        J_t = jacobian(cell, params, *stream).astype(wide)
        J_c = J_t[c]  # ∂c_t/∂s_{t−1}
        D_t = J_c[:, c]
        ways = everything @ J_t, along_c @ D_t, through_h @ J_t + along_c @ J_c.at[:, c].set(0)
        return ways, read(ways)

    def read(ways: tuple) -> Float[Array, "C C"]:
        everything, along_c, through_h = ways
        return {"all": everything[:, c], "cell": along_c, "hidden": through_h[:, c]}[through]

    with jax.default_matmul_precision("highest"):
        here = jnp.eye(s.size, dtype=wide)[c]
        start = here, here[:, c], jnp.zeros_like(here)
        _, before = jax.lax.scan(body, start, (s_tm1s, xs), reverse=True)
        return jnp.concatenate([before, read(start)[None]])
