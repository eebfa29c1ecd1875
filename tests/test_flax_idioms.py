"""What a Flax user expects: training mode, abstract modules, transforms, any batch axes, integer inputs, any names."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import reference
from flax import errors, nnx
from flax import linen as nn
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from programs import equations
from tiers import slow_except

import jax_lstm as jl
from jax_lstm import linen as jl_linen
from jax_lstm import nnx as jl_nnx

I, H, B, T = 3, 4, 2, 5
LSTM, GRU, RNN = jl.LSTM(I, H), jl.GRU(I, H), jl.RNN(I, H)
DRAWING = {
    "Dropout": jl.Dropout(GRU, hidden=0.5),
    "Stack": jl.Stack((GRU, jl.RNN(H, H)), dropout=0.5),
    "noise": jl.RNN(I, H, noise=0.5),
    "Bidirectional": jl.Bidirectional(jl.Dropout(RNN, inputs=0.5), RNN),
}
QUIET = {
    "LSTM": LSTM,
    "Stack without dropout": jl.Stack((GRU, jl.RNN(H, H))),
    "Dropout of rate 0": jl.Dropout(GRU),
}
LENGTHS = np.asarray([3, 5])
core = jl.batched(jl.unroll)
each_drawing = pytest.mark.parametrize("name", slow_except(["Dropout"], DRAWING))
each_kind = pytest.mark.parametrize("kind", ["nnx", "linen"])


def draw(*shape, dtype: Any = jnp.float64, seed=1):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def weights(cell, dtype: Any = jnp.float64, seed=10):
    """Params whose every leaf is random."""
    leaves, treedef = jax.tree.flatten(cell.init(jax.random.key(0), dtype))
    return treedef.unflatten(draw(*leaf.shape, dtype=dtype, seed=seed + k) for k, leaf in enumerate(leaves))


def in_nnx(cell, params, cls: Any = jl_nnx.Recurrent, rngs: Any = None, **options) -> Any:
    dtype = jax.tree.leaves(params)[0].dtype
    module = cls(cell, rngs=nnx.Rngs(0) if rngs is None else rngs, param_dtype=dtype, **options)
    module.set_params(params)
    return module


def layer(kind, cell, params, **options) -> Any:
    """A `Recurrent` as a function."""
    if kind == "nnx":
        return in_nnx(cell, params, **options)
    module, variables = jl_linen.Recurrent(cell, **options), jl_linen.variables_of(params)
    return lambda *args, **given: module.apply(variables, *args, **given)


def flax_rnn(kind, cell, params, mode: Any = None, **options) -> Any:
    """Flax's own loop over a `RecurrentCell`, as a function; `mode` holds options of the `RecurrentCell`."""
    options["return_carry"] = True
    if kind == "nnx":
        return nnx.RNN(in_nnx(cell, params, jl_nnx.RecurrentCell, **(mode or {})), **options)
    rnn = nn.RNN(jl_linen.RecurrentCell(cell, **(mode or {})), **options)
    variables = {"params": {"cell": jl_linen.variables_of(params)["params"]}}
    return lambda *args, **given: rnn.apply(variables, *args, **given)


def assert_equal(actual, desired):
    assert jax.tree.structure(actual) == jax.tree.structure(desired)
    jax.tree.map(np.testing.assert_array_equal, actual, desired)


def assert_close(actual, desired, tolerance=1e-12):
    assert jax.tree.structure(actual) == jax.tree.structure(desired)
    jax.tree.map(lambda a, d: np.testing.assert_allclose(a, d, rtol=0, atol=tolerance), actual, desired)


def differ(a, b):
    return np.abs(a - b).max() > 1e-3


# Training and evaluation.


@each_drawing
def test_nnx_train_draws_and_eval_does_not(name):
    cell, xs = DRAWING[name], draw(B, T, I)
    params = weights(cell)
    module = in_nnx(cell, params, rngs=nnx.Rngs(params=0, dropout=1))
    stream, quiet = nnx.Rngs(params=0, dropout=1).dropout.fork(), core(cell, params, xs)
    first = core(cell, params, xs, key=stream())
    assert differ(first[1], quiet[1])
    assert_equal(module(xs), first)  # in training mode from the start, as nnx.Dropout is
    module.eval()
    assert_equal(module(xs), quiet)
    assert_equal(module(xs, deterministic=False), core(cell, params, xs, key=stream()))
    module.train()
    assert_equal(module(xs, deterministic=True), quiet)
    assert_equal(nnx.view(module, deterministic=True)(xs), quiet)
    assert_equal(module(xs), core(cell, params, xs, key=stream()))
    module.set_attributes(deterministic=True)
    assert_equal(module(xs), quiet)


