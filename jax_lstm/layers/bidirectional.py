"""Two cells over one sequence, one each way (Schuster & Paliwal 1997).

    →s_t, →y_t = forward(→s_{t−1}, x_t)      ←s_t, ←y_t = backward(←s_{t+1}, x_t)      y_t = [→y_t, ←y_t]

A masked step does not happen for either, so the backward one begins at the last live step, wherever that is. A reset
says that x_t is the first of an episode: for the backward cell that episode ends there, so it starts anew at the live
step before.
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
    """What belongs to the two cells: their params, or their states."""

    forward: Any
    backward: Any


@jax.tree_util.register_static
@dataclass(frozen=True)
class Bidirectional:
    """Two cells, one each way; its params and its state are `BothWays`. It needs the whole sequence: no stream.

    Args:
        forward: the cell from first to last.
        backward: the cell from last to first; one like `forward`, with params of its own, if None.

    Raises:
        ValueError, TypeError: cells that take different numbers of features, or are none.
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
        """I of both."""
        return self.forward.input_size

    @property
    def hidden_size(self) -> int:
        """H of both together."""
        return self.forward.hidden_size + self.backward.hidden_size

    @property
    def output_size(self) -> int:
        """How many features both together give."""
        return base.output_size(self.forward) + base.output_size(self.backward)

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> BothWays:
        """Draw the params of both, each from a key of its own."""
        one, other = jax.random.split(door.prng_key("Bidirectional.init", key))
        return BothWays(self.forward.init(one, dtype), self.backward.init(other, dtype))

    def initial_state(self, params: BothWays, like: Array | None = None) -> BothWays:
        """The initial state of both: that of the backward one is the state after the last step."""
        return BothWays(
            self.forward.initial_state(params.forward, like), self.backward.initial_state(params.backward, like)
        )

    def output(self, state: BothWays) -> Array:
        """What both cells show of the states that they end in, each at its own end of the sequence."""
        shown = base.output(self.forward, state.forward), base.output(self.backward, state.backward)
        return jnp.concatenate(shown, axis=-1)

    def step(self, params: Any, state: Any, x: Array) -> Any:
        """There is none.

        Raises:
            ValueError: always; a step cannot see what comes later.
        """
        return door.causal("Bidirectional.step", self)

    def draw(self, params: BothWays, key: Array, steps: int) -> base.Drawn:
        """What each draws."""
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
        """Both ways; with `reverse` the forward cell goes from last to first, the backward one from first to last."""
        return _both_ways(self, run, params, s_0, s_restart, (xs, xs), flags, reverse)


@dataclass(frozen=True)
class _DrawnBidirectional:
    """Both cells after their draws; what each drew are features of xs, behind its own."""

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
    """True at the last live step of each episode that begins (in the order of processing) with a restart.

    That is where the next live step restarts.
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
