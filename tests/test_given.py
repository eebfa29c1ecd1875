"""What a run gives to a cell besides inputs: noise and constants have slots of their own."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from tiers import slow_except

import jax_lstm as jl
from jax_lstm.cell import Noise
from jax_lstm.engines import layout

B, T, I, H = 3, 7, 2, 4
close = partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-12)


@dataclass(frozen=True)
class Catchment(jl.SplitCell):
    """An RNN whose leak and bias are read from constants of the sequence: floats, and a symbol."""

    input_size: int = I
    hidden_size: int = H
    takes_constants = True

    def init(self, key, dtype=jnp.float32):
        keys = jax.random.split(key, 4)
        shapes = {"w_x": (I, H), "w_h": (H, H), "w_c": (2, H), "kinds": (5, H)}
        return {n: jax.random.normal(k, s, dtype) / 2 for k, (n, s) in zip(keys, shapes.items(), strict=True)}

    def initial_state(self, params):
        return jl.RNNState(jnp.zeros_like(params["w_h"][0]))

    def project(self, params, x, constants: Any = None):
        return x @ params["w_x"] + params["kinds"][constants["kind"]]

    def recur(self, params, state, constants: Any = None):
        return (state.h * constants["area"][0]) @ params["w_h"]

    def update(self, params, state, z, constants: Any = None):
        a = jax.nn.sigmoid(constants["area"] @ params["w_c"])
        return jl.RNNState((1 - a) * state.h + a * jnp.tanh(z))


def data(seed=0):
    rng = np.random.default_rng(seed)
    xs = jnp.asarray(rng.normal(size=(T, B, I)))
    constants = {"area": jnp.asarray(rng.normal(size=(B, 2))), "kind": jnp.asarray(rng.integers(0, 5, B))}
    state = jl.RNNState(jnp.asarray(rng.normal(size=(B, H))))
    return xs, constants, state, jnp.asarray(rng.random((T, B)) < 0.7), jnp.asarray(rng.random((T, B)) < 0.3)


def in_batch(run, cell, params, area, state, xs, mask=None, reset=None, kind=None):
    constants = {"area": area, "kind": kind}
    return jl.batched(run, time_major=True)(cell, params, xs, state, mask, reset, constants=constants)


def one_by_one(cell, params, area, state, xs, mask, reset, kind):
    """The same as a Python loop over sequences and steps."""
    ends, outputs = [], []
    for b in range(B):
        s = jax.tree.map(lambda a, b=b: a[b], state)
        constants, ys = {"area": area[b], "kind": kind[b]}, []
        for t in range(T):
            s_in = cell.initial_state(params) if reset[t, b] and mask[t, b] else s
            s_t, y = cell.step(params, s_in, xs[t, b], constants=constants)
            s = s_t if mask[t, b] else s
            ys.append(y if mask[t, b] else jnp.zeros(H))
        ends.append(s)
        outputs.append(jnp.stack(ys))
    return jax.tree.map(lambda *a: jnp.stack(a), *ends), jnp.stack(outputs, axis=1)


@pytest.mark.parametrize("engine", slow_except(["auto"], ["auto", "plain"]))
def test_constants_reach_every_step_and_get_their_gradient(engine):
    cell = Catchment()
    params, (xs, constants, state, mask, reset) = cell.init(jax.random.key(0), jnp.float64), data()
    rest = mask, reset, constants["kind"]

    def loss(run, *args):
        s_T, ys = run(*args)
        return jnp.sum(jnp.sin(ys)) + jnp.sum(s_T.h**2)

    args = params, constants["area"], state, xs
    expected = jax.value_and_grad(lambda *a: loss(partial(one_by_one, cell), *a, *rest), (0, 1, 2, 3))(*args)
    for n in (None, 3):
        run = partial(in_batch, partial(jl.unroll, engine=engine, remat_every=n), cell)
        of_args = partial(run, mask=mask, reset=reset, kind=constants["kind"])
        jax.tree.map(close, jax.value_and_grad(partial(loss, of_args), (0, 1, 2, 3))(*args), expected)


@pytest.mark.parametrize("fn", [jl.unroll, partial(jl.tbptt, window=4, stride=2)])
def test_the_engines_agree_on_constants_to_second_order(fn):
    cell = Catchment()
    params, (xs, constants, state, *_) = cell.init(jax.random.key(0), jnp.float64), data()

    def curvature(engine):
        run = partial(in_batch, partial(fn, engine=engine), cell, kind=constants["kind"])
        gradient = jax.grad(lambda area: jnp.sum(jnp.sin(run(params, area, state, xs)[1])))
        return jax.jvp(gradient, (constants["area"],), (jnp.cos(constants["area"]),))

    jax.tree.map(close, curvature("auto"), curvature("plain"))


@dataclass(frozen=True)
class Attention:
    """A decoder with a cell of `step` only: c_t = softmax(M h_{t−1}, over used slots) M, h_t = tanh([x, c, h] w)."""

    input_size: int = I
    hidden_size: int = H
    takes_constants = True

    def init(self, key, dtype=jnp.float32) -> Any:
        return jax.random.normal(key, (I + 2 * H, H), dtype) / 2

    def initial_state(self, params):
        return jnp.zeros(H, params.dtype)

    def step(self, params, state, x, *, constants):
        scores = jnp.where(constants["used"], constants["memory"] @ state, -jnp.inf)
        context = jax.nn.softmax(scores) @ constants["memory"]
        h = jnp.tanh(jnp.concatenate([x, context, state]) @ params)
        return h, h


def memory(slots=5, seed=3):
    rng = np.random.default_rng(seed)
    return {"memory": jnp.asarray(rng.normal(size=(B, slots, H))), "used": jnp.asarray(rng.random((B, slots)) < 0.7)}


def decoded(cell, params, xs, constants, mask, reset):
    """`batched(unroll)` as a Python loop over sequences and steps."""
    out = np.zeros((T, B, H))
    for b in range(B):
        s, of_b = cell.initial_state(params), jax.tree.map(lambda a, b=b: a[b], constants)
        for t in range(T):
            s = cell.initial_state(params) if reset[t, b] and mask[t, b] else s
            if mask[t, b]:
                s, out[t, b] = cell.step(params, s, xs[t, b], constants=of_b)
    return out


def test_an_attention_reads_its_memory_everywhere():
    cell, (xs, _, _, mask, reset), constants = Attention(), data(), memory()
    params = cell.init(jax.random.key(0), jnp.float64)
    expected = decoded(cell, params, xs, constants, mask, reset)
    xs, mask, reset, want = (np.swapaxes(a, 0, 1) for a in (xs, mask, reset, expected))
    one = jax.tree.map(lambda a: a[0], constants)
    close(jl.batched(jl.unroll)(cell, params, xs, None, mask, reset, constants=constants)[1], want)
    close(jl.unroll(cell, params, xs[0], None, mask[0], reset[0], constants=one)[1], want[0])
    close(jl.tbptt(cell, params, xs[0], None, mask[0], reset[0], window=4, stride=2, constants=one)[1], want[0])
    close(jl.unroll_states(cell, params, xs[0], None, constants=one)[:2], decoded_states(cell, params, xs[0], one)[:2])
    close(jax.vmap(lambda x, m, r, c: jl.unroll(cell, params, x, None, m, r, constants=c)[1])(
        xs, mask, reset, constants), want)  # fmt: skip
    stream, state, hs = jl.stream(cell, batch=True), None, []
    for t in range(T):
        state, h = stream.step(params, state, xs[:, t], mask[:, t], reset[:, t], constants=constants)
        hs.append(h)
    close(np.stack(hs, 1), want)
    close(jl.step(cell, params, None, xs[0, 0], constants=one)[1], decoded_states(cell, params, xs[0], one)[0])


def decoded_states(cell, params, xs, constants):
    s, states = cell.initial_state(params), []
    for x in xs:
        s, _ = cell.step(params, s, x, constants=constants)
        states.append(s)
    return np.stack(states)


def test_layers_and_models_pass_constants_on():
    cell, (xs, _, _, mask, reset), constants = Attention(), data(), memory()
    params, lstm = cell.init(jax.random.key(0), jnp.float64), jl.LSTM(H, H)
    weights = lstm.init(jax.random.key(1), jnp.float64)
    hs = decoded(cell, params, xs, constants, mask, reset)
    run = jl.batched(jl.unroll, time_major=True)
    above = run(lstm, weights, hs, None, mask, reset)[1]
    close(run(jl.Stack((cell, lstm)), (params, weights), xs, None, mask, reset, constants=constants)[1], above)
    both, of_both = jl.Bidirectional(cell, jl.LSTM(I, H)), None
    of_both = jl.BidirectionalParams(params, jl.LSTM(I, H).init(jax.random.key(2), jnp.float64))
    close(run(both, of_both, xs, None, mask, reset, constants=constants)[1][..., :H], hs)
    learned = jl.LearnedInitialState(cell)
    close(run(learned, jl.LearnedParams(params, jnp.zeros(H)), xs, None, mask, reset, constants=constants)[1], hs)
    model = jl.Model(cell, 2)
    readout = model.readout.init(jax.random.key(3), jnp.float64)
    ys = jl.batched(model.apply, time_major=True)(
        jl.ModelParams(params, readout), xs, None, mask, reset, constants=constants
    )[1]
    close(ys, hs @ np.asarray(readout.w) + np.asarray(readout.b))


@pytest.mark.slow
def test_measurements_take_constants():
    cell, xs, constants = Attention(), data()[0][:, 0], jax.tree.map(lambda a: a[0], memory())
    params = cell.init(jax.random.key(0), jnp.float64)

    @jax.tree_util.register_static
    class Closed(Attention):
        """The same with its memory among the params, which a measurement holds fixed."""

        takes_constants = False

        def init(self, key, dtype=jnp.float32):
            return {"w": params, "memory": constants["memory"]}

        def initial_state(self, params):
            return jnp.zeros(H)

        def step(self, params, state, x):  # pyrefly: ignore[bad-override]
            read = {"memory": params["memory"], "used": constants["used"]}
            return Attention.step(self, params["w"], state, x, constants=read)

    inside = {"w": params, "memory": constants["memory"]}
    measure, loss = jl.gradflow, lambda s: jnp.sum(jnp.sin(s))
    for fn in (measure.sensitivity, measure.step_jacobians, measure.retention, measure.lyapunov_spectrum):
        close(fn(cell, params, xs, constants=constants), fn(Closed(), inside, xs))
    close(
        measure.weight_gradient_by_step(loss, cell, params, xs, constants=constants),
        measure.weight_gradient_by_step(loss, Closed(), inside, xs)["w"],
    )
    start = cell.initial_state(params) + 0.1
    for fn in (partial(measure.horizon, state=start, x=xs[0]), partial(measure.data_horizon, xs=xs)):
        close(fn(cell, params, constants=constants), fn(Closed(), inside))
    points = [
        measure.fixed_points(c, p, xs[0], start[None], iterations=20, **given)
        for c, p, given in ((cell, params, {"constants": constants}), (Closed(), inside, {}))
    ]
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), *points)
    running = measure.lyapunov_init(start)
    close(
        measure.lyapunov_update(cell, params, running, xs[0], constants=constants).exponents,
        measure.lyapunov_update(Closed(), inside, running, xs[0]).exponents,
    )
    over_batch = jl.batched(measure.sensitivity)(cell, params, data()[0].swapaxes(0, 1), constants=memory())
    close(over_batch[0], measure.sensitivity(cell, params, xs, constants=constants))


@dataclass(frozen=True)
class Smoothed(jl.SplitCell):
    """An RNN whose input is smoothed by a memory M of the sequence: zx = (x w_x Mᵀ) M."""

    input_size: int = I
    hidden_size: int = H
    takes_constants = True

    def init(self, key, dtype=jnp.float32):
        w = jax.random.normal(key, (I + H, H), dtype) / 2
        return {"w_x": w[:I], "w_h": w[I:]}

    def initial_state(self, params):
        return jnp.zeros(H, params["w_h"].dtype)

    def project(self, params, x, constants: Any = None):
        return (constants["memory"] @ (x @ params["w_x"])) @ constants["memory"]

    def recur(self, params, state):
        return state @ params["w_h"]

    def update(self, params, state, z):
        return jnp.tanh(z)


@pytest.mark.parametrize("cell", [Attention(), Smoothed()], ids=["step only", "split"])
def test_constants_are_not_copied_over_time(cell, monkeypatch):
    """The gradient of a run over twice as many steps needs no second copy of the constants."""
    monkeypatch.setattr(layout, "can_merge_axes", lambda: True)  # as on one device
    slots = 2000
    big = {"memory": jnp.zeros((slots, H)), "used": jnp.ones(slots, bool)}
    params = jax.eval_shape(partial(cell.init, dtype=jnp.float64), jax.random.key(0))

    def bytes_of(T):
        def loss(params, xs, constants):
            return jnp.sum(jl.batched(jl.unroll)(cell, params, xs, constants=constants)[1] ** 2)

        constants = jax.tree.map(lambda a: jnp.zeros((B, *a.shape), a.dtype), big)
        xs = jax.ShapeDtypeStruct((B, T, I), jnp.float64)
        compiled = jax.jit(jax.grad(loss, allow_int=True)).lower(params, xs, constants).compile()
        analysis = compiled.memory_analysis()
        assert analysis is not None
        return analysis.temp_size_in_bytes

    assert bytes_of(64) - bytes_of(32) < 32 * B * (slots * 8 * 1.5 + 2000)  # the scores of a step, not its memory
    assert 32 * B * slots * H * 8 > 2 * 32 * B * (slots * 8 * 1.5 + 2000)  # what a copy would need


def test_constants_are_required_and_refused_by_name():
    xs = data()[0][:, 0]
    attention, lstm = Attention(), jl.LSTM(I, H)
    params, weights = attention.init(jax.random.key(0), jnp.float64), lstm.init(jax.random.key(0), jnp.float64)
    with pytest.raises(ValueError, match="unroll: cell Attention takes constants, but none were given"):
        jl.unroll(attention, params, xs)
    with pytest.raises(
        ValueError, match=r"step: constants were given, but cell LSTM takes none.*takes_constants = True"
    ):
        jl.step(lstm, weights, None, xs[0], constants=memory())
    with pytest.raises(ValueError, match="batched: every leaf of constants must have a leading batch axis of 3"):
        jl.batched(jl.unroll)(
            attention, params, data()[0].swapaxes(0, 1), constants=jax.tree.map(lambda a: a[0], memory())
        )
    with pytest.raises(TypeError, match=r"constants\.memory must be a JAX or NumPy array, but is a str"):
        jl.unroll(attention, params, xs, constants={"memory": "none"})


@pytest.mark.slow
def test_noise_drawn_by_hand_is_that_of_the_key():
    cell = jl.Stack((jl.Dropout(jl.LSTM(I, H), inputs=0.4, zoneout=0.3), jl.RNN(H, H, noise=0.2)), dropout=0.5)
    params, (xs, _, _, mask, _) = cell.init(jax.random.key(0), jnp.float64), data()
    key = jax.random.key(7)
    noise = cell.sample_noise(params, key, T)
    for fn in (jl.unroll, partial(jl.tbptt, window=4, stride=2)):
        drawn = fn(cell, params, xs[:, 0], None, mask[:, 0], noise=noise)
        jax.tree.map(close, drawn, fn(cell, params, xs[:, 0], None, mask[:, 0], key=key))
    keys = jax.random.split(key, B)
    noises = jax.vmap(partial(cell.sample_noise, params, T=T), out_axes=Noise(1, 0))(keys)
    run = jl.batched(jl.unroll, time_major=True)
    jax.tree.map(close, run(cell, params, xs, noise=noises), run(cell, params, xs, key=key))
    for wrong, words in (
        ({"noise": noise, "key": key}, "give one of the two"),
        ({"noise": noise.steps}, "must be a Noise"),
    ):
        with pytest.raises((ValueError, TypeError), match=words):
            jl.unroll(cell, params, xs[:, 0], **wrong)
    with pytest.raises(ValueError, match=r"noise\.steps must have a leading axis of 7 steps"):
        jl.unroll(cell, params, xs[:, 0], noise=cell.sample_noise(params, key, 3))
    smaller = jl.Stack((jl.Dropout(jl.LSTM(I, 1), inputs=0.4, zoneout=0.3), jl.RNN(1, H, noise=0.2)), dropout=0.5)
    other = smaller.sample_noise(smaller.init(key, jnp.float64), key, T)
    rnn = jl.RNN(I, H, noise=0.1)
    for c, p, wrong, words in (
        (cell, params, other, r"noise\.steps\.0\.cell\.zoneout\.h must be float64\[7, 4\]"),
        (
            rnn,
            rnn.init(key, jnp.float64),
            Noise(jnp.ones(T)),
            r"noise\.steps must be float64\[7, 4\], as cell RNN draws",
        ),
        (rnn, rnn.init(key, jnp.float64), noise, "noise must be that of cell RNN, but is that of another cell"),
        (cell, params, Noise(noise.steps[:1], noise.sequence), "noise must be that of cell Stack"),
    ):
        with pytest.raises(ValueError, match=words):
            jl.unroll(c, p, xs[:, 0], noise=wrong)
    with pytest.raises(ValueError, match="noise was given, but cell LSTM draws nothing"):
        jl.unroll(jl.LSTM(I, H), jl.LSTM(I, H).init(key, jnp.float64), xs[:, 0], noise=noise)


@dataclass(frozen=True)
class OwnNoise(jl.RNN):
    """An RNN whose noise has the scale b, so that b gets a gradient through the noise too."""

    noise: float = 1.0

    def sample_noise(self, params, key, T):  # pyrefly: ignore[bad-override]
        return Noise(steps=params.b[None] * jax.random.normal(key, (T, self.hidden_size), params.b.dtype))


def test_a_gradient_passes_through_noise_that_depends_on_params():
    gradients = []
    for engine in ("hoisted", "plain"):
        cell = OwnNoise(I, H)
        params = cell.init(jax.random.key(0), jnp.float64)
        params = params._replace(b=params.b + 0.3)
        xs = data()[0].swapaxes(0, 1)

        def loss(p, cell=cell, engine=engine, xs=xs):
            return jnp.sum(jl.batched(jl.unroll)(cell, p, xs, key=jax.random.key(5), engine=engine)[1] ** 2)

        gradients.append(jax.grad(loss)(params))
    jax.tree.map(close, *gradients)
    still = jax.grad(lambda p: jnp.sum(jl.batched(jl.unroll)(jl.RNN(I, H), p, xs)[1] ** 2))(params)
    assert np.abs(gradients[0].b - still.b).max() > 1e-3


def test_a_dropout_also_draws_the_noise_of_the_cell_inside():
    inside, xs = jl.RNN(I, H, noise=0.5), data()[0][:, 0]
    params = inside.init(jax.random.key(0), jnp.float64)
    noisy, still = (jl.Dropout(cell, zoneout=0.2) for cell in (inside, jl.RNN(I, H)))
    drawn, masked = (jl.unroll(cell, params, xs, key=jax.random.key(1))[1] for cell in (noisy, still))
    assert np.abs(drawn - masked).max() > 1e-3
    plain = jl.unroll(noisy, params, xs, key=jax.random.key(1), engine="plain")[1]
    close(drawn, plain)


def test_the_noise_inside_a_dropout_is_independent_of_its_masks():
    cell = jl.Dropout(jl.RNN(I, 2000, noise=1.0), inputs=0.5, hidden=0.5, zoneout=0.5)
    noise = cell.sample_noise(cell.init(jax.random.key(0), jnp.float64), jax.random.key(1), 2)
    mask, ε = np.asarray(noise.sequence.hidden) > 0, noise.steps.cell
    assert max(abs(np.corrcoef(mask, row)[0, 1]) for row in ε) < 0.1
    assert max(abs(np.corrcoef(mask, row)[0, 1]) for row in noise.steps.zoneout["h"]) < 0.1


class Squashed(jl.RNN):
    def project(self, params, x):  # pyrefly: ignore[bad-override]
        return super().project(params, jnp.tanh(x))


class Forgetful(jl.Dropout):
    def update(self, params, state, z):  # pyrefly: ignore[bad-override]
        return super().update(params, state, z)


class Deaf:
    """A cell that draws noise and never takes it."""

    input_size, hidden_size, has_noise = I, H, True
    init, initial_state = Catchment.init, Catchment.initial_state

    def sample_noise(self, params, key, T):
        return Noise(steps=jax.random.normal(key, (T, H)))

    def step(self, params, state, x):
        return state, state.h


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (Squashed(I, H, noise=0.5), "cell Squashed: project must take noise, as the method that it overrides does"),
        (Forgetful(jl.RNN(I, H), zoneout=0.5), "cell Forgetful: update must take noise"),
        (Deaf(), "cell Deaf: step must take noise, but has no such parameter; add noise=None"),
    ],
)
def test_a_cell_that_would_ignore_its_noise_is_refused(cell, words):
    params, xs = cell.init(jax.random.key(0), jnp.float64), data()[0][:, 0]
    with pytest.raises(TypeError, match=words):
        jl.unroll(cell, params, xs, key=jax.random.key(1))
    assert np.isfinite(jl.unroll(cell, params, xs)[1]).all()


@dataclass(frozen=True)
class Scaled(jl.RNN):
    """An RNN with h over the square root of its noise, which is above 0."""

    noise: float = 1.0

    def sample_noise(self, params, key, T):  # pyrefly: ignore[bad-override]
        return Noise(steps=jax.random.uniform(key, (T, self.hidden_size), params.b.dtype, 0.1))

    def project(self, params, x, noise=None):
        return super().project(params, x)

    def update(self, params, state, z, noise=None):
        return jl.RNNState(jnp.tanh(z) * (1 if noise is None else noise.steps**-0.5))


class Mistaken(Deaf):
    def __init__(self, made):
        self.made = made

    def sample_noise(self, params, key, T):
        return self.made

    def step(self, params, state, x, noise=None):
        return state, state.h


@pytest.mark.parametrize(
    ("made", "words"), [(np.zeros(3), "returns a ndarray"), (Noise(np.zeros((2, H))), r"steps of shapes \[\(2, 4\)\]")]
)
def test_a_wrong_noise_is_refused_by_name(made, words):
    cell = Mistaken(made)
    params = cell.init(jax.random.key(0), jnp.float64)
    with pytest.raises(TypeError, match="cell Mistaken: sample_noise must return Noise.*" + words):
        jl.unroll(cell, params, data()[0][:, 0], key=jax.random.key(1))


def test_truncation_pads_no_noise_with_zeros():
    cell = Scaled(I, H)
    params, xs = cell.init(jax.random.key(0), jnp.float64), data()[0][:, 0]

    def loss(run, params):
        return jnp.sum(run(cell, params, xs, key=jax.random.key(1))[1])

    for window, stride in ((4, 2), (2, 2), (3, 1)):
        truncated = partial(jl.tbptt, window=window, stride=stride)
        assert all(np.isfinite(leaf).all() for leaf in jax.grad(partial(loss, truncated))(params))
        close(loss(truncated, params), loss(jl.unroll, params))


def on_mesh(axis_type):
    return jax.set_mesh(jax.make_mesh((2,), ("data",), axis_types=(axis_type,)))


class Constant(jl.RNN):
    """A leak that is a constant in `update`: a coefficient of its derivative without a batch axis."""

    def update(self, params, state, z):  # pyrefly: ignore[bad-override]
        return jl.RNNState(0.9 * state.h + 0.1 * jnp.tanh(z + params.b))


def test_a_constant_coefficient_works_on_an_explicit_mesh():
    cell = Constant(I, H)
    params, xs = cell.init(jax.random.key(0), jnp.float64), data()[0].swapaxes(0, 1)[:2]

    def gradient(xs):
        return jax.jit(jax.grad(lambda p: jnp.sum(jl.batched(jl.unroll)(cell, p, xs)[1] ** 2)))(params)

    expected = gradient(xs)
    with on_mesh(AxisType.Explicit):
        jax.tree.map(close, gradient(jax.device_put(xs, jax.P("data"))), expected)


@pytest.mark.parametrize("run", [jl.unroll, partial(jl.unroll, remat_every=3), partial(jl.tbptt, window=3)])
def test_keys_may_vary_over_devices_where_data_do_not(run):
    cell = jl.RNN(I, H, noise=0.3)
    params, xs, keys = cell.init(jax.random.key(0), jnp.float64), data()[0][:, 0], jax.random.split(jax.random.key(1))
    with on_mesh(AxisType.Auto):
        sharded = jax.shard_map(
            lambda k: run(cell, params, xs, key=k[0])[1][None], in_specs=jax.P("data"), out_specs=jax.P("data")
        )
        hs = jax.jit(sharded)(keys)
    close(hs, jnp.stack([run(cell, params, xs, key=k)[1] for k in keys]))