@each_drawing
def test_linen_draws_from_the_rng_dropout(name):
    cell, xs, rngs = DRAWING[name], draw(B, T, I), {"dropout": jax.random.key(3)}
    params = weights(cell)
    variables, quiet = jl_linen.variables_of(params), core(cell, params, xs)
    module: Any = jl_linen.Recurrent(cell)
    drawn = core(cell, params, xs, key=module.bind(variables, rngs=rngs).make_rng("dropout"))
    assert differ(drawn[1], quiet[1])
    assert_equal(module.apply(variables, xs, deterministic=False, rngs=rngs), drawn)
    assert_equal(jl_linen.Recurrent(cell, deterministic=False).apply(variables, xs, rngs=rngs), drawn)
    for other in (jl_linen.Recurrent(cell, deterministic=True), module.clone(deterministic=True)):
        assert_equal(other.apply(variables, xs, rngs=rngs), quiet)
    assert_equal(module.apply(variables, xs, deterministic=True), quiet)
    shapes, narrow = jax.tree.map(jnp.shape, variables), xs.astype(jnp.float32)
    for mode in (True, False):
        init = jax.eval_shape(lambda key, mode=mode: module.init(key, narrow, deterministic=mode), jax.random.key(0))
        assert jax.tree.map(jnp.shape, init) == shapes  # no variable besides the weights


def test_a_key_or_rngs_of_the_call_come_first():
    cell, xs, key = DRAWING["Dropout"], draw(B, T, I), jax.random.key(3)
    params = weights(cell)
    drawn = core(cell, params, xs, key=key)
    for kind in ("nnx", "linen"):
        assert_equal(layer(kind, cell, params)(xs, key=key), drawn)
        assert_equal(layer(kind, cell, params, deterministic=True)(xs, key=key), drawn)
        with pytest.raises(ValueError, match=r"Recurrent: key was given together with .*deterministic=True; give only"):
            layer(kind, cell, params)(xs, key=key, deterministic=True)
        with pytest.raises(TypeError, match="deterministic must be True or False, but is 1"):
            layer(kind, cell, params)(xs, deterministic=1)
    module = in_nnx(cell, params, rngs=nnx.Rngs(params=0))  # it has no stream
    assert_equal(module(xs, rngs=key), drawn)
    assert_equal(module(xs, rngs=nnx.Rngs(dropout=5)), core(cell, params, xs, key=nnx.Rngs(dropout=5).dropout()))
    assert_equal(module(xs, rngs=nnx.Rngs(5).dropout), core(cell, params, xs, key=nnx.Rngs(5).dropout()))
    with pytest.raises(ValueError, match="key was given together with rngs"):
        module(xs, rngs=key, key=key)
    with pytest.raises(TypeError, match=r"rngs must be nnx\.Rngs, nnx\.RngStream or one random key, but is 5"):
        module(xs, rngs=5)


@each_drawing
def test_training_without_a_stream_is_refused(name):
    cell, xs = DRAWING[name], draw(B, T, I)
    params = weights(cell)
    module = in_nnx(cell, params, rngs=nnx.Rngs(params=0))
    for rngs in (None, nnx.Rngs(params=1)):
        with pytest.raises(ValueError, match=r'draws random numbers in training mode, but there is no rng.*"dropout"'):
            module(xs, rngs=rngs)
    assert_equal(module(xs, deterministic=True), core(cell, params, xs))
    variables = jl_linen.variables_of(params)
    with pytest.raises(errors.InvalidRngError, match="dropout"):
        jl_linen.Recurrent(cell).apply(variables, xs, deterministic=False)
    with pytest.raises(ValueError, match=r"deterministic must be given either .*, but was given in neither"):
        jl_linen.Recurrent(cell).apply(variables, xs)
    with pytest.raises(ValueError, match="was given twice"):
        jl_linen.Recurrent(cell, deterministic=True).apply(variables, xs, deterministic=True)


@each_kind
@pytest.mark.parametrize("name", slow_except(["noise"], ["Dropout", "Stack", "noise"]))
def test_a_cell_that_draws_trains_with_recurrent_only(name, kind):
    cell, xs = DRAWING[name], draw(B, T, I)
    params = weights(cell)
    with pytest.raises(ValueError, match=rf"cell {type(cell).__name__} draws random numbers .* train with Recurrent"):
        flax_rnn(kind, cell, params)(xs)
    rnn = flax_rnn(kind, cell, params, {"deterministic": True} if kind == "linen" else None)
    if kind == "nnx":
        rnn.eval()
    np.testing.assert_allclose(rnn(xs)[1], core(cell, params, xs)[1], rtol=0, atol=1e-12)
    if kind == "nnx":
        rnn.train()
        with pytest.raises(ValueError, match="train with Recurrent"):
            rnn(xs)


