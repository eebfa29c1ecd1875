"""The gate and state equations of every cell, as pure functions of arrays: one step of one example.

The functions take pre-activations z, such as z = x_t w_x + h_{t−1} w_h + b. zx is the input's part of z, zh the
state's part. σ is the sigmoid, ⊙ the elementwise product. Every array is (H,) unless said otherwise. The cells (cells/)
add the weights, and the engines (engines/) the loop over time and the batch.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

Unit = Float[Array, " H"]

# The elementwise activation functions of `jax.nn`, by name.
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": jax.nn.tanh,
    "sigmoid": jax.nn.sigmoid,
    "relu": jax.nn.relu,
    "linear": jax.nn.identity,
    "hard_sigmoid": jax.nn.hard_sigmoid,
    "celu": jax.nn.celu,
    "elu": jax.nn.elu,
    "gelu": jax.nn.gelu,
    "hard_silu": jax.nn.hard_silu,
    "hard_tanh": jax.nn.hard_tanh,
    "leaky_relu": jax.nn.leaky_relu,
    "log_sigmoid": jax.nn.log_sigmoid,
    "mish": jax.nn.mish,
    "relu6": jax.nn.relu6,
    "selu": jax.nn.selu,
    "silu": jax.nn.silu,
    "soft_sign": jax.nn.soft_sign,
    "softplus": jax.nn.softplus,
    "sparse_plus": jax.nn.sparse_plus,
    "sparse_sigmoid": jax.nn.sparse_sigmoid,
    "squareplus": jax.nn.squareplus,
}
# Other names that `jax.nn` has for functions of the table.
SYNONYMS = {"identity": "linear", "swish": "silu", "hard_swish": "hard_silu"}


def at_least_float32(dtype: DTypeLike) -> DTypeLike:
    """The dtype, or float32 if it is narrower: draw or sum in it, then cast to the narrow dtype."""
    return dtype if jnp.finfo(dtype).bits >= 32 else jnp.float32


class Gates(NamedTuple):
    """The four gates of an LSTM, or their pre-activations, in the order i, f, g, o.

    i is the input gate, f the forget gate, g the candidate for the cell state, o the output gate. Each is (H,);
    `gates_of` returns each as (T, H).
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


class GRUPreactivation(NamedTuple):
    """The pre-activation of a GRU, without its biases; each leaf (H,).

    r, z: those of the gates r and z. n: the input's part of that of n, x w_xn. m: the state's part, h w_hn, which r
    multiplies.
    """

    r: Any
    z: Any
    n: Any
    m: Any


# LSTM: Hochreiter & Schmidhuber 1997; forget gate: Gers, Schmidhuber & Cummins 2000.


def lstm_gates(z: Gates) -> Gates:
    """i = σ(z_i), f = σ(z_f), g = tanh(z_g), o = σ(z_o)."""
    return Gates(jax.nn.sigmoid(z.i), jax.nn.sigmoid(z.f), jnp.tanh(z.g), jax.nn.sigmoid(z.o))


def lstm_state(c_tm1: Unit, gates: Gates) -> tuple[Unit, Unit]:
    """(h_t, c_t): c_t = f ⊙ c_{t−1} + i ⊙ g, h_t = o ⊙ tanh(c_t)."""
    i, f, g, o = gates
    c_t = f * c_tm1 + i * g
    return o * jnp.tanh(c_t), c_t


