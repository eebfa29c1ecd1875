"""The pure step: seeds, chunks, donation, compilation."""

from dataclasses import replace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jax_lstm.train import init_state
from jax_lstm.train.step import compile_steps, compile_validation
from tests.train.toy import PROBLEM, batch, loss, traced_once

ADAM = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1))


def run(seeds, calls, n, problem=PROBLEM, optimizer=ADAM, vmap=None):
    state, step = init_state(problem, optimizer, seeds), compile_steps(problem, optimizer, n, vmap)
    reports = []
    for _ in range(calls):
        state, report = step(state)
        reports.append(report)
    return state, jax.tree.map(lambda *leaves: np.concatenate(leaves), *reports)


def test_the_same_seed_twice_gives_the_same_bits():
    chex.assert_trees_all_equal(run((3,), 2, 5), run((3,), 2, 5))


def test_another_seed_gives_other_params_and_other_data():
    state, report = run((0, 1), 1, 1)
    assert not np.array_equal(state.params.w[0], state.params.w[1])
    one, other = (batch(state.data_key[s], 0)[0] for s in (0, 1))
    assert not np.array_equal(one, other)
    assert report.loss[0, 0] != report.loss[0, 1]


@pytest.mark.parametrize("vmap", [True, False], ids=["vmap", "in turn"])
def test_seeds_trained_together_equal_each_one_alone(vmap):
    together, report = run((4, 7, 2), 3, 5, vmap=vmap)
    for s, seed in enumerate((4, 7, 2)):
        alone, report_alone = run((seed,), 3, 5)
        chex.assert_trees_all_close(
            jax.tree.map(lambda a, s=s: a[s], together.params),
            jax.tree.map(lambda a: a[0], alone.params),
            rtol=1e-5,
            atol=1e-6,
        )
        np.testing.assert_allclose(report.loss[:, s], report_alone.loss[:, 0], rtol=1e-4, atol=1e-6)


def test_a_chunk_of_steps_equals_the_steps_one_by_one():
    whole, report = run((0, 1), 1, 12)
    parts, report_parts = run((0, 1), 12, 1)
    chex.assert_trees_all_close(whole.params, parts.params, rtol=1e-5)
    np.testing.assert_allclose(report.loss, report_parts.loss, rtol=1e-5)
    assert int(whole.step) == int(parts.step) == 12


def test_a_step_applies_the_optimizer_to_the_batch_gradient():
    seed_state = init_state(PROBLEM, ADAM, (5,))
    params = jax.tree.map(lambda a: a[0], seed_state.params)
    opt_state = ADAM.init(params)
    for t in range(3):
        g = jax.grad(lambda p, t=t: loss(p, batch(seed_state.data_key[0], t))[0])(params)
        updates, opt_state = ADAM.update(g, opt_state, params)
        params = optax.apply_updates(params, updates)
    state, _ = run((5,), 1, 3)
    chex.assert_trees_all_close(jax.tree.map(lambda a: a[0], state.params), params, rtol=1e-5)


def test_the_report_holds_the_gradients_norm_before_clipping():
    state = init_state(PROBLEM, ADAM, (0,))
    params, key = jax.tree.map(lambda a: a[0], state.params), state.data_key[0]
    norm = optax.tree.norm(jax.grad(lambda p: loss(p, batch(key, 0))[0])(params))
    _, report = run((0,), 1, 1)
    np.testing.assert_allclose(report.grad_norm[0, 0], norm, rtol=1e-6)
    assert norm > 1


def test_clipping_limits_the_step_of_gradient_descent():
    sgd = optax.chain(optax.clip_by_global_norm(1e-3), optax.sgd(1.0))
    before = init_state(PROBLEM, sgd, (0,))
    after, _ = run((0,), 1, 1, optimizer=sgd)
    moved = optax.tree.norm(jax.tree.map(jnp.subtract, after.params, before.params))
    np.testing.assert_allclose(moved, 1e-3, rtol=1e-3)


def test_later_calls_trace_nothing_and_move_no_data():
    chex.clear_trace_counter()
    counted = replace(PROBLEM, loss=traced_once(loss))
    step, validate = compile_steps(counted, ADAM, 4), compile_validation(counted)
    state, _ = step(init_state(counted, ADAM, (0, 1)))
    state, _ = validate(state)
    with jax.transfer_guard("disallow"):
        for _ in range(3):
            state, report = step(state)
            state, score = validate(state)
            jax.device_get((report, score))
    assert int(state.step) == 16


def test_a_host_value_in_the_loop_would_have_been_caught():
    double = jax.jit(lambda x: 2 * x)
    double(np.float32(1))
    with jax.transfer_guard("disallow"), pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        double(np.float32(1))


def test_the_state_is_donated():
    state = init_state(PROBLEM, ADAM, (0,))
    compile_steps(PROBLEM, ADAM, 1)(state)
    assert state.params.w.is_deleted()


@pytest.mark.parametrize(("maximize", "vmap"), [(False, False), (True, True)])
def test_each_seed_keeps_its_own_best_params(maximize, vmap):
    # The score is a table over steps, so that seed 0 is best after step 1 and seed 1 after step 3.
    sign = -1 if maximize else 1
    table = sign * jnp.array([[2.0, 9.0], [1.0, 8.0], [4.0, 7.0], [3.0, 5.0]])

    def find(params):  # which seed: the offset marks it
        return (params.b > 100).astype(jnp.int32)

    problem = replace(
        PROBLEM,
        loss=lambda p, *_: jnp.sum(p.w),
        score=lambda p: table[jnp.round(p.w[0] / 10).astype(jnp.int32), find(p)],
        maximize=maximize,
    )
    climb = optax.sgd(-10.0)  # every step adds 10 to each weight
    state = init_state(problem, climb, (0, 1))
    state = state._replace(params=state.params._replace(w=jnp.zeros((2, 3)), b=jnp.array([0.0, 200.0], jnp.float32)))
    step, validate = compile_steps(problem, climb, 1, vmap), compile_validation(problem, vmap)
    scores, stale = [], []
    for t in range(4):
        state, score = validate(state)
        scores.append(np.asarray(score["mse"]))
        stale.append(int(state.best.stale))
        if t < 3:
            state, _ = step(state)
    np.testing.assert_array_equal(scores, table)
    np.testing.assert_array_equal(state.best.step, [1, 3])
    np.testing.assert_array_equal(state.best.score, [sign * 1.0, sign * 5.0])
    np.testing.assert_array_equal(state.best.params.w[:, 0], [10.0, 30.0])
    # The means are 5.5, 4.5, 5.5, 4.0: better at 0, 1 and 3.
    assert stale == [0, 0, 1, 0]
    assert float(state.best.mean) == sign * 4.0


def test_equal_scores_keep_the_later_params_but_are_not_better():
    problem = replace(PROBLEM, score=lambda p: jnp.zeros((), jnp.float32))
    step, validate = compile_steps(problem, ADAM, 2), compile_validation(problem)
    state, _ = validate(init_state(problem, ADAM, (0,)))
    state, _ = validate(step(state)[0])
    np.testing.assert_array_equal(state.best.step, [2])
    chex.assert_trees_all_equal(state.best.params, state.params)
    assert int(state.best.stale) == 1