@each_kind
@pytest.mark.parametrize("name", slow_except(["Stack without dropout"], QUIET))
def test_other_cells_need_no_mode(name, kind):
    cell, xs = QUIET[name], draw(B, T, I)
    params = weights(cell)
    state, want = core(cell, params, xs)
    module = layer(kind, cell, params)
    assert_equal(module(xs), (state, want))
    assert_equal(module(xs, deterministic=False), (state, want))
    np.testing.assert_allclose(flax_rnn(kind, cell, params)(xs)[1], want, rtol=0, atol=1e-12)
    if kind == "nnx":
        assert len(jax.tree.leaves(nnx.state(module))) == len(jax.tree.leaves(params))  # nothing besides
        drawing = in_nnx(DRAWING["Dropout"], weights(DRAWING["Dropout"]))
        assert len(jax.tree.leaves(nnx.state(drawing, nnx.RngState))) == 2  # the key and the count of a stream


# Abstract modules and transforms.


class Nested:
    """An own cell whose params are nested dicts; the state is a dict, or a bare array. h_t = tanh(x_t w + h_{t−1})"""

    input_size, hidden_size = I, H

    def __init__(self, path=("a", "w"), bare=False):
        self.path, self.bare = path, bare

    def init(self, key, dtype=jnp.float32):
        tree = jax.random.normal(key, (I, H), dtype)
        for name in reversed(self.path):
            tree = {name: tree}
        return tree

    def initial_state(self, params):
        h = jnp.zeros_like(jax.tree.leaves(params)[0][0])
        return h if self.bare else {"h": h, "t": jnp.zeros_like(h[0])}

    def step(self, params, state, x):
        h = jnp.tanh(x @ jax.tree.leaves(params)[0] + (state if self.bare else state["h"]))
        return h if self.bare else {"h": h, "t": state["t"] + 1}, h


def nested_reference(params, xs):
    """The outputs of `Nested` over one sequence, in NumPy."""
    hs = [np.zeros(H)]
    for x in np.asarray(xs):
        hs.append(np.tanh(x @ np.asarray(jax.tree.leaves(params)[0]) + hs[-1]))
    return np.stack(hs[1:])


@pytest.mark.parametrize("graph", [True, False], ids=["graph", "tree"])
def test_an_abstract_module_has_abstract_params(graph):
    with nnx.set_graph_mode(graph):
        for cell in (LSTM, QUIET["Stack without dropout"], DRAWING["Dropout"], Nested()):
            for cls in (jl_nnx.Recurrent, jl_nnx.RecurrentCell):
                module = nnx.eval_shape(lambda cls=cls, cell=cell: cls(cell, rngs=nnx.Rngs(0)))
                want = jax.eval_shape(cell.init, jax.random.key(0))
                assert jax.tree.structure(module.params) == jax.tree.structure(want)
                for got, leaf in zip(jax.tree.leaves(module.params), jax.tree.leaves(want), strict=True):
                    assert isinstance(got, jax.ShapeDtypeStruct)
                    assert (got.shape, got.dtype) == (leaf.shape, leaf.dtype)
                assert "ShapeDtypeStruct" in repr(module)


@pytest.mark.parametrize(
    "cell", slow_except([DRAWING["Dropout"]], [LSTM, DRAWING["Dropout"], DRAWING["Stack"], Nested()])
)
def test_a_checkpoint_fills_an_abstract_module(cell, tmp_path):
    module, xs = jl_nnx.Recurrent(cell, rngs=nnx.Rngs(7)), draw(B, T, I, dtype=jnp.float32)
    graphdef, abstract = nnx.split(nnx.eval_shape(lambda: jl_nnx.Recurrent(cell, rngs=nnx.Rngs(0))))
    with ocp.StandardCheckpointer() as checkpoints:
        checkpoints.save(tmp_path / "state", nnx.state(module))
        checkpoints.wait_until_finished()
        restored = nnx.merge(graphdef, checkpoints.restore(tmp_path / "state", abstract))
    assert_equal(restored.params, module.params)
    assert_equal(restored(xs), module(xs))  # the stream too is restored


