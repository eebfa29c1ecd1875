"""Recurrent cells as Flax NNX modules: `Recurrent` (a layer over sequences) and `RecurrentCell` (one step).

Both take any cell of the library, not only an LSTM. The computation is that of `jl.unroll` and `cell.step`.

Every leaf of the cell's params is an `nnx.Param` of the same name (for an LSTM: w_x, w_h, b), shape and layout. So
weights can be copied both ways unchanged: `params = module.params` and `module.set_params(params)`.

The params of a layer are a tree, with one `Level` per level. `nnx.state` and checkpoints show these names, which are
the same in `jax_lstm.linen`:

    Stack                       0, 1, …: module.params[0].w_x is getattr(module, "0").w_x
    Bidirectional               forward, backward: module.forward.w_x
    LearnedInitialState                of (the cell inside) and state: module.of.w_x, module.state.h
    Dropout                     the names of the cell inside

A cell that draws random numbers, such as `jl.Dropout`, behaves as `nnx.Dropout` does: it draws unless its module is
deterministic, which `module.train()` and `module.eval()` set.
"""

from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike, DTypeLike

from jax_lstm import checks, flax_carry, flax_names, flax_run
from jax_lstm.abilities import check_causal
from jax_lstm.cell import Cell
from jax_lstm.checks import params_shapes
from jax_lstm.engines.engine import Engine


class Level(nnx.Pytree):
    """One level of nested params: each name is an attribute, an `nnx.Param` or another `Level`."""


class Weights(nnx.Module):
    """Base class of the modules below: holds a cell and its params, one `nnx.Param` per leaf."""

    def __init__(
        self, cell: Cell, *, rngs: nnx.Rngs, param_dtype: DTypeLike = jnp.float32, deterministic: bool = False
    ):
        caller = type(self).__name__
        if not isinstance(rngs, nnx.Rngs):
            raise TypeError(
                f"{caller}: rngs must be nnx.Rngs, but is {checks.shown(rngs)}; make one with nnx.Rngs(seed)"
            )
        self.cell = nnx.static(checks.check_cell(caller, cell))
        self.deterministic = checks.check_bool(caller, "deterministic", deterministic)
        _check_names(caller, self, flax_names.named(params_shapes(cell)))
        for name, weights in flax_names.named(cell.init(rngs.params(), param_dtype)).items():
            setattr(self, name, _held(weights))

    def set_view(self, deterministic: bool | None = None) -> None:
        """Set attributes of a view of the module; `nnx.view` calls it.

        Args:
          deterministic: if True, a cell that draws random numbers draws none.
        """
        if deterministic is not None:
            self.deterministic = deterministic

    @property
    def params(self) -> Any:
        """The params as the cell takes them: for an LSTM, LSTMParams(w_x, w_h, b).

        Of an abstract module, which `nnx.eval_shape` returns, they are shapes and dtypes.
        """
        return jax.tree_util.tree_map_with_path(lambda path, _: self._param(path).get_value(), params_shapes(self.cell))

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

    A cell that draws random numbers (dropout, zoneout, noise) draws them in training mode from the stream "dropout" of
    `rngs`, which the module keeps:

    >>> layer = Recurrent(jl.Dropout(jl.LSTM(3, 4), hidden=0.5), rngs=nnx.Rngs(params=0, dropout=1))
    >>> layer.train()  # the default: draw
    >>> layer.eval()  # draw nothing
    >>> _, hs = layer(xs)

    Coming from `nnx.RNN`: `seq_lengths` is `mask=jnp.arange(T) < seq_lengths[..., None]`, `initial_carry` is `state`,
    and the last state is always returned. Outputs at masked steps are 0, and with `reverse` hs[:, t] is the output for
    xs[:, t], as with `keep_order=True`.

    Args:
        cell: any cell or layer of the library, such as jl.LSTM or jl.Stack, or one with the same methods. It is
            a static attribute, not a variable.
        rngs: `nnx.Rngs(seed)`; `cell.init` gets one key of its stream "params". A cell that draws random numbers also
            keeps a fork of its stream "dropout".
        param_dtype: dtype of every weight; float32 by default.
        deterministic: whether a cell that draws random numbers draws none. False by default, as in `nnx.Dropout`.
            It has no effect on other cells.
        time_major: whether time is the first axis of xs, mask, reset and hs.
        reverse: process the steps from last to first.
        remat_every: store every n-th state only, as in `jl.unroll`.
        engine: how to run the loop, as in `jl.unroll`.

    Raises:
        TypeError: cell is not a cell, rngs is not an nnx.Rngs, param_dtype is not floating, or an option has a wrong
            type.
        ValueError: an option has a wrong value, or a leaf of the params has the name of an attribute of the module.
    """

    def __init__(
        self,
        cell: Cell,
        *,
        rngs: nnx.Rngs,
        param_dtype: DTypeLike = jnp.float32,
        deterministic: bool = False,
        time_major: bool = False,
        reverse: bool = False,
        remat_every: int | str | None = None,
        engine: str | Engine = "auto",
    ):
        flax_run.check_run_options(time_major=time_major, reverse=reverse, remat_every=remat_every, engine=engine)
        self.time_major, self.reverse, self.remat_every = time_major, reverse, remat_every
        self.engine = nnx.static(engine)
        self.rngs = nnx.data(None)
        super().__init__(cell, rngs=rngs, param_dtype=param_dtype, deterministic=deterministic)
        if flax_run.is_stochastic(cell) and _has_dropout(rngs):
            self.rngs = rngs["dropout"].fork()

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
        rngs: nnx.Rngs | nnx.RngStream | jax.Array | None = None,
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
                the call is in training mode. None: in training mode the key comes from `rngs`.
            deterministic: whether to draw no random numbers; the attribute `deterministic` if None.
            rngs: an `nnx.Rngs`, a stream or a key, used instead of the stream that the module keeps.
            time_major, reverse, remat_every, engine: the attributes of these names if None.

        Returns:
            (state, hs): the states after the last step, leaves (*B, H), and the outputs hs (*B, T, H), or (T, *B, H).

        Raises:
            ValueError: a cell that draws random numbers is in training mode without a stream, `key` is given together
                with `rngs` or `deterministic=True`, or as for `jl.batched` and `jl.unroll`.
            TypeError: as for `jl.batched` and `jl.unroll`, or `rngs` is of another type.
        """
        return flax_run.run(
            self.cell,
            self.params,
            xs,
            state,
            mask,
            reset,
            constants,
            key=self._run_key(key, deterministic, rngs),
            time_major=self.time_major if time_major is None else time_major,
            reverse=self.reverse if reverse is None else reverse,
            remat_every=self.remat_every if remat_every is None else remat_every,
            engine=self.engine if engine is None else engine,
        )

    def _run_key(self, key: Any, deterministic: Any, rngs: Any) -> Any:
        """The random key of a call; None if nothing is drawn."""
        deterministic = None if deterministic is None else flax_run.check_deterministic(deterministic)
        if rngs is not None and not isinstance(rngs, nnx.Rngs | nnx.RngStream):
            try:
                checks.check_key("Recurrent", rngs)
            except TypeError:
                raise TypeError(
                    f"Recurrent: rngs must be nnx.Rngs, nnx.RngStream or one random key, but is {checks.shown(rngs)}; "
                    "make one with nnx.Rngs(dropout=seed)"
                ) from None
        if key is not None:
            if deterministic or rngs is not None:
                raise ValueError(
                    "Recurrent: key was given together with rngs or deterministic=True; give only one of the three"
                )
            return key
        if not flax_run.is_stochastic(self.cell):
            return None
        if flax_run.check_deterministic(self.deterministic if deterministic is None else deterministic):
            return None
        rngs = self.rngs if rngs is None else rngs
        if rngs is None or (isinstance(rngs, nnx.Rngs) and not _has_dropout(rngs)):
            raise ValueError(
                f"Recurrent: cell {type(self.cell).__name__} draws random numbers in training mode, but there is no "
                'rng stream "dropout"; pass rngs=nnx.Rngs(dropout=seed), or call module.eval()'
            )
        if isinstance(rngs, nnx.Rngs):
            return rngs["dropout"]()
        if isinstance(rngs, nnx.RngStream):
            return rngs()
        return rngs


