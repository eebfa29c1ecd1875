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
# # The LSTM from its equations
#
# A recurrent cell keeps a state and updates it at every step. The state of the LSTM has two parts: the hidden state
# $h$, which is also its output, and the cell state $c$, which is its memory. The LSTM first computes three gates and a
# candidate from the input $x_t$ and the previous hidden state $h_{t-1}$:
#
# $$
# \begin{aligned}
# f_t &= \sigma(W_f\,[h_{t-1}, x_t] + b_f) &&\text{forget gate: how much of } c_{t-1} \text{ is kept}\\
# i_t &= \sigma(W_i\,[h_{t-1}, x_t] + b_i) &&\text{input gate: how much of the candidate is added}\\
# g_t &= \tanh(W_C\,[h_{t-1}, x_t] + b_C) &&\text{candidate, often written } \tilde C_t\\
# o_t &= \sigma(W_o\,[h_{t-1}, x_t] + b_o) &&\text{output gate: how much of } c_t \text{ is output}
# \end{aligned}
# $$
#
# Then it updates the state. The update of $c$ is a sum, not a product with a matrix:
#
# $$ c_t = f_t \odot c_{t-1} + i_t \odot g_t, \qquad h_t = o_t \odot \tanh c_t. $$
#
# This notebook computes these equations by hand, then with `jax_lstm`, and compares the gradients of both. Every claim
# is checked by an `assert`.

# %%
import jax
import jax.numpy as jnp
import numpy as np

import jax_lstm as jl

jax.config.update("jax_enable_x64", True)  # float64, so that results agree to 1e-12

# %% [markdown]
# ## One unit with readable numbers
#
# We choose the weights of one unit with one input so that the unit counts ones. A gate with pre-activation ±20 is 1 or
# 0 to eight digits. The forget gate is always 1, so nothing is lost. The input gate is 1 if the input is 1, and 0 if
# the input is 0. The candidate is always close to 1. So $c$ counts the ones, and $h = \tanh c$.
#
# In the textbook form each gate has one matrix of shape (H, H + I). Here that is one row with two entries.

# %%
counter = jl.TextbookParams(
    W_f=jnp.array([[0.0, 0.0]]), b_f=jnp.array([20.0]),   # f is always 1
    W_i=jnp.array([[0.0, 40.0]]), b_i=jnp.array([-20.0]), # i = 1 if x = 1, i = 0 if x = 0
    W_C=jnp.array([[0.0, 0.0]]), b_C=jnp.array([20.0]),   # g is always 1
    W_o=jnp.array([[0.0, 0.0]]), b_o=jnp.array([20.0]),   # o is always 1
)  # fmt: skip
params = jl.from_textbook(counter)
print(params)

# %% [markdown]
# The library stores the same numbers in three arrays, with the gates in the order i, f, g, o: `w_x` (I, 4H), `w_h` (H,
# 4H) and `b` (4H,). `from_textbook` and `to_textbook` only rearrange them.

# %%
xs = jnp.array([1.0, 0.0, 1.0, 1.0, 0.0, 1.0])[:, None]  # (T, I)
states = jl.unroll_states(jl.LSTM(1, 1), params, xs)
print("x", xs.ravel())
print("c", states.c.ravel().round(6))
print("h", states.h.ravel().round(6))
np.testing.assert_allclose(states.c.ravel(), [1, 1, 2, 3, 3, 4], atol=1e-6)
np.testing.assert_allclose(states.h, jnp.tanh(states.c), atol=1e-6)

# %% [markdown]
# ## Gate by gate
#
# Next, a cell with random weights, 3 inputs and 4 units. We write out one step from the equations.

# %%
I, H, T = 3, 4, 6
cell = jl.LSTM(input_size=I, hidden_size=H, forget_bias=1.0)
params = cell.init(jax.random.key(0), dtype=jnp.float64)
xs = jax.random.normal(jax.random.key(1), (T, I))


def textbook_step(W, state, x):
    """One step of the equations above; W is a TextbookParams."""
    hx = jnp.concatenate([state.h, x])
    f = jax.nn.sigmoid(W.W_f @ hx + W.b_f)
    i = jax.nn.sigmoid(W.W_i @ hx + W.b_i)
    g = jnp.tanh(W.W_C @ hx + W.b_C)
    o = jax.nn.sigmoid(W.W_o @ hx + W.b_o)
    c = f * state.c + i * g
    return jl.LSTMState(h=o * jnp.tanh(c), c=c)


state = cell.initial_state(params)
by_hand = textbook_step(jl.to_textbook(params), state, xs[0])
by_cell, h = cell.step(params, state, xs[0])
np.testing.assert_allclose(by_cell.c, by_hand.c, rtol=1e-12)
np.testing.assert_allclose(h, by_hand.h, rtol=1e-12)
print(by_cell)

