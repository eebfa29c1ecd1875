"""A stack of cells (a multi-layer network): the outputs of each cell are the inputs of the next.

    y⁰_t = x_t        s^k_t, o_t = cell_k(s^k_{t−1}, y^{k−1}_t)
    y^k_t = o_t, or o_t + y^{k−1}_t with `residual` if both have the same number of features
    between two cells, with a key and `dropout` = p: y^k_t ⊙ m_t / (1 − p), each entry of m_t 0 with probability p

Each cell runs over the whole sequence before the next one starts, on the same engine as it would alone. Three or more
equal cells in a row run as one loop over their params, traced and compiled once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jax_lstm.cells import base, door
from jax_lstm.layers.dropout import kept, rate
from jax_lstm.layers.joined import joined, parted
from jax_lstm.trajectory import like_data

LOOPED = 3  # from this many equal cells in a row they run as one loop; fewer run faster without it


@jax.tree_util.register_static
@dataclass(frozen=True)
class Stack:
    """Stack of cells (a multi-layer recurrent network): the outputs of each cell are the inputs of the next.

    One step::

        y⁰_t = x_t        s^k_t, o_t = cell_k(s^k_{t−1}, y^{k−1}_t)
        y^k_t = o_t, or o_t + y^{k−1}_t with `residual` if both have the same number of features

    y^k_t is the output of cell k, counted from 1, and s^k_t its state. The output of the stack is that of the highest
    cell. A stack is a cell itself. Its params and its state are tuples with one entry per cell, the lowest first.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> import jax_lstm as jl
    >>> cell = jl.Stack((jl.LSTM(input_size=3, hidden_size=4), jl.GRU(input_size=4, hidden_size=5)))
    >>> params = cell.init(jax.random.key(0))
    >>> state, ys = jl.unroll(cell, params, jnp.ones((6, 3), jnp.float32))
    >>> state[0].c.shape, state[1].h.shape, ys.shape
    ((4,), (5,), (6, 5))

    Args:
        cells: a tuple of cells and layers, the lowest first. The input size of each must be the output size of the one
            below.
        residual: whether to add the input of each cell to its output, if both have the same number of features.
        dropout: dropout rate of the outputs that the next cell reads, after the residual sum; at least 0 and below 1.
            Each step has a new mask, and kept values are divided by 1 − dropout. The outputs of the highest cell are
            not dropped. Dropout is applied only if `unroll` gets a `key`. For one mask per sequence use
            `Dropout(cell, inputs=...)`.

    Raises:
        ValueError: the sizes of two cells do not match, or a field is out of range; the message names it.
        TypeError: an entry of `cells` is not a cell, or a field has a wrong type; the message names it.
    """

    cells: tuple[Any, ...]
    residual: bool = False
    dropout: float = 0.0

    def __post_init__(self):
        if not isinstance(self.cells, Sequence) or not self.cells:
            raise TypeError(f"Stack: cells must be a tuple of one cell or more, but is {self.cells!r}")
        object.__setattr__(self, "cells", tuple(door.cell("Stack", cell) for cell in self.cells))
        for k, (below, above) in enumerate(zip(self.cells, self.cells[1:], strict=False)):
            if base.output_size(below) != above.input_size:
                raise ValueError(
                    f"Stack: cell {k + 1} must take the {base.output_size(below)} features that cell {k} gives, but "
                    f"its input_size is {above.input_size}"
                )
        object.__setattr__(self, "residual", door.flag("Stack", "residual", self.residual))
        object.__setattr__(self, "dropout", rate("Stack", "dropout", self.dropout))

    @property
    def input_size(self) -> int:
        """I, the number of input features of the lowest cell."""
        return self.cells[0].input_size

    @property
    def hidden_size(self) -> int:
        """H, the number of units of the highest cell."""
        return self.cells[-1].hidden_size

    @property
    def output_size(self) -> int:
        """The number of output features of the highest cell."""
        return base.output_size(self.cells[-1])

    @property
    def causal(self) -> bool:
        """Whether every cell is causal: no output depends on later inputs."""
        return all(base.is_causal(cell) for cell in self.cells)

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> tuple[Any, ...]:
        """Draw the params of every cell, each from its own key.

        Args:
            key: one random key, for example `jax.random.key(0)`. Do not reuse it.
            dtype: floating dtype of every leaf, float32 by default.

        Returns:
            A tuple with the params of every cell, the lowest first.

        Raises:
            TypeError: key is not a random key, or dtype is not floating.
        """
        keys = jax.random.split(door.prng_key("Stack.init", key), len(self.cells))
        return tuple(cell.init(k, dtype) for cell, k in zip(self.cells, keys, strict=True))

    def initial_state(self, params: tuple[Any, ...], like: Array | None = None) -> tuple[Any, ...]:
        """The initial states of all cells.

        Args:
            params: what `init` returns.
            like: data (*B, T, I) of a batch. If given, every leaf has the leading axes *B, sharded like the data.

        Returns:
            A tuple with the state of every cell, the lowest first.
        """
        return tuple(cell.initial_state(p, like) for cell, p in zip(self.cells, params, strict=True))

    def output(self, state: tuple[Any, ...]) -> Array:
        """The output of the highest cell in this state.

        Raises:
            ValueError: with `residual` the output is not part of the state; use the outputs that `unroll` returns.
        """
        if self.residual:
            raise ValueError(
                "Stack: the output of a residual stack is not part of its state; use the last of the outputs that "
                "unroll returns"
            )
        return base.output(self.cells[-1], state[-1])

    def step(self, params: tuple[Any, ...], state: tuple[Any, ...], x: Array) -> tuple[tuple[Any, ...], Array]:
        """One step of every cell, the lowest first, without dropout.

        Args:
            params: what `init` returns.
            state: what `initial_state` or the step before returns.
            x: (I,), floats no wider than the params' dtype.

        Returns:
            (state, y): the next state, and the output y (output_size,).
        """
        after = []
        for cell, p, s in zip(self.cells, params, state, strict=True):
            s_t, y = cell.step(p, s, x)
            after.append(s_t)
            x = self._added(x, y)
        return tuple(after), x

    def draw(self, params: tuple[Any, ...], key: Array, steps: int) -> base.Drawn:
        """Draw the random numbers of every cell and the dropout masks between them, for `steps` steps."""
        dtype = jax.tree.leaves(params)[0].dtype
        cells, drawn, noises = [], [], []
        for k, (cell, p) in enumerate(zip(self.cells, params, strict=True)):
            key, key_cell, key_between = jax.random.split(key, 3)
            between = k < len(self.cells) - 1 and self.dropout > 0
            mask = kept(key_between, self.dropout, (steps, base.output_size(cell) if between else 0), dtype)
            noise = jnp.zeros((steps, 0), dtype)
            if base.draws(cell):
                cell, p, noise = cell.draw(p, key_cell, steps)
            cells.append(cell)
            drawn.append(p)
            noises += [noise, mask]
        drawn_stack = _DrawnStack(self, tuple(cells), tuple(noise.shape[1] for noise in noises))
        return base.Drawn(drawn_stack, tuple(drawn), jnp.concatenate(noises, axis=1))

    def over_time(
        self,
        run: Callable,
        params: Any,
        s_0: Any,
        s_restart: Any,
        xs: Float[Array, "T *B I"],
        flags: Any,
        *,
        reverse: bool,
    ) -> tuple[Any, Any, Array]:
        """Run each cell over the whole sequence, the lowest first, without dropout.

        Used by `unroll`. xs is (T, *B, I), and every leaf of a state has the leading axes *B.
        """
        nothing: list[Array | None] = [None] * len(self.cells)
        return _through(self, self.cells, run, params, s_0, s_restart, xs, nothing, nothing, flags, reverse)

    def _added(self, x: Array, y: Array) -> Array:
        return x.astype(y.dtype) + y if self.residual and x.shape[-1] == y.shape[-1] else y


@dataclass(frozen=True)
class _DrawnStack:
    """A stack after its draw: each cell's random numbers and output mask are features of xs, of these widths."""

    stack: Stack
    cells: tuple[Any, ...]
    widths: tuple[int, ...]

    @property
    def causal(self) -> bool:
        return self.stack.causal

    def over_time(
        self, run: Callable, params: Any, s_0: Any, s_restart: Any, xs: Array, flags: Any, *, reverse: bool
    ) -> tuple[Any, Any, Array]:
        ends = [self.stack.input_size]
        for width in self.widths[:-1]:
            ends.append(ends[-1] + width)
        x, *drawn = jnp.split(xs, ends, axis=-1)
        drawn = [a if a.shape[-1] else None for a in drawn]
        return _through(
            self.stack, self.cells, run, params, s_0, s_restart, x, drawn[0::2], drawn[1::2], flags, reverse
        )


