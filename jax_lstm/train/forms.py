"""What a problem's functions may return, checked while they are traced.

    batch(key, step)                 a pytree of arrays; a pure function of the key and the step
    loss(params, batch, carry, key)  loss, or (loss, metrics), or (loss, metrics, carry)
    score(params)                    a number, or {name: number}

A loss is a scalar of a float dtype, metrics is a dict of scalars.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_lstm.train.traced import Traced, trace

RESERVED = ("loss", "grad_norm", "lr", "steps_per_second", "step", "split", "best", "log_norms")
IMPURE = (
    "Problem.batch: wanted a pure function of key and step, but it {}; it is called once, to compile the steps, so an "
    "iterator (such as next(loader)) would give one batch for ever: pass the iterator as Problem(source=...)"
)


def trace_batch(batch: Callable, key: Any, step: Any) -> Traced:
    """Trace `Problem.batch`, and check that it is a pure function.

    Args:
        batch: the function.
        key: the aval of a data key.
        step: the aval of a step.

    Raises:
        TypeError: it indexes a NumPy array or a list by the traced step.
        ValueError: it gives other data when it is called again.
    """
    try:
        traced = trace(batch, key, step)
        again = trace(lambda *args: batch(*args), key, step)  # another function, which JAX does not know yet
    except (jax.errors.TracerArrayConversionError, jax.errors.TracerIntegerConversionError) as error:
        raise TypeError(
            "Problem.batch: wanted JAX operations on key and step, which are traced, but a NumPy array or a list was "
            "indexed by one of them; wrap it: jnp.asarray(data)[step]"
        ) from error
    except StopIteration as error:
        raise ValueError(IMPURE.format("reached the end of an iterator")) from error
    for one, other in zip(traced.closed.consts, again.closed.consts, strict=False):
        if one is not other and not _equal(one, other):
            raise ValueError(IMPURE.format("gave other data when it was called again"))
    if len(traced.closed.eqns) != len(again.closed.eqns) or traced.closed.out_avals != again.closed.out_avals:
        raise ValueError(IMPURE.format("gave other shapes when it was called again"))
    return traced


def _equal(one: Any, other: Any) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
        one, other = jax.random.key_data(one), jax.random.key_data(other)
    one, other = np.asarray(one), np.asarray(other)
    return np.array_equal(one, other, equal_nan=one.dtype.kind in "fc")


def checked_loss(loss: Callable, carried: bool) -> Callable:
    """A function with the arguments of `loss` that returns (loss, (metrics, next carry)).

    Args:
        loss: the user's function.
        carried: True if the problem has a carry.
    """

    def checked(params: Any, batch: Any, carry: Any, key: Any) -> tuple[Any, tuple[Any, Any]]:
        return _parts(loss(params, batch, carry, key), carry, carried)

    return checked


def _parts(came: Any, before: Any, carried: bool) -> tuple[Any, tuple[Any, Any]]:
    parts = came if isinstance(came, tuple) else (came,)
    forms = "(loss, metrics, carry)" if carried else "a scalar loss, or (loss, metrics)"
    if (
        len(parts) not in (1, 2, 3)
        or (carried and len(parts) != 3)
        or (not carried and len(parts) == 3 and parts[2] is not None)
    ):
        what = f"a tuple of {len(parts)}" if isinstance(came, tuple) else f"one value ({_kind(came)})"
        hint = "" if carried or len(parts) != 3 else "; give Problem.carry, the carry before the first step"
        raise ValueError(f"Problem.loss: wanted {forms}, but got {what}{hint or _ADVICE}")
    none: tuple[Any, ...] = ({}, None)
    loss, metrics, carry = (*parts, *none[len(parts) - 1 :])
    if not _is_scalar(loss) or not jnp.issubdtype(jnp.result_type(loss), jnp.floating):
        hint = "average it over the batch, such as jnp.mean(loss)" if _is_array(loss) and np.shape(loss) else _FLOAT
        raise ValueError(f"Problem.loss: wanted a scalar loss of a float dtype, but got {_kind(loss)}; {hint}")
    if not isinstance(metrics, dict):
        raise ValueError(
            f"Problem.loss: wanted metrics as a dict of scalars, but got {_kind(metrics)}; return "
            '(loss, {"name": value})'
        )
    for name, value in metrics.items():
        _check_value("Problem.loss", name, value)
    if carried and (said := difference(before, carry)):
        raise ValueError(f"Problem.loss: wanted a next carry like the one it was given, but {said}; return its like")
    return jnp.asarray(loss), ({name: jnp.asarray(value) for name, value in metrics.items()}, carry)


_ADVICE = "; return them in this order"
_FLOAT = "return a number that params can be differentiated by, such as jnp.mean((ys - targets) ** 2)"


def scores_of(came: Any, metric: str) -> dict[str, Any]:
    """The scores of `Problem.score` by name; a single one has the name `metric`.

    Raises:
        ValueError: the scores are no scalars, or `metric` is not among them.
    """
    scores = came if isinstance(came, dict) else {metric: came}
    if metric not in scores:
        raise ValueError(
            f"Problem.score: wanted a score named {metric} (Problem.metric), but got {', '.join(map(str, scores))}; "
            "name one of these as metric"
        )
    for name, value in scores.items():
        _check_value("Problem.score", name, value)
    return {name: jnp.asarray(value).astype(jnp.float32) for name, value in scores.items()}


def _check_value(where: str, name: Any, value: Any) -> None:
    reserved = [n for n in RESERVED if n != "loss"] if where == "Problem.score" else RESERVED  # of the validation data
    if not isinstance(name, str) or name in reserved:
        raise ValueError(f"{where}: wanted a name other than {', '.join(reserved)}, but got {name!r}; rename it")
    if not _is_scalar(value):
        raise ValueError(f"{where}: wanted scalars, but {name} is {_kind(value)}; average it, such as jnp.mean({name})")


def _is_array(value: Any) -> bool:
    return isinstance(value, jax.Array | np.ndarray | np.generic | bool | int | float)


def _is_scalar(value: Any) -> bool:
    return _is_array(value) and np.shape(value) == ()


def _kind(value: Any) -> str:
    if not _is_array(value):
        return f"a {type(value).__name__}"
    shape = np.shape(value)
    return f"an array of shape {shape}" if shape else f"a scalar of dtype {jnp.result_type(value)}"


def difference(want: Any, came: Any, dtypes: bool = True) -> str | None:
    """How two pytrees differ in structure, shapes or dtypes: a clause that names the leaf; None if they do not."""
    paths = {name_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(want)}
    others = {name_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(came)}
    if missing := [name for name in paths if name not in others]:
        return f"{missing[0]} is missing"
    if more := [name for name in others if name not in paths]:
        return f"{more[0]} is not one of its leaves ({', '.join(paths)})"
    if jax.tree.structure(want) != jax.tree.structure(came):
        return f"its structure is {jax.tree.structure(came)}, not {jax.tree.structure(want)}"
    for name, leaf in paths.items():
        other = others[name]
        one = (tuple(np.shape(leaf)), jnp.result_type(leaf)) if dtypes else (tuple(np.shape(leaf)),)
        two = (tuple(np.shape(other)), jnp.result_type(other)) if dtypes else (tuple(np.shape(other)),)
        if one != two:
            return f"{name} has {_shown(two)}, not {_shown(one)}"
    return None


def _shown(found: tuple[Any, ...]) -> str:
    return f"shape {found[0]}" + (f" and dtype {found[1]}" if len(found) > 1 else "")


def name_of(path: Any) -> str:
    """The name of a leaf in messages; "it" for a tree that is one leaf."""
    return jax.tree_util.keystr(path, simple=True, separator=".") or "it"
