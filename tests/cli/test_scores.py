"""Scores of a task: in the units of its data, over the whole split, and only where they are defined."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_lstm.cli import scores
from jax_lstm.cli.scores import baseline_scores, in_words, names_of, names_on, scores_in_chunks, scores_of
from jax_lstm.data import Scaling
from jax_lstm.tasks import Batch

XS = np.zeros((2, 3, 1), np.float32)
WEIGHTS = np.array([[1, 1, 1], [1, 0, 0]], np.float32)
YS = np.arange(6, dtype=np.float32).reshape(2, 3, 1)
ONE = np.ones(1, np.float32)
SCALING = Scaling(0 * ONE, ONE, 100 * ONE, 10 * ONE)
TARGETS = np.float32([[[1], [3], [2]], [[5], [0], [0]]])


def task(metric="mse", **more):
    return SimpleNamespace(metric=metric, output_size=1, **more)


def test_scores_are_in_the_units_of_the_data():
    of_units = scores_of(task(scaling=SCALING), ["mse"], YS, Batch(XS, TARGETS, weights=WEIGHTS))["mse"]
    scaled = scores_of(task(), ["mse"], YS, Batch(XS, TARGETS, weights=WEIGHTS))["mse"]
    np.testing.assert_allclose(of_units, 100 * scaled, rtol=1e-5)


def test_a_task_with_several_scores_has_those_of_the_split():
    errors = (YS - TARGETS)[WEIGHTS > 0] ** 2  # 1, 4, 0 in the first sequence, 4 in the second
    batch = Batch(XS, TARGETS, weights=WEIGHTS)
    found = scores_of(task(scores=("rmse",)), ["mse", "rmse"], YS, batch)
    np.testing.assert_allclose(found["mse"], errors.mean(), rtol=1e-6)
    np.testing.assert_allclose(found["rmse"], np.sqrt(errors.mean()), rtol=1e-6)
    of_sequences = scores_of(task(), ["mse"], YS, batch)["mse"]
    np.testing.assert_allclose(of_sequences, (5 / 3 + 4) / 2, rtol=1e-6)


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_scores_of_chunks_are_those_of_all_sequences(labels, size, monkeypatch):
    monkeypatch.setattr(scores, "STEPS", 3 * size)
    rng = np.random.default_rng(0)
    sizes, ys = [], rng.normal(size=(5, 2) if labels else (5, 3, 1)).astype(np.float32)
    if labels:
        several, batch = SimpleNamespace(metric="accuracy", scores=("f1",)), Batch(ys, rng.integers(0, 2, 5))
    else:
        several = task(scores=("rmse", "nse", "kge"), scaling=SCALING)
        batch = Batch(ys, np.float32(rng.normal(size=ys.shape)), weights=np.float32(rng.integers(0, 2, (5, 3))))
    batch = batch._replace(xs=np.repeat(ys[:, None], 3, 1) if labels else ys)

    def outputs(chunk):
        sizes.append(len(chunk.xs))
        return chunk.xs[:, 0] if labels else chunk.xs

    names = names_of(several)
    found = scores_in_chunks(several, names, outputs, jax.tree.map(jnp.asarray, batch))
    for name, score in scores_of(several, names, ys, batch).items():
        np.testing.assert_allclose(found[name], score, rtol=1e-5)
    assert set(sizes) == {size}


def test_scores_undefined_for_constant_targets_are_left_out():
    several = task(scores=("mae", "nse", "kge"))
    assert names_on(several, Batch(XS, TARGETS, weights=WEIGHTS)) == ("mse", "mae", "nse", "kge")
    constant = Batch(XS, np.ones_like(TARGETS), weights=WEIGHTS)
    assert names_on(several, constant) == ("mse", "mae")
    with pytest.raises(ValueError, match="but nse is not, because the targets do not vary there"):
        names_on(task("nse", scores=("mse",)), constant)


def test_scores_of_classes_are_kept():
    batch = Batch(XS, np.array([0, 1]))
    labels = SimpleNamespace(metric="accuracy", scores=("f1",), output_size=2)
    assert names_on(labels, batch) == ("accuracy", "f1")
    with pytest.raises(ValueError, match=r"wanted a score of .*accuracy.*, but got fame"):
        names_on(SimpleNamespace(metric="fame", scores=("f1",), output_size=2), batch)


def test_a_line_has_the_main_score_first_and_no_undefined_one():
    assert in_words({"mse": 0.25}) == "mse 0.2500"
    assert in_words({"mse": 0.25, "nse": float("nan"), "mae": 0.5}) == "mse 0.2500 (mae 0.5000)"
    assert in_words({"nse": float("-inf"), "kge": float("nan")}) == "nse -inf"


def test_baselines_have_the_main_score_at_least():
    one = task(baselines=lambda split: {"mean": 0.5})
    assert baseline_scores(one, "test") == {"mean": {"mse": 0.5}}
