"""A stack of cells (a multi-layer network): the outputs of each cell are the inputs of the next.

    y⁰_t = x_t        s^k_t, o_t = cell_k(s^k_{t−1}, y^{k−1}_t)
    y^k_t = o_t, or o_t + y^{k−1}_t with `residual` if both have the same number of features
    between two cells, with a key and `dropout` = p: y^k_t ⊙ m_t / (1 − p), each entry of m_t 0 with probability p

Each cell runs over the whole sequence before the next one starts, on the engine that it would also use alone. Three or
more equal cells in a row run as one loop over their params, traced and compiled once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

from jax_lstm import checks
from jax_lstm.abilities import init_cell, is_causal, noise_of, output, output_size, takes_constants
from jax_lstm.cell import CompositeCell, Noise, call_given
from jax_lstm.engines.layer_scan import scan_layers
from jax_lstm.layers.dropout import rate, rate_or_array, scaled_mask

MIN_LOOPED = 3  # at least this many equal cells in a row run as one loop; fewer are faster one after another


@dataclass(frozen=True)
class Stack(CompositeCell):
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
            raise TypeError(f"Stack: cells must be a tuple of one cell or more, but is {checks.shown(self.cells)}")
        object.__setattr__(self, "cells", tuple(checks.check_cell("Stack", cell) for cell in self.cells))
        for k, (below, above) in enumerate(zip(self.cells, self.cells[1:], strict=False)):
            if output_size(below) != above.input_size:
                raise ValueError(
                    f"Stack: cell {k + 1} must take the {output_size(below)} features that cell {k} gives, but "
                    f"its input_size is {above.input_size}"
                )
        object.__setattr__(self, "residual", checks.check_bool("Stack", "residual", self.residual))
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
        return output_size(self.cells[-1])

    @property
    def causal(self) -> bool:
        """Whether every cell is causal: no output depends on later inputs."""
        return all(is_causal(cell) for cell in self.cells)

    def init(self, key: Array, dtype: DTypeLike = jnp.float32, **choices: Any) -> tuple[Any, ...]:
        """Draw the params of every cell, each from its own key.

        Args:
            key: one random key, for example `jax.random.key(0)`. Do not reuse it.
            dtype: floating dtype of every leaf, float32 by default.
            choices: keyword arguments of the `init` of every cell, such as `forget_bias`.

        Returns:
            A tuple with the params of every cell, the lowest first.

        Raises:
            TypeError: key is not a random key, dtype is not floating, or a cell does not take one of the choices; then
                call the `init` of each cell, and make a tuple of the results.
        """
        keys = jax.random.split(checks.check_key("Stack.init", key), len(self.cells))
        return tuple(init_cell("Stack.init", cell, k, dtype, choices) for cell, k in zip(self.cells, keys, strict=True))

    def initial_state(self, params: tuple[Any, ...]) -> tuple[Any, ...]:
        """The initial states of all cells.

        Args:
            params: what `init` returns.

        Returns:
            A tuple with the state of every cell, the lowest first.
        """
        return tuple(cell.initial_state(p) for cell, p in zip(self.cells, params, strict=True))

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
        return output(self.cells[-1], state[-1])

    @property
    def takes_constants(self) -> bool:
        """Whether at least one cell reads constants."""
        return any(takes_constants(cell) for cell in self.cells)

    @property
    def has_noise(self) -> bool:
        """True: a key is always accepted. Dropout uses it, and every cell of the stack that draws random numbers."""
        return True

    def sample_noise(self, params: tuple[Any, ...], key: Array, T: Any, rates: dict[str, Any] | None = None) -> Noise:
        """Draw the random numbers of every cell, and the dropout masks between cells.

        Args:
            params: what `init` returns.
            key: one random key. Do not reuse it.
            T: the number of steps.
            rates: {"dropout": p, "cells": (rates of the lowest cell or None, ...)}, for this draw in place of the
                fields; each may be absent. p is a number in [0, 1), or an array that broadcasts to (T, n) for the n
                outputs of every cell, which may be traced.

        Returns:
            Noise(a tuple of StackStepNoise, a tuple with the `sequence` of each cell's noise).

        Raises:
            ValueError: p is out of range or has a wrong shape, `cells` has not one entry per cell, a cell takes no
                rates, or a name in `rates` is unknown.
            TypeError: `rates` is not a dict, or p is not a number or an array.
        """
        caller, n = "Stack.sample_noise", len(self.cells)
        key, given = checks.check_key(caller, key), checks.check_rates(caller, rates, ("dropout", "cells"))
        of_cells = given.get("cells", (None,) * n)
        if not isinstance(of_cells, Sequence) or len(of_cells) != n:
            raise ValueError(
                f"{caller}: cells in rates must be a tuple of {n} rates, one per cell, but is {checks.shown(of_cells)}"
            )
        drops, dtype = "dropout" in given or self.dropout > 0, jax.tree.leaves(params)[0].dtype
        steps, sequence = [], []
        for k, (cell, p, of_cell) in enumerate(zip(self.cells, params, of_cells, strict=True)):
            key, key_cell, key_between = jax.random.split(key, 3)
            noise, mask = noise_of(caller, cell, p, key_cell, T, of_cell), None
            if drops and k < n - 1:
                shape = T, output_size(cell)
                between = rate_or_array(caller, "dropout", given.get("dropout", self.dropout), shape)
                mask = scaled_mask(key_between, between, shape, dtype)
            steps.append(StackStepNoise(noise.steps, mask))
            sequence.append(noise.sequence)
        return Noise(tuple(steps), tuple(sequence))

    def step(
        self, params: tuple[Any, ...], state: tuple[Any, ...], x: Array, *, noise: Noise | None = None, **given: Any
    ) -> tuple[tuple[Any, ...], Array]:
        """One step of every cell, the lowest first.

        Args:
            params: what `init` returns.
            state: what `initial_state` or the step before returns.
            x: (I,), floats no wider than the params' dtype.
            noise: what `sample_noise` draws, for one step; None: no dropout.
            given: the constants of the run, if it has any.

        Returns:
            (state, y): the next state, and the output y (output_size,).
        """
        after = []
        for cell, p, s, drawn, lasting in zip(self.cells, params, state, *self._noise_of_cells(noise), strict=True):
            own = {} if drawn.cell is None and lasting is None else {"noise": Noise(drawn.cell, lasting)}
            s_t, y = call_given(cell.step, p, s, x, given=own | given)
            after.append(s_t)
            x = self._output(x, y, drawn.mask)
        return tuple(after), x

    def unroll_with(self, run: Callable, inputs: Any, *, reverse: bool) -> tuple[Any, Any, Array]:
        """Run each cell over the whole sequence, the lowest first; see `CompositeCell`."""
        s_initial = (None,) * len(self.cells) if inputs.s_initial is None else inputs.s_initial
        noise = Noise(inputs.noise_steps, inputs.noise)
        of_cells = zip(inputs.params, inputs.s_0, s_initial, *self._noise_of_cells(noise), strict=True)

        def layer(cell: Any, x: Array, of_cell: Any) -> tuple[Array, Any]:
            p, s_0, s_initial, drawn, lasting = of_cell
            part = inputs._replace(params=p, s_0=s_0, s_initial=s_initial, xs=x, noise_steps=drawn.cell, noise=lasting)
            s_T, states, y = run(cell, part, reverse=reverse)
            return self._output(x, y, drawn.mask), (s_T, states)

        x, returned = inputs.xs, []
        layers = [
            (cell, jax.tree.structure(of_cell), of_cell) for cell, of_cell in zip(self.cells, of_cells, strict=True)
        ]
        for (cell, _), group in groupby(layers, key=lambda one: one[:2]):
            of_group = [of_cell for *_, of_cell in group]
            if len(of_group) >= MIN_LOOPED and cell.input_size == output_size(cell):
                with jax.named_scope(f"layers_{len(returned)}_to_{len(returned) + len(of_group) - 1}"):
                    x, more = scan_layers(partial(layer, cell), x, of_group)
                returned += more
                continue
            for of_cell in of_group:
                with jax.named_scope(f"layer_{len(returned)}"):
                    x, more = layer(cell, x, of_cell)
                returned.append(more)
        ends, states = zip(*returned, strict=True)
        return ends, states, x

    def _noise_of_cells(self, noise: Noise | None) -> tuple[Any, Any]:
        """One `StackStepNoise` per cell for the steps, and the noise of each cell for the sequence."""
        steps, sequence = (None, None) if noise is None else noise
        nothing = (None,) * len(self.cells)
        steps = (StackStepNoise(),) * len(self.cells) if steps is None else steps
        return steps, nothing if sequence is None else sequence

    def _output(self, x: Array, y: Array, mask: Array | None) -> Array:
        """The input of the next cell, from the input x and output y of this one: residual sum, then dropout."""
        y = x.astype(y.dtype) + y if self.residual and x.shape[-1] == y.shape[-1] else y
        return y if mask is None else y * mask


class StackStepNoise(NamedTuple):
    """The noise of one cell of a `Stack` for every step. The field `steps` of the stack's `Noise` is a tuple of these.

    cell: the `steps` of the noise of the cell, or None.
    mask: (T, n), the factor of the n outputs that the next cell reads: 1 / (1 − dropout) or 0. None: 1.
    """

    cell: Any = None
    mask: Array | None = None
