"""Task, cell and readout together: outputs at the last step or at every one, and cut gradients."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

import jax_lstm as jl
from jax_lstm.cli.build import Experiment, ModelConfig, build_problem, steps_of_all
from jax_lstm.cli.choice import Choice
from jax_lstm.cli.trained_run import TrainedRun
from jax_lstm.tasks import Batch
from jax_lstm.train import OptConfig, TrainConfig

B, T, I, H = 2, 6, 3, 4
MODEL = TrainedRun(jl.Model(jl.LSTM(I, H), 2))
XS = np.random.default_rng(1).normal(size=(B, T, I)).astype(np.float32)
MASK = np.array([[1] * T, [1] * 4 + [0] * 2], bool)


@cache
def model_params():
    return MODEL.init(jax.random.key(0))


def test_without_weights_only_the_last_live_step_is_read_out():
    _, last = MODEL.outputs(model_params(), Batch(XS, jnp.zeros((B, 2)), MASK))
    _, every = MODEL.outputs(model_params(), Batch(XS, jnp.zeros((B, T, 2)), MASK, jnp.ones((B, T))))
    assert last.shape == (B, 2)
    assert every.shape == (B, T, 2)
    np.testing.assert_allclose(last, [every[0, 5], every[1, 3]], rtol=1e-5)


def test_a_window_truncates_the_gradient_and_keeps_the_loss():
    batch = Batch(XS, jnp.ones((B, T, 2), jnp.float32), None, jnp.ones((B, T), jnp.float32))
    cut = MODEL._replace(window=2)

    def loss(model):
        return jax.value_and_grad(lambda p: model.values(("mse",), p, batch)[0][0])(model_params())

    def by_hand(params):
        _, hs = jax.vmap(lambda x: jl.tbptt(MODEL.cell, params.cell, x, window=2))(XS)
        return jnp.mean((MODEL.readout.apply(params.readout, hs) - 1) ** 2)

    (value, whole), (same, truncated) = loss(MODEL), loss(cut)
    np.testing.assert_allclose(same, value, rtol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        truncated,
        jax.grad(by_hand)(model_params()),
    )
    assert np.abs(truncated.cell.w_h - whole.cell.w_h).max() > 1e-3


def test_steps_of_all_drops_padding_and_cuts_streams_at_600():
    assert steps_of_all(Batch(XS, jnp.zeros(B), MASK), 2).shape == (2, 4, I)
    assert steps_of_all(Batch(XS, jnp.zeros(B), MASK), 1).shape == (1, T, I)
    long = jnp.zeros((3, 700, I))
    assert steps_of_all(Batch(long, jnp.zeros(3), weights=jnp.ones((3, 700))), 2).shape == (2, 600, I)
    assert steps_of_all(Batch(long, jnp.zeros(3)), 2).shape == (2, 700, I)


def test_a_task_with_sequences_of_unequal_lengths_can_be_probed():
    experiment = Experiment(
        ModelConfig(Choice("RNN"), 4), Choice("reber"), OptConfig(), TrainConfig(steps=2, batch_size=2), "nowhere"
    )
    problem = build_problem(experiment)
    assert problem.probe is not None
    profile = jax.jit(problem.probe)(problem.init(jax.random.key(0)))
    mask = experiment.build_task().validation().mask
    assert mask is not None
    assert profile.shape == (int(mask[:4].sum(axis=1).min()) + 1,)
    assert profile[-1] == 0
