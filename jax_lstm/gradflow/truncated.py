"""The truncated gradient of the original LSTM (Hochreiter & Schmidhuber 1997): errors flow back along c only.

The gradient is stopped at every h that enters a step. What is left of the step's Jacobian is

    ∂s_t/∂h_{t−1} := 0        ∂c_t/∂c_{t−1} = diag(f_t)        (in 1997 f was 1: the constant error carousel)
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jax_lstm import checks
from jax_lstm.abilities import has_noise, init_cell, noise_of
from jax_lstm.cell import Noise, call_given
from jax_lstm.checks import state_shapes
from jax_lstm.layers.wrapper import CellWrapper
from jax_lstm.registry import register_cell


@register_cell
@dataclass(frozen=True)
class Truncated(CellWrapper):
    """Wrap a cell so that the gradient stops at every h that enters a step; the outputs do not change.

    Train with it as with any other cell: `jl.unroll(jl.gradflow.Truncated(cell), params, xs)`. It runs as a `lax.scan`
    of `step`, which is slower than the engine "hoisted".

    Args:
        cell: a cell whose state is a NamedTuple with a field h and at least one other leaf.

    Raises:
        ValueError: the state has no field h, or has no other leaf, so that no gradient would be left.
    """

    def __post_init__(self):
        super().__post_init__()
        state = state_shapes(self.cell, jnp.dtype(jnp.float32))
        if "h" not in checks.field_names(state) or len(jax.tree.leaves(state)) < 2:
            raise ValueError(
                f'truncate="1997": the state of cell {type(self.cell).__name__} must be a NamedTuple with h and '
                f"another leaf, such as LSTMState(h, c), but is {type(state).__name__}; use the full gradient instead"
            )

    def init(self, key: jax.Array, dtype: DTypeLike = jnp.float32, **choices: Any) -> Any:
        """Initialize the params of the wrapped cell; `choices` are keyword arguments of its `init`."""
        return init_cell("Truncated.init", self.cell, key, dtype, choices)

    def initial_state(self, params: Any) -> Any:
        """Return the initial state of the wrapped cell."""
        return self.cell.initial_state(params)

    @property
    def has_noise(self) -> bool:
        """Whether the wrapped cell draws random numbers."""
        return has_noise(self.cell)

    def sample_noise(self, params: Any, key: jax.Array, T: int, rates: dict[str, Any] | None = None) -> Noise:
        """Draw the random numbers of the wrapped cell; `rates` are those of its `sample_noise`."""
        return noise_of("Truncated.sample_noise", self.cell, params, key, T, rates)

    def step(self, params: Any, state: Any, x: Any, **given: Any) -> tuple[Any, jax.Array]:
        """Run the step of the wrapped cell, with the previous h as a constant for the gradient."""
        state = state._replace(h=jax.lax.stop_gradient(state.h))
        return call_given(self.cell.step, params, state, x, given=given)


def truncated(caller: str, cell: Any, truncate: str | None) -> Any:
    """Return the cell, or `Truncated(cell)` if truncate is "1997"; other values raise a ValueError."""
    if truncate is None:
        return cell
    if not isinstance(truncate, str) or truncate != "1997":
        raise ValueError(f'{caller}: truncate must be None or "1997", but is {checks.shown(truncate)}')
    try:
        return Truncated(cell)
    except ValueError as error:
        raise ValueError(f"{caller}: {error}") from None
