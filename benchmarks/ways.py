"""Which ways of calling jax_lstm are fast? Every cell on two engines, ensembles under `vmap`, a Model and its parts.

    python benchmarks/ways.py

Time and temporary bytes, in float32. A gradient is that of the mean square of all outputs by the params. The results of
all ways are compared before anything is timed.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import timing

import jax_lstm as jl
from jax_lstm.abilities import has_noise

SHAPES = ((16, 64, 32, 64), (16, 128, 88, 200))  # B, T, I, H
ENSEMBLES = ((256, 32, 12, 2, 24), (64, 16, 20, 4, 32), (32, 32, 40, 32, 32))  # P models, B, T, I, H
MODELS = ((16, 64, 32, 64),)
OUTPUTS = 10  # of a Model
Ways = dict[str, tuple[Callable[..., jax.Array], tuple[Any, ...]]]  # a function and its arguments


def cells(I: int, H: int) -> dict[str, Any]:
    """The cells and layers that are measured."""
    lstm, gru = jl.LSTM(I, H), jl.GRU(I, H)
    pair = (lstm, jl.LSTM(H, H))
    return {
        "LSTM": lstm,
        "GRU": gru,
        "RNN": jl.RNN(I, H),
        "JANET": jl.JANET(I, H),
        "sLSTM": jl.SLSTM(I, H),
        "MinLSTM": jl.MinLSTM(I, H),
        "MinGRU": jl.MinGRU(I, H),
        "LSTM, peephole": jl.LSTM(I, H, peephole=True),
        "LSTM, coupled": jl.LSTM(I, H, coupled=True),
        "LSTM, projection": jl.LSTM(I, H, projection=H // 2),
        "LSTM, layer_norm": jl.LSTM(I, H, layer_norm=True),
        "LSTM, clip": jl.LSTM(I, H, clip=3.0),
        "Dropout(LSTM), hidden": jl.Dropout(lstm, hidden=0.3),
        "Dropout(LSTM), inputs and hidden": jl.Dropout(lstm, inputs=0.3, hidden=0.3),
        "Dropout(LSTM), zoneout": jl.Dropout(lstm, zoneout=0.1),
        "Dropout(GRU), hidden": jl.Dropout(gru, hidden=0.3),
        "Stack of 2 LSTM": jl.Stack(pair),
        "Stack of 2 LSTM, dropout": jl.Stack(pair, dropout=0.3),
        "Bidirectional LSTM": jl.Bidirectional(lstm),
    }


def of_cells(shape: tuple[int, ...], seconds: float = 2.0) -> dict[str, Any]:
    """The gradient of every cell: engine "auto" and engine "plain", time-major."""
    B, T, I, H = shape
    return {name: figures(engines(cell, normal(T, B, I)), seconds) for name, cell in cells(I, H).items()}


def engines(cell: Any, xs: jax.Array) -> Ways:
    """The gradient of one cell by both engines; a cell with dropout gets a key."""
    key = jax.random.key(1) if has_noise(cell) else None
    run = jl.batched(jl.unroll, time_major=True)

    def gradient(engine: str) -> Callable[..., jax.Array]:
        return gradient_of(lambda params, xs, key: run(cell, params, xs, key=key, engine=engine)[1])

    return {engine: (gradient(engine), (cell.init(jax.random.key(0)), xs, key)) for engine in ("auto", "plain")}


def of_ensembles(shape: tuple[int, ...], seconds: float = 3.0) -> dict[str, Any]:
    """P LSTMs under `vmap`: the data shared or copied, and the data shared with engine "plain"."""
    P, B, T, I, H = shape
    cell = jl.LSTM(I, H)
    params = jax.vmap(cell.init)(jax.random.split(jax.random.key(0), P))
    xs = normal(B, T, I)
    copied = jnp.tile(xs, (P, 1, 1, 1))

    def forward(engine: str) -> Callable[..., jax.Array]:
        return lambda params, xs: jl.batched(jl.unroll)(cell, params, xs, engine=engine)[1]

    def ways(of: Callable) -> Ways:
        return {
            "auto": (jax.vmap(of(forward("auto")), (0, None)), (params, xs)),
            "plain": (jax.vmap(of(forward("plain")), (0, None)), (params, xs)),
            "auto, copied": (jax.vmap(of(forward("auto")), (0, 0)), (params, copied)),
        }

    return {"forward": figures(ways(lambda f: f), seconds), "gradient": figures(ways(gradient_of), seconds)}


def of_models(shape: tuple[int, ...], seconds: float = 3.0) -> dict[str, Any]:
    """A Model, and its cell followed by a readout by hand."""
    B, T, I, H = shape
    cell = jl.LSTM(I, H)
    model = jl.Model(cell, OUTPUTS)
    args = model.init(jax.random.key(0)), normal(B, T, I)

    def by_hand(params: jl.ModelParams, xs: jax.Array) -> jax.Array:
        hs = jl.batched(jl.unroll)(cell, params.cell, xs)[1]
        return hs @ params.readout.w + jnp.broadcast_to(params.readout.b, (B, T, OUTPUTS))

    ways = {"Model": lambda params, xs: jl.batched(model.apply)(params, xs)[1], "by hand": by_hand}
    return {
        "forward": figures({name: (f, args) for name, f in ways.items()}, seconds),
        "gradient": figures({name: (gradient_of(f), args) for name, f in ways.items()}, seconds),
    }


def normal(*shape: int) -> jax.Array:
    """Data."""
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def gradient_of(forward: Callable[..., jax.Array]) -> Callable[..., Any]:
    """The gradient by the params of a number that every output moves."""
    return jax.grad(lambda params, *data: jnp.mean(forward(params, *data) ** 2))


def figures(ways: Ways, seconds: float) -> dict[str, dict[str, float]]:
    """Time and temporary bytes of every way, after a comparison of their results."""
    programs = timing.compiled_at_once({name: jax.jit(f).lower(*args) for name, (f, args) in ways.items()})
    calls = {name: partial(program, *ways[name][1]) for name, program in programs.items()}
    check({name: call() for name, call in calls.items()})
    times = timing.minima(calls, seconds)
    return {n: {**times[n], "bytes": p.memory_analysis().temp_size_in_bytes} for n, p in programs.items()}


def check(results: dict[str, Any]) -> None:
    """The same results, to float32's rounding, or nothing is timed."""
    (_, expected), *others = results.items()
    for name, result in others:
        for a, b in zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True):
            error, size = float(jnp.abs(a - b).max()), float(jnp.abs(b).max())
            if not error <= 1e-3 * size:
                raise ValueError(f"{name}: differs by {error:.1e} from the first way, whose size is {size:.1e}")


COMPARISONS = {"cells": (of_cells, SHAPES), "ensembles": (of_ensembles, ENSEMBLES), "models": (of_models, MODELS)}


def main() -> None:
    """Every comparison and shape; results/ways.json."""
    rows = {}
    for name, (measure, shapes) in COMPARISONS.items():
        rows[name] = []
        for shape in shapes:
            rows[name].append({"shape": shape, "figures": timing.in_fresh_processes(measure, shape)})
            print(name, rows[name][-1], flush=True)
    print(timing.write("ways", rows))


if __name__ == "__main__":
    main()
