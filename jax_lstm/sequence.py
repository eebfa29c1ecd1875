"""Run a cell over one sequence: `unroll`, `unroll_states`, `step`, `lstm`, `lstm_step`, `tbptt`, `gates_of`.

xs is (T, I), without a batch axis; for a batch use `batched` or `jax.vmap`. Pass arrays by position, because `jax.vmap`
maps every keyword argument over axis 0. Options are keyword arguments and Python values.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jax_lstm.cell import Cell, Noise
from jax_lstm.cells import lstm as lstm_cell
from jax_lstm.engines.arguments import Arguments, check_arguments
from jax_lstm.engines.engine import Engine
from jax_lstm.engines.masking import StepMasks, apply_reset, zero_masked
from jax_lstm.engines.run import run_sequence, run_step
from jax_lstm.gates import Gates


def unroll(
    cell: Cell,
    params: Any,
    xs: ArrayLike,
    state: Any = None,
    mask: ArrayLike | None = None,
    reset: ArrayLike | None = None,
    *,
    key: Any = None,
    noise: Noise | None = None,
    constants: Any = None,
    reverse: bool = False,
    remat_every: int | str | None = None,
    engine: str | Engine = "auto",
) -> tuple[Any, jax.Array]:
    """Run a cell over one sequence; return the last state and the output of every step.

    As if by::

        hs = [None] * T
        for t in reversed(range(T)) if reverse else range(T):
            if mask is None or mask[t]:
                if reset is not None and reset[t]:
                    state = cell.initial_state(params)
                state, hs[t] = cell.step(params, state, xs[t])      # and constants=constants, if they are given
            else:
                hs[t] = 0

    This loop is for a causal cell. A `Bidirectional` runs a second such loop in the opposite direction.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> import jax_lstm as jl
    >>> cell = jl.LSTM(input_size=3, hidden_size=4)
    >>> params = cell.init(jax.random.key(0))
    >>> xs, mask = jnp.ones((6, 3), jnp.float32), jnp.arange(6) < 4
    >>> state, hs = jl.unroll(cell, params, xs, mask=mask)
    >>> hs.shape, bool((hs[3] == state.h).all()), bool((hs[4:] == 0).all())
    ((6, 4), True, True)

    Args:
        cell: a cell such as `LSTM`, or a layer, which is a cell made of cells, such as `Stack`. Any hashable object
            with `init`, `initial_state`, `step`, `input_size` and `hidden_size` is a cell. JAX compiles one program per
            cell, so never change a cell: make a new one.
        params: what `cell.init` returns.
        xs: (T, I), a JAX or NumPy array of floats no wider than the params' dtype; not integers or complex numbers. T
            may be 0. Each new T compiles a program. For many lengths, pad with NumPy to a few of them, such as the
            next multiple of 64, and pass a mask.
        state: the state before the first step processed, which is step T − 1 with `reverse`, else step 0. If None:
            `cell.initial_state(params)`.
        mask: (T,) bools. Where False the step is skipped: the state stays and the output is 0. A masked xs[t] affects
            no output and no gradient, even if it is NaN or inf. None: no step is skipped. For a sequence of `length`
            steps use `jnp.arange(T) < length`; its last output is then `hs[length - 1]`, not `hs[-1]`.
        reset: (T,) bools. Where True the state is set to `cell.initial_state(params)` *before* that step, and no
            gradient passes to earlier steps: xs[t] is the first observation of an episode. None: no reset.
            A reset on a masked step is dropped; it does NOT carry over to the next unmasked step.
        key: one random key, for a cell that draws random numbers (dropout, an RNN with noise). Do not reuse the key. If
            None, nothing is drawn and the run is deterministic.
        noise: random numbers that you drew yourself, `cell.sample_noise(params, key, T, rates=...)`, in place of `key`:
            for example with a dropout rate that changes during training.
        constants: what the cell reads at every step, such as the vectors that an attention layer reads: a pytree of
            arrays of any dtypes. It is stored once, not once per step, and a reset does not change it. Only for a cell
            with `takes_constants = True` in its class; its `step` gets the keyword argument `constants`.
        reverse: process the steps from last to first. hs[t] is still the output for xs[t].
        remat_every: n. The run then saves only every n-th state for the backward pass, which recomputes the others.
            Memory beyond inputs and outputs is then O(T/n + n) instead of O(T); time grows by about one forward pass.
            "auto": n is about √T. None: save all states.
        engine: how to run the loop: a name, or an instance such as `jl.engines.Plain()`. All engines give the same
            numbers up to rounding. "auto" is "hoisted" for a cell that it can run, else "plain";
            `jl.engines.explain` returns which. "hoisted" takes a `SplitCell`. It computes the gradient of each
            weight in one product after the backward loop. On an accelerator it also multiplies all inputs by w_x in
            one product before the loop. "plain" is a `lax.scan` of `step`, for any causal cell. "associative" is a
            parallel prefix over time, for cells that are linear in their state (MinLSTM, MinGRU). An engine that cannot
            run the cell raises a ValueError. In forward-mode differentiation "plain" needs O(1) memory in T, the
            others O(T).

    Returns:
        (state, hs): the state after the last step processed, and the outputs hs (T, H), in the params' dtype. H is
        `cell.output_size` if the cell has that attribute, else `cell.hidden_size`. The state is of the type that
        `cell.initial_state` returns: a tuple for a `Stack`.

    Raises:
        ValueError: an argument has a wrong shape or value; the message names it, what was wanted and what came.
        TypeError: an argument has a wrong dtype or type, or `reverse`, `remat_every` or `engine` is traced.
    """
    return run_sequence(
        "unroll", cell, Arguments(params, xs, state, mask, reset, key, noise, constants),
        reverse=reverse, remat_every=remat_every, engine=engine,
    )  # fmt: skip


def unroll_states(
    cell: Cell,
    params: Any,
    xs: ArrayLike,
    state: Any = None,
    mask: ArrayLike | None = None,
    reset: ArrayLike | None = None,
    *,
    key: Any = None,
    noise: Noise | None = None,
    constants: Any = None,
    reverse: bool = False,
    remat_every: int | str | None = None,
    engine: str | Engine = "auto",
) -> Any:
    """Run a cell over one sequence; return the state after every step, stacked over time.

    As if by::

        for t in reversed(range(T)) if reverse else range(T):
            state, _ = step(cell, params, state, xs[t], mask[t], reset[t])     # None if mask or reset is None
            states[t] = state

    Args:
        cell, params, xs (T, I), state, mask (T,), reset (T,), key, noise, constants, reverse, remat_every, engine: as
            for `unroll`.

    Returns:
        The states, of the type of `cell.initial_state(params)`, every leaf with a leading axis T: for an LSTM
        LSTMState(h (T, H), c (T, H)). The state at a masked step is the state before that step.

    Raises:
        ValueError, TypeError: as for `unroll`.
    """
    _, states = run_sequence(
        "unroll_states", cell, Arguments(params, xs, state, mask, reset, key, noise, constants),
        reverse=reverse, remat_every=remat_every, engine=engine, collect="states",
    )  # fmt: skip
    return states


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
    """Run a plain LSTM over one sequence without a cell: its sizes come from the shapes of the params.

    As if by::

        cell = LSTM(input_size=params.w_x.shape[0], hidden_size=params.w_h.shape[0])
        return unroll(cell, params, xs, state, mask, reset, reverse=reverse, remat_every=remat_every)

    Args:
        params: LSTMParams(w_x (I, 4H), w_h (H, 4H), b (4H,)).
        xs: (T, I), floats no wider than the params' dtype.
        state: LSTMState(h (H,), c (H,)) before the first step processed; zeros if None.
        mask, reset, reverse, remat_every: as for `unroll`.

    Returns:
        (state, hs): the last state, and the outputs hs (T, H).

    Raises:
        ValueError, TypeError: as for `unroll`; TypeError also if params is not an LSTMParams.
    """
    cell = lstm_cell.cell_of("lstm", params)
    arguments = Arguments(params, xs, state, mask, reset)
    return run_sequence("lstm", cell, arguments, reverse=reverse, remat_every=remat_every)


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
    noise: Noise | None = None,
    constants: Any = None,
    reverse: bool = False,
    engine: str | Engine = "auto",
) -> tuple[Any, jax.Array]:
    """Run a cell over one sequence with truncated backpropagation through time (TBPTT; Williams & Peng 1990).

    The last state and the outputs equal those of `unroll` up to rounding; only the gradient differs. The T steps are
    divided into blocks of `stride` steps; the last block may be shorter. The gradients of all outputs of a block stop
    at the same step, called `first` below. The gradient of the first output of a block covers at most
    window − stride + 1 steps, that of the last output at most `window` steps. The gradient of the last state is
    truncated like that of the last output. Memory beyond inputs and outputs is O(T/stride + window).

    As if by::

        for start in range(0, T, stride):
            first, end = max(start + stride - window, 0), min(start + stride, T)
            s = stop_gradient(states[first]) if first > 0 else state
            s_T, ys = unroll(cell, params, xs[first:end], s, mask[first:end], reset[first:end])
            hs[start:end] = ys[start - first :]
        return s_T, hs

    Here states[t] is the state before step t; leave out a `mask` or `reset` that is None. All random numbers are drawn
    from `key` once, before the first block, as in `unroll`. With `reverse` the order of time is reversed throughout:
    the first block is the last `stride` steps, and a gradient goes forward in t.

    All blocks use the same params. To update the weights after each block, call `unroll` on one block at a time in your
    training step, and pass the returned state to the call for the next block, outside of `jax.grad`.

    In the example the gradient of the last output stops after 3 steps.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> import jax_lstm as jl
    >>> cell = jl.LSTM(input_size=3, hidden_size=4)
    >>> params = cell.init(jax.random.key(0))
    >>> last = lambda xs: jl.tbptt(cell, params, xs, window=3)[1][-1].sum()
    >>> gradient = jax.grad(last)(jnp.ones((6, 3), jnp.float32))
    >>> [bool((g != 0).any()) for g in gradient]
    [False, False, False, True, True, True]

    Args:
        cell, params, xs (T, I), state, mask (T,), reset (T,), key, noise, constants, reverse, engine: as for `unroll`.
        window: the largest number of steps that a gradient goes back, 1 or more. With window ≥ T the gradient is that
            of `unroll`.
        stride: the number of steps in a block; it must divide `window`. If None it is `window`: then each step is run
            once. A smaller stride runs the window − stride steps before each block again, so time grows as
            window / stride.

    Returns:
        (state, hs): the last state, and the outputs hs (T, H), as for `unroll`.

    Raises:
        ValueError: `stride` does not divide `window`, the cell is not causal, or as for `unroll`.
        TypeError: as for `unroll`.
    """
    return run_sequence(
        "tbptt", cell, Arguments(params, xs, state, mask, reset, key, noise, constants),
        reverse=reverse, engine=engine, truncate=(window, stride),
    )  # fmt: skip


def step(
    cell: Cell,
    params: Any,
    state: Any,
    x: ArrayLike,
    mask: ArrayLike | None = None,
    reset: ArrayLike | None = None,
    *,
    constants: Any = None,
) -> tuple[Any, jax.Array]:
    """Run a cell for one step of one sequence, for online use: the inputs need not be known in advance.

    As if by::

        if mask is None or mask:
            return cell.step(params, cell.initial_state(params) if reset else state, x)
        return state, 0

    An eager call is one compiled program. For a batch use `batched(step)`.

    There is no `key`, so no random numbers are drawn: a cell with dropout or noise runs as `unroll` runs it without a
    key.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> import jax_lstm as jl
    >>> cell = jl.LSTM(input_size=3, hidden_size=4)
    >>> params = cell.init(jax.random.key(0))
    >>> state, h = jl.step(cell, params, cell.initial_state(params), jnp.ones(3, jnp.float32))
    >>> state.c.shape, h.shape
    ((4,), (4,))

    Args:
        cell: as for `unroll`; it must be causal.
        params: what `cell.init` returns.
        state: the state that the step before returned. If None: `cell.initial_state(params)`.
        x: (I,), floats no wider than the params' dtype.
        mask: one bool. If False the step is skipped: the state stays and the output is 0. None: True.
        reset: one bool. If True the state is set to `cell.initial_state(params)` before the step: x is the first
            observation of an episode. It has no effect if `mask` is False. None: False.
        constants: as for `unroll`.

    Returns:
        (state, h): the next state, and the output h (H,), H as for `unroll`. A loop of steps equals one `unroll`
        without a key, up to rounding.

    Raises:
        ValueError: an argument has a wrong shape, or the cell is not causal (it reads later inputs).
        TypeError: an argument has a wrong dtype or type.
    """
    return run_step("step", cell, Arguments(params, x, state, mask, reset, constants=constants))


def lstm_step(
    params: lstm_cell.LSTMParams, state: lstm_cell.LSTMState, x: ArrayLike
) -> tuple[lstm_cell.LSTMState, jax.Array]:
    """Run a plain LSTM for one step without a cell: its sizes come from the shapes of the params.

    Args:
        params: LSTMParams(w_x (I, 4H), w_h (H, 4H), b (4H,)).
        state: LSTMState(h (H,), c (H,)).
        x: (I,), floats no wider than the params' dtype.

    Returns:
        (state, h): the next state, and the output h (H,).

    Raises:
        ValueError, TypeError: as for `step`; TypeError also if params is not an LSTMParams.
    """
    return step(lstm_cell.cell_of("lstm_step", params), params, state, x)


def gates_of(
    cell: lstm_cell.LSTM,
    params: lstm_cell.LSTMParams,
    xs: ArrayLike,
    state: lstm_cell.LSTMState | None = None,
    mask: ArrayLike | None = None,
    reset: ArrayLike | None = None,
) -> Gates:
    """Run an LSTM over one sequence; return its gates i, f, g, o of every step.

    As if by::

        for t in range(T):
            gates[t] = cell.gates(params, state, xs[t])
            state, _ = step(cell, params, state, xs[t])

    Args:
        cell: an LSTM, or a cell with a method `gates(params, state, x)`.
        params, xs (T, I), state, mask (T,), reset (T,): as for `unroll`.

    Returns:
        Gates(i, f, g, o), each (T, H); zeros where `mask` is False.

    Raises:
        ValueError, TypeError: as for `unroll`; TypeError also if the cell has no `gates`.
    """
    if not hasattr(cell, "gates"):
        raise TypeError(
            f"gates_of: cell must have gates i, f, g, o, as LSTM has, but is a {type(cell).__name__}; use an LSTM, or "
            "a cell with a method gates"
        )
    params, xs, state, mask, reset, *_ = check_arguments(
        "gates_of", cell, Arguments(params, xs, state, mask, reset), "xs"
    )
    return _gates(cell, params, state, xs, mask, reset)


@partial(jax.jit, static_argnames="cell")
def _gates(cell: Any, params: Any, s_0: Any, xs: Any, mask: Any, reset: Any) -> Gates:
    """The gates of all steps at once, from the states before them."""
    states = unroll_states(cell, params, xs, s_0, mask, reset)
    s_tm1s = jax.tree.map(lambda s_0, s: jnp.concatenate([s_0[None], s[:-1]])[: xs.shape[0]], s_0, states)
    s_tm1s = jax.vmap(apply_reset, (0, None, 0))(StepMasks(None, reset), cell.initial_state(params), s_tm1s)
    gates = jax.vmap(cell.gates, (None, 0, 0))(params, s_tm1s, zero_masked(mask, xs))
    return zero_masked(mask, gates)