@pytest.mark.slow
def test_nnx_transforms_of_a_layer_that_draws():
    cell, xs = jl.Dropout(jl.RNN(H, H), hidden=0.5), draw(B, T, H, dtype=jnp.float32)

    @nnx.split_rngs(splits=3)
    @nnx.vmap
    def make(rngs):
        return jl_nnx.Recurrent(cell, rngs=rngs)

    @nnx.jit
    @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
    def run(xs, module):
        return nnx.remat(lambda module, xs: module(xs)[1])(module, xs)

    layers, by_hand = make(nnx.Rngs(0)), make(nnx.Rngs(0))
    graphdef, state = nnx.split(by_hand)
    for mode in (layers.eval, layers.train):
        mode()
        want, deterministic = xs, mode == layers.eval
        for k in range(3):
            one = nnx.merge(graphdef, jax.tree.map(lambda a, k=k: a[k], state))
            want = one(want, deterministic=deterministic)[1]
        assert_close(run(xs, layers), want, 1e-6)
    again = run(xs, layers)  # the streams in the modules moved on
    assert differ(again, want)
    grads = nnx.grad(lambda layers: run(xs, layers).sum())(layers)
    assert grads["w_h"].shape == (3, H, H)
    assert np.abs(grads["w_h"][...]).max(axis=(1, 2)).min() > 0
    _, ys = nnx.vmap(lambda module, xs: module(xs), in_axes=(0, None))(layers, xs)
    assert differ(ys[0], ys[1])
    clone = nnx.clone(layers)
    assert_equal(run(xs, clone), run(xs, layers))


class Layers(nn.Module):
    """Three layers under a transform of Linen."""

    transform: str

    @nn.compact
    def __call__(self, xs, train):
        cell = jl.Dropout(jl.RNN(H, H), hidden=0.5)
        if self.transform == "scan":
            rngs = {"params": True, "dropout": True}
            return nn.scan(Layer, variable_axes={"params": 0}, split_rngs=rngs, length=3)(not train)(xs, None)[0]
        if self.transform == "vmap":
            rngs = {"params": False, "dropout": True}
            shared: Any = nn.vmap(jl_linen.Recurrent, variable_axes={"params": None}, split_rngs=rngs)
            return shared(cell, deterministic=not train)(jnp.stack([xs] * 3))[1]
        wrapped: Any = {"jit": nn.jit, "remat": nn.remat}[self.transform](jl_linen.Recurrent)
        return wrapped(cell, deterministic=not train, reverse=True)(xs)[1]


class Layer(nn.Module):
    deterministic: bool

    @nn.compact
    def __call__(self, xs, _):
        cell = jl.Dropout(jl.RNN(H, H), hidden=0.5)
        return jl_linen.Recurrent(cell, deterministic=self.deterministic)(xs)[1], None


@pytest.mark.parametrize("transform", slow_except(["scan"], ["scan", "vmap", "jit", "remat"]))
def test_linen_transforms_of_a_layer_that_draws(transform):
    cell, xs, rngs = jl.RNN(H, H), draw(B, T, H, dtype=jnp.float32), {"dropout": jax.random.key(1)}
    module: Any = Layers(transform)
    variables = module.init(jax.random.key(0), xs, False)
    (held,) = variables["params"].values()
    held = held["Recurrent_0"] if transform == "scan" else held
    many = jl.RNNParams(**held)
    each = [jax.tree.map(lambda a, k=k: a[k], many) for k in range(3)] if transform == "scan" else [many]
    want = xs
    for params in each:
        want = core(cell, params, want, reverse=transform in ("jit", "remat"))[1]
    got = module.apply(variables, xs, False)
    assert_close(got, jnp.stack([want] * 3) if transform == "vmap" else want, 1e-6)
    drawn = module.apply(variables, xs, True, rngs=rngs)
    assert differ(drawn, got)
    if transform == "vmap":
        assert differ(drawn[0], drawn[1])
    grads = jax.grad(lambda v: module.apply(v, xs, True, rngs=rngs).sum())(variables)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads))


# Axes, integers and options.


AXES = [(batch, major, kind) for batch in ((), (2,), (2, 3)) for major in (False, True) for kind in ("nnx", "linen")]


