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
# # Measuring vanishing gradients
#
# The gradient of a loss at step $T$ with respect to an earlier state $s_k$ contains a product of Jacobians,
#
# $$
# \frac{\partial s_T}{\partial s_k} = J_T J_{T-1} \cdots J_{k+1}, \qquad J_t = \frac{\partial s_t}{\partial s_{t-1}}.
# $$
#
# If each step shrinks vectors, the product falls exponentially in $T - k$. The network then learns nothing over long
# lags: the gradient vanishes (Hochreiter 1991; Bengio, Simard & Frasconi 1994). The LSTM was designed to avoid this.
# This notebook measures how well it does so before training. We use the *full* state, which is $s = (h, c)$ for the
# LSTM. Every claim is checked by an `assert`.

# %%
# %matplotlib inline
import jax
import jax.numpy as jnp
import numpy as np

import jax_lstm as jl
from jax_lstm import gradflow
from jax_lstm.gradflow import headline_table
from jax_lstm.gradflow.plots import plot_profile

jax.config.update("jax_enable_x64", True)

I, H, T = 8, 64, 100
xs = jax.random.normal(jax.random.key(0), (T, I))

# %% [markdown]
# ## The plain product of Jacobians
#
# `step_jacobians` returns every $J_t$. For an RNN $h_t = \tanh(W h_{t-1} + V x_t)$, the Jacobian is
# $\mathrm{diag}(1 - h_t^2)\,W$. If $W$ is orthogonal, multiplying by $W$ does not change the norm of a vector. The
# factor $1 - h_t^2$, the slope of the $\tanh$, does: it is below 1 at every unit whose $h$ is not 0.

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
# In float32 this product underflows to exactly 0, because the smallest normal float32 is 1e-38. `sensitivity`
# stores the scale of every direction as a logarithm. It returns the natural log of
# $\lVert \partial s_T / \partial s_k \rVert_2$ for $k = 0, \dots, T$. The values agree with the plain product where
# that can be computed.

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
# One block of its Jacobian has no matrix product: with $h$ held constant, $\partial c_t / \partial c_{t-1}$ is
# $\mathrm{diag}(f_t)$. A forget gate near 1 therefore passes a gradient over many steps. But in an untrained LSTM the
# gate is not near 1. It is $\sigma(b_f + \ldots)$, where the dots are the contributions of the input and of $h$.

# %%
lstm = jl.LSTM(I, H)
lstm_params = lstm.init(jax.random.key(1), jnp.float64)
J = gradflow.step_jacobians(lstm, lstm_params, xs)
f = jl.gates_of(lstm, lstm_params, xs).f
np.testing.assert_allclose(J[5, H:, H:], jnp.diag(f[5]), atol=1e-12)  # h comes first in s, so the last block is ∂c/∂c

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
# The plot shows three things:
#
# 1. The default LSTM, $b_f = 1$, loses far less than the RNN. **But its gradient also vanishes**, by several decades in
#    100 steps.
# 2. With $b_f = 0$ the LSTM is hardly better than the RNN. A forget gate near 0.5 halves $c$ at every step.
# 3. With $b_f = 3$ the norm *grows*: the paths through $h$ add more than the forget gate removes. The chrono
#    initialization spreads the memories of the units over 1 to 100 steps, and keeps the norm near 1.

# %%
assert 4 < lost["LSTM, b_f = 1"] < 11  # the gradient vanishes
assert lost["LSTM, b_f = 1"] + 5 < lost["LSTM, b_f = 0"] < lost["tanh RNN, orthogonal"]
assert lost["LSTM, b_f = 3"] < 0  # the gradient grows
assert abs(lost["LSTM, chrono(100)"]) < 1

# %% [markdown]
# ## The forget gates explain only a part
#
# The usual explanation is that the gradient flows along $c$, through the product of the forget gates $\prod_t f_t$. In
# the default LSTM that product is far too small to explain the measured norm. Most of the gradient flows through $h$.

# %%
along_c = np.log10(np.asarray(f)).sum(0).max()  # product of forget gates, largest over units
full = np.asarray(profiles["LSTM, b_f = 1"])[0] / np.log(10)
print(f"along c alone 1e{along_c:.1f}, the full product 1e{full:.1f}")
assert along_c < full - 2

# %% [markdown]
# ## Memory horizon at rest and on data
#
# At rest means at zero state and zero input. `horizon` is the number of steps over which the norm falls by a factor e
# at rest: $-1 / \log \rho(J)$, with $\rho$ the largest absolute eigenvalue. For an LSTM at rest, the eigenvalues of $J$
# other than 0 are exactly $\sigma(b_f) + \lambda(U_g)/4$. $U_g$ are the recurrent weights of the candidate $g$, and
# $\lambda$ their eigenvalues. If $U_g$ is orthogonal, the horizon at $b_f = 1$ is at most 52 steps. From
# $b_f = \log 3$ on, it has no bound.
#
# On data, inputs change the gates, and the memory is shorter. `data_horizon` measures this from the slope of the
# profile, and is the value to report. An orthogonal tanh RNN shows the difference: at rest its horizon is infinite, but
# on data it forgets within a few steps.

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
# ## The gradient of a loss
#
# `adjoint_norms` takes a loss and returns $\log \lVert dL/ds_t \rVert$ for $h$ and for $c$. If only the last step has a
# loss, the gradient at early states is as small as the profile predicts. If every step has a loss, this is hidden,
# because each state has a loss term of its own. So a healthy gradient norm does not show that long lags can be learned.

# %%
at_the_end = gradflow.adjoint_norms(lambda states: jnp.square(states.h[-1]).sum(), lstm, lstm_params, xs)
everywhere = gradflow.adjoint_norms(lambda states: jnp.square(states.h).sum(), lstm, lstm_params, xs)
print("log10 ‖dL/dc_t‖ at t =            1     50     90     99")
for name, log_norms in {"loss at the last step": at_the_end.c, "loss at every step": everywhere.c}.items():
    print(f"{name:24s}", *(f"{float(log_norms[t - 1]) / np.log(10):6.1f}" for t in (1, 50, 90, 99)))
assert everywhere.c[0] - at_the_end.c[0] > 4 * np.log(10)

# %% [markdown]
# ## The headline table: ten cells, five seeds
#
# The table shows the same measurement for nine initializations and for the library's default, with five seeds each. The
# command `python -m jax_lstm.gradflow.headline_table` prints it too. Each entry is the geometric mean over seeds. The
# number in parentheses is log10 of the largest seed divided by the smallest. The LSTMs above the last row have a
# smaller `w_x` than the default (see `headline_table.py`), so the inputs change their gates less. At $b_f = 1$ this
# alone changes the norm by four decades. So the scale of the input weights matters as much as the forget bias.

# %%
rows = {row.name: headline_table.profiles(row) for row in headline_table.ROWS}
columns = {name: headline_table.decades(log_norms) for name, log_norms in rows.items()}
print(headline_table.table(columns))
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
# ## Summary
#
# The additive update of $c$ makes a long memory *possible*; the initialization decides whether the LSTM has one. With
# the default forget bias of 1, less than a millionth of the gradient is left after 100 steps. If the task has long lags
# of known length T, use `jl.LSTM(I, H, chrono=T)`.
