"""A sequence model: an embedding (optional), a cell and a linear readout.

    x_t = embedding[k_t] for symbols k_t, or the features themselves
    s_t, h_t = cell(s_{t−1}, x_t)        y_t = h_t w + b

`apply` returns y_t of every step, for one label per step or for the next symbol. `apply_last` returns y of the last
state, for one label per sequence. Both take one sequence; for a batch use `batched`.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from jax_lstm import checks, restore
from jax_lstm.abilities import init_cell, output, output_size
from jax_lstm.batch import time_major_results
from jax_lstm.cell import StaticPytree
from jax_lstm.layers.embedding import Embedding, EmbeddingParams
from jax_lstm.layers.readout import Readout, ReadoutParams
from jax_lstm.sequence import unroll


class ModelParams(NamedTuple):
    """Params of a `Model`.

    cell: the params of the cell.
    readout: ReadoutParams(w (H, O), b (O,)).
    embedding: EmbeddingParams(w (V, I)), or None if the model takes features.
    """

    cell: Any
    readout: ReadoutParams
    embedding: EmbeddingParams | None = None


@dataclass(frozen=True)
class Model(StaticPytree):
    """Sequence model: an embedding (optional), a cell and a linear readout.

    One step::

        x_t = embedding[k_t] for symbols k_t, or the features themselves
        s_t, h_t = cell(s_{t−1}, x_t)        y_t = h_t w + b

    k_t is an integer. `embedding[k_t]` is row k_t of a trained matrix (V, I), drawn by `init`. The params are a
    `ModelParams`; the state is that of the cell. `apply` returns (state, ys) with y_t of every step. `apply_last`
    returns (state, y) with y of the last state. Both take one sequence: (T, I) floats, or (T,) integers with a
    vocabulary. For a batch use `jl.batched(model.apply)(params, xs)`.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> import jax_lstm as jl
    >>> model = jl.Model(jl.LSTM(input_size=3, hidden_size=4), output_size=2)
    >>> params = model.init(jax.random.key(0))
    >>> xs = jnp.ones((6, 3), jnp.float32)
    >>> (state, ys), (_, y) = model.apply(params, xs), model.apply_last(params, xs)
    >>> ys.shape, y.shape
    ((6, 2), (2,))

    Args:
        cell: any cell or layer.
        output_size: O, the number of outputs of a step, such as the logits of O classes.
        vocabulary: V, for inputs that are integers from 0 to V − 1, called symbols. The embedding turns each symbol
            into a vector of I features, the input of the cell. None: the inputs are features (T, I).

    Raises:
        ValueError: a field is out of range; the message names it.
        TypeError: a field has a wrong type; the message names it.
    """

    cell: Any
    output_size: int
    vocabulary: int | None = None

    def __post_init__(self):
        checks.check_cell("Model", self.cell)
        object.__setattr__(self, "output_size", checks.positive_int("Model", "output_size", self.output_size))
        if self.vocabulary is not None:
            object.__setattr__(self, "vocabulary", checks.positive_int("Model", "vocabulary", self.vocabulary))

    @property
    def readout(self) -> Readout:
        """The readout layer."""
        return Readout(output_size(self.cell), self.output_size)

    @property
    def embedding(self) -> Embedding | None:
        """The embedding layer; None without a vocabulary."""
        return None if self.vocabulary is None else Embedding(self.vocabulary, self.cell.input_size)

    def init(self, key: Array, dtype: DTypeLike = jnp.float32, **choices: Any) -> ModelParams:
        """Draw the params of every part.

        Args:
            key: one random key, for example `jax.random.key(0)`. Do not reuse it.
            dtype: floating dtype of every leaf, float32 by default.
            choices: keyword arguments of the cell's `init`, such as `forget_bias`.

        Returns:
            ModelParams(cell, readout, embedding); embedding is None without a vocabulary.

        Raises:
            TypeError: key is not a random key, dtype is not floating, or the cell does not take one of the choices.
        """
        key_cell, key_readout = jax.random.split(checks.check_key("Model.init", key))
        if self.embedding is None:
            cell = init_cell("Model.init", self.cell, key_cell, dtype, choices)
            return ModelParams(cell, self.readout.init(key_readout, dtype))
        key_cell, key_embedding = jax.random.split(key_cell)
        return ModelParams(
            init_cell("Model.init", self.cell, key_cell, dtype, choices),
            self.readout.init(key_readout, dtype),
            self.embedding.init(key_embedding, dtype),
        )

    def params_from(self, tree: Any) -> ModelParams:
        """Params from plain containers, such as a checkpoint restored without a template; see `jl.params_from`."""
        return restore.params_from(self, tree)

    def state_from(self, tree: Any) -> Any:
        """A state of the cell from plain containers; see `jl.state_from`."""
        return restore.state_from(self, tree)

    def embedded(self, params: ModelParams, xs: ArrayLike, mask: ArrayLike | None = None) -> Array:
        """The input of the cell: embedded symbols (T, I), or the features unchanged.

        Args:
            params: what `init` returns.
            xs: (T,) integers with a vocabulary, (T, I) floats without.
            mask: (T,) bools, or None. Where False, a symbol is not looked up and its row is 0.

        Raises:
            ValueError: params lack the embedding, or params or mask have wrong shapes.
            TypeError: params is not a ModelParams, symbols are not integers, or mask does not hold bools.
        """
        if not isinstance(params, ModelParams):
            raise TypeError(
                f"Model: params must be ModelParams, as init makes them, but are a {type(params).__name__}; convert "
                "restored params with jl.params_from(model, params)"
            )
        if self.embedding is None:
            return checks.as_array("Model", "xs", xs)
        if params.embedding is None:
            raise ValueError(
                f"Model: params must have an embedding of {self.vocabulary} symbols, but params.embedding is None; "
                "make params with init"
            )
        return self.embedding.apply(params.embedding, xs, mask)

    def initial_state(self, params: ModelParams) -> Any:
        """The state before the first step: that of the cell."""
        return self.cell.initial_state(params.cell)

    @time_major_results((0, 1))
    def apply(
        self, params: ModelParams, xs: ArrayLike, state: Any = None, mask: ArrayLike | None = None,
        reset: ArrayLike | None = None, *, key: Any = None, noise: Any = None, constants: Any = None,
    ) -> tuple[Any, Float[Array, "T O"]]:  # fmt: skip
        """Run the model over one sequence; return the last state and the output y_t of every step.

        Args:
            params: what `init` returns.
            xs: (T, I) floats, or (T,) integers with a vocabulary. Padding may be any integer where `mask` is False.
            state, mask (T,), reset (T,), key, noise, constants: as for `unroll`.

        Returns:
            (state, ys): the state after the last step, and ys (T, O). Where `mask` is False, y_t is b.

        Raises:
            ValueError, TypeError: as for `unroll`, and as for `embedded`.
        """
        xs = self.embedded(params, xs, mask)
        state, hs = unroll(self.cell, params.cell, xs, state, mask, reset, key=key, noise=noise, constants=constants)
        return state, self.readout.apply(params.readout, hs)

    @time_major_results(0)
    def apply_last(
        self, params: ModelParams, xs: ArrayLike, state: Any = None, mask: ArrayLike | None = None,
        reset: ArrayLike | None = None, *, key: Any = None, noise: Any = None, constants: Any = None,
    ) -> tuple[Any, Float[Array, " O"]]:  # fmt: skip
        """Run the model over one sequence; return the last state and the output y of that state.

        For a Bidirectional the last state is that of each direction at its own end: the forward cell's at the last
        unmasked step, the backward cell's at the first.

        Args:
            params: what `init` returns.
            xs: (T, I) floats, or (T,) integers with a vocabulary. Padding may be any integer where `mask` is False.
            state, mask (T,), reset (T,), key, noise, constants: as for `unroll`.

        Returns:
            (state, y): the state after the last step, and y (O,), as for one label per sequence.

        Raises:
            ValueError: as for `apply`; also for a residual stack, whose output is not part of its state: use the
                last unmasked entry of `apply` instead.
            TypeError: as for `apply`; also for a cell whose state has no h and that does not define `output(state)`.
        """
        xs = self.embedded(params, xs, mask)
        state, _ = unroll(self.cell, params.cell, xs, state, mask, reset, key=key, noise=noise, constants=constants)
        return state, self.readout.apply(params.readout, output(self.cell, state))