@pytest.mark.parametrize(
    ("batch", "time_major", "kind"),
    slow_except([((), False, "linen"), ((2,), True, "nnx"), ((2, 3), True, "linen"), ((2, 3), False, "nnx")], AXES),
)
def test_any_batch_axes(batch, time_major, kind):
    params, xs = weights(LSTM), draw(*batch, T, I)
    mask, reset = draw(*batch, T, seed=2) > -0.5, draw(*batch, T, seed=3) > 0.5
    state = jl.LSTMState(draw(*batch, H, seed=4), draw(*batch, H, seed=5))
    hs, h, c = np.zeros((*batch, T, H)), np.zeros((*batch, H)), np.zeros((*batch, H))
    for at in np.ndindex(*batch):
        x, m, r, *start = (np.asarray(a[at]) for a in (xs, mask, reset, *state))
        (h[at], c[at]), hs[at] = reference.unroll(reference.lstm, [*map(np.asarray, params)], x, start, m, r)
    if time_major:
        xs, mask, reset = (jnp.moveaxis(a, len(batch), 0) for a in (xs, mask, reset))
        hs = np.moveaxis(hs, -2, 0)
    for options, call in (({}, {"time_major": time_major}), ({"time_major": time_major}, {})):
        got = layer(kind, LSTM, params, **options)(xs, state, mask=mask, reset=reset, **call)
        assert_close(got, (jl.LSTMState(h, c), hs))


@pytest.mark.parametrize("time_major", slow_except([True], [False, True]))
def test_every_sequence_of_two_batch_axes_draws_its_own(time_major):
    cell, xs = DRAWING["Dropout"], jnp.broadcast_to(draw(T, I), (2, 3, T, I))
    xs = jnp.moveaxis(xs, 2, 0) if time_major else xs
    state, _ = layer("nnx", cell, weights(cell), time_major=time_major)(xs, key=jax.random.key(2))
    assert len(np.unique(np.round(np.reshape(state.h, (6, H)), 6), axis=0)) > 4


def test_wrong_axes_are_refused():
    module, xs = layer("nnx", LSTM, weights(LSTM)), draw(2, 3, T, I)
    with pytest.raises(ValueError, match=r"Recurrent: xs must be \(\*B, T, I\), but has the shape \(3,\)"):
        module(xs[0, 0, 0])
    with pytest.raises(ValueError, match=r"Recurrent: xs must be \(T, \*B, I\), but has the shape \(3,\)"):
        module(xs[0, 0, 0], time_major=True)
    with pytest.raises(ValueError, match=r"Recurrent: mask must have shape \(2, 3, 5\).*has \(3, 5\)"):
        module(xs, mask=jnp.ones((3, T), bool))
    with pytest.raises(ValueError, match=r"Recurrent: reset must have shape \(2, 3, 5\).*has \(3, 2, 5\)"):
        module(xs, reset=jnp.ones((3, 2, T), bool))
    with pytest.raises(ValueError, match=r"every leaf of state must have the batch axes \(2, 3\).*\(3, 4\)"):
        module(xs, jl.LSTMState(jnp.zeros((3, H)), jnp.zeros((3, H))))
    with pytest.raises(ValueError, match=r"4 features .* takes 3"):
        module(draw(2, 3, T, 4))


@pytest.mark.parametrize("axis", slow_except([1], [0, 1]))
def test_two_batch_axes_on_an_explicit_mesh(axis):
    cell, xs = DRAWING["Dropout"], draw(2, 2, T, I)
    module = layer("nnx", cell, weights(cell))
    want = module(xs, key=jax.random.key(0))
    mesh = jax.make_mesh((2,), ("data",), (AxisType.Explicit,))
    with jax.set_mesh(mesh):
        spread = jax.device_put(xs, NamedSharding(mesh, P(*[None] * axis, "data")))
        state, hs = module(spread, mask=spread[..., 0] < jnp.inf, key=jax.random.key(0))
        assert jax.typeof(hs).sharding.spec == P(*[None] * axis, "data", *[None] * (3 - axis))
        assert_close((state, hs), want)


INTEGERS = {
    "int32": np.arange(B * T * I).reshape(B, T, I).astype(np.int32) % 7 - 3,
    "uint8": (np.arange(B * T * I).reshape(B, T, I) % 5).astype(np.uint8),
    "bool": np.arange(B * T * I).reshape(B, T, I) % 3 == 0,
}


@pytest.mark.parametrize(
    ("dtype", "kind"),
    slow_except([("int32", "nnx"), ("bool", "linen")], [(d, k) for d in INTEGERS for k in ("nnx", "linen")]),
)
def test_integers_are_cast_to_the_params_dtype(dtype, kind):
    params, xs = weights(GRU, jnp.float32), INTEGERS[dtype]
    want = np.stack([reference_run("GRU", weights(GRU), x)[1] for x in xs.astype(np.float64)])
    got = layer(kind, GRU, params)(xs)[1]
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)
    ys = flax_rnn(kind, GRU, params)(jnp.asarray(xs))[1]
    assert ys.dtype == jnp.float32
    np.testing.assert_allclose(ys, want, rtol=0, atol=1e-5)


