"""What is carried from step to step: in order, cut from the gradient, on disk, and shared by devices."""

import re
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from jax.sharding import PartitionSpec
from programs import HLO

import jax_lstm as jl
from jax_lstm.train import Checkpoints, OptConfig, Problem, TrainConfig, init_state, optimizer, read_metrics
from jax_lstm.train.devices import data_mesh
from jax_lstm.train.state import place
from jax_lstm.train.step import compile_steps, compile_validation, key_of_step
from tests.train import toy
from tests.train.test_devices import ADAM, CELL, B, assert_close, collectives, recurrent
from tests.train.toy import fit

RATE = 0.02
SGD = optax.sgd(RATE)


def x_of(key, step):
    return jax.random.uniform(jax.random.fold_in(key, step), (8,), jnp.float32)


def decayed_sum(w, x, c, key):
    """c_t = w c_tm1 + x_t, of which the mean is minimised; the score is drawn from the step's key."""
    c = w * c + x
    return jnp.mean(c), {"drawn": jax.random.uniform(key, dtype=jnp.float32)}, c


# One number is trained; c begins as it.
DECAY = Problem(
    init=lambda key: jax.random.uniform(key, (), jnp.float32, 0.5, 1.0),
    batch=x_of,
    loss=decayed_sum,
    score=lambda w: w,
    maximize=False,
    metric="drawn",
    carry=lambda w: jnp.broadcast_to(w, (8,)),
)


def run(problem, tx, seeds, calls, n, vmap=None):
    state, step = init_state(problem, tx, seeds), compile_steps(problem, tx, n, vmap)
    reports = []
    for _ in range(calls):
        state, report = step(state)
        reports.append(report)
    return state, jax.tree.map(lambda *leaves: np.concatenate(leaves), *reports)


@pytest.mark.parametrize(("calls", "n", "vmap"), [(1, 6, True), (1, 6, False), (3, 2, None)])
def test_a_step_starts_from_the_last_carry_and_cuts_its_gradient(calls, n, vmap):
    state, report = run(DECAY, SGD, (3, 4), calls, n, vmap)
    start = init_state(DECAY, SGD, (3, 4))
    for s in range(2):
        w = float(start.params[s])
        c, through_time = np.full(8, w), np.ones(8)
        for t in range(6):
            cut, through_time = c.mean(), c + w * through_time
            assert report.grad_norm[t, s] == pytest.approx(cut, rel=1e-5)
            assert abs(cut - through_time.mean()) > 0.1, "a gradient that is not cut would be seen"
            c = w * c + np.asarray(x_of(start.data_key[s], t))
            assert report.loss[t, s] == pytest.approx(c.mean(), rel=1e-5)
            w -= RATE * cut
        np.testing.assert_allclose(state.carry[s], c, rtol=1e-5)
        np.testing.assert_allclose(state.params[s], w, rtol=1e-5)


def test_step_keys_are_unique_and_differ_from_batch_keys():
    _, report = run(DECAY, SGD, (0, 1), 2, 4)
    keys = init_state(DECAY, SGD, (0, 1)).data_key
    drawn = [[jax.random.uniform(key_of_step(key, t), dtype=jnp.float32) for key in keys] for t in range(8)]
    np.testing.assert_array_equal(report.metrics["drawn"], drawn)
    assert len(np.unique(report.metrics["drawn"])) == 16
    folded = jax.vmap(lambda n: jax.random.fold_in(keys[0], n))(jnp.arange(1000))
    own = jax.vmap(lambda t: key_of_step(keys[0], t))(jnp.arange(1000))
    assert len(np.unique(jax.random.key_data(jnp.concatenate([folded, own, keys])), axis=0)) == 2002


def test_the_carry_is_donated_and_a_problem_without_one_has_none():
    state = init_state(DECAY, SGD, (0,))
    compile_steps(DECAY, SGD, 1)(state)
    assert state.carry.is_deleted()
    assert run(toy.PROBLEM, SGD, (0,), 1, 1)[0].carry is None


OPT, TRAIN = OptConfig(lr=0.1), TrainConfig(steps=40, batch_size=8, seeds=(0, 1), log_every=5, eval_every=10, devices=2)


