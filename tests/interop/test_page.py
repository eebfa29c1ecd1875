"""The examples of docs/weights.md that need packages which may be absent; tests/test_docs.py runs the others."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"```py\n(.*?)```", (ROOT / "docs/weights.md").read_text(), re.DOTALL)
# What the shorter examples take as given.
KERAS = """
import os
os.environ["KERAS_BACKEND"] = "jax"
import jax.numpy as jnp
import jax_lstm as jl
import keras

layers = [keras.layers.LSTM(4), keras.layers.LSTM(4)]
layer = layers[0]
keras.Sequential([keras.Input((5, 3)), keras.layers.LSTM(4, name="encoder")]).save_weights("model.weights.h5")
layers[0].build((None, 5, 3))
layers[1].build((None, 5, 4))
"""
HAIKU = """
import haiku as hk
import jax
import jax.numpy as jnp
import jax_lstm as jl

def net(x):
    core = hk.LSTM(4)
    return core(x, core.initial_state(1))[0]

drawn = hk.transform(net).init(jax.random.key(0), jnp.ones((1, 4)))
haiku_params = {f"net/~/{name}": value for name, value in drawn.items()} | {"head": {"w": jnp.ones((4, 1))}}
"""
EQUINOX = """
import equinox as eqx
import jax
import jax.numpy as jnp
import jax_lstm as jl

module = eqx.nn.GRUCell(3, 4, key=jax.random.key(0))
"""


def block(word):
    (found,) = [one for one in BLOCKS if word in one]
    return found


def run(code, folder):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    environment.pop("JAX_ENABLE_X64", None)
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_every_example_is_run_here():
    assert len(BLOCKS) == 4


@pytest.mark.slow
def test_a_torch_model_is_tuned_and_leaves_as_onnx(tmp_path):
    pytest.importorskip("torch")
    program = block("torch.nn")
    assert len([line for line in program.splitlines() if line.strip()]) <= 35
    run(program, tmp_path)
    assert (tmp_path / "tuned.onnx").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("package", "given", "word"), [("keras", KERAS, "interop.keras"), ("equinox", EQUINOX, "eqx")])
def test_the_examples_of_other_libraries_run(package, given, word, tmp_path):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    run(given + block(word), tmp_path)
