"""Every cell under every transformation, against its equations in NumPy: its loop, and complex-step derivatives of it.

All that one program can compute of a cell is compiled as one, since compiling is what takes the time.
"""

import copy
import dataclasses
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from problem import CELLS, MODES, StepMasks, loss, problem, run
from programs import compilations

import jax_lstm as jl
from jax_lstm.abilities import is_causal

OUTPUTS = {jnp.float64: 1e-12, jnp.float32: 1e-6}
DERIVATIVES = {jnp.float64: 1e-10, jnp.float32: 1e-5}


@dataclasses.dataclass(frozen=True)
class Case:
    """A cell in one mode and dtype: its problems, NumPy's gradients of them, and what the library computes.

    Each attribute is computed once, when a test first asks for it.
    """

    name: str
    mode: str
    dtype: Any

    def __str__(self):
        return f"{self.name}-{self.mode}-{jnp.dtype(self.dtype).name}"

    @property
    def tolerance(self):
        return OUTPUTS[self.dtype]

    @property
    def derivative_tolerance(self):
        return DERIVATIVES[self.dtype]

    @cached_property
    def first(self):
        return problem(self.name, self.mode, self.dtype)

    @cached_property
    def second(self):
        """Other params, data and masks, with the cell and the weights of the first problem."""
        return problem(self.name, self.mode, self.dtype, seed=1)._replace(weights=self.first.weights)

    @cached_property
    def mixed(self):
        """The data of the second problem with the params of the first."""
        return self.second._replace(args=(self.first.args[0], *self.second.args[1:]))

    @cached_property
    def gradients(self):
        """NumPy's, of the three problems."""
        return [numpy_gradient(p) for p in (self.first, self.second, self.mixed)]

    @cached_property
    def ours(self):
        """The library's outputs and gradient of the first problem."""
        return compiled(self.first.how, self.first.weights, self.first.args, self.first.masks)

    @cached_property
    def transformed(self):
        """What JAX's transformations make of the first two problems, by name."""
        p, q = self.first, self.second
        return transformed(self in NESTED, p.how, p.weights, (p.args, p.masks), (q.args, q.masks), q.args)


# Every cell with mask, reset and reverse; three of them in all modes, and one in float32 too.
WITH_MASKS = [Case(name, "masked", jnp.float64) for name in CELLS]
CASES = WITH_MASKS + [
    Case(name, mode, jnp.float64) for name in ("LSTM", "RNN", "GRU") for mode in MODES if mode != "masked"
]
CASES += [Case("LSTM", mode, jnp.float32) for mode in MODES]
# In the default tier every cell proves its numbers, and one cell for each path through the library proves what JAX's
# transformations make of them: a derivative of its own, one by JAX, a last linear part, a loop over layers, directions.
PATHS = ("LSTM", "GRU", "projection", "stack of four", "bidirectional")
ONE_PER_PATH = [case for case in WITH_MASKS if case.name in PATHS] + [Case("LSTM", "remat", jnp.float64)]
# Derivatives of derivatives of batches: of each way in which a cell gets its derivative, and goes over time.
NESTED = [case for case in CASES if case.name in ("LSTM", "GRU", "RNN", "projection", "stack of four")]
# These run again with the compiler's default optimizations.
OPTIMIZED = ("LSTM", "GRU", "stack")


def table(cases, quick=None):
    """One case after another, with all its tests, so that what is compiled for it is found again.

    quick: the cases of the default tier; all if None.
    """
    rows = []
    for case in cases:
        marks = [pytest.mark.slow] * (quick is not None and case not in quick)
        marks += [pytest.mark.optimized] * (case.name in OPTIMIZED)
        rows.append(pytest.param(case, marks=marks, id=str(case)))
    return pytest.mark.parametrize("case", rows, scope="module")


TABLE, TRANSFORMED = table(CASES), table(CASES, ONE_PER_PATH)
EVERY_CELL, EVERY_PATH = table(WITH_MASKS), table(WITH_MASKS, ONE_PER_PATH)
THREE_CELLS = table(WITH_MASKS[:3], WITH_MASKS[:1])  # LSTM, RNN, GRU


