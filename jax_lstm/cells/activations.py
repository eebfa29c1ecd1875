"""Activation functions of the cells, by name."""

import jax
import jax.numpy as jnp

ACTIVATIONS = {
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "relu": jax.nn.relu,
    "linear": lambda z: z,
    "hard_sigmoid": jax.nn.hard_sigmoid,
}
