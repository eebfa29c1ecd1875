"""What a cell is: the protocol `Cell`, the base classes `SplitCell` and `CompositeCell`, and their optional methods.

A cell has three pure functions and two sizes. With only these it runs on the engine "plain", a `lax.scan`:

    params   = cell.init(key, dtype)
    state    = cell.initial_state(params)
    state, y = cell.step(params, state, x)

A `SplitCell` splits its step into three parts, and runs on the engine "hoisted" (engines/hoisted.py), which is faster:

    z_t = project(params, x_t) + recur(params, s_{t−1})     matrix products with x_t and with the state
    s_t = update(params, s_{t−1}, z_t)                      elementwise; may use any parameter

`project` needs no state, so its product can be computed for all steps at once. All gradients of weights that `project`
and `recur` read are computed for all steps at once. If another matrix product follows `update`, such as a projection of
h, the step is s_t = mix(params, update(…)).

If an option of a cell prevents the split, its property `splits` is False. Then `composed` is the step, on "plain".

If a step is linear in the state, a split cell may define its coefficients; then `linear_in_state` is True:

    a_t, b_t = affine(params, x_t)               s_t = a_t ⊙ s_{t−1} + b_t

A `CompositeCell` is made of cells (layers/): it runs each of its parts over the whole sequence.

Any cell may draw random numbers before the first step; then `has_noise` is True:

    noise    = sample_noise(params, key, T, rates=None)      Noise(steps, sequence)

A run may have noise, and constants if `takes_constants` is True (`Inputs` in engines/engine.py). `step`, `project`,
`recur`, `update` and `affine` get them by keyword, for one step of one sequence, if they have a parameter `noise` or
`constants`. Give the parameter `noise` a default: a run without a key does not pass it. `recur` gets `noise.sequence`
only.
"""

import contextlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array

from jax_lstm import checks, restore

C = TypeVar("C")
_STATIC: set[type] = set()


