"""How long do tracing and compiling take of a deep stack, beside its layers run one after another?

    python benchmarks/depth.py

Seconds to trace and to compile the forward pass and the gradient of equal LSTM layers, the least of three processes
that did each four times. No compilation cache may be set.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import timing

import jax_lstm as jl

B, T, H = 16, 64, 64
LAYERS = (2, 12, 24)
ROUNDS = 4


def as_stack(params: tuple[Any, ...], xs: jax.Array) -> jax.Array:
    """One stack of all of them."""
    return jl.batched(jl.unroll)(jl.Stack((jl.LSTM(H, H),) * len(params)), params, xs)[1]


def one_by_one(params: tuple[Any, ...], xs: jax.Array) -> jax.Array:
    """A Python loop over layers."""
    for p in params:
        xs = jl.batched(jl.lstm)(p, xs)[1]
    return xs


WAYS = {"jl.Stack": as_stack, "layer by layer": one_by_one}


def seconds(way: Callable, layers: int) -> dict[str, list[float]]:
    """To trace and to compile, of the forward pass and of the gradient."""
    cells = (jl.LSTM(H, H),) * layers
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), layers))
    params = jax.eval_shape(lambda keys: tuple(cell.init(k) for cell, k in zip(cells, keys, strict=True)), keys)
    xs = jax.ShapeDtypeStruct((B, T, H), jnp.float32)
    programs = {"forward": way, "gradient": jax.grad(lambda params, xs: jnp.sum(way(params, xs) ** 2))}
    figures = {}
    for name, f in programs.items():
        jax.clear_caches()
        start = time.perf_counter()
        lowered = jax.jit(f).lower(params, xs)
        traced = time.perf_counter()
        lowered.compile()
        figures[name] = [traced - start, time.perf_counter() - traced]
    return figures


def measure() -> dict[str, dict[str, dict[str, list[float]]]]:
    """Every way and depth, one after another, several times."""
    seconds(as_stack, 2)
    return timing.merged([
        {way: {str(n): seconds(run, n) for n in LAYERS} for way, run in WAYS.items()} for _ in range(ROUNDS)
    ])  # fmt: skip


def main() -> None:
    """results/depth.json."""
    figures = timing.in_fresh_processes(measure)
    print(timing.write("depth", {"B": B, "T": T, "H": H, "figures": figures}))


if __name__ == "__main__":
    main()
