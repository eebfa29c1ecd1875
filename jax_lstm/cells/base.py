"""What a cell is.

A cell is three pure functions and two sizes. With only these it runs as a plain scan:

    params   = cell.init(key, dtype)
    state    = cell.initial_state(params)
    state, y = cell.step(params, state, x)

A cell whose step splits where the work splits runs on the fast engine (recurrence.py) instead:

    zx_t = project(params, x_t)                  needs no state: all steps in one product before the loop
    zh_t = recur(params, s_{t−1})                linear in the state: the only product inside the loop
    s_t  = update(params, s_{t−1}, zx_t, zh_t)   pointwise in the state; may use any parameter

and, where what `update` gives is yet to be multiplied by a matrix (a projection), s_t = mix(params, update(…)), with a
mix that is linear in the state.

A split cell whose `update` reads nothing but the sum zx + zh may bring its own derivative, where it needs to keep less
for it than JAX would:

    s_t, L_t = linearise(params, s_{t−1}, zx_t + zh_t)    update, and what its derivative hangs on, one leaf a vector
    ds_t     = along(L_t, ds_{t−1}, dz_t)                 the derivative of update, linear in (ds, dz)
    dz_t     = drive(params, dparams, x_t, dx_t, s_{t−1}) of the pre-activation; s fixed; None in, no such part out
    ds ↦ zh  = recur_along(params)                        recur, its weights laid out for the transpose

A cell that is linear in its state may say so, for the engine "associative":

    a_t, b_t = affine(params, x_t)               s_t = a_t ⊙ s_{t−1} + b_t

A cell made of cells (layers/) says how it goes over time by means of them, and one that draws at random says what it
draws before the first step:

    s_T, states, ys       = over_time(run, params, s_0, s_restart, xs, flags, reverse)   run: the same, of a part
    cell′, params′, noise = draw(params, key, steps)    cell′ takes params′ and [x_t, noise_t], and draws nothing

No base class is needed for any of these. `SplitCell` may be inherited: it composes `step` from the parts.
"""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from jax_lstm.cells import door
from jax_lstm.cells.shapes import params_shapes

PARTS = ("project", "recur", "update")
OWN_DERIVATIVE = ("linearise", "along", "drive", "recur_along")


@runtime_checkable
class Cell(Protocol):
    """A recurrent cell. Plain Python values, hashable, equal by value; it holds no arrays.

    It is static: compiled programs are found by it, so a cell is never changed; make another one.
    """

    @property
    def input_size(self) -> int:
        """I, the number of features of x."""
        ...

    @property
    def hidden_size(self) -> int:
        """H, the number of units."""
        ...

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> Any:
        """Draw the params, a pytree of float arrays of one dtype."""
        ...

    def initial_state(self, params: Any, like: Array | None = None) -> Any:
        """The state before the first step, a pytree of arrays."""
        ...

    def step(self, params: Any, state: Any, x: Array) -> tuple[Any, Array]:
        """One step: the next state and the output."""
        ...


class Drawn(NamedTuple):
    """What a cell drew for one sequence: a cell that draws nothing, its params, and (T, k) more features of its xs."""

    cell: Any
    params: Any
    noise: Array


