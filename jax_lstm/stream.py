"""Streaming: a cell compiled for step-by-step use, with its state updated in place."""

from collections import Counter
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jax_lstm import checks
from jax_lstm.abilities import check_causal
from jax_lstm.batch import batched
from jax_lstm.cell import Cell
from jax_lstm.engines.arguments import are_arrays
from jax_lstm.sequence import step, unroll


class Stream(NamedTuple):
    """The two compiled functions that `stream` returns.

    step: (params, state, x (I,), mask=None, reset=None, *, constants=None) -> (state, h (H,)), as `jl.step`.
    chunk: (params, state, xs (T, I), mask=None, reset=None, *, constants=None) -> (state, hs (T, H)), as `jl.unroll`;
        compiled once for each T.

    With `stream(cell, batch=True)` every array but params has a leading batch axis B: xs is (B, T, I), and mask and
    reset of a chunk are (B, T). Both functions donate the state that they get: do not use it again, use the returned
    one.
    """

    step: Callable[..., tuple[Any, jax.Array]]
    chunk: Callable[..., tuple[Any, jax.Array]]


def stream(cell: Cell, *, batch: bool = False) -> Stream:
    """Compile a cell for streaming: one function for a step, one for a chunk of steps.

    As if by::

        step = jax.jit(partial(jl.step, cell), donate_argnums=1)

        def chunk(params, state, xs, mask=None, reset=None):
            return jl.unroll(cell, params, xs, state, mask, reset)

        chunk = jax.jit(chunk, donate_argnums=1)

    Each function is compiled at its first call, and again for new shapes, such as another T. Steps, chunks of any
    lengths and one `unroll` over all inputs give the same numbers up to rounding. No random numbers are drawn, as in
    `step`. A second call of `stream` with an equal cell and the same `batch` returns the same two functions.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> import jax_lstm as jl
    >>> cell = jl.LSTM(input_size=3, hidden_size=4)
    >>> params = cell.init(jax.random.key(0))
    >>> run = jl.stream(cell)
    >>> state, h = run.step(params, cell.initial_state(params), jnp.ones(3, jnp.float32))
    >>> state, hs = run.chunk(params, state, jnp.ones((5, 3), jnp.float32))
    >>> h.shape, hs.shape
    ((4,), (5, 4))

    Args:
        cell: as for `unroll`; it must be causal.
        batch: whether to run B sequences at once. Then every array but params has a leading axis B. For `step`, x is
            (B, I), and mask and reset are (B,). For `chunk`, xs is (B, T, I), and mask and reset are (B, T). Make the
            first state with `jl.initial_states(cell, params, B)`, or pass None.

    Returns:
        Stream(step, chunk). Both donate the state: use the returned state, not the one passed in.

    Raises:
        ValueError: the cell is not causal (it reads later inputs). When called: as for `step` and `unroll`.
        TypeError: `cell` is not a cell, or `batch` is not a bool. When called: as for `step` and `unroll`.
        RuntimeError or ValueError: when called with a state that was donated before; the error is JAX's own.
    """
    return _compiled(
        check_causal("stream", checks.check_cell("stream", cell)), checks.check_bool("stream", "batch", batch)
    )


@lru_cache(maxsize=64)
def _compiled(cell: Cell, batch: bool) -> Stream:
    one_step, sequence = (batched(step), batched(unroll)) if batch else (step, unroll)
    of_step = _donating(partial(_of_step, one_step, cell))
    of_chunk = _donating(partial(_of_chunk, sequence, cell))

    def run_step(params: Any, state: Any, x: Any, mask: Any = None, reset: Any = None, *, constants: Any = None) -> Any:
        return of_step(params, state, x, mask, reset, constants)

    def chunk(params: Any, state: Any, xs: Any, mask: Any = None, reset: Any = None, *, constants: Any = None) -> Any:
        return of_chunk(params, state, xs, mask, reset, constants)

    return Stream(run_step, chunk)


def _of_step(one_step: Callable, cell: Cell, params: Any, state: Any, x: Any, *rest: Any) -> Any:
    mask, reset, constants = rest
    return one_step(cell, params, state, x, mask, reset, constants=constants)


def _of_chunk(sequence: Callable, cell: Cell, params: Any, state: Any, xs: Any, *rest: Any) -> Any:
    mask, reset, constants = rest
    return sequence(cell, params, xs, state, mask, reset, constants=constants)


def _donating(run: Callable) -> Callable[..., Any]:
    """Compile `run` so that it donates its second argument, the state; arguments are looked at after an error only."""
    compiled = jax.jit(run, donate_argnums=1)

    def call(params: Any, state: Any, *rest: Any) -> Any:
        try:
            return compiled(params, state, *rest)
        except (TypeError, ValueError, RuntimeError):
            leaves = jax.tree.leaves((params, state, rest))
            if not are_arrays(leaves):  # raises the error that names the argument
                return run(params, state, *rest)
            # A leaf that is also another argument, or another leaf, cannot be donated.
            count = Counter(map(id, leaves))
            if len(count) == len(leaves):
                raise
            state = jax.tree.map(lambda leaf: jnp.copy(leaf) if count[id(leaf)] > 1 else leaf, state)
            return compiled(params, state, *rest)

    return call