def as_numpy(tree):
    return [np.asarray(a, np.float64) for a in jax.tree.leaves(tree)]


def assert_close(ours, theirs, tolerance):
    """Largest difference at most tolerance × the largest entry (or 1), leaf by leaf."""
    ours, theirs = as_numpy(ours), [np.asarray(a) for a in jax.tree.leaves(theirs)]
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        assert np.abs(a - b).max() <= tolerance * max(1.0, np.abs(b).max())


def all_equal(ours, theirs):
    return all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True))


def at(k, tree):
    return jax.tree.map(lambda a: a[k], tree)


def stacked(*trees):
    return jax.tree.map(lambda *a: jnp.stack(a), *trees)


# What NumPy says.


def numpy_run(p):
    """As a function of flat leaves of (params, xs, state)."""
    tree, options = jax.tree.structure(p.args), {k: v for k, v in p.how.options if k == "reverse"}
    masks = [None if f is None else np.asarray(f) for f in p.masks]
    return lambda *leaves: jax.tree.leaves(p.reference(*tree.unflatten(leaves), *masks, **options))


def numpy_loss(p):
    outputs, weights = numpy_run(p), as_numpy(p.weights)
    return lambda *leaves: sum(np.sum(w * y) for w, y in zip(weights, outputs(*leaves), strict=True))


def numpy_gradient(p, leaves=None):
    return reference.jacobian(numpy_loss(p), as_numpy(p.args) if leaves is None else leaves)


def numpy_curvature(p, along, eps=1e-4):
    """The derivative of the gradient along the leaves `along`, by four of its values."""
    eps, parts = eps / max(1.0, *(np.abs(d).max() for d in along)), []
    for k, weight in ((1, 8 / 12), (-1, -8 / 12), (2, -1 / 12), (-2, 1 / 12)):
        moved = [a + k * eps * d for a, d in zip(as_numpy(p.args), along, strict=True)]
        parts.append([weight / eps * g for g in numpy_gradient(p, moved)])
    return [sum(leaves) for leaves in zip(*parts, strict=True)]


# What the library says.


def value_and_gradient(how, weights, args, masks):
    """((state, ys), gradient by args)."""
    (_, outputs), gradient = jax.value_and_grad(
        lambda args: (loss(how, weights, args, masks), run(how, args, masks)), has_aux=True
    )(args)
    return outputs, gradient


compiled = jax.jit(value_and_gradient, static_argnums=0)


@partial(jax.jit, static_argnums=(0, 1))
def transformed(nested, how, weights, p, q, along):
    """Of two problems (args, masks) all that a transformation makes of `run` and its loss."""
    (args, masks), both = p, stacked(p, q)
    outputs, gradient = partial(run, how), jax.grad(partial(loss, how, weights))

    def hs(xs):
        return outputs((args[0], xs, args[2]), masks)[1]

    def steepness(params):
        def mean(xs):
            return jnp.mean(jax.vmap(lambda x: loss(how, weights, (params, x, args[2]), masks))(xs))

        xs = both[0][1]
        return jnp.sum(jax.vmap(jax.grad(mean))(jnp.stack([xs, -xs])) ** 2)

    made = {"nested": jax.grad(steepness)(args[0])} if nested else {}
    return made | {
        "jvp": jax.jvp(lambda a: outputs(a, masks), (args,), (along,))[1],
        "hvp": jax.jvp(lambda a: gradient(a, masks), (args,), (along,))[1],
        "jacfwd": jax.jacfwd(hs)(args[1]),
        "jacrev": jax.jacrev(hs)(args[1]),
        "vmap": jax.vmap(outputs)(*both),
        "vmap of grad": jax.vmap(gradient)(*both),
    }


@pytest.mark.optimized
@TABLE
def test_a_run_equals_the_numpy_loop(case):
    p = case.first
    assert_close(case.ours[0], numpy_run(p)(*as_numpy(p.args)), case.tolerance)


