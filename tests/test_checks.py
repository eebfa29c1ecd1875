"""Argument checks: a wrong argument is named, with what was wanted, what came and what to do, before anything runs."""

from collections import namedtuple
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

import jax_lstm as jl

I, H, T = 3, 4, 6
RNG = np.random.default_rng(0)
CELL = jl.LSTM(I, H)
RIGHT = {
    "params": jl.LSTMParams(*(RNG.normal(size=s).astype(np.float32) for s in [(I, 4 * H), (H, 4 * H), (4 * H,)])),
    "xs": RNG.normal(size=(T, I)).astype(np.float32),
    "state": jl.LSTMState(*(RNG.normal(size=H).astype(np.float32) for _ in range(2))),
    "mask": np.arange(T) < 4,
    "reset": np.arange(T) == 2,
}
PARAMS, XS, STATE = RIGHT["params"], RIGHT["xs"], RIGHT["state"]
Lookalike = namedtuple("Lookalike", ["w_x", "w_h", "b"])
RNN_PARAMS = jl.RNNParams(*(RNG.normal(size=s).astype(np.float32) for s in [(I, H), (H, H), (H,)]))


def unroll(params, xs, state, mask, reset):
    return jl.unroll(CELL, params, xs, state, mask, reset)


def eagerly(f, args):
    return f(*args)


def under_jit(f, args):
    return jax.jit(f)(*args)


def under_vmap(f, args):
    return jax.vmap(f)(*jax.tree.map(lambda a: np.asarray(a)[None], args))


