"""Many devices share a batch: the numbers of one device, one all-reduce a step, and what each device holds."""

import re
from collections import Counter
from dataclasses import replace
from functools import cache
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from programs import HLO
from tiers import slow_except

import jax_lstm as jl
from jax_lstm.train import Checkpoints, OptConfig, Problem, TrainConfig, count_devices, init_state, read_metrics
from jax_lstm.train.devices import data_mesh, split, whole
from jax_lstm.train.step import compile_steps, compile_validation
from tests.train import toy
from tests.train.toy import fit

B, T = 16, 11
CELL = jl.LSTM(3, 6)
ADAM = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.01))
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")


def recurrent(engine="hoisted", centred=False, dtype=jnp.float32):
    """An LSTM that adds up its input; centred: the loss takes the batch's mean error off each error."""

    def batch(key, step):
        xs = jax.random.normal(jax.random.fold_in(key, step), (B, T, 3), dtype)
        return xs, jnp.sum(xs, axis=(1, 2))

    def loss(params, data, carry, key):
        xs, sums = data
        state, _ = jl.batched(jl.unroll)(CELL, params, xs, engine=engine)
        error = jnp.sum(state.h, axis=1) - sums
        error = error - jnp.mean(error) if centred else error
        return jnp.mean(jnp.square(error)), {"distance": jnp.mean(jnp.abs(error))}

    return Problem(
        init=lambda key: CELL.init(key, dtype),
        batch=batch,
        loss=loss,
        score=lambda params: jnp.sum(params.b),
        maximize=False,
        metric="sum",
    )


LINE = replace(toy.PROBLEM, batch=lambda key, step: jax.tree.map(lambda a: a.astype(jnp.float32), toy.batch(key, step)))


def start(problem, mesh, seeds=(0, 1)):
    return jax.device_put(init_state(problem, ADAM, seeds), whole(mesh))


@cache
def trained(devices, vmap=False, dtype=jnp.float32):
    """The last state and the reports of 20 steps; devices None: without a mesh."""
    problem, mesh = recurrent(dtype=dtype), devices and data_mesh(devices)
    return jax.device_get(compile_steps(problem, ADAM, 20, vmap, mesh)(start(problem, mesh)))


def assert_close(many, one, tolerance):
    """State and reports, relative to the largest of their kind."""
    (state, report), (state_one, report_one) = many, one
    for a, b in zip(jax.tree.leaves(report[:3]), jax.tree.leaves(report_one[:3]), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.max(b))
    chex.assert_trees_all_close(state.params, state_one.params, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("devices", "vmap"),
    slow_except([(2, False), (4, True)], [(1, False), (2, False), (4, False), (8, False), (4, True)]),
)
def test_any_device_count_gives_the_losses_and_params_of_one(devices, vmap):
    one = trained(None, vmap)
    assert one[1].loss.dtype == np.float32
    assert_close(trained(devices, vmap), one, 1e-6)


@pytest.mark.parametrize("devices", slow_except([2], [2, 8]))
def test_device_counts_differ_by_rounding_only(devices):
    one = trained(None, dtype=jnp.float64)
    assert one[1].loss.dtype == np.float64
    assert_close(trained(devices, dtype=jnp.float64), one, 1e-12)


def test_another_seed_differs_by_more_than_the_tolerance():
    def of_seed(s):
        state, report = trained(8)
        return jax.tree.map(lambda a: a[s] if a.ndim else a, state), jax.tree.map(lambda a: a[:, s], report)

    with pytest.raises(AssertionError):
        assert_close(of_seed(0), of_seed(1), 1e-2)


@cache
def hlo_of(devices, vmap=False, **variant):
    mesh, problem = devices and data_mesh(devices), recurrent(**variant)
    steps: Any = compile_steps(problem, ADAM, 3, vmap, mesh)
    return HLO(steps.lower(start(problem, mesh)).compile().as_text() or "")


def collectives(hlo):
    """How many in the whole program, and in each loop over a sequence: the innermost ones with products."""
    inner = [body for body in hlo.loop_bodies() if hlo.count(body, "dot") and not hlo.count(body, "while")]

    def count(name):
        return {kind: n for kind in COLLECTIVES if (n := hlo.count(name, kind))}

    return count(next(reversed(hlo.computations))), [count(body) for body in inner]


@pytest.mark.parametrize(("devices", "vmap"), slow_except([(2, False), (8, True)], [(2, False), (4, False), (8, True)]))
def test_a_step_has_one_all_reduce_and_none_in_the_recurrence(devices, vmap):
    assert collectives(hlo_of(devices, vmap)) == ({"all-reduce": 1}, [{}, {}])


def test_the_plain_engine_has_an_all_reduce_in_a_loop():
    total, inner = collectives(hlo_of(4, engine="plain"))
    assert total["all-reduce"] > 1
    assert max(count.get("all-reduce", 0) for count in inner) > 0


def test_a_loss_that_mixes_sequences_needs_another_all_reduce():
    total, inner = collectives(hlo_of(4, centred=True))
    assert total["all-reduce"] > 1
    assert inner == [{}, {}]


def rows_in_the_recurrence(hlo):
    """How many sequences the products of the forward and of the backward loop have."""
    lines = [
        line
        for body in hlo.loop_bodies()
        if not hlo.count(body, "while")
        for line in hlo.within(body)
        if " dot(" in line
    ]
    return sorted(int(rows) for line in lines for rows in re.findall(r"= f32\[(\d+),(?:6|24)\]", line))


