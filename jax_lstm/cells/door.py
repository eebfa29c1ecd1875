"""Argument checks, made at trace time: they also work under jit, vmap and grad.

A message is one sentence: where, what was wanted, what came, what to do. ValueError for shapes and values, TypeError
for dtypes and types. `where` is the name of the public function or class that was called, and `name` the argument.
"""

import operator
from typing import Any

import jax
import jax.numpy as jnp

from jax_lstm.cells.shapes import params_shapes, state_shapes


def size(where: str, name: str, value: Any, least: int = 1) -> int:
    """Check an integer of at least `least`; return it as a Python int. NumPy integers are accepted, bools are not."""
    if isinstance(value, bool):
        raise TypeError(f"{where}: {name} must be an integer, but is the bool {value}")
    try:
        n = operator.index(value)
    except TypeError:
        raise TypeError(
            f"{where}: {name} must be a Python integer, but is {value!r} ({type(value).__name__})"
        ) from None
    if n < least:
        raise ValueError(f"{where}: {name} must be at least {least}, but is {n}")
    return n


def number(where: str, name: str, value: Any) -> float:
    """Check a finite number; return it as a Python float."""
    if isinstance(value, bool | str | jax.Array):
        raise TypeError(f"{where}: {name} must be a Python number, but is {value!r} ({type(value).__name__})")
    try:
        x = float(value)
    except TypeError:
        raise TypeError(f"{where}: {name} must be a Python number, but is {value!r} ({type(value).__name__})") from None
    if not -float("inf") < x < float("inf"):
        raise ValueError(f"{where}: {name} must be finite, but is {x}")
    return x


def forget_bias(where: str, forget_bias: Any, chrono: Any) -> tuple[float | None, float | None]:
    """Check forget_bias and chrono, of which at most one may be given; return both, forget_bias = 1 if neither is."""
    if chrono is None:
        return 1.0 if forget_bias is None else number(where, "forget_bias", forget_bias), None
    if forget_bias is not None:
        raise ValueError(
            f"{where}: chrono and forget_bias both set the forget bias, but chrono={chrono} and "
            f"forget_bias={forget_bias} were given; give one of the two"
        )
    chrono = number(where, "chrono", chrono)
    if chrono <= 2:
        raise ValueError(f"{where}: chrono must be greater than 2 (time steps), but is {chrono}")
    return None, chrono


def knob(where: str, name: str, value: Any) -> Any:
    """Refuse an array or a tracer: vmap and jit turn keyword arguments into tracers."""
    if isinstance(value, jax.Array):
        raise TypeError(
            f"{where}: {name} must be a Python value, but is a traced or device array; set it before the "
            f"transformation, for example jax.vmap(functools.partial(jl.{where}, {name}=...))"
        )
    return value


def flag(where: str, name: str, value: Any) -> bool:
    """Check one bool, Python's or NumPy's; return it as a Python bool."""
    value = knob(where, name, value)
    if getattr(value, "dtype", None) == jnp.bool_ and value.ndim == 0:
        return bool(value)
    if not isinstance(value, bool):
        raise TypeError(f"{where}: {name} must be True or False, but is {value!r} ({type(value).__name__})")
    return value


def choice(where: str, name: str, value: Any, choices: tuple[str, ...]) -> str:
    """Check that the value is one of `choices`."""
    if knob(where, name, value) not in choices:
        raise ValueError(f"{where}: {name} must be one of {', '.join(choices)}, but is {value!r}")
    return value


def float_dtype(where: str, name: str, value: Any) -> jnp.dtype:
    """Check a real floating dtype; return it as a `jnp.dtype`."""
    try:
        dtype = jnp.dtype(value)
    except TypeError:
        raise TypeError(
            f'{where}: {name} must be a floating dtype, but is {value!r}; give one, for example "float32"'
        ) from None
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f'{where}: {name} must be a floating dtype, but is {dtype}; give one, for example "float32"')
    return dtype


def prng_key(where: str, key: Any) -> jax.Array:
    """Check one random key, made by jax.random.key or by the older jax.random.PRNGKey."""
    if isinstance(key, jax.Array) and (
        (jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim == 0)
        or (key.dtype == jnp.uint32 and key.ndim == 1)
    ):
        return key
    raise TypeError(f"{where}: key must be one random key, but is {_describe(key)}; make one with jax.random.key(seed)")


