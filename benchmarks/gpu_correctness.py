"""How far each engine on this device is from float64 on the host: outputs, last state and all gradients.

An error is the largest difference divided by the largest entry of the reference, for each array; of several arrays,
the largest. The reference is the engine "plain" in float64 on the CPU.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import timing

import jax_lstm as jl


def stack(I: int, H: int, **options: Any) -> jl.Stack:
    """Two LSTM layers."""
    return jl.Stack((jl.LSTM(I, H, **options), jl.LSTM(H, H, **options)))


CELLS: dict[str, Callable[..., Any]] = {
    "LSTM": jl.LSTM,
    "MinLSTM": jl.MinLSTM,
    "GRU": jl.GRU,
    "Stack of 2 LSTM": stack,
    "MinGRU": jl.MinGRU,
}
LINEAR = ("MinLSTM", "MinGRU")
MASKS = ("no masks", "masks and resets")
# float32 with exact products, float32 as JAX computes products by default, and products of bfloat16 operands
PRECISIONS = ("float32 highest", "float32 default", 'compute_dtype="bfloat16"')
LIMITS = {"float32 highest": 1e-4}


class Problem(NamedTuple):
    """The arguments of a run, time-major, and the cotangent g of the outputs."""

    params: Any
    xs: Any
    g: Any
    mask: Any
    reset: Any


def problem(cell: Any, sizes: tuple[int, int, int, int]) -> Problem:
    """Random float32 data; every sequence has masked steps at its end and a few resets."""
    B, T, I, H = sizes
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    shapes = jax.eval_shape(lambda: cell.init(jax.random.key(0)))
    params = jax.tree.map(lambda a: normal(*a.shape) * np.float32(a.shape[0] ** -0.5), shapes)
    mask = np.arange(T)[:, None] < rng.integers(T // 2, T, size=B, endpoint=True)
    return Problem(params, normal(T, B, I), normal(T, B, H), mask, rng.random((T, B)) < 0.1)


def answers(cell: Any, engines: tuple[str, ...], p: Problem) -> dict[str, dict[str, Any]]:
    """What every engine gives, with and without masks."""
    return {f"{engine}, {masks}": answer(cell, engine, masks, p) for engine in engines for masks in MASKS}


def answer(cell: Any, engine: str, masks: str, p: Problem) -> dict[str, Any]:
    """Outputs, last state, and the gradients of ⟨g, hs⟩ plus the sum of the last state."""
    run = jl.batched(partial(jl.unroll, engine=engine), time_major=True)
    given = {} if masks == "no masks" else {"mask": p.mask, "reset": p.reset}

    def loss(params: Any, xs: jax.Array) -> tuple[jax.Array, Any]:
        state, hs = run(cell, params, xs, **given)
        return jnp.vdot(p.g, hs) + sum(jnp.sum(leaf) for leaf in jax.tree.leaves(state)), (hs, state)

    (d_params, d_xs), (hs, state) = jax.grad(loss, (0, 1), has_aux=True)(p.params, p.xs)
    return {"outputs": hs, "last state": state, "gradients of weights": d_params, "gradients of inputs": d_xs}


def reference(cell: Any, p: Problem) -> dict[str, dict[str, Any]]:
    """What "plain" gives in float64 on the CPU."""
    cpu = jax.devices("cpu")[0]
    with jax.enable_x64(True), jax.default_device(cpu):
        wide = jax.tree.map(lambda a: jax.device_put(a.astype(np.float64) if a.dtype == np.float32 else a, cpu), p)
        return jax.tree.map(np.asarray, jax.jit(partial(answers, cell, ("plain",)))(wide))


def error(got: Any, expected: Any) -> float:
    """The largest difference over the largest entry of what is expected; the largest of all arrays."""

    def one(a: Any, b: np.ndarray) -> float:
        return float(np.abs(np.asarray(a, np.float64) - b).max() / (np.abs(b).max() or 1))

    return max(jax.tree.leaves(jax.tree.map(one, got, expected)), key=lambda e: math.inf if math.isnan(e) else e)


def lowered(name: str, precision: str, sizes: tuple[int, int, int, int], p: Problem) -> Any:
    """All runs of one cell in one precision as one program, not compiled yet."""
    options = {"compute_dtype": "bfloat16"} if precision.startswith("compute_dtype") else {}
    cell = CELLS[name](*sizes[2:], **options)
    engines = ("plain", "hoisted", "auto", *(("associative",) if name in LINEAR else ()))
    with jax.default_matmul_precision("highest" if precision == "float32 highest" else None):
        return jax.jit(partial(answers, cell, engines)).lower(p)


def check(name: str, sizes: tuple[int, int, int, int]) -> list[dict[str, Any]]:
    """A row for each precision: every error of one cell, the largest, and whether that is small enough."""
    cell = CELLS[name](*sizes[2:])
    p = problem(cell, sizes)
    expected = reference(cell, p)
    # Trying kernels for the fastest takes longer than all of this; what is timed is compared too.
    programs = timing.compiled_at_once(
        {precision: lowered(name, precision, sizes, p) for precision in PRECISIONS}, {"xla_gpu_autotune_level": 0}
    )
    rows = []
    for precision, program in programs.items():
        errors = {
            run: {part: error(a, expected[f"plain, {run.split(', ', 1)[1]}"][part]) for part, a in got.items()}
            for run, got in program(p).items()
        }
        largest = max(e for parts in errors.values() for e in parts.values())
        finite = all(math.isfinite(e) for parts in errors.values() for e in parts.values())
        rows.append({
            "cell": name, "precision": precision, "sizes": sizes, "largest": largest, "errors": errors,
            "ok": finite and largest < LIMITS.get(precision, math.inf),
        })  # fmt: skip
    return rows
