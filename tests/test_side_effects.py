"""A callback in a cell's functions fires once per step, in order, in the forward pass."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify
from tiers import slow_except

import jax_lstm as jl

T, I, H = 5, 2, 3
XS = np.arange(1.0, T + 1)[:, None] * np.ones(I)
WHERE = ("project", "recur", "update", "mix", "output")
seen = []


@dataclass(frozen=True)
class Spied(jl.RNN):
    """Tells the first entry of a value, in one of its functions."""

    where: str = "update"
    ordered: bool = False

    def tell(self, where, a):
        if where == self.where:
            jax.debug.callback(lambda a: seen.append(float(a[0])), a, ordered=self.ordered)

    def project(self, params, x):  # pyrefly: ignore[bad-override]
        self.tell("project", x)
        return super().project(params, x)

    def recur(self, params, state):
        self.tell("recur", state.h)
        return super().recur(params, state)

    def update(self, params, state, z):
        self.tell("update", z)
        return super().update(params, state, z)

    def mix(self, params, state):
        self.tell("mix", state.h)
        return state

    def output(self, state):
        self.tell("output", state.h)
        return state.h


def told(f, *args):
    """What the callbacks of one call tell, in their order."""
    seen.clear()
    jax.block_until_ready(f(*args))
    jax.effects_barrier()
    return np.array(seen)


def expected(cell, params):
    """The same numbers from the equation, step by step."""
    h, values = np.zeros(H), []
    for x in XS:
        z = x @ np.asarray(params.w_x) + h @ np.asarray(params.w_h)
        old, h = h, np.tanh(z + np.asarray(params.b))
        values.append({"project": x, "recur": old, "update": z, "mix": h, "output": h}[cell.where][0])
    return np.array(values)


def loss(cell, params, xs=XS, **options):
    return jnp.sum(jl.unroll(cell, params, xs, **options)[1] ** 2)


def init(cell):
    return cell.init(jax.random.key(0), jnp.float64)


@pytest.mark.parametrize("where", WHERE)
def test_a_callback_fires_once_per_step_in_order_under_grad(where):
    cell = Spied(I, H, where=where)
    params = init(cell)
    np.testing.assert_allclose(told(jax.value_and_grad(partial(loss, cell)), params), expected(cell, params))


TRANSFORMED = {
    "no transformation": lambda cell, params: loss(cell, params),
    "jit of grad": lambda cell, params: jax.jit(jax.grad(partial(loss, cell)))(params),
    "jvp": lambda cell, params: jax.jvp(partial(loss, cell), (params,), (params,)),
    "hessian": lambda cell, params: jax.hessian(lambda xs: loss(cell, params, xs))(XS),
    "remat_every": lambda cell, params: loss(cell, params, remat_every=2),
    "key": lambda cell, params: jax.grad(lambda p: loss(jl.Dropout(cell, hidden=0.5), p, key=jax.random.key(1)))(
        params
    ),
}


@pytest.mark.parametrize("how", slow_except(["jit of grad", "key"], TRANSFORMED))
def test_a_callback_fires_once_per_step_under_transformations(how):
    cell = Spied(I, H, where="project", ordered=True)
    params = init(cell)
    np.testing.assert_allclose(told(TRANSFORMED[how], cell, params), expected(cell, params))


def test_reverse_tells_the_steps_from_last_to_first():
    cell = Spied(I, H, where="project")
    params = init(cell)
    backwards = told(jax.grad(lambda p: loss(cell, p, reverse=True)), params)
    np.testing.assert_allclose(backwards, expected(cell, params)[::-1])


def test_the_backward_pass_of_remat_every_tells_its_steps_again():
    cell = Spied(I, H)
    params = init(cell)
    got = told(jax.grad(lambda p: loss(cell, p, remat_every=2)), params)
    np.testing.assert_allclose(got[:T], expected(cell, params))
    np.testing.assert_allclose(np.sort(got), np.sort(np.tile(expected(cell, params), 2)))


def test_truncated_blocks_fire_once_per_step_going_forward():
    cell = Spied(I, H)
    params = init(cell)
    got = told(jax.grad(lambda p: jnp.sum(jl.tbptt(cell, p, XS[:4], window=2)[1])), params)
    np.testing.assert_allclose(got[:4], expected(cell, params)[:4])


def test_a_batch_fires_once_per_step_and_sequence():
    cell = Spied(I, H, where="project")
    params = init(cell)
    got = told(jax.grad(lambda p: jnp.sum(jl.batched(jl.unroll)(cell, p, np.stack([XS, 2 * XS]))[1])), params)
    one = expected(cell, params)
    np.testing.assert_allclose(np.sort(got.reshape(T, 2), axis=1), np.sort(np.stack([one, 2 * one], 1), axis=1))


def test_each_cell_of_a_stack_fires_once_per_step():
    stack = jl.Stack((Spied(I, H), Spied(H, H, where="mix")))
    params = init(stack)
    got = told(jax.grad(partial(loss, stack)), params)
    np.testing.assert_allclose(got[:T], expected(stack.cells[0], params[0]))
    np.testing.assert_allclose(
        got[T:], jl.unroll(jl.RNN(H, H), params[1], jl.unroll(jl.RNN(I, H), params[0], XS)[1])[1][:, 0]
    )


def test_a_callback_does_not_change_the_gradient():
    params = init(jl.RNN(I, H))
    got, want = (jax.grad(partial(loss, cell))(params) for cell in (Spied(I, H), jl.RNN(I, H)))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-13), got, want)


def test_explain_says_that_side_effects_decide_the_engine():
    says = jl.engines.explain(Spied(I, H), XS)
    assert says.startswith("Spied: plain")
    assert "side effects" in says
    with pytest.raises(ValueError, match=r'engine "hoisted": cell Spied has side effects.*engine="plain"'):
        jl.unroll(Spied(I, H), init(Spied(I, H)), XS, engine="hoisted")


class Bounded(jl.RNN):
    def update(self, params, state, z):
        checkify.check(jnp.all(jnp.abs(z) < 1e3), "too large")
        return super().update(params, state, z)


def test_a_check_of_checkify_still_fails_under_grad():
    cell = Bounded(I, H)
    checked = jax.jit(checkify.checkify(jax.grad(lambda p, xs: loss(cell, p, xs))))
    for xs, message in ((XS, ""), (1e6 * XS, "too large")):
        error, _ = checked(init(cell), xs)
        assert (error.get() or "").split(" (")[0] == message


class Summed(jl.RNN):
    def update(self, params, state, z):
        return super().update(params, state, jax.lax.pmean(z, "batch"))


def test_a_collective_is_no_side_effect():
    cell = Summed(I, H)
    params = init(cell)

    def run(xs):
        assert jl.engines.explain(cell, xs).startswith("Summed: hoisted")
        return jl.unroll(cell, params, xs, engine="hoisted")[1]

    hs = jax.vmap(run, axis_name="batch")(np.stack([XS, 3 * XS]))
    np.testing.assert_allclose(hs[0], jl.unroll(jl.RNN(I, H), params, 2 * XS)[1], rtol=1e-12)
