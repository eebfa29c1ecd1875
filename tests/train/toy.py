"""A problem without a cell: y = w·x + b from noisy data, solved exactly by least squares."""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jax_lstm import train as library
from jax_lstm.train import Problem, learning_rate, optimizer

W = np.array([1.0, -2.0, 0.5])


class Line(NamedTuple):
    """The params of the line."""

    w: Float[Array, " 3"]
    b: Float[Array, ""]


def init(key):
    """Random weights, no offset."""
    return Line(jax.random.normal(key, (3,), jnp.float32), jnp.zeros((), jnp.float32))


def batch(key, step):
    """Eight points of the true line."""
    x = jax.random.normal(jax.random.fold_in(key, step), (8, 3), jnp.float32)
    return x, x @ W + 1


def loss(params, batch, carry=None, key=None):
    """Squared error, twice: as the loss and as a metric; nothing is carried."""
    x, y = batch
    error = jnp.mean(jnp.square(x @ params.w + params.b - y))
    return error, {"mse": error}


def score(params):
    """The exact distance from the true line."""
    return jnp.sum(jnp.square(params.w - W)) + jnp.square(params.b - 1)


PROBLEM = Problem(init=init, batch=batch, loss=loss, score=score, maximize=False, metric="mse")


def fit(problem, opt, train, run_dir, **given) -> Any:
    """The last state of a run with these options, as the command line trains; it is silent without a console."""
    given = {"progress": "console" in given, "schedule": learning_rate(opt, train.steps), **given}
    return library.fit(problem, optimizer(opt, train.steps), run_dir=run_dir, **train.options, **given).state


def traced_once(fn) -> Any:
    """`fn`, which fails when it is traced a second time."""
    return chex.assert_max_traces(n=1)(fn)
