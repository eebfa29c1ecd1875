"""One small problem for every table of tests: params, data and flags drawn once, and the library's answer to it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jax_lstm as jl

I, H, T = 3, 4, 7
CELLS = {"LSTM": jl.LSTM(I, H), "RNN": jl.RNN(I, H), "GRU": jl.GRU(I, H)}
MODES = {
    "plain": {},
    "flags": {"mask": True, "reset": True, "reverse": True},
    "remat": {"remat_every": 3},
}


class Problem(NamedTuple):
    """Arguments in the dtype asked for, and what a loss weighs outputs and states with."""

    cell: Any
    mode: dict[str, Any]
    params: Any
    xs: jax.Array
    state: Any
    mask: jax.Array | None
    reset: jax.Array | None
    weights: Any

    def run(self, params, xs, state, engine="hoisted"):
        """(state, hs) by the library."""
        knobs = {k: v for k, v in self.mode.items() if k in ("reverse", "remat_every")}
        if engine == "plain":
            knobs.pop("remat_every", None)
        return jl.unroll(self.cell, params, xs, state, self.mask, self.reset, engine=engine, **knobs)

    def loss(self, params, xs, state, engine="hoisted"):
        """A number that every output and every part of the last state moves."""
        return sum(
            jnp.vdot(w, y)
            for w, y in zip(
                jax.tree.leaves(self.weights), jax.tree.leaves(self.run(params, xs, state, engine)), strict=True
            )
        )


def normal(seed, shape, scale=1.0):
    return scale * np.random.default_rng(seed).normal(size=shape)


def problem(cell_name, mode_name, dtype=jnp.float64, seed=0):
    cell, mode = CELLS[cell_name], MODES[mode_name]
    params = cell.init(jax.random.key(seed), dtype)
    rng = np.random.default_rng(seed)

    def drawn(a, scale):
        return jnp.asarray(scale * rng.normal(size=a.shape), dtype)

    params = jax.tree.map(lambda a: a + drawn(a, 0.3), params)
    state = jax.tree.map(lambda a: drawn(a, 0.5), cell.initial_state(params))
    xs = drawn(np.zeros((T, I)), 1.0)
    mask = jnp.array([1, 1, 0, 1, 1, 1, 0], bool) if mode.get("mask") else None
    reset = jnp.array([0, 1, 0, 0, 1, 0, 1], bool) if mode.get("reset") else None
    shapes = (state, np.zeros((T, H)))
    return Problem(cell, mode, params, xs, state, mask, reset, jax.tree.map(lambda a: drawn(a, 1.0), shapes))