def under_grad(f, args):
    def loss(one):
        def scaled(a):
            a = jnp.asarray(a)
            return a * one.astype(a.dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a

        return f(*jax.tree.map(scaled, args))[1].sum().astype(jnp.float32)

    return jax.grad(loss)(jnp.float32(1))


WAYS = [eagerly, under_jit, under_vmap, under_grad]


def refusal(error, call):
    """The message of the error that the call must raise, one line long."""
    with pytest.raises(error) as caught:
        call()
    assert caught.type is error, f"{caught.type} is only a kind of {error}"
    return str(caught.value)


def assert_says(message, *words):
    """The message says every word (or number, or shape)."""
    missing = [w for w in words if w not in message]
    assert not missing, f"{message!r} does not say {missing}"


# What is wrong, the error, and what its message must say: the argument, both sizes or types, the advice.
FAULTS: dict[str, tuple[dict[str, Any], type[Exception], tuple[str, ...]]] = {
    "xs has too few features": ({"xs": XS[:, :2]}, ValueError, ("xs", "2 features", "takes 3", "(6, 2)", "LSTM")),
    "xs has no time axis": ({"xs": XS[0]}, ValueError, ("xs", "(T, I)", "1 axis", "(3,)")),
    "xs has a batch axis": (
        {"xs": XS[None]},
        ValueError,
        ("xs", "(T, I)", "(1, 6, 3)", "vmap", "in_axes=(None, 0)", "in_axes=(None, 1), out_axes=(0, 1)", "jl.batched"),
    ),
    "xs has two batch axes": ({"xs": XS[None, None]}, ValueError, ("xs", "(T, I)", "4 axes", "(1, 1, 6, 3)")),
    "xs holds integers": ({"xs": XS.astype(np.int32)}, TypeError, ("xs", "floats", "int32", "xs.astype(jnp.float32)")),
    "xs holds bools": ({"xs": XS > 0}, TypeError, ("xs", "floats", "bool", "xs.astype")),
    "xs is complex": ({"xs": XS.astype(np.complex64)}, TypeError, ("xs", "floats", "complex64", "xs.astype")),
    "xs is a list": ({"xs": XS.tolist()}, TypeError, ("xs", "array", "list", "jnp.asarray(xs)")),
    "xs is None": ({"xs": None}, TypeError, ("xs", "array", "NoneType")),
    "xs is wider than the params": (
        {"xs": XS.astype(np.float64)},
        TypeError,
        ("xs", "float64", "float32", "xs.astype(jnp.float32)"),
    ),
    "params lack a leaf": ({"params": PARAMS._replace(b=None)}, ValueError, ("params", "lacks b", "(16,)", "w_x, w_h")),
    "params have a leaf of another shape": (
        {"params": PARAMS._replace(w_h=PARAMS.w_h[:3])},
        ValueError,
        ("params.w_h", "(3, 16)", "(4, 16)"),
    ),
    "params are another cell's": ({"params": RNN_PARAMS}, ValueError, ("params.w_x", "(3, 4)", "(3, 16)", "LSTM")),
    "params are another tuple with the same leaves": (
        {"params": Lookalike(*PARAMS)},
        ValueError,
        ("params", "LSTMParams", "Lookalike"),
    ),
    "params are a bare tuple": ({"params": tuple(PARAMS)}, ValueError, ("params", "w_x", "(3, 16)")),
    "params are a dict": ({"params": PARAMS._asdict()}, ValueError, ("params", "LSTMParams", "dict", "params_from")),
    "params are None": ({"params": None}, ValueError, ("params", "w_x", "no leaves")),
    "params have two dtypes": (
        {"params": PARAMS._replace(b=PARAMS.b.astype(np.float64))},
        TypeError,
        ("params", "one dtype", "w_h float32", "b float64"),
    ),
    "params hold integers": (
        {"params": PARAMS._replace(b=PARAMS.b.astype(np.int32))},
        TypeError,
        ("params.b", "floats", "int32"),
    ),
    "state is too wide": (
        {"state": STATE._replace(c=np.zeros(5, np.float32))},
        ValueError,
        ("state.c", "(5,)", "(4,)", "LSTM"),
    ),
    "state has a batch axis": ({"state": STATE._replace(h=STATE.h[None])}, ValueError, ("state.h", "(1, 4)", "(4,)")),
    "state is wider than the params": (
        {"state": STATE._replace(h=STATE.h.astype(np.float64))},
        TypeError,
        ("state.h", "float32", "float64", "cast"),
    ),
    "state is narrower than the params": (
        {"state": STATE._replace(c=STATE.c.astype(np.float16))},
        TypeError,
        ("state.c", "float32", "float16", "cast"),
    ),
    "state is a bare tuple": (
        {"state": tuple(STATE)},
        TypeError,
        ("state", "LSTMState", "tuple", "cell.initial_state(params)"),
    ),
    "state is another cell's": ({"state": jl.GRUState(STATE.h)}, TypeError, ("state", "LSTMState", "GRUState")),
    "mask holds integers": ({"mask": np.ones(T, np.int32)}, TypeError, ("mask", "bools", "int32", "mask != 0")),
    "mask holds floats": ({"mask": np.ones(T, np.float32)}, TypeError, ("mask", "bools", "float32")),
    "mask is too long": ({"mask": np.arange(T + 1) < 4}, ValueError, ("mask", "(7,)", "(6,)")),
    "mask has a feature axis": (
        {"mask": np.tile(np.arange(T)[:, None] < 4, I)},
        ValueError,
        ("mask", "(6, 3)", "(6,)"),
    ),
    "mask is a list": ({"mask": [True] * T}, TypeError, ("mask", "array", "list", "jnp.asarray(mask)")),
    "reset holds floats": ({"reset": np.zeros(T, np.float32)}, TypeError, ("reset", "bools", "float32", "reset != 0")),
    "reset is too short": ({"reset": np.arange(T - 1) == 2}, ValueError, ("reset", "(5,)", "(6,)")),
    "reset is one bool": ({"reset": np.bool_(True)}, ValueError, ("reset", "()", "(6,)")),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fault", FAULTS)
def test_an_array_error_names_the_array_the_wanted_and_the_given(fault, way):
    wrong, error, words = FAULTS[fault]
    message = refusal(error, lambda: way(unroll, list((RIGHT | wrong).values())))
    assert_says(message, "unroll:", *words)
    assert "\n" not in message


@pytest.mark.parametrize("way", WAYS)
def test_right_arguments_pass_in_every_way(way):
    # Without this, the test above would also pass for checks that refuse everything.
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(way(unroll, list(RIGHT.values()))))


def test_the_check_of_a_message_can_fail():
    wrong, error, _ = FAULTS["mask is too long"]
    message = refusal(error, lambda: unroll(**(RIGHT | wrong)))
    with pytest.raises(AssertionError, match="does not say"):
        assert_says(message, *FAULTS["reset is too short"][2])


@pytest.mark.parametrize(
    ("given", "params"), [("bfloat16", "float16"), ("float16", "bfloat16"), ("float32", "bfloat16")]
)
def test_a_dtype_that_the_params_cannot_hold_is_refused(given, params):
    # float16 has more digits than bfloat16, and bfloat16 more range than float16: neither holds the other.
    message = refusal(
        TypeError,
        lambda: jl.unroll(CELL, jax.tree.map(lambda p: jnp.asarray(p, params), PARAMS), jnp.asarray(XS, given)),
    )
    assert_says(message, "xs", given, params, f"xs.astype(jnp.{params})")


CALLS: dict[str, Callable[..., Any]] = {
    "unroll": partial(jl.unroll, CELL, PARAMS),
    "unroll_states": partial(jl.unroll_states, CELL, PARAMS),
    "lstm": partial(jl.lstm, PARAMS),
    "gates_of": partial(jl.gates_of, CELL, PARAMS),
    "step": partial(jl.step, CELL, PARAMS, STATE),
    "lstm_step": partial(jl.lstm_step, PARAMS, STATE),
}


@pytest.mark.parametrize("name", CALLS)
def test_every_function_refuses_what_unroll_refuses(name):
    one = "step" in name
    xs = XS[0] if one else XS
    assert_says(refusal(ValueError, lambda: CALLS[name](xs[..., :2])), "step" if one else name, "2 features", "takes 3")
    assert_says(refusal(TypeError, lambda: CALLS[name](xs.astype(np.float64))), "float64", "float32")
    assert_says(refusal(TypeError, lambda: CALLS[name](xs.tolist())), "list", "jnp.asarray")
    if name != "lstm_step":
        masks = {"mask": np.ones(xs.shape[:-1], np.int32)}
        assert_says(refusal(TypeError, lambda: CALLS[name](xs, **masks)), "mask", "bools", "int32")


def test_a_step_takes_one_observation_and_one_bool():
    state, x = STATE, XS[0]
    assert_says(refusal(ValueError, lambda: jl.step(CELL, PARAMS, state, XS)), "x must have shape (I,)", "(6, 3)")
    assert_says(refusal(ValueError, lambda: CELL.step(PARAMS, state, XS)), "x must have shape (I,)", "(6, 3)")
    masks = np.ones(T, bool)
    assert_says(refusal(ValueError, lambda: jl.step(CELL, PARAMS, state, x, masks)), "mask", "()", "(6,)")
    assert_says(refusal(TypeError, lambda: jl.step(CELL, PARAMS, [], x)), "state", "LSTMState", "list")
    assert_says(refusal(TypeError, lambda: CELL.step(PARAMS, tuple(state), x)), "state", "LSTMState", "tuple")


def test_lstm_refuses_params_of_the_wrong_type_or_shape():
    assert_says(refusal(TypeError, lambda: jl.lstm(RNN_PARAMS, XS)), "params", "LSTMParams", "RNNParams", "jl.unroll")
    for name, wrong, words in [
        ("w_h", PARAMS.w_h[:3], ("(H, 4H)", "(3, 16)")),
        ("w_x", PARAMS.w_x[:, :8], ("(I, 16)", "(3, 8)")),
        ("b", PARAMS.b[:4], ("(16,)", "(4,)")),
    ]:
        params = PARAMS._replace(**{name: wrong})
        assert_says(refusal(ValueError, lambda p=params: jl.lstm(p, XS)), f"params.{name}", *words)


def test_numpy_leaves_give_what_jax_leaves_give():
    ours = jl.unroll(CELL, *RIGHT.values())
    theirs = jl.unroll(CELL, *jax.tree.map(jnp.asarray, list(RIGHT.values())))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert all(isinstance(a, jax.Array) for a in jax.tree.leaves(ours))
    with pytest.raises(AssertionError):
        np.testing.assert_array_equal(ours[1], jl.unroll(CELL, PARAMS, XS)[1])


# Knobs.


@pytest.mark.parametrize(("option", "value"), [("reverse", True), ("remat_every", 2), ("engine", 0)])
def test_a_traced_option_is_refused_with_advice(option, value):
    def under_vmap():
        # vmap maps every keyword, so a option must be fixed before it.
        jax.vmap(partial(jl.unroll, CELL), in_axes=(None, 0))(PARAMS, XS[None], **{option: np.asarray([value])})

    def under_jit():
        jax.jit(partial(jl.unroll, CELL))(PARAMS, XS, **{option: value})

    for call in (under_vmap, under_jit):
        assert_says(refusal(TypeError, call), option, "Python value", "functools.partial", "jl.unroll")


@pytest.mark.parametrize("transform", [jax.jit, partial(jax.vmap, in_axes=(None, 0))])
def test_a_string_keyword_under_jit_or_vmap_needs_partial(transform):
    xs = XS if transform is jax.jit else XS[None]
    with pytest.raises(TypeError):
        transform(partial(jl.unroll, CELL))(PARAMS, xs, engine="plain")
    _, hs = transform(partial(jl.unroll, CELL, engine="plain"))(PARAMS, xs)
    np.testing.assert_allclose(hs.reshape(T, H), jl.unroll(CELL, PARAMS, XS)[1], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"engine": "fast"}, ValueError, ("engine", "auto, plain, hoisted", "'fast'")),
        ({"engine": None}, TypeError, ("engine", "auto, plain, hoisted", "None")),
        ({"engine": ["plain"]}, TypeError, ("engine", "auto, plain, hoisted", "['plain']")),
        ({"remat_every": 0}, ValueError, ("remat_every", "at least 1", "0")),
        ({"remat_every": -2}, ValueError, ("remat_every", "at least 1", "-2")),
        ({"remat_every": True}, TypeError, ("remat_every", "integer", "True")),
        ({"remat_every": 2.0}, TypeError, ("remat_every", "integer", "2.0", "float")),
        ({"remat_every": "2"}, TypeError, ("remat_every", "integer", "'2'", "str")),
        ({"reverse": 1}, TypeError, ("reverse", "True or False", "1", "int")),
        ({"reverse": None}, TypeError, ("reverse", "True or False", "NoneType")),
        ({"key": jax.eval_shape(lambda: jax.random.key(0))}, ValueError, ("key", "LSTM", "leave it out")),
    ],
)
def test_an_option_out_of_range_is_named(options, error, words):
    for function in (jl.unroll, jl.unroll_states):
        assert_says(refusal(error, lambda f=function: f(CELL, PARAMS, XS, **options)), function.__name__, *words)


