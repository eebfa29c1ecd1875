"""Run a batch of sequences: the same as `jax.vmap` with the right axes, with names for them."""

import inspect
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
from jax.typing import ArrayLike

from jax_lstm import checks
from jax_lstm.cell import Noise
from jax_lstm.cells.lstm import cell_of
from jax_lstm.engines.arguments import Arguments, batch_keys, check_batch_axes, is_one_bool
from jax_lstm.engines.run import run_sequence, run_step
from jax_lstm.engines.sharding import match_sharding
from jax_lstm.sequence import gates_of, lstm, step, tbptt, unroll, unroll_states

DATA = ("xs", "x", "prompt")  # `fn` takes one of these
BATCHED = (*DATA, "state", "mask", "reset", "noise", "constants")  # the arguments that have a batch axis


def batched(fn: Callable, *, time_major: bool = False) -> Callable:
    """Make a function of one sequence take a batch of sequences.

    `fn` is any function of a cell or model with the usual arguments: `unroll`, `unroll_states`, `lstm`, `tbptt`,
    `step`, `gates_of`, `Model.apply` and `apply_last`, `sample`, the measurements in `gradflow`, a partial of one of
    these, or your own. The result is that of `jax.vmap` with the right axes for every array, up to rounding. Arrays
    may be passed by position or by keyword. With B sequences of T steps::

        argument                  fn            batched(fn)         batched(fn, time_major=True)
        xs                        (T, I)        (B, T, I)           (T, B, I)
        mask, reset               (T,)          (B, T)              (T, B)
        x of `step`               (I,)          (B, I)
        mask, reset of `step`     ()            (B,)
        state, each leaf          (H,)          (B, H)              (B, H)
        constants, each leaf      (...)         (B, ...)            (B, ...)
        noise.steps, each leaf    (T, ...)      (B, T, ...)         (T, B, ...)
        noise.sequence            (...)         (B, ...)            (B, ...)
        key                       one key, split into one per sequence
        all others                no batch axis

        result                    fn            batched(fn)         batched(fn, time_major=True)
        last state                (H,)          (B, H)              (B, H)
        hs, states, gates, ys     (T, H)        (B, T, H)           (T, B, H)
        any other                 (...)         (B, ...)            refused

    >>> import jax
    >>> import jax.numpy as jnp
    >>> import jax_lstm as jl
    >>> cell = jl.LSTM(input_size=3, hidden_size=4)
    >>> params = cell.init(jax.random.key(0))
    >>> xs, lengths = jnp.ones((2, 6, 3), jnp.float32), jnp.array([6, 4])
    >>> mask = jnp.arange(6)[None] < lengths[:, None]
    >>> state, hs = jl.batched(jl.unroll)(cell, params, xs, mask=mask)
    >>> state.h.shape, hs.shape
    ((2, 4), (2, 6, 4))
    >>> state, h = jl.batched(jl.step)(cell, params, state, xs[:, 0])
    >>> h.shape
    (2, 4)

    Args:
        fn: a function with an argument `xs`, `x` or `prompt`. Arguments with the names in the table have a batch axis,
            and so has `prompt` (B, P). Pass options such as `window` of `tbptt` when you call the result, or set them
            with `functools.partial`.
        time_major: whether the time axis comes before the batch axis, in arguments and results. For a function over
            sequences of this library, except the measurements. `step` has no time axis, so there it changes nothing.

    Returns:
        A function with the arguments of `fn` that returns what `fn` returns, with the axes above.

    Raises:
        TypeError: `fn` is not such a function, or `time_major` is not a bool. When called: as for `fn`.
        ValueError: when called, if an array has no batch axis or another batch size, or as for `fn`.
    """
    axis = 1 if checks.check_bool("batched", "time_major", time_major) else 0
    if not callable(fn):
        raise TypeError(f"batched: fn must be a function such as jl.unroll, but is {_name(fn)}; pass a function")
    fixed = fn if isinstance(fn, partial) else partial(fn)
    plain = getattr(fixed.func, "__func__", fixed.func)
    signature = _signature(fixed.func)
    if axis == 1 and plain not in (*DIRECT, *RESULT_AXES):
        raise TypeError(
            f"batched: time_major is for functions over sequences of this library, but fn is {_name(plain)}; leave it "
            "out, and pass arrays with the batch axis first"
        )

    def run_in_batch(*args: Any, **kwargs: Any) -> Any:
        try:
            given = signature.bind(*fixed.args, *args, **fixed.keywords | kwargs)
        except TypeError as error:
            raise TypeError(f"{_name(plain)}: {error}; it takes {', '.join(signature.parameters)}") from None
        for name, parameter in signature.parameters.items():  # a jitted partial has its fixed arguments as defaults
            if name in (*BATCHED, "key") and parameter.default is not parameter.empty:
                given.arguments.setdefault(name, parameter.default)
        data = next(name for name in DATA if name in signature.parameters)
        if given.arguments.get(data) is None:
            raise TypeError(
                f"batched: {data} must be a JAX or NumPy array with a batch axis, but is missing or None; pass it"
            )
        if plain in DIRECT:
            return _run(plain, axis, **given.arguments)
        if any(p.kind is p.VAR_POSITIONAL and given.arguments.get(p.name) for p in signature.parameters.values()):
            raise TypeError(
                f"batched: the arguments of {_name(plain)} must have names, so that those of a batch are known, but it "
                "got some as *args; pass them by keyword"
            )
        return _map(fixed.func, given, data, axis, RESULT_AXES.get(plain, 0) if axis else 0)

    return run_in_batch


