"""A cell with the constants of one sequence: its params and the constants together are the params of a `Bound` cell.

The measurements then need no argument for constants.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
from jax.typing import ArrayLike

from jax_lstm.cell import call_given
from jax_lstm.layers.wrapper import CellWrapper
from jax_lstm.sequence import unroll_states


class BoundParams(NamedTuple):
    """Params of a `Bound` cell: those of the cell, and its constants."""

    cell: Any
    constants: Any


@dataclass(frozen=True)
class Bound(CellWrapper):
    """A cell whose `step` reads its constants from the params."""

    @property
    def takes_constants(self) -> bool:
        """False: the params hold them."""
        return False

    def initial_state(self, params: BoundParams) -> Any:
        """The initial state of the cell."""
        return self.cell.initial_state(params.cell)

    def step(self, params: BoundParams, state: Any, x: Any) -> tuple[Any, jax.Array]:
        """The step of the cell with its constants."""
        return call_given(self.cell.step, params.cell, state, x, given={"constants": params.constants})


def bound(cell: Any, params: Any, constants: Any) -> tuple[Any, Any]:
    """The cell and params to measure: themselves without constants."""
    return (cell, params) if constants is None else (Bound(cell), BoundParams(params, constants))


def weights_of(params: Any) -> Any:
    """The params of the cell itself."""
    return params.cell if isinstance(params, BoundParams) else params


def with_weights(params: Any, weights: Any) -> Any:
    """The same constants with other params of the cell."""
    return BoundParams(weights, params.constants) if isinstance(params, BoundParams) else weights


def states_of(cell: Any, params: Any, xs: ArrayLike, state: Any) -> Any:
    """`unroll_states` of a cell that may be `Bound`."""
    if isinstance(params, BoundParams):
        return unroll_states(cell.cell, params.cell, xs, state, constants=params.constants)
    return unroll_states(cell, params, xs, state)
