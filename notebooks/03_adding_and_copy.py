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
# # Adding and copying: predicting training from the gradient profile
#
# Both tasks need memory. Before training, one measurement shows how far back the gradient of each network reaches. Then
# we train the networks, to see whether the measurement predicts the result. Every claim is checked by an `assert`.
#
# This notebook trains for `STEPS` steps only (an environment variable, 150 by default), so that it runs in a minute or
# two. At the end of each part it reads the results of full runs with five seeds, made by `jax-lstm experiment`, from
# [results](results/README.md).

# %%
# %matplotlib inline
import json
import math
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from IPython.display import Image

import jax_lstm as jl
from jax_lstm import gradflow
from jax_lstm.gradflow import plots
from jax_lstm.layers import Readout
from jax_lstm.tasks import Adding, CopyMemory
from jax_lstm.train.losses import BY_NAME

STEPS = int(os.environ.get("STEPS", "150"))
RESULTS = Path("results")


def full(name):
    """Results of a full run of `jax-lstm experiment`."""
    return json.loads((RESULTS / f"{name}.json").read_text())["results"]


# %% [markdown]
# ## Adding
#
# Each step has a number and a mark. Two steps are marked, one in each half of the sequence. The target, after the last
# step, is the sum of the two marked numbers. Always answering 1 gives a squared error of $1/6$. To do better, a network
# must remember the first number for about $T/2$ steps.

# %%
adding = Adding(100)
(baseline,) = adding.baselines("test").values()
batch = adding.train_batch(jax.random.key(0), 0, 4)
v, m = batch.xs[0].T
print("marked steps", np.flatnonzero(m), "numbers", v[m == 1], "target", batch.targets[0])
np.testing.assert_allclose(v[m == 1].sum(), batch.targets[0, 0], rtol=1e-6)

# %% [markdown]
# **Before training.** We measure $\|\partial s_T/\partial s_k\|$ on sequences of the task, for an LSTM with three
# initializations and for a tanh RNN.

# %%
H = 32
CELLS = {
    "LSTM, chrono(100)": jl.LSTM(2, H, chrono=100.0),
    "LSTM, b_f = 1": jl.LSTM(2, H),
    "LSTM, b_f = 0": jl.LSTM(2, H, forget_bias=0.0),
    "tanh RNN": jl.RNN(2, H),
}
measure = jax.vmap(gradflow.sensitivity, in_axes=(None, None, 0))
profiles = {name: measure(cell, cell.init(jax.random.key(1)), batch.xs).mean(0) for name, cell in CELLS.items()}
reach = {name: float(profile[0]) / math.log(10) for name, profile in profiles.items()}
for name, decades in reach.items():
    print(f"{name:18s} 10^{decades:.1f} of a change at the first step reaches the last")
order = ["LSTM, chrono(100)", "LSTM, b_f = 1", "LSTM, b_f = 0"]
assert [reach[name] for name in order] == sorted((reach[name] for name in order), reverse=True)
plots.plot_profile(profiles)

# %% [markdown]
# **Training.** The model is a linear readout of the last state, trained with Adam. The gradient is `jax.value_and_grad`
# through `jl.batched(jl.unroll)`. Batches are a pure function of a key and a step, so the whole training loop is one
# compiled `lax.scan`.


# %%
def train(cell, task, steps, lr, per_step=False, batch_size=32):
    """Return the loss of every step, and the params at the end."""
    readout, tx = (
        Readout(cell.hidden_size, task.output_size),
        optax.chain(optax.clip_by_global_norm(1.0), optax.adam(lr)),
    )
    key_cell, key_readout, key_data = jax.random.split(jax.random.key(0), 3)

    def loss(params, batch):
        state, hs = jl.batched(jl.unroll)(cell, params[0], batch.xs, None, batch.mask)
        ys = readout.apply(params[1], hs if per_step else state.h)
        return BY_NAME[task.loss](ys, batch.targets, batch.weights)

    def step(carry, t):
        params, opt_state = carry
        value, g = jax.value_and_grad(loss)(params, task.train_batch(key_data, t, batch_size))
        updates, opt_state = tx.update(g, opt_state)
        return (optax.apply_updates(params, updates), opt_state), value

    params = (cell.init(key_cell), readout.init(key_readout))
    (params, _), losses = jax.jit(lambda c: jax.lax.scan(step, c, jnp.arange(steps)))((params, tx.init(params)))
    return np.asarray(losses), params