DIRECT = (unroll, unroll_states, lstm, tbptt, step)  # run as one batch, not under `jax.vmap`
RESULT_AXES: dict[Callable, Any] = {gates_of: 1}  # the batch axes of the results if the data are time-major


def time_major_results(axes: Any) -> Callable[[Callable], Callable]:
    """A decorator: where the results of a function or method have their batch axes, if the data are time-major."""

    def register(fn: Callable) -> Callable:
        RESULT_AXES[fn] = axes
        return fn

    return register


def _signature(fn: Callable) -> inspect.Signature:
    """Check that fn has an argument named in `DATA`; return its signature."""
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):
        signature = inspect.Signature()
    if not set(DATA) & set(signature.parameters):
        raise TypeError(
            f"batched: fn must be a function of one sequence with an argument xs or x, such as jl.unroll, but "
            f"{_name(fn)} has none; use jax.vmap"
        )
    return signature


def _name(fn: Any) -> str:
    return getattr(fn, "__name__", None) or f"a {type(fn).__name__}"


def _run(plain: Callable, axis: int, **given: Any) -> Any:
    """Run a function of `DIRECT` on arrays with a batch axis.

    The batch is checked as a whole, and an eager call is one compiled program.
    """
    cell = cell_of("lstm", given["params"]) if plain is lstm else given.pop("cell")
    if plain is step:
        given["xs"] = given.pop("x")
    if plain is tbptt:
        given["truncate"] = given.pop("window"), given.pop("stride", None)
    arguments = Arguments(**{name: given.pop(name, None) for name in Arguments._fields})
    if plain is step:
        return run_step("step", cell, arguments, batch_axis=0)
    collect = "states" if plain is unroll_states else "outputs"
    s_T, ys = run_sequence(plain.__name__, cell, arguments, batch_axis=axis, collect=collect, **given)
    return ys if plain is unroll_states else (s_T, ys)


def _map(fn: Callable, given: inspect.BoundArguments, data: str, axis: int, results: Any) -> Any:
    """Map any other function over the batch."""
    parameters = given.signature.parameters
    var_keyword = next((p.name for p in parameters.values() if p.kind is p.VAR_KEYWORD), None)
    named = dict(given.arguments)
    named |= named.pop(var_keyword, {}) if var_keyword else {}
    arrays = {name: a for name, a in named.items() if name in BATCHED and a is not None and not is_one_bool(a)}
    check_batch_axes({data: arrays[data]} | arrays, axis)
    axes = {"xs": axis, "mask": axis, "reset": axis, "noise": Noise(axis, 0)}
    if (key := named.get("key")) is not None:
        arrays["key"] = batch_keys(checks.check_key("batched", key), arrays[data], axis)

    def one(arrays: dict[str, Any]) -> Any:
        all_named = named | arrays
        own = {name: a for name, a in all_named.items() if name in parameters}
        if var_keyword:
            own[var_keyword] = {name: a for name, a in all_named.items() if name not in parameters}
        in_order = OrderedDict((name, own[name]) for name in parameters if name in own)
        call = inspect.BoundArguments(given.signature, in_order)
        return fn(*call.args, **call.kwargs)

    return jax.vmap(one, ({name: axes.get(name, 0) for name in arrays},), results)(arrays)


def initial_states(cell: Any, params: Any, batch_size: int | tuple[int, ...], like: ArrayLike | None = None) -> Any:
    """The initial states of a batch of sequences: `cell.initial_state(params)`, repeated along a leading batch axis.

    >>> import jax
    >>> import jax_lstm as jl
    >>> cell = jl.LSTM(input_size=3, hidden_size=4)
    >>> state = jl.initial_states(cell, cell.init(jax.random.key(0)), 64)
    >>> state.h.shape, state.c.shape
    ((64, 4), (64, 4))

    Args:
        cell: a cell, layer or `Model`.
        params: what its `init` returns.
        batch_size: B, the number of sequences, a Python integer; or a tuple of sizes, for several batch axes.
        like: an array whose leading axes are those of the batch, such as data (B, T, I) or observations (B, I). The
            states are then sharded over devices as it is. None: they are placed as JAX places new arrays.

    Returns:
        A state, every leaf (B, ...). No two leaves share memory, so that the state may be donated.

    Raises:
        ValueError: batch_size is negative, or `like` has other leading axes; or params have wrong shapes.
        TypeError: cell is not a cell or model, or batch_size is not an integer or a tuple of integers.
    """
    if not (hasattr(cell, "init") and hasattr(cell, "initial_state")) or isinstance(cell, type):
        raise TypeError(f"initial_states: cell must be a cell, layer or Model, but is {_name(cell)}; make an instance")
    if checks.is_array(batch_size) or checks.field_names(batch_size):
        raise TypeError(
            f"initial_states: batch_size must be a Python integer, but is {checks.shown(batch_size)}; params come "
            "before it"
        )
    sizes = batch_size if isinstance(batch_size, tuple) else (batch_size,)
    sizes = tuple(
        size if jax.export.is_symbolic_dim(size) else checks.positive_int("initial_states", "batch_size", size, 0)
        for size in sizes
    )
    checks.check_hashable("initial_states", cell)
    state = cell.initial_state(checks.check_params("initial_states", cell, params)[0])
    if like is None:
        return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (*sizes, *leaf.shape)), state)
    like = checks.as_array("initial_states", "like", like)
    if like.shape[: len(sizes)] != sizes:
        raise ValueError(
            f"initial_states: like must have the leading batch axes {sizes}, but has shape {like.shape}; pass data "
            "with the batch axes first"
        )
    placed = match_sharding
    for _ in sizes:
        placed = jax.vmap(placed, (None, 0))
    return placed(state, like)
