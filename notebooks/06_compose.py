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
# # Composing with JAX
#
# A cell is a pure function of its params, so every JAX transformation applies to it: `vmap`, `grad`, `jvp` and `scan`,
# nested in any order. This notebook shows four uses:
#
# - acting in 64 environments, and replaying the recorded steps;
# - an ensemble that trains as one program;
# - per-example gradients;
# - curvature without forming a Hessian.
#
# Every claim is checked by an `assert`.

# %%
# %matplotlib inline
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

import jax_lstm as jl
from jax_lstm.gradflow.plots.canvas import COLOURS, canvas, figure_of, legend
from jax_lstm.layers import Readout

jax.config.update("jax_enable_x64", True)  # float64, so that results agree to 1e-12

# %% [markdown]
# ## Acting step by step, and replaying the recorded steps
#
# An agent with a recurrent policy acts one step at a time, because the next observation depends on its action. To learn
# from the recorded steps, we run them again as one sequence. The states in this replay must equal the states during
# acting. Episodes end in the middle of the sequence, and each episode starts from the initial state.
#
# The environment here is a walk on a line. The policy chooses a step to the left or to the right. An episode ends at
# ±4, or with a probability of 5 % per step. `first[t]` is True if $x_t$ is the first observation of an episode. This is
# the meaning of `reset[t]`, in `jl.step` and in `jl.unroll`.

# %%
B, T, I, H = 64, 100, 2, 16
cell, policy = jl.LSTM(I, H), Readout(H, 2)
key_cell, key_policy, key_acts = jax.random.split(jax.random.key(0), 3)
params = (cell.init(key_cell, jnp.float64), policy.init(key_policy, jnp.float64))


def observation(position, age):
    return jnp.stack([position / 4, age / 10])


def act(params, env, key):
    """Run one step of one environment; return its next state and a record of the step."""
    state, position, age = env
    x, first = observation(position, age), age == 0
    state, h = jl.step(cell, params[0], state, x, None, first)
    logits = policy.apply(params[1], h)
    key_action, key_end = jax.random.split(key)
    action = jax.random.categorical(key_action, logits)
    position = position + 2.0 * action - 1
    done = (jnp.abs(position) >= 4) | jax.random.bernoulli(key_end, 0.05)
    position, age = jax.tree.map(lambda a: jnp.where(done, jnp.zeros_like(a), a), (position, age + 1))
    return (state, position, age), {"x": x, "first": first, "done": done, "action": action, "logits": logits}


@jax.jit
def rollout(params, env, key):
    """Run T steps of all environments."""
    every = jax.vmap(act, (None, 0, 0))
    return jax.lax.scan(lambda env, k: every(params, env, jax.random.split(k, B)), env, jax.random.split(key, T))


start = jax.tree.map(lambda a: jnp.broadcast_to(a, (B, *a.shape)), cell.initial_state(params[0]))
env = (start, jnp.zeros(B), jnp.zeros(B))
env, _ = rollout(params, env, jax.random.key(1))  # 100 steps, so that the recording starts in mid-episode
before = env[0]
env, seen = rollout(params, env, key_acts)
print(f"{B} environments, {T} steps, {int(seen['first'].sum())} episodes begun")


# %% [markdown]
# The replay is one call. It takes the data with time as the first axis, as `scan` returns it, and the state of the
# agent before the first recorded step.


# %%
@jax.jit
def replay(params, state, xs, reset):
    _, hs = jl.batched(jl.unroll, time_major=True)(cell, params[0], xs, state, None, reset)
    return policy.apply(params[1], hs)


replayed = replay(params, before, seen["x"], seen["first"])
error = jnp.abs(replayed - seen["logits"]).max()
print(f"largest difference between acted and replayed logits: {error:.1e}")
assert error < 1e-12

# %% [markdown]
# A common mistake is to pass `done` as `reset`. Many environments return `done` with the step that ended the episode,
# so it is one step too early. The state is then reset before the last observation of an episode, and is kept into the
# next episode. No error is raised, but the replayed policy differs from the policy that acted. The ratio
# $\pi_{\text{replayed}}(a_t) / \pi_{\text{acted}}(a_t)$, which PPO clips, should be 1 before any update, and it is not.


