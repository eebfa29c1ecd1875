"""The structure of a train step, on its jaxpr and its compiled HLO: what is in the loops and what has left them."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
import reference
from everything import Everything, everything
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from programs import HLO, carried_shapes, products, scans, shapes

import jax_lstm as jl

pytestmark = pytest.mark.optimized

# Sizes that share no product, so that a shape tells what it is.
B, T, I, H = 8, 11, 3, 6
CELLS = {"LSTM": jl.LSTM(I, H), "GRU": jl.GRU(I, H), "RNN": jl.RNN(I, H), "Everything": Everything(I, H)}


def batch(cell, masks, dtype=jnp.float32):
    params = cell.init(jax.random.key(0), dtype)
    xs = jax.random.normal(jax.random.key(1), (B, T, I), dtype)
    mask = jnp.arange(T)[None] < jnp.arange(4, 4 + B)[:, None] if masks else None
    reset = jnp.arange(T)[None] % jnp.arange(3, 3 + B)[:, None] == 2 if masks else None
    return params, xs, mask, reset


def loss(cell, engine, params, xs, mask, reset):
    state, hs = jl.batched(jl.unroll)(cell, params, xs, None, mask, reset, engine=engine)
    return jnp.mean(hs**2) + jnp.mean(jax.tree.leaves(state)[0])


def step(cell, engine="auto"):
    return jax.value_and_grad(partial(loss, cell, engine), (0, 1))


@cache
def jaxpr_of(name, masks, engine="auto"):
    return jax.make_jaxpr(step(CELLS[name], engine))(*batch(CELLS[name], masks))


@cache
def hlo_of(name, masks, engine="auto"):
    return HLO(jax.jit(step(CELLS[name], engine)).lower(*batch(CELLS[name], masks)).compile().as_text() or "")


def products_per_loop(name, masks, engine="auto"):
    hlo = hlo_of(name, masks, engine)
    return [hlo.count(body, "dot") for body in hlo.loop_bodies()]


def parameter_shaped_carries(name, masks, engine="auto"):
    params = {a.shape for a in jax.tree.leaves(batch(CELLS[name], masks)[0])}
    carried = {s for scan in scans(jaxpr_of(name, masks, engine)) for s in carried_shapes(scan)}
    return params & carried


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
def test_a_train_step_has_two_loops_without_weight_gradients(name, masks):
    # x w_x and h w_h in the forward loop; z̄ w_hᵀ in the backward loop.
    assert [products(scan.params["jaxpr"]) for scan in scans(jaxpr_of(name, masks))] == [2, 1]
    assert products_per_loop(name, masks) == [2, 1]


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("name", list(CELLS))
def test_no_loop_carries_anything_of_a_parameters_shape(name, masks):
    assert len(scans(jaxpr_of(name, masks))) == 2
    assert parameter_shaped_carries(name, masks) == set()


@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
def test_all_other_products_are_outside_the_loops(name):
    # x̄ = z̄ w_xᵀ, w̄_x = xᵀ z̄ and w̄_h = hᵀ z̄ after.
    jaxpr = jaxpr_of(name, True)
    assert products(jaxpr) - sum(products(scan.params["jaxpr"]) for scan in scans(jaxpr)) == 3


def test_the_plain_engine_has_weight_gradients_in_its_loop():
    assert max(products(scan.params["jaxpr"]) for scan in scans(jaxpr_of("LSTM", True, "plain"))) > 1
    assert max(products_per_loop("LSTM", True, "plain")) > 1
    assert parameter_shaped_carries("LSTM", True, "plain") == {(I, 4 * H), (H, 4 * H), (4 * H,)}


def test_a_batch_gradient_makes_no_weight_gradient_per_example():
    cell, args = CELLS["LSTM"], batch(CELLS["LSTM"], True)

    def per_example(size):
        return [s for s in size if sorted(s) == sorted((B, H, 4 * H)) or sorted(s) == sorted((B, I, 4 * H))]

    assert per_example(shapes(jaxpr_of("LSTM", True))) == []

    def one(params, xs, mask, reset):
        return jnp.mean(jl.lstm(params, xs, None, mask, reset)[1] ** 2)

    each = jax.make_jaxpr(jax.vmap(jax.grad(one), (None, 0, 0, 0)))(*args)
    assert per_example(shapes(each)) != []
    assert cell.hidden_size == H


def collectives_per_loop(engine):
    cell = CELLS["LSTM"]
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    params, *data = batch(cell, True)
    data = jax.device_put(data, NamedSharding(mesh, PartitionSpec("data")))
    params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
    hlo = HLO(jax.jit(step(cell, engine)).lower(params, *data).compile().as_text() or "")
    kinds = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")
    entry = next(reversed(hlo.computations))
    assert sum(hlo.count(entry, kind) for kind in kinds) > 0
    return [sum(hlo.count(body, kind) for kind in kinds) for body in hlo.loop_bodies()]


def test_a_sharded_batch_has_no_collective_in_a_loop():
    assert collectives_per_loop("hoisted") == [0, 0]


def test_the_plain_engine_has_a_collective_in_its_loop():
    assert max(collectives_per_loop("plain")) > 0


def test_hessian_vector_products_carry_nothing_of_a_params_shape():
    cell = CELLS["LSTM"]
    params, *data = batch(cell, True)

    def gradient(params):
        return jax.grad(partial(loss, cell, "hoisted"))(params, *data)

    jaxpr = jax.make_jaxpr(lambda p: jax.jvp(gradient, (p,), (p,))[1])(params)
    carried = {s for scan in scans(jaxpr) for s in carried_shapes(scan)}
    assert not carried & {a.shape for a in jax.tree.leaves(params)}


def test_with_remat_every_an_inner_loop_has_no_weight_gradient():
    cell = CELLS["LSTM"]
    params, xs, *_ = batch(cell, False)

    def mean(params):
        return jnp.mean(jl.batched(jl.unroll)(cell, params, xs[:, :9], remat_every=3)[1] ** 2)

    inner = [s for s in scans(jax.make_jaxpr(jax.grad(mean))(params)) if not scans(s.params["jaxpr"])]
    # The forward pass; and in the backward pass, forward again and back.
    assert [products(s.params["jaxpr"]) for s in inner] == [2, 2, 1]


@pytest.mark.parametrize("remat_every", [None, 4])
def test_a_cell_with_params_in_every_method_gets_all_gradients(remat_every):
    cell = CELLS["Everything"]
    params, xs, mask, reset = batch(cell, True, jnp.float64)
    xs, mask, reset = (a[3] for a in (xs, mask, reset) if a is not None)
    weights = np.random.default_rng(0).normal(size=(T, H))

    def ours(params, xs):
        return jnp.vdot(weights, jl.unroll(cell, params, xs, None, mask, reset, remat_every=remat_every)[1])

    def theirs(*args):
        zero = np.zeros(H)
        _, hs = reference.unroll(everything, args[:-1], args[-1], (zero, zero), np.asarray(mask), np.asarray(reset))
        return np.sum(weights * hs)

    gradient = jax.tree.leaves(jax.jit(jax.grad(ours, (0, 1)))(params, xs))
    expected = reference.jacobian(theirs, [np.asarray(a) for a in (*params, xs)])
    for a, b in zip(gradient, expected, strict=True):
        assert np.abs(b).max() > 1e-3
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", list(CELLS))
@pytest.mark.parametrize(("order", "tolerance"), [(1, 1e-8), (2, 1e-6)])
def test_derivatives_agree_with_finite_differences(name, order, tolerance):
    cell = CELLS[name]
    params, xs, mask, reset = jax.tree.map(lambda a: a, batch(cell, True, jnp.float64))

    def output(params, xs):
        return jnp.sum(jl.unroll(cell, params, xs, None, mask[2], reset[2])[1] ** 2)

    jax.test_util.check_grads(output, (params, xs[2]), order=order, eps=1e-5, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("devices", [1, 2, 8])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_any_number_of_devices_gives_the_numbers_of_one(devices, dtype):
    cell = CELLS["LSTM"]
    params, *data = batch(cell, True, dtype)
    expected = jax.jit(step(cell, "plain"))(params, *data)
    mesh = jax.make_mesh((devices,), ("data",))
    with jax.set_mesh(mesh):
        split = jax.device_put(data, NamedSharding(mesh, PartitionSpec("data")))
        ours = jax.jit(step(cell))(params, *split)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 if dtype == jnp.float32 else 1e-12)


def test_a_hand_written_scan_of_step_runs_on_an_explicit_mesh():
    cell = CELLS["LSTM"]
    params, xs, *_ = batch(cell, False)
    mesh = jax.make_mesh((4,), ("data",))
    expected = jl.batched(jl.unroll)(cell, params, xs)[1]

    def scan(params, xs):
        state = jl.initial_states(cell, params, len(xs), like=xs)
        body = jax.vmap(partial(cell.step, params))
        return jax.lax.scan(body, state, jnp.swapaxes(xs, 0, 1))[1]

    with jax.set_mesh(mesh):
        hs = jax.jit(scan)(params, jax.device_put(xs, NamedSharding(mesh, PartitionSpec("data"))))
    np.testing.assert_allclose(np.swapaxes(hs, 0, 1), expected, rtol=0, atol=1e-6)