@each_kind
@pytest.mark.parametrize("cell", [GRU, Nested()], ids=["GRU", "Nested"])
def test_other_dtypes_are_refused(cell, kind):
    params = weights(cell, jnp.float32)
    for run, name in ((layer, "unroll: xs"), (flax_rnn, "RecurrentCell: inputs")):
        with pytest.raises(TypeError, match=rf"{name} is float64, which the params' float32 cannot hold"):
            run(kind, cell, params)(draw(T, I) if run is layer else draw(B, T, I))
        with pytest.raises(TypeError, match=rf"{name} must hold floats, but holds complex64"):
            run(kind, cell, params)(jnp.zeros((T, I) if run is layer else (B, T, I), jnp.complex64))


@each_kind
def test_options_of_the_run_are_those_of_unroll(kind):
    cell, xs = jl.MinLSTM(I, H), draw(B, T, I)
    params = weights(cell)
    given = {"reverse": True, "remat_every": 2, "engine": "associative"}
    want = core(cell, params, xs, reverse=True)
    at_first, at_call = layer(kind, cell, params, **given), layer(kind, cell, params)
    for run in (at_first, lambda xs: at_call(xs, **given)):
        assert_close(run(xs), want)
        names = [eqn.primitive.name for eqn in equations(jax.make_jaxpr(run)(xs))]
        assert any("remat" in name or "checkpoint" in name for name in names)
    assert_close(at_first(xs, reverse=False), core(cell, params, xs))
    assert_close(at_call(xs, engine=jl.engines.Plain()), core(cell, params, xs))
    for engine in ({"engine": "associative"}, {"engine": jl.engines.Associative()}):
        for module, call in (
            (layer(kind, LSTM, weights(LSTM), **engine), {}),
            (layer(kind, LSTM, weights(LSTM)), engine),
        ):
            with pytest.raises(ValueError, match="linear in"):
                module(xs, **call)


@each_kind
def test_wrong_options_are_refused_at_construction(kind):
    params = weights(LSTM)
    for options, error in (
        ({"engine": "fast"}, ValueError),
        ({"engine": 3}, TypeError),
        ({"remat_every": 0}, ValueError),
        ({"remat_every": 1.5}, TypeError),
        ({"reverse": 1}, TypeError),
        ({"time_major": "yes"}, TypeError),
        ({"deterministic": 0}, TypeError),
    ):
        with pytest.raises(error, match=rf"^Recurrent: {next(iter(options))} "):
            layer(kind, LSTM, params, **options)


# Own cells: any names, any state.

FREE = ["update", "name", "setup", "cell", "α"]
TAKEN = ["params", "train", "eval", "rngs", "deterministic", "engine", "reverse", "set_params", "__class__"]


@pytest.mark.parametrize("outer", [(), ("a",)], ids=["top", "nested"])
def test_names_that_collide_with_no_attribute_work(outer):
    xs = draw(1, T, I, dtype=jnp.float32)
    for name in FREE if not outer else ["train", "params", "deterministic", "items", "cell"]:
        cell = Nested((*outer, name))
        params = cell.init(jax.random.key(1))
        want = nested_reference(params, xs[0])
        for kind in ("nnx", "linen"):
            np.testing.assert_allclose(layer(kind, cell, params)(xs)[1][0], want, rtol=0, atol=1e-6)
        module = in_nnx(cell, params)
        module.train()
        module.eval()
        assert_equal(nnx.clone(module).params, params)
        assert repr(module)
        assert_equal(jl_linen.Recurrent(cell).init(jax.random.key(0), xs).keys(), {"params"})


@pytest.mark.parametrize("outer", [(), ("a",)], ids=["top", "nested"])
def test_names_that_collide_are_refused_at_construction(outer):
    for name in TAKEN if not outer else ["__class__", "_pytree__nodes"]:
        cell = Nested((*outer, name))
        for cls in (jl_nnx.Recurrent, jl_nnx.RecurrentCell):
            if name in ("engine", "reverse", "rngs") and cls is jl_nnx.RecurrentCell:
                continue  # it has no such attribute
            called = ".".join((*outer, name))
            with pytest.raises(ValueError, match=rf"^{cls.__name__}: params must not use the name {called}, .*rename"):
                cls(cell, rngs=nnx.Rngs(0))
    for cls in (jl_linen.Recurrent, jl_linen.RecurrentCell):
        with pytest.raises(ValueError, match=r"^Recurrent\w*: params must not use the name params, .*rename"):
            cls(Nested(("params",)))
    with pytest.raises(ValueError, match="both be called of; rename"):
        jl_linen.variables_of({"cell": jnp.zeros(1), "of": {"x": jnp.zeros(1)}})


