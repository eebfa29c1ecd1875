"""Stacks: the numbers of a Python loop over layers, compiled once for any depth, streamed, and refused where unfit."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from programs import HLO, equations, scans

import jax_lstm as jl

I, H, T = 3, 4, 6
RNG = np.random.default_rng(0)
XS = RNG.normal(size=(T, I))
MASK, RESET = np.array([1, 1, 0, 1, 1, 0], bool), np.array([0, 1, 0, 0, 1, 0], bool)
STACKS = {
    "unlike": jl.Stack((jl.LSTM(I, H), jl.GRU(H, 2))),
    "equal, looped": jl.Stack((jl.GRU(I, I),) * 4),
    "residual, looped": jl.Stack((jl.LSTM(I, H), *[jl.LSTM(H, H)] * 3), residual=True),
    "of a stack": jl.Stack((jl.Stack((jl.RNN(I, H), jl.RNN(H, I))), jl.LSTM(I, 2))),
}
EACH = pytest.mark.parametrize("name", list(STACKS))
close = partial(np.testing.assert_allclose, rtol=0, atol=1e-12)


@cache
def params_of(name):
    return STACKS[name].init(jax.random.key(0), jnp.float64)


def layer_by_layer(stack, params, xs, **options):
    ends = []
    for cell, p in zip(stack.cells, params, strict=True):
        end, ys = jl.unroll(cell, p, xs, None, MASK, RESET, **options)
        xs = ys + np.where(MASK[:, None], xs, 0) if stack.residual and ys.shape == xs.shape else ys
        ends.append(end)
    return tuple(ends), xs


@EACH
@pytest.mark.parametrize("options", [{}, {"reverse": True, "remat_every": 4}], ids=["forward", "reverse with remat"])
def test_a_stack_is_a_python_loop_over_its_layers(name, options):
    stack, params = STACKS[name], params_of(name)
    jax.tree.map(close, jl.unroll(stack, params, XS, None, MASK, RESET, **options),
                 layer_by_layer(stack, params, XS, **options))  # fmt: skip


@EACH
def test_its_states_end_in_its_last_state_and_show_its_outputs(name):
    stack, params = STACKS[name], params_of(name)
    end, ys = jl.unroll(stack, params, XS)
    states = jl.unroll_states(stack, params, XS)
    jax.tree.map(lambda all_of, last: close(all_of[-1], last), states, end)
    if not stack.residual:
        close(stack.output(states), ys)


@EACH
def test_steps_and_chunks_give_the_numbers_of_one_pass(name):
    stack, params = STACKS[name], params_of(name)
    stream, state, ys = jl.stream(stack), stack.initial_state(params), []
    for t in range(2):
        state, y = stream.step(params, state, XS[t], MASK[t], RESET[t])
        ys.append(y[None])
    state, more = stream.chunk(params, state, XS[2:], MASK[2:], RESET[2:])
    jax.tree.map(close, (state, jnp.concatenate([*ys, more])), jl.unroll(stack, params, XS, None, MASK, RESET))


@pytest.mark.parametrize("name", ["unlike", "equal, looped"])
def test_truncation_keeps_values_and_a_full_window_cuts_nothing(name):
    stack, params = STACKS[name], params_of(name)

    def gradient(run):
        return jax.value_and_grad(lambda p: jnp.sum(run(stack, p, XS, None, MASK, RESET)[1] ** 2))(params)

    (value, cut), (same, none_cut), (whole, whole_gradient) = (
        gradient(run) for run in (partial(jl.tbptt, window=2), partial(jl.tbptt, window=T), jl.unroll)
    )
    close((value, same), (whole, whole))
    jax.tree.map(close, none_cut, whole_gradient)
    assert max(np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (cut, whole_gradient)), strict=True)) > 1e-3


@cache
def gradient_of(layers, wide=H):
    """The jaxpr and the optimised HLO of a batch's gradient through this many equal layers."""
    stack = jl.Stack((jl.LSTM(wide, wide),) * layers)
    params = jax.eval_shape(stack.init, jax.eval_shape(lambda: jax.random.key(0)))
    f = jax.grad(lambda p, xs: jnp.sum(jl.batched(jl.unroll)(stack, p, xs)[1] ** 2))
    args = params, jax.ShapeDtypeStruct((7, T, wide), jnp.float32)
    return jax.make_jaxpr(f)(*args), jax.jit(f).lower(*args).compile().as_text() or ""