def test_remat_every_takes_a_numpy_integer():
    _, hs = jl.unroll(CELL, PARAMS, XS, remat_every=np.int64(2))
    np.testing.assert_array_equal(hs, jl.unroll(CELL, PARAMS, XS, remat_every=2)[1])
    assert not np.array_equal(hs, jl.unroll(CELL, PARAMS, XS, reverse=True, remat_every=2)[1])


# Cells.


class Duck:
    """A cell that only steps: h_t = tanh(x w_x + h w_h + b), with whatever it was made with added to x."""

    input_size, hidden_size = I, H

    def __init__(self, shift: Any = 0.0):
        self.shift = shift

    def init(self, key, dtype=jnp.float32):
        return jl.RNN(I, H).init(key, dtype)

    def initial_state(self, params):
        return jl.RNNState(jnp.zeros_like(params.b))

    def step(self, params, state, x):
        h = jnp.tanh((x + self.shift) @ params.w_x + state.h @ params.w_h + params.b)
        return jl.RNNState(h), h


class SplitDuck(jl.SplitCell):
    """The same, split; `recur` is what it was made with, of the params and h."""

    input_size, hidden_size = I, H
    init, initial_state = Duck.init, Duck.initial_state

    def __init__(self, recur=lambda params, h: h @ params.w_h, shift: Any = 0.0):
        self.of_state, self.shift = recur, shift

    def project(self, params, x):
        return (x + self.shift) @ params.w_x + params.b

    def recur(self, params, state):
        return self.of_state(params, state.h)

    def update(self, params, state, z):
        return jl.RNNState(jnp.tanh(z))


