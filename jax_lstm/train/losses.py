"""Losses and scores of a batch, by name.

    cross_entropy = −mean_b log softmax(y_b)[k_b]     k_b: the class wanted
    accuracy      =  mean_b [argmax y_b = k_b]
    mse           =  mean_b mean_o (y_bo − target_bo)²
    within_0.04   =  mean_b [|y_bo − target_bo| < 0.04 for every o]

A task names one of them as its loss and one as its score.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def cross_entropy(ys: Float[Array, "B O"], classes: Int[Array, " B"]) -> Float[Array, ""]:
    """Mean negative log-likelihood in nats; ys are logits."""
    log_p = jax.nn.log_softmax(ys)
    return -jnp.mean(jnp.take_along_axis(log_p, classes[:, None], axis=1))


def accuracy(ys: Float[Array, "B O"], classes: Int[Array, " B"]) -> Float[Array, ""]:
    """The share of sequences whose largest output is the class wanted."""
    return jnp.mean((jnp.argmax(ys, axis=1) == classes).astype(ys.dtype))


def mse(ys: Float[Array, "B O"], targets: Float[Array, "B O"]) -> Float[Array, ""]:
    """Mean squared error."""
    return jnp.mean(jnp.square(ys - targets))


def within(ys: Float[Array, "B O"], targets: Float[Array, "B O"]) -> Float[Array, ""]:
    """The share of sequences whose every number is less than 0.04 off, which in 1997 counted as processed correctly."""
    return jnp.mean((jnp.abs(ys - targets) < 0.04).all(axis=1).astype(ys.dtype))


BY_NAME: dict[str, Callable[[Array, Array], Array]] = {
    "cross_entropy": cross_entropy,
    "accuracy": accuracy,
    "mse": mse,
    "within_0.04": within,
}