def test_twelve_equal_layers_compile_to_the_loops_of_four():
    (four, hlo_four), (twelve, hlo_twelve) = gradient_of(4), gradient_of(12)
    assert len(scans(four)) == len(scans(twelve))
    assert hlo_four.count(" while(") == hlo_twelve.count(" while(")
    inside = [sum(1 for scan in scans(jaxpr) for _ in equations(scan.params["jaxpr"])) for jaxpr in (four, twelve)]
    assert inside[0] == inside[1]


def test_twelve_equal_layers_have_at_most_the_kernels_of_three():
    """Kernels are what compiling takes its time for, each once. A slice at a place of its own would be one a layer."""
    three, twelve = (len(HLO(gradient_of(layers)[1]).kernels()) for layers in (3, 12))
    assert twelve <= three


def test_two_equal_layers_have_no_loop_over_layers():
    stack = jl.Stack((jl.LSTM(H, H),) * 2)
    params = stack.init(jax.random.key(0))
    jaxpr = jax.make_jaxpr(lambda p: jl.unroll(stack, p, jnp.zeros((T, H), jnp.float32)))(params)
    assert not any(scans(scan.params["jaxpr"]) for scan in scans(jaxpr))


def test_stack_dropout_changes_per_step_and_skips_the_last_layer():
    linear = {"activation": "linear"}
    stack = jl.Stack((jl.RNN(1, 50, **linear), jl.RNN(50, 50, **linear)), dropout=0.4)
    below, above = stack.init(jax.random.key(0), jnp.float64)
    see, none = np.ones((1, 50)), np.zeros((50, 50))
    params = below._replace(w_x=see, w_h=none), above._replace(w_x=np.eye(50), w_h=none)
    ys = jl.unroll(stack, params, np.ones((200, 1)), key=jax.random.key(1))[1]
    assert set(np.unique(ys)) == {0.0, 1 / 0.6}
    assert len(np.unique(np.asarray(ys), axis=0)) == 200
    assert abs(float(jnp.mean(ys)) - 1) < 5 * (0.4 / 0.6 / ys.size) ** 0.5
    np.testing.assert_array_equal(jl.unroll(stack, params, np.ones((2, 1)))[1], np.ones((2, 50)))


@pytest.mark.parametrize("layers", [2, 4])
def test_dropout_in_a_loop_over_layers_draws_a_mask_for_each(layers):
    cell = jl.RNN(40, 40, activation="linear")
    stack = jl.Stack((cell,) * layers, dropout=0.5)
    params = tuple(
        p._replace(w_x=np.eye(40), w_h=np.zeros((40, 40))) for p in stack.init(jax.random.key(0), jnp.float64)
    )
    ys = jl.unroll(stack, params, np.ones((100, 40)), key=jax.random.key(1))[1]
    p = 0.5 ** (layers - 1)
    assert set(np.unique(ys)) == {0.0, 1 / p}  # one mask would leave 1 / p in half of them
    assert abs(float(jnp.mean(ys > 0)) - p) < 5 * (p * (1 - p) / ys.size) ** 0.5


@pytest.mark.usefixtures("own_messages")
@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: jl.Stack((jl.LSTM(I, 5), jl.LSTM(4, 4))), ValueError, "cell 1 must take the 5 features.*is 4"),
        (lambda: jl.Stack((jl.LSTM(I, 5, projection=2), jl.LSTM(5, 4))), ValueError, "cell 1.*the 2 features.*is 5"),
        (lambda: jl.Stack(()), TypeError, "one cell or more"),
        (lambda: jl.Stack(jl.LSTM(I, H)), TypeError, "tuple of one cell or more"),
        (lambda: jl.Stack((jl.LSTM,)), TypeError, "Stack: cell must have.*make an instance of it"),
        (lambda: jl.Stack((jl.LSTM(I, H),), dropout=1.0), ValueError, "Stack: dropout must be a rate.*1.0"),
        (lambda: jl.Stack((jl.LSTM(I, H),), residual=1), TypeError, "Stack: residual must be True or False"),
    ],
)
def test_an_invalid_stack_is_refused_with_its_sizes(make, error, says):
    with pytest.raises(error, match=says):
        make()


def test_a_residual_stack_refuses_the_output_of_a_state():
    name = "residual, looped"
    with pytest.raises(ValueError, match=r"residual stack is not part of its state.*unroll"):
        STACKS[name].output(STACKS[name].initial_state(params_of(name)))
