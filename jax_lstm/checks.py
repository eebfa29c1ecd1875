"""Argument checks, made at trace time: they also work under jit, vmap and grad.

A message is one sentence: caller, what was wanted, what came, what to do. ValueError for shapes and values, TypeError
for dtypes and types. `caller` is the name of the public function or class that was called, and `name` the argument.
"""

import math
import operator
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp

from jax_lstm.gates import ACTIVATIONS, SYNONYMS


def positive_int(caller: str, name: str, value: Any, least: int = 1) -> int:
    """Check an integer of at least `least`; return it as a Python int. NumPy integers are accepted, bools are not."""
    if isinstance(static_value(caller, name, value), bool):
        raise TypeError(f"{caller}: {name} must be an integer, but is the bool {value}")
    try:
        n = operator.index(value)
    except TypeError:
        raise TypeError(f"{caller}: {name} must be a Python integer, but is {shown(value)}{of_type(value)}") from None
    if n < least:
        raise ValueError(f"{caller}: {name} must be at least {least}, but is {shown(n)}")
    return n


def finite_number(caller: str, name: str, value: Any) -> float:
    """Check a finite number; return it as a Python float."""
    if isinstance(value, bool | str | jax.Array):
        raise TypeError(f"{caller}: {name} must be a Python number, but is {shown(value)}{of_type(value)}")
    try:
        x = float(value)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"{caller}: {name} must be a Python number, but is {shown(value)}{of_type(value)}") from None
    if not -float("inf") < x < float("inf"):
        raise ValueError(f"{caller}: {name} must be finite, but is {x}")
    return x


def number_or_array(
    caller: str,
    name: str,
    value: Any,
    shape: tuple[Any, ...],
    valid: Callable[[float], bool] = math.isfinite,
    wanted: str = "finite",
) -> float | jax.Array:
    """Check a number, or an array that broadcasts to `shape`; return it as a Python float or a JAX array.

    Each entry must be `valid`, which `wanted` says in words. The entries of a traced array are not checked.
    """
    if is_array(value):
        value = jnp.asarray(value)
        if not jnp.issubdtype(value.dtype, jnp.floating) and not jnp.issubdtype(value.dtype, jnp.integer):
            raise TypeError(f"{caller}: {name} must hold real numbers, but holds {value.dtype}; cast it to floats")
        if value.ndim > len(shape) or any(
            n not in (1, m) for n, m in zip(value.shape[::-1], shape[::-1], strict=False)
        ):
            raise ValueError(f"{caller}: {name} must be a number or broadcast to {shape}, but has shape {value.shape}")
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(
            f"{caller}: {name} must be a number, or an array that broadcasts to {shape}, but is {shown(value)}"
        )
    else:
        value = float(value)
    if not isinstance(value, jax.core.Tracer):
        for entry in [value] if isinstance(value, float) else jax.tree.leaves(value.tolist()):
            if not (math.isfinite(entry) and valid(entry)):
                raise ValueError(f"{caller}: {name} must be {wanted}, but is {entry}")
    return value