def lstm_variant(
    z: dict[str, Unit],
    c_tm1: Unit,
    peepholes: dict[str, Unit],
    activations: tuple[Callable, Callable, Callable],
    coupled: bool,
    normalize_c: Callable[[Unit], Unit],
) -> tuple[Gates, Unit, Unit]:
    """(gates, h_t, c_t) of an LSTM with any combination of variants.

    Sources: peepholes, Gers & Schmidhuber 2000; coupled gates and missing gates, Greff et al. 2017. With the
    activations (σ, φ, ψ)::

        f = σ(z_f + p_f ⊙ c_{t−1})    g = φ(z_g)    i = σ(z_i + p_i ⊙ c_{t−1}), or 1 − f if coupled
        c_t = f ⊙ c_{t−1} + i ⊙ g
        o = σ(z_o + p_o ⊙ c_t)
        h_t = o ⊙ ψ(normalize_c(c_t))

    Args:
        z: the pre-activations by the gate's letter. "g" is required; another gate without z is 1.
        c_tm1: c_{t−1}.
        peepholes: the weights p by the gate's letter; empty for no peepholes.
        activations: σ, φ and ψ.
        coupled: whether i = 1 − f.
        normalize_c: applied to c_t before ψ: layer normalization or the identity.
    """
    σ, φ, ψ = activations

    def gate(name: str, c: Unit) -> Unit:
        if name not in z:
            return jnp.ones_like(c)
        return σ(z[name] + peepholes[name] * c if peepholes else z[name])

    f, g = gate("f", c_tm1), φ(z["g"])
    i = 1 - f if coupled else gate("i", c_tm1)
    c_t = f * c_tm1 + i * g
    o = gate("o", c_t)
    return Gates(i, f, g, o), o * ψ(normalize_c(c_t)), c_t


def layer_norm(a: Float[Array, " n"]) -> Float[Array, " n"]:
    """N(a) = (a − mean a) / √(var a + 1e-5), over all entries (Ba, Kiros & Hinton 2016)."""
    wide = a.astype(at_least_float32(a.dtype))  # the square of a float16 easily overflows
    # Subtract the mean before squaring: mean(a²) − mean(a)² would lose digits.
    centered = wide - jnp.mean(wide)
    return (centered * jax.lax.rsqrt(jnp.mean(centered * centered) + jnp.asarray(1e-5, wide.dtype))).astype(a.dtype)


# GRU: Cho et al. 2014, in the form that cuDNN and PyTorch compute.


def gru_gates(z: GRUPreactivation, b: Float[Array, " Z"], b_hn: Unit) -> GRUGates:
    """r = σ(z_r + b_r), z = σ(z_z + b_z), n = tanh(z_n + b_n + r ⊙ (m + b_hn)), with m = h_{t−1} w_hn."""
    b_r, b_z, b_n = jnp.split(b, 3)
    r = jax.nn.sigmoid(z.r + b_r)
    return GRUGates(r, jax.nn.sigmoid(z.z + b_z), jnp.tanh(z.n + b_n + r * (z.m + b_hn)))


def gru_gates_reset_before(
    zx: GRUPreactivation, b: Float[Array, " Z"], zh_r: Unit, zh_z: Unit, recur_n: Callable[[Unit], Unit]
) -> GRUGates:
    """r = σ(zx_r + zh_r + b_r), z = σ(zx_z + zh_z + b_z), n = tanh(zx_n + b_n + recur_n(r)).

    recur_n(r) = (r ⊙ h_{t−1}) w_hn. This is the form of the paper, where r multiplies h before the product with w_hn.
    """
    b_r, b_z, b_n = jnp.split(b, 3)
    r = jax.nn.sigmoid(zx.r + zh_r + b_r)
    return GRUGates(r, jax.nn.sigmoid(zx.z + zh_z + b_z), jnp.tanh(zx.n + b_n + recur_n(r)))


def gru_state(h_tm1: Unit, gates: GRUGates) -> Unit:
    """h_t = (1 − z) ⊙ n + z ⊙ h_{t−1}."""
    return (1 - gates.z) * gates.n + gates.z * h_tm1


# RNN: Elman 1990. a is the leak: a number, or an array with one entry per unit.


def rnn_state(h_tm1: Unit, new: Unit, leak: float | Unit) -> Unit:
    """h_t = (1 − a) h_{t−1} + a φ(z), from new = φ(z)."""
    return new if isinstance(leak, float) and leak == 1 else (1 - leak) * h_tm1 + leak * new


# JANET: van der Westhuizen & Lasenby 2018. f = σ(z_f), k = 1 − σ(z_f − β), g = tanh(z_g).


def janet_gates(z_f: Unit, z_g: Unit, beta: float) -> tuple[Unit, Unit, Unit]:
    """(f, k, g). k is computed as σ(β − z_f), which is accurate where k is small."""
    return jax.nn.sigmoid(z_f), jax.nn.sigmoid(beta - z_f), jnp.tanh(z_g)


def janet_state(h_tm1: Unit, f: Unit, k: Unit, g: Unit) -> Unit:
    """h_t = f ⊙ h_{t−1} + k ⊙ g."""
    return f * h_tm1 + k * g


