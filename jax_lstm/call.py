"""Between the public functions and the engines: check the arguments, batch them, compile once."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jax_lstm.cells import base, door
from jax_lstm.recurrence import Choices, run
from jax_lstm.schedule import segment_length, sequences
from jax_lstm.trajectory import Flags, like_data, on_the_mesh

ENGINES = ("hoisted", "plain", "associative")


def arguments(
    where: str, cell: Any, params: Any, xs: Any, state: Any, mask: Any, reset: Any, key: Any
) -> tuple[Any, ...]:
    """Check the arguments of a run; return them as arrays."""
    cell = door.cell(where, cell)
    params, dtype = door.params(where, cell, params)
    xs = door.data(where, "xs", xs, cell, dtype, "(T, I)")
    state = cell.initial_state(params) if state is None else door.state(where, cell, state, dtype)
    mask, reset = door.flags(where, "mask", mask, xs), door.flags(where, "reset", reset, xs)
    if key is not None:
        if not base.draws(cell):
            raise ValueError(
                f"{where}: key was given, but cell {type(cell).__name__} draws nothing at random; leave it out"
            )
        key = door.prng_key(where, key)
    return cell, params, state, xs, mask, reset, key


def choices(
    where: str,
    args: tuple[Any, ...],
    reverse: Any,
    remat_every: Any,
    engine: Any,
    window: Any = None,
    stride: Any = None,
) -> Choices:
    """Check the options of a run; return them as Python values. `args` is what `arguments` returned."""
    cell, _, _, xs, *_ = args
    engine = door.choice(where, "engine", engine, ENGINES)
    if where == "tbptt":
        door.causal(where, cell)
        window = door.size(where, "window", door.knob(where, "window", window))
        stride = window if stride is None else door.size(where, "stride", door.knob(where, "stride", stride))
        if window % stride:
            raise ValueError(f"tbptt: stride must divide window, but window is {window} and stride is {stride}")
    remat_every = door.knob(where, "remat_every", remat_every)
    if isinstance(remat_every, str) and remat_every == "auto":
        remat_every = segment_length(xs.shape[0])
    elif remat_every is not None:
        remat_every = door.size(where, "remat_every", remat_every)
    return Choices(
        where=where,
        keep="states" if where == "unroll_states" else "outputs",
        reverse=door.flag(where, "reverse", reverse),
        engine=engine,
        rows=sequences(xs),
        remat_every=remat_every,
        truncate=(window, stride) if where == "tbptt" else None,
    )


# Jitted once, on the static cell: a second eager call with the same shapes compiles nothing.
@partial(jax.jit, static_argnames=("cell", "choices"))
def call(
    cell: Any, params: Any, state: Any, xs: Any, mask: Any, reset: Any, key: Any, *, choices: Choices
) -> tuple[Any, Any]:
    """Run a cell over xs (T, *B, I); with a key there are no batch axes.

    Turns mask and reset into flags: a masked step is not live, and a reset counts on live steps only. Draws all
    random numbers, before the first step.
    """
    restart = reset if reset is None or mask is None else reset & mask
    s_restart = None if reset is None else cell.initial_state(params)
    if xs.ndim > 2:
        s_restart = jax.vmap(like_data, (None, 1))(s_restart, xs)
    if key is not None:
        cell, params, noise = cell.draw(params, key, xs.shape[0])
        xs = jnp.concatenate([xs.astype(noise.dtype), like_data(noise, xs)], axis=-1)
    return run(choices, cell, params, state, s_restart, xs, Flags(mask, restart))


def call_batch(
    where: str,
    cell: Any,
    params: Any,
    arrays: dict[str, Any],
    axis: int,
    *,
    key: Any = None,
    reverse: Any = False,
    remat_every: Any = None,
    engine: Any = "hoisted",
    window: Any = None,
    stride: Any = None,
) -> tuple[Any, Any]:
    """The function of sequence.py that `where` names, over arrays with a batch axis; `batched` calls it.

    The arguments are checked like those of one sequence. The run then gets arrays with a batch axis after time, so that
    it can merge the two axes (schedule.py); under `jax.vmap` it could not see the batch axis. With a key the run is a
    `jax.vmap`, with one key per sequence, split from it.
    """
    in_axes = ({name: 0 if name == "state" else axis for name in arrays},)

    def checked(arrays: dict[str, Any], key: Any = None) -> tuple[Any, ...]:
        xs, state, mask, reset = (arrays.get(name) for name in ("xs", "state", "mask", "reset"))
        *before, state, xs, mask, reset, key = arguments(where, cell, params, xs, state, mask, reset, key)
        return *before, on_the_mesh(state), xs, mask, reset, key

    if key is None:
        args = (cell, *jax.vmap(lambda arrays: checked(arrays)[1:], in_axes, (None, 0, 1, 1, 1, None))(arrays))
        state, ys = call(*args, choices=choices(where, args, reverse, remat_every, engine, window, stride))
    else:

        def one(arrays: dict[str, Any], key: Any) -> tuple[Any, Any]:
            args = checked(arrays, key)
            return call(*args, choices=choices(where, args, reverse, remat_every, engine, window, stride))

        xs = door.array("batched", "xs", arrays["xs"])
        keys = jax.random.split(door.prng_key("batched", key), xs.shape[axis])
        placed = jax.typeof(xs).sharding
        if placed.spec[axis] is not None:
            keys = jax.sharding.reshard(keys, jax.NamedSharding(placed.mesh, jax.P(placed.spec[axis])))
        state, ys = jax.vmap(one, (*in_axes, 0), (0, 1))(arrays, keys)
    return state, ys if axis == 1 else jax.tree.map(lambda a: a.swapaxes(0, 1), ys)
