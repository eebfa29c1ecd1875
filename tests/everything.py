"""A cell with a parameter wherever one can be, written as a user would, with no base class.

Peepholes, a learned scale, a projection of what recurs, and a low-rank update of w_h; and the same step in NumPy.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import reference

import jax_lstm as jl


class Params(NamedTuple):
    w_x: jax.Array  # (I, 4H)
    w_h: jax.Array  # (P, 4H)
    u: jax.Array  # (P, R)
    v: jax.Array  # (R, 4H)
    w_p: jax.Array  # (H, P)
    b: jax.Array  # (4H,)
    p: jax.Array  # (3, H), peepholes
    scale: jax.Array  # (4H,)


class State(NamedTuple):
    m: jax.Array  # (H,)
    c: jax.Array  # (H,)


@dataclass(frozen=True)
class Everything(jl.SplitCell):
    input_size: int = 3
    hidden_size: int = 4
    projected: int = 2
    rank: int = 1

    def init(self, key, dtype=jnp.float32):
        n, H, P, R = self.input_size, self.hidden_size, self.projected, self.rank
        shapes = {
            "w_x": (n, 4 * H), "w_h": (P, 4 * H), "u": (P, R), "v": (R, 4 * H), "w_p": (H, P), "b": (4 * H,),
            "p": (3, H), "scale": (4 * H,),
        }  # fmt: skip
        keys = jax.random.split(key, len(shapes))
        drawn = {name: 0.4 * jax.random.normal(k, s, dtype) for k, (name, s) in zip(keys, shapes.items(), strict=True)}
        return Params(**drawn | {"scale": 1 + drawn["scale"]})

    def initial_state(self, params):
        zero = jnp.zeros(self.hidden_size, params.b.dtype)
        return State(zero, zero)

    def project(self, params, x):
        return jnp.split(x @ params.w_x + params.b, 4)

    def recur(self, params, state):
        return jnp.split(state.m @ params.w_p @ (params.w_h + params.u @ params.v), 4)

    def update(self, params, state, z):
        scale = jnp.split(params.scale, 4)
        i, f, g, o = (s * a for s, a in zip(scale, z, strict=True))
        i, f = (jax.nn.sigmoid(z + p * state.c) for z, p in zip((i, f), params.p[:2], strict=True))
        c = f * state.c + i * jnp.tanh(g)
        return State(jax.nn.sigmoid(o + params.p[2] * c) * jnp.tanh(c), c)

    def output(self, state):
        return state.m


def everything(params, state, x):
    """The same step in NumPy, for real and complex arrays."""
    w_x, w_h, u, v, w_p, b, p, scale = params
    m, c = state
    z_i, z_f, z_g, z_o = np.split(scale * (x @ w_x + b + m @ w_p @ (w_h + u @ v)), 4)
    i, f = reference.sigmoid(z_i + p[0] * c), reference.sigmoid(z_f + p[1] * c)
    c = f * c + i * np.tanh(z_g)
    return (reference.sigmoid(z_o + p[2] * c) * np.tanh(c), c)
