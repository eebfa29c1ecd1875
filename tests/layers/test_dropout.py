"""Dropout: which masks are drawn, what they do on average, and that the engine stays as fast."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from programs import HLO, carried_shapes, equations, products, scans
from tiers import slow_except

import jax_lstm as jl

I, H, T = 3, 4, 8
RNG = np.random.default_rng(0)
XS = RNG.normal(size=(T, I))
CELLS = {
    "inputs": jl.Dropout(jl.LSTM(I, H), inputs=0.3),
    "hidden": jl.Dropout(jl.GRU(I, H), hidden=0.3),
    "zoneout": jl.Dropout(jl.LSTM(I, H), zoneout=0.3, zoneout_c=0.2),
    "noise": jl.RNN(I, H, noise=0.5, leak=0.5),
    "all in a stack": jl.Stack(
        (jl.Dropout(jl.LSTM(I, H), 0.2, 0.2, 0.2, 0.2), jl.Dropout(jl.GRU(H, 2), hidden=0.2)), dropout=0.2
    ),
    "a looped stack": jl.Stack((jl.Dropout(jl.LSTM(I, I), 0.2, 0.2, 0.2, 0.2),) * 3, dropout=0.2),
    "both ways": jl.Bidirectional(jl.Dropout(jl.LSTM(I, H), hidden=0.3), jl.RNN(I, 2, noise=0.5)),
    "learned": jl.LearnedInitialState(jl.Dropout(jl.LSTM(I, H), inputs=0.3)),
}
EACH = pytest.mark.parametrize("name", list(CELLS))
close = partial(np.testing.assert_allclose, rtol=0, atol=1e-12)


@cache
def params_of(name):
    return CELLS[name].init(jax.random.key(1), jnp.float64)


def distance(ours, theirs):
    return max(np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True))


@EACH
def test_the_key_determines_the_run_and_no_key_is_deterministic(name):
    cell, params = CELLS[name], params_of(name)
    run = jax.jit(lambda key: jl.unroll(cell, params, XS, key=key))
    jax.tree.map(np.testing.assert_array_equal, run(jax.random.key(0)), run(jax.random.key(0)))
    assert distance(run(jax.random.key(0))[1], run(jax.random.key(5))[1]) > 1e-3
    plain, again = jl.unroll(cell, params, XS), jl.unroll(cell, params, XS)
    jax.tree.map(np.testing.assert_array_equal, plain, again)
    assert distance(run(jax.random.key(0))[1], plain[1]) > 1e-3


@pytest.mark.parametrize("axis_type", slow_except([AxisType.Explicit], [AxisType.Explicit, AxisType.Auto]))
@pytest.mark.parametrize("name", slow_except(["all in a stack"], ["zoneout", "all in a stack", "both ways"]))
def test_a_sharded_batch_draws_what_one_device_does(name, axis_type):
    cell, params, xs = CELLS[name], params_of(name), np.stack([XS, -XS])

    def loss(params, xs):
        return jnp.sum(jl.batched(jl.unroll)(cell, params, xs, key=jax.random.key(0))[1] ** 2)

    expected = jax.value_and_grad(loss, (0, 1))(params, xs)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(axis_type,))
    with jax.set_mesh(mesh):
        sharded = jax.device_put(xs, jax.NamedSharding(mesh, jax.P("data")))
        jax.tree.map(close, jax.jit(jax.value_and_grad(loss, (0, 1)))(params, sharded), expected)


@EACH
def test_a_mask_over_time_and_resets_hold_as_without_a_key(name):
    cell, params = CELLS[name], params_of(name)
    mask, reset = np.array([1, 1, 0, 1, 1, 1, 0, 1], bool), np.array([0, 0, 0, 1, 0, 0, 0, 0], bool)

    @jax.jit
    def run(xs, reset):
        return jl.unroll(cell, params, xs, None, mask, reset, key=jax.random.key(0))[1]

    ys = run(XS, reset)
    np.testing.assert_array_equal(run(np.where(mask[:, None], XS, np.nan), reset), ys)
    assert not ys[~mask].any()
    if name != "both ways":
        np.testing.assert_array_equal(run(np.where(np.arange(T)[:, None] < 3, -XS, XS), reset)[3:], ys[3:])


def linear(**rates):
    """h_t = h_{t−1} + x_t, unit by unit, with dropout."""
    n = 60
    cell = jl.Dropout(jl.RNN(n, n, activation="linear"), **rates)
    return cell, jl.RNNParams(np.eye(n), np.eye(n), np.zeros(n)), np.ones((T, n))


def test_input_dropout_keeps_one_mask_and_has_the_given_rate():
    cell, params, xs = linear(inputs=0.25)
    runs = jax.vmap(lambda key: jl.unroll(cell, params, xs, key=key)[1])(jax.random.split(jax.random.key(0), 50))
    steps = np.diff(np.asarray(runs), axis=1, prepend=0)
    close(steps, np.broadcast_to(steps[:, :1], steps.shape))
    close(np.unique(steps[:, 0].round(10)), [0, 1 / 0.75], atol=1e-9)
    assert abs(steps[:, 0].mean() - 1) < 5 * (0.25 / 0.75 / steps[:, 0].size) ** 0.5


def test_hidden_dropout_keeps_one_mask_and_has_the_given_rate():
    cell, params, xs = linear(hidden=0.25)
    runs = np.asarray(
        jax.vmap(lambda key: jl.unroll(cell, params, xs, key=key)[1])(jax.random.split(jax.random.key(0), 50))
    )
    factor = (runs[:, 1:] - 1) / runs[:, :-1]
    close(factor, np.broadcast_to(factor[:, :1], factor.shape))
    close(np.unique(factor.round(10)), [0, 1 / 0.75], atol=1e-9)
    assert abs(factor[:, 0].mean() - 1) < 5 * (0.25 / 0.75 / factor[:, 0].size) ** 0.5


def test_zoneout_draws_a_new_mask_per_step_at_the_given_rate():
    cell, params, xs = linear(zoneout=0.25)
    runs = np.asarray(
        jax.vmap(lambda key: jl.unroll(cell, params, xs, key=key)[1])(jax.random.split(jax.random.key(0), 50))
    )
    steps = np.diff(runs, axis=1, prepend=0)
    assert set(np.unique(steps)) == {0.0, 1.0}
    assert len(np.unique(steps[0], axis=0)) == T
    assert abs(steps.mean() - 0.75) < 5 * (0.25 * 0.75 / steps.size) ** 0.5


def test_without_a_key_zoneout_gives_the_mean_for_a_linear_cell():
    cell, params, xs = linear(zoneout=0.25)
    params = params._replace(w_h=0.5 * np.eye(60))
    runs = np.asarray(
        jax.vmap(lambda key: jl.unroll(cell, params, xs, key=key)[1])(jax.random.split(jax.random.key(0), 200))
    )  # 12000 of each number, as all units are alike
    mean, sigma = runs.mean((0, 2)), runs.std((0, 2)) / np.sqrt(200 * 60)
    assert (np.abs(jl.unroll(cell, params, xs)[1][:, 0] - mean) < 5 * sigma).all()


def test_zoneout_of_an_lstm_has_masks_of_their_own_for_h_and_c():
    cell = jl.Dropout(jl.LSTM(1, 300), zoneout=0.5, zoneout_c=0.5)
    params = cell.init(jax.random.key(0), jnp.float64)
    states = jl.unroll_states(cell, params, np.ones((3, 1)), key=jax.random.key(1))
    kept_h, kept_c = (np.asarray(a[1:] == a[:-1]) for a in (states.h, states.c))
    both = np.mean(kept_h & kept_c)
    assert abs(both - 0.25) < 5 * (0.25 * 0.75 / kept_h.size) ** 0.5


@pytest.mark.parametrize("name", ["inputs", "zoneout"])
def test_steps_without_a_key_are_the_run_without_a_key(name):
    cell, params = CELLS[name], params_of(name)
    state, ys = cell.initial_state(params), []
    for x in XS:
        state, y = jl.step(cell, params, state, x)
        ys.append(y)
    jax.tree.map(close, (state, np.stack(ys)), jl.unroll(cell, params, XS))


@pytest.mark.parametrize("name", slow_except(["hidden"], [name for name in CELLS if name != "both ways"]))
def test_segments_and_a_full_window_use_the_masks_of_one_pass(name):
    cell, params = CELLS[name], params_of(name)

    def of(run):
        def loss(params, xs):
            ys = run(cell, params, xs, key=jax.random.key(0))[1]
            return jnp.sum(ys**2), ys

        return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(params, XS)

    whole = of(jl.unroll)
    for run in (partial(jl.unroll, remat_every=3), partial(jl.tbptt, window=T), partial(jl.unroll, engine="plain")):
        jax.tree.map(close, of(run), whole)
    (_, outputs), _ = of(partial(jl.tbptt, window=4, stride=2))
    close(outputs, whole[0][1])


def test_a_batch_draws_for_every_sequence_from_a_key_of_its_own():
    cell, params = CELLS["all in a stack"], params_of("all in a stack")
    end, ys = jl.batched(jl.unroll)(cell, params, np.stack([XS] * 3), key=jax.random.key(0))
    keys = jax.random.split(jax.random.key(0), 3)
    for k in range(3):
        one = jl.unroll(cell, params, XS, key=keys[k])
        jax.tree.map(lambda a, b, k=k: close(a[k], b), (end, ys), one)
    assert distance(ys[0], ys[1]) > 1e-3
    major = jl.batched(jl.unroll, time_major=True)(cell, params, np.stack([XS] * 3, 1), key=jax.random.key(0))
    jax.tree.map(close, major, (end, ys.swapaxes(0, 1)))


# The engine: sizes that share no product, so that a shape tells what it is.

FAST = {
    "inputs and hidden": jl.Dropout(jl.LSTM(5, 6), inputs=0.2, hidden=0.2),
    "zoneout": jl.Dropout(jl.LSTM(5, 6), 0.2, 0.2, 0.2, 0.2),
    "GRU": jl.Dropout(jl.GRU(5, 6), 0.2, 0.2, 0.2),
    "noise": jl.RNN(5, 6, noise=0.1),
}
BITS = ("random_bits", "threefry2x32", "random_wrap", "random_split", "shift_right_logical")


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("name", list(FAST))
def test_a_train_step_has_two_loops_that_draw_no_random_numbers(name, batch):
    cell = FAST[name]
    params = cell.init(jax.random.key(0))
    xs = jnp.ones((7, 11, 5) if batch else (11, 5), jnp.float32)
    run = jl.batched(jl.unroll) if batch else jl.unroll

    def step(params, xs, key):
        return jax.grad(lambda p, x: jnp.mean(run(cell, p, x, key=key)[1] ** 2), (0, 1))(params, xs)

    jaxpr = jax.make_jaxpr(step)(params, xs, jax.random.key(0))
    time = [scan for scan in scans(jaxpr) if scan.params["length"] == 11]
    assert [products(scan.params["jaxpr"]) for scan in time] == [2, 1]
    inside = {eqn.primitive.name for scan in time for eqn in equations(scan.params["jaxpr"])}
    assert not inside & set(BITS)
    carried = {shape for scan in time for shape in carried_shapes(scan)}
    assert not carried & {leaf.shape for leaf in jax.tree.leaves(params) if leaf.ndim > 1}
    hlo = HLO(jax.jit(step).lower(params, xs, jax.random.key(0)).compile().as_text() or "")
    dots = [hlo.count(body, "dot") for body in hlo.loop_bodies()]
    assert sorted(dots)[-2:] == [1, 2]
    assert sum(dots) == 3


def test_drop_weights_drops_only_named_leaves_at_the_given_rate():
    stack = jl.Stack((jl.LSTM(I, 30), jl.GRU(30, 30)))
    params = stack.init(jax.random.key(0), jnp.float64)
    dropped = jl.drop_weights(jax.random.key(0), params, 0.3)
    for before, after in zip(params, dropped, strict=True):
        ratio = np.asarray(after.w_h / before.w_h)
        close(np.unique(ratio.round(9)), [0, 1 / 0.7], atol=1e-8)
        assert abs((ratio == 0).mean() - 0.3) < 5 * (0.21 / ratio.size) ** 0.5
        for name in set(before._fields) - {"w_h"}:
            assert getattr(before, name) is getattr(after, name)
    again, other = jl.drop_weights(jax.random.key(0), params, 0.3), jl.drop_weights(jax.random.key(9), params, 0.3)
    jax.tree.map(np.testing.assert_array_equal, again, dropped)
    assert distance(other, dropped) > 0
    assert distance(jl.drop_weights(jax.random.key(0), params, 0.3, ("w_x",))[0].w_h, params[0].w_h) == 0
    jax.tree.map(np.testing.assert_array_equal, jl.drop_weights(jax.random.key(0), params, 0.0), params)


def test_the_gradient_of_a_dropped_weight_is_zero():
    cell = jl.RNN(I, H)
    params = cell.init(jax.random.key(0), jnp.float64)
    gradient = jax.grad(lambda p: jl.unroll(cell, jl.drop_weights(jax.random.key(0), p, 0.4), XS)[1].sum())(params)
    np.testing.assert_array_equal(gradient.w_h == 0, jl.drop_weights(jax.random.key(0), params, 0.4).w_h == 0)


@pytest.mark.usefixtures("own_messages")
@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: jl.Dropout(jl.LSTM(I, H), inputs=1.0), ValueError, "Dropout: inputs must be a rate.*1.0"),
        (lambda: jl.Dropout(jl.LSTM(I, H), hidden=-0.1), ValueError, "Dropout: hidden must be a rate.*-0.1"),
        (lambda: jl.Dropout(jl.GRU(I, H), zoneout_c=0.1), ValueError, "state of cell GRU must have h and c.*but has h"),
        (
            lambda: jl.Dropout(jl.SLSTM(I, H, heads=2), zoneout_c=0.1),
            ValueError,
            "h and c only.*has h, c, n, m",
        ),
        (lambda: jl.Dropout(jl.LSTM(I, H, projection=2), zoneout=0.1), ValueError, "zoneout.*projection"),
        (
            lambda: jl.Dropout(jl.MinGRU(I, H), hidden=0.1),
            ValueError,
            "hidden acts on h before.*MinGRU has no recurrent weights",
        ),
        (lambda: jl.Dropout(jl.Stack((jl.LSTM(I, H),))), TypeError, "must split its step.*Stack.*around the cells"),
        (
            lambda: jl.drop_weights(jax.random.key(0), params_of("inputs"), 1),
            ValueError,
            "drop_weights: p must be a rate",
        ),
        (
            lambda: jl.drop_weights(jax.random.key(0), params_of("inputs"), 0.1, ("w",)),
            ValueError,
            "none is called 'w'",
        ),
        (
            lambda: jl.drop_weights(jax.random.key(0), params_of("inputs"), 0.1, ("w_h", "w_z")),
            ValueError,
            "none is called 'w_z'",
        ),
        (lambda: jl.drop_weights(3, params_of("inputs"), 0.1), TypeError, "drop_weights: key must be one random key"),
        (lambda: jl.unroll(CELLS["inputs"], params_of("inputs"), XS, key=3), TypeError, "unroll: key must be one"),
    ],
)
def test_an_invalid_dropout_choice_is_refused_by_name(make, error, says):
    with pytest.raises(error, match=says):
        make()