@pytest.mark.optimized
@TABLE
def test_grad_equals_the_complex_step_derivative_in_every_leaf(case):
    assert_close(case.ours[1], case.gradients[0], case.derivative_tolerance)


@table([case for case in CASES if case.dtype == jnp.float64 and (case.mode == "masked" or case.name == "LSTM")])
def test_the_plain_engine_gives_the_same(case):
    p = case.first
    outputs, gradient = compiled(p.how._replace(engine="plain"), p.weights, p.args, p.masks)
    assert_close(outputs, numpy_run(p)(*as_numpy(p.args)), case.tolerance)
    assert_close(gradient, case.gradients[0], case.derivative_tolerance)


@TRANSFORMED
def test_jvp_equals_the_complex_step_derivative(case):
    p, q = case.first, case.second
    expected = reference.derivative(numpy_run(p), as_numpy(p.args), as_numpy(q.args))
    assert_close(case.transformed["jvp"], expected, case.derivative_tolerance)


@TRANSFORMED
@pytest.mark.parametrize("jacobian", ["jacfwd", "jacrev"])
def test_jacobians_equal_the_complex_step_derivative(case, jacobian):
    p = case.first
    tree = jax.tree.structure(p.args)
    params, xs, state = tree.unflatten(as_numpy(p.args))
    theirs = reference.jacobian(lambda xs: numpy_run(p)(*jax.tree.leaves((params, xs, state)))[-1], [xs])
    assert_close(case.transformed[jacobian], theirs, case.derivative_tolerance)


@TRANSFORMED
def test_hessian_vector_products_equal_the_gradients_derivative(case):
    expected = numpy_curvature(case.first, as_numpy(case.second.args))
    assert max(np.abs(a).max() for a in expected) > 0.1
    assert_close(case.transformed["hvp"], expected, max(1e-9, case.derivative_tolerance))


@TRANSFORMED
def test_vmap_equals_a_python_loop(case):
    for k, p in enumerate((case.first, case.second)):
        assert_close(at(k, case.transformed["vmap"]), numpy_run(p)(*as_numpy(p.args)), case.tolerance)


@TRANSFORMED
def test_vmap_of_grad_equals_a_python_loop_of_gradients(case):
    for k in range(2):
        assert_close(at(k, case.transformed["vmap of grad"]), case.gradients[k], case.derivative_tolerance)


@table(NESTED, ONE_PER_PATH)
def test_nested_grad_and_vmap_give_the_numpy_second_derivative(case):
    p, q = case.first, case.second
    params, _, state = jax.tree.map(lambda a: np.asarray(a, np.float64), p.args)
    still = jax.tree.map(np.zeros_like, (params, state))
    expected = jax.tree.map(np.zeros_like, params)
    for sign in (1, -1):
        for xs in (p.args[1], q.args[1]):
            one = p._replace(args=(params, sign * np.asarray(xs, np.float64), state))
            _, slope, _ = jax.tree.structure(one.args).unflatten(numpy_gradient(one))
            along = jax.tree.leaves((still[0], slope / 2, still[1]))
            change, *_ = jax.tree.structure(one.args).unflatten(numpy_curvature(one, along))
            expected = jax.tree.map(np.add, expected, change)  # 2 × 1/2 of it, as 1/2 is in the slope
    assert_close(case.transformed["nested"], expected, max(1e-9, case.derivative_tolerance))


# What one program more shows, of every cell.


@EVERY_CELL
def test_inputs_at_masked_steps_change_no_bit(case):
    p = case.first
    mask = np.asarray(p.masks.mask)
    assert not mask.all()
    for nothing in (np.nan, np.inf):
        xs = jnp.where(mask[:, None], p.args[1], nothing)
        outputs, gradient = compiled(p.how, p.weights, (p.args[0], xs, p.args[2]), p.masks)
        assert all_equal((outputs, gradient), case.ours)
        assert not gradient[1][~mask].any()
        assert not outputs[1][~mask].any()


