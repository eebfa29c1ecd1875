"""Recurrent cells as Flax NNX modules: names for the core's arrays, and no arithmetic.

Every leaf of a cell's params is one `nnx.Param` under its own name (for the LSTM: w_x, w_h, b), in the core's own
layout. So weights move between a module and the core unchanged, both ways: `params = module.params` and
`module.set_params(params)`. Any cell of the library goes in, not only the LSTM.

The params of a layer are a tree, and so are the names: an `nnx.Dict` a level. They are the same as in `jax_lstm.linen`,
and what `nnx.state` shows and a checkpoint holds:

    Stack                       0, 1, …: module.params[0].w_x is getattr(module, "0").w_x
    Bidirectional               forward, backward: module.forward.w_x
    LearnedState                of, for the cell inside, and state: module.of.w_x, module.state.h
    Dropout                     the names of the cell inside
"""

from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike, DTypeLike

from jax_lstm.batch import batched
from jax_lstm.cells import door
from jax_lstm.cells.base import Cell
from jax_lstm.cells.shapes import params_shapes
from jax_lstm.layers import carry as flax_carry
from jax_lstm.layers import names as flax_names
from jax_lstm.sequence import unroll


class Weights(nnx.Module):
    """A cell and its params, one `nnx.Param` a leaf: what the modules below share."""

    def __init__(self, cell: Cell, *, rngs: nnx.Rngs, param_dtype: DTypeLike = jnp.float32):
        where = type(self).__name__
        if not isinstance(rngs, nnx.Rngs):
            raise TypeError(f"{where}: rngs must be nnx.Rngs, but is {rngs!r}; nnx.Rngs(seed) makes one")
        self.cell = nnx.static(door.cell(where, cell))
        for name, weights in flax_names.named(cell.init(rngs.params(), param_dtype)).items():
            setattr(self, name, _held(weights))

    @property
    def params(self) -> Any:
        """The core's params: for the LSTM, LSTMParams(w_x, w_h, b)."""
        return jax.tree_util.tree_map_with_path(lambda path, _: self._param(path)[...], params_shapes(self.cell))

    def set_params(self, params: Any) -> None:
        """Put the core's params in, in place: every `nnx.Param` stays, with another value.

        Raises:
            ValueError, TypeError: params that are not the cell's; the message names the leaf.
        """
        params, _ = door.params(type(self).__name__, self.cell, params)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params):
            self._param(path).set_value(leaf)

    def _param(self, path: Any) -> Any:
        return reduce(getattr, flax_names.names(path), self)


class LSTM(Weights):
    """A recurrent layer over a batch of sequences: `jl.batched(jl.unroll)` with the weights held here.

    As if by::

        state, hs = jl.batched(jl.unroll)(cell, module.params, xs, state, mask, reset, key=key, reverse=reverse)

    >>> import jax.numpy as jnp
    >>> import jax_lstm as jl
    >>> from flax import nnx
    >>> from jax_lstm.nnx import LSTM
    >>> lstm = LSTM(jl.LSTM(input_size=3, hidden_size=4), rngs=nnx.Rngs(0))
    >>> xs = jnp.zeros((2, 6, 3), jnp.float32)
    >>> lengths = jnp.array([6, 4])
    >>> state, hs = lstm(xs, mask=jnp.arange(6)[None] < lengths[:, None])
    >>> state.h.shape, state.c.shape, hs.shape
    ((2, 4), (2, 4), (2, 6, 4))
    >>> lstm.params.w_h.shape, lstm.w_h[...].shape
    ((4, 16), (4, 16))

    Args:
        cell: any cell of the library: jl.LSTM, jl.GRU, jl.RNN, or one with the same methods. Static.
        rngs: `cell.init` gets one key of its stream "params".
        param_dtype: of every weight; float32 if not given.

    Raises:
        TypeError: cell is no cell, rngs no nnx.Rngs, param_dtype not floating.
    """

    def __call__(
        self,
        xs: ArrayLike,
        state: Any = None,
        *,
        mask: ArrayLike | None = None,
        reset: ArrayLike | None = None,
        key: Any = None,
        reverse: bool = False,
    ) -> tuple[Any, jax.Array]:
        """The last states and the outputs of every step.

        Args:
            xs: (B, T, I), floats no wider than the weights' dtype.
            state: the states before the first step, leaves (B, H); the cell's initial state if None.
            mask: (B, T) bools. Where False the step does not happen: the state stays, the output is 0.
            reset: (B, T) bools. Where True the state starts anew before the step.
            key: a random key, for a cell that draws (dropout, noise); each sequence draws from one of its own. None:
                nothing is drawn, and the run is the deterministic one.
            reverse: process the steps from last to first.

        Returns:
            The states after the last step, leaves (B, H), and hs (B, T, H).

        Raises:
            ValueError, TypeError: as `jl.batched` and `jl.unroll`.
        """
        return batched(unroll)(self.cell, self.params, xs, state, mask, reset, key=key, reverse=reverse)


