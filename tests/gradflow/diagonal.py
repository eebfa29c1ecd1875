"""A cell of which every answer is known: s_t = x_t ⊙ s_{t−1}, so that J_t = diag(x_t). It has only `step`."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class DiagonalParams(NamedTuple):
    """One number, so that the params have a dtype."""

    one: jax.Array


class DiagonalState(NamedTuple):
    """Two leaves of different shapes."""

    a: jax.Array
    b: jax.Array


class Diagonal:
    """Two units in a (1,) leaf and a (1, 1) leaf."""

    input_size = 2
    hidden_size = 2

    def init(self, key, dtype=jnp.float32):
        """Nothing is drawn."""
        return DiagonalParams(jnp.ones((), dtype))

    def initial_state(self, params):
        """Ones: not at rest."""
        return DiagonalState(jnp.ones((1,), params.one.dtype), jnp.ones((1, 1), params.one.dtype))

    def step(self, params, state, x):
        """Each unit times its own input."""
        a, b = x[:1] * state.a, x[1:].reshape(1, 1) * state.b
        return DiagonalState(a, b), jnp.concatenate([a, b.ravel()])