def make_static(cls: type) -> None:
    """Make the class of a cell, or of a Model, a static pytree, which `jax.jit` takes as an argument; once per class.

    A class that its author has made a pytree, for example with `jax.tree_util.register_static`, stays as it is. So this
    runs when the first object is made: decorators of the class have run by then.
    """
    if cls not in _STATIC:
        with contextlib.suppress(ValueError):  # JAX refuses a class that is registered already
            jax.tree_util.register_static(cls)
        _STATIC.add(cls)


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

    def initial_state(self, params: Any) -> Any:
        """The state before the first step.

        Args:
            params: what `init` returns.

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


class Noise(NamedTuple):
    """The random numbers of one run over one sequence; each field a pytree of arrays, or None.

    steps: drawn for every step: each leaf (T, ...). A step gets them without the axis T.
    sequence: drawn once, the same at every step.
    """

    steps: Any = None
    sequence: Any = None


class StaticPytree:
    """Base class whose subclasses are static pytrees: `jax.jit` takes their objects as arguments."""

    def __new__(cls: type[C], *args: Any, **kwargs: Any) -> C:
        """Make the object; the first one of a class makes that class a static pytree."""
        make_static(cls)
        new: Any = super().__new__
        return new(cls) if new is object.__new__ else new(cls, *args, **kwargs)


class OptionalMethods(StaticPytree):
    """What any cell may define besides the protocol `Cell`, with the defaults."""

    @property
    def output_size(self) -> int:
        """The number of features of an output y. The default is H."""
        cell: Any = self
        return cell.hidden_size

    @property
    def causal(self) -> bool:
        """Whether no output depends on later inputs, so that the cell can run step by step. The default is True."""
        return True

    @property
    def has_noise(self) -> bool:
        """Whether the cell draws random numbers when `unroll` gets a key. The default is False."""
        return False

    @property
    def takes_constants(self) -> bool:
        """Whether the cell reads constants of a sequence, which `unroll` then requires. The default is False."""
        return False

    def output(self, state: Any) -> Array:
        """The output y_t of a step, read from the state. The default is `state.h`, or a state that is one array."""
        return state_output(self, state)

    def sample_noise(self, params: Any, key: Array, T: Any, rates: dict[str, Any] | None = None) -> Noise:
        """Draw the random numbers of one sequence of T steps. The default draws nothing.

        rates: numbers or arrays, which may be traced, by the name of a field of the cell. Each takes the place of that
        field for this draw.
        """
        checks.check_rates(f"{type(self).__name__}.sample_noise", rates, ())
        return Noise()

    def params_from(self, tree: Any) -> Any:
        """Params from plain containers, such as a checkpoint restored without a template; see `jl.params_from`."""
        return restore.params_from(self, tree)

    def state_from(self, tree: Any) -> Any:
        """A state from plain containers, such as a checkpoint restored without a template; see `jl.state_from`."""
        return restore.state_from(self, tree)


class SplitCell(OptionalMethods, ABC):
    """Base class of a cell that splits its step into project, recur and update, for the engine "hoisted".

    As if by::

        z = project(params, x) + recur(params, state)
        state = mix(params, update(params, state, z))
        y = output(state)

    `project` and `recur` return arrays or pytrees, which are added leaf by leaf. A leaf that is None in one of them is
    that of the other: so `update` can get a part of the input and a part of the state apart.

    A subclass defines `init`, `initial_state`, `input_size`, `hidden_size`, `project`, `recur` and `update`. It may
    define `mix` (default: the identity) and `output` (default: `state.h`). `step` is inherited.
    """

    @property
    def splits(self) -> bool:
        """Whether this cell splits its step; False where an option prevents it. Then `composed` is the step."""
        return True

    @property
    def linear_in_state(self) -> bool:
        """Whether a step is linear in the state, and the cell defines `affine`. The default is False."""
        return False

    @abstractmethod
    def project(self, params: Any, x: Array) -> Any:
        """The input's part of the pre-activation, zx_t, from one x (I,). It does not depend on the state.

        Returns:
            An array or a pytree of arrays.
        """

    @abstractmethod
    def recur(self, params: Any, state: Any) -> Any:
        """The state's part of the pre-activation: an array or a pytree, of the structure of `project`.

        It should be a matrix product. None: there are no recurrent weights.
        """

    @abstractmethod
    def update(self, params: Any, state: Any, z: Any) -> Any:
        """The next state s_t from s_{t−1} and the pre-activation z_t, the sum of `project` and `recur`.

        It should be elementwise: put matrix products into `project`, `recur` or `mix`, because the backward pass
        computes `update` again at every step. Params that it reads, such as a bias, should be vectors. It is
        differentiated in forward mode too, so a custom derivative inside it must be a `jax.custom_jvp`, not a
        `jax.custom_vjp`.
        """

    def mix(self, params: Any, state: Any) -> Any:
        """The state s_t from what `update` returns: another matrix product. The default returns it unchanged."""
        return state

    def affine(self, params: Any, x: Array) -> tuple[Any, Any]:
        """(a, b) with s_t = a ⊙ s_{t−1} + b for one input x (I,); each is a state. See `linear_in_state`."""
        raise NotImplementedError

    def step(self, params: Any, state: Any, x: ArrayLike, **given: Any) -> tuple[Any, Array]:
        """One step of one sequence; `step` with params fixed is a body for `jax.lax.scan`.

        As if by::

            state = mix(params, update(params, state, project(params, x) + recur(params, state)))
            return state, output(state)

        Args:
            params: what `init` returns.
            state: what `initial_state` or the step before returns.
            x: (I,), floats no wider than the params' dtype.
            given: the noise and constants of the run, if it has any.

        Returns:
            (state, y): the next state, and the output y (H,) in the params' dtype.

        Raises:
            ValueError: an argument has a wrong shape.
            TypeError: an argument has a wrong dtype or type.
        """
        params, dtype = checks.check_params("step", self, params)
        state = checks.check_state("step", self, state, dtype)
        x = checks.check_input("step", "x", x, self, dtype, "(I,)")
        state = self.composed(params, state, x, **given)
        return state, self.output(state)

    def composed(self, params: Any, state: Any, x: Array, **given: Any) -> Any:
        """The next state, from project, recur, update and mix, without checks of the arguments."""
        zx = call_given(self.project, params, x, given=given)
        z = add_preactivations(self, zx, call_given(self.recur, params, state, given=lasting(given)))
        return self.mix(params, call_given(self.update, params, state, z, given=given))


class CompositeCell(OptionalMethods, ABC):
    """Base class of a cell made of cells, such as `Stack`: it runs each of its parts over the whole sequence."""

    @abstractmethod
    def unroll_with(self, run: Callable, inputs: Any, *, reverse: bool) -> tuple[Any, Any, Array]:
        """Run the parts over time.

        Args:
            run: run(cell, inputs, reverse=…) -> (s_T, states, ys) for one part, on the engine of the run. `states`
                is None where nobody asked for states.
            inputs: the `Inputs` of the whole cell. xs is (T, *B, I), and every leaf of a state has the leading axes
                *B.
            reverse: whether to process the steps from last to first.

        Returns:
            (s_T, states, ys) of the whole cell; `states` is built from those of the parts.
        """


def add_preactivations(cell: Any, zx: Any, zh: Any) -> Any:
    """z = zx + zh, what `project` and `recur` return, leaf by leaf; a leaf that is None in one is that of the other."""
    if zx is None or zh is None:
        return zh if zx is None else zx
    try:
        return jax.tree.map(
            lambda a, b: b if a is None else a if b is None else a + b, zx, zh, is_leaf=lambda a: a is None
        )
    except (ValueError, TypeError) as error:
        raise TypeError(
            f"cell {type(cell).__name__}: project and recur must return arrays, or trees of one structure with None "
            f"where one of them has no part, because they are added; but {error}"
        ) from None


def call_given(f: Callable, *args: Any, given: dict[str, Any]) -> Any:
    """Call f(*args) with those entries of `given` (noise, constants) that f has parameters for."""
    return f(*args, **{name: value for name, value in given.items() if takes(f, name)})


def takes(f: Any, name: str) -> bool:
    """Whether a function has a parameter of this name, or takes any keyword."""
    parameters = inspect.signature(f).parameters
    return name in parameters or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())


def lasting(given: dict[str, Any]) -> dict[str, Any]:
    """The entries of `given` (noise, constants) that are the same at every step: all but `noise.steps`."""
    noise = given.get("noise")
    if noise is None:
        return given
    rest = {name: value for name, value in given.items() if name != "noise"}
    return rest if noise.sequence is None else rest | {"noise": Noise(None, noise.sequence)}


def state_output(cell: Any, state: Any) -> Array:
    """The output of a cell that does not define `output`: `state.h`, or a state that is one array."""
    if checks.is_array(state):
        return state
    if not hasattr(state, "h"):
        raise TypeError(
            f"cell {type(cell).__name__}: the output is state.h by default, but the state is a {type(state).__name__} "
            "without h; define output(state) in the cell, which returns y (H,)"
        )
    return state.h
