"""The cells and their unrolling as loops over NumPy arrays, written from the equations. Imports nothing of ours.

Every function takes complex arrays too, so that derivatives come by complex step (Squire & Trapp 1998):
f'(x) = Im f(x + iε) / ε, exact to rounding, and independent of JAX.
"""

import numpy as np


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def lstm(params, state, x):
    w_x, w_h, b = params
    h, c = state
    z = x @ w_x + h @ w_h + b
    z_i, z_f, z_g, z_o = np.split(z, 4)
    i, f, g, o = sigmoid(z_i), sigmoid(z_f), np.tanh(z_g), sigmoid(z_o)
    c = f * c + i * g
    return (o * np.tanh(c), c)


def rnn(params, state, x):
    w_x, w_h, b = params
    return (np.tanh(x @ w_x + state[0] @ w_h + b),)


def gru(params, state, x):
    w_x, w_h, b, b_hn = params
    (h,) = state
    x_r, x_z, x_n = np.split(x @ w_x + b, 3)
    h_r, h_z, h_n = np.split(h @ w_h, 3)
    r, z = sigmoid(x_r + h_r), sigmoid(x_z + h_z)
    n = np.tanh(x_n + r * (h_n + b_hn))
    return ((1 - z) * n + z * h,)


STEPS = {"LSTM": lstm, "RNN": rnn, "GRU": gru}


def unroll(step, params, xs, state, mask=None, reset=None, reverse=False):
    """The last state, and every output: what the library must give. The state after a reset is zero."""
    T = len(xs)
    hs = np.zeros((T, len(state[0])), np.result_type(xs, *params, *state))
    for t in reversed(range(T)) if reverse else range(T):
        if mask is None or mask[t]:
            if reset is not None and reset[t]:
                state = tuple(np.zeros_like(s) for s in state)
            state = step(params, state, xs[t])
            hs[t] = state[0]
    return state, hs


def derivative(f, args, tangents, eps=1e-30):
    """The derivative of f(*args) along tangents; f gives a tuple of arrays."""
    moved = [a + 1j * eps * t for a, t in zip(args, tangents, strict=True)]
    return tuple(np.imag(y) / eps for y in f(*moved))


def jacobian(f, args):
    """For every argument, the derivative of the array f(*args) by each of its entries, in the last axes."""
    columns = []
    for k, a in enumerate(args):
        J = []
        for index in np.ndindex(a.shape):
            tangents = [np.zeros(b.shape) for b in args]
            tangents[k][index] = 1
            J.append(derivative(lambda *args: (f(*args),), args, tangents)[0])
        columns.append(np.moveaxis(np.reshape(J, a.shape + np.shape(J[0])), range(a.ndim), range(-a.ndim, 0)))
    return columns
