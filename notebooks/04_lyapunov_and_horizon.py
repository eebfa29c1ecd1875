# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Lyapunov exponents, and by which way a gradient comes back
#
# `02_vanishing_gradients` looked at one number a step, the norm of a product of Jacobians. Here we look inside: at all
# its directions, at the ways a gradient takes through an LSTM, and at each unit's own memory. Every claim is an
# `assert`.

# %%
# %matplotlib inline
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jax_lstm as jl
from jax_lstm import gradflow
from jax_lstm.gradflow import plots

jax.config.update("jax_enable_x64", True)

# %% [markdown]
# ## What an exponent is
#
# Two states that start close together part, or meet, like $e^{\lambda t}$. There are as many such rates as a state has
# entries. They come from a QR decomposition at every step, $J_t Q_{t-1} = Q_t R_t$, as the mean of
# $\log |R_{t,ii}|$ (Benettin et al. 1980). `lyapunov_exponents` takes any map. Two for which the answer is known: the
# logistic map at $r = 4$ has $\log 2$, and the two exponents of the Hénon map add up to $\log 0.3$ exactly, because
# its determinant is the same everywhere.

# %%
logistic = gradflow.lyapunov_exponents(lambda s: 4 * s * (1 - s), jnp.array([0.3]), steps=100_000)
henon = gradflow.lyapunov_exponents(
    lambda s: (1 - 1.4 * s[0] ** 2 + s[1], 0.3 * s[0]), (jnp.zeros(1), jnp.zeros(1)), steps=100_000, burn_in=100
)
print("logistic", logistic, " Hénon", henon)
np.testing.assert_allclose(logistic, np.log(2), atol=1e-4)
np.testing.assert_allclose(henon, [0.4192, -1.6232], atol=3e-3)
np.testing.assert_allclose(henon.sum(), np.log(0.3), rtol=1e-12)

# %% [markdown]
# ## A network is a map that is driven
#
# `lyapunov_spectrum` is the same for a cell along a sequence: `jax.vmap` it for a batch, differentiate it, ask for
# the largest `k` only. The sum of all exponents is the mean of $\log |\det J_t|$, at any length. For the LSTM that
# determinant has a closed form in the gates, $\sum \log f + \sum \log |\tanh(c) \, o (1 - o)| + \log |\det U_o|$.

# %%
I, H, T = 8, 32, 1000
xs = jax.random.normal(jax.random.key(0), (T, I))
lstm = jl.LSTM(I, H)
params = lstm.init(jax.random.key(1), jnp.float64)
spectrum = gradflow.lyapunov_spectrum(lstm, params, xs)

gates = jl.gates_of(lstm, params, xs)
c = jl.unroll_states(lstm, params, xs).c
U_o = np.split(np.asarray(params.w_h), 4, axis=1)[3]
log_det = np.log(gates.f).sum(1) + np.log(np.abs(np.tanh(c) * gates.o * (1 - gates.o))).sum(1)
print(f"largest {spectrum[0]:.3f}, smallest {spectrum[-1]:.2f}, sum {spectrum.sum():.3f} nats a step")
np.testing.assert_allclose(spectrum.sum(), log_det.mean() + np.linalg.slogdet(U_o)[1], rtol=1e-9)
assert spectrum[0] < 0  # a fresh LSTM forgets

# %% [markdown]
# **The state is $(h, c)$.** A measurement of $\partial h_t / \partial h_{t-1}$ alone, with $c$ held constant, leaves
# out the very sum that the LSTM is about. For a long memory it is wrong by a lot: with a forget bias of 3 it reports
# a network that forgets at once.

# %%
keeps = jl.LSTM(I, H, forget_bias=3.0).init(jax.random.key(1), jnp.float64)
J = np.asarray(gradflow.step_jacobians(lstm, keeps, xs[:200]))
Q, log_growth = np.eye(H), np.zeros(H)
for J_t in J[:, :H, :H]:  # ∂h_t/∂h_{t−1} only
    Q, R = np.linalg.qr(J_t @ Q)
    log_growth += np.log(np.abs(np.diag(R)))
full = gradflow.lyapunov_spectrum(lstm, keeps, xs[:200], k=1)[0]
print(f"largest exponent of (h, c) {full:+.3f}, of h alone {log_growth.max() / 200:+.3f}")
assert full > -0.05
assert log_growth.max() / 200 < full - 0.3

# %% [markdown]
# ## All directions: the fan
#
# `singular_values` follows every direction of $\partial s_T / \partial s_{T-k}$. At the default start the fan is wide:
# after 60 steps the gradient carries a handful of numbers and no more, whatever the norm says. An SVD of the product
# would see its upper sixteen decades only; here every line is as exact as the first.

# %%
log_sigma = gradflow.singular_values(lstm, params, xs[:60])
np.testing.assert_allclose(log_sigma[:, 0], gradflow.sensitivity(lstm, params, xs[:60]), rtol=1e-10, atol=1e-12)
carried = int((log_sigma[0] > log_sigma[0, 0] - np.log(1e3)).sum())
print(f"after 60 steps {carried} of {2 * H} directions are within three decades of the largest")
assert carried < H
assert log_sigma[0, -1] < -16 * np.log(10)
plots.plot_spectrum(log_sigma)

