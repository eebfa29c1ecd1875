"""What a given cell has and takes, whether or not it has a base class.

A cell of the protocol `Cell` alone has none of the optional members; these functions return the defaults for it.
"""

from collections.abc import Iterable
from typing import Any

import jax
from jax.typing import DTypeLike
from jaxtyping import Array

from jax_lstm.cell import Noise, SplitCell, call_given, state_output, takes

# The methods that `affine` is written for: if a subclass overrides one of them, an inherited `affine` is not used.
AFFINE_OF = ("project", "recur", "update", "mix", "step")


def output_size(cell: Any) -> int:
    """The number of features of an output: `cell.output_size`, or `cell.hidden_size` without it."""
    return getattr(cell, "output_size", cell.hidden_size)


def output(cell: Any, state: Any) -> Array:
    """The output in this state: `cell.output(state)`; without it `state.h`, or a state that is one array."""
    return cell.output(state) if hasattr(cell, "output") else state_output(cell, state)


def is_causal(cell: Any) -> bool:
    """Whether the cell is causal: no output depends on later inputs, so that it can run step by step."""
    return getattr(cell, "causal", True)


def check_causal(caller: str, cell: Any) -> Any:
    """Check that the cell is causal, so that it can run step by step."""
    if not is_causal(cell):
        raise ValueError(
            f"{caller}: cell {type(cell).__name__} looks at later inputs, so it cannot run step by step; "
            "run the whole sequence with jl.unroll"
        )
    return cell


def has_noise(cell: Any) -> bool:
    """Whether the cell draws random numbers when `unroll` gets a key; only then does `unroll` accept one."""
    return getattr(cell, "has_noise", False)


def takes_constants(cell: Any) -> bool:
    """Whether the cell reads constants of a sequence; only then does `unroll` accept them."""
    return getattr(cell, "takes_constants", False)


def check_takes(cell: Any, names: Iterable[str]) -> None:
    """Refuse a cell that would ignore noise or constants: no method, or no override of a method, has the parameter."""
    methods = ("project", "recur", "update", "affine") if is_split(cell) else ("step",)
    for name in names:
        versions_of = {
            method: [takes(vars(cls)[method], name) for cls in type(cell).__mro__ if method in vars(cls)]
            for method in methods
        }
        lost = [method for method, versions in versions_of.items() if versions and not versions[0] and any(versions)]
        if lost or not any(any(versions[:1]) for versions in versions_of.values()):
            wanted = (
                f"{lost[0]} must take {name}, as the method that it overrides does"
                if lost
                else (f"{' or '.join(methods)} must take {name}")
            )
            raise TypeError(
                f"cell {type(cell).__name__}: {wanted}, but has no such parameter; add {name}=None to its parameters"
            )


def init_cell(caller: str, cell: Any, key: Array, dtype: DTypeLike, choices: dict[str, Any]) -> Any:
    """The params of a cell inside a layer, by `cell.init(key, dtype, **choices)`; `choices` are its keywords."""
    if lost := [name for name in choices if not takes(cell.init, name)]:
        raise TypeError(
            f"{caller}: init of cell {type(cell).__name__} takes no {lost[0]}; leave it out, or call the init of each "
            "cell"
        )
    return cell.init(key, dtype, **choices)


def noise_of(caller: str, cell: Any, params: Any, key: Array, T: Any, rates: Any) -> Noise:
    """The noise of a cell inside a layer, with these rates; nothing if the cell draws nothing and has no rates."""
    if rates is None:
        return cell.sample_noise(params, key, T) if has_noise(cell) else Noise()
    sample = getattr(cell, "sample_noise", None)
    if sample is None or not takes(sample, "rates"):
        raise ValueError(f"{caller}: sample_noise of cell {type(cell).__name__} takes no rates; leave them out")
    return sample(params, key, T, rates=rates)


def is_split(cell: Any) -> bool:
    """Whether the cell is a SplitCell whose step is the composition of its parts, and not overridden."""
    return isinstance(cell, SplitCell) and type(cell).step is SplitCell.step and cell.splits


def is_linear(cell: Any) -> bool:
    """Whether a split cell is linear in its state, and no subclass has overridden what `affine` was written for."""
    classes = type(cell).__mro__

    def depth(name: str) -> int:
        return next(k for k, cls in enumerate(classes) if name in vars(cls))

    return is_split(cell) and cell.linear_in_state and not any(depth(name) < depth("affine") for name in AFFINE_OF)


def check_pure(cell: Any, params: Any, state: Any, xs: Any, given: dict[str, Any] | None = None) -> None:
    """Refuse a cell whose functions close over a tracer: its gradient would be lost, or the tracer would leak.

    Only the last axis and the dtype of xs are read.
    """
    x = jax.ShapeDtypeStruct(xs.shape[-1:], xs.dtype)

    def everything(params: Any, state: Any, x: Array, given: dict[str, Any]) -> Any:
        made = [call_given(cell.step, params, state, x, given=given), cell.initial_state(params)]
        return (*made, cell.composed(params, state, x, **given)) if is_split(cell) else made

    consts = jax.make_jaxpr(everything)(params, state, x, given or {}).consts
    if any(isinstance(c, jax.core.Tracer) for c in consts):
        raise TypeError(
            f"cell {type(cell).__name__}: its functions must depend on their arguments only, but one "
            "closes over a traced array; put that array in params, so that transformations see it"
        )
