"""The protocol of an engine, which runs a cell over time, and its inputs and options.

    s_T, collected = engine.run(cell, inputs, options)

An engine runs all steps that it gets in one piece, forward or in reverse. driver.py cuts a run into segments
(`remat_every`) or blocks (`tbptt`), and calls the engine on each.

Where the mask is False, the state stays, the output is 0, and x is not read. Where the reset is True, the state is set
to `s_initial` before that step.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jax_lstm.cell import Noise, call_given


class Given(NamedTuple):
    """`noise_steps`, `noise` and `constants` of `Inputs`, which a cell's functions get besides params, state and x.

    For one step of one sequence the leaves have neither T nor B.
    """

    steps: Any = None
    sequence: Any = None
    constants: Any = None

    def keywords(self) -> dict[str, Any]:
        """The keyword arguments of a cell's functions: `noise` and `constants`, unless they are None."""
        noise = {} if self.steps is None and self.sequence is None else {"noise": Noise(self.steps, self.sequence)}
        return noise | ({} if self.constants is None else {"constants": self.constants})

    def call(self, f: Callable, *args: Any) -> Any:
        """Call f(*args) with those `keywords` that f has parameters for."""
        return call_given(f, *args, given=self.keywords())

    def lasting(self) -> "Given":
        """The part that is the same at every step: all but `steps`."""
        return self._replace(steps=None)

    def at_every_step(self, T: Any) -> "Given":
        """`sequence` and `constants` repeated T times, so that every leaf has a leading axis T, as in `steps`."""

        def repeated(a: Array) -> Array:
            return jnp.broadcast_to(a, (T, *a.shape))

        return Given(self.steps, *jax.tree.map(repeated, self[1:]))


class Inputs(NamedTuple):
    """The arrays of a run over T steps of sequences with batch axes *B, often none.

    params: the params of the cell, without batch axes.
    s_0: the state before the first step processed; each leaf (*B, ...).
    s_initial: the state that a reset sets, like s_0; None without resets.
    xs: (T, *B, I). `Engine.run` gets zeros at masked steps.
    noise_steps: random numbers of every step, a pytree with leaves (T, *B, ...), or None.
    noise: random numbers of every sequence, a pytree with leaves (*B, ...), or None.
    constants: what a cell reads at every step, a pytree with leaves (*B, ...) of any dtype; None from `unroll`.
    mask: (T, *B) bools; None: no step is masked.
    reset: (T, *B) bools, False where mask is False; None: no resets.
    """

    params: Any
    s_0: Any
    s_initial: Any
    xs: Float[Array, "T *B I"]
    noise_steps: Any = None
    noise: Any = None
    constants: Any = None
    mask: Bool[Array, "T *B"] | None = None
    reset: Bool[Array, "T *B"] | None = None

    @property
    def T(self) -> Any:
        """The number of steps, which may be symbolic."""
        return self.xs.shape[0]

    @property
    def batch_axes(self) -> int:
        """The number of batch axes."""
        return self.xs.ndim - 2

    @property
    def given(self) -> Given:
        """Noise and constants, as the cell's functions get them."""
        return Given(self.noise_steps, self.noise, self.constants)

    @property
    def streams(self) -> tuple[Any, ...]:
        """The fields with a time axis: xs, noise_steps, mask and reset."""
        return self.xs, self.noise_steps, self.mask, self.reset

    def with_streams(self, streams: tuple[Any, ...]) -> "Inputs":
        """The same inputs with other streams."""
        xs, noise_steps, mask, reset = streams
        return self._replace(xs=xs, noise_steps=noise_steps, mask=mask, reset=reset)

    def one_step(self) -> tuple[Any, Any, Any, Given]:
        """The shapes and dtypes of params, state, x and given for one step of one sequence."""

        def without(axes: int, tree: Any) -> Any:
            return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[axes:], a.dtype), tree)

        B, given = self.batch_axes, self.given
        one = Given(without(B + 1, given.steps), without(B, given.sequence), without(B, given.constants))
        return without(0, self.params), without(B, self.s_0), without(B + 1, self.xs), one


class Options(NamedTuple):
    """The options of a run: Python values, already checked.

    reverse: whether to process the steps from last to first.
    collect: what to return for every step: "states", "outputs", or "both", the pair (states, outputs).
    remat_every: n, to save only every n-th state for the backward pass and recompute the others there. None: save all.
    truncate: (window, stride) of truncated backpropagation through time. None: full gradients.
    """

    reverse: bool = False
    collect: str = "outputs"
    remat_every: int | None = None
    truncate: tuple[int, int] | None = None


@runtime_checkable
class Engine(Protocol):
    """Protocol of an engine. Implement it as a frozen dataclass of Python numbers: static, hashable, equal by value."""

    def refuses(self, cell: Any, inputs: Inputs, options: Options) -> str | None:
        """Why the engine cannot run this cell, as an error message that names an engine that can; None if it can.

        If an engine refuses a cell made of cells, the driver runs each of its parts instead.
        """
        ...

    def run(self, cell: Any, inputs: Inputs, options: Options) -> tuple[Any, Any]:
        """Run all steps in one piece, with `options.reverse` and `options.collect`.

        Do not read `options.remat_every` and `options.truncate`: the driver applies them.

        Returns:
            (s_T, collected): the state after the last step processed, and what `options.collect` names for every step,
            each leaf (T, *B, ...), also at masked steps.
        """
        ...
