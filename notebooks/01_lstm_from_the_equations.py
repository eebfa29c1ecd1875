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
# A recurrent cell keeps a state and changes it at every step. The LSTM's state has two parts: $h$, which it shows,
# and $c$, which it keeps. From the input $x_t$ and the state before it, four gates are computed,
#
# $$
# \begin{aligned}
# f_t &= \sigma(W_f\,[h_{t-1}, x_t] + b_f) &&\text{forget: how much of } c_{t-1} \text{ stays}\\
# i_t &= \sigma(W_i\,[h_{t-1}, x_t] + b_i) &&\text{input: how much of the candidate enters}\\
# g_t &= \tanh(W_C\,[h_{t-1}, x_t] + b_C) &&\text{the candidate, often written } \tilde C_t\\
# o_t &= \sigma(W_o\,[h_{t-1}, x_t] + b_o) &&\text{output: how much of } c_t \text{ is shown}
# \end{aligned}
# $$
#
# and then the state, by a sum and not by a product with a matrix:
#
# $$ c_t = f_t \odot c_{t-1} + i_t \odot g_t, \qquad h_t = o_t \odot \tanh c_t. $$
#
# This notebook computes that by hand, then with `jax_lstm`, then differentiates both. Every claim is an `assert`.

# %%
import jax
import jax.numpy as jnp
import numpy as np

import jax_lstm as jl

jax.config.update("jax_enable_x64", True)  # so that equal means equal to 1e-12

# %% [markdown]
# ## One unit, numbers one can follow
#
# One input, one unit, and weights chosen so that the unit is a counter. Gates that are driven to ±20 are open or shut
# to eight digits. The forget gate stays open: nothing is lost. The input gate opens at a 1 and is shut at a 0. The
# candidate is always close to 1. So $c$ counts the ones, and $h$ shows $\tanh$ of the count.
#
# In the textbook's form there is one matrix a gate, of shape (H, H + I): here one row of two.

# %%
counter = jl.TextbookParams(
    W_f=jnp.array([[0.0, 0.0]]), b_f=jnp.array([20.0]),   # f = 1, always
    W_i=jnp.array([[0.0, 40.0]]), b_i=jnp.array([-20.0]), # i = 1 if x = 1, 0 if x = 0
    W_C=jnp.array([[0.0, 0.0]]), b_C=jnp.array([20.0]),   # g = 1, always
    W_o=jnp.array([[0.0, 0.0]]), b_o=jnp.array([20.0]),   # o = 1, always
)  # fmt: skip
params = jl.from_textbook(counter)
print(params)

# %% [markdown]
# The library keeps the same numbers side by side, gates in the order i, f, g, o: `w_x` (I, 4H), `w_h` (H, 4H), `b`
# (4H,). `from_textbook` and `to_textbook` only rearrange them.

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
# Now a cell with random weights, 3 inputs and 4 units, and one step written out from the equations.

# %%
I, H, T = 3, 4, 6
cell = jl.LSTM(input_size=I, hidden_size=H, forget_bias=1.0)
params = cell.init(jax.random.key(0), dtype=jnp.float64)
xs = jax.random.normal(jax.random.key(1), (T, I))


def textbook_step(W, state, x):
    """One step, as the equations above have it; W is a TextbookParams."""
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
# The forget bias is part of `params.b` from the start, so the printed equation is the computed one. `gates_of` shows
# the gates over time; at $b_f = 1$ the forget gate lies around $\sigma(1) = 0.73$.

# %%
gates = jl.gates_of(cell, params, xs)
print("mean forget gate", gates.f.mean(), " mean input gate", gates.i.mean())
np.testing.assert_allclose(jl.to_textbook(params).b_f, 1.0)
assert gates.f.mean() > gates.i.mean()

# %% [markdown]
# ## Over time: a Python loop, `lax.scan`, and `unroll`
#
# The step has the signature that `lax.scan` wants. `jl.unroll` does more: it multiplies all inputs by `w_x` at once
# before the loop, and gives the loop's derivative to JAX in closed form. The numbers are the same.


# %%
def python_loop(W, xs):
    """h at every step, from the textbook's matrices."""
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
# ## A batch is a `vmap`
#
# Every function takes one sequence. A batch is `jax.vmap`, or `jl.batched`, which knows the axes; sequences of
# different lengths carry a mask. A masked step does not happen, so what stands in the padding, NaN even, reaches
# nothing.

# %%
lengths = jnp.array([6, 4, 0])
batch = jax.random.normal(jax.random.key(2), (3, T, I))
mask = jnp.arange(T) < lengths[:, None]
batch = jnp.where(mask[..., None], batch, jnp.nan)

last, hs = jl.batched(jl.unroll)(cell, params, batch, None, mask)
np.testing.assert_allclose(last.h[1], jl.unroll(cell, params, batch[1, :4])[0].h, rtol=1e-12)
np.testing.assert_array_equal(last.h[2], 0)  # length 0: the initial state
assert jnp.isfinite(hs).all()

# %% [markdown]
# ## The same gradients as the Python loop
#
# `grad` through `unroll` against `grad` through the Python loop, with respect to the textbook's eight arrays. Then
# against a difference quotient of the loop, which knows nothing of either.


# %%
def loss_of_hs(hs):
    """Something that feels every output."""
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
print("by difference quotient", quotient, "  by unroll", by_unroll.W_f[2, 1])
np.testing.assert_allclose(by_unroll.W_f[2, 1], quotient, rtol=1e-6)

# %% [markdown]
# Every other transformation works in the same way. The Hessian of the loss in the four forget biases, for example, is
# symmetric, and equals the one through the loop:

# %%
hessian = jax.hessian(lambda b_f: loss_by_unroll(W._replace(b_f=b_f)))(W.b_f)
np.testing.assert_allclose(hessian, hessian.T, atol=1e-13)
np.testing.assert_allclose(hessian, jax.hessian(lambda b_f: loss_by_loop(W._replace(b_f=b_f)))(W.b_f), atol=1e-12)
print(hessian.round(4))

# %% [markdown]
# Next: `02_vanishing_gradients`, how far back these gradients reach.