def test_a_resumed_run_continues_its_carry_bit_for_bit(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir(), parts.mkdir()
    ended = fit(DECAY, OPT, TRAIN, whole)
    half = fit(DECAY, OPT, replace(TRAIN, steps=20), parts)
    assert np.abs(np.asarray(half.carry) - np.asarray(init_state(DECAY, SGD, (0, 1)).carry)).min() > 1e-3
    chex.assert_trees_all_equal(fit(DECAY, OPT, TRAIN, parts, resume=True), ended)

    def timeless(run_dir):
        return [{k: v for k, v in r.items() if k != "steps_per_second"} for r in read_metrics(run_dir)]

    assert timeless(parts) == timeless(whole)


class Before(NamedTuple):
    """A state as it was before anything was carried."""

    step: Any
    data_key: Any
    params: Any
    opt_state: Any
    best: Any


def test_a_checkpoint_from_before_there_was_a_carry_is_read(tmp_path):
    state = init_state(toy.PROBLEM, optimizer(OPT, 40), (0, 1))
    with ocp.CheckpointManager(tmp_path / "checkpoints") as manager:
        manager.save(5, args=ocp.args.StandardSave(Before(*(getattr(state, name) for name in Before._fields))))
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        chex.assert_trees_all_equal(checkpoints.restore(jax.eval_shape(lambda: state)), state)


def stateful():
    """The problem of test_devices.py, its LSTM's state carried from batch to batch."""
    stateless = recurrent()

    def loss(params, data, state, key):
        xs, sums = data
        state, _ = jl.batched(jl.unroll)(CELL, params, xs, state)
        error = jnp.sum(state.h, axis=1) - sums
        return jnp.mean(jnp.square(error)), {"distance": jnp.mean(jnp.abs(error))}, state

    def carry(params):
        return jax.tree.map(lambda a: jnp.zeros((B, *a.shape), a.dtype), CELL.initial_state(params))

    return replace(stateless, loss=loss, carry=carry)


@cache
def trained(devices, vmap=False):
    problem, mesh = stateful(), data_mesh(devices)
    start = place(init_state(problem, ADAM, (0, 1)), mesh)
    return jax.device_get(compile_steps(problem, ADAM, 20, vmap, mesh)(start))


@pytest.mark.parametrize(("devices", "vmap"), [(2, False), (8, False), (2, True)])
def test_any_number_of_devices_carries_what_one_does(devices, vmap):
    many, one = trained(devices, vmap), trained(1, vmap)
    assert_close(many, one, 1e-6)
    largest = max(1, *(np.abs(a).max() for a in jax.tree.leaves(one[0].carry)))
    chex.assert_trees_all_close(many[0].carry, one[0].carry, rtol=0, atol=1e-6 * largest)


@pytest.mark.parametrize(("devices", "vmap"), [(2, False), (8, True)])
def test_a_carry_step_has_one_all_reduce_and_a_sharded_carry(devices, vmap):
    problem, mesh = stateful(), data_mesh(devices)
    start = place(init_state(problem, ADAM, (0, 1)), mesh)
    steps: Any = compile_steps(problem, ADAM, 3, vmap, mesh)
    hlo = HLO(steps.lower(start).compile().as_text() or "")
    assert collectives(hlo) == ({"all-reduce": 1}, [{}, {}])
    state, _ = steps(start)
    for leaf in state.carry:
        assert leaf.sharding.spec == PartitionSpec(None, "data")
        assert {shard.data.shape for shard in leaf.addressable_shards} == {(2, B // devices, CELL.hidden_size)}


def test_later_calls_on_many_devices_compile_and_move_nothing(caplog):
    problem, mesh = replace(stateful(), score=lambda params: jnp.sum(params.b)), data_mesh(4)
    step, validate = compile_steps(problem, ADAM, 2, mesh=mesh), compile_validation(problem)
    state, _ = validate(step(place(init_state(problem, ADAM, (0, 1)), mesh))[0])
    with jax.log_compiles(True), jax.transfer_guard("disallow"):
        for _ in range(2):
            state, _ = validate(step(state)[0])
    assert [r.message for r in caplog.records if "ompil" in r.message] == []
    assert int(state.step) == 6


def test_a_carry_that_the_devices_cannot_share_is_refused(tmp_path):
    said = (
        rf"^Problem.carry: wanted .* multiple of the 2 devices, but it has shape {re.escape('(7,)')}; change its size"
    )
    with pytest.raises(ValueError, match=said):
        fit(replace(DECAY, carry=lambda w: jnp.zeros(7, jnp.float32)), OPT, TRAIN, tmp_path)
