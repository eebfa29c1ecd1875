"""Recurrent cells as Flax NNX modules: `Recurrent` (a layer over sequences) and `RecurrentCell` (one step).

Both take any cell of the library, not only an LSTM. The computation is that of `jl.unroll` and `cell.step`.

Every leaf of the cell's params is an `nnx.Param` of the same name (for an LSTM: w_x, w_h, b), shape and layout. So
weights can be copied both ways unchanged: `params = module.params` and `module.set_params(params)`.

The params of a layer are a tree, with one `nnx.Dict` per level. `nnx.state` and checkpoints show these names, which are
the same in `jax_lstm.linen`:

    Stack                       0, 1, …: module.params[0].w_x is getattr(module, "0").w_x
    Bidirectional               forward, backward: module.forward.w_x
    LearnedInitialState                of (the cell inside) and state: module.of.w_x, module.state.h
    Dropout                     the names of the cell inside
"""

from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike, DTypeLike

from jax_lstm import checks, flax_carry, flax_names
from jax_lstm.batch import batched
from jax_lstm.cell import Cell, check_causal
from jax_lstm.checks import params_shapes
from jax_lstm.sequence import unroll


class Weights(nnx.Module):
    """Base class of the modules below: holds a cell and its params, one `nnx.Param` per leaf."""

    def __init__(self, cell: Cell, *, rngs: nnx.Rngs, param_dtype: DTypeLike = jnp.float32):
        caller = type(self).__name__
        if not isinstance(rngs, nnx.Rngs):
            raise TypeError(
                f"{caller}: rngs must be nnx.Rngs, but is {checks.shown(rngs)}; make one with nnx.Rngs(seed)"
            )
        self.cell = nnx.static(checks.check_cell(caller, cell))
        for name, weights in flax_names.named(cell.init(rngs.params(), param_dtype)).items():
            setattr(self, name, _held(weights))

    @property
    def params(self) -> Any:
        """The params as the cell takes them: for an LSTM, LSTMParams(w_x, w_h, b)."""
        return jax.tree_util.tree_map_with_path(lambda path, _: self._param(path)[...], params_shapes(self.cell))

    def set_params(self, params: Any) -> None:
        """Set the weights in place: every `nnx.Param` stays the same object and gets a new value.

        Args:
            params: params of the cell, of the shapes that `cell.init` returns.

        Raises:
            ValueError: a leaf is missing, unknown or of a wrong shape; the message names it.
            TypeError: the leaves are not float arrays of one dtype.
        """
        params, _ = checks.check_params(type(self).__name__, self.cell, params)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params):
            self._param(path).set_value(leaf)

    def _param(self, path: Any) -> Any:
        return reduce(getattr, flax_names.names(path), self)


