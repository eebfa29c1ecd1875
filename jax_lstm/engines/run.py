"""From the arguments of a public function to a compiled run: check them, handle the batch axis, draw the noise."""

from functools import partial
from typing import Any

import jax
from jaxtyping import Array

from jax_lstm import checks
from jax_lstm.cell import Noise, check_causal, has_noise
from jax_lstm.engines.associative import Associative
from jax_lstm.engines.auto import Auto
from jax_lstm.engines.driver import run
from jax_lstm.engines.engine import Engine, Inputs, Options
from jax_lstm.engines.hoisted import Hoisted
from jax_lstm.engines.layout import count_sequences
from jax_lstm.engines.plain import Plain
from jax_lstm.engines.segments import segment_length
from jax_lstm.engines.sharding import match_sharding, place_on_mesh

ENGINES: dict[str, Engine] = {"auto": Auto(), "plain": Plain(), "hoisted": Hoisted(), "associative": Associative()}


def check_engine(caller: str, engine: Any) -> Engine:
    """Check an engine, given by name or as an instance; return the instance."""
    if isinstance(checks.static_value(caller, "engine", engine), str):
        return ENGINES[checks.one_of(caller, "engine", engine, tuple(ENGINES))]
    if isinstance(engine, type) or not isinstance(engine, Engine):
        raise TypeError(
            f"{caller}: engine must be one of {', '.join(ENGINES)}, or an engine such as jl.engines.Plain(), but is "
            f"{engine!r}"
        )
    if checks.holds_tracer(engine):
        raise TypeError(
            f"{caller}: engine must hold Python numbers, but {type(engine).__name__} holds a traced array; make the "
            "engine outside of jit and vmap"
        )
    try:
        hash(engine)
    except TypeError:
        raise TypeError(
            f"{caller}: engine must be hashable, but {type(engine).__name__} is not; make it a frozen dataclass of "
            "Python numbers"
        ) from None
    return engine


def check_options(
    caller: str, T: int, *, reverse: Any, remat_every: Any, truncate: tuple[Any, Any] | None = None
) -> Options:
    """Check the options of a run over T steps. `truncate` is (window, stride); a stride of None means the window."""
    if truncate is not None:
        window, stride = truncate
        window = checks.positive_int(caller, "window", window)
        stride = window if stride is None else checks.static_value(caller, "stride", stride)
        stride = checks.positive_int(caller, "stride", stride)
        if window % stride:
            raise ValueError(f"{caller}: stride must divide window, but window is {window} and stride is {stride}")
        truncate = window, stride
    remat_every = checks.static_value(caller, "remat_every", remat_every)
    if isinstance(remat_every, str) and remat_every == "auto":
        remat_every = segment_length(T)
    elif remat_every is not None:
        remat_every = checks.positive_int(caller, "remat_every", remat_every)
    return Options(reverse=checks.check_bool(caller, "reverse", reverse), remat_every=remat_every, truncate=truncate)


def check_arrays(
    caller: str, cell: Any, params: Any, xs: Any, state: Any, mask: Any, reset: Any
) -> tuple[Any, Any, Any, Any, Any]:
    """Check the arrays of one sequence; return params, xs, state (the initial state if None), mask and reset."""
    params, dtype = checks.check_params(caller, cell, params)
    xs = checks.check_input(caller, "xs", xs, cell, dtype, "(T, I)")
    state = cell.initial_state(params) if state is None else checks.check_state(caller, cell, state, dtype)
    mask, reset = checks.check_mask(caller, "mask", mask, xs), checks.check_mask(caller, "reset", reset, xs)
    return params, xs, state, mask, reset


def run_sequence(
    caller: str, cell: Any, params: Any, xs: Any, state: Any, mask: Any, reset: Any, *, key: Any = None,
    reverse: Any = False, remat_every: Any = None, engine: Any = "auto", truncate: tuple[Any, Any] | None = None,
    collect: str = "outputs",
) -> tuple[Any, Any]:  # fmt: skip
    """Check the arguments of one sequence, and run it; `caller` is for messages, `collect` is that of `Options`."""
    cell = checks.check_cell(caller, cell)
    params, xs, state, mask, reset = check_arrays(caller, cell, params, xs, state, mask, reset)
    key = _check_key(caller, cell, key)
    engine = check_engine(caller, engine)
    if truncate is not None:
        check_causal(caller, cell)
    options = check_options(caller, xs.shape[0], reverse=reverse, remat_every=remat_every, truncate=truncate)
    options = options._replace(collect=collect, num_sequences=count_sequences(xs))
    return compiled_run(cell, params, xs, state, mask, reset, key, engine=engine, options=options)