# minLSTM and minGRU: Feng et al. 2024. Both are h_t = a ⊙ h_{t−1} + b with a and b from the input only.


def min_lstm_coefficients(z_f: Unit, z_i: Unit, z_g: Unit) -> tuple[Unit, Unit]:
    """a = f/(f + i), b = i/(f + i) ⊙ z_g, with f = σ(z_f) and i = σ(z_i).

    f/(f + i) is computed as σ(ln f − ln i), which neither overflows nor divides by zero.
    """
    a = jax.nn.sigmoid(log_ratio(z_f, z_i))
    return a, (1 - a) * z_g


def log_ratio(z_f: Unit, z_i: Unit) -> Unit:
    """ln f − ln i, with f = σ(z_f) and i = σ(z_i)."""
    return jax.nn.log_sigmoid(z_f) - jax.nn.log_sigmoid(z_i)


def min_gru_coefficients(z_z: Unit, z_g: Unit) -> tuple[Unit, Unit]:
    """a = 1 − z, b = z ⊙ z_g, with z = σ(z_z)."""
    z = jax.nn.sigmoid(z_z)
    return 1 - z, z * z_g


def linear_state(h_tm1: Unit, a: Unit, b: Unit) -> Unit:
    """h_t = a ⊙ h_{t−1} + b."""
    return a * h_tm1 + b


# sLSTM: Beck et al. 2024.

LOG_FORGET: dict[str, Callable[[Array], Array]] = {"sigmoid": jax.nn.log_sigmoid, "exp": lambda z_f: z_f}


def slstm_state(c_tm1: Unit, n_tm1: Unit, m_tm1: Unit, z: Gates, forget_gate: str) -> tuple[Unit, Unit, Unit, Unit]:
    """(h_t, c_t, n_t, m_t) of an sLSTM; `forget_gate` is "sigmoid" or "exp".

    i = exp(z_i) and f = σ(z_f) or exp(z_f) are used through their logarithms. m_t keeps the exponentials from
    overflowing::

        m_t = max(ln f + m_{t−1}, z_i)
        i' = exp(z_i − m_t)    f' = exp(ln f + m_{t−1} − m_t)
        c_t = f' ⊙ c_{t−1} + i' ⊙ tanh(z_g)
        n_t = f' ⊙ n_{t−1} + i'
        h_t = σ(z_o) ⊙ c_t / n_t
    """
    z_i, log_f = _within_limit(z.i), _within_limit(LOG_FORGET[forget_gate](z.f))
    kept = log_f + m_tm1
    # The exponents are kept − m_t and z_i − m_t. In this form one of f' and i' is exactly 1, whatever is rounded.
    keeps = kept > z_i
    f, i = jnp.exp(jnp.where(keeps, 0, kept - z_i)), jnp.exp(jnp.where(keeps, z_i - kept, 0))
    c_t = f * c_tm1 + i * jnp.tanh(z.g)
    n_t = f * n_tm1 + i
    return jax.nn.sigmoid(z.o) * _ratio(c_t, n_t), c_t, n_t, _within_limit(jnp.where(keeps, kept, z_i))


def slstm_limit(dtype: jnp.dtype) -> float:
    """L, a quarter of the largest number of the dtype. An sLSTM starts from m_0 = −2 L."""
    return float(jnp.finfo(dtype).max) / 4


def _within_limit(z: Unit) -> Unit:
    """z, clipped to ±L, so that no sum of two of z_i, ln f and m_t overflows.

    Since m_0 = −2 L, ln f + m_0 ≤ −L ≤ z_i: in the first step i' is 1, whatever the gates are.
    """
    limit = jnp.asarray(slstm_limit(z.dtype), z.dtype)
    return jax.lax.clamp(-limit, z, limit)  # with jnp.clip, jaxlib 0.10.2 compiles a wrong gradient (docs/limits.md)


@jax.custom_jvp
def _ratio(c: Unit, n: Unit) -> Unit:
    """c / n, with its own JVP: the one of JAX uses 1 / n², which is 0 in float16 for n ≥ 256."""
    return c / n


_ratio.defjvps(lambda dc, ratio, c, n: dc / n, lambda dn, ratio, c, n: -ratio * (dn / n))
