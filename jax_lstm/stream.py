"""A cell as it runs while its sequence is still being made: compiled once, its state updated in place."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax

from jax_lstm.batch import batched
from jax_lstm.cells import door
from jax_lstm.cells.base import Cell
from jax_lstm.sequence import step, unroll


class Stream(NamedTuple):
    """Two compiled functions. Both donate the state that they are given: use the one that comes back.

    step: (params, state, x (I,), mask=None, reset=None) -> (state, h (H,)), as `jl.step`.
    chunk: (params, state, xs (T, I), mask=None, reset=None) -> (state, hs (T, H)), as `jl.unroll`; compiled once a T.
    """

    step: Callable[..., tuple[Any, jax.Array]]
    chunk: Callable[..., tuple[Any, jax.Array]]


def stream(cell: Cell, *, batch: bool = False) -> Stream:
    """A cell for streaming; the same cell and choice give the same compiled functions.

    As if by::

        step = jax.jit(partial(jl.step, cell), donate_argnums=1)
        chunk = jax.jit(partial(jl.unroll, cell), donate_argnums=1)    # but for the order of state and xs

    Steps, chunks of any lengths and one `unroll` over everything give the same numbers.

    Args:
        cell: as for `unroll`.
        batch: several streams at once: the state's leaves, x, mask and reset have a leading batch axis B; xs is
            (B, T, I).

    Raises:
        ValueError: the cell looks at later inputs.
        TypeError: `cell` is no cell, or `batch` no bool. When called: as `step` and `unroll`; a donated state.
    """
    return _compiled(door.causal("stream", door.cell("stream", cell)), door.flag("stream", "batch", batch))


@lru_cache(maxsize=64)
def _compiled(cell: Cell, batch: bool) -> Stream:
    run = batched(unroll) if batch else unroll

    def one(params: Any, state: Any, x: Any, mask: Any = None, reset: Any = None) -> tuple[Any, jax.Array]:
        run_step = partial(step, cell)
        return (jax.vmap(run_step, (None, 0, 0, 0, 0)) if batch else run_step)(params, state, x, mask, reset)

    def chunk(params: Any, state: Any, xs: Any, mask: Any = None, reset: Any = None) -> tuple[Any, jax.Array]:
        return run(cell, params, xs, state, mask, reset)

    return Stream(jax.jit(one, donate_argnums=1), jax.jit(chunk, donate_argnums=1))
