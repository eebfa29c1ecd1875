"""An embedding: one row of w for each symbol.

x_t = w[k_t]
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from jax_lstm import checks
from jax_lstm.cell import StaticPytree
from jax_lstm.engines.masking import zero_masked
from jax_lstm.gates import at_least_float32


class EmbeddingParams(NamedTuple):
    """Weights of an `Embedding`.

    w: (V, E), one row of E features for each of V symbols.
    """

    w: Float[Array, "V E"]


@dataclass(frozen=True)
class Embedding(StaticPytree):
    """Embedding layer: x_t = w[k_t], one row of w for each symbol k.

    The layer holds options only. Its weights are an `EmbeddingParams`.

    Args:
        vocabulary: V, the number of symbols, which are the integers 0 to V − 1.
        output_size: E, the number of features of an embedded symbol.

    Raises:
        ValueError: a field is out of range; the message names it.
        TypeError: a field has a wrong type; the message names it.
    """

    vocabulary: int
    output_size: int

    def __post_init__(self):
        for name in ("vocabulary", "output_size"):
            object.__setattr__(self, name, checks.positive_int("Embedding", name, getattr(self, name)))

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> EmbeddingParams:
        """Draw w, each entry normal with variance 1.

        Args:
            key: one random key, for example `jax.random.key(0)`. Do not reuse it.
            dtype: floating dtype of every leaf, float32 by default.

        Returns:
            EmbeddingParams(w (V, E)).

        Raises:
            TypeError: key is not a random key, or dtype is not floating.
        """
        key, dtype = checks.check_key("Embedding.init", key), checks.float_dtype("Embedding.init", "dtype", dtype)
        shape = (self.vocabulary, self.output_size)
        return EmbeddingParams(jax.random.normal(key, shape, at_least_float32(dtype)).astype(dtype))

    def apply(
        self, params: EmbeddingParams, symbols: ArrayLike, mask: ArrayLike | None = None
    ) -> Float[Array, "*steps E"]:
        """Embed symbols: x = w[symbols], and 0 at masked steps.

        Args:
            params: what `init` returns.
            symbols: integers of any shape (*steps). A symbol outside 0 to V − 1 gives a row of NaN.
            mask: bools (*steps), or None. Where False, x is 0 and the symbol is not looked up: padding may be any
                integer.

        Returns:
            x, (*steps, E), in the params' dtype.

        Raises:
            ValueError: params or mask have wrong shapes.
            TypeError: symbols is not an array of integers, mask not one of bools, or params are not floats.
        """
        params, _ = checks.check_params("Embedding.apply", self, params)
        symbols = checks.as_array("Embedding", "symbols", symbols)
        if not jnp.issubdtype(symbols.dtype, jnp.integer):
            raise TypeError(
                f"Embedding: symbols must be integers, but are {symbols.dtype}; "
                "cast them, for example symbols.astype(jnp.int32)"
            )
        mask = checks.check_mask("Embedding.apply", "mask", mask, symbols[..., None])
        symbols = zero_masked(mask, symbols)
        # Compare in 32 bits or more, before any cast: negative symbols would count from the end, large ones wrap.
        wide = symbols if symbols.dtype.itemsize >= 4 else symbols.astype(jnp.int32)
        at = jnp.where((wide < 0) | (wide >= self.vocabulary), self.vocabulary, wide).astype(jnp.int32)
        w, by = jax.typeof(params.w).sharding, jax.typeof(at).sharding
        mesh = w.mesh if by.mesh.empty else by.mesh
        # On a mesh a gather needs the sharding of its result: that of the symbols, and for a row that of the rows of w.
        lies = None if mesh.empty else jax.NamedSharding(mesh, jax.P(*by.spec, w.spec[-1]))
        return zero_masked(mask, params.w.at[at].get(mode="fill", fill_value=jnp.nan, out_sharding=lies))