def array(where: str, name: str, value: Any) -> jax.Array:
    """Convert a JAX or NumPy array to a JAX array. Lists and Python numbers are refused, since they have no dtype."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return jnp.asarray(value)
    raise TypeError(
        f"{where}: {name} must be a JAX or NumPy array, but is a {type(value).__name__}; "
        f"convert it with jnp.asarray({name})"
    )


def data(where: str, name: str, value: Any, cell: Any, dtype: jnp.dtype, axes: str) -> jax.Array:
    """Check the input, xs "(T, I)" or x "(I,)": floats of a dtype that the params' dtype holds without loss."""
    x = array(where, name, value)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"{where}: {name} must hold floats, but holds {x.dtype}; cast it, for example {name}.astype(jnp.float32)"
        )
    ndim = axes.count(",") + (not axes.endswith(",)"))
    if x.ndim == ndim + 1 and ndim == 2:
        raise ValueError(
            f"{where}: {name} must be one sequence {axes}, but has 3 axes ({name}.shape={x.shape}); for a batch use "
            "jl.batched, or jax.vmap with in_axes=(None, 0) for (B, T, I) and with in_axes=(None, 1), out_axes=(0, 1) "
            "for (T, B, I)"
        )
    if x.ndim != ndim:
        raise ValueError(
            f"{where}: {name} must have shape {axes}, but has {x.ndim} {'axis' if x.ndim == 1 else 'axes'} "
            f"({name}.shape={x.shape})"
        )
    if x.shape[-1] != cell.input_size:
        raise ValueError(
            f"{where}: {name} has {x.shape[-1]} features on its last axis, but cell {_name(cell)} takes "
            f"{cell.input_size} ({name}.shape={x.shape})"
        )
    mine, theirs = jnp.finfo(x.dtype), jnp.finfo(dtype)
    if mine.nmant > theirs.nmant or mine.maxexp > theirs.maxexp:
        raise TypeError(
            f"{where}: {name} is {x.dtype}, which the params' {dtype} cannot hold without loss; "
            f"cast one of them, for example {name}.astype(jnp.{dtype})"
        )
    return x


def flags(where: str, name: str, value: Any, like: jax.Array) -> jax.Array | None:
    """Check a mask or reset: None, or bools over the leading axes of `like`, sharded like it."""
    if value is None:
        return None
    b = jnp.asarray(value) if isinstance(value, bool) else array(where, name, value)
    if b.dtype != jnp.bool_:
        raise TypeError(f"{where}: {name} must hold bools, but holds {b.dtype}; cast it, for example {name} != 0")
    if b.shape != like.shape[:-1]:
        raise ValueError(f"{where}: {name} must have shape {like.shape[:-1]}, one bool per step, but has {b.shape}")
    same_placement(where, name, b, like)
    return b


def same_placement(where: str, name: str, b: jax.Array, xs: jax.Array) -> None:
    """Refuse a mask or reset that is not sharded like the data, on an explicit mesh or inside shard_map."""
    b_type, x_type = jax.typeof(b), jax.typeof(xs)
    b_spec, x_spec = b_type.sharding.spec, x_type.sharding.spec[: b.ndim]
    b_vary, x_vary = b_type.manual_axis_type.varying, x_type.manual_axis_type.varying
    if tuple(b_spec) != tuple(x_spec) or not b_vary <= x_vary:
        raise ValueError(
            f"{where}: {name} must be sharded as the data is, but {name} is {b_type} and the data is {x_type}; "
            "give both the same PartitionSpec on their leading axes"
        )


def cell(where: str, value: Any) -> Any:
    """Check a cell: it has init, initial_state, step and two sizes, and is hashable, as a static argument must be."""
    for name in ("init", "initial_state", "step", "input_size", "hidden_size"):
        if isinstance(value, type) or not hasattr(value, name):
            raise TypeError(
                f"{where}: cell must have init, initial_state, step, input_size and hidden_size, but "
                + (
                    f"is the class {value.__name__}; make an instance of it"
                    if isinstance(value, type)
                    else f"{_describe(value)} has no {name}"
                )
            )
    try:
        hash(value)
    except TypeError:
        raise TypeError(
            f"{where}: cell must be hashable, but {_name(value)} is not; keep only plain Python values in the cell and "
            "put arrays in params"
        ) from None
    if any(
        isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(list(getattr(value, "__dict__", {}).values()))
    ):
        raise TypeError(
            f"{where}: cell must hold plain Python values, but {_name(value)} closes over a traced array; "
            "put that array in params"
        )
    return value


