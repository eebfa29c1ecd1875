"""The embedding: a row of w for each symbol.

x_t = w[k_t]
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from jax_lstm.cells import door
from jax_lstm.cells.weights import at_least_float32


class EmbeddingParams(NamedTuple):
    """A row of E numbers for each of V symbols."""

    w: Float[Array, "V E"]


@jax.tree_util.register_static
@dataclass(frozen=True)
class Embedding:
    """The embedding: choices only; its array is in EmbeddingParams.

    Args:
        vocabulary: V, how many symbols there are: 0 to V − 1.
        output_size: E, the number of features of a symbol.

    Raises:
        ValueError, TypeError: a field out of range or of another type; the message names it.
    """

    vocabulary: int
    output_size: int

    def __post_init__(self):
        for name in ("vocabulary", "output_size"):
            object.__setattr__(self, name, door.size("Embedding", name, getattr(self, name)))

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> EmbeddingParams:
        """Draw w, each number normal with variance 1; `key` and `dtype` as for a cell."""
        key, dtype = door.prng_key("Embedding.init", key), door.float_dtype("Embedding.init", "dtype", dtype)
        shape = (self.vocabulary, self.output_size)
        return EmbeddingParams(jax.random.normal(key, shape, at_least_float32(dtype)).astype(dtype))

    def apply(self, params: EmbeddingParams, symbols: ArrayLike) -> Float[Array, "*steps E"]:
        """The rows of these symbols.

        Args:
            params: what `init` gave.
            symbols: integers of any shape. One that is out of range has a row of NaN: it is never hidden.

        Raises:
            ValueError: params have other shapes.
            TypeError: symbols are not integers, or params are not floats.
        """
        params, _ = door.params("Embedding.apply", self, params)
        symbols = door.array("Embedding", "symbols", symbols)
        if not jnp.issubdtype(symbols.dtype, jnp.integer):
            raise TypeError(
                f"Embedding: symbols must be integers, but are {symbols.dtype}; cast them if they are whole"
            )
        # In 32 bits or more, before anything is cast down: negative ones would count from the end, large ones wrap.
        wide = symbols if symbols.dtype.itemsize >= 4 else symbols.astype(jnp.int32)
        at = jnp.where((wide < 0) | (wide >= self.vocabulary), self.vocabulary, wide).astype(jnp.int32)
        w, by = jax.typeof(params.w).sharding, jax.typeof(at).sharding
        mesh = w.mesh if by.mesh.empty else by.mesh
        # On a mesh a gather wants to be told how its result lies: as the symbols do, each row as those of w.
        lies = None if mesh.empty else jax.NamedSharding(mesh, jax.P(*by.spec, w.spec[-1]))
        return params.w.at[at].get(mode="fill", fill_value=jnp.nan, out_sharding=lies)
