"""Params and states from plain containers: what a checkpoint gives back when it is restored without a template.

A leaf is found by its path, the names and positions that lead to it. For the state of a Stack, `0.h` is field h of the
first entry. `flax.serialization` turns a tuple into a dict with the keys "0", "1", and a NamedTuple into a dict with
the names of its fields; Orbax turns them into lists and dicts. All of these give the same paths.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jax_lstm import checks

Path = tuple[str, ...]


def params_from(cell: Any, tree: Any) -> Any:
    """Params from plain dicts, lists and tuples, such as a checkpoint restored without a template.

    The names of the leaves are in docs/layers.md, "Checkpoint names".

    >>> import jax
    >>> import jax_lstm as jl
    >>> cell = jl.GRU(input_size=3, hidden_size=4)
    >>> plain = cell.init(jax.random.key(0))._asdict()
    >>> type(jl.params_from(cell, plain)).__name__
    'GRUParams'

    Args:
        cell: a cell, a layer, a `Model`, an `Embedding`, a `Readout`, or any object whose `init` returns params.
        tree: nested dicts, lists or tuples of arrays: what Orbax or `flax.serialization.msgpack_restore` returns,
            dicts of NumPy arrays, or params. A tuple may be a dict with the keys "0", "1". An absent leaf, such as
            `embedding` of a `Model` without a vocabulary, may be missing or None.

    Returns:
        The params, of the type that `cell.init` returns, as JAX arrays.

    Raises:
        ValueError: a leaf is missing, unknown or of a wrong shape; the message gives its path.
        TypeError: a leaf is no array, the leaves are not floats of one dtype, or `cell` has no `init`.
    """
    if isinstance(cell, type) or not hasattr(cell, "init"):
        raise TypeError(
            f"params_from: cell must be a cell, a layer or a Model, with a method init, but is {_describe(cell)}"
        )
    checks.check_hashable("params_from", cell)
    params = _rebuilt("params_from", "params", cell, checks.params_shapes(cell), tree)
    return checks.check_params("params_from", cell, params)[0]


def state_from(cell: Any, tree: Any) -> Any:
    """A state from plain dicts, lists and tuples, such as a checkpoint restored without a template.

    The names of the leaves are in docs/layers.md, "Checkpoint names".

    >>> import jax
    >>> import jax_lstm as jl
    >>> cell = jl.LSTM(input_size=3, hidden_size=4)
    >>> plain = cell.initial_state(cell.init(jax.random.key(0)))._asdict()
    >>> type(jl.state_from(cell, plain)).__name__
    'LSTMState'

    Args:
        cell: a cell or layer, or a `Model`, whose state is that of its cell.
        tree: nested dicts, lists or tuples of arrays, as for `params_from`, or a state. All leaves may have the same
            leading axes *B, as the states of a batch have.

    Returns:
        The state, of the type that `cell.initial_state` returns, as JAX arrays.

    Raises:
        ValueError: a leaf is missing, unknown or of a wrong shape; the message gives its path.
        TypeError: a leaf is no array or has a dtype that no state of the cell has, or `cell` has no state.
    """
    if isinstance(cell, type) or not hasattr(cell, "init") or not hasattr(cell, "initial_state"):
        raise TypeError(
            "state_from: cell must be a cell, a layer or a Model, with the methods init and initial_state, but is "
            f"{_describe(cell)}"
        )
    checks.check_hashable("state_from", cell)
    want = checks.state_shapes(cell, jnp.dtype(jnp.float32))
    state = _rebuilt("state_from", "state", cell, want, tree)
    _check_shapes(cell, want, state)
    _check_dtypes(cell, state)
    return state


def _rebuilt(caller: str, what: str, cell: Any, want: Any, tree: Any) -> Any:
    """A tree with the structure of `want` and the leaves of `tree`, as JAX arrays; a leaf is found by its path."""
    shapes = {_names(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(want)}
    leaves, name = _leaves(tree), type(cell).__name__
    for path in leaves:
        if path not in shapes:
            raise ValueError(
                f"{caller}: {_show(path)!r} is not a leaf of the {what} of {name}; it takes {_show_all(shapes)}"
            )
    for path, shape in shapes.items():
        if path not in leaves:
            raise ValueError(
                f"{caller}: {what} lacks {_show(path)}, which {name} needs with shape {shape}; it has "
                f"{_show_all(leaves)}, and needs {_show_all(shapes)}"
            )
    arrays = [_array(caller, ".".join((what, *path)), leaves[path]) for path in shapes]
    return jax.tree.structure(want).unflatten(arrays)


def _array(caller: str, name: str, value: Any) -> jax.Array:
    """A leaf as a JAX array. NumPy's files keep the bytes of a bfloat16 array, but not its dtype."""
    if checks.is_array(value) and str(value.dtype).startswith(("|V", "object", "<U")):
        raise TypeError(
            f"{caller}: {name} must hold numbers, but holds {value.dtype}; if a NumPy file held bfloat16, convert it "
            "with .view(jnp.bfloat16)"
        )
    return checks.as_array(caller, name, value)