def check_rates(caller: str, rates: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """Check the argument `rates` of `sample_noise`, a dict with some of `names`; leave out entries that are None."""
    if rates is None:
        return {}
    if not isinstance(rates, dict):
        raise TypeError(f"{caller}: rates must be a dict by name, but is {_describe(rates)}")
    if unknown := [str(name) for name in rates if name not in names]:
        takes = f"takes {', '.join(names)}" if names else "takes none"
        raise ValueError(f"{caller}: rates has {listed(unknown)}, but {takes}")
    return {name: rate for name, rate in rates.items() if rate is not None}


def check_forget_bias(caller: str, forget_bias: Any, chrono: Any) -> tuple[float | None, float | None]:
    """Check forget_bias and chrono, of which at most one may be given; return both. If neither is, forget_bias = 1."""
    if chrono is None:
        return 1.0 if forget_bias is None else finite_number(caller, "forget_bias", forget_bias), None
    if forget_bias is not None:
        raise ValueError(
            f"{caller}: chrono and forget_bias both set the forget bias, but chrono={shown(chrono)} and "
            f"forget_bias={shown(forget_bias)} were given; give one of the two"
        )
    chrono = finite_number(caller, "chrono", chrono)
    if chrono <= 2:
        raise ValueError(f"{caller}: chrono must be greater than 2 (time steps), but is {chrono}")
    return None, chrono


def activation_name(caller: str, name: str, value: Any) -> str:
    """Check an activation: a name of `ACTIVATIONS` or `SYNONYMS`, or a function of `ACTIVATIONS`; return its name."""
    found = SYNONYMS.get(value, value) if isinstance(value, str) else None
    if not isinstance(value, str):
        found = next((known for known, f in ACTIVATIONS.items() if f is value), None)
    if found not in ACTIVATIONS:
        came = shown(value)
        raise ValueError(
            f"{caller}: {name} must be one of {', '.join(ACTIVATIONS)}, or that function of jax.nn, but is {came}; for "
            "another function override update"
        )
    return found


def static_value(caller: str, name: str, value: Any) -> Any:
    """Refuse a JAX array, for example a tracer; return any other value. vmap and jit turn keywords into tracers."""
    if isinstance(value, jax.Array):
        raise TypeError(
            f"{caller}: {name} must be a Python value, but is a traced or device array; set it before the "
            f"transformation, for example jax.vmap(functools.partial(jl.{caller}, {name}=...))"
        )
    return value


def check_bool(caller: str, name: str, value: Any) -> bool:
    """Check one bool, Python's or NumPy's; return it as a Python bool."""
    value = static_value(caller, name, value)
    if is_array(value) and value.dtype == jnp.bool_ and value.ndim == 0:
        return bool(value)
    if not isinstance(value, bool):
        raise TypeError(f"{caller}: {name} must be True or False, but is {shown(value)}{of_type(value)}")
    return value


def one_of(caller: str, name: str, value: Any, choices: tuple[str, ...]) -> str:
    """Check that the value is one of `choices`."""
    if not isinstance(static_value(caller, name, value), str) or value not in choices:
        raise ValueError(f"{caller}: {name} must be one of {', '.join(choices)}, but is {shown(value)}")
    return value


def float_dtype(caller: str, name: str, value: Any) -> jnp.dtype:
    """Check a real floating dtype; return it as a `jnp.dtype`."""
    try:
        dtype = jnp.dtype("an array" if isinstance(value, jax.Array) else value)
    except (TypeError, ValueError):
        raise TypeError(
            f'{caller}: {name} must be a floating dtype, but is {shown(value)}; give one, for example "float32"'
        ) from None
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f'{caller}: {name} must be a floating dtype, but is {dtype}; give one, for example "float32"')
    return dtype


def check_key(caller: str, key: Any) -> jax.Array:
    """Check one random key, made by jax.random.key or by the older jax.random.PRNGKey."""
    if isinstance(key, jax.Array) and (
        (jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim == 0)
        or (key.dtype == jnp.uint32 and key.ndim == 1)
    ):
        return key
    raise TypeError(
        f"{caller}: key must be one random key, but is {_describe(key)}; make one with jax.random.key(seed)"
    )


def as_array(caller: str, name: str, value: Any) -> jax.Array:
    """Convert a JAX or NumPy array to a JAX array. Lists and Python numbers are refused, since they have no dtype."""
    if isinstance(value, jax.ShapeDtypeStruct):
        raise TypeError(
            f"{caller}: {name} must be a JAX or NumPy array, but is a jax.ShapeDtypeStruct, a shape without values; "
            "pass values, or call the function under jax.eval_shape"
        )
    if is_array(value):
        return jnp.asarray(value)
    advice = "check the order of the arguments"
    if isinstance(value, list | tuple | float | int | complex) and not field_names(value):
        advice = f"convert it with jnp.asarray({name})"
    raise TypeError(f"{caller}: {name} must be a JAX or NumPy array, but is {_describe(value)}; {advice}")


