"""The original LSTM's gradient (Hochreiter & Schmidhuber 1997): errors flow back through the cell state alone.

In 1997 the derivative was cut wherever an h enters a step, so that what is left of a step's Jacobian is

    ∂s_t/∂h_{t−1} := 0        ∂c_t/∂c_{t−1} = diag(f_t)        (in 1997 f was 1: the constant error carousel)
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jax_lstm.cells import door
from jax_lstm.cells.shapes import state_shapes


@jax.tree_util.register_static
@dataclass(frozen=True)
class Truncated:
    """A cell whose step takes h for a constant: the same numbers, another gradient.

    It can be trained with, as any cell that has only `step`: `jl.unroll(Truncated(cell), params, xs)`.

    Args:
        cell: one whose state has an h, and more than that.

    Raises:
        ValueError: its state has no h, or nothing else: no gradient would be left.
    """

    cell: Any

    def __post_init__(self):
        state = state_shapes(door.cell("Truncated", self.cell), jnp.dtype(jnp.float32))
        if "h" not in getattr(state, "_fields", ()) or len(jax.tree.leaves(state)) < 2:
            raise ValueError(
                f'truncate="1997": cell {type(self.cell).__name__} must have a NamedTuple for a state, an h and more, '
                f"as LSTMState(h, c) is, but has {type(state).__name__}; cut at h, nothing of it would be left"
            )

    @property
    def input_size(self) -> int:
        """I, the number of features of x."""
        return self.cell.input_size

    @property
    def hidden_size(self) -> int:
        """H, the number of units."""
        return self.cell.hidden_size

    def init(self, key: jax.Array, dtype: DTypeLike = jnp.float32) -> Any:
        """The cell's own."""
        return self.cell.init(key, dtype)

    def initial_state(self, params: Any, like: jax.Array | None = None) -> Any:
        """The cell's own."""
        return self.cell.initial_state(params) if like is None else self.cell.initial_state(params, like)

    def step(self, params: Any, state: Any, x: Any) -> tuple[Any, jax.Array]:
        """The cell's own, from a state whose h is held constant."""
        return self.cell.step(params, state._replace(h=jax.lax.stop_gradient(state.h)), x)


def truncated(where: str, cell: Any, truncate: str | None) -> Any:
    """The cell, or the one that the switch `truncate` of a measurement asks for."""
    if truncate is None:
        return cell
    if truncate != "1997":
        raise ValueError(f'{where}: truncate must be None or "1997", but is {truncate!r}')
    try:
        return Truncated(cell)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
