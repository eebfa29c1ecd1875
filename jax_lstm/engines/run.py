"""From the arguments of a public function to a compiled run: check them, draw the noise, compile once."""

from functools import partial
from typing import Any

import jax

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
from jax_lstm.engines.sharding import match_sharding

ENGINES: dict[str, Engine] = {"auto": Auto(), "plain": Plain(), "hoisted": Hoisted(), "associative": Associative()}


def check_engine(caller: str, engine: Any) -> Engine:
    """Check an engine, given by name or as an instance; return the instance."""
    if isinstance(checks.static_value(caller, "engine", engine), str):
        return ENGINES[checks.one_of(caller, "engine", engine, tuple(ENGINES))]
    if isinstance(engine, type) or not isinstance(engine, Engine):
        raise TypeError(
            f"{caller}: engine must be one of {', '.join(ENGINES)}, or an engine such as jl.engines.Plain(), but is "
            f"{checks.shown(engine)}"
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
            raise ValueError(
                f"{caller}: stride must divide window, but window is {checks.shown(window)} and stride is "
                f"{checks.shown(stride)}"
            )
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
    caller: str, cell: Any, params: Any, xs: Any, state: Any, mask: Any, reset: Any, *, key: Any = None, **options: Any
) -> tuple[Any, Any]:
    """Check the arguments of one sequence, and run it; `options` are those of `run_checked`."""
    cell = checks.check_cell(caller, cell)
    params, xs, state, mask, reset = check_arrays(caller, cell, params, xs, state, mask, reset)
    key = check_run_key(caller, cell, key)
    return run_checked(caller, cell, params, xs, state, mask, reset, key, **options)


def run_checked(
    caller: str, cell: Any, params: Any, xs: Any, state: Any, mask: Any, reset: Any, key: Any, *,
    reverse: Any = False, remat_every: Any = None, engine: Any = "auto", truncate: tuple[Any, Any] | None = None,
    collect: str = "outputs",
) -> tuple[Any, Any]:  # fmt: skip
    """Check the options, and run arrays that are checked: xs (T, *B, I), and one key per sequence or None."""
    engine = check_engine(caller, engine)
    if truncate is not None:
        check_causal(caller, cell)
    options = check_options(caller, xs.shape[0], reverse=reverse, remat_every=remat_every, truncate=truncate)
    options = options._replace(collect=collect, num_sequences=count_sequences(xs))
    return compiled_run(cell, params, xs, state, mask, reset, key, engine=engine, options=options)


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
        sample = partial(_sample_noise, cell, params, xs.shape[0])
        noise = jax.vmap(sample, out_axes=Noise(1, 0))(key) if batch_axes else match_sharding(sample(key), xs)
    inputs = Inputs(params, state, s_initial, xs, noise.steps, noise.sequence, constants, mask, reset)
    return run(engine, cell, inputs, options)


def _sample_noise(cell: Any, params: Any, T: Any, key: Any) -> Noise:
    """Draw the noise of one sequence; check what the cell returns."""
    noise = cell.sample_noise(params, key, T)
    wrong = None if isinstance(noise, Noise) else f"returns a {type(noise).__name__}"
    if wrong is None and any(leaf.shape[:1] != (T,) for leaf in jax.tree.leaves(noise.steps)):
        wrong = f"returns steps of shapes {[leaf.shape for leaf in jax.tree.leaves(noise.steps)]}"
    if wrong is not None:
        raise TypeError(
            f"cell {type(cell).__name__}: sample_noise must return Noise(steps, sequence) with a leading axis of {T} "
            f"in steps, but {wrong}; return jl.Noise(steps=...)"
        )
    return noise


def check_run_key(caller: str, cell: Any, key: Any) -> Any:
    if key is None:
        return None
    if not has_noise(cell):
        raise ValueError(
            f"{caller}: key was given, but cell {type(cell).__name__} draws nothing at random; leave it out"
        )
    return checks.check_key(caller, key)
