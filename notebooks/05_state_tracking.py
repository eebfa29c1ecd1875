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
# # State tracking: why recurrence through h matters
#
# Transformers, and cells whose gates depend on the input only, train faster than an LSTM, because they compute all
# steps in parallel. This limits what they can compute. One example is the order of five objects after a sequence of
# even permutations. As far as is known, no parallel model of constant depth computes it: each step must wait for the
# previous one, as it does in an LSTM. A diagonal recurrence with positive entries cannot even decide whether the number
# of ones is odd. Every claim is checked by an `assert`.
#
# This notebook trains for `STEPS` steps only (an environment variable, 150 by default). It reads the results of full
# runs, made by `jax-lstm experiment`, from [results](results/README.md).

# %%
# %matplotlib inline
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from IPython.display import Image

import jax_lstm as jl
from jax_lstm import gradflow
from jax_lstm.layers import Readout
from jax_lstm.tasks import Parity
from jax_lstm.tasks.group_product import products, table
from jax_lstm.train.losses import BY_NAME

STEPS = int(os.environ.get("STEPS", "150"))
RESULTS = Path("results")

# %% [markdown]
# ## Groups
#
# The input is a sequence of group elements. The target at each step is the product of the elements so far. Parity uses
# the group of two elements. `A5`, the even permutations of five objects, is the smallest group that is not solvable
# (Barrington 1989). We check the group tables:

# %%
for group in ("Z2", "Z60", "A5"):
    t = table(group)
    commutes = (t == t.T).mean()
    print(f"{group}: {len(t)} elements, {commutes:.0%} of pairs commute")
assert (table("Z60") == table("Z60").T).all()
assert (table("A5") == table("A5").T).mean() < 0.1
g = jax.random.randint(jax.random.key(0), (8,), 0, 60)
print("A5:", g, "->", products("A5", g))

# %% [markdown]
# ## The Jacobians of two cells
#
# In the minimal LSTM (Feng et al. 2024) the gates depend on the input only. Therefore all steps can be computed at once
# by a parallel scan, and the Jacobian is a diagonal matrix that depends on the *input* but not on the state. To count
# modulo two, a one must map state A to B and state B to A. A diagonal with entries between 0 and 1 cannot do that.

# %%
I, H = 2, 32
lstm, minimal = jl.LSTM(I, H), jl.MinLSTM(I, H)
xs = jax.nn.one_hot(jax.random.randint(jax.random.key(1), (10,), 0, 2), 2)
for name, cell in {"LSTM": lstm, "minLSTM": minimal}.items():
    params = cell.init(jax.random.key(2))
    rest = cell.initial_state(params)
    other = jax.tree.map(lambda a: a + 0.5, rest)
    J_rest, J_other = (gradflow.step_jacobians(cell, params, xs, s) for s in (rest, other))
    change = float(jnp.abs(J_rest - J_other).max())
    off_diagonal = float(jnp.abs(J_rest * (1 - jnp.eye(J_rest.shape[-1]))).max())
    print(f"{name:8s} change of J with the state: {change:.3f}; largest off-diagonal entry: {off_diagonal:.3f}")
    assert (change == 0 and off_diagonal == 0) == (cell is minimal)

# %% [markdown]
# ## Parity, trained on 1 to 40 bits
#
# The target is the parity after the last bit. Training uses 1 to 40 bits, the test 41 to 256 bits.

# %%
task = Parity()


def train(cell, steps, lr=3e-3, batch_size=64):
    """Return the params, and the loss of every step."""
    readout, tx = Readout(cell.hidden_size, 2), optax.chain(optax.clip_by_global_norm(1.0), optax.adam(lr))
    key_cell, key_readout, key_data = jax.random.split(jax.random.key(0), 3)

    def loss(params, batch):
        state, _ = jl.batched(jl.unroll)(cell, params[0], batch.xs, None, batch.mask)
        return BY_NAME["cross_entropy"](readout.apply(params[1], state.h), batch.targets)

    def step(carry, t):
        params, opt_state = carry
        value, gradient = jax.value_and_grad(loss)(params, task.train_batch(key_data, t, batch_size))
        updates, opt_state = tx.update(gradient, opt_state)
        return (optax.apply_updates(params, updates), opt_state), value

    params = (cell.init(key_cell), readout.init(key_readout))
    return jax.jit(lambda c: jax.lax.scan(step, c, jnp.arange(steps)))((params, tx.init(params)))


for name, cell in {"LSTM": lstm, "minLSTM": minimal}.items():
    _, losses = train(cell, STEPS)
    print(f"{name:8s} after {STEPS} steps: loss {losses[-10:].mean():.3f} (chance {np.log(2):.3f})")
    assert np.isfinite(losses).all()

# %% [markdown]
# **Full runs**, five seeds. The LSTM generalizes to six times the length of its training sequences. The minimal LSTM
# stays at chance.


# %%
def full(name):
    """Results of a full run of `jax-lstm experiment`."""
    return json.loads((RESULTS / f"{name}.json").read_text())["results"]


for name in ("parity", "z60", "a5"):
    for run, found in full(name).items():
        print(f"{name:7s} {run:8s} " + " ".join(f"{score:.4f}" for score in found["score"]))
parity = full("parity")
assert min(parity["LSTM"]["score"]) > 0.99
assert max(parity["minLSTM"]["score"]) < 0.55
Image(RESULTS / "parity.png")

# %% [markdown]
# ## Permutations
#
# `A5` has sixty elements, and the target at each step is one of them. Training sequences have 16 steps, test sequences
# 32.

# %%
a5 = full("a5")
assert min(a5["LSTM"]["score"]) > max(a5["minLSTM"]["score"])
Image(RESULTS / "a5.png")