# %% [markdown]
# ## By which way
#
# $\partial c_T / \partial c_k$ is the product of the forget gates, plus everything that passed an $h$ on its way.
# `paths` computes each by itself. At a forget bias of 1 the forget gates explain the first few steps only. With the
# chrono initialisation they explain nearly everything.

# %%
chrono = jl.LSTM(I, H, chrono=100).init(jax.random.key(1), jnp.float64)
for name, p in {"b_f = 1": params, "chrono(100)": chrono}.items():
    every, along_c, through_h = (gradflow.paths(lstm, p, xs[:100], through=way) for way in ("all", "cell", "hidden"))
    np.testing.assert_allclose(along_c + through_h, every, rtol=1e-9, atol=1e-15)
    cell, hidden = (jnp.linalg.norm(a, axis=(1, 2)) for a in (along_c, through_h))
    share = cell / (cell + hidden)
    print(f"{name:12s} share along c after 1, 10, 50 steps: {share[-2]:.2f} {share[-11]:.2f} {share[-51]:.2g}")
    if p is params:
        assert share[-2] > 0.5
        assert share[-51] < 0.05
    else:
        assert share[-51] > 0.5
plots.plot_path_shares(cell, hidden)

# %% [markdown]
# The original LSTM of 1997 had its gradient cut at every $h$ that enters a step, so that the way along $c$ was all
# there was. Every measurement has that as a switch, and `gradflow.Truncated(cell)` is a cell to train with so.

# %%
kept = gradflow.retention(lstm, params, xs[:100], truncate="1997").c
np.testing.assert_allclose(kept[0], np.log(gates.f[:100]).sum(0), rtol=1e-9)

# %% [markdown]
# ## Every unit's own memory
#
# `retention` is what each entry of the state keeps of itself, by all ways. Under chrono the forget biases are drawn so
# that the units' memories spread over 1 to 100 steps, and they do: rows at the top keep most of their value through the
# sequence, rows at the bottom lose it within a few steps.

# %%
memory = gradflow.retention(lstm, chrono, xs[:100]).c
half = np.asarray(memory[50])  # after 50 steps back
holds, lets_go = (half > np.log(0.1)).sum(), (half < np.log(0.1)).sum()
print(f"over 50 steps {holds} units keep more than a tenth of themselves, and {lets_go} less")
assert holds > H / 2
assert lets_go >= 4
plots.plot_retention(memory)

# %% [markdown]
# ## Order and chaos
#
# An undriven tanh network with weights $g \, N(0, 1/N)$ rests for $g < 1$ and is chaotic beyond (Sompolinsky, Crisanti
# & Sommers 1988). The largest exponent changes sign there. And where a network rests, `fixed_points` finds it: one
# unit with weight 2 has two stable states and an unstable one between them. It is a memory of one bit.

# %%
N = 100
W = jax.random.normal(jax.random.key(2), (N, N)) / np.sqrt(N)
s = jax.random.normal(jax.random.key(3), (N,))
for g in (0.8, 2.0, 3.0):
    largest = gradflow.lyapunov_exponents(lambda s, g=g: jnp.tanh(g * W @ s), s, steps=600, k=1, burn_in=200)[0]
    print(f"g = {g}: {largest:+.3f} nats a step")
    assert (largest > 0) == (g > 1)

bit = jl.RNN(1, 1)
weight_two = jl.RNNParams(jnp.zeros((1, 1)), jnp.full((1, 1), 2.0), jnp.zeros(1))
found = gradflow.fixed_points(bit, weight_two, jnp.zeros(1), jl.RNNState(jnp.array([[-0.5], [0.01], [0.5]])))
print("fixed points", found.points.h[:, 0], "with slopes", found.eigenvalues[:, 0].real)
assert (np.abs(found.eigenvalues[:, 0]) < 1).tolist() == [True, False, True]

# %% [markdown]
# ## Training the exponents themselves
#
# Exponents can be differentiated, through the QR decompositions. Gradient flossing (Engelken 2023) pulls the largest
# ones towards 0 before training, so that gradients neither vanish nor explode. A hundred steps of Adam on a tanh RNN:

# %%
rnn = jl.RNN(I, 16)
rnn_params = rnn.init(jax.random.key(4), jnp.float64)
adam = optax.adam(3e-3)


def flossing(p):
    return (gradflow.lyapunov_spectrum(rnn, p, xs[:60], k=5) ** 2).sum()


@jax.jit
def floss(p, opt_state):
    grads = jax.grad(flossing)(p)
    updates, opt_state = adam.update(grads, opt_state)
    return optax.apply_updates(p, updates), opt_state


flossed, opt_state = rnn_params, adam.init(rnn_params)
for _ in range(100):
    flossed, opt_state = floss(flossed, opt_state)
before, after = (gradflow.lyapunov_spectrum(rnn, p, xs[:60], k=5) for p in (rnn_params, flossed))
print("before", np.round(before, 2), " after", np.round(after, 2))
assert np.abs(after).max() < 0.3 * np.abs(before).max()
plots.plot_profile(
    {"as drawn": gradflow.sensitivity(rnn, rnn_params, xs[:60]), "flossed": gradflow.sensitivity(rnn, flossed, xs[:60])}
)

# %% [markdown]
# ## In sum
#
# One number hides much: how many directions survive, whether they come along $c$ or through $h$, which units hold, and
# whether what survives is memory or chaos. `jax-lstm gradflow RUN` draws all of this on one page, for a run of yours.