def run_batch(
    caller: str, axis: int, cell: Any, params: Any, xs: Any, state: Any, mask: Any, reset: Any, *, key: Any = None,
    reverse: Any = False, remat_every: Any = None, engine: Any = "auto", truncate: tuple[Any, Any] | None = None,
    collect: str = "outputs",
) -> tuple[Any, Any]:  # fmt: skip
    """`run_sequence` for a batch. xs, mask, reset and the collected steps have their batch axis at `axis`, 0 or 1.

    The state and the last state have it at 0. The arguments are checked like those of one sequence. The run gets arrays
    with a batch axis after time, so that it can merge the two axes (layout.py); under `jax.vmap` it could not see the
    batch axis. Every sequence has its own key, split from `key`.
    """
    cell = checks.check_cell(caller, cell)

    def checked(xs: Any, state: Any, mask: Any, reset: Any) -> tuple[Any, ...]:
        params_, xs, state, mask, reset = check_arrays(caller, cell, params, xs, state, mask, reset)
        return params_, xs, place_on_mesh(state), mask, reset

    xs = checks.as_array(caller, "xs", xs)
    keys = _batch_keys(_check_key(caller, cell, key), xs, axis)
    params, xs, state, mask, reset = jax.vmap(checked, (axis, 0, axis, axis), (None, 1, 0, 1, 1))(
        xs, state, mask, reset
    )
    engine = check_engine(caller, engine)
    if truncate is not None:
        check_causal(caller, cell)
    options = check_options(caller, xs.shape[0], reverse=reverse, remat_every=remat_every, truncate=truncate)
    options = options._replace(collect=collect, num_sequences=count_sequences(xs))
    s_T, ys = compiled_run(cell, params, xs, state, mask, reset, keys, engine=engine, options=options)
    return s_T, ys if axis == 1 else jax.tree.map(lambda a: a.swapaxes(0, 1), ys)


# Jitted once, on the static cell, engine and options: a second eager call with the same shapes compiles nothing.
@partial(jax.jit, static_argnames=("cell", "engine", "options"))
def compiled_run(
    cell: Any, params: Any, xs: Any, state: Any, mask: Any, reset: Any, key: Any, constants: Any = None, *,
    engine: Engine, options: Options,
) -> tuple[Any, Any]:  # fmt: skip
    """Run a cell over xs (T, *B, I), with one key per sequence: keys (*B), or None.

    Resets at masked steps are dropped here. All random numbers are drawn here, before the first step.
    """
    reset = reset if reset is None or mask is None else reset & mask
    s_initial = None if reset is None else cell.initial_state(params)
    batch_axes = xs.ndim - 2
    if batch_axes:
        s_initial = jax.vmap(match_sharding, (None, 1))(s_initial, xs)
    noise = Noise()
    if key is not None:
        sample = partial(cell.sample_noise, params, T=xs.shape[0])
        noise = jax.vmap(sample, out_axes=Noise(1, 0))(key) if batch_axes else match_sharding(sample(key), xs)
    inputs = Inputs(params, state, s_initial, xs, noise.steps, noise.sequence, constants, mask, reset)
    return run(engine, cell, inputs, options)


def _check_key(caller: str, cell: Any, key: Any) -> Any:
    if key is None:
        return None
    if not has_noise(cell):
        raise ValueError(
            f"{caller}: key was given, but cell {type(cell).__name__} draws nothing at random; leave it out"
        )
    return checks.check_key(caller, key)


def _batch_keys(key: Any, xs: Array, axis: int) -> Any:
    """One key per sequence, split from `key` and sharded as the batch is."""
    if key is None:
        return None
    keys = jax.random.split(key, xs.shape[axis])
    placed = jax.typeof(xs).sharding
    if placed.spec[axis] is None:
        return keys
    return jax.sharding.reshard(keys, jax.NamedSharding(placed.mesh, jax.P(placed.spec[axis])))
