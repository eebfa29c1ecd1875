"""Run a cell on an engine: in one piece, in segments, truncated, or part by part.

If the engine accepts the whole cell, it runs it. If it refuses a cell made of cells, each part is run here by itself.
If it refuses any other cell, the reason is raised as a ValueError.
"""

from functools import partial
from typing import Any

import jax

from jax_lstm import checks
from jax_lstm.abilities import check_pure, check_takes, is_causal, takes_constants
from jax_lstm.cell import CompositeCell
from jax_lstm.engines.collect import pick
from jax_lstm.engines.engine import Engine, Inputs, Options
from jax_lstm.engines.masking import zero_masked
from jax_lstm.engines.segments import segmented
from jax_lstm.engines.sharding import check_params_sharding, match_sharding_batched
from jax_lstm.engines.truncation import truncated


def run(engine: Engine, cell: Any, inputs: Inputs, options: Options, *, is_segment: bool = False) -> tuple[Any, Any]:
    """Run a cell; return the last state, and the states, outputs or both of every step (`options.collect`).

    Args:
        engine: the engine.
        cell: the cell.
        inputs: arrays over time, with or without batch axes.
        options: options of the whole run.
        is_segment: whether this run is already one segment or block, so that `remat_every` and `truncate` are ignored.
    """
    if not takes_constants(cell):  # a part of a cell made of cells
        inputs = inputs._replace(constants=None)
    reason = engine.refuses(cell, inputs, options)
    if reason is not None and not isinstance(reason, str):
        raise TypeError(
            f"engine {type(engine).__name__}: refuses must return None or a message, but returns {checks.shown(reason)}"
        )
    if reason is not None and not isinstance(cell, CompositeCell):
        raise ValueError(reason)
    one_piece = partial(_whole if reason is None else _part_by_part, engine, cell)
    truncate, n = (None, None) if is_segment else (options.truncate, options.remat_every)
    if truncate is not None and truncate[0] < inputs.T:
        block = partial(one_piece, options=options._replace(reverse=False), is_segment=True)
        return truncated(block, inputs, *truncate, options.reverse)
    if n is not None and inputs.T > 0 and is_causal(cell):  # a segment needs a causal cell
        return segmented(partial(one_piece, options=options, is_segment=True), inputs, n, options.reverse)
    return one_piece(inputs, options=options, is_segment=is_segment)


def _whole(engine: Engine, cell: Any, inputs: Inputs, *, options: Options, is_segment: bool) -> tuple[Any, Any]:
    """Run a cell on an engine that accepts it."""
    params, state, x, given = inputs.one_step()
    check_takes(cell, given.keywords())
    check_pure(cell, params, state, x, given.keywords())
    check_params_sharding(cell, inputs)
    s_0 = match_sharding_batched(inputs.s_0, inputs.xs, inputs.params, inputs.given)
    with jax.named_scope(type(cell).__name__):
        return engine.run(cell, inputs._replace(s_0=s_0, xs=zero_masked(inputs.mask, inputs.xs)), options)


def _part_by_part(
    engine: Engine, cell: CompositeCell, inputs: Inputs, *, options: Options, is_segment: bool
) -> tuple[Any, Any]:
    """Run each part of a cell made of cells."""
    collect = "outputs" if options.collect == "outputs" else "both"

    def run_part(part: Any, inputs: Inputs, *, reverse: bool) -> tuple[Any, Any, Any]:
        s_T, collected = run(
            engine, part, inputs, options._replace(collect=collect, reverse=reverse), is_segment=is_segment
        )
        return (s_T, None, collected) if collect == "outputs" else (s_T, *collected)

    inputs = inputs._replace(xs=zero_masked(inputs.mask, inputs.xs))
    s_T, states, ys = cell.unroll_with(run_part, inputs, reverse=options.reverse)
    return s_T, pick(options.collect, states, ys)
