"""What an experiment measures of trained networks besides their score: one number per seed, by name.

cell_state    the mean of |c| over units, after 100, 1,000 and 10,000 symbols of test streams; and after the last symbol
              the mean of o (1 − tanh² c), the factor ∂h/∂c of a gradient that enters c from h
memory        the largest Lyapunov exponent along at most 1,000 steps of the first test sequence, in nats per step; and
              the spectral radius of the one-step Jacobian at rest, where the state and x are 0
closed_loop   the three largest Lyapunov exponents of the network that reads its own predictions, in nats per unit of
              the task's time: s ↦ step(s, s.h w + b)
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import jax_lstm as jl
from jax_lstm import gradflow
from jax_lstm.cli.trained_run import TrainedRun
from jax_lstm.layers import ModelParams
from jax_lstm.tasks import Batch
from jax_lstm.tasks.lorenz import DT

AFTER = (100, 1_000, 10_000)
STREAMS = 4
LONGEST = 1_000
BURN_IN, STEPS = 1_000, 20_000


def cell_state(model: TrainedRun, params: ModelParams, batch: Batch) -> dict[str, Float[Array, ""]]:
    """The size of an LSTM's c along a stream, and the factor ∂h/∂c at its end; see the module docstring."""
    cell = model.cell
    if not isinstance(cell, jl.LSTM):
        raise ValueError(
            f"cell_state: the cell must be an LSTM, but is a {type(cell).__name__}; leave cell_state out of measure"
        )
    xs = batch.xs[:STREAMS]
    at = jnp.array(AFTER) - 1
    c = jl.batched(jl.unroll_states)(cell, params.cell, xs).c
    o = jax.vmap(lambda x: jl.gates_of(cell, params.cell, x).o[at[-1]])(xs)
    sizes = jnp.abs(c[:, at]).mean(axis=(0, 2))
    return {f"|c| after {n:,}": size for n, size in zip(AFTER, sizes, strict=True)} | {
        f"o (1 − tanh² c) after {AFTER[-1]:,}": jnp.mean(o * (1 - jnp.tanh(c[:, at[-1]]) ** 2))
    }


def memory(model: TrainedRun, params: ModelParams, batch: Batch) -> dict[str, Float[Array, ""]]:
    """How fast two nearby states converge, along data and at rest; see the module docstring."""
    x = model.net.embedded(params, batch.xs[0, :LONGEST])
    (J,) = gradflow.step_jacobians(model.cell, params.cell, jnp.zeros_like(x[:1]))
    return {
        "largest exponent": gradflow.lyapunov_spectrum(model.cell, params.cell, x, k=1)[0],
        "rest radius": jnp.abs(jnp.linalg.eigvals(J)).max(),
    }


def closed_loop(model: TrainedRun, params: ModelParams, batch: Batch) -> dict[str, Float[Array, ""]]:
    """The dynamics of a network that reads its own predictions; see the module docstring."""
    state, _ = jl.unroll(model.cell, params.cell, batch.xs[0])

    def step(s: Any) -> Any:
        return model.cell.step(params.cell, s, model.readout.apply(params.readout, s.h))[0]

    exponents = gradflow.lyapunov_exponents(step, state, steps=BURN_IN + STEPS, k=3, burn_in=BURN_IN) / DT
    return {f"exponent {i + 1}": exponents[i] for i in range(3)}


BY_NAME: dict[str, Callable[[TrainedRun, ModelParams, Batch], dict[str, Array]]] = {
    "cell_state": cell_state,
    "closed_loop": closed_loop,
    "memory": memory,
}


def measure(names: list[str], model: TrainedRun, params: ModelParams, batch: Batch) -> dict[str, list[float]]:
    """Measure every seed.

    Args:
        names: keys of BY_NAME.
        model: the model.
        params: its params; every leaf has a leading axis over S seeds.
        batch: the test split.

    Returns:
        S numbers per measured quantity, by its name.
    """

    @jax.jit
    def of_seeds(params, batch):
        def of_one(p):
            return {key: value for name in names for key, value in BY_NAME[name](model, p, batch).items()}

        return jax.lax.map(of_one, params)

    return {key: np.asarray(values, np.float64).tolist() for key, values in of_seeds(params, batch).items()}