class LSTMCell(Weights, nnx.RNNCellBase):
    """One step, for `nnx.RNN` and whatever else takes an `nnx.RNNCellBase`.

    Any cell that can go step by step goes in: a `Stack` too, a `Bidirectional` not, since it looks at later inputs
    (`LSTM` takes it). Nothing is drawn: dropout has no effect here, and zoneout is in expectation.

    Flax's carry is ours under its own names: (c, h) for an LSTM, h for a cell whose state is h alone, and the state
    as it is for any other: for a stack the tuple of its cells' states.

    As if by::

        state, y = cell.step(module.params, state, x)      for every example

    >>> import jax.numpy as jnp
    >>> import jax_lstm as jl
    >>> from flax import nnx
    >>> from jax_lstm.nnx import LSTMCell
    >>> rnn = nnx.RNN(LSTMCell(jl.LSTM(3, 4), rngs=nnx.Rngs(0)), return_carry=True)
    >>> (c, h), hs = rnn(jnp.zeros((2, 6, 3), jnp.float32))
    >>> c.shape, h.shape, hs.shape
    ((2, 4), (2, 4), (2, 6, 4))

    `nnx.RNN` makes the first carry from shapes alone: on an explicit mesh pass it an `initial_carry` placed as the
    data is, or use `LSTM`, which does so itself.

    Args and Raises are those of `LSTM`; and ValueError for a cell that looks at later inputs.
    """

    def __init__(self, cell: Cell, *, rngs: nnx.Rngs, param_dtype: DTypeLike = jnp.float32):
        super().__init__(door.causal("LSTMCell", cell), rngs=rngs, param_dtype=param_dtype)

    def __call__(self, carry: Any, inputs: ArrayLike) -> tuple[Any, jax.Array]:
        """One step.

        Args:
            carry: leaves (*B, H).
            inputs: (*B, I), floats no wider than the weights' dtype.

        Returns:
            The next carry, and the output (*B, H).

        Raises:
            TypeError: an LSTM's carry that is no pair (c, h); inputs of another dtype.
            ValueError: shapes that do not fit the cell or each other.
        """
        return flax_carry.step(self.cell, self.params, carry, inputs)

    def initialize_carry(
        self,
        input_shape: tuple[int, ...],
        rngs: nnx.Rngs | nnx.RngStream | None = None,
        carry_init: nnx.Initializer | None = None,
    ) -> Any:
        """The cell's initial state as a carry, for a batch of inputs of shape (*B, I).

        With `carry_init` its leaves are drawn by that instead, from the stream "carry" of `rngs`.

        Raises:
            ValueError: `carry_init` without `rngs`.
        """
        state = flax_carry.first(self.cell, self.params, input_shape[:-1])
        if carry_init is not None:
            stream = rngs.carry if isinstance(rngs, nnx.Rngs) else rngs
            if stream is None:
                raise ValueError("LSTMCell: carry_init draws at random, but rngs is None; pass rngs=nnx.Rngs(seed)")
            state = jax.tree.map(lambda a: carry_init(stream(), a.shape, a.dtype), state)
        return flax_carry.carry_of(state)

    @property
    def num_feature_axes(self) -> int:
        """1: inputs are (*B, I)."""
        return 1


def _held(weights: Any) -> Any:
    """Each leaf as an `nnx.Param`."""
    if isinstance(weights, dict):
        return nnx.Dict({name: _held(inner) for name, inner in weights.items()})
    return nnx.Param(weights)
