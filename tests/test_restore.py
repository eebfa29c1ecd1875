"""Params and states from checkpoints that are restored without a template, by Orbax and by flax.serialization."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import serialization
from problem import WRITTEN, H, I, T
from tiers import slow_except

import jax_lstm as jl

DOCS = Path(__file__).parents[1] / "docs" / "layers.md"


class Count(NamedTuple):
    """The state of Counter: a leaf of each of two dtypes."""

    s: Any
    steps: Any


@dataclass(frozen=True)
class Counter:
    """A cell with no base class, with a dict and a list in its params, that counts its steps."""

    input_size: int = I
    hidden_size: int = H

    def init(self, key, dtype=jnp.float32):
        w = jax.random.normal(key, (self.input_size, self.hidden_size), dtype)
        return {"w": [w, jnp.zeros(self.hidden_size, dtype)], "scale": {"out": jnp.ones((), dtype)}}

    def initial_state(self, params, like=None):
        return Count(jnp.zeros(self.hidden_size, params["w"][0].dtype), jnp.zeros((), jnp.int32))

    def step(self, params, state, x):
        w, b = params["w"]
        s = (state.s + jnp.tanh(x @ w + b)) / 2
        return Count(s, state.steps + 1), params["scale"]["out"] * s


@dataclass(frozen=True)
class OwnLSTM(jl.LSTM):
    """A subclass of a cell of the library."""


OTHERS: dict[str, Any] = {
    "truncated": jl.gradflow.Truncated(jl.LSTM(I, H)),
    "dropout in a stack": jl.Stack((jl.Dropout(jl.LSTM(I, H), hidden=0.2), jl.Bidirectional(jl.GRU(H, 2)))),
    "learned stack": jl.LearnedInitialState(jl.Stack((jl.SLSTM(I, H), jl.RNN(H, 2)))),
    "own cell": Counter(),
    "own subclass": OwnLSTM(I, H),
    "own cell in a stack": jl.Stack((jl.LSTM(I, I, peephole=True), Counter())),
}
CELLS: dict[str, Any] = {name: row.cell for name, row in WRITTEN.items()} | OTHERS
MODELS: dict[str, Any] = {
    "model": jl.Model(jl.LSTM(I, H), 2),
    "model with symbols": jl.Model(jl.Stack((jl.LSTM(I, H), jl.GRU(H, 2))), 2, vocabulary=5),
    "readout": jl.Readout(H, 2),
    "embedding": jl.Embedding(5, 2),
}
ALL = CELLS | MODELS
QUICK = ["LSTM", "several variants", "stack", "bidirectional", "own cell", "own cell in a stack"]


def random(shapes, rng):
    """Arrays of these shapes and dtypes, none of them alike."""
    return jax.tree.map(lambda s: np.asarray(rng.normal(size=s.shape) * 3).astype(s.dtype), shapes)


@cache
def saved(name):
    """{"params", "state"} of a cell or Model; the state of a batch of two, and none for a Readout or Embedding."""
    cell, rng = ALL[name], np.random.default_rng(len(name))
    shapes = jax.eval_shape(lambda key: cell.init(key, jnp.float64), jax.random.key(0))
    tree = {"params": random(shapes, rng)}
    if name in CELLS or isinstance(cell, jl.Model):
        of, params = (cell.cell, shapes.cell) if isinstance(cell, jl.Model) else (cell, shapes)
        state = jax.eval_shape(of.initial_state, params)
        tree["state"] = random(jax.tree.map(lambda s: jax.ShapeDtypeStruct((2, *s.shape), s.dtype), state), rng)
    return tree


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """What Orbax restores without a target, by its two checkpointers: every cell in one checkpoint."""
    restored = {}
    for checkpointer in (ocp.StandardCheckpointer, ocp.PyTreeCheckpointer):
        path = tmp_path_factory.mktemp("orbax") / "all"
        with checkpointer() as writer:
            writer.save(path, {name: saved(name) for name in ALL})
        with checkpointer() as reader:
            restored[checkpointer.__name__] = reader.restore(path)
    return restored


def plain_forms(name, checkpoints):
    """The same tree as plain containers, in every form that a user may have."""
    tree = saved(name)
    forms = {kind: checkpoint[name] for kind, checkpoint in checkpoints.items()}
    forms["msgpack"] = serialization.msgpack_restore(serialization.to_bytes(tree))
    forms["state dict"] = serialization.to_state_dict(tree)
    forms["without None"] = without_none(forms["state dict"])
    forms["itself"] = tree
    return forms


def without_none(tree):
    if not isinstance(tree, dict):
        return tree
    return {key: without_none(value) for key, value in tree.items() if value is not None}


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert isinstance(x, jax.Array)
        assert x.dtype == y.dtype
        assert np.array_equal(x, y)


@pytest.mark.filterwarnings("ignore:Sharding info not provided")
@pytest.mark.parametrize("name", ALL)
def test_a_checkpoint_needs_no_template(name, checkpoints):
    cell, tree = ALL[name], saved(name)
    for form, plain in plain_forms(name, checkpoints).items():
        assert form == "itself" or type(plain["params"]) in (dict, list)
        assert_same(jl.params_from(cell, plain["params"]), tree["params"])
        if "state" in tree:
            assert_same(jl.state_from(cell, plain["state"]), tree["state"])
            one = jax.tree.map(lambda a: np.asarray(a)[1], plain["state"])  # of one sequence
            assert_same(jl.state_from(cell, one), jax.tree.map(lambda a: a[1], tree["state"]))


@pytest.mark.filterwarnings("ignore:Sharding info not provided")
@pytest.mark.parametrize("name", slow_except(QUICK, CELLS))
def test_a_restored_run_goes_on_bit_for_bit(name, checkpoints):
    cell, xs = CELLS[name], np.random.default_rng(0).normal(size=(2, T, I))
    params, state = jax.tree.map(jnp.asarray, (saved(name)["params"], saved(name)["state"]))
    run = jax.jit(lambda params, state: jl.batched(jl.unroll)(cell, params, xs, state))
    expected = run(params, state)
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(expected))
    for form in ("msgpack", "StandardCheckpointer"):
        plain = plain_forms(name, checkpoints)[form]
        again = run(jl.params_from(cell, plain["params"]), jl.state_from(cell, plain["state"]))
        assert_same(again, expected)
    fresh = run(params, jax.tree.map(jnp.zeros_like, state))
    assert not np.array_equal(fresh[1], expected[1])  # the memory matters


def test_the_methods_are_the_functions():
    tree = serialization.to_state_dict(saved("stack"))
    assert_same(CELLS["stack"].params_from(tree["params"]), saved("stack")["params"])
    assert_same(CELLS["stack"].state_from(tree["state"]), saved("stack")["state"])
    model = MODELS["model with symbols"]
    tree = serialization.to_state_dict(saved("model with symbols"))
    assert_same(model.params_from(tree["params"]), saved("model with symbols")["params"])
    assert_same(model.state_from(tree["state"]), saved("model with symbols")["state"])


def test_an_archive_of_numpy_is_a_tree(tmp_path):
    np.savez(tmp_path / "gru.npz", **saved("GRU")["params"]._asdict())
    with np.load(tmp_path / "gru.npz") as archive:
        assert_same(jl.params_from(CELLS["GRU"], archive), saved("GRU")["params"])


@dataclass(frozen=True)
class Bare:
    """A cell whose params and state are bare arrays."""

    input_size: int = I
    hidden_size: int = H

    def init(self, key, dtype=jnp.float32):
        return jax.random.normal(key, (self.input_size, self.hidden_size), dtype)

    def initial_state(self, params, like=None):
        return jnp.zeros(self.hidden_size, params.dtype)

    def step(self, params, state, x):
        state = (state + jnp.tanh(x @ params)) / 2
        return state, state


def test_bare_arrays_are_params_and_states():
    w, s = np.random.default_rng(0).normal(size=(I, H)), np.random.default_rng(1).normal(size=(2, H))
    for cell, of in ((Bare(), lambda a: a), (jl.Stack((jl.RNN(I, I), Bare())), lambda a: [RNN[a.ndim == 2], a])):
        params, state = jl.params_from(cell, of(w)), jl.state_from(cell, of(s[0]))
        assert np.array_equal(jax.tree.leaves(params)[-1], w)
        assert np.array_equal(jax.tree.leaves(state)[-1], s[0])
    assert np.array_equal(jl.state_from(Bare(), s), s)
    with pytest.raises(ValueError, match=r"params\.? has shape \(4, 3\)"):
        jl.params_from(Bare(), w.T)
    with pytest.raises(ValueError, match="'w' is not a leaf of the params of Bare; it takes one array"):
        jl.params_from(Bare(), {"w": w})


RNN = [{"h": np.zeros(I)}, {"w_x": np.zeros((I, I)), "w_h": np.zeros((I, I)), "b": np.zeros(I)}]


def test_bytes_without_their_dtype_are_named(tmp_path):
    params = jax.tree.map(lambda a: a.astype(jnp.bfloat16), saved("GRU")["params"])
    np.savez(tmp_path / "gru.npz", **params._asdict())
    with np.load(tmp_path / "gru.npz") as archive:
        with pytest.raises(TypeError, match=r"params_from: params\.w_x must hold numbers.*\.view\(jnp\.bfloat16\)"):
            jl.params_from(CELLS["GRU"], archive)
        back = jl.params_from(CELLS["GRU"], {name: a.view(jnp.bfloat16) for name, a in archive.items()})
    assert_same(back, params)


def changed(tree, path, value=None):
    """A copy of nested dicts with another leaf at a path; None removes it."""
    key, rest = path[0], path[1:]
    if not rest:
        return {k: v for k, v in tree.items() if k != key} | ({} if value is None else {key: value})
    return tree | {key: changed(tree.get(key) or {}, rest, value)}


@pytest.mark.parametrize(
    ("name", "path", "value", "error", "said"),
    [
        ("stack", "1.b", None, ValueError, r"params lacks 1\.b, which Stack needs with shape \(8,\); it has 0\.w_x,"),
        ("stack", "0.b_x", np.zeros(3), ValueError, r"'0\.b_x' is not a leaf of the params of Stack; it takes 0\.w_x"),
        ("stack", "2.b", np.zeros(3), ValueError, r"'2\.b' is not a leaf of the params of Stack"),
        ("bidirectional", "backward.w_h", np.zeros((2, 5)), ValueError, r"params\.backward\.w_h has shape \(2, 5\)"),
        ("learned", "state.c", np.zeros(5), ValueError, r"params\.state\.c has shape \(5,\).*takes \(4,\)"),
        ("model", "embedding.w", np.zeros((5, 3)), ValueError, r"'embedding\.w' is not a leaf of the params of Model"),
        ("model with symbols", "embedding.w", None, ValueError, r"params lacks embedding\.w, .* shape \(5, 3\)"),
        ("model", "cell.w_x", [1.0], ValueError, r"'cell\.w_x\.0' is not a leaf of the params of Model"),
        ("model", "cell.w_x", 1.0, TypeError, r"params\.cell\.w_x must be a JAX or NumPy array, but is a float"),
        ("readout", "b", np.zeros(2, int), TypeError, r"params\.b must hold floats"),
        ("own cell", "w.1", None, ValueError, r"params lacks w\.1, which Counter needs"),
        ("peephole", "p", None, ValueError, r"params lacks p, which LSTM needs with shape \(3, 4\)"),
        ("LSTM", "p", np.zeros((3, 4)), ValueError, r"'p' is not a leaf of the params of LSTM"),
    ],
)
def test_a_faulty_leaf_of_params_is_named(name, path, value, error, said):
    tree = serialization.to_state_dict(saved(name)["params"])
    with pytest.raises(error, match=f"^params_from: .*{said}"):
        jl.params_from(ALL[name], changed(tree, path.split("."), value))


@pytest.mark.parametrize(
    ("name", "path", "value", "error", "said"),
    [
        ("stack", "1.c", None, ValueError, r"state lacks 1\.c, which Stack needs with shape \(2,\); it has 0\.h, 1\.h"),
        ("stack", "0.c", np.zeros((2, 4)), ValueError, r"'0\.c' is not a leaf of the state of Stack; it takes 0\.h"),
        ("LSTM", "c", np.zeros((2, 5)), ValueError, r"state\.c has shape \(2, 5\), but cell LSTM takes \(4,\), after"),
        (
            "LSTM",
            "c",
            np.zeros((3, 4)),
            ValueError,
            r"same leading axes, but state\.h has \(2,\) and state\.c has \(3,",
        ),
        ("LSTM", "c", np.zeros(4), ValueError, r"same leading axes, but state\.h has \(2,\) and state\.c has \(\)"),
        ("model with symbols", "0.h", None, ValueError, r"state lacks 0\.h, which Model needs"),
        (
            "LSTM",
            "c",
            np.zeros((2, 4), int),
            TypeError,
            r"state\.c must be float64, as the other leaves are, but is in",
        ),
        ("LSTM", "c", np.zeros((2, 4), np.float32), TypeError, r"state\.c must be float64, .* is float32; cast it"),
        ("own cell", "steps", np.zeros(2), TypeError, r"state\.steps must be int32, .* is float64"),
        ("own cell", "steps", 3, TypeError, r"state\.steps must be a JAX or NumPy array, but is a int"),
    ],
)
def test_a_faulty_leaf_of_a_state_is_named(name, path, value, error, said):
    tree = serialization.to_state_dict(saved(name)["state"])
    with pytest.raises(error, match=f"^state_from: .*{said}"):
        jl.state_from(ALL[name], changed(tree, path.split("."), value))


def test_what_has_no_params_or_state_is_refused():
    with pytest.raises(TypeError, match=r"params_from: cell must be .* a method init, but is dict"):
        jl.params_from({}, {})
    with pytest.raises(TypeError, match=r"params_from: .* is the class LSTM; make an instance of it"):
        jl.params_from(jl.LSTM, {})
    for value in (jl.Readout(3, 2), jl.Embedding(3, 2)):
        with pytest.raises(TypeError, match=f"state_from: .* initial_state, but is {type(value).__name__}"):
            jl.state_from(value, {})


@pytest.mark.parametrize("name", ["LSTM", "stack", "own cell in a stack", "learned"])
def test_a_plain_tree_gets_the_advice_to_convert_it(name):
    cell, xs = CELLS[name], np.zeros((2, T, I))
    tree, plain = saved(name), serialization.to_state_dict(saved(name))
    with pytest.raises(ValueError, match=r"params must be .*convert it with jl\.params_from\(cell, params\)"):
        jl.batched(jl.unroll)(cell, plain["params"], xs)
    with pytest.raises((TypeError, ValueError), match=r"state must be .*jl\.state_from\(cell, state\)"):
        jl.batched(jl.unroll)(cell, tree["params"], xs, plain["state"])
    if isinstance(cell, jl.Stack):  # the tuple is right, what is inside is not
        with pytest.raises((TypeError, ValueError), match=r"state must be .*jl\.state_from\(cell, state\)"):
            jl.batched(jl.unroll)(cell, tree["params"], xs, tuple(plain["state"].values()))


# The tables of docs/layers.md.

DOCUMENTED: dict[str, Any] = {
    "LSTM": jl.LSTM(I, H),
    "LSTM(peephole=True)": jl.LSTM(I, H, peephole=True),
    "LSTM(projection=…)": jl.LSTM(I, H, projection=2),
    "LSTM(layer_norm=True)": jl.LSTM(I, H, layer_norm=True),
    "GRU": jl.GRU(I, H),
    "GRU(reset_after=False)": jl.GRU(I, H, reset_after=False),
    "RNN": jl.RNN(I, H),
    "RNN(learned_leak=True)": jl.RNN(I, H, leak=0.5, learned_leak=True),
    "JANET": jl.JANET(I, H),
    "MinLSTM": jl.MinLSTM(I, H),
    "MinGRU": jl.MinGRU(I, H),
    "SLSTM": jl.SLSTM(I, H),
    "Stack((cell, …))": jl.Stack((jl.GRU(I, H), jl.LSTM(H, H))),
    "Bidirectional(cell)": jl.Bidirectional(jl.GRU(I, H)),
    "LearnedInitialState(cell)": jl.LearnedInitialState(jl.GRU(I, H)),
    "Dropout(cell)": jl.Dropout(jl.GRU(I, H)),
    "gradflow.Truncated(cell)": jl.gradflow.Truncated(jl.LSTM(I, H)),
    "Model(cell, …)": jl.Model(jl.GRU(I, H), 2),
    "Model(cell, …, vocabulary=…)": jl.Model(jl.GRU(I, H), 2, vocabulary=5),
    "Readout": jl.Readout(H, 2),
    "Embedding": jl.Embedding(5, 2),
}


def documented_names():
    """{cell: (names of params, names of state)} of the tables; None for "as the cell"."""
    text = DOCS.read_text(encoding="utf-8").split("## Checkpoint names")[1].split("\n## ")[0]
    rows = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("| `")]

    def names(entry):
        return None if "as the cell" in entry else re.findall(r"`(\w+)`", entry)

    return {
        cell: (names(params), names(state))
        for cells, params, state in ([*row, ""][:3] for row in rows)
        for cell in re.findall(r"`([^`]+)`", cells)
    }


@pytest.mark.filterwarnings("ignore:Sharding info not provided")
def test_the_documented_names_are_those_of_checkpoints(tmp_path):
    assert documented_names().keys() == DOCUMENTED.keys()
    missing = {type(cell) for cell in CELLS.values()} - {Counter, OwnLSTM} - {type(c) for c in DOCUMENTED.values()}
    assert not missing
    with jax.enable_x64(False), ocp.StandardCheckpointer() as checkpointer:
        trees = {}
        for name, cell in DOCUMENTED.items():
            params = jax.eval_shape(cell.init, jax.random.key(0))
            of, of_params = (cell.cell, params.cell) if isinstance(cell, jl.Model) else (cell, params)
            state = jax.eval_shape(of.initial_state, of_params) if hasattr(of, "step") else None
            trees[name] = {"params": params, "state": state}
        trees = random(trees, np.random.default_rng(0))
        checkpointer.save(tmp_path / "all", trees)
        checkpointer.wait_until_finished()
        by_orbax = checkpointer.restore(tmp_path / "all")
    by_flax = serialization.msgpack_restore(serialization.to_bytes(trees))
    for name, (params, state) in documented_names().items():
        inner = DOCUMENTED[name].cell if state is None else DOCUMENTED[name]
        for what, names in (("params", params), ("state", state)):
            of = inner if names is None else DOCUMENTED[name]
            names = documented_names()[type(of).__name__][what == "state"] if names is None else names
            assert keys(by_flax[name][what]) == sorted(names), (name, what)
            assert keys(by_orbax[name][what]) == sorted(names), (name, what)


def keys(tree):
    """The keys of the first level, without those that are None; the positions of a list."""
    tree = {str(k): value for k, value in enumerate(tree)} if isinstance(tree, list) else tree or {}
    return sorted(key for key, value in tree.items() if value is not None)