class Unhashable(jl.LSTM):
    __hash__ = None  # pyrefly: ignore[bad-override]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (jl.LSTM, ("LSTM", "init", "instance")),
        (Duck, ("Duck", "instance")),
        ("LSTM", ("str", "init, initial_state, step, input_size and hidden_size")),
        (None, ("NoneType",)),
        (PARAMS, ("LSTMParams", "init")),
        (Unhashable(I, H), ("Unhashable", "hash", "params")),
    ],
)
def test_a_value_that_is_not_a_cell_is_refused(value, words):
    assert_says(refusal(TypeError, lambda: jl.unroll(value, PARAMS, XS)), "unroll: cell", *words)
    assert_says(refusal(TypeError, lambda: jl.step(value, PARAMS, STATE, XS[0])), "step: cell", *words)


@pytest.mark.parametrize("missing", ["init", "initial_state", "step", "input_size", "hidden_size"])
def test_a_missing_part_of_a_cell_is_named(missing):
    parts = {
        n: getattr(Duck, n) for n in ("init", "initial_state", "step", "input_size", "hidden_size") if n != missing
    }
    lame = type("Lame", (), parts)()
    assert_says(refusal(TypeError, lambda: jl.unroll(lame, RNN_PARAMS, XS)), "Lame", f"has no {missing}")


