"""A bidirectional recurrent network: two cells over one sequence, in opposite directions (Schuster & Paliwal 1997).

    →s_t, →y_t = forward(→s_{t−1}, x_t)      ←s_t, ←y_t = backward(←s_{t+1}, x_t)      y_t = [→y_t, ←y_t]

Both cells skip masked steps, so the backward cell starts at the last unmasked step. A reset at t means that x_t is the
first input of an episode. The backward cell ends the episode there, and is reset before the unmasked step that precedes
t.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from jax_lstm.cells import base, door
from jax_lstm.trajectory import Flags


class BothWays(NamedTuple):
    """Params or states of a `Bidirectional`, one entry for each of its two cells.

    forward: params or state of the forward cell.
    backward: params or state of the backward cell.
    """

    forward: Any
    backward: Any


@jax.tree_util.register_static
@dataclass(frozen=True)
class Bidirectional:
    """Bidirectional recurrent network: two cells over one sequence, in opposite directions (Schuster & Paliwal 1997).

    One step::

        →s_t, →y_t = forward(→s_{t−1}, x_t)      ←s_t, ←y_t = backward(←s_{t+1}, x_t)      y_t = [→y_t, ←y_t]

    → marks the forward cell, ← the backward cell. The layer is a cell itself; run it with `unroll`. Its params and its
    state are a `BothWays`. Its output y_t is the concatenation of the outputs of the two cells at step t. It is not
    causal: it needs the whole sequence, so `step`, `stream` and `tbptt` raise a ValueError. After a run, state.backward
    is the state at the first step, where the backward cell ends.

    Both cells skip masked steps. A reset at t means that x_t is the first input of an episode, so the backward cell is
    reset before it reads the unmasked step that precedes t.

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

    causal = False

    def __post_init__(self):
        door.cell("Bidirectional", self.forward)
        backward: Any = self.forward if self.backward is None else self.backward
        object.__setattr__(self, "backward", door.cell("Bidirectional", backward))
        if self.forward.input_size != backward.input_size:
            raise ValueError(
                f"Bidirectional: backward must take the {self.forward.input_size} features that forward takes, but its "
                f"input_size is {backward.input_size}"
            )

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
        return base.output_size(self.forward) + base.output_size(self.backward)

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> BothWays:
        """Draw the params of both cells, from two keys.

        Args:
            key: one random key, for example `jax.random.key(0)`. Do not reuse it.
            dtype: floating dtype of every leaf, float32 by default.

        Returns:
            BothWays(forward params, backward params).

        Raises:
            TypeError: key is not a random key, or dtype is not floating.
        """
        one, other = jax.random.split(door.prng_key("Bidirectional.init", key))
        return BothWays(self.forward.init(one, dtype), self.backward.init(other, dtype))

    def initial_state(self, params: BothWays, like: Array | None = None) -> BothWays:
        """The initial states of both cells; the backward cell's is its state before it reads the last step.

        Args:
            params: what `init` returns.
            like: data (*B, T, I) of a batch. If given, every leaf has the leading axes *B, sharded like the data.

        Returns:
            BothWays(forward state, backward state).
        """
        return BothWays(
            self.forward.initial_state(params.forward, like), self.backward.initial_state(params.backward, like)
        )

    def output(self, state: BothWays) -> Array:
        """The outputs of both cells in this state, concatenated: (output_size,).

        For the last state of a run they are the outputs of the cells at their own ends of the sequence.
        """
        shown = base.output(self.forward, state.forward), base.output(self.backward, state.backward)
        return jnp.concatenate(shown, axis=-1)

    def step(self, params: Any, state: Any, x: Array) -> Any:
        """Not defined: a single step cannot read later inputs.

        Raises:
            ValueError: always.
        """
        return door.causal("Bidirectional.step", self)

    def draw(self, params: BothWays, key: Array, steps: int) -> base.Drawn:
        """Draw the random numbers of both cells for `steps` steps, each from its own key."""
        cells, drawn, noises = [], [], []
        for cell, p, k in zip((self.forward, self.backward), params, jax.random.split(key), strict=True):
            noise = jnp.zeros((steps, 0), jax.tree.leaves(p)[0].dtype)
            if base.draws(cell):
                cell, p, noise = cell.draw(p, k, steps)
            cells.append(cell)
            drawn.append(p)
            noises.append(noise)
        widths = (self.input_size, *(noise.shape[1] for noise in noises))
        return base.Drawn(
            _DrawnBidirectional(cells[0], cells[1], widths), BothWays(*drawn), jnp.concatenate(noises, axis=1)
        )

    def over_time(
        self,
        run: Callable,
        params: Any,
        s_0: Any,
        s_restart: Any,
        xs: Float[Array, "T *B I"],
        flags: Flags,
        *,
        reverse: bool,
    ) -> tuple[BothWays, BothWays, Array]:
        """Run both cells over time.

        With `reverse` the forward cell runs from last to first, the backward cell from first to last.

        Used by `unroll`. xs is (T, *B, I), and every leaf of a state has the leading axes *B.
        """
        return _both_ways(self, run, params, s_0, s_restart, (xs, xs), flags, reverse)


@dataclass(frozen=True)
class _DrawnBidirectional:
    """A bidirectional cell after its draw: the random numbers of each cell are features of xs, after the inputs."""

    forward: Any
    backward: Any
    widths: tuple[int, int, int]

    causal = False

    def over_time(
        self, run: Callable, params: Any, s_0: Any, s_restart: Any, xs: Array, flags: Flags, *, reverse: bool
    ) -> tuple[BothWays, BothWays, Array]:
        n, k, _ = self.widths
        x, one, other = jnp.split(xs, (n, n + k), axis=-1)
        each = tuple(jnp.concatenate([x, noise], axis=-1) for noise in (one, other))
        return _both_ways(self, run, params, s_0, s_restart, each, flags, reverse)


def _both_ways(
    cells: Any,
    run: Callable,
    params: Any,
    s_0: Any,
    s_restart: Any,
    xs: tuple[Array, ...],
    flags: Flags,
    reverse: bool,
) -> tuple[BothWays, BothWays, Array]:
    fresh = BothWays(None, None) if s_restart is None else s_restart
    other = flags._replace(restart=_at_the_other_end(flags, reverse))
    one = run(cells.forward, params.forward, s_0.forward, fresh.forward, xs[0], flags, reverse=reverse)
    two = run(cells.backward, params.backward, s_0.backward, fresh.backward, xs[1], other, reverse=not reverse)
    (s_T, states, y), (r_T, rates, z) = one, two
    return BothWays(s_T, r_T), BothWays(states, rates), jnp.concatenate([y, z], axis=-1)


def _at_the_other_end(flags: Flags, reverse: bool) -> Bool[Array, "T *B"] | None:
    """True at each live step whose next live step (in the order of processing) restarts.

    That is the last live step of an episode, where the other direction restarts.
    """
    if flags.restart is None or flags.restart.shape[0] == 0:
        return flags.restart
    live = jnp.ones_like(flags.restart) if flags.live is None else flags.live
    forward = (lambda a: a[::-1]) if reverse else (lambda a: a)

    def body(restarts: Array, at: tuple[Array, Array]) -> tuple[Array, Array]:
        restart, live = at
        return jnp.where(live, restart, restarts), restarts

    streams = (forward(flags.restart), forward(live))
    none = jnp.zeros_like(streams[0][0])
    return forward(jax.lax.scan(body, none, streams, reverse=True)[1]) & live
