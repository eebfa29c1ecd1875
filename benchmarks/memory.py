"""How much memory does the gradient of a long sequence take, and how much time: plain, in segments, truncated?

    python benchmarks/memory.py

Bytes are XLA's own count of temporary memory in the compiled program (inputs, weights and gradients not counted).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import timing

import jax_lstm as jl

B, I, H, WINDOW = 4, 8, 64, 100
STEPS = (1_000, 10_000, 100_000)
WAYS = {
    "plain": jl.unroll,
    'remat_every="auto"': partial(jl.unroll, remat_every="auto"),
    f"tbptt, window {WINDOW}": partial(jl.tbptt, window=WINDOW),
}
LOSSES = {
    "last state": lambda state, hs, g: jnp.vdot(g[0], state.h),
    "every output": lambda state, hs, g: jnp.vdot(g, hs),
}


def program(way: Callable, loss: Callable, steps: int) -> tuple[Any, tuple]:
    """The compiled gradient by the weights, and its arguments; time-major data."""
    cell = jl.LSTM(I, H)
    rng = np.random.default_rng(0)
    xs, g = (jnp.asarray(rng.normal(size=(steps, B, n)), jnp.float32) for n in (I, H))
    run = jl.batched(way, time_major=True)
    gradient = jax.grad(lambda params, xs, g: loss(*run(cell, params, xs), g))
    args = (cell.init(jax.random.key(0)), xs, g)
    return jax.jit(gradient).lower(*args).compile(), args


def measure(steps: int, loss: str) -> dict[str, Any]:
    """Bytes and time of every way to differentiate one loss."""
    programs = {name: program(way, LOSSES[loss], steps) for name, way in WAYS.items()}
    times = timing.minima({name: partial(f, *args) for name, (f, args) in programs.items()}, seconds=1)
    sizes = {name: compiled.memory_analysis().temp_size_in_bytes for name, (compiled, _) in programs.items()}
    return {name: {"bytes": sizes[name], **times[name]} for name in WAYS}


def main() -> None:
    """Every length, loss and way; results/memory.json."""
    rows = []
    for steps in STEPS:
        for loss in LOSSES:
            for way, figure in timing.in_fresh_processes(measure, steps, loss).items():
                rows.append({"T": steps, "loss": loss, "way": way, **figure})
                print(rows[-1], flush=True)
    print(timing.write("memory", {"B": B, "I": I, "H": H, "figures": rows}))


if __name__ == "__main__":
    main()
