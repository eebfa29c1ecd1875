"""`jax-lstm export` and `import`: a trained network leaves in three formats, and weights come in."""

from functools import partial
from pathlib import Path

import h5py
import jax
import numpy as np
import onnxruntime
import pytest
from safetensors.numpy import save_file

import jax_lstm as jl
from jax_lstm.cli import main
from jax_lstm.train import load

TINY = ["--model.cell", "LSTM", "--model.hidden_size", "3", "--task", "adding", "--task.length", "4"]
TINY += ["--train.steps", "2", "--train.batch_size", "2", "--train.seeds", "[0, 5]", "--train.devices", "1"]
TINY += ["--train.eval_every", "1", "--train.log_every", "1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the run `run` of two seeds."""
    folder = tmp_path_factory.mktemp("export")
    assert main(["train", *TINY, "--run_dir", str(folder / "run")]) == 0
    return folder


@pytest.fixture
def here(folder, monkeypatch):
    """The folder of the run as the working directory."""
    monkeypatch.chdir(folder)
    return folder


def same(tree, other):
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True)
    equal = all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs)
    return equal and jax.tree.structure(tree) == jax.tree.structure(other)


def refused(capsys, *argv):
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    with pytest.raises(SystemExit) as left:
        main([*argv])
    out, err = capsys.readouterr()
    assert left.value.code == 2
    assert "Traceback" not in out + err
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before
    return " ".join(err.split("error:")[-1].split())


def test_onnxruntime_runs_an_exported_network(here, capsys):
    assert main(["export", "run", "--to", "model.onnx"]) == 0
    assert "Written to model.onnx: seed" in capsys.readouterr().out
    run = load("run")
    xs = np.random.default_rng(0).normal(size=(2, 5, 2)).astype(np.float32)
    (ys,) = onnxruntime.InferenceSession("model.onnx").run(["ys"], {"xs": xs})
    np.testing.assert_allclose(np.asarray(ys)[:, -1], run.predict(xs), rtol=0, atol=1e-5)


@pytest.mark.parametrize("flags", [[], ["--seed", "5"], ["--seed", "0", "--last"]], ids=" ".join)
def test_safetensors_have_the_params_that_were_chosen(here, flags):
    assert main(["export", "run", "--to", "model.safetensors", *flags]) == 0
    run = load("run")
    model, params = jl.interop.safetensors.load("model.safetensors")
    assert model == run.model
    wanted = run.of_seed(int(flags[1]), "last" if "--last" in flags else "best") if flags else run.params
    assert same(params, wanted)
    assert not same(run.of_seed(0), run.of_seed(5))


