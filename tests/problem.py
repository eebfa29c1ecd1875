"""One small problem for every table of tests: params, data and masks drawn once, and the answers to it.

CELLS is the table: a cell is one line, with what it does over time in NumPy (reference.py). A registered cell without
such a line is compared with a Python loop over its own step.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import reference

import jax_lstm as jl
from jax_lstm.registry import CELLS as REGISTERED

I, H, T = 3, 4, 7


class Row(NamedTuple):
    """A cell, and its run in NumPy: (params, xs, state, mask, reset, reverse) -> (state, ys)."""

    cell: Any
    reference: Any


def of(cell, fresh=None, **options):
    """The row of a cell of one equation, with these choices."""
    step = partial(reference.STEPS[cell.__name__], **options)
    heads = {"heads": 2} if cell is jl.SLSTM else {}
    return Row(cell(I, H, **options, **heads), reference.loop(step, fresh))


SQUASHED = {"gate_activation": "hard_sigmoid", "cell_activation": "sigmoid", "output_activation": "linear"}
SEVERAL = {"peephole": True, "coupled": True, "projection": 3, "layer_norm": True, "clip": 1.5}
LOOP = {name: reference.loop(step) for name, step in reference.STEPS.items()}

WRITTEN = {
    "LSTM": of(jl.LSTM),
    "RNN": of(jl.RNN),
    "GRU": of(jl.GRU),
    "JANET": of(jl.JANET),
    "MinLSTM": of(jl.MinLSTM),
    "MinGRU": of(jl.MinGRU),
    "SLSTM": of(jl.SLSTM, reference.slstm_fresh),
    "peephole": of(jl.LSTM, peephole=True),
    "coupled": of(jl.LSTM, coupled=True),
    "without an input gate": of(jl.LSTM, without="input_gate"),
    "without a forget gate": of(jl.LSTM, without="forget_gate"),
    "without an output gate": of(jl.LSTM, without="output_gate"),
    "a forget gate alone": of(jl.LSTM, coupled=True, without="output_gate"),
    "projection": of(jl.LSTM, projection=2),
    "layer norm": of(jl.LSTM, layer_norm=True),
    "clip": of(jl.LSTM, clip=1),
    "activations": of(jl.LSTM, **SQUASHED),
    "several variants": of(jl.LSTM, **SEVERAL),
    "leak": of(jl.RNN, leak=0.3, activation="relu"),
    "zoneout": Row(
        jl.Dropout(jl.LSTM(I, H), zoneout=0.3, zoneout_c=0.1),
        reference.loop(reference.zoneout(reference.lstm, 0.3, 0.1)),
    ),
    "learned": Row(jl.LearnedInitialState(jl.LSTM(I, H)), reference.learned(LOOP["LSTM"])),
    "stack": Row(jl.Stack((jl.GRU(I, H), jl.LSTM(H, 2))), reference.stack(LOOP["GRU"], LOOP["LSTM"])),
    "stack of four": Row(
        jl.Stack((jl.RNN(I, I),) * 4, residual=True), reference.stack(*[LOOP["RNN"]] * 4, residual=True)
    ),
    "bidirectional": Row(
        jl.Bidirectional(jl.RNN(I, H), jl.GRU(I, 2)), reference.bidirectional(LOOP["RNN"], LOOP["GRU"])
    ),
}


def by_steps(cell):
    """The run of a cell as a Python loop over `cell.step`."""

    def run(params, xs, state, mask=None, reset=None, reverse=False, start=None):
        start, ys = cell.initial_state(params) if start is None else start, {}
        for t in reversed(range(len(xs))) if reverse else range(len(xs)):
            if mask is None or mask[t]:
                state, ys[t] = cell.step(params, start if reset is not None and reset[t] else state, xs[t])
        return state, np.stack([ys.get(t, np.zeros_like(next(iter(ys.values())))) for t in range(len(xs))])

    return run


def table():
    """Every row: those of WRITTEN, and one for each other registered class but Truncated, whose gradient is cut."""
    written = {type(row.cell) for row in WRITTEN.values()} | {jl.gradflow.Truncated}
    others = {name: cls(I, H) for name, cls in REGISTERED.items() if cls not in written}
    return WRITTEN | {name: Row(cell, by_steps(cell)) for name, cell in others.items()}


CELLS = table()
MODES = {"plain": (), "masked": (("reverse", True),), "remat": (("remat_every", 3),)}
MASKS = np.array([[1, 1, 0, 1, 1, 1, 0], [0, 1, 0, 0, 1, 0, 1]], bool)  # mask and reset, in the mode "masked"


class How(NamedTuple):
    """What is fixed when a run is compiled."""

    cell: Any
    options: tuple[tuple[str, Any], ...] = ()
    engine: str = "hoisted"


class StepMasks(NamedTuple):
    """mask and reset, (T,) each, or None."""

    mask: jax.Array | None
    reset: jax.Array | None


class Problem(NamedTuple):
    """Arguments in the dtype asked for, and what a loss weighs outputs and states with."""

    how: How
    reference: Any
    args: tuple[Any, jax.Array, Any]  # params, xs, state
    masks: StepMasks
    weights: Any


def run(how, args, masks):
    """(state, ys) by the library."""
    params, xs, state = args
    return jl.unroll(how.cell, params, xs, state, *masks, engine=how.engine, **dict(how.options))


def loss(how, weights, args, masks):
    """A number that every output and every part of the last state moves."""
    return sum(
        jnp.vdot(w, y) for w, y in zip(jax.tree.leaves(weights), jax.tree.leaves(run(how, args, masks)), strict=True)
    )


def problem(cell_name, mode_name, dtype=jnp.float64, seed=0):
    cell, reference_run = (CELLS if cell_name in CELLS else table())[cell_name]
    rng = np.random.default_rng(seed)

    def drawn(a, scale):
        return scale * rng.normal(size=np.shape(a))

    params = jax.tree.map(lambda a: np.asarray(a + drawn(a, 0.3)), cell.init(jax.random.key(seed), jnp.float64))
    # A state that the cell comes to by itself, and the types of it.
    state = jax.tree.map(np.asarray, cell.initial_state(params))
    reached, _ = reference_run(params, drawn(np.zeros((3, I)), 1.0), state)
    state = jax.tree.structure(state).unflatten(jax.tree.leaves(reached))
    xs = drawn(np.zeros((T, I)), 1.0)
    mask, reset = np.roll(MASKS, seed, axis=1) if mode_name == "masked" else (None, None)
    weights = jax.tree.map(lambda a: drawn(a, 1.0), reference_run(params, xs, state))
    args, weights = jax.tree.map(lambda a: jnp.asarray(a, dtype), ((params, xs, state), weights))
    return Problem(How(cell, MODES[mode_name]), reference_run, args, StepMasks(mask, reset), weights)
