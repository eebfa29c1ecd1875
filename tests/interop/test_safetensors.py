"""Files of safetensors: what `load` gives back is what `dump` got, bit for bit, and any other file is refused."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problem import WRITTEN, H, I

import jax_lstm as jl
from jax_lstm.interop import files
from jax_lstm.interop import safetensors as ours
from jax_lstm.registry import CELLS as REGISTERED
from jax_lstm.registry import MODELS

safetensors = pytest.importorskip("safetensors")
theirs = pytest.importorskip("safetensors.numpy")

ROOT = Path(__file__).parents[2]
DTYPES = ("float64", "float32", "float16", "bfloat16")


class Weights(NamedTuple):
    w: Any
    parts: dict[str, list[Any]]


@dataclass(frozen=True)
class Own:
    """A cell of a user with no base class; registered by `register_own` only."""

    input_size: int = I
    hidden_size: int = H
    gains: tuple[float, ...] = (1.0, 2.0)

    def init(self, key, dtype=jnp.float32) -> Any:
        w = jax.random.normal(key, (self.input_size, self.hidden_size), dtype)
        return Weights(w, {"b": [jnp.zeros(self.hidden_size, dtype), jnp.ones((), dtype)]})

    def initial_state(self, params):
        return jnp.zeros(self.hidden_size, params.w.dtype)

    def step(self, params, state, x):
        return (state := jnp.tanh(state + x @ params.w + params.parts["b"][0])), state


@dataclass(frozen=True)
class OneArray(Own):
    """Its params are one array, not a container."""

    def init(self, key, dtype=jnp.float32) -> Any:
        return jax.random.normal(key, (self.input_size, self.hidden_size), dtype)


@dataclass(frozen=True)
class Dots(Own):
    """Two of its leaves would have one name."""

    def init(self, key, dtype=jnp.float32) -> Any:
        return {"a.b": jnp.ones(2, dtype), "a": {"b": jnp.ones(2, dtype)}}


@dataclass(frozen=True)
class Metadata(Own):
    """A leaf with the name that a header has for something else."""

    def init(self, key, dtype=jnp.float32) -> Any:
        return {"__metadata__": jnp.ones(2, dtype)}


@dataclass(frozen=True)
class OfModel(Own):
    """A field whose config looks like that of a Model."""

    model: str = "small"


@dataclass(frozen=True)
class Listed(Own):
    """A field that JSON cannot give back as it was."""

    gains: Any = (1.0,)


@pytest.fixture
def register_own():
    before = dict(REGISTERED)
    for cls in (Own, OneArray, Dots, Listed, Metadata, OfModel):
        jl.register_cell(cls)
    yield
    REGISTERED.clear()
    REGISTERED.update(before)


CELLS = {name: row.cell for name, row in WRITTEN.items()} | {
    "truncated": jl.gradflow.Truncated(jl.LSTM(I, H)),
    "compute dtype": jl.LSTM(I, H, compute_dtype="float16"),
    "deep": jl.Stack((jl.Bidirectional(jl.LSTM(I, H)), jl.Dropout(jl.GRU(2 * H, 2), hidden=0.2)), dropout=0.1),
    "model": jl.Model(jl.LearnedInitialState(jl.SLSTM(I, H)), 2),
    "model of symbols": jl.Model(jl.LSTM(I, H), 2, vocabulary=5),
    "readout": jl.Readout(H, 2),
    "embedding": jl.Embedding(5, 2),
}


def drawn(cell, dtype="float32", seed=0):
    """Params without compiling anything: random numbers, a −0 among them."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(cell.init, jax.random.key(0))

    def array(s):
        a = np.asarray(rng.normal(size=s.shape))
        a[(0,) * a.ndim] = -0.0
        return a.astype(jnp.dtype(dtype))

    return jax.tree.map(array, shapes)


