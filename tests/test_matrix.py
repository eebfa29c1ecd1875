"""Every transformation, of every cell, in every mode.

Against the NumPy loop, its complex-step derivatives, or the plain engine, which the same table holds to them.
"""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from problem import CELLS, MODES, problem

import jax_lstm as jl

F64 = [(c, m, jnp.float64) for c in CELLS for m in MODES]
F32 = [("LSTM", m, jnp.float32) for m in MODES]
TABLE = pytest.mark.parametrize(
    ("cell", "mode", "dtype"), F64 + F32, ids=lambda v: v if isinstance(v, str) else jnp.dtype(v).name
)
OUTPUTS = {jnp.float64: 1e-12, jnp.float32: 1e-6}
DERIVATIVES = {jnp.float64: 1e-10, jnp.float32: 1e-5}


def as_numpy(tree):
    return [np.asarray(a, np.float64) for a in jax.tree.leaves(tree)]


def assert_close(ours, theirs, tolerance):
    """Largest difference at most tolerance × the largest entry (or 1), leaf by leaf."""
    ours, theirs = as_numpy(ours), [np.asarray(a) for a in jax.tree.leaves(theirs)]
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        assert np.abs(a - b).max() <= tolerance * max(1.0, np.abs(b).max())


def numpy_run(p):
    """The reference as a function of flat NumPy leaves: (*params, xs, *state) -> (*state, hs)."""
    n = len(jax.tree.leaves(p.params))
    flags = [None if f is None else np.asarray(f) for f in (p.mask, p.reset)]
    step = reference.STEPS[type(p.cell).__name__]

    def run(*args):
        state, hs = reference.unroll(
            step, args[:n], args[n], args[n + 1 :], *flags, reverse=p.mode.get("reverse", False)
        )
        return (*state, hs)

    return run


def numpy_loss(p):
    run, weights = numpy_run(p), as_numpy(p.weights)
    return lambda *args: sum(np.sum(w * y) for w, y in zip(weights, run(*args), strict=True))


def arguments(p):
    return p.params, p.xs, p.state


@cache
def case(cell, mode, dtype, seed=0):
    return problem(cell, mode, dtype, seed)


@cache
def reference_gradient(cell, mode, dtype, seed=0):
    p = case(cell, mode, dtype, seed)
    return reference.jacobian(numpy_loss(p), as_numpy(arguments(p)))


@TABLE
def test_jit_equals_the_numpy_loop(cell, mode, dtype):
    p = case(cell, mode, dtype)
    assert_close(jax.jit(p.run)(*arguments(p)), numpy_run(p)(*as_numpy(arguments(p))), OUTPUTS[dtype])


@TABLE
@pytest.mark.parametrize("engine", ["hoisted", "plain"])
def test_grad_equals_the_complex_step_derivative_in_every_leaf(cell, mode, dtype, engine):
    p = case(cell, mode, dtype)
    gradient = jax.jit(jax.grad(partial(p.loss, engine=engine), (0, 1, 2)))(*arguments(p))
    assert_close(gradient, reference_gradient(cell, mode, dtype), DERIVATIVES[dtype])


@TABLE
def test_jvp_equals_the_complex_step_derivative(cell, mode, dtype):
    p, q = case(cell, mode, dtype), case(cell, mode, dtype, 1)
    _, tangent = jax.jit(lambda a, d: jax.jvp(p.run, a, d))(arguments(p), arguments(q))
    expected = reference.derivative(numpy_run(p), as_numpy(arguments(p)), as_numpy(arguments(q)))
    assert_close(tangent, expected, DERIVATIVES[dtype])


@TABLE
@pytest.mark.parametrize("jacobian", [jax.jacfwd, jax.jacrev])
def test_jacobians_equal_the_complex_step_derivative(cell, mode, dtype, jacobian):
    p = case(cell, mode, dtype)
    ours = jax.jit(jacobian(lambda xs: p.run(p.params, xs, p.state)[1]))(p.xs)
    *params, xs, state = as_numpy(p.params), np.asarray(p.xs, np.float64), as_numpy(p.state)
    theirs = reference.jacobian(lambda xs: numpy_run(p)(*params[0], xs, *state)[-1], [xs])
    assert_close(ours, theirs, DERIVATIVES[dtype])


@TABLE
def test_a_hessian_vector_product_equals_the_plain_engine(cell, mode, dtype):
    p, q = case(cell, mode, dtype), case(cell, mode, dtype, 1)

    def product(loss, a, d):
        return jax.jvp(jax.grad(loss, (0, 1, 2)), a, d)[1]

    ours = jax.jit(partial(product, p.loss))(arguments(p), arguments(q))
    theirs = jax.jit(partial(product, partial(p.loss, engine="plain")))(arguments(p), arguments(q))
    assert max(np.abs(a).max() for a in as_numpy(theirs)) > 0.1
    assert_close(ours, theirs, DERIVATIVES[dtype])


@TABLE
@pytest.mark.parametrize("over", ["xs", "params", "both"])
def test_vmap_equals_a_python_loop(cell, mode, dtype, over):
    cases = [case(cell, mode, dtype), case(cell, mode, dtype, 1)]
    p = cases[0]
    runs = [(q.params if over != "xs" else p.params, q.xs if over != "params" else p.xs, p.state) for q in cases]
    params, xs, _ = jax.tree.map(lambda *a: jnp.stack(a), *runs)
    axes = (None if over == "xs" else 0, None if over == "params" else 0, None)
    ours = jax.jit(jax.vmap(p.run, axes))(
        p.params if over == "xs" else params, p.xs if over == "params" else xs, p.state
    )
    for k, arguments_k in enumerate(runs):
        assert_close(jax.tree.map(lambda a, k=k: a[k], ours), numpy_run(p)(*as_numpy(arguments_k)), OUTPUTS[dtype])


