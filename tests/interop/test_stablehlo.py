"""Programs in files: each is the run of the cell that it was made of, in this process and in another one."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from problem import WRITTEN, H, I
from tiers import slow_except

import jax_lstm as jl
from jax_lstm.interop import safetensors, stablehlo
from jax_lstm.registry import CELLS as REGISTERED

ROOT = Path(__file__).parents[2]
CELLS = {name: row.cell for name, row in WRITTEN.items()} | {
    "truncated": jl.gradflow.Truncated(jl.LSTM(I, H)),
    "deep": jl.Stack((jl.Bidirectional(jl.LSTM(I, H)), jl.GRU(2 * H, 2)), dropout=0.1),
    "model": jl.Model(jl.RNN(I, H), 2),
    "model of symbols": jl.Model(jl.LSTM(I, H), 2, vocabulary=5),
}
LSTM = jl.LSTM(I, H)


def drawn(cell, dtype="float32", seed=0):
    """Params as JAX arrays, without compiling anything."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(cell.init, jax.random.key(0))
    return jax.tree.map(lambda s: jnp.asarray(0.5 * rng.normal(size=s.shape), dtype), shapes)


def data(cell, B=2, T=5, dtype="float32"):
    """xs of a batch."""
    rng = np.random.default_rng(B)
    if getattr(cell, "vocabulary", None):
        return jnp.asarray(rng.integers(0, 5, (B, T)), jnp.int32)
    return jnp.asarray(rng.normal(size=(B, T, I)), dtype)


def run(cell, params, xs, state=None):
    """The same without a program."""
    if isinstance(cell, jl.Model):
        return jl.batched(cell.apply)(params, xs, state)
    return jl.batched(jl.unroll)(cell, params, xs, state)


def assert_close(got, want, tolerance=1e-6):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(*(np.asarray(x, float) for x in (a, b)), rtol=tolerance, atol=tolerance)


@cache
def dumped(name, **options):
    return stablehlo.dump(CELLS[name], drawn(CELLS[name]), **options)


QUICK = ["LSTM", "deep", "model of symbols"]


@pytest.mark.parametrize("name", slow_except(QUICK, CELLS))
def test_a_program_equals_the_run_for_any_batch_and_length(name):
    program = stablehlo.load(dumped(name))
    for B, T in ((2, 5), (3, 1)):
        xs = data(CELLS[name], B, T)
        for seed in (0, 1):  # the weights are not in the program
            params = drawn(CELLS[name], seed=seed)
            assert_close(program(params, xs), run(CELLS[name], params, xs))


@pytest.mark.parametrize("name", slow_except(["LSTM"], [n for n in CELLS if n not in ("deep", "bidirectional")]))
def test_a_stream_of_chunks_equals_one_run(name):
    cell, params = CELLS[name], drawn(CELLS[name])
    xs, state = data(cell), jl.initial_states(cell, params, 2)
    program = stablehlo.load(dumped(name, streaming=True))
    state, first = program(params, state, xs[:, :3])
    state, second = program(params, state, xs[:, 3:])
    assert_close((state, jnp.concatenate([first, second], 1)), run(cell, params, xs))


@pytest.mark.parametrize(
    "name", slow_except(["LSTM"], ["LSTM", "deep", "model of symbols", "SLSTM", "peephole", "MinGRU"])
)
def test_a_program_with_its_gradient_can_be_trained(name):
    cell, params = CELLS[name], drawn(CELLS[name])
    xs = data(cell)

    def loss(run, params, xs):
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(run(params, xs)))

    program = stablehlo.load(dumped(name, gradient=True))
    of = 1 if jnp.issubdtype(xs.dtype, jnp.integer) else (1, 2)
    got = jax.grad(loss, of)(program, params, xs)
    want = jax.grad(loss, of)(lambda *args: run(cell, *args), params, xs)
    assert_close(got, want, tolerance=1e-5)


def test_a_program_without_its_gradient_says_so():
    program = stablehlo.load(dumped("LSTM"))
    with pytest.raises(ValueError, match="No VJP is available"):
        jax.grad(lambda xs: program(drawn(LSTM), xs)[1].sum())(data(LSTM))


def test_a_flat_program_takes_dicts_in_sorted_order():
    cell, params, xs = CELLS["deep"], drawn(CELLS["deep"]), data(CELLS["deep"])
    program = export.deserialize(bytearray(dumped("deep", flat=True)))
    weights = {
        **{f"0.{d}.{k}": a for d in ("forward", "backward") for k, a in getattr(params[0], d)._asdict().items()},
        **{f"1.{k}": a for k, a in params[1]._asdict().items()},
    }
    shapes = [weights[name].shape for name in sorted(weights)]
    (main,) = re.findall(r"@main\((.*)\) -> ", program.mlir_module())
    sizes = ["".join(f"{n}x" for n in shape) + "f32" for shape in shapes]
    assert re.findall(r"tensor<(.*?)>", main) == ["i64", *sizes, "?x?x3xf32"]  # i32 without x64
    state, ys = program.call(weights, xs)
    (both, gru), expected = run(cell, params, xs)
    assert_close(ys, expected)
    h, c = ({f"0.{d}.{leaf}": getattr(getattr(both, d), leaf) for d in ("forward", "backward")} for leaf in ("h", "c"))
    assert_close(state, h | c | {"1.h": gru.h})


