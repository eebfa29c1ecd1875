"""The LSTM that a good engineer would write by hand: a `custom_vjp`, laid out as ours is.

It keeps the gates, works out their slopes in the backward loop, and has all weight gradients after it. It gives up
jvp, hessians and per-example gradients in one product; it is here to say what ours may cost beside it, no more.
"""

from functools import partial

import jax
import jax.numpy as jnp

import jax_lstm as jl


def gates(z: jax.Array) -> tuple[jax.Array, ...]:
    """i, f, g, o."""
    i, f, g, o = jnp.split(z, 4, axis=-1)
    return jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)


def forward(inline: bool, params: jl.LSTMParams, xs: jax.Array) -> tuple[jax.Array, ...]:
    """hs, and what the backward loop needs: h and c before each step, and the gates; xs (T, B, I)."""
    w_x, w_h, b = params
    T, B, I = xs.shape
    H = w_h.shape[0]
    zero = jnp.zeros((B, H), xs.dtype)
    streams = xs if inline else (xs.reshape(T * B, I) @ w_x).reshape(T, B, 4 * H)

    def body(state, x):
        h, c = state
        i, f, g, o = gates((x @ w_x if inline else x) + h @ w_h + b[None])
        c_t = f * c + i * g
        h_t = o * jnp.tanh(c_t)
        return (h_t, c_t), (h_t, h, c, i, f, g, o)

    return jax.lax.scan(body, (zero, zero), streams)[1]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def lstm(inline: bool, params: jl.LSTMParams, xs: jax.Array) -> jax.Array:
    """hs (T, B, H) from a zero state."""
    return forward(inline, params, xs)[0]


def lstm_fwd(inline, params, xs):
    """Forward, keeping the gates."""
    hs, *kept = forward(inline, params, xs)
    return hs, (params, xs, kept)


def lstm_bwd(inline, residuals, d_hs):
    """One loop for the adjoint state, then the weight gradients."""
    (w_x, w_h, _), xs, (h_ins, *kept) = residuals
    T, B, I = xs.shape
    H = w_h.shape[0]
    zero, w_t = jnp.zeros((B, H), xs.dtype), w_h.T

    def body(adjoint, stream):
        a_h, a_c = adjoint
        d_h, c, i, f, g, o = stream
        tanh_c = jnp.tanh(f * c + i * g)
        a_h = a_h + d_h
        a_c = a_c + a_h * o * (1 - tanh_c**2)
        d_z = jnp.concatenate(
            [a_c * g * i * (1 - i), a_c * c * f * (1 - f), a_c * i * (1 - g**2), a_h * tanh_c * o * (1 - o)], axis=1
        )
        return (d_z @ w_t, a_c * f), d_z

    d_zs = jax.lax.scan(body, (zero, zero), (d_hs, *kept), reverse=True)[1].reshape(T * B, 4 * H)
    d_w_x, d_w_h = xs.reshape(T * B, I).T @ d_zs, h_ins.reshape(T * B, H).T @ d_zs
    return jl.LSTMParams(d_w_x, d_w_h, d_zs.sum(axis=0)), (d_zs @ w_x.T).reshape(T, B, I)


lstm.defvjp(lstm_fwd, lstm_bwd)