def check_input(caller: str, name: str, value: Any, cell: Any, dtype: jnp.dtype, axes: str) -> jax.Array:
    """Check xs or x: of shape `axes`, "(T, I)" or "(I,)", and floats that the params' dtype holds without loss."""
    _check_not_swapped(caller, name, f"an array {axes}", value, cell, dtype)
    x = as_array(caller, name, value)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"{caller}: {name} must hold floats, but holds {x.dtype}; cast it, for example {name}.astype(jnp.float32)"
        )
    ndim = axes.count(",") + (not axes.endswith(",)"))
    if x.ndim == ndim + 1 and ndim == 2:
        raise ValueError(
            f"{caller}: {name} must be one sequence {axes}, but has 3 axes ({name}.shape={x.shape}); for a batch use "
            "jl.batched, or jax.vmap with in_axes=(None, 0) for (B, T, I) and with in_axes=(None, 1), out_axes=(0, 1) "
            "for (T, B, I)"
        )
    if x.ndim != ndim:
        raise ValueError(
            f"{caller}: {name} must have shape {axes}, but has {x.ndim} {'axis' if x.ndim == 1 else 'axes'} "
            f"({name}.shape={x.shape})"
        )
    if x.shape[-1] != cell.input_size:
        raise ValueError(
            f"{caller}: {name} has {x.shape[-1]} features on its last axis, but cell {_name(cell)} takes "
            f"{cell.input_size} ({name}.shape={x.shape})"
        )
    if ndim == 2 and not is_at_least(x.shape[0], 0 if isinstance(x.shape[0], int) else 1):
        raise ValueError(
            f"{caller}: {name} must have at least 1 step in an exported program, but has T = {x.shape[0]}, which may "
            f"be 0; make the shape with jax.export.symbolic_shape(..., constraints=[{f'{x.shape[0]} >= 1'!r}])"
        )
    mine, theirs = jnp.finfo(x.dtype), jnp.finfo(dtype)
    if mine.nmant > theirs.nmant or mine.maxexp > theirs.maxexp:
        raise TypeError(
            f"{caller}: {name} is {x.dtype}, which the params' {dtype} cannot hold without loss; "
            f"cast one of them, for example {name}.astype(jnp.{dtype})"
        )
    return x


def check_mask(caller: str, name: str, value: Any, like: jax.Array) -> jax.Array | None:
    """Check a mask or reset: None, or bools of shape like.shape[:-1], sharded like `like`; return it as a JAX array."""
    if value is None:
        return None
    if not is_array(value) and not isinstance(value, bool | list):
        raise TypeError(
            f"{caller}: {name} must hold bools, but is {_describe(value)}; check the order of the arguments"
        )
    b = jnp.asarray(value) if isinstance(value, bool) else as_array(caller, name, value)
    if b.dtype != jnp.bool_:
        advice = f"cast it, for example {name} != 0"
        if b.ndim == like.ndim - 2 and jnp.issubdtype(b.dtype, jnp.integer):
            advice = f"for lengths pass jnp.arange(T) < {name}[..., None]"
        raise TypeError(f"{caller}: {name} must hold bools, but holds {b.dtype}; {advice}")
    if b.shape != like.shape[:-1]:
        raise ValueError(f"{caller}: {name} must have shape {like.shape[:-1]}, one bool per step, but has {b.shape}")
    check_same_sharding(caller, name, b, like)
    return b


def check_same_sharding(caller: str, name: str, b: jax.Array, xs: jax.Array) -> None:
    """Refuse a mask or reset b that is not sharded like the data xs, on an explicit mesh or inside shard_map."""
    b_type, x_type = jax.typeof(b), jax.typeof(xs)
    b_spec, x_spec = b_type.sharding.spec, x_type.sharding.spec[: b.ndim]
    b_vary, x_vary = b_type.manual_axis_type.varying, x_type.manual_axis_type.varying
    if tuple(b_spec) != tuple(x_spec) or not b_vary <= x_vary:
        raise ValueError(
            f"{caller}: {name} must be sharded as the data is, but {name} is {b_type} and the data is {x_type}; "
            "give both the same PartitionSpec on their leading axes"
        )


