"""`jax-lstm import`: make a run of the weights in a file of another format."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from rich.console import Console

import jax_lstm as jl
from jax_lstm.cli.parser import add_imports, parse, take_imports
from jax_lstm.cli.trained import import_packages
from jax_lstm.interop.files import package
from jax_lstm.interop.safetensors import CONFIG
from jax_lstm.train import save

PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")


def main(argv: Sequence[str]) -> int:
    """Read the weights, and write the directory of a run that `train.load` reads."""
    parser = ArgumentParser(
        prog="jax-lstm import",
        description="Make a run directory of the weights in an .onnx, .safetensors or Keras .weights.h5 file. jax-lstm "
        "export and train.load read it; train.fit(params=...) can start from its params.",
    )
    parser.add_argument("file", type=str, help="file with the weights")
    parser.add_argument("--to", type=str, required=True, help="directory that the run is written to")
    parser.add_argument(
        "--layer",
        type=str | None,
        default=None,
        help="name of the layer to read, if the file has several: a layer of Keras, a node of ONNX, or a module of "
        "PyTorch such as encoder.rnn; null: the only one",
    )
    add_imports(parser)
    packages, argv = take_imports(parser, argv)
    values = parse(parser, argv)
    import_packages(parser, packages)
    file, run_dir = Path(values.file), Path(values.to)
    if run_dir.exists() and (not run_dir.is_dir() or any(run_dir.iterdir())):
        parser.error(f"--to: wanted a new directory, but {run_dir} is not empty; name another")
    try:
        model, params = read_weights(file, values.layer)
        save(run_dir, model, params)
    except (OSError, ValueError, TypeError, NotImplementedError, ImportError) as error:
        parser.error(str(error))
    for line in (f"Written to {run_dir}: {describe(model)}. Next:", f"  jax-lstm export {run_dir} --to FILE"):
        Console().print(line, highlight=False, markup=False, soft_wrap=True)
    return 0


def describe(model: Any) -> str:
    """The cell and the sizes of a cell or `Model`, such as "LSTM, 3 inputs, 8 hidden units, 1 output"."""
    cell = getattr(model, "cell", model)
    parts = [(cell.input_size, "input"), (cell.hidden_size, "hidden unit")]
    parts += [(model.output_size, "output")] if model is not cell else []
    return ", ".join([type(cell).__name__, *(f"{size:,} {what}{'s' * (size != 1)}" for size, what in parts)])


def read_weights(file: Path, layer: str | None = None) -> tuple[Any, Any]:
    """The cell or `Model` in a file, and its params; the suffix of the file tells its format.

    Args:
        file: the file.
        layer: the name of a layer, node or module of another library; None: the only one.

    Raises:
        ValueError: the suffix is another, or the file is damaged or does not fit.
        OSError: there is no such file.
    """
    match file.suffix.lower():
        case ".onnx":
            return jl.interop.onnx.load(file, layer)
        case ".safetensors":
            return _of_safetensors(file, layer)
        case ".h5" | ".hdf5":
            return jl.interop.keras.load(file, layer)
        case suffix if suffix in PICKLES:
            raise ValueError(
                f"file: wanted an .onnx, .safetensors or .h5 file, but {file} is a pickle, which can run code; in "
                "Python, write train.save(RUN, *jl.interop.torch.load(torch.load(FILE, weights_only=True)))"
            )
    raise ValueError(f"file: wanted an .onnx, .safetensors or .h5 file, but got {file}; export it to one of them")


def _of_safetensors(file: Path, layer: str | None) -> tuple[Any, Any]:
    """What `interop.safetensors.dump` wrote; in a file without the config of a cell, the weights of a PyTorch layer."""
    safetensors = package("import", "safetensors")
    try:
        with safetensors.safe_open(file, "numpy") as opened:
            if CONFIG not in (opened.metadata() or {}):
                weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
                return jl.interop.torch.load(weights, f"{layer}." if layer else "")
    except (OSError, safetensors.SafetensorError):
        pass  # the next line says what is wrong
    if layer is not None:
        raise ValueError(f"--layer: wanted a file of another library, but {file} has one network; leave --layer out")
    return jl.interop.safetensors.load(file)
