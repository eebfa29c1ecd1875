"""One sequence in, one sequence out: what a user calls.

xs is (T, I), without a batch axis; a batch is the caller's `vmap`, or `batched`. Arrays go by position, because
`jax.vmap` maps every keyword over axis 0; choices go by keyword and are Python values.
"""

from typing import Any

import jax
from jax.typing import ArrayLike

from jax_lstm.call import arguments, call, choices
from jax_lstm.cells import door
from jax_lstm.cells import lstm as lstm_cell
from jax_lstm.cells.base import Cell
from jax_lstm.cells.textbook import cell_for
from jax_lstm.gates import Gates
from jax_lstm.recurrence import Choices


def unroll(
    cell: Cell,
    params: Any,
    xs: ArrayLike,
    state: Any = None,
    mask: ArrayLike | None = None,
    reset: ArrayLike | None = None,
    *,
    key: Any = None,
    reverse: bool = False,
    remat_every: int | str | None = None,
    engine: str = "hoisted",
) -> tuple[Any, jax.Array]:
    """Run a cell over one sequence: the last state, and the output of every step.

    As if by::

        hs = [None] * T
        for t in reversed(range(T)) if reverse else range(T):
            if mask[t]:
                if reset[t]:
                    state = cell.initial_state(params)
                state, hs[t] = cell.step(params, state, xs[t])
            else:
                hs[t] = 0

    Args:
        cell: anything with `init`, `initial_state`, `step`, `input_size` and `hidden_size`; static: never change one.
        params: what `cell.init` gave.
        xs: (T, I), floats no wider than the params' dtype. T may be 0.
        state: the state before the first step; `cell.initial_state(params)` if None.
        mask: (T,) bools. Where False the step does not happen: the state stays, the output is 0, and nothing in
            that x (NaN, inf) reaches an output or a gradient. A length is `jnp.arange(T) < length`; the last
            output is then `state.h`, not `hs[-1]`.
        reset: (T,) bools. Where True the state goes back to `cell.initial_state(params)` *before* that step, and
            the gradient is cut there: `reset[t]` says that xs[t] is the first observation of an episode.
            A reset on a masked step is dropped: it does NOT carry over to the next live step.
        key: a random key, for cells that draw (layers with dropout, an RNN with noise); consumed. None: nothing is
            drawn, and the run is the deterministic one.
        reverse: process the steps from last to first; hs[t] still belongs to xs[t].
        remat_every: n: keep every n-th state only, and compute the others again in the backward pass; memory beyond
            inputs and outputs O(T/n + n) rather than O(T), for about one more forward pass of time. "auto": about √T.
        engine: "hoisted" (the input product before the loop, the weight gradients after it), "plain" (a scan of
            `step`), or, for cells that are linear in their state, "associative" (a parallel prefix): same numbers.
            "plain" needs O(1) memory over T in forward mode, the others O(T).

    Returns:
        The state after the last step, and hs (T, H), in the params' dtype.

    Raises:
        ValueError: an argument of the wrong shape or value; the message names it, what was wanted and what came.
        TypeError: an argument of the wrong dtype or type; a traced `reverse`, `remat_every` or `engine`.
    """
    args = arguments("unroll", cell, params, xs, state, mask, reset, key)
    return call(*args, choices=choices("unroll", args, reverse, remat_every, engine))


def unroll_states(
    cell: Cell,
    params: Any,
    xs: ArrayLike,
    state: Any = None,
    mask: ArrayLike | None = None,
    reset: ArrayLike | None = None,
    *,
    key: Any = None,
    reverse: bool = False,
    remat_every: int | str | None = None,
    engine: str = "hoisted",
) -> Any:
    """Every state that `unroll` goes through, stacked over time: for the LSTM, LSTMState(h (T, H), c (T, H)).

    Arguments and errors are those of `unroll`. At a masked step the state is the one before it.
    """
    args = arguments("unroll_states", cell, params, xs, state, mask, reset, key)
    return call(*args, choices=choices("unroll_states", args, reverse, remat_every, engine))[1]


def lstm(
    params: lstm_cell.LSTMParams,
    xs: ArrayLike,
    state: lstm_cell.LSTMState | None = None,
    mask: ArrayLike | None = None,
    reset: ArrayLike | None = None,
    *,
    reverse: bool = False,
    remat_every: int | str | None = None,
) -> tuple[lstm_cell.LSTMState, jax.Array]:
    """`unroll` for the plain LSTM, which needs no cell: the params' shapes say it all.

    Args, Returns, Raises: as `unroll`.
    """
    args = arguments("lstm", cell_for("lstm", params), params, xs, state, mask, reset, None)
    return call(*args, choices=choices("lstm", args, reverse, remat_every, "hoisted"))


