"""What `jax.vmap` makes of a run: the program of a batch, whatever is mapped; and nothing in a program is dead."""

from dataclasses import dataclass
from functools import cache, partial

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify
from programs import HLO, equations
from tiers import slow_except

import jax_lstm as jl
from jax_lstm.engines import tangent
from jax_lstm.engines.program import run_p

T, B, P, I, H = 6, 4, 3, 2, 5
CELLS = {
    "LSTM": jl.LSTM(I, H),
    "GRU": jl.GRU(I, H),
    "projection": jl.LSTM(I, H, projection=3),
    "leaky RNN": jl.RNN(I, H, leak=0.5, learned_leak=True),
    "MinGRU": jl.MinGRU(I, H),
    "dropout": jl.Dropout(jl.GRU(I, H), inputs=0.2, hidden=0.3, zoneout=0.1),
}
RNG = np.random.default_rng(0)
XS, MASK, RESET = RNG.normal(size=(P, B, T, I)), RNG.random((P, B, T)) < 0.8, RNG.random((P, B, T)) < 0.2


@cache
def members(name):
    """Params of P members."""
    init = partial(CELLS[name].init, dtype=jnp.float64)
    params = jax.vmap(init)(jax.random.split(jax.random.key(0), P))
    return jax.tree.map(lambda a: a + 0.1 * jnp.asarray(np.random.default_rng(1).normal(size=a.shape)), params)


def loss(name, engine, params, xs, mask, reset, key):
    cell = CELLS[name]
    state, ys = jl.unroll(cell, params, xs, None, mask, reset, key=key if name == "dropout" else None, engine=engine)
    return jnp.sum(jnp.sin(ys)) + sum(jnp.sum(a**2) for a in jax.tree.leaves(state))


# For each vmap, the outermost first: does it map the params, and does it map the data?
WAYS = {
    "data": ((False, True),),
    "params": ((True, False),),
    "both at once": ((True, True),),
    "params, then data": ((True, False), (False, True)),
    "data, then params": ((False, True), (True, False)),
    "both, then data": ((True, True), (False, True)),
    "data, then data": ((False, True), (False, True)),
}


def mapped(f, way):
    for of_params, of_data in reversed(WAYS[way]):
        f = jax.vmap(f, (0 if of_params else None, *(4 * (0 if of_data else None,))))
    return f


def arguments(name, way):
    params, data = members(name), (XS, MASK, RESET, jax.random.split(jax.random.key(3), (P, B)))
    if not any(of_params for of_params, _ in WAYS[way]):
        params = jax.tree.map(lambda a: a[0], params)
    several = {"params": (0, 0), "both at once": (slice(None), 0), "both, then data": (), "data, then data": ()}
    at = several.get(way, (0,))
    return params, *(a[at] for a in data)


def derivatives(name, way, engine):
    """Values; gradients inside of the vmaps and outside; the tangent of a gradient."""
    f, args = partial(loss, name, engine), arguments(name, way)
    inside = mapped(jax.grad(f, (0, 1)), way)

    def total(params, xs):
        return jnp.sum(mapped(f, way)(params, xs, *args[2:]))

    def of_gradient(params):
        return jax.grad(total)(params, args[1])

    along = jax.tree.map(jnp.cos, args[0])
    return jax.jit(
        lambda: (
            mapped(f, way)(*args),
            inside(*args),
            jax.grad(total, (0, 1))(*args[:2]),
            jax.jvp(of_gradient, (args[0],), (along,))[1],
        )
    )()


EACH = [(name, way) for name in CELLS for way in WAYS]
QUICK = [("LSTM", way) for way in WAYS if way != "data, then data"] + [("dropout", "both, then data")]


@pytest.mark.parametrize(("name", "way"), slow_except(QUICK, EACH))
def test_every_vmap_gives_the_values_and_derivatives_of_plain(name, way):
    close = partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-11)
    jax.tree.map(close, derivatives(name, way, "hoisted"), derivatives(name, way, "plain"))