def check_params_sharding(caller: str, params: Any, axes: set[str], why: str) -> None:
    """Refuse params of which a leaf is sharded, on an explicit mesh, over one of the mesh axes `axes`."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        placed = jax.typeof(leaf).sharding.spec if isinstance(leaf, jax.Array) else ()
        if both := axes & mesh_axes(*placed):
            raise ValueError(
                f"{caller}: {_leaf('params', _path(path))} must not be sharded over the mesh axis {min(both)!r}, "
                f"{why}, but its type is {jax.typeof(leaf)}; replicate the params, for example "
                "jax.sharding.reshard(params, jax.P())"
            )


def mesh_axes(*spec: Any) -> set[str]:
    """The names of the mesh axes in entries of a PartitionSpec."""
    return {name for entry in spec for name in (entry if isinstance(entry, tuple) else (entry,)) if name is not None}


def check_cell(caller: str, value: Any) -> Any:
    """Check and return a cell: it must have init, initial_state, step and two sizes, be hashable and hold no tracer."""
    wanted = f"{caller}: cell must have init, initial_state, step, input_size and hidden_size, but "
    if isinstance(value, type):
        raise TypeError(wanted + f"is the class {value.__name__}; make an instance of it")
    for name in ("init", "initial_state", "step", "input_size", "hidden_size"):
        if not hasattr(value, name):
            advice = "" if isinstance(value, str | int | float | type(None)) else "; the cell comes before its params"
            advice = "; pass its field cell" if hasattr(value, "cell") else advice
            raise TypeError(wanted + f"{_describe(value)} has no {name}{advice}")
    check_hashable(caller, value)
    if holds_tracer(value):
        raise TypeError(
            f"{caller}: cell must hold plain Python values, but {_name(value)} closes over a traced array; "
            "put that array in params"
        )
    return value


def check_hashable(caller: str, cell: Any) -> None:
    """Check that a cell, layer or model is hashable."""
    try:
        hash(cell)
    except TypeError:
        raise TypeError(
            f"{caller}: cell must be hashable, but {_name(cell)} is not; keep only plain Python values in the cell "
            "and put arrays in params"
        ) from None


def check_params(caller: str, cell: Any, value: Any) -> tuple[Any, jnp.dtype]:
    """Check that the params have the leaves of `init` and one float dtype; return them as JAX arrays, and the dtype."""
    want = params_shapes(cell)
    if isinstance(value, dict) and field_names(want):
        raise ValueError(
            f"{caller}: params must be {type(want).__name__}, but is a dict; convert it with "
            "jl.params_from(cell, params)"
        )
    _check_not_swapped(caller, "params", type(want).__name__, value, cell, jnp.dtype(jnp.float32))
    value = _checked(caller, "params", cell, want, value)
    dtypes = {_path(p): a.dtype for p, a in jax.tree_util.tree_leaves_with_path(value)}
    for name, dtype in dtypes.items():
        if not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(
                f"{caller}: {_leaf('params', name)} must hold floats, but holds {dtype}; cast it, or keep it out of "
                "params"
            )
    if len(set(dtypes.values())) > 1:
        raise TypeError(
            f"{caller}: params must have one dtype, but has "
            + listed(f"{name} {dtype}" for name, dtype in dtypes.items())
            + "; cast all leaves to one dtype"
        )
    dtype = next(iter(dtypes.values()), jnp.dtype(jnp.float32))
    if dtype == jnp.float64 and jnp.result_type(float) != jnp.float64:
        raise TypeError(f"{caller}: params are float64, but jax_enable_x64 is off; turn it on, or cast them to float32")
    compute = getattr(cell, "compute_dtype", None)
    if compute is not None and jnp.finfo(compute).maxexp > jnp.finfo(dtype).maxexp:
        raise TypeError(
            f"{caller}: params are {dtype}, but compute_dtype {compute} has a larger range; "
            "use params of a wider dtype, for example float32"
        )
    return value, dtype


def check_state(caller: str, cell: Any, value: Any, dtype: jnp.dtype) -> Any:
    """Check the state against the shapes and dtypes of the cell's initial state; return it as JAX arrays."""
    want = state_shapes(cell, dtype)
    is_one_array = isinstance(want, jax.ShapeDtypeStruct)
    wanted = "one array" if is_one_array else f"a {type(want).__name__}"
    _check_not_swapped(caller, "state", wanted, value, cell, dtype)
    if not is_array(value) if is_one_array else type(value) is not type(want):
        raise TypeError(
            f"{caller}: state must be {wanted}, but is "
            f"{_describe(value)}; convert a restored state with jl.state_from(cell, state), or make a first one with "
            "cell.initial_state(params), for a batch with jl.initial_states"
        )
    value = _checked(caller, "state", cell, want, value)
    for (path, w), a in zip(jax.tree_util.tree_leaves_with_path(want), jax.tree.leaves(value), strict=True):
        if a.dtype != w.dtype:
            raise TypeError(
                f"{caller}: {_leaf('state', _path(path))} must be {w.dtype}, as the params are, but is {a.dtype}; "
                "cast it"
            )
    return value