def test_each_device_computes_its_part_of_the_batch_only():
    assert rows_in_the_recurrence(hlo_of(4)) == 3 * [B // 4]
    assert rows_in_the_recurrence(hlo_of(None)) == 3 * [B]


def test_one_device_runs_the_program_that_has_no_mesh():
    mesh, none = hlo_of(1), hlo_of(None)

    def operations(hlo):
        lines = [line for lines in hlo.computations.values() for line in lines]
        return Counter(m.group(1) for line in lines if (m := re.search(r"= .*? ([a-z\-]+)\(", line)))

    assert collectives(mesh) == ({}, [{}, {}])
    assert operations(mesh) == operations(none)
    chex.assert_trees_all_equal(trained(1)[1], trained(None)[1])


def test_later_calls_on_many_devices_compile_and_move_nothing(caplog):
    mesh = data_mesh(4)
    step, validate = compile_steps(LINE, ADAM, 4, mesh=mesh), compile_validation(LINE)

    def both(state):
        state, report = step(state)
        state, score = validate(state)
        jax.device_get((report, score))
        return state

    with jax.log_compiles(True):
        state = both(start(LINE, mesh))
        assert [r for r in caplog.records if "ompil" in r.message]
        caplog.clear()
        with jax.transfer_guard("disallow"):
            for _ in range(3):
                state = both(state)
    assert [r.message for r in caplog.records if "ompil" in r.message] == []
    assert int(state.step) == 16


def test_every_device_holds_the_whole_state_and_donates_it():
    mesh = data_mesh(4)
    before = start(LINE, mesh)
    after, report = compile_steps(LINE, ADAM, 1, mesh=mesh)(before)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before.params))
    for leaf in jax.tree.leaves((after, report)):
        assert leaf.sharding.is_fully_replicated
        assert len(leaf.sharding.device_set) == 4


@pytest.mark.parametrize(
    ("devices", "batch_size", "used"),
    [("auto", 64, 8), ("auto", 12, 6), ("auto", 7, 7), ("auto", 9, 3), ("auto", 11, 1), ("auto", 2, 2), (4, 64, 4)],
)
def test_auto_uses_the_most_devices_that_divide_the_batch(devices, batch_size, used):
    assert jax.local_device_count() == 8
    assert count_devices(TrainConfig(devices=devices, batch_size=batch_size)) == used


def test_more_devices_than_there_are_are_refused():
    with pytest.raises(
        ValueError, match=r"^train\.devices: wanted auto, or at most 8 .*, but got 16; use fewer, or set JAX_"
    ):
        count_devices(TrainConfig(devices=16))


@pytest.mark.parametrize("shape", [(6, 2), ()])
def test_a_batch_that_devices_cannot_share_is_refused_by_leaf(shape):
    data = {"xs": jnp.zeros(shape, jnp.float32)}
    said = rf"^Problem.batch: wanted .* 4 devices, .*xs has shape {re.escape(str(shape))}"
    with pytest.raises(ValueError, match=said):
        jax.jit(lambda data: split(data, data_mesh(4)))(data)
    chex.assert_trees_all_equal(split(data, data_mesh(1)), data)


OPT = OptConfig(lr=0.05)
TRAIN = TrainConfig(steps=40, batch_size=8, seeds=(0, 1), log_every=5, eval_every=10)


def test_the_loop_splits_the_batches_that_it_trains_on(tmp_path):
    problem = replace(LINE, batch=lambda key, step: jax.tree.map(lambda a: a[:6], LINE.batch(key, step)))
    fit(problem, OPT, replace(TRAIN, steps=1, devices=1), tmp_path)
    with pytest.raises(
        ValueError, match=r"^Problem.batch: wanted .* multiple of the 4 devices, but 0 has shape \(6, 3\)"
    ):
        fit(problem, OPT, replace(TRAIN, steps=2, devices=4), tmp_path, resume=True)


def losses(run_dir):
    return np.array([r["loss"] for r in read_metrics(run_dir) if r["split"] == "train"])


def run(run_dir, devices, steps=40, resume=False):
    run_dir.mkdir(exist_ok=True)
    return fit(LINE, OPT, replace(TRAIN, devices=devices, steps=steps), run_dir, resume=resume)


@pytest.mark.parametrize(("before", "after"), slow_except([(8, 2)], [(1, 8), (8, 1), (8, 2), (2, "auto")]))
def test_resuming_with_another_device_count_keeps_the_losses(tmp_path, before, after):
    whole_state = run(tmp_path / "whole", 1)
    run(tmp_path / "parts", before, steps=20)
    state = run(tmp_path / "parts", after, resume=True)
    expected = losses(tmp_path / "whole")
    np.testing.assert_allclose(losses(tmp_path / "parts"), expected, rtol=0, atol=1e-6 * expected.max())
    chex.assert_trees_all_close(state.params, whole_state.params, rtol=0, atol=1e-6)


def test_a_checkpoint_is_restored_onto_the_devices_asked_for(tmp_path):
    state = run(tmp_path, 8)
    assert {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(state)} == {1}
    like = jax.eval_shape(lambda: state)
    asked = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=whole(data_mesh(2))), like)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        for wanted, count in ((like, 1), (asked, 2)):
            restored = checkpoints.restore(wanted)
            assert {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(restored)} == {count}
            chex.assert_trees_all_equal(restored, state)
