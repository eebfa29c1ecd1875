"""Losses of the caller's own, and arguments that are refused in one sentence."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_lstm as jl
from jax_lstm import train

N, T, I = 10, 4, 3
CELL = jl.RNN(I, 4)
RNG = np.random.default_rng(0)
XS, YS, LABELS = RNG.normal(size=(N, T, I)), RNG.normal(size=(N, T, 2)), RNG.integers(0, 3, N)
LENGTHS = np.array([4, 2, 3, 1, 4, 4, 2, 4, 3, 4])
HOLES = YS.copy()
HOLES[2, 1, 0] = np.nan


def made(*data, **options) -> Any:
    """A problem; its optional fields are those of arrays."""
    return train.supervised(*data, **options)


def squares(outputs, targets):
    return jnp.square(outputs - targets)


def squares_of_steps(outputs, targets):
    return squares(outputs, targets).mean(axis=-1)


def mean_square(outputs, targets):
    return squares(outputs, targets).mean(), {"largest": jnp.abs(outputs).max()}


def weighted_mean(outputs, targets, weights):
    each = squares(outputs, targets)
    w = weights if weights.ndim == each.ndim else jnp.broadcast_to(weights[..., None], each.shape)
    return (w * each).sum() / w.sum()


def values(problem):
    """The loss of a batch, its metrics, and the validation loss."""
    params = problem.init(jax.random.key(0))
    loss, metrics = jax.jit(lambda p: problem.loss(p, problem.batch(jax.random.key(0), 0), None, jax.random.key(0)))(
        params
    )
    return loss, metrics, jax.jit(problem.score)(params)


@pytest.mark.parametrize(
    ("loss", "ys", "lengths"),
    [
        (squares, YS, None), (squares_of_steps, YS, None), (mean_square, YS, None), (weighted_mean, YS, None),
        (squares, YS, LENGTHS), (squares_of_steps, YS, LENGTHS), (weighted_mean, YS, LENGTHS),
        (squares, HOLES, LENGTHS), (weighted_mean, HOLES, LENGTHS), (squares, YS[:, 0], None),
        (mean_square, YS[:, 0], LENGTHS),
    ],
)  # fmt: skip
def test_a_loss_of_your_own_is_the_loss_by_name(loss, ys, lengths):
    split = (np.arange(5), np.arange(5, N))
    mine, named = (
        values(made(CELL, XS, ys, lengths=lengths, split=split, batch_size=5, loss=fn)) for fn in (loss, "mse")
    )
    np.testing.assert_allclose(mine[0], named[0], rtol=1e-5)
    np.testing.assert_allclose(mine[2]["loss"], named[2]["loss"], rtol=1e-5)
    assert set(mine[1]) == set(mine[2]) - {"loss"} == ({"largest"} if loss is mean_square else set())


@pytest.mark.parametrize(
    ("loss", "ys", "lengths", "said"),
    [
        (mean_square, YS, LENGTHS, "loss mean_square: wanted a value per target, because some targets do not count"),
        (squares_of_steps, HOLES, None, r"wanted a scalar, or values of the shape \(8, 4, 2\), but got \(8, 4\)"),
        (
            lambda ys, t: ys[:, 0],
            YS,
            None,
            r"wanted a scalar, or values of the shape \(8, 4\) or \(8, 4, 2\), but got",
        ),
        (lambda ys, t, weights: ys[..., 0], YS, None, "wanted a scalar from a function that takes weights, but got"),
        (lambda ys, t: 1, YS, None, "wanted a float, an array of floats, or .*, but got int"),
        (lambda ys, t: (ys.mean(), ys), YS, None, r"wanted \(loss, dict of metrics\), but got .* as metrics"),
        (lambda ys, t: ys.argmax(-1), YS, None, "wanted a float, an array of floats, .* but got int"),
        (squares, LABELS, None, r"model must be a jl.Model for integer targets and a loss of your own"),
    ],
)
def test_a_loss_of_a_wrong_form_is_refused(loss, ys, lengths, said):
    with pytest.raises((ValueError, TypeError), match=said):
        made(CELL, XS, ys, lengths=lengths, loss=loss)


def changed(array, at, value):
    array = np.array(array, float)
    array[at] = value
    return array


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        ((XS[0], YS[0]), {}, r"inputs must have the shape \(N, T, I\), but have \(4, 3\); pass inputs\[..., None\]"),
        ((XS, YS[:4]), {}, r"targets must have 10 rows, one per sequence of inputs, but have the shape \(4, 4, 2\)"),
        ((XS, YS[:, :3]), {}, r"targets must have the shape \(N, O\) or \(N, T, O\) with T = 4, but have \(10, 3, 2\)"),
        ((XS, YS[..., 0]), {}, r"\(10, 4\) may be one number per step, or .* pass targets\[..., None\]"),
        ((XS, YS[:, 0, 0]), {}, r"targets must have the shape \(N, O\), but have \(10,\); pass targets\[:, None\]"),
        ((changed(XS, (3, 2, 1), np.nan), YS), {}, r"inputs\[3, 2, 1\] \(row 3, step 2, feature 1\) is nan"),
        ((list(changed(XS, (3, 2, 1), np.inf)), list(YS)), {}, r"inputs\[3\]\[2, 1\] \(row 3, step 2, .*\) is inf"),
        ((XS, changed(YS, (3, 2, 1), np.inf)), {}, r"must be finite, or NaN where missing, but targets\[3, 2\]"),
        ((XS[..., :2], YS), {}, "inputs have 2 features on their last axis, but the cell takes 3"),
        ((XS, LABELS), {}, "targets must be floats for this loss, but hold int.*; .* or use cross_entropy"),
        ((XS, YS), {"loss": "cross_entropy"}, "targets must be classes, .*, but hold float64"),
        ((XS, LABELS - 1), {"loss": "cross_entropy"}, r"classes 0 or more, but targets\[\d+\] \(row \d+\) is -1"),
        ((XS, LABELS * 0), {"loss": "cross_entropy"}, "targets must have at least 2 classes, but all are 0"),
        ((XS, YS), {"loss": "bce"}, "loss 'bce': wanted targets from 0 to 1, but got"),
        ((XS, YS), {"loss": "mape"}, "loss must be one of mse, .*, cross_entropy, or a function"),
        ((XS, YS), {"loss": 3}, r"loss must be one of mse, .*, or a function \(outputs, targets\), but is int"),
        ((XS, YS), {"scores": "r2"}, "scores must be some of accuracy, f1, .*, but has 'r2'"),
        ((XS, YS), {"scores": ("mae", "f1")}, "must be some of mse, rmse, mae, nse, kge for .*, but has 'f1'"),
        ((XS, YS * 0), {"scores": "nse"}, "nse needs validation targets that vary, but output 0 is always 0"),
        ((XS, YS), {"lengths": LENGTHS + 1}, "lengths must be from 0 to 4, but are 5 in row 0"),
        ((XS, YS[:, 0]), {"lengths": LENGTHS - 1}, "at least 1 step in every sequence, .*, but row 3 has none"),
        ((XS, YS), {"lengths": LENGTHS, "mask": np.ones((N, T), bool)}, "lengths and mask were both given"),
        ((list(XS), list(YS)), {"lengths": LENGTHS}, "lengths must be None for a list of sequences"),
        ((XS, YS), {"mask": LENGTHS}, r"mask must be bools of the shape \(10, 4\), .*; for lengths pass lengths="),
        ((XS, YS), {"weights": np.ones(N)}, r"weights must have the shape \(10, 4\), one per target"),
        ((XS, YS), {"weights": -np.ones((N, T))}, "weights must be finite and at least 0, but hold -1"),
        ((XS, YS), {"split": (0.8, 0.1)}, r"split: .* with the sum 1, but are \(0.8, 0.1\)"),
        ((XS, YS), {"split": 0.8}, "split must be two fractions with the sum 1, or .* float"),
        ((XS, YS), {"split": (np.arange(8), np.array([], int))}, "split must be .*, but the validation part is empty"),
        ((XS, YS), {"split": (np.arange(8), np.array([10]))}, "from 0 to 9, but the validation part has 10 to 10"),
        ((XS, YS), {"split": (np.arange(8), np.arange(7, 10))}, "but row 7 is in both parts"),
        ((XS[:1], YS[:1]), {}, "split: .* wanted at least 2 rows, one for each of 2 parts, but got 1"),
        ((XS, YS), {"batch_size": 0}, "batch_size must be at least 1, but is 0"),
        ((XS, YS), {"scale": "yes"}, "scale must be True, False or a Scaling, but is str"),
        ((XS + np.array([0, 1e7, 0]), YS), {"scale": True}, "column 1 of inputs must vary by more than 1/100000"),
        ((np.array([["a"]]), YS), {}, "inputs must hold numbers, but holds <U1"),
        ((np.array([None, 1]), YS), {}, "holds object; it mixes types or lengths"),
        (([XS[0], XS[1, :, :2]], [YS[0], YS[1]]), {}, r"inputs\[1\] must have 3 features, .* has 2"),
        (([XS[0], XS[1]], [YS[0], YS[1, :3]]), {}, r"targets\[1\] must have the shape \(4, 2\), as"),
        ((XS, None), {}, r"targets are missing; pass them after inputs, or an iterable of \(inputs, targets\)"),
        ((5, None), {"validation": (XS, YS)}, "inputs must be arrays with targets, or .*, but are a int"),
        ((XS, YS), {"validation": (XS[:2], YS[:2, 0])}, "validation must have targets at every step"),
        ((XS, YS), {"validation": (XS[:2], YS[:3])}, "validation targets must have 2 rows"),
        ((XS, YS), {"validation": []}, "validation must have at least one batch, but has none"),
        ((XS, YS), {"validation": (XS, YS, LENGTHS, 1)}, r"validation batch must be \(inputs, targets\)"),
    ],
)  # fmt: skip
def test_wrong_arguments_get_one_sentence(arguments, options, said):
    with pytest.raises((ValueError, TypeError), match=said) as caught:
        made(CELL, *arguments, **options)
    assert str(caught.value).startswith("supervised:")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "inputs", "said"),
    [
        (jl.Model(CELL, 3), XS, "targets must have 3 numbers on their last axis, as the model has outputs, but have 2"),
        (
            jl.Model(CELL, 2, vocabulary=5),
            np.full((N, T), 5),
            r"must be tokens from 0 to 4, but inputs\[0, 0\] .* is 5",
        ),
        (jl.Model(CELL, 2, vocabulary=5), XS[..., 0], "must be tokens, which are integers, but hold float64"),
        (CELL, np.full((N, T), 5), r"pass inputs\[..., None\] .*, or a jl.Model with a vocabulary for tokens"),
        (jl.RNN, XS, "cell must have init, .* but is the class RNN; make an instance"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(model, inputs, said):
    with pytest.raises((ValueError, TypeError), match=f"supervised: .*{said}"):
        made(model, inputs, YS)


def test_labels_that_are_no_classes_need_weight_0():
    model, labels = jl.Model(CELL, 3), np.where(np.arange(N) == 4, -100, LABELS)
    with pytest.raises(ValueError, match=r"classes from 0 to 2, but targets\[4\] \(row 4\) is -100; .*weights"):
        made(model, XS, labels, loss="cross_entropy")
    problem = made(model, XS, labels, loss="cross_entropy", weights=labels >= 0)
    assert 4 not in np.asarray(problem.batch(jax.random.key(0), 0).targets)


def test_targets_of_t_numbers_need_a_model_that_says_so():
    problem = made(jl.Model(CELL, T), XS, YS[..., 0])
    assert not problem.predictor.every_step
    assert problem.predictor.output_size == T


def test_classes_of_ragged_sequences_may_be_a_list_of_ints():
    listed = made(CELL, list(XS), LABELS.tolist(), loss="cross_entropy").batch(jax.random.key(0), 0)
    given = made(CELL, list(XS), LABELS, loss="cross_entropy").batch(jax.random.key(0), 0)
    np.testing.assert_array_equal(listed.targets, given.targets)
    with pytest.raises(ValueError, match=r"targets must have the shape \(N, O\), .* pass targets"):
        made(CELL, list(XS), [0.5] * N)


def test_a_score_of_an_output_without_targets_is_refused():
    ys = YS[:, 0] * [1, np.nan]
    with pytest.raises(ValueError, match=r"nse needs validation targets that vary, but output 1 is always missing"):
        made(CELL, XS, ys, scores="nse")
