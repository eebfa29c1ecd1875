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
# # Lyapunov exponents, and the paths of the gradient
#
# `02_vanishing_gradients` measured the norm of a product of Jacobians. This notebook measures all directions of that
# product, the paths that a gradient takes through an LSTM, and the memory of each unit. Every claim is checked by an
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
# ## Lyapunov exponents
#
# Two states that start close together separate or converge like $e^{\lambda t}$. There are as many rates $\lambda$ as
# the state has entries. With a QR decomposition at every step, $J_t Q_{t-1} = Q_t R_t$, each rate is the mean of
# $\log |R_{t,ii}|$ (Benettin et al. 1980). `lyapunov_exponents` takes any map. We test it on two maps with known
# exponents. The logistic map at $r = 4$ has the exponent $\log 2$. The two exponents of the Hénon map add up to exactly
# $\log 0.3$, because its determinant is the same everywhere.

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
# ## The exponents of a network
#
# `lyapunov_spectrum` computes the exponents of a cell along a sequence. Use `jax.vmap` for a batch, and `k` for the
# largest exponents only; the result is differentiable. The sum of all exponents is the mean of $\log |\det J_t|$, for
# any number of steps. For the LSTM this determinant has a closed form in the gates,
# $\sum \log f + \sum \log |\tanh(c) \, o (1 - o)| + \log |\det U_o|$.

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
assert spectrum[0] < 0  # an untrained LSTM forgets

# %% [markdown]
# **Use the full state $(h, c)$.** Measuring only $\partial h_t / \partial h_{t-1}$, with $c$ held constant, leaves out
# the additive update of $c$. If the memory is long, the result is far off: with a forget bias of 3, it wrongly reports
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
# ## All directions of the gradient
#
# `singular_values` measures every direction of $\partial s_T / \partial s_{T-k}$. At the default initialization the
# singular values spread quickly: after 60 steps the gradient carries only a handful of numbers, whatever its norm is.
# An SVD of the product would resolve only the upper sixteen decades. Here every line is as exact as the first.

# %%
log_sigma = gradflow.singular_values(lstm, params, xs[:60])
np.testing.assert_allclose(log_sigma[:, 0], gradflow.sensitivity(lstm, params, xs[:60]), rtol=1e-10, atol=1e-12)
carried = int((log_sigma[0] > log_sigma[0, 0] - np.log(1e3)).sum())
print(f"after 60 steps {carried} of {2 * H} directions are within three decades of the largest")
assert carried < H
assert log_sigma[0, -1] < -16 * np.log(10)
plots.plot_spectrum(log_sigma)

# %% [markdown]
# ## Along c or through h
#
# $\partial c_T / \partial c_k$ is the product of the forget gates, plus the sum over all paths that pass through an
# $h$. `paths` computes each part on its own. With a forget bias of 1, the forget gates explain only the first few
# steps. With the chrono initialization they explain nearly everything.

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
# The original LSTM of 1997 stopped the gradient at every $h$ that enters a step, so only the path along $c$ was left.
# Many measurements, such as `retention`, have the option `truncate="1997"`. To train with this gradient, use
# `gradflow.Truncated(cell)`.

# %%
kept = gradflow.retention(lstm, params, xs[:100], truncate="1997").c
np.testing.assert_allclose(kept[0], np.log(gates.f[:100]).sum(0), rtol=1e-9)

# %% [markdown]
# ## The memory of each unit
#
# `retention` is the derivative of each entry of the last state with respect to the same entry of an earlier state, over
# all paths. The chrono initialization draws the forget biases so that the memories of the units spread over 1 to 100
# steps. The plot shows this: units at the top keep most of their value through the sequence, units at the bottom lose
# it within a few steps.

# %%
memory = gradflow.retention(lstm, chrono, xs[:100]).c
half = np.asarray(memory[50])  # 50 steps before the last state
holds, lets_go = (half > np.log(0.1)).sum(), (half < np.log(0.1)).sum()
print(f"over 50 steps {holds} units keep more than a tenth of their value, and {lets_go} keep less")
assert holds > H / 2
assert lets_go >= 4
plots.plot_retention(memory)

# %% [markdown]
# ## Order and chaos
#
# An autonomous tanh network with weights $g \, N(0, 1/N)$ decays to rest for $g < 1$ and is chaotic for $g > 1$
# (Sompolinsky, Crisanti & Sommers 1988). The largest exponent changes sign at $g = 1$. `fixed_points` finds the states
# at which a network stays. One unit with weight 2 has two stable states and an unstable one between them, so it is a
# memory of one bit.

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
# ## Training the exponents
#
# Exponents are differentiable, through the QR decompositions. Gradient flossing (Engelken 2023) trains the largest
# exponents towards 0 before the task is trained, so that gradients neither vanish nor explode. Here we do this for a
# tanh RNN, with a hundred steps of Adam:

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
    {
        "before": gradflow.sensitivity(rnn, rnn_params, xs[:60]),
        "after flossing": gradflow.sensitivity(rnn, flossed, xs[:60]),
    }
)

# %% [markdown]
# ## Summary
#
# The norm of the gradient does not show how many directions survive, whether they pass along $c$ or through $h$, which
# units have a long memory, or whether the network is chaotic. `jax-lstm gradflow RUN` plots all of these for your own
# run on one page.
