"""The LSTM that the demo trains leaves as ONNX, safetensors and StableHLO, and comes back."""

from argparse import ArgumentParser
from pathlib import Path

import jax
import numpy as np
import onnxruntime
import pytest

import jax_lstm as jl
from jax_lstm.cli import main
from jax_lstm.cli.build import build_model, restore
from jax_lstm.cli.parser import experiment_of_run

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.slow
@pytest.mark.parametrize("task", ["digits", "adding"])
def test_the_lstm_of_the_demo_leaves_and_comes_back(task, tmp_path):
    run = tmp_path / "run"
    options = ["--train.steps", "3", "--opt.warmup_steps", "1", "--run_dir", str(run)]
    assert main(["train", str(CONFIGS / f"{task}.yaml"), *options]) == 0
    experiment = experiment_of_run(ArgumentParser(), run, [])
    model = build_model(experiment, experiment.build_task()).net
    params = jax.tree.map(lambda a: a[0], restore(experiment, run).best.params)
    xs = np.asarray(experiment.build_task().validation().xs[:4], np.float32)
    _, expected = jl.batched(model.apply)(params, xs)

    jl.interop.safetensors.dump(model, params, tmp_path / "model.safetensors")
    jl.interop.onnx.dump(model, params, tmp_path / "model.onnx")
    for format, name in ((jl.interop.safetensors, "model.safetensors"), (jl.interop.onnx, "model.onnx")):
        again, back = format.load(tmp_path / name)
        assert again == model
        assert all(a.tobytes() == b.tobytes() for a, b in zip(*map(jax.tree.leaves, (back, params)), strict=True))
    assert main(["export", str(run), "--seed", "0", "--to", str(tmp_path / "by_command.onnx")]) == 0
    assert (tmp_path / "by_command.onnx").read_bytes() == (tmp_path / "model.onnx").read_bytes()
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (ys,) = session.run(["ys"], {"xs": xs})
    np.testing.assert_allclose(np.asarray(ys), expected, rtol=0, atol=1e-5)

    jl.interop.stablehlo.dump(model, params, tmp_path / "model.program")
    _, ys = jl.interop.stablehlo.load(tmp_path / "model.program")(params, xs)
    np.testing.assert_allclose(ys, expected, rtol=0, atol=1e-6)