@EVERY_PATH
def test_steps_equal_the_run_where_a_cell_can_step(case):
    p = case.first
    params, xs, state = p.args
    if not is_causal(p.how.cell):
        with pytest.raises(ValueError, match="cannot run step by step"):
            jl.step(p.how.cell, params, state, xs[0])
        return
    step, ys = jax.jit(partial(jl.step, p.how.cell)), {}
    mask, reset = (np.asarray(f) for f in p.masks)
    for t in reversed(range(len(xs))):
        state, ys[t] = step(params, state, xs[t], mask[t], reset[t])
    assert_close((state, np.stack([ys[t] for t in sorted(ys)])), case.ours[0], 1e-12)


@EVERY_PATH
def test_bfloat16_gradients_are_finite_and_near_float64(case):
    p = case.first
    narrow, wide = (
        jax.tree.map(lambda a, dtype=dtype: a.astype(jnp.bfloat16).astype(dtype), (p.args, p.weights))
        for dtype in (jnp.bfloat16, jnp.float64)
    )
    short, long = (compiled(p.how, weights, args, p.masks) for args, weights in (narrow, wide))
    assert {a.dtype for a in jax.tree.leaves(short)} == {jnp.dtype(jnp.bfloat16)}
    for a, b in zip(as_numpy(short), as_numpy(long), strict=True):
        assert np.isfinite(a).all()
        assert np.abs(a - b).max() <= 0.1 * max(1.0, np.abs(b).max())


@EVERY_PATH
def test_a_second_eager_run_of_an_equal_cell_compiles_nothing(case):
    p, q = case.first, case.second
    jl.unroll(p.how.cell, *p.args, *p.masks)
    equal = dataclasses.replace(copy.deepcopy(p.how.cell))
    assert equal is not p.how.cell
    with compilations() as seen:
        jl.unroll(equal, *q.args, *q.masks)
    assert seen == []


def batch_loss(how, weights, params, *data):
    """The sum of the losses of a batch; data are xs, state, mask and reset, each None or with a batch axis."""
    xs, state, mask, reset = data
    outputs = jl.batched(jl.unroll)(how.cell, params, xs, state, mask, reset, **dict(how.options))
    return sum(
        jnp.sum(jnp.broadcast_to(w, y.shape) * y)
        for w, y in zip(jax.tree.leaves(weights), jax.tree.leaves(outputs), strict=True)
    )


def batch_of(case, copies=2):
    """Copies of the two problems that share their params; the sum of their losses, and its gradient."""
    pair = [case.first, case.mixed]
    xs, state, mask, reset = stacked(*[(p.args[1], p.args[2], *p.masks) for p in pair] * copies)
    values = [numpy_loss(p)(*as_numpy(p.args)) for p in pair]
    (params, *one), (more, *other) = (
        jax.tree.structure(p.args).unflatten(case.gradients[k]) for k, p in zip((0, 2), pair, strict=True)
    )
    gradient = (
        jax.tree.map(lambda a, b: copies * (a + b), params, more),
        *stacked(*[tuple(one), tuple(other)] * copies),
    )
    return (pair[0].args[0], xs, state, mask, reset), (copies * sum(values), gradient)


@EVERY_PATH
def test_a_batch_sharded_over_an_explicit_mesh_equals_one_device(case):
    p, ((params, *data), expected) = case.first, batch_of(case)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        data = jax.device_put(data, NamedSharding(mesh, PartitionSpec("data")))
        ours = jax.jit(jax.value_and_grad(partial(batch_loss, p.how, p.weights), (0, 1, 2)))(params, *data)
        assert_close(ours, expected, case.derivative_tolerance)


@EVERY_PATH
def test_a_batch_in_a_shard_map_equals_one_device(case):
    p, (args, expected) = case.first, batch_of(case)
    data, all_of_it = PartitionSpec("data"), PartitionSpec()
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))

    def local(*args):
        return jax.lax.psum(batch_loss(p.how, p.weights, *args), "data")

    ours = jax.shard_map(
        jax.value_and_grad(local, (0, 1, 2)), mesh=mesh, in_specs=(all_of_it, *[data] * 4),
        out_specs=(all_of_it, (all_of_it, data, data)),
    )  # fmt: skip
    assert_close(jax.jit(ours)(*args), expected, case.derivative_tolerance)