class Recurrent(Weights):
    """A recurrent layer as a Flax module: runs any cell over a batch of sequences, and holds its weights.

    As if by::

        state, hs = jl.batched(jl.unroll)(cell, module.params, xs, state, mask, reset, key=key, reverse=reverse)

    >>> import jax.numpy as jnp
    >>> import jax_lstm as jl
    >>> from flax import nnx
    >>> from jax_lstm.nnx import Recurrent
    >>> lstm = Recurrent(jl.LSTM(input_size=3, hidden_size=4), rngs=nnx.Rngs(0))
    >>> xs = jnp.zeros((2, 6, 3), jnp.float32)
    >>> lengths = jnp.array([6, 4])
    >>> state, hs = lstm(xs, mask=jnp.arange(6)[None] < lengths[:, None])
    >>> state.h.shape, state.c.shape, hs.shape
    ((2, 4), (2, 4), (2, 6, 4))
    >>> lstm.params.w_h.shape, lstm.w_h[...].shape
    ((4, 16), (4, 16))

    Args:
        cell: any cell or layer of the library, such as jl.LSTM or jl.Stack, or one with the same methods. It is
            a static attribute, not a variable.
        rngs: `nnx.Rngs(seed)`; `cell.init` gets one key of its stream "params".
        param_dtype: dtype of every weight; float32 by default.

    Raises:
        TypeError: cell is not a cell, rngs is not an nnx.Rngs, or param_dtype is not floating.
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
        """Run the cell over a batch of sequences; return the last states and the outputs of every step.

        Args:
            xs: (B, T, I), floats no wider than the weights' dtype.
            state: the states before the first step, leaves (B, H); the cell's initial state if None.
            mask: (B, T) bools. Where False the step is skipped: the state stays, the output is 0. None: no step is
                skipped.
            reset: (B, T) bools. Where True the state is set to the cell's initial state before the step. None: no
                reset.
            key: one random key, for a cell that draws random numbers (dropout, noise); it is split into one per
                sequence. If None, nothing is drawn and the run is deterministic.
            reverse: process the steps from last to first.

        Returns:
            (state, hs): the states after the last step, leaves (B, H), and the outputs hs (B, T, H).

        Raises:
            ValueError, TypeError: as for `jl.batched` and `jl.unroll`.
        """
        return batched(unroll)(self.cell, self.params, xs, state, mask, reset, key=key, reverse=reverse)


class RecurrentCell(Weights, nnx.RNNCellBase):
    """A recurrent cell as a Flax module: one step, for `nnx.RNN` and other code that takes an `nnx.RNNCellBase`.

    It takes any causal cell, such as a `Stack`. A `Bidirectional` is not causal; use `Recurrent` for it.
    No random numbers are drawn: dropout has no effect here, and zoneout takes its expectation.

    The carry is (c, h) for an LSTM, h for a cell whose state has the field h only, and the cell's state for any other
    cell: for a stack the tuple of its cells' states.

    As if by::

        state, y = cell.step(module.params, state, x)      for every example

    >>> import jax.numpy as jnp
    >>> import jax_lstm as jl
    >>> from flax import nnx
    >>> from jax_lstm.nnx import RecurrentCell
    >>> rnn = nnx.RNN(RecurrentCell(jl.LSTM(3, 4), rngs=nnx.Rngs(0)), return_carry=True)
    >>> (c, h), hs = rnn(jnp.zeros((2, 6, 3), jnp.float32))
    >>> c.shape, h.shape, hs.shape
    ((2, 4), (2, 4), (2, 6, 4))

    `nnx.RNN` makes the first carry from shapes only. On an explicit mesh pass it an `initial_carry` that is sharded
    like the data, or use `Recurrent`, which shards its initial state like the data.

    Args:
        cell: any causal cell of the library, or one with the same methods. It is a static attribute, not a variable.
        rngs: `nnx.Rngs(seed)`; `cell.init` gets one key of its stream "params".
        param_dtype: dtype of every weight; float32 by default.

    Raises:
        TypeError: cell is not a cell, rngs is not an nnx.Rngs, or param_dtype is not floating.
        ValueError: the cell is not causal.
    """

    def __init__(self, cell: Cell, *, rngs: nnx.Rngs, param_dtype: DTypeLike = jnp.float32):
        super().__init__(check_causal("RecurrentCell", cell), rngs=rngs, param_dtype=param_dtype)

    def __call__(self, carry: Any, inputs: ArrayLike) -> tuple[Any, jax.Array]:
        """One step.

        Args:
            carry: what `initialize_carry` or the step before returns; leaves (*B, H).
            inputs: (*B, I), floats no wider than the weights' dtype.

        Returns:
            (carry, h): the next carry, and the output h (*B, H).

        Raises:
            TypeError: the carry has a wrong structure (an LSTM's must be a pair (c, h)), or inputs a wrong dtype.
            ValueError: shapes do not fit the cell or each other.
        """
        return flax_carry.step(self.cell, self.params, carry, inputs)

    def initialize_carry(
        self,
        input_shape: tuple[int, ...],
        rngs: nnx.Rngs | nnx.RngStream | None = None,
        carry_init: nnx.Initializer | None = None,
    ) -> Any:
        """The carry before the first step: the cell's initial state.

        Args:
            input_shape: (*B, I), the shape of the inputs of one step.
            rngs: an `nnx.Rngs`, whose stream "carry" is used, or a stream; only for `carry_init`.
            carry_init: an initializer that draws every leaf, instead of the cell's initial state.

        Returns:
            The carry, leaves (*B, H).

        Raises:
            ValueError: `carry_init` is given without `rngs`.
        """
        state = flax_carry.first(self.cell, self.params, input_shape[:-1])
        if carry_init is not None:
            stream = rngs.carry if isinstance(rngs, nnx.Rngs) else rngs
            if stream is None:
                raise ValueError(
                    "RecurrentCell: carry_init draws at random, but rngs is None; pass rngs=nnx.Rngs(seed)"
                )
            state = jax.tree.map(lambda a: carry_init(stream(), a.shape, a.dtype), state)
        return flax_carry.carry_of(state)

    @property
    def num_feature_axes(self) -> int:
        """The number of feature axes of inputs: 1, because inputs are (*B, I)."""
        return 1


def _held(weights: Any) -> Any:
    """Each leaf as an `nnx.Param`."""
    if isinstance(weights, dict):
        return nnx.Dict({name: _held(inner) for name, inner in weights.items()})
    return nnx.Param(weights)
