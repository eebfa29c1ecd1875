"""An embedding, a cell and a readout: sequences in, classes or numbers out.

    x_t = symbols embedded, or features as they are
    s_t, h_t = cell(s_{t−1}, x_t)        y_t = h_t w + b

`outputs` gives y_t of every step (a label a step, the next symbol), `last` that of the state at the end (a label a
sequence). One sequence; a batch is a `vmap`.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from jax_lstm.cells import base, door
from jax_lstm.layers.embedding import Embedding, EmbeddingParams
from jax_lstm.layers.readout import Readout, ReadoutParams
from jax_lstm.sequence import unroll


class ModelParams(NamedTuple):
    """The params of each part; `embedding` is None where features come in."""

    cell: Any
    readout: ReadoutParams
    embedding: EmbeddingParams | None = None


@jax.tree_util.register_static
@dataclass(frozen=True)
class Model:
    """A cell (a stack, say) with its readout, and before it an embedding if symbols come in.

    Args:
        cell: any cell or layer.
        output_size: O, the outputs of a step: classes, symbols or numbers.
        vocabulary: V, if symbols 0 to V − 1 come in; they are embedded in the cell's I features. None: features come.

    Raises:
        ValueError, TypeError: a field out of range or of another type; the message names it.
    """

    cell: Any
    output_size: int
    vocabulary: int | None = None

    def __post_init__(self):
        door.cell("Model", self.cell)
        object.__setattr__(self, "output_size", door.size("Model", "output_size", self.output_size))
        if self.vocabulary is not None:
            object.__setattr__(self, "vocabulary", door.size("Model", "vocabulary", self.vocabulary))

    @property
    def readout(self) -> Readout:
        """The readout."""
        return Readout(base.output_size(self.cell), self.output_size)

    @property
    def embedding(self) -> Embedding | None:
        """The embedding, if there is one."""
        return None if self.vocabulary is None else Embedding(self.vocabulary, self.cell.input_size)

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> ModelParams:
        """Draw every part; `key` and `dtype` as for a cell."""
        key_cell, key_readout = jax.random.split(door.prng_key("Model.init", key))
        if self.embedding is None:
            return ModelParams(self.cell.init(key_cell, dtype), self.readout.init(key_readout, dtype))
        key_cell, key_embedding = jax.random.split(key_cell)
        return ModelParams(
            self.cell.init(key_cell, dtype),
            self.readout.init(key_readout, dtype),
            self.embedding.init(key_embedding, dtype),
        )

    def embedded(self, params: ModelParams, xs: ArrayLike) -> Array:
        """What the cell reads: symbols embedded, or features as they are."""
        if not isinstance(params, ModelParams):
            raise TypeError(f"Model: params must be ModelParams, as init makes them, but are a {type(params).__name__}")
        if self.embedding is None:
            return door.array("Model", "xs", xs)
        if params.embedding is None:
            raise ValueError(f"Model: params must have an embedding of {self.vocabulary} symbols, but it is None")
        return self.embedding.apply(params.embedding, xs)

    def outputs(
        self, params: ModelParams, xs: ArrayLike, state: Any = None, mask: ArrayLike | None = None,
        reset: ArrayLike | None = None, *, key: Any = None,
    ) -> tuple[Any, Float[Array, "T O"]]:  # fmt: skip
        """The last state, and y of every step; where `mask` is False, y is the readout of 0, which is b.

        Args:
            params: what `init` gave.
            xs: (T, I) floats, or (T,) integers where there is a vocabulary.
            state, mask, reset, key: as for `unroll`.

        Raises:
            ValueError, TypeError: as `unroll`.
        """
        xs = self.embedded(params, xs)
        state, hs = unroll(self.cell, params.cell, xs, state, mask, reset, key=key)
        return state, self.readout.apply(params.readout, hs)

    def last(
        self, params: ModelParams, xs: ArrayLike, state: Any = None, mask: ArrayLike | None = None,
        reset: ArrayLike | None = None, *, key: Any = None,
    ) -> tuple[Any, Float[Array, " O"]]:  # fmt: skip
        """The last state, and y of it. Of two directions it is each one's end: the last live step, and the first.

        Args and Raises are those of `outputs`; also ValueError for a residual stack, whose outputs no state holds:
        take the last live one of `outputs`.
        """
        xs = self.embedded(params, xs)
        state, _ = unroll(self.cell, params.cell, xs, state, mask, reset, key=key)
        return state, self.readout.apply(params.readout, base.output(self.cell, state))
