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
# # Vanishing gradients, measured
#
# What a loss at step $T$ can teach a weight about step $k$ passes through a product of Jacobians,
#
# $$
# \frac{\partial s_T}{\partial s_k} = J_T J_{T-1} \cdots J_{k+1}, \qquad J_t = \frac{\partial s_t}{\partial s_{t-1}}.
# $$
#
# If a step shrinks vectors, the product falls exponentially in $T - k$, and nothing is learned over long lags: the
# gradient vanishes (Hochreiter 1991; Bengio, Simard & Frasconi 1994). The LSTM was made against that. How well does
# it do, before any training? We look at the *full* state, $s = (h, c)$ for the LSTM. Every claim is an `assert`.

# %%
# %matplotlib inline
import jax
import jax.numpy as jnp
import numpy as np

import jax_lstm as jl
from jax_lstm import gradflow
from jax_lstm.gradflow import headline
from jax_lstm.gradflow.plots import plot_profile

jax.config.update("jax_enable_x64", True)

I, H, T = 8, 64, 100
xs = jax.random.normal(jax.random.key(0), (T, I))

# %% [markdown]
# ## The product, formed as it stands
#
# `step_jacobians` gives every $J_t$. For an RNN $h_t = \tanh(W h_{t-1} + V x_t)$ with orthogonal $W$ it is
# $\mathrm{diag}(1 - h_t^2)\,W$: a rotation, then a shrinking by the slope of the $\tanh$. The rotation loses nothing.
# The slope does, wherever the input drives a unit away from zero.

# %%
rnn = jl.RNN(I, H)
rnn_params = rnn.init(jax.random.key(1), jnp.float64)
J = gradflow.step_jacobians(rnn, rnn_params, xs)
hs = jl.unroll(rnn, rnn_params, xs)[1]
np.testing.assert_allclose(J[5], (1 - hs[5] ** 2)[:, None] * rnn_params.w_h.T, atol=1e-12)

product, norms = np.eye(H), []
for J_t in np.asarray(J)[::-1]:
    product = product @ J_t
    norms.append(np.linalg.norm(product, 2))
print(f"after  10 steps back {norms[9]:.0e}\nafter 100 steps back {norms[99]:.0e}")
assert norms[99] < 1e-15

# %% [markdown]
# In float32 this product is exactly 0 long before it should be: the least normal float32 is 1e-38. `sensitivity`
# keeps every direction's scale as a logarithm, and returns $\log \lVert \partial s_T / \partial s_k \rVert_2$
# (natural) for $k = 0, \dots, T$. It agrees where the product can be formed, and goes on where it cannot.

# %%
log_norms = gradflow.sensitivity(rnn, rnn_params, xs)
np.testing.assert_allclose(log_norms[::-1][1:], np.log(norms), rtol=1e-9)

sigmoid_rnn = jl.RNN(I, H, activation="sigmoid")
params_32 = sigmoid_rnn.init(jax.random.key(1))  # float32, by default
xs_32 = xs.astype(jnp.float32)
plain = np.linalg.multi_dot(np.asarray(gradflow.step_jacobians(sigmoid_rnn, params_32, xs_32))[::-1])
kept = gradflow.sensitivity(sigmoid_rnn, params_32, xs_32)[0] / np.log(10)
print("plain product in float32:", np.abs(plain).max(), f"  sensitivity in float32: 1e{kept:.0f}")
assert np.abs(plain).max() == 0
assert -75 < kept < -60

# %% [markdown]
# ## The LSTM
#
# Its Jacobian has a block that is no product with a matrix: $\partial c_t / \partial c_{t-1}$, with $h$ held
# constant, is $\mathrm{diag}(f_t)$. A gate near 1 lets a gradient pass for long. That is the idea. What a fresh LSTM
# does is another matter, because a fresh gate is not near 1: it is $\sigma(b_f)$ and what input and state add.

# %%
lstm = jl.LSTM(I, H)
lstm_params = lstm.init(jax.random.key(1), jnp.float64)
J = gradflow.step_jacobians(lstm, lstm_params, xs)
f = jl.gates_of(lstm, lstm_params, xs).f
np.testing.assert_allclose(J[5, H:, H:], jnp.diag(f[5]), atol=1e-12)  # h comes first: the last block is c by c

profiles = {"tanh RNN, orthogonal": log_norms}
for name, cell in {
    "LSTM, b_f = 0": jl.LSTM(I, H, forget_bias=0.0),
    "LSTM, b_f = 1": lstm,
    "LSTM, b_f = 3": jl.LSTM(I, H, forget_bias=3.0),
    "LSTM, chrono(100)": jl.LSTM(I, H, chrono=100),
}.items():
    profiles[name] = gradflow.sensitivity(lstm, cell.init(jax.random.key(1), jnp.float64), xs)
lost = {name: float(-log_norms[0] / np.log(10)) for name, log_norms in profiles.items()}
for name, decades in lost.items():
    print(f"{name:22s} {decades:5.1f} decades lost in {T} steps")
plot_profile(profiles)

# %% [markdown]
# Three things to read off.
#
# 1. The default LSTM, $b_f = 1$, loses far less than the RNN, **and it vanishes too**: several decades in 100 steps.
# 2. With $b_f = 0$ it is hardly better than the RNN. A gate near one half halves what it keeps at every step.
# 3. With $b_f = 3$ the norm *grows*: what is added through $h$ is then more than what the gate takes away. The chrono
#    initialisation, which spreads the units' memories over 1 to 100 steps, keeps it near 1.