def assert_same(got, want):
    """The same structure, dtypes, shapes and bits."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(map(np.asarray, jax.tree.leaves(got)), map(np.asarray, jax.tree.leaves(want)), strict=True):
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


@pytest.mark.parametrize("name", CELLS)
def test_load_gives_back_the_cell_and_every_bit(name):
    cell, params = CELLS[name], drawn(CELLS[name])
    again, loaded = ours.load(ours.dump(cell, params))
    assert again == cell
    assert type(again) is type(cell)
    assert_same(loaded, params)


def test_the_table_has_every_class_of_the_library():
    own = {cls for cls in REGISTERED.values() if cls.__module__.startswith("jax_lstm.")}
    assert own | set(MODELS.values()) == {type(cell) for cell in CELLS.values()}


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_float_dtype_keeps_its_bits(dtype):
    params = drawn(jl.LSTM(I, H), dtype)
    _, loaded = ours.load(ours.dump(jl.LSTM(I, H), params))
    assert loaded.w_x.dtype == dtype
    assert np.signbit(np.asarray(loaded.b)[0])
    assert_same(loaded, params)


def test_a_leaf_may_be_in_any_memory_order():
    params = jax.tree.map(np.asfortranarray, drawn(jl.GRU(I, H)))
    assert not params.w_x.flags.c_contiguous
    assert_same(ours.load(ours.dump(jl.GRU(I, H), params))[1], params)


@pytest.mark.parametrize("cls", [Own, OneArray])
@pytest.mark.usefixtures("register_own")
def test_a_registered_cell_of_a_user_comes_back(cls):
    cell = jl.Stack((cls(gains=(0.5, 3.0)), jl.LSTM(H, 2)))
    again, loaded = ours.load(ours.dump(cell, drawn(cell)))
    assert again == cell
    assert_same(loaded, drawn(cell))


@pytest.mark.usefixtures("register_own")
def test_the_leaves_have_their_checkpoint_names(tmp_path):
    names = {
        "deep": {
            *(f"0.{d}.{leaf}" for d in ("forward", "backward") for leaf in ("w_x", "w_h", "b")),
            *("1.w_x", "1.w_h", "1.b", "1.b_hn"),
        },
        "model of symbols": {"cell.w_x", "cell.w_h", "cell.b", "readout.w", "readout.b", "embedding.w"},
        "own": {"w", "parts.b.0", "parts.b.1"},
        "one array": {"params"},
    }
    cells = CELLS | {"own": Own(), "one array": OneArray()}
    for name, leaves in names.items():
        params = drawn(cells[name])
        ours.dump(cells[name], params, tmp_path / "weights")
        weights = theirs.load_file(tmp_path / "weights")
        assert set(weights) == leaves
        if name == "deep":
            np.testing.assert_array_equal(weights["0.backward.w_h"], params[0].backward.w_h)


def test_the_metadata_are_the_config_and_the_version(tmp_path):
    cell = CELLS["deep"]
    data = ours.dump(cell, drawn(cell), tmp_path / "weights")
    assert (tmp_path / "weights").read_bytes() == data
    with safetensors.safe_open(tmp_path / "weights", framework="np") as f:
        assert f.metadata() == {"format": "1", "jax_lstm": json.dumps(jl.to_config(cell))}


def test_equal_weights_give_equal_bytes():
    cell = jl.RNN(I, H)
    assert len({ours.dump(cell, drawn(cell)) for _ in range(8)}) == 1
    assert ours.dump(cell, drawn(cell)) != ours.dump(cell, drawn(cell, seed=1))


# Files that are refused. Each row: the file, the error, and what its message says.

LSTM = jl.LSTM(I, H)
CONFIG = jl.to_config(LSTM)


def good():
    return ours.dump(LSTM, drawn(LSTM))


def with_header(text, length=None):
    """A file with this text as its header."""
    text = text.encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text


def written(changes=(), config: Any = CONFIG, version="1"):
    """A file of the LSTM with other leaves, None for none, or with another config."""
    weights = drawn(LSTM)._asdict() | dict(changes)
    weights = {name: np.ascontiguousarray(a) for name, a in weights.items() if a is not None}
    config = config if isinstance(config, str) else json.dumps(config)
    return theirs.save(weights, {"jax_lstm": config, "format": version})


WRONG = {
    "empty": (lambda: b"", ValueError, "source is empty; write it again"),
    "zip": (lambda: b"PK\x03\x04" + bytes(90), ValueError, r"a zip archive, .*interop\.torch\.load\(torch\.load\(path"),
    "pickle": (lambda: b"\x80\x02}q\x00.ab", ValueError, r"a pickle, .* weights_only=True"),
    "HDF5": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(90), ValueError, r"an HDF5 file; use interop\.keras\.load"),
    "a part of a header": (lambda: good()[:40], ValueError, r"only a part of one \(invalid header length\)"),
    "a part of the weights": (lambda: good()[:-1], ValueError, "only a part of one .*not fully covered"),
    "more than the weights": (lambda: good() + b"0", ValueError, "not fully covered"),
    "five bytes": (lambda: b"LSTM\n", ValueError, "header too small"),
    "a huge header": (lambda: with_header("{}", 2**60), ValueError, "header too large"),
    "no JSON": (lambda: with_header("w_x, b  "), ValueError, "invalid JSON in header"),
    "another JSON": (lambda: with_header("[1,2]   "), ValueError, "invalid JSON in header"),
    "no config": (
        lambda: theirs.save({"w_x": np.ones(3)}, {"format": "pt"}), ValueError,
        r"no config of a cell in its metadata, but the leaves w_x; use jl\.params_from\(cell, weights\)",
    ),
    "PyTorch's names": (
        lambda: theirs.save({"rnn.weight_ih_l0": np.ones(3)}), ValueError,
        r"but the leaves rnn\.weight_ih_l0; use interop\.torch\.load\(safetensors\.numpy\.load_file\(path\)\)",
    ),
    "no config and no leaf": (lambda: with_header("{}      "), ValueError, "but no leaves; use"),
    "another version": (lambda: written(version="2"), ValueError, "must have format '1' .* has '2'; update jax_lstm"),
    "an unknown cell": (
        lambda: written(config={"cell": "Leaky", "input_size": 3}), ValueError,
        r"the config in source .*'Leaky'\); register a class of your own with jl\.register_cell",
    ),
    "an unknown cell inside": (
        lambda: written(config={"cell": "Stack", "cells": [CONFIG, {"cell": "os.system"}]}), ValueError, r"os\.system",
    ),
    "an unknown field": (lambda: written(config=CONFIG | {"gain": 2}), ValueError, "'gain' is not a field of LSTM"),
    "a config of sizes below 1": (lambda: written(config=CONFIG | {"hidden_size": 0}), ValueError, "at least 1"),
    "a config of huge sizes": (
        lambda: written(config=CONFIG | {"input_size": 10**13, "hidden_size": 10**13}), ValueError,
        "w_x must have shape",
    ),
    "a config that is no JSON": (lambda: written(config="LSTM(3, 4)"), ValueError, "makes no cell here"),
    "a config without end": (lambda: written(config='{"of":' * 10**5), ValueError, "makes no cell .*recursion"),
    "a config that is a list": (lambda: written(config=[CONFIG]), ValueError, "must be a dict"),
    "a missing leaf": (lambda: written({"w_h": None}), ValueError, r"lacks w_h, .*LSTM needs .*\(4, 16\)"),
    "an unknown leaf": (lambda: written({"p": np.ones(3)}), ValueError, "p, which is not a leaf of LSTM; it takes w_x"),
    "a transposed leaf": (
        lambda: written({"w_x": drawn(LSTM).w_x.T}), ValueError, r"w_x must have shape \(3, 16\).*\(16, 3\); transpose"
    ),
    "a flat leaf": (lambda: written({"w_h": np.ones(64, "f")}), ValueError, r"w_h must have shape .* has \(64,\)$"),
    "integers": (lambda: written({"b": np.ones(16, int)}), TypeError, "b must hold floats, but holds I64; cast it"),
    "two dtypes": (lambda: written({"b": np.ones(16)}), TypeError, "one dtype, but has w_x float32.* b float64"),
    "no path": (lambda: 3, TypeError, r"source must be a path or the bytes of a file, but is 3 \(int\)"),
    "params": (lambda: drawn(LSTM), TypeError, "source must be a path .* but is a LSTMParams"),
    "no such file": (lambda: "nothing.safetensors", FileNotFoundError, r"no file nothing\.safetensors; pass a path"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_refused_in_one_sentence(name):
    make, error, message = WRONG[name]
    with pytest.raises(error, match=message) as caught:
        ours.load(make())
    text = str(caught.value)
    assert text.startswith("interop.safetensors.load: ")
    assert "\n" not in text


def test_a_wrong_file_is_named(tmp_path):
    (tmp_path / "half.safetensors").write_bytes(good()[:50])
    with pytest.raises(ValueError, match=r"load: half\.safetensors is no safetensors file"):
        ours.load(tmp_path / "half.safetensors")
    with pytest.raises(IsADirectoryError, match="is a directory; pass the path of a file in it"):
        ours.load(tmp_path)


def test_a_damaged_header_gives_an_error_or_whole_params():
    data, rng = good(), np.random.default_rng(0)
    end, refused = 8 + int.from_bytes(data[:8], "little"), 0
    for _ in range(300):
        damaged = bytearray(data)
        damaged[rng.integers(end)] ^= rng.integers(1, 256, dtype=np.uint8)
        try:
            cell, params = ours.load(damaged)
        except (ValueError, TypeError) as error:
            assert str(error).startswith("interop.safetensors.load: ")  # noqa: PT017
            refused += 1
        else:  # such as another forget_bias, or the padding of the header
            assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, drawn(cell))
    assert refused > 200


def test_float64_needs_x64():
    data = ours.dump(LSTM, drawn(LSTM, "float64"))
    with jax.enable_x64(False), pytest.raises(TypeError, match="load: w_x is float64, but jax_enable_x64 is off"):
        ours.load(data)


@pytest.mark.usefixtures("register_own")
def test_dump_refuses_what_no_file_can_hold():
    params = drawn(LSTM)
    refused = [
        (LSTM, params._replace(b=params.b[:3]), ValueError, r"dump: params\.b has shape"),
        (
            LSTM,
            jax.tree.map(lambda a: a.astype(jnp.float8_e5m2), params),
            TypeError,
            "params are float8_e5m2, but must",
        ),
        (LSTM, params._asdict(), ValueError, r"is a dict; convert it with jl\.params_from"),
        (Listed(gains=[1.0]), drawn(Own()), TypeError, r"dump: .*Listed must have plain data .* makes another cell"),
        (Listed(gains=len), drawn(Own()), TypeError, r"dump: .*Listed must have plain data .*not JSON serializable"),
        (Dots(), drawn(Dots()), ValueError, r"two leaves of params have the same name among a\.b; rename one"),
        (Metadata(), drawn(Metadata()), ValueError, "dump: a leaf of params must not be called __metadata__"),
        (OfModel(), drawn(Own()), TypeError, r"dump: cell OfModel must have plain data .*model must be one of Model"),
        (3, params, TypeError, "cell must be one of .*; register your own with register_cell"),
    ]
    for cell, given, error, message in refused:
        with pytest.raises(error, match=message):
            ours.dump(cell, given)


def test_an_unregistered_cell_is_told_how_to_register():
    with pytest.raises(TypeError, match="but is a Own; register your own with register_cell"):
        ours.dump(Own(), drawn(Own()))


# Writing.


@pytest.mark.parametrize("fails", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt()], ids=["disk", "stopped"])
def test_an_interrupted_write_keeps_the_old_file(fails, error, tmp_path, monkeypatch):
    old = ours.dump(LSTM, drawn(LSTM), tmp_path / "weights")

    def stop(*_):
        raise error

    monkeypatch.setattr(files.os, fails, stop)
    with pytest.raises(type(error)):
        ours.dump(LSTM, drawn(LSTM, seed=1), tmp_path / "weights")
    monkeypatch.undo()
    assert (tmp_path / "weights").read_bytes() == old
    assert os.listdir(tmp_path) == ["weights"]
    new = ours.dump(LSTM, drawn(LSTM, seed=1), tmp_path / "weights")
    assert (tmp_path / "weights").read_bytes() == new != old


def test_a_written_file_has_the_usual_rights_and_keeps_links(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "weights")
    ours.dump(LSTM, drawn(LSTM), str(tmp_path / "link"))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "weights").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_path_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(IsADirectoryError, match=f"dump: {tmp_path.name} is a directory; add the name of a file"):
        ours.dump(LSTM, drawn(LSTM), tmp_path)
    with pytest.raises(FileNotFoundError, match=r"dump: weights needs the folder .*nowhere; make it first"):
        ours.dump(LSTM, drawn(LSTM), tmp_path / "nowhere" / "weights")
    with pytest.raises(TypeError, match=r"path must be a path or None, but is 3 \(int\)"):
        ours.dump(LSTM, drawn(LSTM), 3)


def test_a_pipe_or_a_device_is_written_and_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with open(os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK), "rb") as pipe:
        data = ours.dump(LSTM, drawn(LSTM), tmp_path / "pipe")
        assert pipe.read() == data
    assert (tmp_path / "pipe").is_fifo()


# Other processes.


def test_without_the_package_both_say_how_to_install_it(monkeypatch):
    data = good()
    for name in ("safetensors", "safetensors.numpy"):
        monkeypatch.setitem(sys.modules, name, None)
    for use in (lambda: ours.load(data), lambda: ours.dump(LSTM, drawn(LSTM))):
        with pytest.raises(ImportError, match=r'safetensors is missing; .* pip install "jax_lstm\[interop\]"'):
            use()


FRESH = """
import sys

import jax_lstm as jl
from jax_lstm.interop import safetensors

assert "safetensors" not in sys.modules
cell, params = safetensors.load(sys.argv[1])
import numpy as np

_, ys = jl.batched(cell.apply)(params, np.arange(10).reshape(2, 5) % 4)
np.save(sys.argv[2], ys)
"""


@pytest.mark.slow
def test_a_fresh_process_runs_the_model_of_a_file(tmp_path):
    model = CELLS["model of symbols"]
    params = drawn(model)
    ours.dump(model, params, tmp_path / "model")
    command = [sys.executable, "-c", FRESH, str(tmp_path / "model"), str(tmp_path / "ys.npy")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    fresh = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert fresh.returncode == 0, fresh.stderr
    _, ys = jl.batched(model.apply)(jax.tree.map(jnp.asarray, params), np.arange(10).reshape(2, 5) % 4)
    np.testing.assert_allclose(np.load(tmp_path / "ys.npy"), ys, rtol=1e-6, atol=1e-6)
