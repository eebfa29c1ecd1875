"""Many models, or one gradient an example: does a `vmap` pay?

    python benchmarks/many.py

Eight models of one shape in one program, each on data of its own, against eight calls of one model's train step; and
the gradient of every example of a batch in one program, against one call an example.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import timing

import jax_lstm as jl

MODELS = 8
SHAPES = ((16, 64, 32, 64), (8, 200, 64, 128))  # B, T, I, H


def loss(cell: jl.LSTM, params: jl.LSTMParams, xs: jax.Array) -> jax.Array:
    """A number that every output moves."""
    return jnp.mean(jl.batched(jl.unroll)(cell, params, xs)[1] ** 2)


def measure(shape: tuple[int, int, int, int]) -> dict[str, Any]:
    """The four times."""
    B, T, I, H = shape
    cell = jl.LSTM(I, H)
    params = jax.vmap(cell.init)(jax.random.split(jax.random.key(0), MODELS))
    xs = jnp.asarray(np.random.default_rng(0).normal(size=(MODELS, B, T, I)), jnp.float32)
    step = jax.value_and_grad(partial(loss, cell))
    one = jax.jit(step)
    models = [(jax.tree.map(lambda a, k=k: a[k], params), xs[k]) for k in range(MODELS)]

    def mean_square(params, x):
        return jnp.mean(jl.unroll(cell, params, x)[1] ** 2)

    example = jax.jit(jax.grad(mean_square))
    first, batch = models[0]
    calls = {
        "8 models, vmap": partial(jax.jit(jax.vmap(step)), params, xs),
        "8 models, lax.map": partial(jax.jit(lambda p, x: jax.lax.map(lambda a: step(*a), (p, x))), params, xs),
        "8 models, a call each": lambda: [one(*model) for model in models],
        "every example's gradient, vmap": partial(jax.jit(jax.vmap(jax.grad(mean_square), (None, 0))), first, batch),
        "every example's gradient, a call each": lambda: [example(first, x) for x in batch],
    }
    return timing.minima(calls, seconds=15)


def main() -> None:
    """Every shape; results/many.json."""
    rows = []
    for shape in SHAPES:
        rows.append({"shape": shape, "figures": measure(shape)})
        print(rows[-1], flush=True)
    print(timing.write("many", rows))


if __name__ == "__main__":
    main()