@each_kind
@pytest.mark.parametrize("bare", [False, True], ids=["dict state", "bare state"])
def test_an_own_cell_of_any_state_runs_in_flax(bare, kind):
    cell, xs = Nested(bare=bare), draw(B, T, I)
    params = weights(cell)
    want = np.stack([nested_reference(params, x) for x in xs])
    state, hs = layer(kind, cell, params)(xs)
    carry, ys = flax_rnn(kind, cell, params)(xs)
    for s, h in ((state, hs), (carry, ys)):
        np.testing.assert_allclose(h, want, rtol=0, atol=1e-12)
        assert_close(s, want[:, -1] if bare else {"h": want[:, -1], "t": np.full(B, float(T))})
    _, more = flax_rnn(kind, cell, params)(xs, initial_carry=carry)
    assert differ(more, want)


# Our cells in Flax's own loops, against NumPy.

ELU = jl.RNN(I, H, activation=jax.nn.elu)
CELLS = {"LSTM": LSTM, "GRU": GRU, "RNN": RNN, "RNN of elu": ELU}
VARIANTS = {
    "as it is": {},
    "unbatched": {"batch": ()},
    "two batch axes": {"batch": (2, 3)},
    "integers": {"integers": True},
    "integers unbatched": {"integers": True, "batch": ()},
    "time-major": {"time_major": True},
    "two batch axes time-major": {"time_major": True, "batch": (2, 3)},
    "lengths": {"lengths": True},
    "lengths time-major": {"lengths": True, "time_major": True},
    "reverse": {"reverse": True},
    "reverse in order": {"reverse": True, "keep_order": True},
    "reverse lengths": {"reverse": True, "lengths": True},
    "reverse lengths in order": {"reverse": True, "keep_order": True, "lengths": True},
    "initial carry": {"start": True},
    "initial carry reverse unbatched": {"start": True, "reverse": True, "batch": ()},
}
QUICK = [
    *(("LSTM", v, "nnx") for v in ("two batch axes time-major", "integers unbatched", "reverse lengths")),
    *(("LSTM", v, "linen") for v in ("two batch axes", "integers", "lengths time-major")),
    ("GRU", "reverse lengths in order", "nnx"),
    ("RNN of elu", "initial carry reverse unbatched", "linen"),
]


def reference_run(name, params, xs, start=None, mask=None, reverse=False):
    """One sequence in NumPy: the last state as a tuple, h first, and the outputs."""
    start = (np.zeros(H),) * (2 if name == "LSTM" else 1) if start is None else start
    params = [np.asarray(p, np.float64) for p in params]
    step = partial(reference.rnn, activation="elu") if name == "RNN of elu" else reference.STEPS[name]
    return reference.unroll(step, params, np.asarray(xs), start, mask, None, reverse)


def flip(ys, length):
    """The first `length` steps in reverse order, and zeros after them."""
    return np.concatenate([ys[:length][::-1], np.zeros_like(ys[length:])])


@pytest.mark.parametrize(
    ("name", "variant", "kind"),
    slow_except(QUICK, [(n, v, k) for n in CELLS for v in VARIANTS for k in ("nnx", "linen")]),
)
def test_flaxs_rnn_takes_our_cells(name, variant, kind):
    options: dict[str, Any] = dict(VARIANTS[variant])
    batch, cell = options.pop("batch", (B,)), CELLS[name]
    lengths = LENGTHS if options.pop("lengths", False) else None
    params, xs = weights(cell), draw(*batch, T, I)
    if options.pop("integers", False):
        xs = (3 * xs).astype(jnp.int32)
    call: dict[str, Any] = {} if lengths is None else {"seq_lengths": jnp.asarray(lengths)}
    starts = [draw(*batch, H, seed=30 + k) for k in range(2 if name == "LSTM" else 1)]
    started = options.pop("start", False)
    if started:  # Flax's carry is (c, h)
        call["initial_carry"] = (starts[1], starts[0]) if name == "LSTM" else starts[0]
    states, want = [np.zeros((*batch, H)) for _ in starts], np.zeros((*batch, T, H))
    reverse = options.get("reverse", False)
    for at in np.ndindex(*batch):
        length = T if lengths is None else int(lengths[at])
        start = tuple(np.asarray(s[at]) for s in starts) if started else None
        last, ys = reference_run(name, params, xs[at], start, np.arange(T) < length, reverse)
        want[at] = flip(ys, length) if reverse and not options.get("keep_order") else ys
        for s, leaf in zip(states, last, strict=True):
            s[at] = leaf
    if options.get("time_major"):
        xs = jnp.moveaxis(xs, len(batch), 0)
    carry, ys = flax_rnn(kind, cell, params, **options)(xs, **call)
    ys = np.moveaxis(ys, 0, -2) if options.get("time_major") else np.asarray(ys)
    if lengths is not None:  # what Flax gives in the padding is left open
        ys = np.where((np.arange(T) < lengths[:, None])[..., None], ys, 0)
    assert_close((carry, ys), ((states[1], states[0]) if name == "LSTM" else states[0], want))