@pytest.mark.parametrize(("name", "way"), [("LSTM", "params, then data"), ("dropout", "both, then data")])
def test_weight_gradients_may_be_added_up_step_by_step(name, way, monkeypatch):
    expected = derivatives(name, way, "plain")
    asked = []
    monkeypatch.setattr(tangent, "small_weights", lambda *sizes: asked.append(sizes) or True)  # as on one device
    jax.clear_caches()
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-11), derivatives(name, way, "hoisted"), expected
    )
    assert asked
    jax.clear_caches()


def counts(f, *args):
    """How often each of some operations occurs in the compiled program."""
    hlo = HLO(jax.jit(f).lower(*args).compile().as_text() or "")
    lines = [line for lines in hlo.computations.values() for line in lines]
    return {
        name: sum(f" {name}(" in line for line in lines) for name in ("dot", "while", "dynamic-update-slice", "copy")
    }


@pytest.mark.optimized
@pytest.mark.parametrize("axis", [0, 1])
def test_a_vmap_over_data_has_the_operations_of_batched(axis):
    cell, params = CELLS["LSTM"], jax.tree.map(lambda a: a[0], members("LSTM"))
    xs = XS[0] if axis == 0 else XS[0].swapaxes(0, 1)

    def by_vmap(params, xs):
        return jax.vmap(lambda x: jl.unroll(cell, params, x), axis)(xs)[1].sum()

    def by_batched(params, xs):
        return jl.batched(jl.unroll, time_major=axis == 1)(cell, params, xs)[1].sum()

    ours, theirs = (counts(jax.grad(f, (0, 1)), params, xs) for f in (by_vmap, by_batched))
    assert ours.pop("copy") <= theirs.pop("copy")
    assert ours == theirs
    assert ours["dot"] == 6