# %%
assert 4 < lost["LSTM, b_f = 1"] < 11  # it vanishes
assert lost["LSTM, b_f = 1"] + 5 < lost["LSTM, b_f = 0"] < lost["tanh RNN, orthogonal"]
assert lost["LSTM, b_f = 3"] < 0  # it grows
assert abs(lost["LSTM, chrono(100)"]) < 1

# %% [markdown]
# ## Not by the forget gates alone
#
# The usual picture has the gradient flow along $c$, through the product of the forget gates, $\prod_t f_t$. In the
# default LSTM that product is far too small to explain what is left: most of it took ways through $h$.

# %%
along_c = np.log10(np.asarray(f)).sum(0).max()  # the best unit's product of forget gates
full = np.asarray(profiles["LSTM, b_f = 1"])[0] / np.log(10)
print(f"along c alone 1e{along_c:.1f}, the full product 1e{full:.1f}")
assert along_c < full - 2

# %% [markdown]
# ## At rest and on data
#
# `horizon` is the number of steps in which the norm falls by a factor e near rest, $-1 / \log \rho(J)$. For the LSTM
# with zero state and input the eigenvalues of $J$ are exactly $\sigma(b_f) + \lambda(U_g)/4$, so an orthogonal $U_g$
# gives at most 52 steps at $b_f = 1$, and no bound from $b_f = \log 3$ on. On data the gates are driven away from
# rest, and the memory is shorter: `data_horizon`, from the slope of the profile, is the figure to trust. An
# orthogonal tanh RNN shows why: at rest it remembers for ever, on data it forgets within a few steps.

# %%
for name, cell in {"tanh RNN": rnn, "LSTM": lstm}.items():
    params = cell.init(jax.random.key(1), jnp.float64)
    rest, data = gradflow.horizon(cell, params), gradflow.data_horizon(cell, params, xs)
    print(f"{name:9s} at rest {rest:6.1f} steps, on data {data:5.1f} steps")
    assert data < rest

U_g = np.split(np.asarray(lstm_params.w_h), 4, axis=1)[2].T
radius = np.abs(jax.nn.sigmoid(1.0) + np.linalg.eigvals(U_g) / 4).max()
np.testing.assert_allclose(gradflow.horizon(lstm, lstm_params), -1 / np.log(radius), rtol=1e-9)
assert gradflow.horizon(lstm, lstm_params) < 52.3
assert gradflow.horizon(rnn, rnn_params) > 1e6

# %% [markdown]
# ## What a loss feels
#
# `adjoint_norms` takes the loss itself and gives $\log \lVert dL/ds_t \rVert$, for $h$ and for $c$. A loss at the
# last step alone feels early states as little as the profile says. A loss at every step hides it, because each state
# then has a term of its own: a healthy gradient norm says nothing about long lags.

# %%
at_the_end = gradflow.adjoint_norms(lambda states: jnp.square(states.h[-1]).sum(), lstm, lstm_params, xs)
everywhere = gradflow.adjoint_norms(lambda states: jnp.square(states.h).sum(), lstm, lstm_params, xs)
print("log10 ‖dL/dc_t‖ at t =            1     50     90     99")
for name, log_norms in {"loss at the last step": at_the_end.c, "loss at every step": everywhere.c}.items():
    print(f"{name:24s}", *(f"{float(log_norms[t - 1]) / np.log(10):6.1f}" for t in (1, 50, 90, 99)))
assert everywhere.c[0] - at_the_end.c[0] > 4 * np.log(10)

# %% [markdown]
# ## The headline: ten cells, five seeds
#
# The same measurement over nine initialisations and the library's default, five seeds each. This command prints the
# same table: `python -m jax_lstm.gradflow.headline`. Means are geometric; in brackets the decades between the least
# seed and the largest. The LSTMs above the last row have a weaker `w_x` than the default (`headline.py` says which),
# so that their gates stay nearer to rest: at $b_f = 1$ that alone makes four decades. How strongly the input drives
# the gates matters as much as the forget bias.

# %%
rows = {row.name: headline.profiles(row) for row in headline.ROWS}
columns = {name: headline.decades(log_norms) for name, log_norms in rows.items()}
print(headline.table(columns))
plot_profile({name: log_norms.mean(0) for name, log_norms in rows.items()})

# %%
after_99 = {name: float(d[:, -1].mean()) for name, d in columns.items()}
for row, d in after_99.items():
    verdict = "vanishes" if d < -2 else "grows" if d > 1 else "stays"
    print(f"{row:40s} {verdict}")
assert after_99["LSTM, as jl.LSTM(8, 64) starts"] < -6
assert after_99["LSTM, per-gate orthogonal, b_f=1"] > after_99["LSTM, as jl.LSTM(8, 64) starts"] + 3
assert [d > 0 for d in after_99.values()] == ["g=3" in row or "b_f=3" in row for row in after_99]

# %% [markdown]
# ## In sum
#
# The LSTM's sum makes a long memory *possible*; its initialisation decides whether there is one. As it starts here,
# with a forget bias of 1, less than a millionth of a gradient is left after 100 steps. Where the lags are long and
# their length is known, say so: `jl.LSTM(I, H, chrono=T)`.
