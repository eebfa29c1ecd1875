"""The interface of a cell: the protocol `Cell`, the base class `SplitCell`, and the optional methods.

A cell is three pure functions and two sizes. With only these it runs as a plain `lax.scan`:

    params   = cell.init(key, dtype)
    state    = cell.initial_state(params)
    state, y = cell.step(params, state, x)

A cell that splits its step into three parts runs on the engine "hoisted" (recurrence.py), which is faster:

    zx_t = project(params, x_t)                  needs no state: all steps in one matrix product before the loop
    zh_t = recur(params, s_{t−1})                linear in the state: the only matrix product inside the loop
    s_t  = update(params, s_{t−1}, zx_t, zh_t)   elementwise in the state; may use any parameter

If one more matrix product follows `update` (a projection of h), the step is s_t = mix(params, update(…)). `mix` is
linear in the state.

A split cell whose `update` depends on zx and zh only through their sum may define its own derivative. This pays if it
needs fewer residuals than JAX would save:

    s_t, L_t = linearise(params, s_{t−1}, zx_t + zh_t)    the new state and the residuals for its JVP, each leaf (n,)
    ds_t     = along(L_t, ds_{t−1}, dz_t)                 the JVP of update, linear in (ds, dz)
    dz_t     = drive(params, dparams, x_t, dx_t, s_{t−1}) the tangent of the pre-activation with s_{t−1} held fixed;
                                                          without the part of a tangent that is None
    ds ↦ zh  = recur_along(params)                        recur, with its weights transposed once for the backward pass

A cell that is linear in its state may define its coefficients, for the engine "associative":

    a_t, b_t = affine(params, x_t)               s_t = a_t ⊙ s_{t−1} + b_t

A cell made of cells (layers/) defines its run over time by the runs of its parts. A cell with random numbers draws
them before the first step:

    s_T, states, ys       = over_time(run, params, s_0, s_restart, xs, flags, reverse)   run: the same for one part
    cell′, params′, noise = draw(params, key, steps)    cell′ takes params′ and [x_t, noise_t], and draws nothing

None of these needs a base class. A subclass of `SplitCell` gets `step` from its three parts.
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
# What each optional part is derived from.
DERIVED_FROM = {
    "linearise": ("update",),
    "along": ("update",),
    "drive": ("project", "recur"),
    "recur_along": ("recur",),
    "affine": ("project", "recur", "update", "mix", "step"),
}


@runtime_checkable
class Cell(Protocol):
    """Protocol of a recurrent cell: init, initial_state, step and two sizes. Any object with these five is a cell.

    As if by::

        params = cell.init(key)
        state = cell.initial_state(params)
        for t in range(T):
            state, ys[t] = cell.step(params, state, xs[t])

    A cell must be hashable and compare by value. It holds plain Python values and no arrays; arrays go in params.
    JAX compiles one program per cell, so never change a cell: make a new one.
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
        """Draw the params.

        Args:
            key: one random key. Do not reuse it.
            dtype: floating dtype of every leaf, float32 by default.

        Returns:
            A pytree of float arrays of this dtype.
        """
        ...

    def initial_state(self, params: Any, like: Array | None = None) -> Any:
        """The state before the first step.

        Args:
            params: what `init` returns.
            like: data (*B, T, I) of a batch. If given, every leaf of the state has the leading axes *B.

        Returns:
            A pytree of arrays.
        """
        ...

    def step(self, params: Any, state: Any, x: Array) -> tuple[Any, Array]:
        """One step of one sequence.

        Args:
            params: what `init` returns.
            state: what `initial_state` or the step before returns.
            x: (I,).

        Returns:
            (state, y): the next state, and the output y (H,).
        """
        ...


class Drawn(NamedTuple):
    """The random numbers of one sequence, and the cell that uses them.

    cell draws nothing itself. It takes these params, and the noise (T, k) as k more features after those of xs.
    """

    cell: Any
    params: Any
    noise: Array


