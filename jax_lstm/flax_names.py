"""The names of params in a Flax module, the same for NNX and Linen."""

from functools import reduce
from typing import Any

import jax

from jax_lstm.checks import params_shapes


def named(params: Any) -> dict[str, Any]:
    """Params as nested dicts, one dict per level of their tree: {"0": {"w_x": …}, "1": {…}} for a stack.

    A field `cell` of params is called `of`, because a module uses the name `cell` for its cell. Params that are a
    single array are called `w`.

    Raises:
        ValueError: two leaves would have the same name.
    """
    tree: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        *outer, last = names(path)
        at = tree
        for depth, name in enumerate(outer):
            at = at.setdefault(name, {})
            if not isinstance(at, dict):
                raise _taken_twice(names(path)[: depth + 1])
        if last in at:
            raise _taken_twice(names(path))
        at[last] = leaf
    return tree


def _taken_twice(path: tuple[str, ...]) -> ValueError:
    return ValueError(f"params: two leaves of params would both be called {'.'.join(path)}; rename one")


def from_named(caller: str, cell: Any, tree: Any) -> Any:
    """Params of a cell from nested dicts, the inverse of `named`; `caller` is for the message.

    Raises:
        ValueError: a leaf is missing; the message names it.
    """
    paths, treedef = jax.tree_util.tree_flatten_with_path(params_shapes(cell))
    leaves = []
    for path in (names(path) for path, _ in paths):
        try:
            leaves.append(reduce(lambda at, name: at[name], path, tree))
        except KeyError:
            raise ValueError(
                f"{caller}: params lacks {'.'.join(path)}, which cell {type(cell).__name__} needs"
            ) from None
    return treedef.unflatten(leaves)


def names(path: Any) -> tuple[str, ...]:
    """The names on the path to a leaf of params, outermost first."""
    each = [jax.tree_util.keystr((entry,), simple=True) for entry in path]
    return tuple("of" if name == "cell" else name for name in each) or ("w",)