class RecurrentCell(Weights, nnx.RNNCellBase):
    """A recurrent cell as a Flax module: one step, for `nnx.RNN` and other code that takes an `nnx.RNNCellBase`.

    It takes any causal cell, such as a `Stack`. A `Bidirectional` is not causal; use `Recurrent` for it.
    It draws no random numbers. A cell that draws them (dropout, zoneout, noise) runs here in deterministic mode only;
    train it with `Recurrent`.

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
        deterministic: whether a cell that draws random numbers draws none. `module.train()` and `module.eval()` set it;
            False by default. It has no effect on other cells.

    Raises:
        TypeError: cell is not a cell, rngs is not an nnx.Rngs, or param_dtype is not floating.
        ValueError: the cell is not causal, or a leaf of the params has the name of an attribute of the module.
    """

    def __init__(
        self, cell: Cell, *, rngs: nnx.Rngs, param_dtype: DTypeLike = jnp.float32, deterministic: bool = False
    ):
        check_causal("RecurrentCell", cell)
        super().__init__(cell, rngs=rngs, param_dtype=param_dtype, deterministic=deterministic)

    def __call__(self, carry: Any, inputs: ArrayLike) -> tuple[Any, jax.Array]:
        """One step.

        Args:
            carry: what `initialize_carry` or the step before returns; leaves (*B, H).
            inputs: (*B, I), floats no wider than the weights' dtype; integers and bools are cast to it.

        Returns:
            (carry, h): the next carry, and the output h (*B, H).

        Raises:
            TypeError: the carry has a wrong structure (an LSTM's must be a pair (c, h)), or inputs a wrong dtype.
            ValueError: shapes do not fit the cell or each other, or a cell that draws random numbers is in training
                mode.
        """
        return flax_carry.step(self.cell, self.params, carry, inputs, deterministic=self.deterministic)

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
    if not isinstance(weights, dict):
        return nnx.Param(weights)
    level = Level()
    for name, inner in weights.items():
        setattr(level, name, _held(inner))
    return level


def _has_dropout(rngs: nnx.Rngs) -> bool:
    """Whether `rngs` has a stream for "dropout"."""
    return "dropout" in rngs or "default" in rngs


def _check_names(caller: str, holder: Any, tree: dict[str, Any], *outer: str) -> None:
    """Refuse params of a name that the object that will hold them uses for another attribute."""
    for name, inner in tree.items():
        if name in vars(holder) or hasattr(type(holder), name):
            raise ValueError(
                f"{caller}: params must not use the name {'.'.join((*outer, name))}, because the module has another "
                "attribute of that name; rename it in what cell.init returns"
            )
        if isinstance(inner, dict):
            _check_names(caller, Level(), inner, *outer, name)