@TABLE
def test_vmap_of_grad_equals_a_python_loop_of_gradients(cell, mode, dtype):
    p, q = case(cell, mode, dtype), case(cell, mode, dtype, 1)
    both = jax.tree.map(lambda *a: jnp.stack(a), arguments(p), arguments(q))
    ours = jax.jit(jax.vmap(jax.grad(p.loss, (0, 1, 2))))(*both)
    assert_close(jax.tree.map(lambda a: a[0], ours), reference_gradient(cell, mode, dtype), DERIVATIVES[dtype])
    second = reference.jacobian(numpy_loss(p), as_numpy(arguments(q)))
    assert_close(jax.tree.map(lambda a: a[1], ours), second, DERIVATIVES[dtype])


@TABLE
def test_grad_of_vmap_of_grad_of_vmap_equals_the_plain_engine(cell, mode, dtype):
    p, q = case(cell, mode, dtype), case(cell, mode, dtype, 1)
    xs = jnp.stack([p.xs, q.xs])

    def nested(engine, params, xs):
        def mean(xs):
            return jnp.mean(jax.vmap(lambda x: p.loss(params, x, p.state, engine))(xs))

        return jnp.sum(jax.vmap(jax.grad(mean))(jnp.stack([xs, -xs])) ** 2)

    ours, theirs = (jax.jit(jax.grad(partial(nested, e)))(p.params, xs) for e in ("hoisted", "plain"))
    assert_close(ours, theirs, DERIVATIVES[dtype])


@TABLE
@pytest.mark.parametrize("names", [(), ("jax_lstm.state",), ("jax_lstm.state", "jax_lstm.preactivation")])
def test_checkpoint_policies_change_no_gradient(cell, mode, dtype, names):
    p = case(cell, mode, dtype)
    policy = jax.checkpoint_policies.save_only_these_names(*names)
    ours = jax.jit(jax.grad(jax.checkpoint(p.loss, policy=policy), (0, 1, 2)))(*arguments(p))
    assert_close(ours, reference_gradient(cell, mode, dtype), DERIVATIVES[dtype])


def batch_loss(p, engine, params, xs, state, mask, reset):
    knobs = {k: v for k, v in p.mode.items() if k in ("reverse", "remat_every")}
    last, hs = jl.batched(jl.unroll)(p.cell, params, xs, state, mask, reset, engine=engine, **knobs)
    return jnp.mean(hs**2) + sum(jnp.mean(jnp.sin(s)) for s in last)


def batch_of(cell, mode, dtype, B=8):
    p = case(cell, mode, dtype)
    cases = [case(cell, mode, dtype, seed) for seed in range(B)]
    xs, state = jax.tree.map(lambda *a: jnp.stack(a), *[(q.xs, q.state) for q in cases])
    rolled = [None if f is None else jnp.stack([jnp.roll(f, k) for k in range(B)]) for f in (p.mask, p.reset)]
    return p, (p.params, xs, state, *rolled)


def expected_on_one_device(p, args):
    return jax.jit(jax.value_and_grad(partial(batch_loss, p, "plain"), (0, 1, 2)))(*args)


@TABLE
@pytest.mark.parametrize("default_state", [True, False])
@pytest.mark.parametrize("axis_type", [AxisType.Explicit, AxisType.Auto])
@pytest.mark.parametrize("devices", [4])
def test_a_batch_sharded_over_a_mesh_equals_one_device(cell, mode, dtype, axis_type, default_state, devices):
    p, (params, xs, state, mask, reset) = batch_of(cell, mode, dtype)
    state = None if default_state else state
    expected = expected_on_one_device(p, (params, xs, state, mask, reset))
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(axis_type,))
    with jax.set_mesh(mesh):
        split = partial(jax.device_put, device=NamedSharding(mesh, PartitionSpec("data")))
        data = jax.tree.map(split, (xs, state, mask, reset))
        ours = jax.jit(jax.value_and_grad(partial(batch_loss, p, "hoisted"), (0, 1, 2)))(params, *data)
        assert_close(ours, expected, OUTPUTS[dtype])


@TABLE
@pytest.mark.parametrize("inside", [True, False])
def test_shard_map_equals_one_device(cell, mode, dtype, inside):
    p, args = batch_of(cell, mode, dtype)
    value_and_grad = partial(jax.value_and_grad, argnums=(0, 1, 2))
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    data = PartitionSpec("data")

    def local(*args):
        return jax.lax.pmean(batch_loss(p, "hoisted", *args), "data")

    specs = {"mesh": mesh, "in_specs": (PartitionSpec(), data, data, data, data)}
    if inside:
        out_specs = (PartitionSpec(), (PartitionSpec(), data, data))
        ours = jax.shard_map(value_and_grad(local), out_specs=out_specs, **specs)
    else:
        ours = value_and_grad(jax.shard_map(local, out_specs=PartitionSpec(), **specs))
    assert_close(jax.jit(ours)(*args), expected_on_one_device(p, args), OUTPUTS[dtype])


def test_the_reference_is_sensitive_to_everything_the_table_compares():
    p = case("LSTM", "flags", jnp.float64)
    args = as_numpy(arguments(p))
    clean = numpy_run(p)(*args)
    swapped = [np.roll(args[0], 4, axis=1), *args[1:]]
    unflagged = reference.unroll(reference.lstm, args[:3], args[3], args[4:], reverse=True)
    for other in (numpy_run(p)(*swapped), (*unflagged[0], unflagged[1])):
        with pytest.raises(AssertionError):
            assert_close(clean, other, 1e-3)