def test_a_drawn_first_carry_is_where_flaxs_rnn_starts():
    params, xs = weights(LSTM), draw(B, T, I)
    one = in_nnx(LSTM, params, jl_nnx.RecurrentCell)
    c, h = one.initialize_carry((B, I), nnx.Rngs(carry=3), nnx.initializers.normal(1.0))
    stream = nnx.Rngs(carry=3).carry
    drawn = [np.asarray(jax.random.normal(stream(), (B, H))) for _ in "hc"]
    assert_equal([h, c], drawn)
    ys = nnx.RNN(one)(xs, initial_carry=(c, h))
    want = [reference_run("LSTM", params, x, start)[1] for x, *start in zip(xs, *drawn, strict=True)]
    assert_close(ys, np.stack(want))
    ignored = flax_rnn("linen", LSTM, params)(xs, init_key=jax.random.key(5))[1]  # the initial state is zero
    assert_close(ignored, np.stack([reference_run("LSTM", params, x)[1] for x in xs]))


@pytest.mark.parametrize("shared", [False, True], ids=["two cells", "one cell"])
@pytest.mark.parametrize(
    ("name", "kind"),
    slow_except([("GRU", "nnx"), ("LSTM", "linen")], [(n, k) for n in CELLS for k in ("nnx", "linen")]),
)
def test_flaxs_bidirectional_takes_our_cells(name, kind, shared):
    cell, xs = CELLS[name], draw(B, T, I)
    params = weights(cell)
    other = params if shared else weights(cell, seed=20)
    if kind == "nnx":
        one = in_nnx(cell, params, jl_nnx.RecurrentCell)
        two = one if shared else in_nnx(cell, other, jl_nnx.RecurrentCell)
        ys = nnx.Bidirectional(nnx.RNN(one), nnx.RNN(two))(xs, seq_lengths=jnp.asarray(LENGTHS))
    else:
        one = jl_linen.RecurrentCell(cell)
        both = nn.Bidirectional(nn.RNN(one), nn.RNN(one if shared else jl_linen.RecurrentCell(cell)))
        first, second = ({"cell": jl_linen.variables_of(p)["params"]} for p in (params, other))
        variables = {"params": {"forward_rnn": first} | ({} if shared else {"backward_rnn": second})}
        ys = both.apply(variables, xs, seq_lengths=jnp.asarray(LENGTHS))
    for x, y, length in zip(xs, np.asarray(ys), LENGTHS, strict=True):
        mask = np.arange(T) < length
        want = [reference_run(name, p, x, None, mask, r)[1] for p, r in ((params, False), (other, True))]
        np.testing.assert_allclose(y[:length], np.concatenate(want, axis=1)[:length], rtol=0, atol=1e-12)


@pytest.mark.slow
def test_flaxs_rnn_inside_nnx_transforms():
    cell, xs = jl.GRU(H, H), draw(B, T, H, dtype=jnp.float32)

    @nnx.vmap
    def make(key):
        return nnx.RNN(jl_nnx.RecurrentCell(cell, rngs=nnx.Rngs(key)))

    @nnx.jit
    @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
    def run(xs, rnn):
        return rnn(xs)

    rnns: Any = make(jax.random.split(jax.random.key(0), 2))
    want, params = np.asarray(xs, np.float64), rnns.cell.params
    for k in range(2):
        layer_params = [np.asarray(p[k]) for p in params]
        want = np.stack([reference_run("GRU", layer_params, x)[1] for x in want])
    assert_close(run(xs, rnns), want.astype(np.float32), 1e-5)
    grads = nnx.grad(lambda rnns: run(xs, rnns).sum())(rnns)
    assert np.abs(grads["cell"]["w_h"][...]).max(axis=(1, 2)).min() > 0
    ys = nnx.vmap(lambda rnn, xs: rnn(xs), in_axes=(0, None))(rnns, xs)
    assert_close(ys[0], jl.batched(jl.unroll)(cell, jax.tree.map(lambda p: p[0], params), xs)[1], 1e-6)