def _checked(caller: str, what: str, cell: Any, want: Any, value: Any) -> Any:
    """Check that `value` has the leaves and shapes of `want`; return it as JAX arrays. An error names the leaf."""
    want_leaves = {_path(p): leaf for p, leaf in jax.tree_util.tree_leaves_with_path(want)}
    leaves = {_path(p): leaf for p, leaf in jax.tree_util.tree_leaves_with_path(value)}
    if list(want_leaves) != list(leaves) and "" in (*want_leaves, *leaves):  # one of the two is a bare array
        wanted = f"an array of shape {want.shape}" if is_array(want) else type(want).__name__
        raise ValueError(f"{caller}: {what} must be {wanted} for cell {_name(cell)}, but is {_describe(value)}")
    for name in want_leaves:
        if name not in leaves:
            raise ValueError(
                f"{caller}: {what} lacks {name}, which cell {_name(cell)} needs with shape {want_leaves[name].shape}; "
                f"it has {listed(leaves) or 'no leaves'}"
            )
    for name in leaves:
        if name not in want_leaves:
            raise ValueError(
                f"{caller}: {what} has {shown(name, quoted=False)}, which cell {_name(cell)} does not take; "
                f"it takes {listed(want_leaves)}"
            )
    for name, leaf in leaves.items():
        leaf = as_array(caller, _leaf(what, name), leaf)
        if leaf.shape != want_leaves[name].shape:
            raise ValueError(
                f"{caller}: {_leaf(what, name)} has shape {leaf.shape}, but cell {_name(cell)} takes "
                f"{want_leaves[name].shape}"
            )
    if jax.tree.structure(value) != jax.tree.structure(want):
        raise ValueError(
            f"{caller}: {what} must be {type(want).__name__}, the type that cell {_name(cell)} makes, but is "
            f"{_describe(value)}, or has other containers inside; convert it with jl.{what}_from(cell, {what})"
        )
    return jax.tree.map(jnp.asarray, value)


def check_fields(cell: Any) -> None:
    """Check the sizes and the compute dtype of a built-in cell; store them as Python ints and a dtype name."""
    caller = type(cell).__name__
    for name in ("input_size", "hidden_size"):
        object.__setattr__(cell, name, positive_int(caller, name, getattr(cell, name)))
    if cell.compute_dtype is not None:
        name = float_dtype(caller, "compute_dtype", cell.compute_dtype).name
        object.__setattr__(cell, "compute_dtype", name)


def field_names(tree: Any) -> tuple[str, ...]:
    """The names of the fields of a NamedTuple; empty for any other value."""
    return getattr(tree, "_fields", ())


def holds_tracer(value: Any) -> bool:
    """Whether an attribute of an object holds a tracer."""
    held = vars(value).values() if hasattr(value, "__dict__") else ()
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(list(held)))


@lru_cache(maxsize=256)
def params_shapes(cell: Any) -> Any:
    """The shapes and dtypes that `cell.init` returns, without drawing params."""
    return jax.eval_shape(cell.init, some_key())


def some_key() -> Any:
    """The shape and dtype of a random key."""
    return jax.eval_shape(lambda: jax.random.key(0))


def state_shapes(cell: Any, dtype: jnp.dtype) -> Any:
    """The shapes and dtypes that `cell.initial_state` returns for params of this dtype."""
    return _state_shapes(cell, dtype, jnp.result_type(float))


@lru_cache(maxsize=256)
def _state_shapes(cell: Any, dtype: jnp.dtype, widest: jnp.dtype) -> Any:
    """`state_shapes`, cached. `widest` is only part of the cache's key: shapes depend on whether float64 is on."""
    params = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, dtype), params_shapes(cell))
    return jax.eval_shape(cell.initial_state, params)


def is_at_least(n: Any, least: Any) -> bool:
    """Whether n ≥ least; False for a symbolic size of which this is not known (`jax.export`)."""
    try:
        return bool(n >= least)
    except jax.errors.InconclusiveDimensionOperation:
        return False


def is_array(value: Any) -> bool:
    """Whether a value has a shape and a dtype."""
    return hasattr(value, "shape") and hasattr(value, "dtype")