def tbptt(
    cell: Cell,
    params: Any,
    xs: ArrayLike,
    state: Any = None,
    mask: ArrayLike | None = None,
    reset: ArrayLike | None = None,
    *,
    window: int,
    stride: int | None = None,
    key: Any = None,
    reverse: bool = False,
    engine: str = "hoisted",
) -> tuple[Any, jax.Array]:
    """`unroll`, with its gradient cut: truncated backpropagation through time (Williams & Peng 1990).

    State and outputs are those of `unroll`. The gradient of an output goes back over the steps of its own block of
    `stride` steps and on to `window` steps before the block's end, and no further: over window − stride + 1 to
    `window` steps. Memory beyond inputs and outputs is O(T/stride + window).

    As if by::

        for start in range(0, T, stride):
            end = start + stride
            s = stop_gradient(states[end - window]) if end > window else state
            _, ys = unroll(cell, params, xs[max(end - window, 0) : end], s)
            hs[start:end] = ys[-stride:]

    Args:
        cell, params, xs, state, mask, reset, key, reverse, engine: as for `unroll`.
        window: the most steps that a gradient goes back. From T on, nothing is cut: the gradient is `unroll`'s.
        stride: steps a block; it divides `window`, and is `window` if None: blocks side by side. Each block runs
            `window` steps, so time grows as window / stride.

    Returns:
        As `unroll`. To take an optimiser step between blocks, call `unroll` on each, and hand on its state.

    Raises:
        ValueError: `stride` does not divide `window`; the rest as `unroll`.
        TypeError: as `unroll`.
    """
    args = arguments("tbptt", cell, params, xs, state, mask, reset, key)
    return call(*args, choices=choices("tbptt", args, reverse, None, engine, window, stride))


def step(
    cell: Cell,
    params: Any,
    state: Any,
    x: ArrayLike,
    mask: ArrayLike | None = None,
    reset: ArrayLike | None = None,
) -> tuple[Any, jax.Array]:
    """One step of `unroll`, for acting while the sequence is still being made.

    As if by::

        if mask:
            return cell.step(params, cell.initial_state(params) if reset else state, x)
        return state, 0

    Args:
        cell, params: as for `unroll`.
        state: from the step before, or `cell.initial_state(params)`.
        x: (I,), floats no wider than the params' dtype.
        mask: one bool. Where False the step does not happen.
        reset: one bool. Where True, x is the first observation of an episode. Dropped where `mask` is False.

    Returns:
        The next state and the output (H,). A loop of these equals one `unroll`.

    Raises:
        ValueError, TypeError: as `unroll`.
    """
    cell = door.causal("step", door.cell("step", cell))
    params, dtype = door.params("step", cell, params)
    x = door.data("step", "x", x, cell, dtype, "(I,)")
    mask, reset = door.flags("step", "mask", mask, x), door.flags("step", "reset", reset, x)
    one = jax.tree.map(lambda a: a[None], (x, mask, reset))
    state, ys = call(cell, params, door.state("step", cell, state, dtype), *one, key=None, choices=Choices("step"))
    return state, jax.tree.map(lambda a: a[0], ys)


def lstm_step(
    params: lstm_cell.LSTMParams, state: lstm_cell.LSTMState, x: ArrayLike
) -> tuple[lstm_cell.LSTMState, jax.Array]:
    """One step of the plain LSTM: the next state and h (H,). Raises as `step`."""
    return step(cell_for("lstm_step", params), params, state, x)


def gates_of(
    cell: lstm_cell.LSTM,
    params: lstm_cell.LSTMParams,
    xs: ArrayLike,
    state: lstm_cell.LSTMState | None = None,
    mask: ArrayLike | None = None,
    reset: ArrayLike | None = None,
) -> Gates:
    """i, f, g, o of every step, (T, H) each; zeros where `mask` is False. Arguments and errors as `unroll`."""
    if not hasattr(cell, "gates"):
        raise TypeError(f"gates_of: cell must have gates i, f, g, o, as LSTM has, but is a {type(cell).__name__}")
    cell, *args = arguments("gates_of", cell, params, xs, state, mask, reset, None)
    return call(_Gated(cell), *args, choices=Choices("gates_of"))[1]


class _Gated:
    """A cell whose output is its gates."""

    def __init__(self, cell: Any):
        self.cell = cell

    def step(self, params: Any, state: Any, x: Any) -> tuple[Any, Gates]:
        """The cell's next state, and its gates for output."""
        return self.cell.step(params, state, x)[0], self.cell.gates(params, state, x)

    def initial_state(self, params: Any) -> Any:
        """The cell's own."""
        return self.cell.initial_state(params)

    def __hash__(self) -> int:
        return hash((_Gated, self.cell))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Gated) and self.cell == other.cell
