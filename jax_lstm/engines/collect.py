"""Select what a run returns for every step: the states, the outputs, or both."""

from functools import partial
from typing import Any

from jax_lstm.abilities import output
from jax_lstm.engines.engine import Inputs, Options
from jax_lstm.engines.layout import vmap_time_and_batch
from jax_lstm.engines.masking import zero_masked


def collected(cell: Any, inputs: Inputs, options: Options, states: Any) -> Any:
    """What `options.collect` names, from the states of all steps; outputs are `cell.output(s_t)`, 0 at masked steps."""
    if options.collect == "states":
        return states
    ys = zero_masked(inputs.mask, vmap_time_and_batch(partial(output, cell), inputs.xs.ndim - 1)(states))
    return pick(options.collect, states, ys)


def pick(collect: str, states: Any, ys: Any) -> Any:
    """Select the states, the outputs, or the pair of both, as `Options.collect` names them."""
    return {"states": states, "outputs": ys, "both": (states, ys)}[collect]