def causal(where: str, cell: Any) -> Any:
    """Check that the cell is causal, so that it can run step by step."""
    if not getattr(cell, "causal", True):
        raise ValueError(
            f"{where}: cell {_name(cell)} looks at later inputs, so it cannot run step by step; "
            "run the whole sequence with jl.unroll"
        )
    return cell


def params(where: str, cell: Any, value: Any) -> tuple[Any, jnp.dtype]:
    """Check the params; return them as JAX arrays, and their dtype."""
    want = params_shapes(cell)
    if isinstance(value, dict) and hasattr(want, "_fields"):
        raise ValueError(
            f"{where}: params must be {type(want).__name__}, but is a dict"
            + "; convert it with cell.params_from(params)" * hasattr(cell, "params_from")
        )
    value = _checked(where, "params", cell, want, value)
    dtypes = {_path(p): a.dtype for p, a in jax.tree_util.tree_leaves_with_path(value)}
    for name, dtype in dtypes.items():
        if not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(
                f"{where}: params.{name} must hold floats, but holds {dtype}; cast it, or keep it out of params"
            )
    if len(set(dtypes.values())) > 1:
        raise TypeError(
            f"{where}: params must have one dtype, but has "
            + ", ".join(f"{name} {dtype}" for name, dtype in dtypes.items())
            + "; cast all leaves to one dtype"
        )
    dtype = next(iter(dtypes.values()), jnp.dtype(jnp.float32))
    if dtype == jnp.float64 and jnp.result_type(float) != jnp.float64:
        raise TypeError(f"{where}: params are float64, but jax_enable_x64 is off; turn it on, or cast them to float32")
    compute = getattr(cell, "compute_dtype", None)
    if compute is not None and jnp.finfo(compute).maxexp > jnp.finfo(dtype).maxexp:
        raise TypeError(
            f"{where}: params are {dtype}, but compute_dtype {compute} has a larger range; "
            "use params of a wider dtype, for example float32"
        )
    return value, dtype


def state(where: str, cell: Any, value: Any, dtype: jnp.dtype) -> Any:
    """Check the state against the shapes and dtypes of the cell's initial state; return it as JAX arrays."""
    want = state_shapes(cell, dtype)
    if type(value) is not type(want):
        raise TypeError(
            f"{where}: state must be a {type(want).__name__}, but is {_describe(value)}; "
            "make one with cell.initial_state(params)"
        )
    value = _checked(where, "state", cell, want, value)
    for (path, w), a in zip(jax.tree_util.tree_leaves_with_path(want), jax.tree.leaves(value), strict=True):
        if a.dtype != w.dtype:
            raise TypeError(
                f"{where}: state.{_path(path)} must be {w.dtype}, as the params are, but is {a.dtype}; cast it"
            )
    return value


def _checked(where: str, what: str, cell: Any, want: Any, value: Any) -> Any:
    """Check that `value` has the leaves and shapes of `want`; return it as JAX arrays. An error names the leaf."""
    want_leaves = {_path(p): leaf for p, leaf in jax.tree_util.tree_leaves_with_path(want)}
    leaves = {_path(p): leaf for p, leaf in jax.tree_util.tree_leaves_with_path(value)}
    for name in want_leaves:
        if name not in leaves:
            raise ValueError(
                f"{where}: {what} lacks {name}, which cell {_name(cell)} needs with shape {want_leaves[name].shape}; "
                f"it has {', '.join(leaves) or 'no leaves'}"
            )
    for name in leaves:
        if name not in want_leaves:
            raise ValueError(
                f"{where}: {what} has {name}, which cell {_name(cell)} does not take; it takes {', '.join(want_leaves)}"
            )
    for name, leaf in leaves.items():
        leaf = array(where, f"{what}.{name}", leaf)
        if leaf.shape != want_leaves[name].shape:
            raise ValueError(
                f"{where}: {what}.{name} has shape {leaf.shape}, but cell {_name(cell)} takes {want_leaves[name].shape}"
            )
    if jax.tree.structure(value) != jax.tree.structure(want):
        raise ValueError(
            f"{where}: {what} must be {type(want).__name__}, the type that cell {_name(cell)} makes, but is "
            f"{_describe(value)}"
        )
    return jax.tree.map(jnp.asarray, value)


def _path(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _name(cell: Any) -> str:
    return type(cell).__name__


def _describe(value: Any) -> str:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"an array {value.dtype}{list(value.shape)}"
    return value.__name__ if isinstance(value, type) else f"a {type(value).__name__}"