class SplitCell(ABC):
    """Base class of a cell that splits its step into project, recur and update, for the fast engine.

    As if by::

        zx = project(params, x)
        zh = recur(params, state)
        state = mix(params, update(params, state, zx, zh))
        y = output(state)

    A subclass defines `init`, `initial_state`, `input_size`, `hidden_size`, `project`, `recur` and `update`. It may
    define `mix` (default: the identity) and `output` (default: `state.h`). `step` is inherited.
    """

    @abstractmethod
    def project(self, params: Any, x: Array) -> Any:
        """The input's part of the pre-activation, zx_t, from one x (I,). It does not depend on the state.

        Returns:
            An array or a pytree of arrays; use one leaf per gate if `update` needs the gates apart.
        """

    @abstractmethod
    def recur(self, params: Any, state: Any) -> Any:
        """The state's part of the pre-activation, zh_t: an array or a pytree; it must be linear in the state."""

    @abstractmethod
    def update(self, params: Any, state: Any, zx: Any, zh: Any) -> Any:
        """The next state s_t from s_{t−1}, zx and zh.

        It must be elementwise: put matrix products into `project`, `recur` or `mix`, because the backward pass saves
        the linearization of `update` at every step. It is differentiated in forward mode, so a custom derivative
        inside it must be a `jax.custom_jvp`, not a `jax.custom_vjp`.
        """

    def mix(self, params: Any, state: Any) -> Any:
        """The state s_t from what `update` returns; it must be linear in it. The default returns it unchanged."""
        return state

    def output(self, state: Any) -> Array:
        """The output y_t (H,) of a step, read from the state. The default is `state.h`."""
        return state.h

    def step(self, params: Any, state: Any, x: ArrayLike) -> tuple[Any, Array]:
        """One step of one sequence; `step` with params fixed is a body for `jax.lax.scan`.

        As if by::

            state = mix(params, update(params, state, project(params, x), recur(params, state)))
            return state, output(state)

        Args:
            params: what `init` returns.
            state: what `initial_state` or the step before returns.
            x: (I,), floats no wider than the params' dtype.

        Returns:
            (state, y): the next state, and the output y (H,) in the params' dtype.

        Raises:
            ValueError: an argument has a wrong shape.
            TypeError: an argument has a wrong dtype or type.
        """
        params, dtype = door.params("step", self, params)
        state = door.state("step", self, state, dtype)
        x = door.data("step", "x", x, self, dtype, "(I,)")
        state = self.mix(params, self.update(params, state, self.project(params, x), self.recur(params, state)))
        return state, self.output(state)

    def params_from(self, tree: Any) -> Any:
        """Params from a dict of arrays, such as a checkpoint restored without a template.

        Args:
            tree: a dict with one array per field of the params, or params.

        Returns:
            The params as the cell's NamedTuple of JAX arrays.

        Raises:
            ValueError: a leaf is missing, unknown or of a wrong shape; the message names it.
            TypeError: the leaves are not float arrays of one dtype.
        """
        want = type(params_shapes(self))
        if isinstance(tree, dict) and hasattr(want, "_fields"):
            if unknown := sorted(set(tree) - set(want._fields)):
                raise ValueError(
                    f"params_from: {unknown[0]!r} is not a leaf of {want.__name__}; it takes {', '.join(want._fields)}"
                )
            tree = want(**{name: tree.get(name) for name in want._fields})
        return door.params("params_from", self, tree)[0]


def is_split(cell: Any) -> bool:
    """Whether the engine "hoisted" can run this cell: it has the three parts, and `step` is their composition.

    A SplitCell that overrides `step` runs as a plain scan of that step. For a cell without that base class the three
    parts are run, whatever its `step` is.
    """
    overridden = isinstance(cell, SplitCell) and type(cell).step is not SplitCell.step
    return not overridden and all(hasattr(cell, part) for part in PARTS)


def has_part(cell: Any, part: str) -> bool:
    """Whether a cell defines an optional part that still describes it.

    A subclass that overrides `update`, say, and inherits `linearise` does not: the inherited part is the derivative of
    another `update`.
    """
    classes = type(cell).__mro__

    def depth(name: str) -> int:
        return next((k for k, cls in enumerate(classes) if name in vars(cls)), len(classes))

    return hasattr(cell, part) and not any(depth(source) < depth(part) < len(classes) for source in DERIVED_FROM[part])


def is_linearised(cell: Any) -> bool:
    """Whether a split cell defines its own derivative; a field `own_derivative` that is False turns that off."""
    return (
        is_split(cell)
        and all(has_part(cell, part) for part in OWN_DERIVATIVE)
        and getattr(cell, "own_derivative", True)
    )


def mix(cell: Any, params: Any, state: Any) -> Any:
    """`cell.mix(params, state)`; the state unchanged if the cell has no `mix`."""
    return cell.mix(params, state) if hasattr(cell, "mix") else state


def output(cell: Any, state: Any) -> Array:
    """The output of a split cell: `cell.output(state)`, or `state.h` if the cell has no `output`."""
    return cell.output(state) if hasattr(cell, "output") else state.h


def output_size(cell: Any) -> int:
    """The number of features of an output: `cell.output_size`, or `cell.hidden_size` without it."""
    return cell.output_size if hasattr(cell, "output_size") else cell.hidden_size


def is_causal(cell: Any) -> bool:
    """Whether the cell is causal: no output depends on later inputs, so that it can run step by step."""
    return getattr(cell, "causal", True)


def draws(cell: Any) -> bool:
    """Whether the cell draws random numbers when `unroll` gets a key."""
    return hasattr(cell, "draw") and getattr(cell, "draws", True)


def check_fields(cell: Any) -> None:
    """Check the sizes and the compute dtype of a built-in cell; store them as Python ints and a dtype name."""
    where = type(cell).__name__
    for name in ("input_size", "hidden_size"):
        object.__setattr__(cell, name, door.size(where, name, getattr(cell, name)))
    if cell.compute_dtype is not None:
        name = door.float_dtype(where, "compute_dtype", cell.compute_dtype).name
        object.__setattr__(cell, "compute_dtype", name)


def zeros(size: int, dtype: DTypeLike, like: Array | None) -> Float[Array, "*B size"]:
    """Zeros (size,); with `like` (*B, T, I) zeros (*B, size), sharded like the leading axes of `like`."""
    if like is None:
        return jnp.zeros(size, dtype)
    # A sum of zeros, not a slice: it has the type of the data (mesh axes and all) even where T is 0.
    zero = jnp.zeros_like(like, dtype=dtype).sum(axis=(-2, -1))
    return jnp.broadcast_to(zero[..., None], (*zero.shape, size))