class Keyed:
    input_size, hidden_size = I, H
    initial_state, step = Duck.initial_state, Duck.step

    def init(self, key, dtype=jnp.float32):
        return jl.RNN(I, H).init(key, dtype)._asdict() | {"noise": key}


def test_a_key_among_the_params_is_named():
    cell = Keyed()
    params = cell.init(jax.random.key(0))
    assert_says(refusal(TypeError, lambda: jl.unroll(cell, params, XS)), "unroll: params.noise", "floats", "key<")


def closes(cell_class, shift, **options):
    return jl.unroll(cell_class(shift=shift), RNN_PARAMS, XS, **options)[1].sum()


@pytest.mark.parametrize("cell_class", [Duck, SplitDuck])
@pytest.mark.parametrize(
    "transform",
    [
        jax.grad,
        jax.jit,
        lambda f: lambda a: jax.vmap(f)(a[None]),
        lambda f: lambda a: jax.jvp(f, (a,), (a,)),
        lambda f: jax.jit(jax.grad(f)),
    ],
)
def test_a_cell_that_closes_over_a_tracer_is_refused(cell_class, transform):
    message = refusal(TypeError, lambda: transform(partial(closes, cell_class))(jnp.ones(I, np.float32) / 7))
    assert_says(message, "unroll", cell_class.__name__, "closes over", "params")


@pytest.mark.parametrize("engine", ["hoisted", "plain"])
def test_a_cell_may_close_over_numbers_and_concrete_arrays(engine):
    shift = np.full(I, 0.25, np.float32)
    for s in (shift, jnp.asarray(shift), 0.25):
        np.testing.assert_allclose(
            closes(SplitDuck, s, engine=engine), jl.unroll(Duck(), RNN_PARAMS, XS + shift)[1].sum(), rtol=1e-6
        )
    assert not np.allclose(closes(SplitDuck, shift), closes(SplitDuck, 0.0), rtol=1e-3)


class EqualDuck(Duck):
    """A cell that is equal to every other of its kind, whatever array it holds."""

    def __eq__(self, other):
        return isinstance(other, EqualDuck)

    def __hash__(self):
        return hash(EqualDuck)


def test_a_closed_over_tracer_is_refused_after_an_equal_cell_ran():
    shift = jnp.full(I, 0.25, np.float32)
    assert np.isfinite(closes(EqualDuck, shift))
    # A program compiled for the equal cell must not be run in its place: the gradient would be 0, without a word.
    message = refusal(TypeError, lambda: jax.grad(partial(closes, EqualDuck))(shift))
    assert_says(message, "EqualDuck", "closes over", "params")


@pytest.mark.parametrize(
    "recur",
    [
        lambda params, h: h @ params.w_h,
        lambda params, h: params.b * h,
        lambda params, h: h @ params.w_h + params.b,
        lambda params, h: jnp.zeros_like(h),
        lambda params, h: jnp.tanh(h) @ params.w_h,
        lambda params, h: h @ (params.w_h * h[:, None]),
    ],
    ids=["product", "scale", "affine", "none", "tanh", "product of products"],
)
def test_any_recur_has_the_gradients_of_the_plain_scan(recur):
    def grads(engine):
        cell = SplitDuck(recur)
        return jax.jit(jax.grad(lambda p: (jl.unroll(cell, p, XS, engine=engine)[1] ** 2).sum()))(RNN_PARAMS)

    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), grads("hoisted"), grads("plain"))


