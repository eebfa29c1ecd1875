"""What a problem's functions may return, and what is said of another form."""

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_lstm.train import Problem
from jax_lstm.train.forms import RESERVED, checked_loss, scores_of, trace_batch
from tests.train.toy import PROBLEM


def parts(returned, carried=False, carry=None):
    """What `checked_loss` makes of a loss that returns this."""
    return checked_loss(lambda params, batch, carry, key: returned, carried)(None, None, carry, None)


def test_a_loss_may_come_alone_with_metrics_and_with_a_carry():
    loss, metrics, carry = jnp.float32(2), {"mae": jnp.float32(3)}, (jnp.zeros(2), jnp.ones(3))
    assert parts(loss) == (loss, ({}, None))
    assert parts((loss, metrics)) == (loss, (metrics, None))
    assert parts((loss, metrics, None)) == (loss, (metrics, None))
    assert parts((loss, metrics, carry), True, carry)[1][1] is carry
    assert parts(0.5)[0] == 0.5
    assert parts((loss, {"right": jnp.int32(3), "all": np.bool_(True)}))[1][0]["right"] == 3


LOSS = np.float32(2)
FORMS = "wanted a scalar loss, or (loss, metrics), but got"
SCALAR = "wanted a scalar loss of a float dtype, but got"


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (np.ones(8, np.float32), f"{SCALAR} an array of shape (8,); average it over the batch, such as jnp.mean(loss)"),
        ((np.ones((8, 2)), {}), f"{SCALAR} an array of shape (8, 2); average it"),
        (3, f"{SCALAR} a scalar of dtype int64; return a number that params can be differentiated by"),
        (None, f"{SCALAR} a NoneType; return a number"),
        ({"loss": 1.0}, f"{SCALAR} a dict; return a number"),
        ((LOSS, LOSS), "wanted metrics as a dict of scalars, but got a scalar of dtype float32; return (loss, {"),
        ((LOSS, (LOSS, None)), "wanted metrics as a dict of scalars, but got a tuple; return (loss, {"),
        (
            (LOSS, {"mae": np.ones(8)}),
            "wanted scalars, but mae is an array of shape (8,); average it, such as jnp.mean",
        ),
        ((LOSS, {"loss": LOSS}), "wanted a name other than loss, grad_norm,"),
        ((LOSS, {}, LOSS), f"{FORMS} a tuple of 3; give Problem.carry"),
        ((LOSS, {}, None, None), f"{FORMS} a tuple of 4; return them in this order"),
        ((), f"{FORMS} a tuple of 0; return them in this order"),
    ],
)
def test_another_form_of_loss_gets_one_sentence(returned, said):
    with pytest.raises(ValueError, match=f"^Problem.loss: {re.escape(said)}.*$"):
        parts(returned)


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (LOSS, "wanted (loss, metrics, carry), but got one value (a scalar of dtype float32); return them in"),
        ((LOSS, {}), "wanted (loss, metrics, carry), but got a tuple of 2; return them in this order"),
        (
            (LOSS, {}, {"h": np.zeros(3)}),
            "wanted a next carry like the one it was given, but h has shape (3,) and dtype",
        ),
        ((LOSS, {}, {"c": np.zeros(2)}), "wanted a next carry like the one it was given, but h is missing"),
        ((LOSS, {}, None), "wanted a next carry like the one it was given, but h is missing"),
    ],
)
def test_a_loss_with_a_carry_returns_it_in_its_form(returned, said):
    with pytest.raises(ValueError, match=f"^Problem.loss: {re.escape(said)}.*$"):
        parts(returned, True, {"h": jnp.zeros(2)})


def test_scores_have_names_and_one_of_them_is_the_metric():
    assert scores_of(jnp.float64(2), "mse")["mse"].dtype == jnp.float32
    assert set(scores_of({"mse": 1.0, "mae": 2}, "mse")) == {"mse", "mae"}
    with pytest.raises(ValueError, match=r"^Problem.score: wanted a score named mse .*, but got mae, rmse; name"):
        scores_of({"mae": 1.0, "rmse": 2.0}, "mse")
    with pytest.raises(ValueError, match=r"^Problem.score: wanted scalars, but mse is an array of shape \(4,\); "):
        scores_of(jnp.ones(4), "mse")


def test_a_reserved_name_is_refused_as_a_score():
    for name in RESERVED[1:]:
        with pytest.raises(ValueError, match=r"^Problem.score: wanted a name other than .*; rename it$"):
            scores_of({"mse": 1.0, name: 1.0}, "mse")
    assert scores_of({"loss": 1.0}, "loss")["loss"] == 1, "the loss of the validation data"


KEY = jax.eval_shape(lambda: jax.random.key(0))
STEP = jax.ShapeDtypeStruct((), jnp.int32)
DATA = np.arange(12.0).reshape(4, 3)


@pytest.mark.parametrize("batch", [lambda key, step: DATA[step], lambda key, step: DATA.tolist()[step]])
def test_numpy_indexed_by_the_step_gets_advice(batch):
    with pytest.raises(TypeError, match=r"^Problem.batch: wanted JAX .*; wrap it: jnp.asarray\(data\)\[step\]$"):
        trace_batch(batch, KEY, STEP)
    assert trace_batch(lambda key, step: jnp.asarray(DATA)[step], KEY, STEP).out.shape == (3,)


def test_an_iterator_read_in_batch_is_refused():
    batches = iter(np.random.default_rng(0).normal(size=(9, 4, 3)))
    read = r"^Problem.batch: wanted a pure .* gave other data when .*: pass the iterator as Problem\(source=...\)$"
    with pytest.raises(ValueError, match=read):
        trace_batch(lambda key, step: next(batches), KEY, STEP)
    with pytest.raises(ValueError, match=read):  # the key is used too
        trace_batch(lambda key, step: jax.random.normal(key, (4, 3)) + next(batches), KEY, STEP)
    ragged = iter([np.ones((4, 3)), np.ones((4, 5))])
    with pytest.raises(ValueError, match=r"^Problem.batch: wanted a pure function"):
        trace_batch(lambda key, step: next(ragged), KEY, STEP)
    one = iter([np.ones((4, 3))])
    with pytest.raises(ValueError, match=r"^Problem.batch: wanted a pure function .* reached the end of an iterator"):
        trace_batch(lambda key, step: next(one), KEY, STEP)


def test_the_same_batch_at_every_step_is_allowed():
    holes = np.where(DATA == 4, np.nan, DATA)
    for batch in (lambda key, step: DATA, lambda key, step: jnp.asarray(holes) + 1, lambda key, step: holes.copy()):
        assert trace_batch(batch, KEY, STEP).out.shape == (4, 3)


def test_a_problem_has_either_a_batch_or_a_source():
    with pytest.raises(ValueError, match=r"^Problem: wanted one of batch .* but got neither; give one of them$"):
        replace(PROBLEM, batch=None)
    with pytest.raises(ValueError, match=r"^Problem: wanted one of batch .* but got both; give one of them$"):
        replace(PROBLEM, source=[DATA])
    assert Problem(PROBLEM.init, PROBLEM.loss, PROBLEM.score, False, "mse", source=[DATA]).batch is None
