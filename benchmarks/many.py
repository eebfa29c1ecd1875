"""Many models, or one gradient an example: does a `vmap` pay?

    python benchmarks/many.py

Eight models of one shape in one program, each on data of its own, against eight calls of one model's train step, on
one CPU device or with the models shared by two; and the gradient of every example of a batch in one program, against
one call an example.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import timing

import jax_lstm as jl

jax.config.update("jax_num_cpu_devices", 2)
MODELS = 8
SHAPES = ((16, 64, 32, 64), (8, 200, 64, 128))  # B, T, I, H


def loss(cell: jl.LSTM, params: jl.LSTMParams, xs: jax.Array) -> jax.Array:
    """A number that every output moves."""
    return jnp.mean(jl.batched(jl.unroll)(cell, params, xs)[1] ** 2)


def on(devices: int, f: Any, *specs: Any) -> Any:
    """`f` compiled for so many devices, the leading axes named in `specs` shared by them."""
    mesh = jax.make_mesh(
        (devices,), ("models",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:devices]
    )
    return jax.jit(jax.shard_map(f, mesh=mesh, in_specs=specs, out_specs=specs[-1], check_vma=False))


def measure(shape: tuple[int, int, int, int]) -> dict[str, Any]:
    """Every time of one shape."""
    B, T, I, H = shape
    cell = jl.LSTM(I, H)
    params = jax.vmap(cell.init)(jax.random.split(jax.random.key(0), MODELS))
    xs = jnp.asarray(np.random.default_rng(0).normal(size=(MODELS, B, T, I)), jnp.float32)
    step = jax.value_and_grad(partial(loss, cell))
    whole, shared = jax.P(), jax.P("models")
    one = on(1, step, whole, whole)
    models = [(jax.tree.map(lambda a, k=k: a[k], params), xs[k]) for k in range(MODELS)]

    def in_turn(params, xs):
        return jax.lax.map(lambda model: step(*model), (params, xs))

    def mean_square(params, x):
        return jnp.mean(jl.unroll(cell, params, x)[1] ** 2)

    example = jax.jit(jax.grad(mean_square))
    first, batch = models[0]
    calls = {
        "8 models, a call each": lambda: [one(*model) for model in models],
        "8 models, vmap": partial(on(1, jax.vmap(step), whole, whole), params, xs),
        "8 models, lax.map": partial(on(1, in_turn, whole, whole), params, xs),
        "8 models, lax.map, shared by two devices": partial(on(2, in_turn, shared, shared), params, xs),
        "every example's gradient, a call each": lambda: [example(first, x) for x in batch],
        "every example's gradient, vmap": partial(jax.jit(jax.vmap(jax.grad(mean_square), (None, 0))), first, batch),
    }
    return timing.minima(calls, seconds=3)


def main() -> None:
    """Every shape; results/many.json."""
    rows = []
    for shape in SHAPES:
        rows.append({"shape": shape, "figures": timing.in_fresh_processes(measure, shape)})
        print(rows[-1], flush=True)
    print(timing.write("many", rows))


if __name__ == "__main__":
    main()