def subjaxprs(jaxpr):
    yield jaxpr
    for eqn in jaxpr.eqns:
        for value in jax.tree.leaves(eqn.params, is_leaf=lambda v: hasattr(v, "eqns") or hasattr(v, "jaxpr")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from subjaxprs(inner)


def dead(closed):
    """Equations without effects whose results nothing reads."""
    found = []
    for jaxpr in subjaxprs(closed.jaxpr):
        read = {id(v) for eqn in jaxpr.eqns for v in eqn.invars} | {id(v) for v in jaxpr.outvars}
        found += [
            eqn.primitive.name for eqn in jaxpr.eqns if not eqn.effects and not any(id(v) in read for v in eqn.outvars)
        ]
    return found


def transformed(how, engine, cell=CELLS["LSTM"]):
    def run(params, xs):
        return jl.unroll(cell, params, xs, engine=engine)[1].sum()

    grad = jax.value_and_grad(run, (0, 1))

    def batch(params, xs):
        return jax.vmap(run, (None, 0))(params, xs).sum()

    return {
        "jit": run,
        "grad": grad,
        "vmap": jax.vmap(run, (None, 0)),
        "vmap of grad": jax.vmap(grad, (None, 0)),
        "grad of vmap": jax.value_and_grad(batch, (0, 1)),
    }[how]


@pytest.mark.parametrize("engine", ["hoisted", "plain", "associative"])
@pytest.mark.parametrize("how", ["jit", "grad", "vmap", "vmap of grad", "grad of vmap"])
def test_nothing_in_a_program_is_dead(how, engine):
    cell = CELLS["MinGRU" if engine == "associative" else "LSTM"]
    params = jax.eval_shape(partial(cell.init, dtype=jnp.float64), jax.eval_shape(lambda: jax.random.key(0)))
    xs = jax.ShapeDtypeStruct((B, T, I) if "vmap" in how else (T, I), jnp.float64)
    closed = jax.make_jaxpr(jax.jit(transformed(how, engine, cell)))(params, xs)
    zeros = {"broadcast_in_dim"} if engine == "plain" and "grad" in how else set()  # of JAX's transpose of a loop
    assert set(dead(closed)) <= zeros
    ours = [eqn for eqn in equations(closed) if eqn.primitive is run_p]
    names = {eqn.primitive.name for eqn in equations(closed)}
    assert "custom_vmap_call" not in names
    # One for the forward run and one for its adjoint; none in an engine that JAX differentiates.
    assert len(ours) == (0 if engine != "hoisted" else 2 if "grad" in how else 1)


def test_the_hlo_of_a_stack_names_layers_loops_and_products():
    stack = jl.Stack((jl.LSTM(I, H), jl.GRU(H, H)))
    params = jax.eval_shape(stack.init, jax.eval_shape(lambda: jax.random.key(0)))
    xs = jax.ShapeDtypeStruct((B, T, I), jnp.float32)

    def step(params, xs):
        return jax.grad(lambda p: jl.batched(jl.unroll)(stack, p, xs)[1].sum())(params)

    text = jax.jit(step).lower(params, xs).as_text(debug_info=True)
    for layer in ("layer_0/LSTM", "layer_1/GRU"):
        for part in ("loop", "adjoint_loop", "weight_gradient"):
            assert any(layer in line and f"/{part}/" in line for line in text.splitlines()), (layer, part)


INFERENCE = {
    **{name: cell for name, cell in CELLS.items() if name != "dropout"},
    "RNN": jl.RNN(I, H),
    "JANET": jl.JANET(I, H),
    "SLSTM": jl.SLSTM(I, H),
    "MinLSTM": jl.MinLSTM(I, H),
    "peephole": jl.LSTM(I, H, peephole=True),
    "layer norm": jl.LSTM(I, H, layer_norm=True),
    "paper's GRU": jl.GRU(I, H, reset_after=False),
    "Dropout": jl.Dropout(jl.LSTM(I, H), hidden=0.3),
}


@pytest.mark.parametrize("name", INFERENCE)
def test_inference_needs_no_memory_that_grows_with_time(name):
    cell, steps = INFERENCE[name], 20_000
    params = jax.eval_shape(cell.init, jax.eval_shape(lambda: jax.random.key(0)))

    def temporary(how):
        xs = jax.ShapeDtypeStruct((steps, I), jnp.float32)
        analysis = jax.jit(lambda p, x: how(jl.unroll(cell, p, x))).lower(params, xs).compile().memory_analysis()
        assert analysis is not None
        return analysis.temp_size_in_bytes

    assert temporary(lambda result: result[0]) < 4 * steps / 10  # a tenth of a number per step
    assert temporary(lambda result: result[1]) < 4 * steps / 10


# What a transformation must still see of a run, although it is one equation.


def dots(f, *args):
    """How many products the lowered program has, and how many of them in the highest precision."""
    text = jax.jit(f).lower(*args).as_text()
    lines = [line for line in text.splitlines() if "dot_general" in line]
    return len(lines), sum("HIGHEST" in line for line in lines)


def one_lstm():
    params = jax.tree.map(lambda a: a[0], members("LSTM"))
    return CELLS["LSTM"], params, jnp.asarray(XS[0])


def test_every_product_has_the_precision_of_the_call():
    cell, params, xs = one_lstm()

    def run(params, x):
        with jax.default_matmul_precision("highest"):
            return jl.unroll(cell, params, x)[1].sum()

    for f, arguments in (
        (jax.grad(run), (params, xs[0])),
        (jax.vmap(jax.jit(run), (None, 0)), (params, xs)),
        (jax.vmap(jax.jit(jax.grad(run)), (None, 0)), (params, xs)),
    ):
        products, highest = dots(f, *arguments)
        assert products == highest > 1


@dataclass(frozen=True)
class Risky(jl.RNN):
    """Divides by zero once h is above 0, and looks up an entry that may not be there."""

    def update(self, params, state, z):
        return jl.RNNState(jnp.tanh(z) / jnp.where(state.h > 0, 0.0, 1.0))


@pytest.mark.parametrize("how", ["jit", "grad", "vmap"])
def test_checkify_sees_inside_a_run(how):
    cell = Risky(I, H)
    params = cell.init(jax.random.key(0), jnp.float64)

    def run(params, xs):
        return jl.unroll(cell, params, xs)[1].sum()

    f = {"jit": run, "grad": jax.grad(run), "vmap": jax.vmap(run, (None, 0))}[how]
    xs = jnp.asarray(XS[0] if how == "vmap" else XS[0, 0])
    error, _ = checkify.checkify(jax.jit(f), errors=checkify.div_checks)(params, xs)
    assert "division by zero" in (error.get() or "")


def test_a_jacobian_copies_no_stream():
    cell, steps = jl.LSTM(8, 16), 400
    params = jax.eval_shape(cell.init, jax.eval_shape(lambda: jax.random.key(0)))
    xs = jax.ShapeDtypeStruct((steps, 8), jnp.float32)
    state = jax.eval_shape(cell.initial_state, params)

    def temporary(transform, engine):
        def last(state, params, xs):
            return jl.unroll(cell, params, xs, state, engine=engine)[0].h

        analysis = jax.jit(transform(last)).lower(state, params, xs).compile().memory_analysis()
        assert analysis is not None
        return analysis.temp_size_in_bytes

    for transform in (jax.jacrev, jax.jacfwd):
        copied = 16 * steps * 4 * (8 + 32 + 64)  # x, s and z once for each of the 16 rows
        assert temporary(transform, "hoisted") < copied / 8


def test_gradients_of_examples_export_for_any_batch_and_length():
    cell, params, xs = one_lstm()

    def each(params, xs):
        return jax.vmap(jax.grad(lambda p, x: jl.unroll(cell, p, x)[1].sum()), (None, 0))(params, xs)

    b, t = jax.export.symbolic_shape("b, t")
    like = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), params)
    program = jax.export.export(jax.jit(each))(like, jax.ShapeDtypeStruct((b, t, I), xs.dtype))
    close = partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-12)
    jax.tree.map(close, program.call(params, xs), each(params, xs))


