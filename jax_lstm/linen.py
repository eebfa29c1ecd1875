"""Recurrent cells as Flax Linen modules: names for the core's arrays, and no arithmetic.

Every leaf of a cell's params is one variable of the collection "params" under its own name (for the LSTM: w_x, w_h,
b), in the core's own layout. So weights move between a module and the core unchanged, both ways:
`variables = variables_of(params)` and `params = module.bind(variables).params`. Any cell of the library goes in, not
only the LSTM.

The params of a layer are a tree, and so are the variables: a dict a level. The names are the same as in `jax_lstm.nnx`:

    Stack                       0, 1, …: variables["params"]["0"]["w_x"]
    Bidirectional               forward, backward: variables["params"]["forward"]["w_x"]
    LearnedState                of, for the cell inside, and state: variables["params"]["of"]["w_x"]
    Dropout                     the names of the cell inside
"""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import ArrayLike, DTypeLike

from jax_lstm.batch import batched
from jax_lstm.cells import door
from jax_lstm.cells.base import Cell
from jax_lstm.cells.shapes import params_shapes
from jax_lstm.layers import carry as flax_carry
from jax_lstm.layers import names as flax_names
from jax_lstm.sequence import unroll


def variables_of(params: Any) -> dict[str, Any]:
    """The variables of a module from the core's params: for an LSTM {"params": {"w_x": …, "w_h": …, "b": …}}."""
    return {"params": flax_names.named(params)}


class Weights(nn.Module):
    """A cell and its params, one variable a leaf: what the modules below share."""

    cell: Cell
    param_dtype: DTypeLike = jnp.float32

    def __post_init__(self):
        door.cell(type(self).__name__, self.cell)
        super().__post_init__()

    def setup(self):
        """Find the variables, or draw them, all in one draw."""

        @cache
        def drawn() -> dict[str, Any]:
            return flax_names.named(self.cell.init(self.make_rng("params"), self.param_dtype))

        # `variable` rather than `param`: a weight of another shape is then refused by the core, in its own words.
        names = flax_names.named(params_shapes(self.cell))
        self._weights = {n: self.variable("params", n, lambda n=n: drawn()[n]).value for n in names}

    @property
    def params(self) -> Any:
        """The core's params, of a bound module: for the LSTM, LSTMParams(w_x, w_h, b)."""
        return flax_names.from_named(type(self).__name__, self.cell, self._weights)


class LSTM(Weights):
    """A recurrent layer over a batch of sequences: `jl.batched(jl.unroll)` with the weights held here.

    As if by::

        params = module.bind(variables).params
        state, hs = jl.batched(jl.unroll)(cell, params, xs, state, mask, reset, key=key, reverse=reverse)

    >>> import jax
    >>> import jax.numpy as jnp
    >>> import jax_lstm as jl
    >>> from jax_lstm.linen import LSTM
    >>> lstm = LSTM(jl.LSTM(input_size=3, hidden_size=4))
    >>> xs = jnp.zeros((2, 6, 3), jnp.float32)
    >>> variables = lstm.init(jax.random.key(0), xs)
    >>> lengths = jnp.array([6, 4])
    >>> state, hs = lstm.apply(variables, xs, mask=jnp.arange(6)[None] < lengths[:, None])
    >>> state.h.shape, state.c.shape, hs.shape
    ((2, 4), (2, 4), (2, 6, 4))
    >>> lstm.bind(variables).params.w_h.shape, variables["params"]["w_h"].shape
    ((4, 16), (4, 16))

    Args:
        cell: any cell of the library: jl.LSTM, jl.GRU, jl.RNN, or one with the same methods. Static.
        param_dtype: of every weight; float32 if not given.

    Raises:
        TypeError: cell is no cell; at `init`, param_dtype is not floating.
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


class LSTMCell(Weights, nn.RNNCellBase):
    """One step, for `nn.RNN` and whatever else takes an `nn.RNNCellBase`.

    Any cell that can go step by step goes in: a `Stack` too, a `Bidirectional` not, since it looks at later inputs
    (`LSTM` takes it). Nothing is drawn: dropout has no effect here, and zoneout is in expectation.

    Flax's carry is ours under its own names: (c, h) for an LSTM, h for a cell whose state is h alone, and the state
    as it is for any other: for a stack the tuple of its cells' states.

    As if by::

        state, y = cell.step(module.bind(variables).params, state, x)      for every example

    >>> import jax
    >>> import jax.numpy as jnp
    >>> import jax_lstm as jl
    >>> from flax import linen as nn
    >>> from jax_lstm.linen import LSTMCell
    >>> rnn = nn.RNN(LSTMCell(jl.LSTM(3, 4)), return_carry=True)
    >>> variables = rnn.init(jax.random.key(0), jnp.zeros((2, 6, 3), jnp.float32))
    >>> (c, h), hs = rnn.apply(variables, jnp.zeros((2, 6, 3), jnp.float32))
    >>> c.shape, h.shape, hs.shape
    ((2, 4), (2, 4), (2, 6, 4))

    `nn.RNN` makes the first carry from shapes alone: on an explicit mesh pass it an `initial_carry` placed as the
    data is, or use `LSTM`, which does so itself.

    Args and Raises are those of `LSTM`; and ValueError for a cell that looks at later inputs.
    """

    def __post_init__(self):
        super().__post_init__()
        door.causal("LSTMCell", self.cell)

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

    @nn.nowrap
    def initialize_carry(self, rng: jax.Array, input_shape: tuple[int, ...]) -> Any:
        """The cell's initial state as a carry, for a batch of inputs of shape (*B, I).

        `rng` is used only where the module has no weights yet, by a cell whose initial state depends on them.
        """
        if self.scope is not None:
            state = flax_carry.first(self.cell, self.params, input_shape[:-1])
        else:  # under jit, so that weights nobody looks at are not drawn
            state = jax.jit(
                lambda key: flax_carry.first(self.cell, self.cell.init(key, self.param_dtype), input_shape[:-1])
            )(rng)
        return flax_carry.carry_of(state)

    @property
    def num_feature_axes(self) -> int:
        """1: inputs are (*B, I)."""
        return 1