def test_a_flat_stream_takes_and_returns_its_state_by_name():
    params, xs = drawn(LSTM), data(LSTM)
    program = stablehlo.load(dumped("LSTM", flat=True, streaming=True))
    zeros = {"h": jnp.zeros((2, H), "float32"), "c": jnp.zeros((2, H), "float32")}
    state, ys = program(params._asdict(), zeros, xs)
    expected, hs = run(LSTM, params, xs)
    assert_close((state, ys), (expected._asdict(), hs))


@pytest.mark.parametrize("dtype", slow_except(["bfloat16"], ["float64", "float16", "bfloat16"]))
def test_a_program_has_the_dtype_of_the_params(dtype):
    params, xs = drawn(LSTM, dtype), data(LSTM, dtype=dtype)
    state, hs = stablehlo.load(stablehlo.dump(LSTM, params))(params, xs)
    assert hs.dtype == dtype
    assert_close((state, hs), run(LSTM, params, xs), tolerance=1e-2 if hs.dtype.itemsize < 4 else 1e-12)


def test_a_program_is_for_every_platform():
    program = export.deserialize(bytearray(dumped("LSTM")))
    assert program.platforms == ("cpu", "cuda", "rocm", "tpu")


def test_a_program_does_not_depend_on_where_the_params_are():
    mesh = jax.make_mesh((8,), ("devices",))
    params = drawn(LSTM, seed=1)
    for shardings in (jax.devices()[3], jax.NamedSharding(mesh, jax.P())):
        assert stablehlo.dump(LSTM, jax.device_put(params, shardings)) == dumped("LSTM")
    by_column = params._replace(w_x=jax.device_put(params.w_x, jax.NamedSharding(mesh, jax.P(None, "devices"))))
    assert stablehlo.dump(LSTM, by_column) == dumped("LSTM")
    with jax.set_mesh(mesh):
        assert stablehlo.dump(LSTM, params) == dumped("LSTM")


def test_a_file_has_no_paths_of_this_machine_in_it():
    before = jax.config.jax_traceback_in_locations_limit  # pyrefly: ignore[missing-attribute]
    assert stablehlo.dump(LSTM, drawn(LSTM, seed=1)) == dumped("LSTM")
    assert jax.config.jax_traceback_in_locations_limit == before  # pyrefly: ignore[missing-attribute]
    for path in (str(ROOT), "jax_lstm/engines", "test_stablehlo"):
        assert path.encode() not in dumped("LSTM")


# What is refused.


class Weights(NamedTuple):
    """Not registered with `jax.export`."""

    w: Any


@dataclass(frozen=True)
class Own:
    """A cell of a user; its params have a type that `jax.export` does not know."""

    input_size: int = I
    hidden_size: int = I

    def init(self, key, dtype=jnp.float32):
        return Weights(jax.random.normal(key, (self.hidden_size,), dtype))

    def initial_state(self, params):
        return jnp.zeros(self.hidden_size, params.w.dtype)

    def step(self, params, state, x):
        return (state := jnp.tanh(params.w * state + x)), state


@dataclass(frozen=True)
class WithConstants(Own):
    takes_constants = True

    def step(self, params, state, x, *, constants):  # pyrefly: ignore[bad-override]
        return super().step(params, state + constants, x)


def test_a_cell_of_a_user_needs_known_types_or_flat():
    cell, params, xs = Own(), drawn(Own()), data(LSTM)
    with pytest.raises(TypeError, match=r"does not know \(.*Weights.*\); use flat=True, or register the type"):
        stablehlo.dump(cell, params)
    zeros = jnp.zeros((2, I), "float32")
    program = stablehlo.load(stablehlo.dump(cell, params, flat=True, streaming=True))
    expected, hs = run(cell, params, xs)
    assert_close(program({"w": params.w}, {"state": zeros}, xs), ({"state": expected}, hs))


