"""Shapes and dtypes of a cell's params and state, without drawing them."""

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp


@lru_cache(maxsize=256)
def params_shapes(cell: Any) -> Any:
    """The shapes that `cell.init` returns."""
    return jax.eval_shape(cell.init, jax.eval_shape(lambda: jax.random.key(0)))


def state_shapes(cell: Any, dtype: jnp.dtype) -> Any:
    """The shapes and dtypes that `cell.initial_state` returns for params of this dtype."""
    return _state_shapes(cell, dtype, jnp.result_type(float))


@lru_cache(maxsize=256)
def _state_shapes(cell: Any, dtype: jnp.dtype, widest: jnp.dtype) -> Any:
    """As above; `widest` is there because the answer depends on whether float64 is on."""
    params = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, dtype), params_shapes(cell))
    return jax.eval_shape(cell.initial_state, params)