ends = {}
for name, cell in CELLS.items():
    losses, _ = train(cell, adding, STEPS, 0.01)
    ends[name] = losses[-20:].mean()
    print(f"{name:18s} after {STEPS} steps {ends[name]:.4f} (baseline {baseline:.4f})")
    assert np.isfinite(losses).all()
assert ends["LSTM, chrono(100)"] < 1.1 * baseline

# %% [markdown]
# **Full runs**: five seeds, at most 3,000 steps. The order in which the networks reach half of the baseline is the
# order of their profiles.

# %%
adding_full = full("adding")
half = {name: np.mean([math.inf if n is None else n for n in run["sequences"]]) for name, run in adding_full.items()}
for name, run in adding_full.items():
    scores = " ".join(f"{score:.4f}" for score in run["score"])
    print(f"{name:18s} test mse {scores}; half the baseline after {half[name]:,.0f} sequences")
assert half["LSTM, chrono(100)"] <= half["LSTM, b_f = 1"] < half["LSTM, b_f = 0"]
assert min(adding_full["tanh RNN"]["score"]) > 0.05

# %% [markdown]
# **During the plateau.** The loss stays at the baseline for a long time and then falls. Until then the gradient reaches
# no further back than at the start: a small gradient is enough to leave the plateau. After training, a change at the
# first step arrives at the last step undiminished. So a large gradient is not a precondition for learning. But the
# gradient at initialization decides how long the plateau is.

# %%
turning = {f"{p['when']}, step {p['step']}": p["ln_norm"] for p in adding_full["LSTM, b_f = 1"]["while_training"]}
at_first = {when: ln_norm[0] / math.log(10) for when, ln_norm in turning.items()}
for when, decades in at_first.items():
    print(f"{when:28s} 10^{decades:.1f}")
start, leaves, end = at_first.values()
assert leaves < start + 1
assert end > start + 2
plots.plot_profile({when: np.array(ln_norm) for when, ln_norm in turning.items()})

# %%
Image(RESULTS / "adding.png")

# %% [markdown]
# ## Copying
#
# The input has ten symbols, $T - 1$ blanks, a marker, and then ten blanks, during which the network must output the ten
# symbols. The loss is the mean over all $T + 20$ steps. A model that knows when to answer, but not what, has a loss of
# $10 \ln 8/(T + 20)$.

# %%
copy = CopyMemory(50)
(chance,) = copy.baselines("test").values()
batch = copy.train_batch(jax.random.key(0), 0, 4)
print("input ", "".join(".12345678!"[k] for k in batch.xs[0].argmax(1)))
print("target", "".join(".12345678"[k] for k in batch.targets[0]))
print(f"baseline {chance:.4f}")
for name, cell in {"chrono(60)": jl.LSTM(10, 64, chrono=60.0), "b_f = 0": jl.LSTM(10, 64, forget_bias=0.0)}.items():
    log_norms = measure(cell, cell.init(jax.random.key(1)), batch.xs).mean(0)
    losses, _ = train(cell, copy, STEPS, 1e-3, per_step=True)
    print(f"{name:12s} 10^{log_norms[-51] / math.log(10):.1f} left after 50 steps; {losses[0]:.3f} -> {losses[-1]:.3f}")
    assert losses[-1] < losses[0]

# %% [markdown]
# **Full runs**: five seeds, 5,000 steps.

# %%
for T in (50, 100):
    for name, run in full(f"copy_{T}").items():
        k = run["ln_norm_ds_T_ds_k"][-1 - T] / math.log(10)
        scores = " ".join(f"{score:.4f}" for score in run["score"])
        print(f"T = {T:3d}  {name:18s} {scores} (baseline {run['baseline']:.4f}); 10^{k:.1f} left after {T} steps")
Image(RESULTS / "copy_100.png")

# %% [markdown]
# ## Summary
#
# Measuring a profile takes a second; a training run takes minutes. If the profile falls by many decades over the lag of
# the task, do not start the run. Choose an initialization for the lag (`chrono`) instead.
