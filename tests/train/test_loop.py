"""The loop: what it writes, how it stops, how it goes on, and what it refuses."""

import json
from dataclasses import replace
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_lstm.train import (
    Checkpoints,
    NotFiniteError,
    OptConfig,
    TrainConfig,
    init_state,
    learning_rate,
    optimizer,
    read_metrics,
)
from jax_lstm.train.checkpoint import newest_step
from tests.train.toy import PROBLEM, batch, fit, init, loss, score, traced_once

OPT = OptConfig(lr=0.1, schedule="warmup_cosine", warmup_steps=5)
TRAIN = TrainConfig(steps=40, seeds=(0, 1), log_every=5, eval_every=10)


def newest(run_dir: Path, train=TRAIN, problem=PROBLEM):
    like = jax.eval_shape(lambda: init_state(problem, optimizer(OPT, train.steps), train.seeds))
    with Checkpoints(run_dir / "checkpoints") as checkpoints:
        return checkpoints.restore(like)


def test_training_fits_the_line_and_saves_the_state_it_returns(tmp_path):
    train = replace(TRAIN, steps=200, eval_every=100)
    state = fit(PROBLEM, OPT, train, tmp_path)
    assert np.all(state.best.score < 1e-3)
    np.testing.assert_allclose(jax.vmap(score)(state.best.params), state.best.score, rtol=1e-3)
    chex.assert_trees_all_equal(newest(tmp_path, train), state)


def test_an_interrupted_run_resumes_with_the_same_bits(tmp_path, monkeypatch):
    whole_dir, broken_dir = tmp_path / "whole", tmp_path / "broken"
    whole_dir.mkdir(), broken_dir.mkdir()
    whole = fit(PROBLEM, OPT, TRAIN, whole_dir)

    save = Checkpoints.save

    def save_then_stop(self, step, state):
        save(self, step, state)
        if step == 20:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", save_then_stop)
    with pytest.raises(KeyboardInterrupt):
        fit(PROBLEM, OPT, TRAIN, broken_dir)
    monkeypatch.undo()
    assert int(newest(broken_dir).step) == 20
    chex.assert_trees_all_equal(fit(PROBLEM, OPT, TRAIN, broken_dir, resume=True), whole)

    def timeless(run_dir):
        return [{k: v for k, v in r.items() if k != "steps_per_second"} for r in read_metrics(run_dir)]

    assert timeless(broken_dir) == timeless(whole_dir)


def test_a_resumed_run_drops_the_records_of_steps_it_does_again(tmp_path, monkeypatch):
    fit(PROBLEM, OPT, replace(TRAIN, steps=20), tmp_path)
    with open(tmp_path / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps({"step": 25, "split": "train", "loss": [9.0, 9.0]}) + "\n")
    fit(PROBLEM, OPT, replace(TRAIN, steps=30), tmp_path, resume=True)
    steps = [r["step"] for r in read_metrics(tmp_path) if r["split"] == "train"]
    assert steps == [5, 10, 15, 20, 25, 30]
    assert 9.0 not in [x for r in read_metrics(tmp_path) for x in r.get("loss", [])]


def test_a_run_may_resume_from_a_step_within_a_chunk(tmp_path):
    fit(PROBLEM, OPT, replace(TRAIN, steps=13), tmp_path)
    state = fit(PROBLEM, OPT, TRAIN, tmp_path, resume=True)
    assert int(state.step) == 40
    assert [r["step"] for r in read_metrics(tmp_path) if r["split"] == "validation"] == [10, 13, 20, 30, 40]


def test_resuming_a_finished_run_changes_nothing(tmp_path):
    state = fit(PROBLEM, OPT, TRAIN, tmp_path)
    chex.assert_trees_all_equal(fit(PROBLEM, OPT, TRAIN, tmp_path, resume=True), state)


def test_resuming_an_empty_directory_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no checkpoint"):
        fit(PROBLEM, OPT, TRAIN, tmp_path, resume=True)