def test_a_gradient_of_a_run_can_be_transposed_again():
    cell, params, xs = one_lstm()
    _, pull = jax.vjp(lambda x: jl.unroll(cell, params, x)[1], xs[0])
    push = jax.linear_transpose(lambda ct: pull(ct)[0], jnp.ones((T, H)))
    direction = jnp.cos(xs[0])
    _, expected = jax.jvp(lambda x: jl.unroll(cell, params, x)[1], (xs[0],), (direction,))
    np.testing.assert_allclose(push(direction)[0], expected, rtol=1e-10)


@dataclass(frozen=True)
class Sized(jl.RNN):
    """Divides by the size of a vmap."""

    def project(self, params, x):  # pyrefly: ignore[bad-override]
        return super().project(params, x) / jax.lax.psum(1, "batch")


@dataclass(frozen=True)
class Scalar(jl.RNN):
    """What `recur` returns is one number, the same for all units."""

    def recur(self, params, state):
        return state.h @ params.w_h[:, 0]


@pytest.mark.parametrize("cell", [Sized(I, H), Scalar(I, H)], ids=["size of a vmap", "one number"])
def test_a_gradient_outside_of_a_named_vmap_equals_plain(cell):
    params, xs = cell.init(jax.random.key(0), jnp.float64), jnp.asarray(XS[0])

    def loss(engine, params):
        run = jax.vmap(lambda x: jl.unroll(cell, params, x, engine=engine)[1], axis_name="batch")
        return jnp.sum(run(xs) ** 2)

    ours, plain = (jax.grad(partial(loss, engine))(params) for engine in ("hoisted", "plain"))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-10), ours, plain)
