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
# # Composed with JAX
#
# A cell is a pure function of its params, so what JAX does to functions it does to cells: `vmap`, `grad`, `jvp` and
# `scan`, inside one another and in any order. Four uses: acting in 64 environments and replaying what happened, an
# ensemble that trains as one program, the gradient of every example, and curvature without a Hessian. Every claim is
# an `assert`.

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

jax.config.update("jax_enable_x64", True)  # so that equal means equal to 1e-12

# %% [markdown]
# ## Acting step by step, and replaying what happened
#
# An agent with a recurrent policy acts one step at a time: the next observation is not there yet. To learn from what
# it did, the same steps are run again as one sequence, and there the states have to be those that it acted from.
# Episodes end in the middle of the sequence, and each begins with a fresh state.
#
# The environment here is a walk on a line, with a step to the left or right as the policy says. An episode ends at
# ±4, or with a chance of 5 % a step. `first[t]` says that $x_t$ is the first observation of an episode: that is what
# `reset[t]` means, in `jl.step` and in `jl.unroll`.

# %%
B, T, I, H = 64, 100, 2, 16
cell, policy = jl.LSTM(I, H), Readout(H, 2)
key_cell, key_policy, key_acts = jax.random.split(jax.random.key(0), 3)
params = (cell.init(key_cell, jnp.float64), policy.init(key_policy, jnp.float64))


def observation(position, age):
    return jnp.stack([position / 4, age / 10])


def act(params, env, key):
    """One step of one environment: its next state, and what happened."""
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
    """All environments side by side, one step after another."""
    every = jax.vmap(act, (None, 0, 0))
    return jax.lax.scan(lambda env, k: every(params, env, jax.random.split(k, B)), env, jax.random.split(key, T))


start = jax.tree.map(lambda a: jnp.broadcast_to(a, (B, *a.shape)), cell.initial_state(params[0]))
env = (start, jnp.zeros(B), jnp.zeros(B))
env, _ = rollout(params, env, jax.random.key(1))  # the first hundred steps, so that what follows begins in mid-episode
before = env[0]
env, seen = rollout(params, env, key_acts)
print(f"{B} environments, {T} steps, {int(seen['first'].sum())} episodes begun")


# %% [markdown]
# The replay is one call, over time-major data as `scan` left it, from the state that the agent had before.


# %%
@jax.jit
def replay(params, state, xs, reset):
    _, hs = jl.batched(jl.unroll, time_major=True)(cell, params[0], xs, state, None, reset)
    return policy.apply(params[1], hs)


replayed = replay(params, before, seen["x"], seen["first"])
error = jnp.abs(replayed - seen["logits"]).max()
print(f"largest difference of a logit, acted and replayed: {error:.1e}")
assert error < 1e-12

# %% [markdown]
# The classic mistake is to pass `done` for `reset`. Many environments return it with the step that ended the episode,
# so that it stands one step too early: the state is thrown away before the last observation of an episode, and is kept
# into the next one. Nothing fails. But the policy that is replayed is not the one that acted, and the ratio
# $\pi_{\text{replayed}}(a_t) / \pi_{\text{acted}}(a_t)$, which PPO clips and which is 1 before any update, is not 1.


# %%
def log_ratio(logits):
    """log π of the actions taken: replayed, less acted."""
    replayed, acted = (jax.nn.log_softmax(a) for a in (logits, seen["logits"]))
    return jnp.take_along_axis(replayed - acted, seen["action"][..., None], axis=-1)[..., 0]


aligned = log_ratio(replayed)
early = log_ratio(replay(params, before, seen["x"], seen["done"]))
np.testing.assert_array_equal(seen["done"][:-1], seen["first"][1:])  # the same flags, one step apart
print(f"|log ratio| at most: aligned {jnp.abs(aligned).max():.1e}, one step early {jnp.abs(early).max():.3f}")
print(f"steps whose ratio is more than 1 % off: {(jnp.abs(early) > 0.01).mean():.0%}")
assert jnp.abs(aligned).max() < 1e-12
assert jnp.abs(early).max() > 0.05