# %%
def log_ratio(logits):
    """Return log π(replayed) − log π(acted) for the actions taken."""
    replayed, acted = (jax.nn.log_softmax(a) for a in (logits, seen["logits"]))
    return jnp.take_along_axis(replayed - acted, seen["action"][..., None], axis=-1)[..., 0]


aligned = log_ratio(replayed)
early = log_ratio(replay(params, before, seen["x"], seen["done"]))
np.testing.assert_array_equal(seen["done"][:-1], seen["first"][1:])  # `first` is `done`, one step later
print(f"largest |log ratio|: aligned {jnp.abs(aligned).max():.1e}, one step early {jnp.abs(early).max():.3f}")
print(f"steps whose ratio is more than 1 % off: {(jnp.abs(early) > 0.01).mean():.0%}")
assert jnp.abs(aligned).max() < 1e-12
assert jnp.abs(early).max() > 0.05

with canvas(None, None, None) as axes:
    for name, ratio, colour in (("reset = done: one step early", early, COLOURS[5]), ("aligned", aligned, COLOURS[0])):
        axes.plot(np.exp(ratio[:, 0]), color=colour, label=name)
    for k, t in enumerate(np.flatnonzero(seen["first"][:, 0])):
        axes.axvline(t, color=COLOURS[2], linewidth=0.8, zorder=0, label="start of an episode" if k == 0 else None)
    axes.set_xlabel("step t, first environment")
    axes.set_ylabel(r"$\pi_{replayed}\,/\,\pi_{acted}$")
    legend(axes)
figure_of(axes)

# %% [markdown]
# ## Training an ensemble as one program
#
# The task is to output the first of 8 numbers after the last one. `jax.vmap` of the whole training, over the initial
# params, trains eight networks at once. Each trains as it would alone.

# %%
M, STEPS = 8, 200
cell, readout = jl.RNN(1, 12), Readout(12, 1)
tx = optax.adam(1e-2)
rng = np.random.default_rng(0)


def batches(*size):
    xs = rng.uniform(-1, 1, (*size, 8, 1)).astype(np.float32)
    return xs, xs[..., 0, :]


def init(key):
    key_cell, key_readout = jax.random.split(key)
    return cell.init(key_cell), readout.init(key_readout)


def predict(params, xs):
    state, _ = jl.batched(jl.unroll)(cell, params[0], xs)
    return readout.apply(params[1], state.h)


def mse(params, batch):
    xs, targets = batch
    return jnp.mean((predict(params, xs) - targets) ** 2)


def train(params, batches):
    """Return the params of one network after training, and its loss at every step."""

    def step(carry, batch):
        params, opt_state = carry
        value, gradient = jax.value_and_grad(mse)(params, batch)
        updates, opt_state = tx.update(gradient, opt_state)
        return (optax.apply_updates(params, updates), opt_state), value

    (params, _), losses = jax.lax.scan(step, (params, tx.init(params)), batches)
    return params, losses


start = jax.jit(jax.vmap(init))(jax.random.split(jax.random.key(2), M))
data, test = batches(STEPS, 32), batches(256)
members, losses = jax.jit(jax.vmap(train, (0, None)))(start, data)
_, alone = jax.jit(train)(jax.tree.map(lambda a: a[3], start), data)
# The first 50 steps only: later, training amplifies float32 rounding.
np.testing.assert_allclose(losses[3, :50], alone[:50], rtol=1e-3)

outputs = jax.jit(jax.vmap(predict, (0, None)))(members, test[0])
each, together = ((outputs - test[1]) ** 2).mean((1, 2)), ((outputs.mean(0) - test[1]) ** 2).mean()
print(f"mse of members {each.min():.4f} to {each.max():.4f}, of the mean {together:.4f} (baseline {1 / 3:.4f})")
assert losses[:, -10:].mean() < losses[:, :10].mean() / 2
assert together < each.mean()

with canvas(None, None, None) as axes:
    for k, one in enumerate(losses):
        axes.semilogy(one, color=COLOURS[2], linewidth=0.8, label="member" if k == 0 else None)
    axes.semilogy(jnp.median(losses, axis=0), color=COLOURS[0], label="median of members")
    axes.axhline(float(together), color=COLOURS[5], linestyle="--", label="ensemble mean, test data")
    axes.set_xlabel("training step")
    axes.set_ylabel("mean squared error")
    legend(axes)