REFUSED = {
    "constants": (WithConstants(), {}, NotImplementedError, "no constants, which WithConstants takes; export"),
    "not causal": (CELLS["deep"], {"streaming": True}, ValueError, "Stack looks at later inputs"),
    "a readout": (jl.Readout(H, 2), {}, NotImplementedError, "a Readout does not run over time; export its apply"),
    "no cell": (3, {}, TypeError, "cell must have init"),
    "a flag": (LSTM, {"flat": 1}, TypeError, "flat must be True or False, but is 1"),
    "a path": (LSTM, {"path": 3}, TypeError, r"path must be a path or None, but is 3 \(int\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_dump_refuses_in_words(name):
    cell, options, error, message = REFUSED[name]
    params = drawn(cell) if hasattr(cell, "init") else None
    with pytest.raises(error, match=f"interop.stablehlo.dump: .*{message}"):
        stablehlo.dump(cell, params, **options)


def test_params_of_another_cell_are_refused():
    with pytest.raises(ValueError, match=r"dump: params\.w_x has shape"):
        stablehlo.dump(LSTM, drawn(jl.LSTM(I + 1, H)))
    with pytest.raises(ValueError, match=r"cell Model needs"):
        stablehlo.dump(CELLS["model"], drawn(jl.RNN(I, H)))


def exported_by_hand():
    return export.export(jax.jit(jnp.sin))(jnp.ones(3)).serialize()


def flipped(data, at):
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


WRONG = {
    "empty": (lambda: b"", ValueError, "source is empty"),
    "text": (lambda: b"LSTM", ValueError, "source is no program, or only a part of one"),
    "a pickle": (lambda: b"\x80\x02}q\x00.", ValueError, "a pickle"),
    "a zip": (lambda: b"PK\x03\x04" + bytes(50), ValueError, "a zip archive"),
    "weights": (lambda: safetensors.dump(LSTM, drawn(LSTM)), ValueError, "no program, or only"),
    "another program": (exported_by_hand, ValueError, "no program, or only"),
    "truncated": (lambda: dumped("LSTM")[:-1], ValueError, "only a part of one; write it again"),
    "no beginning": (lambda: dumped("LSTM")[9:], ValueError, "is damaged, as its SHA-256 shows"),
    "only the end": (lambda: dumped("LSTM")[-20:], ValueError, "is damaged"),
    "a flipped bit": (lambda: flipped(dumped("LSTM"), 5000), ValueError, "is damaged"),
    "a flipped digest": (lambda: flipped(dumped("LSTM"), -30), ValueError, "is damaged"),
    "a directory": (lambda: ROOT, IsADirectoryError, "is a directory; pass the path of a file"),
    "no such file": (lambda: ROOT / "nothing.program", FileNotFoundError, "there is no file .*nothing"),
    "a function": (lambda: len, TypeError, "source must be a path or the bytes of a file, but is len"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_refused_in_one_sentence(name):
    make, error, message = WRONG[name]
    with pytest.raises(error, match=message) as caught:
        stablehlo.load(make())
    assert str(caught.value).startswith("interop.stablehlo.load: ")
    assert "\n" not in str(caught.value)


def test_a_program_of_another_jax_is_refused_in_words(monkeypatch, tmp_path):
    def cannot(_):
        raise ValueError("serialization version\n99")

    (tmp_path / "lstm.program").write_bytes(dumped("LSTM"))
    monkeypatch.setattr(jax.export, "deserialize", cannot)
    with pytest.raises(
        ValueError, match=r"lstm\.program cannot be read here \(serialization version 99\); import .* JAX"
    ):
        stablehlo.load(tmp_path / "lstm.program")


# Other processes.

FLAT = """
import sys

sys.modules["jax_lstm"] = None  # cannot be imported
import jax
import numpy as np
from safetensors.flax import load_file

weights, first, then, xs, ys = sys.argv[1:]
first, then = (jax.export.deserialize(bytearray(open(file, "rb").read())) for file in (first, then))
weights, xs = load_file(weights), np.load(xs)
state, a = first.call(weights, xs[:, :3])
state, b = then.call(weights, state, xs[:, 3:])
np.save(ys, np.concatenate([a, b], 1))
"""
TYPED = """
import sys

import numpy as np
from jax_lstm.interop import safetensors, stablehlo

weights, program, _, xs, ys = sys.argv[1:]
cell, params = safetensors.load(weights)
state, hs = stablehlo.load(program)(params, np.load(xs))
assert type(state[0]).__name__ == "GRUState"
np.save(ys, hs)
"""


@pytest.mark.parametrize(
    ("code", "flat"), slow_except([(FLAT, True)], [(FLAT, True), (TYPED, False)]), ids=["flat", "typed"]
)
def test_a_fresh_process_runs_the_saved_files(code, flat, tmp_path):
    cell = CELLS["stack"]
    params, xs = drawn(cell), data(cell)
    paths = [tmp_path / name for name in ("weights", "first", "then", "xs.npy", "ys.npy")]
    safetensors.dump(cell, params, paths[0])
    stablehlo.dump(cell, params, paths[1], flat=flat)
    stablehlo.dump(cell, params, paths[2], flat=flat, streaming=True)
    np.save(paths[3], xs)
    environment = os.environ | ({} if flat else {"PYTHONPATH": str(ROOT)})
    command = [sys.executable, "-c", code, *map(str, paths)]
    fresh = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert fresh.returncode == 0, fresh.stderr
    np.testing.assert_allclose(np.load(paths[4]), run(cell, params, xs)[1], rtol=1e-6, atol=1e-6)


def test_the_table_has_every_cell_of_the_library():
    own = {cls for cls in REGISTERED.values() if cls.__module__.startswith("jax_lstm.")}
    assert own | {jl.Model} == {type(cell) for cell in CELLS.values()}
