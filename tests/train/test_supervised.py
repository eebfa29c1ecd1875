"""Training on arrays and lists of arrays: the batches, the loss and the scores, against NumPy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jax_lstm as jl
from jax_lstm import train

I, O, N, T = 3, 2, 12, 6
CELL = jl.RNN(I, 4)
RNG = np.random.default_rng(0)
XS = RNG.normal(size=(N, T, I)) * 3 + 1
YS = RNG.normal(size=(N, T, O)) * 10 + 5
LENGTHS = np.array([6, 2, 5, 1, 6, 3, 4, 6, 2, 6, 5, 3])
MASK = np.arange(T)[None] < LENGTHS[:, None]
SPLIT = (np.arange(8), np.arange(8, 12))


def key():
    """The key of params and batches; made when it is used."""
    return jax.random.key(0)


def made(*data, **options) -> Any:
    """A problem; its optional fields are those of arrays."""
    return train.supervised(*data, **options)


def loss_of(problem):
    """The loss of one batch."""
    return jax.jit(lambda params: problem.loss(params, problem.batch(key(), 0), None, key())[0])(problem.init(key()))


def outputs(problem, xs):
    """Outputs in original units at every step, from the model alone."""
    model, scaling, params = problem.predictor.model, problem.predictor.scaling, problem.init(key())
    xs = np.nan_to_num(xs) if scaling is None else np.nan_to_num((xs - scaling.input_mean) / scaling.input_scale)
    ys = jl.batched(model.apply)(params, jnp.asarray(xs, jnp.float32))[1]
    return np.asarray(ys) if scaling is None else np.asarray(ys) * scaling.target_scale + scaling.target_mean


def ten_lines(tmp_path):
    xs = [RNG.normal(size=(length, 3)) for length in RNG.integers(5, 20, size=120)]  # 120 sequences of 5 to 19 steps
    ys = np.array([[10 * x[:, 0].mean() + 50] for x in xs])  # one number for each

    problem = train.supervised(jl.LSTM(3, 16), xs, ys, scale=True, scores="nse")
    train.fit(problem, optax.adam(2e-2), steps=150, run_dir=tmp_path, progress=False)

    run = train.load(tmp_path)
    return run.predict(xs), ys


@pytest.mark.slow  # the README has a program like it
def test_ten_lines_train_on_ragged_data_and_predict(tmp_path):
    predicted, ys = ten_lines(tmp_path)
    assert predicted.shape == ys.shape
    assert np.mean((predicted - ys) ** 2) < 0.2 * ys.var()


@pytest.fixture(scope="module")
def every_step():
    """A problem with padding, missing targets, weights and scaling."""
    xs, ys = np.where(MASK[..., None], XS, np.nan), np.where(MASK[..., None], YS, np.nan)
    ys[0, 1], ys[9, 3, 1] = np.nan, np.nan
    weights = RNG.random((N, T))
    problem = made(
        CELL, xs, ys, lengths=LENGTHS, weights=weights, split=SPLIT, scale=True, batch_size=8, scores=("mae", "nse")
    )
    return problem, xs, ys, weights


@pytest.fixture(scope="module")
def gradient_of(every_step):
    """The loss and the gradient of any batch like those of the problem."""
    problem = every_step[0]
    run = jax.jit(jax.value_and_grad(lambda params, batch: problem.loss(params, batch, None, key()), has_aux=True))
    return lambda batch: run(problem.init(key()), batch)


def test_scaling_is_fitted_on_the_training_rows(every_step):
    problem, xs, ys, _ = every_step
    scaling = problem.predictor.scaling
    np.testing.assert_allclose(scaling.input_mean, np.nanmean(xs[:8], axis=(0, 1)), rtol=1e-5)
    np.testing.assert_allclose(scaling.target_scale, np.nanstd(ys[:8], axis=(0, 1)), rtol=1e-5)


def test_the_loss_is_the_weighted_mean_of_what_is_there(every_step, gradient_of):
    problem, xs, ys, weights = every_step
    (loss, metrics), gradient = gradient_of(problem.batch(key(), 0))  # a batch of all training rows
    e, w = (outputs(problem, xs) - ys)[:8], np.where(np.isnan(ys), 0, weights[..., None])[:8]
    scaled = e / problem.predictor.scaling.target_scale
    np.testing.assert_allclose(loss, np.nansum(w * scaled**2) / w.sum(), rtol=1e-5)
    np.testing.assert_allclose(metrics["mae"], np.nansum(w * abs(e)) / w.sum(), rtol=1e-5)
    assert set(metrics) == {"mae"}, "nse of a few rows says little"
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert (gradient.cell.w_h != 0).any()


def test_scores_are_of_all_validation_rows_in_original_units(every_step):
    problem, xs, ys, weights = every_step
    scores = jax.jit(problem.score)(problem.init(key()))
    e, w, t = (outputs(problem, xs) - ys)[8:], np.where(np.isnan(ys), 0, weights[..., None])[8:], ys[8:]
    scaled = e / problem.predictor.scaling.target_scale
    np.testing.assert_allclose(scores["loss"], np.nansum(w * scaled**2) / w.sum(), rtol=1e-5)
    np.testing.assert_allclose(scores["mae"], np.nansum(w * abs(e)) / w.sum(), rtol=1e-5)
    mean = np.nansum(w * t, axis=(0, 1)) / w.sum(axis=(0, 1))
    nse = 1 - np.nansum(w * e**2, axis=(0, 1)) / np.nansum(w * (t - mean) ** 2, axis=(0, 1))
    np.testing.assert_allclose(scores["nse"], nse.mean(), rtol=1e-5)
    assert (problem.metric, problem.maximize) == ("mae", False)


def test_chunks_of_validation_rows_give_the_same_scores(every_step, monkeypatch):
    problem, xs, ys, weights = every_step
    monkeypatch.setattr("jax_lstm.train.objective.ROWS", 3)
    again = made(CELL, xs, ys, lengths=LENGTHS, weights=weights, split=SPLIT, scale=True, scores=("mae", "nse"))
    params = problem.init(key())
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), jax.jit(again.score)(params), problem.score(params)
    )


def test_a_list_is_trained_on_like_a_padded_array(every_step, gradient_of):
    problem, xs, ys, weights = every_step
    listed = [[a[n, :length] for n, length in enumerate(LENGTHS)] for a in (xs, ys, weights)]
    options = {"split": SPLIT, "scale": True, "batch_size": 8}
    want = gradient_of(problem.batch(key(), 0))
    for other in (
        made(CELL, listed[0], listed[1], weights=listed[2], **options),
        made(CELL, xs, ys, mask=MASK, weights=weights, **options),
    ):
        jax.tree.map(np.testing.assert_array_equal, gradient_of(other.batch(key(), 0)), want)
        jax.tree.map(np.testing.assert_array_equal, other.predictor.scaling, problem.predictor.scaling)


def test_padding_cannot_reach_the_gradient(every_step, gradient_of):
    batch = every_step[0].batch(key(), 0)
    noise = jnp.where(batch.mask, 0, 1e6)[..., None]
    other = batch._replace(xs=jnp.nan_to_num(batch.xs) + noise, targets=batch.targets + noise)
    jax.tree.map(np.testing.assert_array_equal, gradient_of(other), gradient_of(batch))


def test_steps_that_the_mask_skips_are_not_run():
    mask = RNG.random((N, T)) < 0.6
    mask[:, 2] = True
    labels = RNG.integers(0, 3, N)
    problem = made(CELL, XS, labels, mask=mask, loss="cross_entropy", split=SPLIT, batch_size=8)
    model, params = problem.predictor.model, problem.init(key())
    shown = [jnp.asarray(x[m], jnp.float32) for x, m in zip(XS[:8], mask[:8], strict=True)]
    logits = [model.apply_last(params, xs)[1] for xs in shown]
    want = optax.softmax_cross_entropy_with_integer_labels(jnp.stack(logits), jnp.asarray(labels[:8])).mean()
    np.testing.assert_allclose(loss_of(problem), want, rtol=1e-5)
    assert model.output_size == labels.max() + 1


def test_rows_without_a_target_are_left_out():
    ys = YS[:, -1].copy()
    ys[[0, 9]] = np.nan
    problem = made(CELL, XS, ys, split=SPLIT, batch_size=7)
    e = outputs(problem, XS)[:, -1] - ys
    np.testing.assert_allclose(loss_of(problem), np.mean(e[1:8] ** 2), rtol=1e-5)
    np.testing.assert_allclose(problem.score(problem.init(key()))["loss"], np.mean(e[[8, 10, 11]] ** 2), rtol=1e-5)
    none = np.full_like(ys, np.nan)
    with pytest.raises(ValueError, match="the training rows must have at least one target that counts"):
        made(CELL, XS, none)


def test_weights_of_sequences_count():
    weights = RNG.random(N) + 0.5
    problem = made(CELL, XS, YS[:, -1], weights=weights, split=SPLIT, batch_size=8, loss="mae")
    e = abs(outputs(problem, XS)[:, -1] - YS[:, -1]).mean(axis=-1)
    np.testing.assert_allclose(loss_of(problem), np.average(e[:8], weights=weights[:8]), rtol=1e-5)
    score = problem.score(problem.init(key()))["loss"]
    np.testing.assert_allclose(score, np.average(e[8:], weights=weights[8:]), rtol=1e-5)


def test_small_integers_and_jax_arrays_are_inputs():
    pixels = RNG.integers(0, 255, (N, T, I)).astype(np.uint8)
    problem = made(CELL, pixels, YS[:, -1], split=SPLIT, batch_size=8, scale=True)
    batch = problem.batch(key(), 0)
    assert batch.xs.dtype == jnp.uint8, "stored as they are, and cast in the step"
    floats = jnp.asarray(pixels, jnp.float32), jnp.asarray(YS[:, -1], jnp.float32)
    same = made(CELL, *floats, split=SPLIT, batch_size=8, scale=True)
    np.testing.assert_allclose(loss_of(problem), loss_of(same), rtol=1e-5)


def test_tokens_are_read_by_a_model_with_a_vocabulary():
    model, tokens = jl.Model(jl.RNN(I, 4), 5, vocabulary=5), RNG.integers(0, 5, (N, T + 1))
    options = {"loss": "cross_entropy", "scores": "bits", "split": SPLIT, "batch_size": 8}
    problem = made(model, tokens[:, :-1], tokens[:, 1:], **options)
    ys = jl.batched(model.apply)(problem.init(key()), jnp.asarray(tokens[:8, :-1], jnp.int32))[1]
    want = optax.softmax_cross_entropy_with_integer_labels(ys, jnp.asarray(tokens[:8, 1:])).mean()
    np.testing.assert_allclose(loss_of(problem), want, rtol=1e-5)


def largest_array(jaxpr):
    """The largest number of entries of any result in a jaxpr, and in those inside it."""
    most = 0
    for eqn in jaxpr.eqns:
        inner = [j for j in jax.tree.leaves(eqn.params, is_leaf=lambda j: hasattr(j, "jaxpr")) if hasattr(j, "jaxpr")]
        sizes = [v.aval.size for v in eqn.outvars if hasattr(v.aval, "size")]
        most = max([most, *sizes, *(largest_array(j.jaxpr) for j in inner)])
    return most


def test_validation_never_stores_all_outputs_of_the_cell(monkeypatch):
    n, steps, hidden = 600, 4, 8
    xs = ys = np.zeros((n, steps, 1), np.float32)

    def largest(**options):
        problem = made(jl.RNN(1, hidden), xs, ys, validation=(xs, ys.copy()), **options)
        return largest_array(jax.make_jaxpr(problem.score)(problem.init(key())).jaxpr)

    assert largest() < n * steps * hidden / 2
    assert largest(loss=lambda ys, targets: jnp.mean((ys - targets) ** 2)) < n * steps * hidden / 2
    monkeypatch.setattr("jax_lstm.train.objective.ROWS", n)
    assert largest() >= n * steps * hidden, "in one chunk"


def test_data_are_stored_once():
    xs, ys = np.zeros((50, 40, 5), np.float32), np.zeros((50, 1), np.float32)
    problem = made(jl.RNN(5, 4), xs, ys)
    batch, score = jax.make_jaxpr(problem.batch)(key(), 0), jax.make_jaxpr(problem.score)(problem.init(key()))
    stored = {id(c): c.size for closed in (batch, score) for c in closed.consts}
    assert sum(stored.values()) < 1.2 * xs.size


def test_the_longest_row_may_be_a_validation_row():
    split = (np.array([1, 3, 8]), np.array([0, 4]))  # at most 2 steps, and 6
    problem = made(CELL, [x[:n] for x, n in zip(XS, LENGTHS, strict=True)], YS[:, -1], split=split, batch_size=3)
    assert problem.batch(key(), 0).xs.shape == (3, 2, I)
    e = outputs(problem, XS)[[0, 4], -1] - YS[[0, 4], -1]
    np.testing.assert_allclose(problem.score(problem.init(key()))["loss"], np.mean(e**2), rtol=1e-5)


def test_a_batch_is_not_larger_than_the_training_part():
    problem = made(CELL, XS, YS[:, -1], split=SPLIT, batch_size=1000)
    batch = problem.batch(jax.random.key(0), 0)
    assert len(batch.xs) == len(SPLIT[0])
    assert len(np.unique(np.asarray(batch.xs)[:, 0, 0])) == len(SPLIT[0])
