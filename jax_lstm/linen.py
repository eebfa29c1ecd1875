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

A cell that draws random numbers, such as `jl.Dropout`, behaves as `nn.Dropout` does: its module has a field and an
argument `deterministic`, and draws from the rng "dropout".
"""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import ArrayLike, DTypeLike

from jax_lstm import checks, flax_carry, flax_names, flax_run
from jax_lstm.abilities import check_causal
from jax_lstm.cell import Cell
from jax_lstm.checks import params_shapes
from jax_lstm.engines.engine import Engine


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
    deterministic: bool | None = None

    def __post_init__(self):
        caller = type(self).__name__
        checks.check_cell(caller, self.cell)
        if self.deterministic is not None:
            checks.check_bool(caller, "deterministic", self.deterministic)
        if "params" in flax_names.named(params_shapes(self.cell)):
            raise ValueError(
                f"{caller}: params must not use the name params, because Flax takes it for a collection of variables; "
                "rename it in what cell.init returns"
            )
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

    A cell that draws random numbers (dropout, zoneout, noise) draws them in training mode from the rng "dropout":

    >>> layer = Recurrent(jl.Dropout(jl.LSTM(3, 4), hidden=0.5))
    >>> variables = layer.init(jax.random.key(0), xs, deterministic=True)
    >>> _, hs = layer.apply(variables, xs, deterministic=False, rngs={"dropout": jax.random.key(1)})

    Coming from `nn.RNN`: `seq_lengths` is `mask=jnp.arange(T) < seq_lengths[..., None]`, `initial_carry` is `state`,
    and the last state is always returned. Outputs at masked steps are 0, and with `reverse` hs[:, t] is the output for
    xs[:, t], as with `keep_order=True`.

    Args:
        cell: any cell or layer of the library, such as jl.LSTM or jl.Stack, or one with the same methods. It is
            a static attribute, not a variable.
        param_dtype: dtype of every weight; float32 by default.
        deterministic: whether a cell that draws random numbers draws none. For such a cell give it here or in the
            call, not in both, as for `nn.Dropout`. It has no effect on other cells.
        time_major: whether time is the first axis of xs, mask, reset and hs.
        reverse: process the steps from last to first.
        remat_every: store every n-th state only, as in `jl.unroll`.
        engine: how to run the loop, as in `jl.unroll`.

    Raises:
        TypeError: cell is not a cell, or an option has a wrong type; at `init`, param_dtype is not floating.
        ValueError: an option has a wrong value, or a leaf of the params is called params.
    """

    time_major: bool = False
    reverse: bool = False
    remat_every: int | str | None = None
    engine: str | Engine = "auto"

    def __post_init__(self):
        flax_run.check_run_options(
            time_major=self.time_major, reverse=self.reverse, remat_every=self.remat_every, engine=self.engine
        )
        super().__post_init__()

    def __call__(
        self,
        xs: ArrayLike,
        state: Any = None,
        *,
        mask: ArrayLike | None = None,
        reset: ArrayLike | None = None,
        constants: Any = None,
        key: Any = None,
        deterministic: bool | None = None,
        time_major: bool | None = None,
        reverse: bool | None = None,
        remat_every: int | str | None = None,
        engine: str | Engine | None = None,
    ) -> tuple[Any, jax.Array]:
        """Run the cell over a batch of sequences; return the last states and the outputs of every step.

        *B are the batch axes: none, one or more.

        Args:
            xs: (*B, T, I), floats no wider than the weights' dtype; integers and bools are cast to it. With
                `time_major`: (T, *B, I).
            state: the states before the first step, leaves (*B, H); the cell's initial state if None.
            mask: (*B, T) bools, or (T, *B). Where False the step is skipped: the state stays, the output is 0. None: no
                step is skipped. For sequences of `lengths` (*B) steps: `jnp.arange(T) < lengths[..., None]`.
            reset: (*B, T) bools, or (T, *B). Where True the state is set to the cell's initial state before the step.
                None: no reset.
            constants: leaves (*B, ...), for a cell that takes constants, as in `jl.unroll`.
            key: one random key, for a cell that draws random numbers; it is split into one per sequence. With a key
                the call is in training mode. None: in training mode the key comes from the rng "dropout".
            deterministic: whether to draw no random numbers; the field `deterministic` if None.
            time_major, reverse, remat_every, engine: the fields of these names if None.

        Returns:
            (state, hs): the states after the last step, leaves (*B, H), and the outputs hs (*B, T, H), or (T, *B, H).

        Raises:
            ValueError: for a cell that draws random numbers `deterministic` is given nowhere or twice, `key` is given
                together with `deterministic=True`, or as for `jl.batched` and `jl.unroll`.
            TypeError: as for `jl.batched` and `jl.unroll`.
            flax.errors.InvalidRngError: in training mode there is no rng "dropout".
        """
        return flax_run.run(
            self.cell,
            self.params,
            xs,
            state,
            mask,
            reset,
            constants,
            key=self._run_key(key, deterministic),
            time_major=self.time_major if time_major is None else time_major,
            reverse=self.reverse if reverse is None else reverse,
            remat_every=self.remat_every if remat_every is None else remat_every,
            engine=self.engine if engine is None else engine,
        )

    def _run_key(self, key: Any, deterministic: Any) -> Any:
        """The random key of a call; None if nothing is drawn."""
        deterministic = None if deterministic is None else flax_run.check_deterministic(deterministic)
        if key is not None:
            if deterministic:
                raise ValueError("Recurrent: key was given together with deterministic=True; give only one of the two")
            return key
        if not flax_run.is_stochastic(self.cell):
            return None
        given = [value for value in (self.deterministic, deterministic) if value is not None]
        if len(given) != 1:
            raise ValueError(
                f"Recurrent: cell {type(self.cell).__name__} draws random numbers, so deterministic must be given "
                f"either to the constructor or to the call, but was given {'twice' if given else 'in neither'}"
            )
        return None if given[0] else self.make_rng("dropout")


class RecurrentCell(Weights, nn.RNNCellBase):
    """A recurrent cell as a Flax module: one step, for `nn.RNN` and other code that takes an `nn.RNNCellBase`.

    It takes any causal cell, such as a `Stack`. A `Bidirectional` is not causal; use `Recurrent` for it.
    It draws no random numbers. A cell that draws them (dropout, zoneout, noise) runs here with `deterministic=True`
    only; train it with `Recurrent`.

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
        deterministic: must be True for a cell that draws random numbers. It has no effect on other cells.

    Raises:
        TypeError: cell is not a cell; at `init`, param_dtype is not floating.
        ValueError: the cell is not causal, or a leaf of the params is called params.
    """

    def __post_init__(self):
        super().__post_init__()
        check_causal("RecurrentCell", self.cell)

    def __call__(self, carry: Any, inputs: ArrayLike) -> tuple[Any, jax.Array]:
        """One step.

        Args:
            carry: what `initialize_carry` or the step before returns; leaves (*B, H).
            inputs: (*B, I), floats no wider than the weights' dtype; integers and bools are cast to it.

        Returns:
            (carry, h): the next carry, and the output h (*B, H).

        Raises:
            TypeError: the carry has a wrong structure (an LSTM's must be a pair (c, h)), or inputs a wrong dtype.
            ValueError: shapes do not fit the cell or each other, or a cell that draws random numbers is not
                deterministic.
        """
        return flax_carry.step(self.cell, self.params, carry, inputs, deterministic=bool(self.deterministic))

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
