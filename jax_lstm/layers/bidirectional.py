"""A bidirectional recurrent network: two cells over one sequence, in opposite directions (Schuster & Paliwal 1997).

    →s_t, →y_t = forward(→s_{t−1}, x_t)      ←s_t, ←y_t = backward(←s_{t+1}, x_t)      y_t = [→y_t, ←y_t]

→ marks the forward cell, ← the backward cell.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool

from jax_lstm import checks
from jax_lstm.abilities import check_causal, has_noise, init_cell, noise_of, output, output_size, takes_constants
from jax_lstm.cell import CompositeCell, Noise


class BidirectionalParams(NamedTuple):
    """Params of a `Bidirectional`: those of its forward cell and of its backward cell."""

    forward: Any
    backward: Any


class BidirectionalState(NamedTuple):
    """State of a `Bidirectional`: that of its forward cell and that of its backward cell."""

    forward: Any
    backward: Any


@dataclass(frozen=True)
class Bidirectional(CompositeCell):
    """Bidirectional recurrent network: two cells over one sequence, in opposite directions (Schuster & Paliwal 1997).

    One step::

        →s_t, →y_t = forward(→s_{t−1}, x_t)      ←s_t, ←y_t = backward(←s_{t+1}, x_t)      y_t = [→y_t, ←y_t]

    → marks the forward cell, ← the backward cell. The layer is a cell itself; run it with `unroll`. Its params
    are a `BidirectionalParams`, its state a `BidirectionalState`. Its output y_t is the concatenation of the outputs of
    the two cells at step t. It is not causal: it needs the whole sequence, so `step`, `stream` and `tbptt` raise a
    ValueError. After a run, state.backward is the state at the first step, where the backward cell ends.

    Both cells skip masked steps, so the backward cell starts at the last unmasked step. A reset at t means that x_t is
    the first input of an episode, and for the backward cell its last. So the backward cell is reset before it reads the
    unmasked step that precedes t.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> import jax_lstm as jl
    >>> cell = jl.Bidirectional(jl.LSTM(input_size=3, hidden_size=4))
    >>> params = cell.init(jax.random.key(0))
    >>> state, ys = jl.unroll(cell, params, jnp.ones((6, 3), jnp.float32))
    >>> state.forward.h.shape, state.backward.h.shape, ys.shape
    ((4,), (4,), (6, 8))

    Args:
        forward: the cell that runs from the first step to the last.
        backward: the cell that runs from the last step to the first. If None, a cell equal to `forward`, with its own
            params.

    Raises:
        ValueError: the two cells have different input sizes.
        TypeError: `forward` or `backward` is not a cell.
    """

    forward: Any
    backward: Any = None

    def __post_init__(self):
        checks.check_cell("Bidirectional", self.forward)
        backward: Any = self.forward if self.backward is None else self.backward
        object.__setattr__(self, "backward", checks.check_cell("Bidirectional", backward))
        if self.forward.input_size != backward.input_size:
            raise ValueError(
                f"Bidirectional: backward must take the {self.forward.input_size} features that forward takes, but its "
                f"input_size is {backward.input_size}"
            )

    @property
    def causal(self) -> bool:
        """False: outputs depend on later inputs."""
        return False

    @property
    def input_size(self) -> int:
        """I, the number of input features of both cells."""
        return self.forward.input_size

    @property
    def hidden_size(self) -> int:
        """The sum of the two cells' numbers of units."""
        return self.forward.hidden_size + self.backward.hidden_size

    @property
    def output_size(self) -> int:
        """The sum of the two cells' numbers of output features."""
        return output_size(self.forward) + output_size(self.backward)

    def init(self, key: Array, dtype: DTypeLike = jnp.float32, **choices: Any) -> BidirectionalParams:
        """Draw the params of both cells, from two keys.

        Args:
            key: one random key, for example `jax.random.key(0)`. Do not reuse it.
            dtype: floating dtype of every leaf, float32 by default.
            choices: keyword arguments of the `init` of both cells, such as `forget_bias`.

        Returns:
            BidirectionalParams(forward params, backward params).

        Raises:
            TypeError: key is not a random key, dtype is not floating, or a cell does not take one of the choices.
        """
        keys, caller = jax.random.split(checks.check_key("Bidirectional.init", key)), "Bidirectional.init"
        of_cells = zip((self.forward, self.backward), keys, strict=True)
        return BidirectionalParams(*(init_cell(caller, cell, k, dtype, choices) for cell, k in of_cells))

    def initial_state(self, params: BidirectionalParams) -> BidirectionalState:
        """The initial states of both cells; the backward cell's is its state before it reads the last step.

        Args:
            params: what `init` returns.

        Returns:
            BidirectionalState(forward state, backward state).
        """
        return BidirectionalState(
            self.forward.initial_state(params.forward), self.backward.initial_state(params.backward)
        )

    def output(self, state: BidirectionalState) -> Array:
        """The outputs of both cells in this state, concatenated: (output_size,).

        For the last state of a run, each output is that of the step where its cell ends.
        """
        shown = output(self.forward, state.forward), output(self.backward, state.backward)
        return jnp.concatenate(shown, axis=-1)

    def step(self, params: Any, state: Any, x: Array) -> Any:
        """Not defined: a single step cannot read later inputs.

        Raises:
            ValueError: always.
        """
        return check_causal("Bidirectional.step", self)

    @property
    def takes_constants(self) -> bool:
        """Whether at least one of the two cells reads constants."""
        return takes_constants(self.forward) or takes_constants(self.backward)

    @property
    def has_noise(self) -> bool:
        """Whether at least one of the two cells draws random numbers."""
        return has_noise(self.forward) or has_noise(self.backward)

    def sample_noise(
        self, params: BidirectionalParams, key: Array, T: Any, rates: dict[str, Any] | None = None
    ) -> Noise:
        """Draw the random numbers of both cells, each from its own key.

        Args:
            params: what `init` returns.
            key: one random key. Do not reuse it.
            T: the number of steps.
            rates: {"forward": rates of the forward cell, "backward": rates of the backward cell}; each may be absent.

        Returns:
            Noise((forward steps, backward steps), (forward sequence, backward sequence)), from the noise of each cell.

        Raises:
            ValueError: a cell takes no rates, or a name in `rates` is unknown.
            TypeError: `rates` is not a dict.
        """
        caller, names = "Bidirectional.sample_noise", ("forward", "backward")
        given = checks.check_rates(caller, rates, names)
        keys = jax.random.split(checks.check_key(caller, key))
        forward, backward = (
            noise_of(caller, getattr(self, name), getattr(params, name), k, T, given.get(name))
            for name, k in zip(names, keys, strict=True)
        )
        return Noise((forward.steps, backward.steps), (forward.sequence, backward.sequence))

    def unroll_with(self, run: Callable, inputs: Any, *, reverse: bool) -> tuple[Any, Any, Array]:
        """Run both cells over time; see `CompositeCell`.

        With `reverse` the forward cell runs from last to first, the backward cell from first to last.
        """
        s_initial = (None, None) if inputs.s_initial is None else inputs.s_initial
        steps = (None, None) if inputs.noise_steps is None else inputs.noise_steps
        sequence = (None, None) if inputs.noise is None else inputs.noise

        def part(k: int, reset: Any) -> Any:
            return inputs._replace(
                params=inputs.params[k], s_0=inputs.s_0[k], s_initial=s_initial[k], noise_steps=steps[k],
                noise=sequence[k], reset=reset,
            )  # fmt: skip

        other_reset = _reset_of_other_direction(inputs.mask, inputs.reset, reverse)
        with jax.named_scope("forward"):
            s_T, states, y = run(self.forward, part(0, inputs.reset), reverse=reverse)
        with jax.named_scope("backward"):
            r_T, backward_states, z = run(self.backward, part(1, other_reset), reverse=not reverse)
        passed = BidirectionalState(states, backward_states)
        return BidirectionalState(s_T, r_T), passed, jnp.concatenate([y, z], axis=-1)


def _reset_of_other_direction(mask: Any, reset: Any, reverse: bool) -> Bool[Array, "T *B"] | None:
    """True at each unmasked step whose next unmasked step (in the order of processing) is reset.

    That is the last unmasked step of an episode, and the first one that the cell in the other direction reads.
    """
    if reset is None or reset.shape[0] == 0:
        return reset
    mask = jnp.ones_like(reset) if mask is None else mask
    forward = (lambda a: a[::-1]) if reverse else (lambda a: a)

    def body(later: Array, at: tuple[Array, Array]) -> tuple[Array, Array]:
        reset, mask = at
        return jnp.where(mask, reset, later), later

    streams = (forward(reset), forward(mask))
    none = jnp.zeros_like(streams[0][0])
    return forward(jax.lax.scan(body, none, streams, reverse=True)[1]) & mask
