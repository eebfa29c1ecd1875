"""Gates and state updates of the LSTM and the GRU: one step of one example, without params, time or batch.

LSTM (Hochreiter & Schmidhuber 1997; forget gate by Gers, Schmidhuber & Cummins 2000), from the four
pre-activations z = [h, x] W + b:

    i = σ(z_i)    f = σ(z_f)    g = tanh(z_g)    o = σ(z_o)
    c_t = f ⊙ c_{t−1} + i ⊙ g
    h_t = o ⊙ tanh(c_t)

GRU (Cho et al. 2014, in the form that cuDNN and PyTorch compute). Each pre-activation has an input part zx and a state
part zh:

    r = σ(zx_r + zh_r)    z = σ(zx_z + zh_z)    n = tanh(zx_n + r ⊙ (zh_n + b_hn))
    h_t = (1 − z) ⊙ n + z ⊙ h_{t−1}

The JVP of the LSTM's state update for the tangents (dc_{t−1}, dz), with σ' = σ(1 − σ) and tanh' = 1 − tanh²:

    dc_t = f ⊙ dc_{t−1} + g i(1 − i) ⊙ dz_i + c_{t−1} f(1 − f) ⊙ dz_f + i(1 − g²) ⊙ dz_g
    dh_t = o(1 − tanh² c_t) ⊙ dc_t + tanh(c_t) o(1 − o) ⊙ dz_o
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Gates(NamedTuple):
    """The four gates of an LSTM, or their pre-activations, in the order i, f, g, o.

    i is the input gate, f the forget gate, g the candidate for the cell state, o the output gate. Each has shape (H,),
    and (T, H) from `gates_of`.
    """

    i: Float[Array, " H"]
    f: Float[Array, " H"]
    g: Float[Array, " H"]
    o: Float[Array, " H"]


class GRUGates(NamedTuple):
    """The gates of a GRU, or a part of their pre-activations, in the order r, z, n.

    r is the reset gate, z the update gate, n the candidate for h. Each has shape (H,).
    """

    r: Float[Array, " H"]
    z: Float[Array, " H"]
    n: Float[Array, " H"]


def lstm_gates(z: Gates) -> Gates:
    """Gates i, f, g, o, each (H,), from their pre-activations."""
    return Gates(jax.nn.sigmoid(z.i), jax.nn.sigmoid(z.f), jnp.tanh(z.g), jax.nn.sigmoid(z.o))


def lstm_state(c_tm1: Float[Array, " H"], gates: Gates) -> tuple[Float[Array, " H"], Float[Array, " H"]]:
    """(h_t, c_t), each (H,), from c_{t−1} and the gates: c_t = f ⊙ c_{t−1} + i ⊙ g, h_t = o ⊙ tanh(c_t)."""
    i, f, g, o = gates
    c_t = f * c_tm1 + i * g
    return o * jnp.tanh(c_t), c_t


def lstm_along(
    c_tm1: Float[Array, " H"], gates: Gates, dc_tm1: Float[Array, " H"], dz: Gates
) -> tuple[Float[Array, " H"], Float[Array, " H"]]:
    """(dh_t, dc_t), the JVP of `lstm_state` ∘ `lstm_gates` at c_{t−1} and these gates; linear in (dc_{t−1}, dz)."""
    i, f, g, o = gates
    tanh_c = jnp.tanh(f * c_tm1 + i * g)
    dc_t = f * dc_tm1 + g * i * (1 - i) * dz.i + c_tm1 * f * (1 - f) * dz.f + i * (1 - g * g) * dz.g
    return o * (1 - tanh_c * tanh_c) * dc_t + tanh_c * o * (1 - o) * dz.o, dc_t


def gru_gates(zx: GRUGates, zh: GRUGates, b_hn: Float[Array, " H"]) -> GRUGates:
    """Gates r, z, n, each (H,), from the input's part zx and the state's part zh of the pre-activations."""
    r = jax.nn.sigmoid(zx.r + zh.r)
    z = jax.nn.sigmoid(zx.z + zh.z)
    return GRUGates(r, z, jnp.tanh(zx.n + r * (zh.n + b_hn)))


def gru_state(h_tm1: Float[Array, " H"], gates: GRUGates) -> Float[Array, " H"]:
    """h_t = (1 − z) ⊙ n + z ⊙ h_{t−1}, (H,)."""
    return (1 - gates.z) * gates.n + gates.z * h_tm1