# What hangs on the engine and not on the cell, of three cells or of one.


@THREE_CELLS
@pytest.mark.parametrize("names", [(), ("jax_lstm.state",), ("jax_lstm.state", "jax_lstm.preactivation")])
def test_checkpoint_policies_change_no_gradient(case, names):
    p = case.first
    policy = jax.checkpoint_policies.save_only_these_names(*names)
    one = jax.checkpoint(lambda args: loss(p.how, p.weights, args, p.masks), policy=policy)
    assert_close(jax.jit(jax.grad(one))(p.args), case.gradients[0], case.derivative_tolerance)


@THREE_CELLS
@pytest.mark.parametrize("over", ["xs", "params"])
def test_vmap_over_one_argument_equals_a_python_loop(case, over):
    p, q = case.first, case.second
    params, xs, state = p.args
    each = [(q.args[0], xs, state), p.args] if over == "params" else [(params, q.args[1], state), p.args]
    axes = (0 if over == "params" else None, 0 if over == "xs" else None, None)
    args = tuple(stacked(*a) if axis == 0 else a[0] for a, axis in zip(zip(*each, strict=True), axes, strict=True))
    outputs = jax.jit(jax.vmap(lambda *args: run(p.how, args, p.masks), axes))(*args)
    for k, one in enumerate(each):
        assert_close(at(k, outputs), numpy_run(p)(*as_numpy(one)), case.tolerance)


@table([case for case in CASES if case.name == "LSTM" and case.dtype == jnp.float64], WITH_MASKS[:1])
@pytest.mark.parametrize("default_state", [True, False])
@pytest.mark.parametrize("axis_type", [AxisType.Explicit, AxisType.Auto])
def test_any_mesh_and_any_state_give_the_numbers_of_one_device(case, axis_type, default_state):
    p, ((params, xs, state, *masks), _) = case.first, batch_of(case)
    args = params, xs, None if default_state else state, *masks
    value_and_grad = jax.value_and_grad(partial(batch_loss, p.how, p.weights), (0, 1))
    expected = jax.jit(value_and_grad)(*args)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(axis_type,))
    with jax.set_mesh(mesh):
        data = jax.device_put(args[1:], NamedSharding(mesh, PartitionSpec("data")))
        assert_close(jax.jit(value_and_grad)(params, *data), expected, case.tolerance)


@THREE_CELLS
def test_the_gradient_of_a_shard_map_is_that_of_one_device(case):
    p, (args, (value, gradient)) = case.first, batch_of(case)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    specs = (PartitionSpec(), *[PartitionSpec("data")] * 4)

    def local(*args):
        return jax.lax.psum(batch_loss(p.how, p.weights, *args), "data")

    outside = jax.value_and_grad(jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=PartitionSpec()), (0, 1, 2))
    assert_close(jax.jit(outside)(*args), (value, gradient), case.derivative_tolerance)


def test_the_numpy_side_notices_gates_flags_and_direction():
    p = WITH_MASKS[0].first
    leaves = as_numpy(p.args)
    clean = numpy_run(p)(*leaves)
    swapped = [np.roll(leaves[0], 4, axis=1), *leaves[1:]]
    unflagged = numpy_run(p._replace(masks=StepMasks(None, None)))
    forward = numpy_run(p._replace(how=p.how._replace(options=())))
    for other in (numpy_run(p)(*swapped), unflagged(*leaves), forward(*leaves)):
        with pytest.raises(AssertionError):
            assert_close(clean, other, 1e-3)


@table([case for case in CASES if case.name not in ("LSTM", "RNN", "GRU")])
def test_every_leaf_of_params_and_state_counts_in_the_loss(case):
    for leaf in case.gradients[0]:
        assert np.abs(leaf).max() > 1e-3
