"""The headline table: the norm of the gradient after k steps back, in 10 cells before training.

    ‖∂s_T/∂s_{T−k}‖₂        H = 64, I = 8, x_t ~ N(0, 1), T = 100, float64, 5 seeds

Each row has its own initialization of w_h and of the biases. The RNNs draw w_x from LeCun normal. The LSTMs with
orthogonal w_h draw each gate's w_x from Glorot normal, so they differ only in their biases. The LSTM with uniform w_h
also draws w_x from that uniform distribution. The last row is this library's default LSTM. Its w_x is LeCun normal,
which at these sizes is twice as large as Glorot normal. Larger w_x drives the gates further from their values at rest,
and less of the gradient is left.

    python -m jax_lstm.gradflow.headline_table --plot notebooks/results/gradient_flow.png
"""

import argparse
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from jax_lstm.cell import Cell
from jax_lstm.cells.initializers import draw_per_gate
from jax_lstm.cells.lstm import LSTM
from jax_lstm.cells.rnn import RNN, RNNParams
from jax_lstm.gradflow.sensitivity import sensitivity

I, H, T = 8, 64, 100
SEEDS = (0, 1, 2, 3, 4)
STEPS_BACK = (10, 50, 99)

glorot_normal = jax.nn.initializers.glorot_normal()


class Row(NamedTuple):
    """Name, cell and initializer of one row. Rows with the same cell share one compiled program."""

    name: str
    cell: Cell
    init: Callable[[Key[Array, ""], DTypeLike], Any]


def _uniform(key: Key[Array, ""], shape: tuple[int, int], dtype: DTypeLike) -> Array:
    """U(−1/√n, 1/√n) with n the fan-in: PyTorch's initialization of w_h in its LSTM and RNN."""
    bound = 1 / math.sqrt(shape[0])
    return jax.random.uniform(key, shape, dtype, -bound, bound)


def _gaussian(key: Key[Array, ""], shape: tuple[int, int], dtype: DTypeLike) -> Array:
    """N(0, 3²/H): a tanh RNN with these weights is chaotic (Sompolinsky, Crisanti & Sommers 1988)."""
    return 3 / math.sqrt(H) * jax.random.normal(key, shape, dtype)


def _rnn(name: str, cell: RNN, draw: Callable | None = None) -> Row:
    """An RNN with w_h from `draw`, or from its own initializer if `draw` is None."""

    def init(key: Key[Array, ""], dtype: DTypeLike) -> RNNParams:
        params = cell.init(key, dtype)
        return params if draw is None else params._replace(w_h=draw(jax.random.fold_in(key, 0), (H, H), dtype))

    return Row(name, cell, init)


def _lstm(name: str, cell: LSTM, draw_x: Callable, draw_h: Callable | None = None) -> Row:
    """An LSTM with each gate's w_x from `draw_x`, and w_h from `draw_h` or from its own initializer."""

    def init(key: Key[Array, ""], dtype: DTypeLike) -> Any:
        params, key_x, key_h = cell.init(key, dtype), jax.random.fold_in(key, 0), jax.random.fold_in(key, 1)
        params = params._replace(w_x=draw_per_gate(draw_x, key_x, 4, (I, H), dtype))
        return params if draw_h is None else params._replace(w_h=draw_per_gate(draw_h, key_h, 4, (H, H), dtype))

    return Row(name, LSTM(I, H), init)


ROWS = (
    _rnn("sigmoid RNN, orthogonal", RNN(I, H, "sigmoid")),
    _rnn("tanh RNN, U(±1/√H)", RNN(I, H), _uniform),
    _rnn("tanh RNN, orthogonal", RNN(I, H)),
    _rnn("tanh RNN, Gaussian g=3", RNN(I, H), _gaussian),
    _lstm("LSTM, U(±1/√H), b_f=0", LSTM(I, H, forget_bias=0.0), _uniform, _uniform),
    _lstm("LSTM, per-gate orthogonal, b_f=0", LSTM(I, H, forget_bias=0.0), glorot_normal),
    _lstm("LSTM, per-gate orthogonal, b_f=1", LSTM(I, H), glorot_normal),
    _lstm("LSTM, per-gate orthogonal, b_f=3", LSTM(I, H, forget_bias=3.0), glorot_normal),
    _lstm("LSTM, per-gate orthogonal, chrono(100)", LSTM(I, H, chrono=100.0), glorot_normal),
    Row("LSTM, as jl.LSTM(8, 64) starts", LSTM(I, H), LSTM(I, H).init),
)


def profiles(row: Row) -> Float[Array, "seeds K"]:
    """Log of ‖∂s_T/∂s_k‖₂ over k, one profile per seed. Needs float64 to be enabled."""
    keys = jax.vmap(lambda seed: jax.random.split(jax.random.key(seed)))(jnp.array(SEEDS))
    params = jax.vmap(lambda key: row.init(key, jnp.float64))(keys[:, 0])
    xs = jax.vmap(lambda key: jax.random.normal(key, (T, I), jnp.float64))(keys[:, 1])
    return _measured(row.cell, params, xs)


@partial(jax.jit, static_argnames="cell")
def _measured(cell: Cell, params: Any, xs: Float[Array, "seeds T I"]) -> Float[Array, "seeds T+1"]:
    return jax.lax.map(lambda one: sensitivity(cell, *one), (params, xs))


def decades(log_norms: Float[Array, "seeds K"]) -> Float[Array, "seeds columns"]:
    """log₁₀ ‖∂s_T/∂s_{T−k}‖₂ at the values of k in the table."""
    return log_norms[:, [-1 - k for k in STEPS_BACK]] / math.log(10)


def table(columns: dict[str, Float[Array, "seeds columns"]]) -> str:
    """Markdown table: geometric mean over seeds; in brackets, the decades between the smallest and the largest seed."""
    lines = [
        "| ‖∂s_T/∂s_{T−k}‖₂ | " + " | ".join(f"k = {k}" for k in STEPS_BACK) + " |",
        "|---" * (1 + len(STEPS_BACK)) + "|",
    ]
    for name, d in columns.items():
        mean, spread = d.mean(0), d.max(0) - d.min(0)
        cells = [f"{_short(10**m)} ({s:.1f})" for m, s in zip(mean.tolist(), spread.tolist(), strict=True)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _short(x: float) -> str:
    return f"{x:.2g}" if 0.1 <= x < 100 else f"{x:.0e}"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the headline table. With --plot, also plot the mean profiles as a PNG with the table in its metadata."""
    parser = argparse.ArgumentParser(prog="jax-lstm headline", description=main.__doc__)
    parser.add_argument("--plot", metavar="PATH", help="PNG file for the plot")
    path = parser.parse_args(argv).plot
    with jax.enable_x64(True):
        log_norms = {row.name: profiles(row) for row in ROWS}
        text = table({name: decades(p) for name, p in log_norms.items()})
        print(text)
        if path is not None:
            # Imported here, so that printing the table does not need matplotlib.
            from jax_lstm.gradflow.plots import plot_profile

            figure = plot_profile({name: p.mean(0) for name, p in log_norms.items()})
            figure.savefig(path, format="png", dpi=150, metadata={"Description": text})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
