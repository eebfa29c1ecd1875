"""Scores over a whole split, against NumPy and scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss, mean_absolute_error, mean_squared_error, r2_score

from jax_lstm.data.scores import SCORES
from jax_lstm.train.losses import BY_NAME, LOSSES

RNG = np.random.default_rng(0)
N, T, O = 6, 5, 3
YS = RNG.normal(size=(N, T, O)).astype(np.float32)
CLASSES = RNG.integers(0, O, (N, T)).astype(np.int32)
TARGETS = (0.8 * YS + RNG.normal(size=YS.shape) * 0.5 + [5, -3, 1]).astype(np.float32)
WEIGHTS = np.where(RNG.random((N, T)) < 0.3, 0, RNG.random((N, T)) + 0.5).astype(np.float32)


def kge(y, t, w):
    mean_y, mean_t = (np.average(a, weights=w) for a in (y, t))
    var_y, var_t = np.average((y - mean_y) ** 2, weights=w), np.average((t - mean_t) ** 2, weights=w)
    r = np.average((y - mean_y) * (t - mean_t), weights=w) / np.sqrt(var_y * var_t)
    return 1 - np.sqrt((r - 1) ** 2 + (np.sqrt(var_y / var_t) - 1) ** 2 + (mean_y / mean_t - 1) ** 2)


def in_numpy(name, ys, targets, weights):
    """The score of flat outputs (M, O), targets and weights (M,), with scikit-learn where it has it."""
    ys, targets, w = ys.astype(np.float64), targets.astype(np.float64), weights.astype(np.float64)
    of_numbers = {
        "mse": lambda: mean_squared_error(targets, ys, sample_weight=w),
        "rmse": lambda: np.sqrt(mean_squared_error(targets, ys, sample_weight=w)),
        "mae": lambda: mean_absolute_error(targets, ys, sample_weight=w),
        "nse": lambda: r2_score(targets, ys, sample_weight=w),
        "kge": lambda: np.mean([kge(y, t, w) for y, t in zip(ys.T, targets.T, strict=True)]),
    }
    if name in of_numbers:
        return of_numbers[name]()
    p = np.exp(ys) / np.exp(ys).sum(axis=1, keepdims=True)
    guess, nats = ys.argmax(axis=1), log_loss(targets, p, sample_weight=w, labels=range(O))
    return {
        "accuracy": accuracy_score(targets, guess, sample_weight=w),
        "f1": f1_score(targets, guess, sample_weight=w, average="macro"),
        "cross_entropy": nats,
        "bits": nats / np.log(2),
    }[name]


@pytest.mark.parametrize("name", SCORES)
def test_scores_are_those_of_scikit_learn(name):
    targets = CLASSES if SCORES[name].kind == "classes" else TARGETS
    kept = WEIGHTS.ravel() > 0
    for weights in (None, WEIGHTS):
        w, rows = (np.ones(N * T), slice(None)) if weights is None else (WEIGHTS.ravel()[kept], kept)
        want = in_numpy(name, YS.reshape(-1, O)[rows], targets.reshape(N * T, -1)[rows].squeeze(), w)
        np.testing.assert_allclose(SCORES[name](YS, targets, weights), want, rtol=1e-5)
        flat = None if weights is None else weights.ravel()
        last = SCORES[name](YS.reshape(-1, O), targets.reshape(-1, *targets.shape[2:]), flat)
        np.testing.assert_allclose(last, want, rtol=1e-5)
    perfect = np.eye(O, dtype=np.float32)[CLASSES] * 9 if targets is CLASSES else TARGETS
    assert (SCORES[name](perfect, targets) > float(want)) == SCORES[name].maximize


@pytest.mark.parametrize("name", SCORES)
def test_sums_of_parts_give_the_score_of_all(name):
    score, targets = SCORES[name], CLASSES if SCORES[name].kind == "classes" else TARGETS
    parts = [score.sums(YS[rows], targets[rows], WEIGHTS[rows]) for rows in (slice(2), slice(2, 5), slice(5, 6))]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)
    np.testing.assert_allclose(score.value(stacked), score(YS, targets, WEIGHTS), rtol=1e-5)


def test_nse_is_exact_for_numbers_far_from_0():
    targets = TARGETS + np.float32(1e4)
    ys = targets + YS * np.float32(0.1)
    want = in_numpy("nse", ys.reshape(-1, O), targets.reshape(-1, O), np.ones(N * T))
    np.testing.assert_allclose(SCORES["nse"](ys, targets), want, rtol=1e-4)
    naive = np.square(targets).mean() - targets.mean() ** 2  # the difference of squares, in float32
    assert abs(naive / targets.var() - 1) > 0.01


@pytest.mark.parametrize("name", SCORES)
def test_what_has_no_weight_is_not_read(name):
    score = SCORES[name]
    for targets, bad in ((CLASSES, -100), (TARGETS, np.nan)):
        if (targets is CLASSES) == (score.kind == "classes"):
            away = WEIGHTS.reshape(N, T, *(1,) * (targets.ndim - 2)) == 0
            missing = np.where(away, bad, targets).astype(targets.dtype)
            assert score(YS, missing, WEIGHTS) == score(YS, targets, WEIGHTS)
            gradient = jax.grad(lambda ys, missing=missing: LOSSES["mse"](ys, jnp.asarray(missing), WEIGHTS))
            assert score.kind == "classes" or np.isfinite(gradient(jnp.asarray(YS))).all()


@pytest.mark.parametrize("name", [name for name, score in SCORES.items() if score.kind == "numbers"])
def test_a_missing_number_has_weight_0(name):
    targets, weights = TARGETS.copy(), np.ones(TARGETS.shape, np.float32)
    targets[1, 2, 0], weights[1, 2, 0] = np.nan, 0
    np.testing.assert_allclose(SCORES[name](YS, targets), SCORES[name](YS, TARGETS, weights), rtol=1e-6)
    assert SCORES[name](YS, targets) != SCORES[name](YS, TARGETS)


def test_perfect_outputs_score_1_and_constant_ones_at_most_0():
    perfect = np.eye(O, dtype=np.float32)[CLASSES]
    assert SCORES["accuracy"](perfect, CLASSES) == SCORES["f1"](perfect, CLASSES) == 1
    assert SCORES["nse"](TARGETS, TARGETS) == 1
    np.testing.assert_allclose(SCORES["kge"](TARGETS, TARGETS), 1, atol=1e-6)
    constant = np.broadcast_to(TARGETS.mean(axis=(0, 1)), TARGETS.shape)
    np.testing.assert_allclose(SCORES["nse"](constant, TARGETS), 0, atol=1e-6)
    np.testing.assert_allclose(SCORES["kge"](constant, TARGETS), 1 - np.sqrt(2), rtol=1e-5)


def test_f1_leaves_out_a_class_that_never_occurs():
    ys = np.pad(YS, ((0, 0), (0, 0), (0, 2)), constant_values=-50)
    np.testing.assert_allclose(SCORES["f1"](ys, CLASSES), SCORES["f1"](YS, CLASSES), rtol=1e-6)


def test_losses_are_means_of_their_equations():
    e = YS - TARGETS
    np.testing.assert_allclose(
        BY_NAME["huber"](YS, TARGETS), np.where(abs(e) <= 1, e**2 / 2, abs(e) - 0.5).mean(), rtol=1e-5
    )
    np.testing.assert_allclose(
        BY_NAME["log_cosh"](YS, TARGETS), np.log(np.cosh(e.astype(np.float64))).mean(), rtol=1e-5
    )
    yes, p = (TARGETS > 0).astype(np.float32), 1 / (1 + np.exp(-YS.astype(np.float64)))
    np.testing.assert_allclose(
        BY_NAME["bce"](YS, yes), -(yes * np.log(p) + (1 - yes) * np.log(1 - p)).mean(), rtol=1e-5
    )
    np.testing.assert_allclose(
        BY_NAME["mae"](YS, TARGETS, WEIGHTS), (abs(e).mean(axis=-1) * WEIGHTS).sum() / WEIGHTS.sum(), rtol=1e-5
    )
