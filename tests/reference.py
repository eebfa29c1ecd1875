"""The cells and their unrolling as loops over NumPy arrays, written from the equations. Imports nothing of ours.

Every function takes complex arrays too, so that derivatives come by complex step (Squire & Trapp 1998):
f'(x) = Im f(x + iε) / ε, exact to rounding, and independent of JAX.
"""

import itertools

import numpy as np


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def squash(name, z):
    """An activation by name; a cut is where the real part passes it, so that a complex step passes too."""
    if name == "relu":
        return np.where(np.real(z) > 0, z, 0)
    if name == "hard_sigmoid":
        return np.where(np.real(z) < -3, 0, np.where(np.real(z) > 3, 1, z / 6 + 0.5))
    if name == "elu":
        return np.where(np.real(z) > 0, z, np.expm1(np.where(np.real(z) > 0, 0, z)))
    return {"sigmoid": sigmoid, "tanh": np.tanh, "linear": np.positive}[name](z)


def normalised(a):
    rest = a - np.mean(a)
    return rest / np.sqrt(np.mean(rest * rest) + 1e-5)


def lstm(
    params, state, x, *, peephole=False, coupled=False, without=None, projection=None, layer_norm=False, clip=None,
    gate_activation="sigmoid", cell_activation="tanh", output_activation="tanh",
):  # fmt: skip
    """The LSTM of Hochreiter & Schmidhuber and its variants, in any combination."""
    w_x, w_h, b, p, w_p, s_x, s_h, s_c, b_c = (*params, *[None] * (9 - len(params)))
    assert [a is not None for a in (p, w_p, s_x)] == [peephole, projection is not None, layer_norm]
    h, c = state
    zx, zh = x @ w_x, h @ w_h
    z = (s_x * normalised(zx) + s_h * normalised(zh) if layer_norm else zx + zh) + b
    if clip is not None:
        z = np.where(np.abs(np.real(z)) > clip, clip * np.sign(np.real(z)), z)
    left_out = "i" * coupled + (without or "")[:1]
    names = [name for name in "ifgo" if name not in left_out]
    z = dict(zip(names, np.split(z, len(names)), strict=True))
    peep = dict(zip([name for name in names if name != "g"], p, strict=True)) if peephole else {}

    def gate(name, c):
        return squash(gate_activation, z[name] + peep.get(name, 0) * c) if name in z else np.ones_like(c)

    f = gate("f", c)
    i = 1 - f if coupled else gate("i", c)
    c = f * c + i * squash(cell_activation, z["g"])
    o = gate("o", c)
    h = o * squash(output_activation, s_c * normalised(c) + b_c if layer_norm else c)
    return (h if projection is None else h @ w_p, c)


def rnn(params, state, x, activation="tanh", leak=1):
    w_x, w_h, b = params
    (h,) = state
    return ((1 - leak) * h + leak * squash(activation, x @ w_x + h @ w_h + b),)


def gru(params, state, x):
    w_x, w_h, b, b_hn = params
    (h,) = state
    x_r, x_z, x_n = np.split(x @ w_x + b, 3)
    h_r, h_z, h_n = np.split(h @ w_h, 3)
    r, z = sigmoid(x_r + h_r), sigmoid(x_z + h_z)
    n = np.tanh(x_n + r * (h_n + b_hn))
    return ((1 - z) * n + z * h,)


def janet(params, state, x, beta=1):
    w_x, w_h, b = params
    (h,) = state
    z_f, z_g = np.split(x @ w_x + h @ w_h + b, 2)
    return (sigmoid(z_f) * h + (1 - sigmoid(z_f - beta)) * np.tanh(z_g),)


def min_gru(params, state, x):
    w_x, b = params
    z_z, z_g = np.split(x @ w_x + b, 2)
    z = sigmoid(z_z)
    return ((1 - z) * state[0] + z * z_g,)


def min_lstm(params, state, x):
    w_x, b = params
    z_f, z_i, z_g = np.split(x @ w_x + b, 3)
    f, i = sigmoid(z_f), sigmoid(z_i)
    return (f / (f + i) * state[0] + i / (f + i) * z_g,)