with canvas(None, None, None) as axes:
    for name, ratio, colour in (("reset = done: one step early", early, COLOURS[5]), ("aligned", aligned, COLOURS[0])):
        axes.plot(np.exp(ratio[:, 0]), color=colour, label=name)
    for k, t in enumerate(np.flatnonzero(seen["first"][:, 0])):
        axes.axvline(t, color=COLOURS[2], linewidth=0.8, zorder=0, label="an episode begins" if k == 0 else None)
    axes.set_xlabel("step t of the first environment")
    axes.set_ylabel(r"$\pi_{replayed}\,/\,\pi_{acted}$")
    legend(axes)
figure_of(axes)

# %% [markdown]
# ## An ensemble, trained as one program
#
# The task: say at the end what the first of 8 numbers was. `jax.vmap` of a whole training, over the params it starts
# from, trains eight networks at once. Each is the one that it would be alone.

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
    """The params of one network in the end, and its loss at every step."""

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
np.testing.assert_allclose(losses[3, :50], alone[:50], rtol=1e-3)  # float32: training amplifies rounding later on

outputs = jax.jit(jax.vmap(predict, (0, None)))(members, test[0])
each, together = ((outputs - test[1]) ** 2).mean((1, 2)), ((outputs.mean(0) - test[1]) ** 2).mean()
print(f"mse of the members {each.min():.4f} to {each.max():.4f}, of their mean {together:.4f} (blind {1 / 3:.4f})")
assert losses[:, -10:].mean() < losses[:, :10].mean() / 2
assert together < each.mean()

with canvas(None, None, None) as axes:
    for k, one in enumerate(losses):
        axes.semilogy(one, color=COLOURS[2], linewidth=0.8, label="a member" if k == 0 else None)
    axes.semilogy(jnp.median(losses, axis=0), color=COLOURS[0], label="median")
    axes.axhline(float(together), color=COLOURS[5], linestyle="--", label="mean of all, on test data")
    axes.set_xlabel("training step")
    axes.set_ylabel("mean squared error")
    legend(axes)
figure_of(axes)

# %% [markdown]
# ## The gradient of every example
#
# `jax.vmap` of `jax.grad` over the examples: each one's own gradient, here of sequences of different lengths. However
# the examples are weighed, they add up to the gradient of the batch. With their norms one can clip each before the sum,
# as private training does (Abadi et al. 2016).

# %%
I, H, B, T = 2, 16, 16, 24
cell = jl.LSTM(I, H)
params = cell.init(jax.random.key(4), jnp.float64)
xs = rng.normal(size=(B, T, I))
mask = np.arange(T) < np.linspace(3, T, B).astype(int)[:, None]


def loss(params, x, mask):
    return jnp.sum(jl.unroll(cell, params, x, None, mask)[1] ** 2)  # over the live steps of one sequence


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
    """The gradients with norms of at most their median, and the norms before."""
    norms = jax.vmap(optax.global_norm)(gradients)
    factor = jnp.minimum(1, jnp.median(norms) / norms)
    return jax.tree.map(lambda a: jax.vmap(jnp.multiply)(factor, a), gradients), norms


short, norms = clipped(gradients)
print("norm of each gradient, shortest sequence first:", norms.round(1))
np.testing.assert_allclose(clipped(short)[1], np.minimum(norms, np.median(norms)), rtol=1e-12)

# %% [markdown]
# ## Curvature without a Hessian
#
# The Hessian of the loss by the params has as many rows as there are weights, but its product with one vector is the
# derivative of the gradient along it: `jax.jvp` of `jax.grad`. Power iteration, $v \leftarrow Hv / \|Hv\|$, then finds
# the eigenvalue that is largest in size. The network is small enough here to compare with the full Hessian.

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
print(f"{len(flat)} weights; by power iteration {quotients[-1]:.8f}, of the full Hessian {largest:.8f}")
np.testing.assert_allclose(hessian, hessian.T, rtol=0, atol=1e-12)
np.testing.assert_allclose(quotients[-1], largest, rtol=1e-6)

with canvas(None, None, None) as axes:
    axes.semilogy(np.abs(np.array(quotients) / largest - 1).clip(1e-16), color=COLOURS[0], marker=".")
    axes.set_xlabel("iteration (one Hessian-vector product each)")
    axes.set_ylabel("relative error of the eigenvalue")
figure_of(axes)