# Batches and meshes.

BATCH = {
    "xs": RNG.normal(size=(4, T, I)).astype(np.float32),
    "mask": np.arange(T) < np.array([[3], [6], [0], [4]]),
    "reset": np.arange(T) == np.array([[1], [2], [3], [4]]),
}


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"xs": XS}, ValueError, ("xs", "(B, T, I)", "2 axes", "(6, 3)")),
        ({"mask": BATCH["mask"].T}, ValueError, ("mask", "(4, 6)", "(6, 4)")),
        ({"reset": BATCH["reset"][:2]}, ValueError, ("reset", "(4, 6)", "(2, 6)")),
        ({"mask": BATCH["mask"].tolist()}, TypeError, ("mask", "array", "list")),
        (
            {"state": jl.LSTMState(np.zeros((3, H)), np.zeros((3, H)))},
            ValueError,
            ("state", "batch axis of 4", "(3, 4)"),
        ),
    ],
)
def test_batched_names_the_argument_that_does_not_fit_the_batch(wrong, error, words):
    message = refusal(error, lambda: jl.batched(jl.unroll)(CELL, PARAMS, **(BATCH | wrong)))
    assert_says(message, "batched", *words)


def test_batched_takes_the_functions_over_sequences_and_a_bool():
    assert_says(refusal(TypeError, lambda: jl.batched(jnp.sum)), "batched", "xs or x", "jl.unroll", "sum", "jax.vmap")
    assert_says(refusal(TypeError, lambda: jl.batched(jl.unroll, time_major=1)), "time_major", "True or False")  # pyrefly: ignore[bad-argument-type]
    _, hs = jl.batched(partial(jl.unroll, reverse=True))(CELL, PARAMS, **BATCH)
    assert not np.array_equal(hs, jl.batched(jl.unroll)(CELL, PARAMS, **BATCH)[1])


@pytest.mark.parametrize("name", ["mask", "reset"])
@pytest.mark.parametrize("sharded", ["the masks alone", "xs alone"])
def test_flags_sharded_unlike_xs_on_an_explicit_mesh_are_refused(name, sharded):
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        over, whole = PartitionSpec("data"), PartitionSpec()
        xs = jax.device_put(BATCH["xs"], over if sharded == "xs alone" else whole)
        masks = jax.device_put(BATCH[name], whole if sharded == "xs alone" else over)
        call = partial(jl.batched(jl.unroll), CELL, PARAMS)
        for way in (call, jax.jit(call)):
            message = refusal(ValueError, lambda way=way: way(xs, **{name: masks}))
            assert_says(
                message, f"{name} must be sharded as the data is", "bool[4", "float32[4", "@data", "PartitionSpec"
            )
        # One sequence, sharded over time in one of the two.
        one, masks = jax.device_put(BATCH["xs"][0], whole), jax.device_put(BATCH[name][0], over)
        assert_says(refusal(ValueError, lambda: jl.unroll(CELL, PARAMS, one, **{name: masks})), name, "sharded")


def test_flags_that_vary_in_shard_map_unlike_xs_are_refused():
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    over, whole = PartitionSpec("data"), PartitionSpec()

    def run(xs, mask):
        return jl.batched(jl.unroll)(CELL, PARAMS, xs, mask=mask)[1]

    def shard_map(xs_spec, mask_spec):
        return jax.jit(jax.shard_map(run, mesh=mesh, in_specs=(xs_spec, mask_spec), out_specs=over))

    message = refusal(ValueError, lambda: shard_map(whole, over)(BATCH["xs"][:2], BATCH["mask"]))
    assert_says(message, "mask must be sharded as the data is", "PartitionSpec")
    # Laid out alike, they run, and give what one device gives.
    np.testing.assert_allclose(
        shard_map(over, over)(BATCH["xs"], BATCH["mask"]), run(BATCH["xs"], BATCH["mask"]), atol=1e-6
    )
