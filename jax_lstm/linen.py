"""Recurrent cells as Flax Linen modules: `Recurrent` (a layer over sequences) and `RecurrentCell` (one step).

Both take any cell of the library, not only an LSTM. The computation is that of `jl.unroll` and `cell.step`.

Every leaf of the cell's params is a variable of the collection "params" of the same name (for an LSTM: w_x, w_h, b),
shape and layout. So weights can be copied both ways unchanged: `variables = variables_of(params)` and
`params = module.bind(variables).params`.

The params of a layer are a tree, and so are the variables, with one dict per level. The names are the same as in
`jax_lstm.nnx`:

    Stack                       0, 1, …: variables["params"]["0"]["w_x"]
    Bidirectional               forward, backward: variables["params"]["forward"]["w_x"]
    LearnedInitialState                of (the cell inside) and state: variables["params"]["of"]["w_x"]
    Dropout                     the names of the cell inside
"""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import ArrayLike, DTypeLike

from jax_lstm import checks, flax_carry, flax_names
from jax_lstm.batch import batched
from jax_lstm.cell import Cell, check_causal
from jax_lstm.checks import params_shapes
from jax_lstm.sequence import unroll


def variables_of(params: Any) -> dict[str, Any]:
    """Convert a cell's params to the variables of a Linen module.

    Args:
        params: the params of any cell or layer.

    Returns:
        A dict: for an LSTM {"params": {"w_x": …, "w_h": …, "b": …}}. `module.bind(variables).params` is the inverse.

    Raises:
        ValueError: two leaves would have the same name.
    """
    return {"params": flax_names.named(params)}


class Weights(nn.Module):
    """Base class of the modules below: holds a cell and its params, one variable per leaf."""

    cell: Cell
    param_dtype: DTypeLike = jnp.float32

    def __post_init__(self):
        checks.check_cell(type(self).__name__, self.cell)
        super().__post_init__()

    def setup(self):
        """Find the variables, or draw them all with one call of `cell.init`."""

        @cache
        def drawn() -> dict[str, Any]:
            return flax_names.named(self.cell.init(self.make_rng("params"), self.param_dtype))

        # `variable` rather than `param`: for a weight of a wrong shape the error is then that of jl.unroll.
        names = flax_names.named(params_shapes(self.cell))
        self._weights = {n: self.variable("params", n, lambda n=n: drawn()[n]).value for n in names}

    @property
    def params(self) -> Any:
        """The params as the cell takes them, of a bound module: for an LSTM, LSTMParams(w_x, w_h, b)."""
        return flax_names.from_named(type(self).__name__, self.cell, self._weights)


class Recurrent(Weights):
    """A recurrent layer as a Flax module: runs any cell over a batch of sequences, and holds its weights.

    As if by::

        params = module.bind(variables).params
        state, hs = jl.batched(jl.unroll)(cell, params, xs, state, mask, reset, key=key, reverse=reverse)

    >>> import jax
    >>> import jax.numpy as jnp
    >>> import jax_lstm as jl
    >>> from jax_lstm.linen import Recurrent
    >>> lstm = Recurrent(jl.LSTM(input_size=3, hidden_size=4))
    >>> xs = jnp.zeros((2, 6, 3), jnp.float32)
    >>> variables = lstm.init(jax.random.key(0), xs)
    >>> lengths = jnp.array([6, 4])
    >>> state, hs = lstm.apply(variables, xs, mask=jnp.arange(6)[None] < lengths[:, None])
    >>> state.h.shape, state.c.shape, hs.shape
    ((2, 4), (2, 4), (2, 6, 4))
    >>> lstm.bind(variables).params.w_h.shape, variables["params"]["w_h"].shape
    ((4, 16), (4, 16))

    Args:
        cell: any cell or layer of the library, such as jl.LSTM or jl.Stack, or one with the same methods. It is
            a static attribute, not a variable.
        param_dtype: dtype of every weight; float32 by default.

    Raises:
        TypeError: cell is not a cell; at `init`, param_dtype is not floating.
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


class RecurrentCell(Weights, nn.RNNCellBase):
    """A recurrent cell as a Flax module: one step, for `nn.RNN` and other code that takes an `nn.RNNCellBase`.

    It takes any causal cell, such as a `Stack`. A `Bidirectional` is not causal; use `Recurrent` for it.
    No random numbers are drawn: dropout has no effect here, and zoneout takes its expectation.

    The carry is (c, h) for an LSTM, h for a cell whose state has the field h only, and the cell's state for any other
    cell: for a stack the tuple of its cells' states.

    As if by::

        state, y = cell.step(module.bind(variables).params, state, x)      for every example

    >>> import jax
    >>> import jax.numpy as jnp
    >>> import jax_lstm as jl
    >>> from flax import linen as nn
    >>> from jax_lstm.linen import RecurrentCell
    >>> rnn = nn.RNN(RecurrentCell(jl.LSTM(3, 4)), return_carry=True)
    >>> variables = rnn.init(jax.random.key(0), jnp.zeros((2, 6, 3), jnp.float32))
    >>> (c, h), hs = rnn.apply(variables, jnp.zeros((2, 6, 3), jnp.float32))
    >>> c.shape, h.shape, hs.shape
    ((2, 4), (2, 4), (2, 6, 4))

    `nn.RNN` makes the first carry from shapes only. On an explicit mesh pass it an `initial_carry` that is sharded
    like the data, or use `Recurrent`, which shards its initial state like the data.

    Args:
        cell: any causal cell of the library, or one with the same methods. It is a static attribute, not a variable.
        param_dtype: dtype of every weight; float32 by default.

    Raises:
        TypeError: cell is not a cell; at `init`, param_dtype is not floating.
        ValueError: the cell is not causal.
    """

    def __post_init__(self):
        super().__post_init__()
        check_causal("RecurrentCell", self.cell)

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

    @nn.nowrap
    def initialize_carry(self, rng: jax.Array, input_shape: tuple[int, ...]) -> Any:
        """The carry before the first step: the cell's initial state.

        Args:
            rng: a random key; used only if the module has no weights yet, to draw params for `cell.initial_state`.
            input_shape: (*B, I), the shape of the inputs of one step.

        Returns:
            The carry, leaves (*B, H).
        """
        if self.scope is not None:
            state = flax_carry.first(self.cell, self.params, input_shape[:-1])
        else:  # under jit, so that weights that are not used are not drawn
            state = jax.jit(
                lambda key: flax_carry.first(self.cell, self.cell.init(key, self.param_dtype), input_shape[:-1])
            )(rng)
        return flax_carry.carry_of(state)

    @property
    def num_feature_axes(self) -> int:
        """The number of feature axes of inputs: 1, because inputs are (*B, I)."""
        return 1
