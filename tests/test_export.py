"""`jax.export`: one exported program runs any batch and any length, on every platform, and is saved as bytes."""

import dataclasses
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from problem import WRITTEN
from tiers import slow_except

import jax_lstm as jl
from jax_lstm.engines import layout
from jax_lstm.registry import CELLS as REGISTERED

CELL = jl.LSTM(3, 5)
PLATFORMS = ("cpu", "cuda", "tpu", "rocm")


def forward(params, xs):
    return jl.batched(jl.unroll)(CELL, params, xs)


def gradient(params, xs):
    return jax.value_and_grad(lambda params, xs: jnp.sum(forward(params, xs)[1] ** 2), (0, 1))(params, xs)


FUNCTIONS = {"forward": forward, "gradient": gradient}


@cache
def exported(name):
    b, t = export.symbolic_shape("b, t")
    params = jax.eval_shape(CELL.init, jax.random.key(0))
    xs = jax.ShapeDtypeStruct((b, t, CELL.input_size), jnp.float32)
    return export.export(jax.jit(FUNCTIONS[name]), platforms=PLATFORMS)(params, xs)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(("b", "t"), [(2, 7), (9, 4)])
def test_an_export_with_unknown_batch_and_length_is_the_function(name, b, t):
    params = CELL.init(jax.random.key(1), jnp.float32)
    xs = jax.random.normal(jax.random.key(2), (b, t, CELL.input_size), jnp.float32)
    ours = jax.tree.leaves(exported(name).call(params, xs))
    for a, expected in zip(ours, jax.tree.leaves(FUNCTIONS[name](params, xs)), strict=True):
        np.testing.assert_allclose(a, expected, rtol=0, atol=1e-6 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_export_is_for_every_platform(name):
    assert exported(name).platforms == PLATFORMS


# Saved programs: bytes that another process runs.


def shapes(tree, dtype=jnp.float32):
    """The shapes of a tree, its floats in this dtype."""

    def shape(a):
        return jax.ShapeDtypeStruct(a.shape, dtype if jnp.issubdtype(a.dtype, jnp.floating) else a.dtype)

    return jax.tree.map(shape, tree)


def arguments(cell):
    """The shapes of params, of xs (b, t, I) and of the state of a batch of b, with symbols b and t."""
    b, t = export.symbolic_shape("b, t")
    params = jax.eval_shape(lambda key: cell.init(key, jnp.float32), jax.random.key(0))
    state = jax.eval_shape(cell.initial_state, params)
    state = jax.tree.map(lambda s: jax.ShapeDtypeStruct((b, *s.shape), s.dtype), state)
    return params, jax.ShapeDtypeStruct((b, t, cell.input_size), jnp.float32), state


def drawn(tree, seed=0, **sizes):
    """Arrays of these shapes, with numbers for the symbols."""
    rng = np.random.default_rng(seed)

    def array(s):
        shape = tuple(n if isinstance(n, int) else sizes[str(n)] for n in s.shape)
        return (rng.integers(0, 5, shape) if s.dtype == jnp.int32 else 0.3 * rng.normal(size=shape)).astype(s.dtype)

    return jax.tree.map(array, tree)


def unrolled(cell, params, xs, state):
    return jl.batched(jl.unroll)(cell, params, xs, state)


def applied(model, params, symbols):
    return model.apply(params, symbols)


def assert_close(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


OTHERS = {
    "truncated": jl.gradflow.Truncated(jl.LSTM(3, 4)),
    "stack with dropout": jl.Stack((jl.Dropout(jl.GRU(3, 4), hidden=0.1, zoneout=0.2), jl.LSTM(4, 2)), dropout=0.3),
}
CELLS = {name: row.cell for name, row in WRITTEN.items()} | OTHERS


@pytest.mark.parametrize("name", slow_except(["LSTM", "stack with dropout"], CELLS))
def test_a_saved_program_is_the_function(name):
    cell = CELLS[name]
    args = arguments(cell)
    data = export.export(jax.jit(unrolled))(cell, *args).serialize()
    back = export.deserialize(data)
    assert back.in_tree == jax.tree.structure(((cell, *args), {}))
    given = jax.tree.map(jnp.asarray, drawn(args, b=2, t=5))
    assert_close(back.call(cell, *given), unrolled(cell, *given))


LOAD = """
import sys
from pathlib import Path

import numpy as np

import jax
import jax_lstm
from jax import export

for file in sorted(Path(sys.argv[1]).glob("*.program")):
    program = export.deserialize(file.read_bytes())
    with np.load(file.with_suffix(".npz")) as archive:
        leaves = [archive[str(k)] for k in range(len(archive.files))]
    args, _ = jax.tree.unflatten(program.in_tree, leaves)
    returned = program.call(*args)
    made = {"types": repr(jax.tree.structure(returned))}
    if program.has_vjp():
        gradient = program.vjp().call(*jax.tree.leaves(args), *jax.tree.leaves(returned))
        made |= {f"gradient {k}": g for k, g in enumerate(gradient)}
    np.savez(file.with_suffix(".out.npz"), **made, **{str(k): a for k, a in enumerate(jax.tree.leaves(returned))})
"""


@pytest.mark.slow
@pytest.mark.parametrize("names", ["LSTM, model", "stack with dropout, bidirectional, SLSTM"])
def test_a_fresh_process_runs_saved_programs(names, tmp_path):
    model = jl.Model(jl.LSTM(3, 4), output_size=5, vocabulary=5)
    (t,) = export.symbolic_shape("t")
    symbols = jax.ShapeDtypeStruct((t,), jnp.int32)
    programs: dict[str, Any] = {"model": (applied, model, jax.eval_shape(model.init, jax.random.key(0)), symbols)}
    programs |= {name: (unrolled, cell, *arguments(cell)) for name, cell in CELLS.items()}
    programs, given = {name: programs[name] for name in names.split(", ")}, {}
    for name, (f, *args) in programs.items():
        args[1:] = shapes(args[1:])
        data = export.export(jax.jit(f))(*args).serialize(vjp_order=int(name == "LSTM"))
        (tmp_path / f"{name}.program").write_bytes(data)
        given[name] = (args[0], *drawn(args[1:], b=2, t=5))
        np.savez(tmp_path / f"{name}.npz", **{str(k): a for k, a in enumerate(jax.tree.leaves(given[name]))})
    fresh = subprocess.run([sys.executable, "-c", LOAD, str(tmp_path)], capture_output=True, text=True, check=False)
    assert fresh.returncode == 0, fresh.stderr
    for name, (f, *_) in programs.items():
        args = jax.tree.map(jnp.asarray, given[name])
        expected = f(*args)
        with np.load(tmp_path / f"{name}.out.npz") as archive:
            made = dict(archive)
        assert str(made["types"]) == repr(jax.tree.structure(expected))
        returned = [made[str(k)] for k in range(len(jax.tree.leaves(expected)))]
        assert_close(returned, jax.tree.leaves(expected))
        if name == "LSTM":
            _, pullback = jax.vjp(f, *args)
            gradient = jax.tree.leaves(pullback(expected))
            assert_close([made[f"gradient {k}"] for k in range(len(gradient))], gradient)


def defined(kind):
    """The classes that satisfy `kind`, from all modules whose classes may be arguments or results of a run."""
    formats = tuple(f"jax_lstm.interop.{name}" for name in ("parts", *jl.interop.__all__) if name != "textbook")
    of_files = tuple(f"jax_lstm.data.{name}" for name in ("grouping", "npz_files", "places", "text", "windows"))
    apart = ("jax_lstm.cli", "jax_lstm.nnx", "jax_lstm.linen", "jax_lstm.gradflow.headline_table", *formats, *of_files)
    names = [m.name for m in pkgutil.walk_packages(jl.__path__, "jax_lstm.") if not m.name.startswith(apart)]
    modules = [importlib.import_module(name) for name in names]
    return {
        v for m in modules for v in vars(m).values() if isinstance(v, type) and v.__module__ == m.__name__ and kind(v)
    }


def is_namedtuple(cls):
    return issubclass(cls, tuple) and hasattr(cls, "_fields")


def is_cell_or_model(cls):
    return dataclasses.is_dataclass(cls) and callable(getattr(cls, "init", None)) and not inspect.isabstract(cls)


def export_name(cls):
    """The name that `jax.export` writes for a class; None if it has none (then it gets one)."""
    other = f"probe of {cls.__module__}.{cls.__qualname__}"
    try:
        if is_namedtuple(cls):
            export.register_namedtuple_serialization(cls, serialized_name=other)
        else:
            export.register_pytree_node_serialization(
                cls,
                serialized_name=other,
                serialize_auxdata=lambda _: b"",
                deserialize_auxdata=lambda _: None,
                from_children=lambda aux_data, _: aux_data,
            )
    except ValueError as error:
        return re.findall(r"serialized_name `(.*)`", str(error))[0]
    return None


def test_every_namedtuple_and_cell_can_be_saved():
    found = defined(is_namedtuple)
    assert {jl.LSTMParams, jl.Noise, jl.gradflow.FixedPoints, jl.TextbookParams} <= found
    assert {cls.__name__: export_name(cls) for cls in found if export_name(cls) is None} == {}
    names = {export_name(cls) for cls in found}
    assert len(names) == len(found)
    assert {"jax_lstm.LSTMParams", "jax_lstm.BidirectionalState"} <= names  # in files on disk: they must not change
    cells = defined(is_cell_or_model)
    assert {jl.LSTM, jl.Stack, jl.gradflow.Truncated, jl.Model, jl.Readout, jl.Embedding} <= cells
    assert {cls.__name__: name for cls in cells if (name := export_name(cls)) != f"jax_lstm.{cls.__name__}"} == {}


def test_a_forgotten_namedtuple_is_noticed():
    assert export_name(NamedTuple("Forgotten", [("a", Any)])) is None


@dataclasses.dataclass(frozen=True)
class Doubled(jl.GRU):
    """A cell of a user, registered below."""

    factor: float = 2.0

    def project(self, params, x):
        return super().project(params, self.factor * x)


def test_a_registered_cell_of_a_user_can_be_saved():
    before = dict(REGISTERED)
    try:
        args = arguments(Doubled(3, 4))
        program = export.export(jax.jit(unrolled))(Doubled(3, 4), *args)
        with pytest.raises(ValueError, match=r"unregistered type .*Doubled"):
            program.serialize()
        jl.register_cell(Doubled)
        assert export_name(Doubled) == "jax_lstm.Doubled"
        back = export.deserialize(program.serialize())
        given = jax.tree.map(jnp.asarray, drawn(args, b=2, t=3))
        twice = (given[0], 2 * given[1], given[2])
        assert_close(back.call(Doubled(3, 4), *given), unrolled(jl.GRU(3, 4), *twice))
    finally:
        REGISTERED.clear()
        REGISTERED.update(before)


def test_a_cell_with_a_function_in_a_field_is_named():
    cell = jl.GRU(3, 4)
    object.__setattr__(cell, "compute_dtype", len)
    program = export.export(jax.jit(lambda cell, x: x))(cell, jax.ShapeDtypeStruct((2,), jnp.float32))
    with pytest.raises(TypeError, match=r"jax\.export: cell GRU must have plain data .* not JSON serializable"):
        program.serialize()


# Sizes that are not known when a program is exported.

STACK = CELLS["stack with dropout"]
FOUR = jl.Stack((jl.RNN(3, 3),) * 4)
BOTH = jl.Bidirectional(jl.LSTM(3, 4), jl.GRU(3, 2))
MIN = jl.MinGRU(3, 4)
SYMBOLS = jl.Model(jl.LSTM(3, 5), output_size=5, vocabulary=5)


def flags(xs):
    return xs[..., 0] > -0.3, xs[..., 1] > 0.2


def gradient_of(cell, params, xs, **options):
    return jax.grad(lambda p: jnp.sum(jl.unroll(cell, p, xs, **options)[1] ** 2))(params)


def next_symbols(params, symbols):
    return jax.grad(lambda p: jnp.sum(SYMBOLS.apply(p, symbols[:-1])[1] ** 2))(params)


# name: (cell or Model, axes of the data, function of params and data)
BATCHED, UNROLL = jl.batched(jl.unroll), jl.unroll
WORKS = {
    "gates_of": (CELL, "t, 3", lambda p, xs: jl.gates_of(CELL, p, xs, None, *flags(xs))),
    "unroll_states": (CELL, "b, t, 3", lambda p, xs: jl.batched(jl.unroll_states)(CELL, p, xs)),
    "sensitivity": (CELL, "t, 3", lambda p, xs: jl.gradflow.sensitivity(CELL, p, xs)),
    "step_jacobians": (CELL, "t, 3", lambda p, xs: jl.gradflow.step_jacobians(CELL, p, xs)),
    "paths": (CELL, "t, 3", lambda p, xs: jl.gradflow.paths(CELL, p, xs)),
    "data_horizon": (CELL, "t, 3", lambda p, xs: jl.gradflow.data_horizon(CELL, p, xs)),
    "lyapunov_spectrum": (CELL, "t, 3", lambda p, xs: jl.gradflow.lyapunov_spectrum(CELL, p, xs, k=1)),
    "a key": (STACK, "t, 3", lambda p, xs: UNROLL(STACK, p, xs, key=jax.random.key(3))),
    "a key per sequence": (STACK, "b, t, 3", lambda p, xs: BATCHED(STACK, p, xs, key=jax.random.key(3))),
    "flags in reverse": (BOTH, "b, t, 3", lambda p, xs: BATCHED(BOTH, p, xs, None, *flags(xs), reverse=True)),
    "equal layers": (FOUR, "b, t, 3", lambda p, xs: BATCHED(FOUR, p, xs, None, *flags(xs))),
    "time-major": (CELL, "t, b, 3", lambda p, xs: jl.batched(jl.unroll, time_major=True)(CELL, p, xs)),
    "drop_weights": (CELL, "t, 3", lambda p, xs: UNROLL(CELL, jl.drop_weights(jax.random.key(2), p, 0.5), xs)),
    "fewer steps": (CELL, "b, t, 3", lambda p, xs: BATCHED(CELL, p, xs[:, :-1])),
    "next symbols": (SYMBOLS, "t", next_symbols),
    "sample": (SYMBOLS, "t", lambda p, xs: jl.sample(SYMBOLS, p, jax.random.key(5), xs, steps=4)),
    "a stream": (CELL, "t, 3", lambda p, xs: jl.stream(CELL).chunk(p, CELL.initial_state(p), xs)),
    "remat_every of a multiple": (CELL, "4*t, 3", lambda p, xs: gradient_of(CELL, p, xs, remat_every=4)),
    "remat_every of known T": (CELL, "b, 5, 3", lambda p, xs: BATCHED(CELL, p, xs, remat_every=2)),
    "tbptt of known T": (CELL, "b, 5, 3", lambda p, xs: jl.batched(jl.tbptt)(CELL, p, xs, window=4, stride=2)),
    "associative of known T": (MIN, "b, 5, 3", lambda p, xs: BATCHED(MIN, p, xs, engine="associative")),
}


@pytest.mark.parametrize("name", slow_except(["gates_of", "sensitivity", "fewer steps"], WORKS))
def test_an_unknown_size_gives_the_same_numbers(name):
    of, axes, f = WORKS[name]
    constraints = ["t >= 2"] if "t" in axes else []
    shape = export.symbolic_shape(axes, constraints=constraints)
    params = jax.eval_shape(lambda key: of.init(key, jnp.float32), jax.random.key(0))
    xs = jax.ShapeDtypeStruct(shape, jnp.int32 if of is SYMBOLS else jnp.float32)
    given = jax.tree.map(jnp.asarray, drawn((params, xs), b=2, t=5, **{"4*t": 8}))
    assert_close(export.export(jax.jit(f))(params, xs).call(*given), f(*given))


def test_a_merged_batch_may_have_any_size(monkeypatch):
    monkeypatch.setattr(layout, "can_merge_axes", lambda: True)  # as with one device
    of, axes, f = WORKS["fewer steps"]
    params = jax.eval_shape(lambda key: of.init(key, jnp.float32), jax.random.key(0))
    xs = jax.ShapeDtypeStruct(export.symbolic_shape(axes, constraints=["t >= 2"]), jnp.float32)
    given = jax.tree.map(jnp.asarray, drawn((params, xs), b=2, t=5))
    assert_close(export.export(jax.jit(f))(params, xs).call(*given), f(*given))


REFUSED = {
    "auto": (lambda p, xs: UNROLL(CELL, p, xs, remat_every="auto"), "unroll: remat_every='auto' needs a known number"),
    "remat_every": (
        lambda p, xs: BATCHED(CELL, p, xs[None], remat_every=4),
        "remat_every=4 .* multiple of 4, but T is t",
    ),
    "tbptt": (lambda p, xs: jl.tbptt(CELL, p, xs, window=4), "tbptt: window needs a known number of steps, but T is t"),
    "associative": (lambda p, xs: UNROLL(MIN, p, xs, engine="associative"), 'engine "associative": T must be known'),
    "in a stack": (
        lambda p, xs: UNROLL(jl.Stack((MIN,)), (p,), xs, engine="associative"),
        'engine "associative": T must be known, but is t; use engine="auto" when exporting',
    ),
    "burn_in": (lambda p, xs: jl.gradflow.lyapunov_spectrum(CELL, p, xs, burn_in=3), r"constraints=\['t >= 4'\]"),
    "perhaps no step": (lambda p, xs: UNROLL(CELL, p, xs[:-1]), r"T = t - 1, .*constraints=\['t - 1 >= 1'\]"),
    "of gates_of": (lambda p, xs: jl.gates_of(CELL, p, xs[:-1]), r"gates_of: xs must have at least 1 step"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_option_that_needs_a_known_T_is_named(name):
    f, said = REFUSED[name]
    cell = MIN if "associative" in said else CELL
    xs = jax.ShapeDtypeStruct((*export.symbolic_shape("t"), 3), jnp.float32)
    with pytest.raises(ValueError, match=said):
        jax.eval_shape(f, jax.eval_shape(cell.init, jax.random.key(0)), xs)


def test_the_advised_constraint_is_enough():
    t = export.symbolic_shape("t, 3", constraints=["t - 1 >= 1"])
    f, _ = REFUSED["perhaps no step"]
    params = jax.eval_shape(lambda key: CELL.init(key, jnp.float32), jax.random.key(0))
    _, hs = jax.eval_shape(f, params, jax.ShapeDtypeStruct(t, jnp.float32))
    assert str(hs.shape[0]) == "t - 1"


def test_explain_takes_unknown_sizes_and_names_the_option():
    for shape in ("t, b, 3", "t, 8, 3", "7, b, 3"):
        xs = jax.ShapeDtypeStruct(export.symbolic_shape(shape), jnp.float32)
        assert jl.engines.explain(CELL, xs).startswith("LSTM: hoisted, inputs projected in the loop")
    xs = jax.ShapeDtypeStruct(export.symbolic_shape("t, 3"), jnp.float32)
    assert "hoisted" in jl.engines.explain(CELL, xs)
    with pytest.raises(ValueError, match=r"explain: remat_every='auto' needs a known number of steps, but T is t"):
        jl.engines.explain(CELL, xs, remat_every="auto")