class SplitCell(ABC):
    """A cell that splits its step into project, recur and update; `step` is their composition."""

    @abstractmethod
    def project(self, params: Any, x: Array) -> Any:
        """zx_t: what the input contributes. A pytree; one leaf a gate keeps the loop's streams apart."""

    @abstractmethod
    def recur(self, params: Any, state: Any) -> Any:
        """zh_t: what the state contributes. Linear in the state."""

    @abstractmethod
    def update(self, params: Any, state: Any, zx: Any, zh: Any) -> Any:
        """s_t: pointwise in s_{t−1}, zx and zh. Keep matrices out of it: its linearisation is kept for every step.

        It is differentiated forwards: a derivative of your own is a `jax.custom_jvp`, not a `custom_vjp`.
        """

    def mix(self, params: Any, state: Any) -> Any:
        """The state from what `update` gave: linear in it; here, the same."""
        return state

    def output(self, state: Any) -> Array:
        """y_t, the part of the state that a step shows."""
        return state.h

    def step(self, params: Any, state: Any, x: ArrayLike) -> tuple[Any, Array]:
        """One step of one sequence, in the convention of `lax.scan`.

        As if by::

            state = mix(params, update(params, state, project(params, x), recur(params, state)))
            return state, output(state)

        Args:
            params: what `init` gave.
            state: what `initial_state` or the step before gave.
            x: (I,), floats no wider than the params' dtype.

        Returns:
            The next state and the output, shape (H,), in the params' dtype.

        Raises:
            ValueError, TypeError: an argument of another shape, dtype or type; the message names it.
        """
        params, dtype = door.params("step", self, params)
        state = door.state("step", self, state, dtype)
        x = door.data("step", "x", x, self, dtype, "(I,)")
        state = self.mix(params, self.update(params, state, self.project(params, x), self.recur(params, state)))
        return state, self.output(state)

    def params_from(self, tree: Any) -> Any:
        """The params from a dict of arrays (what a checkpoint without a template gives back), or from params.

        Raises:
            ValueError: a missing, unknown or misshapen leaf, named.
            TypeError: leaves that are not float arrays of one dtype.
        """
        want = type(params_shapes(self))
        if isinstance(tree, dict) and hasattr(want, "_fields"):
            if unknown := sorted(set(tree) - set(want._fields)):
                raise ValueError(
                    f"params_from: {unknown[0]!r} is no leaf of {want.__name__}; it takes {', '.join(want._fields)}"
                )
            tree = want(**{name: tree.get(name) for name in want._fields})
        return door.params("params_from", self, tree)[0]


def is_split(cell: Any) -> bool:
    """Whether the fast engine can run this cell: it has the three parts, and `step` is their composition.

    A SplitCell whose `step` is overridden runs as a plain scan of that step. Of a cell without that base class the
    parts are what is run.
    """
    overridden = isinstance(cell, SplitCell) and type(cell).step is not SplitCell.step
    return not overridden and all(hasattr(cell, part) for part in PARTS)


def is_linearised(cell: Any) -> bool:
    """Whether a split cell brings its own derivative; `own_derivative` may take it back for some choices of a cell."""
    return (
        is_split(cell) and all(hasattr(cell, part) for part in OWN_DERIVATIVE) and getattr(cell, "own_derivative", True)
    )


def mix(cell: Any, params: Any, state: Any) -> Any:
    """`cell.mix(params, state)`, or the state where the cell has none."""
    return cell.mix(params, state) if hasattr(cell, "mix") else state


def output(cell: Any, state: Any) -> Array:
    """The output a split cell shows of a state: `cell.output(state)`, or `state.h` where it does not say."""
    return cell.output(state) if hasattr(cell, "output") else state.h


def output_size(cell: Any) -> int:
    """How many features an output has: `cell.output_size`, or H where it does not say."""
    return cell.output_size if hasattr(cell, "output_size") else cell.hidden_size


def is_causal(cell: Any) -> bool:
    """Whether an output depends on the inputs up to its own step only, so that the cell can go step by step."""
    return getattr(cell, "causal", True)


def draws(cell: Any) -> bool:
    """Whether the cell takes a key."""
    return hasattr(cell, "draw") and getattr(cell, "draws", True)


def check_fields(cell: Any) -> None:
    """Make a built-in cell's sizes Python ints and its compute dtype a name, or say which is wrong."""
    where = type(cell).__name__
    for name in ("input_size", "hidden_size"):
        object.__setattr__(cell, name, door.size(where, name, getattr(cell, name)))
    if cell.compute_dtype is not None:
        name = door.float_dtype(where, "compute_dtype", cell.compute_dtype).name
        object.__setattr__(cell, "compute_dtype", name)


def zeros(size: int, dtype: DTypeLike, like: Array | None) -> Float[Array, "*B size"]:
    """Zeros (size,), or with `like` (*B, T, I) zeros (*B, size) that lie on devices as `like`'s leading axes do."""
    if like is None:
        return jnp.zeros(size, dtype)
    # A sum of zeros, not a slice: it has the type of the data (mesh axes and all) even where T is 0.
    zero = jnp.zeros_like(like, dtype=dtype).sum(axis=(-2, -1))
    return jnp.broadcast_to(zero[..., None], (*zero.shape, size))