def test_training_stops_after_patience_validations_without_gain(tmp_path):
    problem = replace(
        PROBLEM,
        init=lambda key: init(key)._replace(w=jnp.zeros(3, jnp.float32)),
        loss=lambda p, *_: -jnp.sum(p.w),
        score=lambda p: p.w[0],  # minimised, and it grows
    )
    train = replace(TRAIN, steps=1000, patience=3)
    state = fit(problem, OptConfig(lr=0.1), train, tmp_path)
    assert int(state.step) == 40
    assert int(state.best.stale) == 3
    np.testing.assert_array_equal(state.best.step, 10)
    again = fit(problem, OptConfig(lr=0.1), train, tmp_path, resume=True)
    chex.assert_trees_all_equal(again, state)


def test_metrics_are_per_seed_means_since_the_last_record(tmp_path):
    train = replace(TRAIN, steps=10)
    fit(PROBLEM, OPT, train, tmp_path)
    logged = [r for r in read_metrics(tmp_path) if r["split"] == "train"]
    one_by_one = tmp_path / "one"
    one_by_one.mkdir()
    fit(PROBLEM, OPT, replace(train, log_every=1), one_by_one)
    steps = [r for r in read_metrics(one_by_one) if r["split"] == "train"]
    assert [r["step"] for r in logged] == [5, 10]
    for name in ("loss", "mse", "grad_norm"):
        each = np.array([r[name] for r in steps])
        np.testing.assert_allclose([r[name] for r in logged], each.reshape(2, 5, 2).mean(axis=1), rtol=1e-4)
    lr = learning_rate(OPT, 10)
    np.testing.assert_allclose([r["lr"] for r in steps], [float(lr(t)) for t in range(10)], rtol=1e-6)
    assert all(r["steps_per_second"] > 0 for r in logged)


def test_validation_records_hold_the_score_at_that_step(tmp_path):
    state = fit(PROBLEM, OPT, TRAIN, tmp_path)
    last = [r for r in read_metrics(tmp_path) if r["split"] == "validation"][-1]
    np.testing.assert_allclose(last["mse"], jax.vmap(score)(state.params), rtol=1e-4)
    np.testing.assert_allclose(last["best"], state.best.score, rtol=1e-6)


def poisoned(at_step, poison):
    """The toy problem with a loss that `poison`, of (loss, params, whether it is that step), spoils.

    The last sequence of a batch carries the flag: where devices share the batch, one of them sees it.
    """

    def bad_batch(key, step):
        return (*batch(key, step), (jnp.arange(8) == 7) & (step == at_step))

    def bad_loss(params, data, carry, key):
        *points, now = data
        error, metrics = loss(params, points)
        return poison(error, params, now.any()), metrics

    return replace(PROBLEM, batch=bad_batch, loss=bad_loss)


def nan_loss(error, params, now):
    return error * jnp.where(now, jnp.float32(jnp.nan), jnp.float32(1))


def infinite_loss_with_a_finite_gradient(error, params, now):
    return error + jnp.where(now, jnp.float32(jnp.inf), jnp.float32(0))


def nan_gradient_of_the_offset(error, params, now):
    return error + params.b * jnp.where(now, jnp.float32(jnp.nan), jnp.float32(0))


def finite_loss_with_one_infinite_gradient_entry(error, params, now):
    zero = params.w[1] - jax.lax.stop_gradient(params.w[1])  # the root's slope at 0 is infinite
    return error + jnp.sqrt(jnp.where(now, zero, jnp.ones_like(zero)))


def finite_gradient_whose_norm_overflows(error, params, now):
    large = jnp.where(now, jnp.float32(1e25), jnp.float32(0))  # its square is beyond float32
    return error + large * (params.b - jax.lax.stop_gradient(params.b))


@pytest.mark.parametrize(
    ("poison", "said"),
    [
        (nan_loss, r"loss nan .* first leaf that is not finite is w\)"),
        (infinite_loss_with_a_finite_gradient, r"loss inf .*every leaf of the gradient is finite\)"),
        (nan_gradient_of_the_offset, r"first leaf that is not finite is b\)"),
        (finite_loss_with_one_infinite_gradient_entry, r"loss \d.* gradient norm inf .* is w\)"),
        (
            finite_gradient_whose_norm_overflows,
            r"loss \d.* gradient norm inf .*every leaf of the gradient is finite\)",
        ),
    ],
)
def test_a_loss_or_gradient_that_is_not_finite_stops_the_run(tmp_path, poison, said):
    # Step 24 by index is the 25th: after the checkpoint of step 20, before that of step 30.
    with pytest.raises(NotFiniteError, match=rf"^step 25, seed 0: .*{said}.*newest checkpoint is of step 20"):
        fit(poisoned(24, poison), OPT, TRAIN, tmp_path)
    state = newest(tmp_path)
    assert int(state.step) == 20
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))
    assert [r["step"] for r in read_metrics(tmp_path) if r["split"] == "validation"] == [10, 20]