figure_of(axes)

# %% [markdown]
# ## Per-example gradients
#
# `jax.vmap` of `jax.grad` over the examples returns the gradient of each example, here of sequences with different
# lengths. For any weights of the examples, their weighted sum equals the gradient of the weighted loss of the batch.
# From their norms one can clip each gradient before the sum, as differentially private training does (Abadi et al.
# 2016).

# %%
I, H, B, T = 2, 16, 16, 24
cell = jl.LSTM(I, H)
params = cell.init(jax.random.key(4), jnp.float64)
xs = rng.normal(size=(B, T, I))
mask = np.arange(T) < np.linspace(3, T, B).astype(int)[:, None]


def loss(params, x, mask):
    return jnp.sum(jl.unroll(cell, params, x, None, mask)[1] ** 2)  # over the unmasked steps of one sequence


def batch_loss(params, weights):
    hs = jl.batched(jl.unroll)(cell, params, xs, None, mask)[1]
    return jnp.sum(weights * jnp.sum(hs**2, axis=(1, 2)))


gradients = jax.jit(jax.vmap(jax.grad(loss), (None, 0, 0)))(params, xs, mask)
weights = rng.uniform(size=B)
of_batch = jax.jit(jax.grad(batch_loss))(params, weights)
for each, total in zip(gradients, of_batch, strict=True):
    np.testing.assert_allclose(np.tensordot(weights, each, 1), total, rtol=1e-10, atol=1e-12)


@jax.jit
def clipped(gradients):
    """Clip the gradients to the median of their norms; return them and the norms before clipping."""
    norms = jax.vmap(optax.global_norm)(gradients)
    factor = jnp.minimum(1, jnp.median(norms) / norms)
    return jax.tree.map(lambda a: jax.vmap(jnp.multiply)(factor, a), gradients), norms


short, norms = clipped(gradients)
print("norm of each gradient, shortest sequence first:", norms.round(1))
np.testing.assert_allclose(clipped(short)[1], np.minimum(norms, np.median(norms)), rtol=1e-12)

# %% [markdown]
# ## Curvature without forming a Hessian
#
# The Hessian of the loss has one row per weight. Its product with one vector needs no Hessian: it is the derivative of
# the gradient along that vector, `jax.jvp` of `jax.grad`. Power iteration, $v \leftarrow Hv / \|Hv\|$, then finds the
# eigenvalue with the largest absolute value. This network is small enough to compare with the full Hessian.

# %%
cell = jl.LSTM(2, 4)
params = cell.init(jax.random.key(5), jnp.float64)
xs = rng.normal(size=(8, 10, 2))
flat, unflatten = ravel_pytree(params)


def curved(flat):
    return jnp.mean((jl.batched(jl.unroll)(cell, unflatten(flat), xs)[1] - 0.5) ** 2)


@jax.jit
def hvp(v):
    return jax.jvp(jax.grad(curved), (flat,), (v,))[1]


v, quotients = rng.normal(size=flat.shape), []
for _ in range(30):
    v = v / np.linalg.norm(v)
    Hv = np.asarray(hvp(v))
    quotients.append(v @ Hv)
    v = Hv

hessian = np.stack([hvp(row) for row in np.eye(len(flat))])
eigenvalues = np.linalg.eigvalsh(hessian)
largest = eigenvalues[np.abs(eigenvalues).argmax()]
print(f"{len(flat)} weights; power iteration {quotients[-1]:.8f}, full Hessian {largest:.8f}")
np.testing.assert_allclose(hessian, hessian.T, rtol=0, atol=1e-12)
np.testing.assert_allclose(quotients[-1], largest, rtol=1e-6)

with canvas(None, None, None) as axes:
    axes.semilogy(np.abs(np.array(quotients) / largest - 1).clip(1e-16), color=COLOURS[0], marker=".")
    axes.set_xlabel("iteration (one Hessian-vector product each)")
    axes.set_ylabel("relative error of the eigenvalue")
figure_of(axes)
