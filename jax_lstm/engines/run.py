"""From the arguments of a public function to a compiled run: check them, draw the noise, run the engine."""

from functools import partial
from typing import Any

import jax

from jax_lstm import checks
from jax_lstm.abilities import check_causal
from jax_lstm.cell import Noise
from jax_lstm.engines.arguments import Arguments, are_arrays, check_arguments, check_batch
from jax_lstm.engines.associative import Associative
from jax_lstm.engines.auto import Auto
from jax_lstm.engines.driver import run
from jax_lstm.engines.engine import Engine, Inputs, Options
from jax_lstm.engines.hoisted import Hoisted
from jax_lstm.engines.masking import zero_masked
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
        if not isinstance(T, int):
            raise ValueError(
                f"{caller}: window needs a known number of steps, but T is {T}; export with a fixed T, or use "
                "jl.unroll, which gives the same outputs"
            )
    remat_every = checks.static_value(caller, "remat_every", remat_every)
    auto = isinstance(remat_every, str) and remat_every == "auto"
    n = None if remat_every is None or auto else checks.positive_int(caller, "remat_every", remat_every)
    if not isinstance(T, int) and (auto or (n is not None and not isinstance(T % n, int))):
        raise ValueError(
            f"{caller}: remat_every={remat_every!r} needs a known number of steps"
            + f" or a multiple of {n}" * (not auto)
            + f", but T is {T}; leave remat_every out when exporting, or export with a fixed T"
        )
    n = segment_length(T) if auto else n
    return Options(reverse=checks.check_bool(caller, "reverse", reverse), remat_every=n, truncate=truncate)


class Caller(str):
    """The name of a public function, for messages.

    Two names always compare equal. So functions that differ in their name only share one compiled program.
    """

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Caller)

    def __hash__(self) -> int:
        return hash(Caller)


def run_sequence(
    caller: str, cell: Any, arguments: Arguments, *, reverse: Any = False, remat_every: Any = None,
    engine: Any = "auto", truncate: tuple[Any, Any] | None = None, collect: str = "outputs",
    batch_axis: int | None = None,
) -> tuple[Any, Any]:  # fmt: skip
    """Check all arguments and run one sequence; or a batch of sequences, whose batch axis in xs is `batch_axis`."""
    cell, engine = checks.check_cell(caller, cell), check_engine(caller, engine)
    if truncate is not None:
        check_causal(caller, cell)
    axis = 1 if batch_axis == 0 else 0  # of time
    shape = getattr(arguments.xs, "shape", ())
    T = shape[axis] if len(shape) > axis else 0
    options = check_options(caller, T, reverse=reverse, remat_every=remat_every, truncate=truncate)
    options = options._replace(collect=collect)
    return _run(caller, cell, arguments, engine=engine, options=options, name="xs", batch_axis=batch_axis)


def run_step(caller: str, cell: Any, arguments: Arguments, *, batch_axis: int | None = None) -> tuple[Any, Any]:
    """Check all arguments and run one step of one sequence; or of a batch, if `batch_axis` is 0."""
    cell = check_causal(caller, checks.check_cell(caller, cell))
    return _run(caller, cell, arguments, engine=Plain(), options=Options(), name="x", batch_axis=batch_axis)


def _run(caller: str, cell: Any, arguments: Arguments, *, options: Options, **static: Any) -> tuple[Any, Any]:
    name, batch_axis = static["name"], static["batch_axis"]
    if not (checks.is_array(arguments.xs) and are_arrays(jax.tree.leaves(arguments))):
        # An argument is wrong; this raises the error that names it.
        _checked(caller, cell, arguments, name, batch_axis)
    return compiled_run(Caller(caller), cell, arguments, options=options, **static)


def _checked(caller: str, cell: Any, arguments: Arguments, name: str, batch_axis: int | None) -> Arguments:
    if batch_axis is None:
        return check_arguments(caller, cell, arguments, name)
    return check_batch(caller, cell, arguments, name, batch_axis)


# Jitted once, on the static cell, engine and options: a second eager call with the same shapes compiles nothing.
@partial(jax.jit, static_argnames=("caller", "cell", "engine", "options", "name", "batch_axis"))
def compiled_run(
    caller: str, cell: Any, arguments: Arguments, *, engine: Engine, options: Options, name: str,
    batch_axis: int | None,
) -> tuple[Any, Any]:  # fmt: skip
    """Check the arrays and run a cell: over a sequence, or for one step if `name` is "x".

    Resets at masked steps are dropped here. All random numbers are drawn here, before the first step.
    """
    arguments = _checked(caller, cell, arguments, name, batch_axis)
    if name == "x":
        x, mask, reset = jax.tree.map(lambda a: a[None], (arguments.xs, arguments.mask, arguments.reset))
        arguments = arguments._replace(xs=x, mask=mask, reset=reset)
    s_T, ys = run(engine, cell, _inputs(cell, arguments), options)
    if name == "x":
        return s_T, jax.tree.map(lambda a: a[0], ys)
    return s_T, jax.tree.map(lambda a: a.swapaxes(0, 1), ys) if batch_axis == 0 else ys


def _inputs(cell: Any, arguments: Arguments) -> Inputs:
    """The inputs of a run, from arrays that are checked: xs (T, *B, I), and one key per sequence or None."""
    params, xs, state, mask, reset, key, noise, constants = arguments
    reset = reset if reset is None or mask is None else reset & mask
    s_initial = None if reset is None else cell.initial_state(params)
    in_batch = xs.ndim > 2
    if in_batch:
        s_initial = jax.vmap(match_sharding, (None, 1))(s_initial, xs)
    if key is not None:
        sample = partial(_sample_noise, cell, params, xs.shape[0])
        noise = jax.vmap(sample, out_axes=Noise(1, 0))(key) if in_batch else match_sharding(sample(key), xs)
    noise = Noise() if noise is None else noise
    # Zeros before anything else is done: a check for NaN, as of `jax.experimental.checkify`, sees every operation.
    xs = zero_masked(mask, xs)
    return Inputs(params, state, s_initial, xs, noise.steps, noise.sequence, constants, mask, reset)


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