def shown(value: Any, *, quoted: bool = True) -> str:
    """A user's value in a message, at most 60 characters: of an array dtype and shape, of a long container the type."""
    if isinstance(value, jax.Array) or (is_array(value) and value.shape):
        return f"an array {value.dtype}{list(value.shape)}"
    is_container = isinstance(value, dict | list | tuple | set | frozenset | bytes | bytearray)
    if is_container and (len(value) > 9 or field_names(value) or any(map(is_array, jax.tree.leaves(value)))):
        return f"a {type(value).__name__}"
    if callable(value) and hasattr(value, "__name__") and not isinstance(value, type):
        return value.__name__
    try:
        text = " ".join((repr(value[:61]) if isinstance(value, str) else repr(value)).split())
    except Exception:  # the repr of a user's object, or of an integer with thousands of digits
        return f"a {type(value).__name__}"
    if is_container and len(text) > 60:
        return f"a {type(value).__name__}"
    text = text if quoted or not isinstance(value, str) else value
    return text if len(text) <= 60 else text[:57] + "..."


def of_type(value: Any) -> str:
    """The type of a value in parentheses, to follow `shown`; nothing where `shown` already says it."""
    what = type(value).__name__
    return "" if shown(value).startswith(("an array ", f"a {what}")) else f" ({what})"


def listed(names: Any) -> str:
    """Names in a message, separated by commas: at most about 100 characters, then how many more there are."""
    names = [shown(name, quoted=False) for name in names]
    few, length = [], 0
    for name in names:
        length += len(name) + 2
        if few and length > 100:
            return ", ".join(few) + f" and {len(names) - len(few)} more"
        few.append(name)
    return ", ".join(few)


def _check_not_swapped(caller: str, name: str, wanted: str, value: Any, cell: Any, dtype: jnp.dtype) -> None:
    """Refuse an argument that is another one of the same call, such as a state in place of x."""
    what = _argument_of(value, cell, dtype, name)
    if what is None:
        return
    if what == "key":
        raise TypeError(f"{caller}: {name} must be {wanted}, but is a random key; pass it as key=")
    if what == "mask":
        raise TypeError(f"{caller}: {name} must be {wanted}, but is {_describe(value)}; pass a mask as mask=")
    error = ValueError if name == "params" else TypeError
    raise error(f"{caller}: {name} must be {wanted}, but is {_describe(value)}; {name} and {what} look swapped")


def _argument_of(value: Any, cell: Any, dtype: jnp.dtype, name: str) -> str | None:
    """Which other argument a value is, if that is certain: "params", "state", "xs", "x", "mask", "cell" or "key"."""
    if value is None:
        return None
    if is_array(value):
        wanted = {"params": lambda: params_shapes(cell), "state": lambda: state_shapes(cell, dtype)}.get(name)
        if wanted is not None and is_array(wanted()):
            return None
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            return "key"
        if wanted is None:
            return None
        if value.dtype == jnp.uint32 and value.shape in ((2,), (4,)):  # a key of jax.random.PRNGKey
            return "key"
        if value.dtype == jnp.bool_:
            return "mask"
        return {1: "x", 2: "xs"}.get(len(value.shape)) if jnp.issubdtype(value.dtype, jnp.floating) else None
    if not field_names(value):
        return "cell" if hasattr(value, "step") and hasattr(value, "initial_state") else None
    if type(value) is type(params_shapes(cell)):
        return "params" if name != "params" else None
    # A layer such as Readout has params only.
    is_state = hasattr(cell, "initial_state") and type(value) is type(state_shapes(cell, dtype))
    return "state" if is_state and name != "state" else None


def leaf_name(what: str, path: Any) -> str:
    """The name of the leaf at this path of a pytree called `what`."""
    return _leaf(what, _path(path))


def _leaf(what: str, name: str) -> str:
    """The name of a leaf of params or state, which may itself be one array."""
    return f"{what}.{name}" if name else what


def _path(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _name(cell: Any) -> str:
    return type(cell).__name__


def _describe(value: Any) -> str:
    if is_array(value):
        return f"an array {value.dtype}{list(value.shape)}"
    return value.__name__ if isinstance(value, type) else f"a {type(value).__name__}"
