"""Data that a problem closes over are arguments of its programs: the programs do not grow with the data."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jax_lstm.train import Problem, init_state
from jax_lstm.train.devices import data_mesh
from jax_lstm.train.forms import checked_loss
from jax_lstm.train.state import place
from jax_lstm.train.step import compile_steps, compile_validation, key_of_step, of_one_seed
from jax_lstm.train.traced import Placed, trace

SGD = optax.sgd(0.1)
FEW, MANY = 600, 6000  # rows


def problem(rows, array=np.asarray) -> Problem:
    """A linear model whose functions read data in every kind of inner function."""
    xs = array(np.random.default_rng(0).standard_normal((rows, 3)).astype(np.float32))
    center, scale, offset, last = (array(np.random.default_rng(n).random((rows, 3), np.float32)) for n in range(1, 5))

    def batch(key, step):
        chosen = jax.random.randint(jax.random.fold_in(key, step), (8,), 0, rows)
        return jnp.asarray(xs)[chosen]

    @jax.custom_jvp
    def shifted(w):
        return w + jnp.asarray(offset).mean(axis=0)

    shifted.defjvps(lambda t, out, w: t * (1 + 0 * jnp.asarray(offset).mean(axis=0)))

    @jax.jit
    def scaled(c):
        def body(n_c):
            return n_c[0] + 1, n_c[1] * jnp.asarray(scale).mean(axis=0)

        return jax.lax.while_loop(lambda n_c: n_c[0] < 2, body, (0, jax.lax.stop_gradient(c)))[1]

    @jax.jit
    def inner(w, x):
        def body(c, x_t):
            c = jax.lax.cond(x_t[0] > 0, lambda c: c + jnp.asarray(center).mean(axis=0), lambda c: c + scaled(c), c)
            return jnp.tanh(c + x_t * w), None

        return jax.lax.scan(body, jnp.zeros_like(w), x)[0]

    def loss(w, x, carry, key):
        again = jax.checkpoint(jax.jit(lambda w: w * jnp.asarray(last).mean(axis=0)))
        return jnp.mean(jnp.square(inner(shifted(w), x) - again(w)))

    def score(w):
        return jnp.mean(jnp.square(jnp.asarray(xs) @ w))

    return Problem(
        init=lambda key: jax.random.normal(key, (3,), jnp.float32),
        loss=loss,
        score=score,
        maximize=False,
        metric="mse",
        batch=batch,
    )


def programs(rows, array=np.asarray, mesh=None):
    p = problem(rows, array)
    state = place(init_state(p, SGD, (0, 1)), data_mesh(1) if mesh is None else mesh)
    placed = Placed(mesh)
    return state, compile_steps(p, SGD, 2, mesh=mesh, placed=placed), compile_validation(p, placed=placed)


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
def test_the_programs_do_not_grow_with_the_data(array):
    few, many = ([p.lower(state) for p in rest] for state, *rest in (programs(n, array) for n in (FEW, MANY)))
    for one, other in zip(few, many, strict=True):
        assert abs(len(one.as_text()) - len(other.as_text())) < 500, "a number of rows may have more digits"


def test_the_compiled_code_does_not_grow_with_the_data():
    few, many = ([p.lower(state).compile() for p in rest] for state, *rest in (programs(n) for n in (FEW, MANY)))
    for one, other, arrays in zip(few, many, (5, 1), strict=True):
        a, b = one.memory_analysis(), other.memory_analysis()
        assert b.generated_code_size_in_bytes - a.generated_code_size_in_bytes < 1000
        assert b.argument_size_in_bytes - a.argument_size_in_bytes == arrays * 12 * (MANY - FEW)


def plain_steps(p):
    """One step of one seed with data as constants, the way `compile_steps` must not go."""

    @jax.jit
    def step(key, t, w):
        g = jax.grad(lambda w: p.loss(w, p.batch(key, t), None, key_of_step(key, t)))(w)
        return w - 0.1 * g

    return step


def test_a_plain_jitted_step_does_grow_with_its_data():
    key, w = jax.random.key(0), jnp.ones(3, jnp.float32)
    few, many = (len(plain_steps(problem(n)).lower(key, 0, w).as_text()) for n in (FEW, MANY))
    assert many - few > 12 * (MANY - FEW)


@pytest.mark.parametrize("devices", [1, 4])
def test_data_as_arguments_give_the_numbers_of_constants(devices):
    p = problem(FEW)
    state, steps, validate = programs(FEW, mesh=data_mesh(devices))
    keys, ws = jax.device_get((state.data_key, state.params))
    state, _ = steps(state)
    step = plain_steps(p)
    want = [step(key, 1, step(key, 0, w)) for key, w in zip(keys, ws, strict=True)]
    np.testing.assert_allclose(state.params, want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(validate(state)[1]["mse"], [p.score(w) for w in want], rtol=1e-5)


def test_every_device_holds_an_array_once_for_all_programs():
    xs, placed = np.ones((FEW, 3), np.float32), Placed(data_mesh(4))
    jaxed = jnp.asarray(xs) + 1
    one, other = placed([xs, jaxed]), placed([jaxed, xs[:]])
    assert one[0] is other[1]
    assert one[1] is other[0]
    assert len(one[0].sharding.device_set) == 4


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_cpu_devices_share_one_copy_of_the_data(array):
    xs = array(np.random.default_rng(0).normal(size=(FEW, 3)))
    (placed,) = Placed(data_mesh(4))([xs])
    assert placed.sharding.is_fully_replicated
    assert len({shard.data.unsafe_buffer_pointer() for shard in placed.addressable_shards}) == 1
    assert len({shard.device for shard in placed.addressable_shards}) == 4
    np.testing.assert_array_equal(placed, xs)


def test_small_constants_stay_in_the_program():
    assert trace(lambda x: x + np.arange(4.0), 1.0).data == []
    assert [a.shape for a in trace(lambda x: x + np.ones(500), 1.0).data] == [(500,)]


def test_traced_data_keep_their_dtype_and_weak_types():
    data = np.linspace(0, 1, 500)
    traced = trace(lambda x: (data * x, 2 * x), jax.ShapeDtypeStruct((), jnp.float64, weak_type=True))
    assert (traced.data[0].dtype, traced.out[1].weak_type) == (np.float64, True)
    got = traced([jnp.asarray(a) for a in traced.data], 3.0)
    np.testing.assert_array_equal(got[0], 3 * data)


def test_random_keys_as_data_are_arguments():
    keys = jax.random.split(jax.random.key(0), 500)
    traced = trace(lambda n: jax.random.key_data(keys[n]), 1)
    assert len(traced.data) == 1
    placed = Placed(data_mesh(2))(traced.data)
    chex.assert_trees_all_equal(traced(placed, 7), jax.random.key_data(keys[7]))


def test_a_traced_loss_has_the_gradients_of_the_loss():
    p = problem(FEW)
    w, xs, key = jnp.array([1.0, -2.0, 0.5], jnp.float32), jnp.ones((8, 3), jnp.float32), jax.random.key(0)
    traced = trace(checked_loss(p.loss, carried=False), w, xs, None, key)
    got: Any = jax.grad(lambda w: traced(traced.data, w, xs, None, key)[0])(w)
    np.testing.assert_allclose(got, jax.grad(lambda w: p.loss(w, xs, None, key))(w), rtol=1e-5)
    assert of_one_seed(jnp.stack([w, w])).shape == (3,)
