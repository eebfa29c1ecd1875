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
# # Adding and copying: what the profile foretells
#
# Two tasks that cannot be done without a memory. Before anything is trained, one measurement says how far each
# network's gradient reaches; then training shows whether that was worth knowing. Every claim is an `assert`.
#
# Here a few hundred steps are trained, so that the notebook runs in a minute or two. The environment variable `STEPS`
# sets how many. The full runs, five seeds each, were made by `jax-lstm experiment` and are read from
# [results](results/README.md) at the end of each part.

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
    """What a full run of `jax-lstm experiment` found."""
    return json.loads((RESULTS / f"{name}.json").read_text())["results"]


# %% [markdown]
# ## Adding
#
# Each step brings a number and a mark. Two steps are marked, one in each half, and the sum of their numbers is wanted
# at the end. Always to answer 1 has a squared error of $1/6$; to do better a network has to keep the first number for
# about $T/2$ steps.

# %%
adding = Adding(100)
batch = adding.train_batch(jax.random.key(0), 0, 4)
v, m = batch.xs[0].T
print("marked at", np.flatnonzero(m), "with", v[m == 1], "wanted", batch.targets[0])
np.testing.assert_allclose(v[m == 1].sum(), batch.targets[0, 0], rtol=1e-6)

# %% [markdown]
# **Before training.** $\|\partial s_T/\partial s_k\|$ on the task's own sequences, for the LSTM with three starts and
# for a tanh RNN.

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
    print(f"{name:18s} 10^{decades:.1f} of a change at the first step is left at the last")
order = ["LSTM, chrono(100)", "LSTM, b_f = 1", "LSTM, b_f = 0"]
assert [reach[name] for name in order] == sorted((reach[name] for name in order), reverse=True)
plots.plot_profile(profiles)

# %% [markdown]
# **Training.** A readout of the last state, Adam, and `jax.value_and_grad` through `jl.batched(jl.unroll)`. The whole
# loop is one compiled `lax.scan`, since a batch is a pure function of a key and a step.


# %%
def train(cell, task, steps, lr, per_step=False, batch_size=32):
    """Losses of every step, and the params at the end."""
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
    print(f"{name:18s} after {STEPS} steps {ends[name]:.4f} (always the mean: {adding.baseline:.4f})")
    assert np.isfinite(losses).all()
assert ends["LSTM, chrono(100)"] < 1.1 * adding.baseline

# %% [markdown]
# **In full**: five seeds, 3,000 steps at most. Steps to half of the baseline come in the order that the profiles had.

# %%
adding_full = full("adding")
half = {name: np.mean([math.inf if n is None else n for n in run["sequences"]]) for name, run in adding_full.items()}
for name, run in adding_full.items():
    scores = " ".join(f"{score:.4f}" for score in run["score"])
    print(f"{name:18s} test mse {scores}; half the baseline after {half[name]:,.0f} sequences")
assert half["LSTM, chrono(100)"] <= half["LSTM, b_f = 1"] < half["LSTM, b_f = 0"]
assert min(adding_full["tanh RNN"]["score"]) > 0.05

# %% [markdown]
# **Through the plateau.** The loss stays at the baseline for long, and then falls. Up to there the gradient reaches no
# further than at the start: the network leaves the plateau on what little arrives. Once it has learned the task, a
# change at the first step arrives undiminished at the last. So it is not that gradients must flow before anything
# can be learned; but what they do to begin with decides how long the plateau is.

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
# Ten symbols, $T - 1$ blanks, a marker, and then the ten symbols again. The loss is the mean over all $T + 20$ steps:
# who knows when to answer but not what has $10 \ln 8/(T + 20)$.

# %%
copy = CopyMemory(50)
batch = copy.train_batch(jax.random.key(0), 0, 4)
print("read  ", "".join(".12345678!"[k] for k in batch.xs[0].argmax(1)))
print("wanted", "".join(".12345678"[k] for k in batch.targets[0]))
print(f"baseline {copy.baseline:.4f}")
for name, cell in {"chrono(60)": jl.LSTM(10, 64, chrono=60.0), "b_f = 0": jl.LSTM(10, 64, forget_bias=0.0)}.items():
    log_norms = measure(cell, cell.init(jax.random.key(1)), batch.xs).mean(0)
    losses, _ = train(cell, copy, STEPS, 1e-3, per_step=True)
    print(f"{name:12s} 10^{log_norms[-51] / math.log(10):.1f} left after 50 steps; {losses[0]:.3f} -> {losses[-1]:.3f}")
    assert losses[-1] < losses[0]

# %% [markdown]
# **In full**: five seeds, 5,000 steps.

# %%
for T in (50, 100):
    for name, run in full(f"copy_{T}").items():
        k = run["ln_norm_ds_T_ds_k"][-1 - T] / math.log(10)
        scores = " ".join(f"{score:.4f}" for score in run["score"])
        print(f"T = {T:3d}  {name:18s} {scores} (baseline {run['blind']:.4f}); 10^{k:.1f} left after {T} steps")
Image(RESULTS / "copy_100.png")

# %% [markdown]
# ## In sum
#
# A profile takes a second, a training run takes minutes. Where the profile has fallen by many decades over the lag of
# the task, the run is not worth starting; a start that is drawn for the lag (`chrono`) is.
