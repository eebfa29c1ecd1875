"""A linear cell whose every Jacobian is what it is fed: s_t = A_t s_{t−1}, with A_t the input. It has only `step`."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class FedParams(NamedTuple):
    """One number, so that the params have a dtype."""

    one: jax.Array


class FedState(NamedTuple):
    """The whole state."""

    h: jax.Array


class Fed:
    """N units."""

    def __init__(self, size):
        self.hidden_size = size
        self.input_size = size * size

    def init(self, key, dtype=jnp.float32):
        """Nothing is drawn."""
        return FedParams(jnp.ones((), dtype))

    def initial_state(self, params):
        """At rest, where products cannot overflow."""
        return FedState(jnp.zeros(self.hidden_size, params.one.dtype))

    def step(self, params, state, x):
        """A_t s_{t−1}."""
        h = x.reshape(self.hidden_size, self.hidden_size) @ state.h
        return FedState(h), h


def fed(matrices):
    """The arguments of a measurement along these Jacobians."""
    T, N, _ = matrices.shape
    return Fed(N), FedParams(jnp.ones((), matrices.dtype)), jnp.asarray(matrices).reshape(T, N * N)