def test_a_fault_before_the_first_checkpoint_leaves_none(tmp_path):
    with pytest.raises(NotFiniteError, match=r"^step 3, seed 0: .*no checkpoint was written"):
        fit(poisoned(2, nan_loss), OPT, TRAIN, tmp_path)
    assert newest_step(tmp_path / "checkpoints") is None


def test_a_validation_score_that_is_not_finite_stops_the_run(tmp_path):
    problem = replace(PROBLEM, score=lambda p: jnp.log(-jnp.abs(p.w[0]) - 1))
    with pytest.raises(
        NotFiniteError, match=r"step 10: wanted a finite validation mse, but got \[nan, nan\] for seeds \[0, 1\]"
    ):
        fit(problem, OPT, TRAIN, tmp_path)


def test_nothing_is_traced_after_the_first_chunk_and_validation(tmp_path):
    def traces(steps):
        chex.clear_trace_counter()
        counted = replace(PROBLEM, loss=traced_once(loss), score=traced_once(score))
        run_dir = tmp_path / str(steps)
        run_dir.mkdir()
        return fit(counted, OPT, replace(TRAIN, steps=steps), run_dir)

    assert int(traces(10).step) == 10
    assert int(traces(60).step) == 60


def test_a_probe_is_written_at_step_0_and_at_every_interval(tmp_path):
    """One of two norms is zero: its log, −inf, is no JSON."""
    problem = replace(PROBLEM, probe=lambda p: jnp.stack([jnp.log(jnp.float32(0)), p.w[0]]))
    train = replace(TRAIN, steps=20, probe=10)
    state = fit(problem, OPT, train, tmp_path)
    records = [r for r in read_metrics(tmp_path) if r["split"] == "probe"]
    assert [r["step"] for r in records] == [0, 10, 20]
    start = init_state(problem, optimizer(OPT, 20), train.seeds).params.w[:, 0]
    for record, w in zip((records[0], records[-1]), (start, state.params.w[:, 0]), strict=True):
        assert [seed[0] for seed in record["log_norms"]] == [None, None]
        np.testing.assert_allclose([seed[1] for seed in record["log_norms"]], w, rtol=1e-6)


def test_a_resumed_run_probes_as_one_never_interrupted(tmp_path):
    problem = replace(PROBLEM, probe=lambda p: p.w)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir(), parts.mkdir()
    fit(problem, OPT, replace(TRAIN, probe=5), whole)
    fit(problem, OPT, replace(TRAIN, probe=5), parts)
    fit(problem, OPT, replace(TRAIN, steps=60, probe=5), parts, resume=True)
    records = [[r for r in read_metrics(d) if r["split"] == "probe"] for d in (whole, parts)]
    assert records[1][: len(records[0])] == records[0]
    assert [r["step"] for r in records[1]] == list(range(0, 61, 5))


def test_a_probe_of_a_problem_that_has_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"train.probe: wanted null, because this problem has no probe"):
        fit(PROBLEM, OPT, replace(TRAIN, probe=10), tmp_path)


def test_training_stops_once_every_seed_reaches_the_target(tmp_path):
    train = replace(TRAIN, steps=400)
    state = fit(PROBLEM, OPT, replace(train, target=0.05), tmp_path)
    assert 0 < int(state.step) < 400
    assert (state.best.score <= 0.05).all()
    scores = [r["best"] for r in read_metrics(tmp_path) if r["split"] == "validation"]
    assert all(max(best) > 0.05 for best in scores[:-1])
    again = fit(PROBLEM, OPT, replace(train, target=0.05), tmp_path, resume=True)
    assert int(again.step) == int(state.step)
    assert int(fit(PROBLEM, OPT, replace(train, target=0.0), tmp_path, resume=True).step) == 400