def slstm(params, state, x, forget_gate="sigmoid"):
    """Of two numbers the larger is that with the larger real part, so that a complex step passes."""
    w_x, w_h, b = params
    h, c, n, m = state
    heads = [np.split(h_k @ w_k, 4) for h_k, w_k in zip(np.split(h, len(w_h)), w_h, strict=True)]
    z_i, z_f, z_g, z_o = np.split(x @ w_x + b, 4) + np.concatenate(heads, axis=1)
    log_f = np.log(sigmoid(z_f)) if forget_gate == "sigmoid" else z_f
    m_t = np.where(np.real(log_f + m) >= np.real(z_i), log_f + m, z_i)
    i, f = np.exp(z_i - m_t), np.exp(log_f + m - m_t)
    c, n = f * c + i * np.tanh(z_g), f * n + i
    return (sigmoid(z_o) * c / n, c, n, m_t)


def slstm_fresh(params):
    """Its state before the first step: whatever came before has no weight."""
    zero = np.zeros(len(params[2]) // 4)
    return (zero, zero, zero, zero - 1e300)


def zoneout(step, *rates):
    """The expectation: of every part of the state as much of the one before as its rate says."""
    return lambda params, state, x: tuple(
        p * before + (1 - p) * after for p, before, after in zip(rates, state, step(params, state, x), strict=True)
    )


STEPS = {
    "LSTM": lstm, "RNN": rnn, "GRU": gru, "JANET": janet, "MinGRU": min_gru, "MinLSTM": min_lstm, "SLSTM": slstm
}  # fmt: skip


def unroll(step, params, xs, state, mask=None, reset=None, reverse=False, fresh=None):
    """The last state, and every output: what the library must give. The state after a reset is `fresh`, or zero."""
    T = len(xs)
    fresh = tuple(np.zeros_like(s) for s in state) if fresh is None else fresh
    hs = np.zeros((T, len(state[0])), np.result_type(xs, *(a for a in params if a is not None), *state))
    for t in reversed(range(T)) if reverse else range(T):
        if mask is None or mask[t]:
            if reset is not None and reset[t]:
                state = fresh
            state = step(params, state, xs[t])
            hs[t] = state[0]
    return state, hs


# What goes over time: (params, xs, state, mask, reset, reverse, fresh) -> (state, ys), params and states in tuples.


def loop(step, fresh=None):
    """A cell by its step; `fresh` gives its initial state of its params, which else is zero."""

    def run(params, xs, state, mask=None, reset=None, reverse=False, start=None):
        start = fresh(params) if start is None and fresh is not None else start
        return unroll(step, params, xs, state, mask, reset, reverse, start)

    return run


def learned(run):
    """A cell whose initial state is among its params."""

    def from_params(params, xs, state, mask=None, reset=None, reverse=False, start=None):
        return run(params[0], xs, state, mask, reset, reverse, params[1] if start is None else start)

    return from_params


def stack(*runs, residual=False):
    """Cells on top of each other."""

    def through(params, xs, state, mask=None, reset=None, reverse=False, start=None):
        xs = xs if mask is None else np.where(mask[:, None], xs, 0)
        ends = []
        for k, run in enumerate(runs):
            end, ys = run(params[k], xs, state[k], mask, reset, reverse, None if start is None else start[k])
            xs = ys + xs if residual and ys.shape == xs.shape else ys
            ends.append(end)
        return tuple(ends), xs

    return through


def bidirectional(forward, backward):
    """Two cells, one each way over the live steps; a reset parts them into episodes for both."""

    def both(params, xs, state, mask=None, reset=None, reverse=False, start=None):
        live = [t for t in range(len(xs)) if mask is None or mask[t]][:: -1 if reverse else 1]
        ends = np.zeros(len(xs), bool)
        for before, t in itertools.pairwise(live):
            if reset is not None:
                ends[before] = reset[t]
        one, other = (None, None) if start is None else start
        there, ys = forward(params[0], xs, state[0], mask, reset, reverse, one)
        back, zs = backward(params[1], xs, state[1], mask, ends, not reverse, other)
        return (there, back), np.concatenate([ys, zs], axis=1)

    return both


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


def gradient(step, params, xs, state, weights, **options):
    """Of all that `unroll` gives, weighed and summed up, by every entry of params, xs and state, in a flat list."""
    n = len(params)

    def loss(*args):
        end, hs = unroll(step, args[:n], args[n], args[n + 1 :], **options)
        return sum(np.sum(w * y) for w, y in zip(weights, (*end, hs), strict=True))

    return jacobian(loss, [*params, xs, *state])