def test_a_stablehlo_program_carries_its_state(here, capsys):
    assert main(["export", "run", "--to", "model.stablehlo", "--streaming"]) == 0
    assert "It takes the weights as arguments" in capsys.readouterr().out
    run, program = load("run"), jl.interop.stablehlo.load("model.stablehlo")
    xs = np.ones((2, 3, 2), np.float32)
    state, _ = program(run.params, jl.initial_states(run.model, run.params, 2), xs)
    _, ys = program(run.params, state, xs)
    np.testing.assert_allclose(ys[:, -1], run.predict(np.ones((2, 6, 2), np.float32)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("file", ["model.safetensors", "model.onnx"])
def test_an_imported_network_is_a_run_that_can_be_exported(here, file, tmp_path, capsys):
    assert main(["export", "run", "--to", str(tmp_path / file)]) == 0
    assert main(["import", str(tmp_path / file), "--to", str(tmp_path / "imported")]) == 0
    assert "LSTM, 2 inputs, 3 hidden units, 1 output" in capsys.readouterr().out
    run, imported = load("run"), load(tmp_path / "imported")
    assert (imported.model, imported.seeds, imported.metric) == (run.model, (0,), None)
    assert same(imported.params, run.params)
    assert main(["export", str(tmp_path / "imported"), "--to", str(tmp_path / f"again-{file}")]) == 0
    assert (tmp_path / f"again-{file}").read_bytes() == (tmp_path / file).read_bytes()
    assert main(["runs", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[1:] == ["LSTM", "imported"]


RNG = np.random.default_rng(0)
GRU = {"weight_ih_l0": (12, 2), "weight_hh_l0": (12, 4), "bias_ih_l0": (12,), "bias_hh_l0": (12,)}
TORCH = {name: RNG.normal(size=shape).astype(np.float32) for name, shape in GRU.items()}
KERAS = [RNG.normal(size=shape).astype(np.float32) for shape in ((2, 12), (3, 12), (12,))]


def write_torch(path, prefix=""):
    weights = {prefix + name: array for name, array in TORCH.items()}
    save_file(weights | {"head.weight": TORCH["bias_ih_l0"]} if prefix else weights, path, {"format": "pt"})


def write_keras(path, names=("lstm",)):
    with h5py.File(path, "w") as file:
        for name in names:
            for k, array in enumerate(KERAS):
                file[f"layers/{name}/cell/vars/{k}"] = array


@pytest.mark.parametrize(
    ("write", "name", "flags"),
    [
        (write_torch, "layer.safetensors", []),
        (partial(write_torch, prefix="encoder.rnn."), "layer.safetensors", ["--layer", "encoder.rnn"]),
        (write_keras, "layer.weights.h5", []),
        (partial(write_keras, names=("lstm", "lstm_1")), "layer.weights.h5", ["--layer", "layers/lstm_1"]),
    ],
    ids=["PyTorch", "a module of PyTorch", "Keras", "a layer of Keras"],
)
def test_layers_of_other_libraries_are_imported(write, name, flags, tmp_path):
    write(tmp_path / name)
    assert main(["import", str(tmp_path / name), "--to", str(tmp_path / "run"), *flags]) == 0
    of_torch = name.endswith("safetensors")
    cell, params = jl.interop.torch.load(TORCH) if of_torch else jl.interop.keras.load(KERAS)
    assert load(tmp_path / "run").model == cell == (jl.GRU(2, 4) if of_torch else jl.LSTM(2, 3))
    assert same(load(tmp_path / "run").params, params)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["export", "run"], "to"),
        (["export", "run", "--to", "model.pt"], "--to: wanted a file that ends in .onnx or .safetensors or .stablehlo"),
        (["export", "run", "--to", "m.onnx", "--seed", "7"], "--seed: wanted one of 0, 5, but got 7"),
        (["export", "run", "--to", "m.safetensors", "--streaming"], "--streaming: wanted .onnx or .stablehlo"),
        (["export", "run", "--to", "no/folder/m.onnx"], "m.onnx needs the folder"),
        (["export", "empty", "--to", "m.onnx"], "run_dir: wanted the directory of a run, but empty has no"),
        (
            ["export", "run", "--to", "m.onnx", "--imports", "no_lab"],
            "--imports: wanted a package that can be",
        ),
        (["import", "w.onnx"], "to"),
        (["import", "none.onnx", "--to", "new"], "there is no file none.onnx"),
        (["import", "w.pt", "--to", "new"], "w.pt is a pickle, which can run code; in Python, write train.save("),
        (["import", "w.txt", "--to", "new"], "file: wanted an .onnx, .safetensors or .h5 file, but got w.txt"),
        (["import", "w.safetensors", "--to", "new"], "w.safetensors is"),
        (["import", "two.h5", "--to", "new"], "layer must name one or more layers of the file"),
        (["import", "own.safetensors", "--to", "new", "--layer", "rnn"], "--layer: wanted a file of another library"),
        (["import", "w.onnx", "--to", "run"], "--to: wanted a new directory, but run is not empty"),
    ],
    ids=" ".join,
)
def test_wrong_arguments_are_refused_in_one_sentence(here, capsys, argv, says):
    Path("empty").mkdir(exist_ok=True)
    for name in ("w.onnx", "w.pt", "w.txt", "w.safetensors"):
        Path(name).write_bytes(b"weights")
    write_keras("two.h5", ("lstm", "lstm_1"))
    jl.interop.safetensors.dump(*jl.interop.keras.load(KERAS), "own.safetensors")
    assert says in refused(capsys, *argv)
    assert not Path("new").exists()


def test_a_cell_of_ones_own_is_exported_with_imports(here, tmp_path, monkeypatch, capsys):
    lab = """
from dataclasses import dataclass
import jax_lstm as jl

@dataclass(frozen=True)
class Mine(jl.RNN):
    pass
"""
    (tmp_path / "mine_lab.py").write_text(lab, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["train", *TINY, "--model.cell", "mine_lab.Mine", "--run_dir", "mine"]) == 0
    capsys.readouterr()
    assert "--imports mine_lab" in refused(capsys, "export", "mine", "--to", "m.stablehlo")
    assert main(["export", "mine", "--to", "m.stablehlo", "--imports", "mine_lab"]) == 0
    assert Path("m.stablehlo").exists()