def _through(
    stack: Stack, cells: tuple[Any, ...], run: Callable, params: Any, s_0: Any, s_restart: Any, x: Array,
    noises: list[Array | None], masks: list[Array | None], flags: Any, reverse: bool,
) -> tuple[Any, Any, Array]:  # fmt: skip
    """Run x through every cell: the last states, all states (or None), and the outputs of the highest cell."""
    s_restart = (None,) * len(cells) if s_restart is None else s_restart

    def layer(cell: Any, x: Array, of_cell: Any) -> tuple[Array, Any]:
        p, s, fresh, noise, mask = of_cell
        s_T, states, y = run(cell, p, s, fresh, _beside(x, noise), flags, reverse=reverse)
        y = stack._added(x, y)
        return (y if mask is None else y * mask / (1 - stack.dropout)), (s_T, states)

    ends, states = [], []
    fits = [cell.input_size == base.output_size(cell) for cell in stack.cells]
    each = list(zip(cells, fits, zip(params, s_0, s_restart, noises, masks, strict=True), strict=True))
    for (cell, fit, *_), group in groupby(each, key=lambda one: (*one[:2], *(a is None for a in one[2][3:]))):
        of_cells = [of_cell for *_, of_cell in group]
        if len(of_cells) < LOOPED or not fit:
            for of_cell in of_cells:
                x, (s_T, passed) = layer(cell, x, of_cell)
                ends.append(s_T)
                states.append(passed)
            continue
        stacked = joined(of_cells)
        x = like_data(x.astype(jax.tree.leaves(of_cells[0][0])[0].dtype), of_cells[0][0])
        x, both = jax.lax.scan(lambda x, of_cell, cell=cell: layer(cell, x, of_cell), x, stacked)
        for s_T, passed in parted(both, len(of_cells)):
            ends.append(s_T)
            states.append(passed)
    return tuple(ends), tuple(states), x


def _beside(x: Array, noise: Array | None) -> Array:
    return x if noise is None else jnp.concatenate([x.astype(noise.dtype), noise], axis=-1)