# %% [markdown]
# The forget bias is part of `params.b` from the start, so the library computes exactly the equation above. `gates_of`
# returns the gates over time. With $b_f = 1$ the forget gate is around $\sigma(1) = 0.73$.

# %%
gates = jl.gates_of(cell, params, xs)
print("mean forget gate", gates.f.mean(), " mean input gate", gates.i.mean())
np.testing.assert_allclose(jl.to_textbook(params).b_f, 1.0)
assert gates.f.mean() > gates.i.mean()

# %% [markdown]
# ## Over time: a Python loop, `lax.scan`, and `unroll`
#
# `cell.step` has the signature that `lax.scan` expects. `jl.unroll` gives the same numbers and is faster. It multiplies
# all inputs by `w_x` in one product before the loop, and it gives JAX the derivative of the loop in closed form.


# %%
def python_loop(W, xs):
    """Compute h at every step with the textbook matrices."""
    state, hs = jl.LSTMState(jnp.zeros(H), jnp.zeros(H)), []
    for x in xs:
        state = textbook_step(W, state, x)
        hs.append(state.h)
    return jnp.stack(hs)


hs_loop = python_loop(jl.to_textbook(params), xs)
_, hs_scan = jax.lax.scan(lambda state, x: cell.step(params, state, x), cell.initial_state(params), xs)
last, hs = jl.unroll(cell, params, xs)

np.testing.assert_allclose(hs_scan, hs_loop, rtol=1e-12)
np.testing.assert_allclose(hs, hs_loop, rtol=1e-12)
np.testing.assert_array_equal(last.h, hs[-1])

# %% [markdown]
# ## Batches
#
# Every function takes one sequence. For a batch, use `jax.vmap`, or `jl.batched`, which sets the axes. Pass a mask if
# the sequences have different lengths. A step with mask False is skipped: the state does not change, and the input at
# that step has no effect, even if it is NaN.

# %%
lengths = jnp.array([6, 4, 0])
batch = jax.random.normal(jax.random.key(2), (3, T, I))
mask = jnp.arange(T) < lengths[:, None]
batch = jnp.where(mask[..., None], batch, jnp.nan)

last, hs = jl.batched(jl.unroll)(cell, params, batch, None, mask)
np.testing.assert_allclose(last.h[1], jl.unroll(cell, params, batch[1, :4])[0].h, rtol=1e-12)
np.testing.assert_array_equal(last.h[2], 0)  # a sequence of length 0 returns the initial state
assert jnp.isfinite(hs).all()

# %% [markdown]
# ## Gradients
#
# We compare the gradient through `unroll` with the gradient through the Python loop, with respect to the eight textbook
# arrays. Then we compare it with a finite difference of the loop, which uses neither gradient.


# %%
def loss_of_hs(hs):
    """A loss that depends on every output."""
    return (hs * jnp.arange(1.0, 1 + hs.size).reshape(hs.shape)).mean()


def loss_by_loop(W):
    return loss_of_hs(python_loop(W, xs))


def loss_by_unroll(W):
    return loss_of_hs(jl.unroll(cell, jl.from_textbook(W), xs)[1])


W = jl.to_textbook(params)
by_loop, by_unroll = jax.grad(loss_by_loop)(W), jax.grad(loss_by_unroll)(W)
for name, a, b in zip(W._fields, by_unroll, by_loop, strict=True):
    print(f"{name:4s} largest difference {jnp.abs(a - b).max():.1e}   norm {jnp.linalg.norm(b):.3f}")
    np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13)

# %%
eps = 1e-6
up, down = (loss_by_loop(W._replace(W_f=W.W_f.at[2, 1].add(d))) for d in (eps, -eps))
quotient = (up - down) / (2 * eps)
print("finite difference", quotient, "  gradient through unroll", by_unroll.W_f[2, 1])
np.testing.assert_allclose(by_unroll.W_f[2, 1], quotient, rtol=1e-6)

# %% [markdown]
# Every other transformation of JAX works in the same way. For example, the Hessian of the loss with respect to the four
# forget biases is symmetric and equals the Hessian through the Python loop:

# %%
hessian = jax.hessian(lambda b_f: loss_by_unroll(W._replace(b_f=b_f)))(W.b_f)
np.testing.assert_allclose(hessian, hessian.T, atol=1e-13)
np.testing.assert_allclose(hessian, jax.hessian(lambda b_f: loss_by_loop(W._replace(b_f=b_f)))(W.b_f), atol=1e-12)
print(hessian.round(4))

# %% [markdown]
# Next: `02_vanishing_gradients` measures how far back these gradients reach.