def _leaves(tree: Any, path: Path = ()) -> dict[Path, Any]:
    """The leaves of nested containers by path. None is no leaf. Keys of a dict need not be comparable."""
    if isinstance(tree, Mapping):
        children = {str(key): value for key, value in tree.items()}
    elif checks.field_names(tree):
        children = tree._asdict()
    elif isinstance(tree, list | tuple):
        children = {str(k): value for k, value in enumerate(tree)}
    else:  # an array, or a pytree node of a type of the user's
        return {path + _names(more): leaf for more, leaf in jax.tree_util.tree_leaves_with_path(tree)}
    found: dict[Path, Any] = {}
    for name, value in children.items():
        found |= _leaves(value, (*path, name))
    return found


def _check_shapes(cell: Any, want: Any, state: Any) -> None:
    """Check that every leaf has the shape that the cell makes, after leading axes *B that are the same for all."""
    batch = None
    for (path, w), a in zip(jax.tree_util.tree_leaves_with_path(want), jax.tree.leaves(state), strict=True):
        axes = a.ndim - w.ndim
        lead = a.shape[: max(axes, 0)]
        name = ".".join(("state", *_names(path)))
        if axes < 0 or a.shape[axes:] != w.shape:
            raise ValueError(
                f"state_from: {name} has shape {a.shape}, but cell {type(cell).__name__} takes {w.shape}, after the "
                "axes of a batch, if there are any"
            )
        batch = (name, lead) if batch is None else batch
        if lead != batch[1]:
            raise ValueError(
                f"state_from: every leaf of state must have the same leading axes, but {batch[0]} has {batch[1]} and "
                f"{name} has {lead}"
            )


def _check_dtypes(cell: Any, state: Any) -> None:
    """Check that the cell makes states of these dtypes, for params of some float dtype."""
    dtypes = [a.dtype for a in jax.tree.leaves(state)]
    candidates = [d for d in dtypes if jnp.issubdtype(d, jnp.floating)] or [jnp.dtype(jnp.float32)]
    wanted = [jax.tree_util.tree_leaves_with_path(checks.state_shapes(cell, d)) for d in dict.fromkeys(candidates)]
    if any([w.dtype for _, w in want] == dtypes for want in wanted):
        return
    path, w, dtype = next((p, w, d) for (p, w), d in zip(wanted[0], dtypes, strict=True) if w.dtype != d)
    raise TypeError(
        f"state_from: {'.'.join(('state', *_names(path)))} must be {w.dtype}, as the other leaves are, but is {dtype}; "
        "cast it"
    )


def _names(path: Any) -> Path:
    """The names and positions of a path of JAX, as strings."""
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)


def _show(path: Path) -> str:
    return ".".join(path) or "one array"


def _show_all(paths: Iterable[Path]) -> str:
    return ", ".join(_show(path) for path in paths) or "no leaves"


def _describe(value: Any) -> str:
    return f"the class {value.__name__}; make an instance of it" if isinstance(value, type) else type(value).__name__
