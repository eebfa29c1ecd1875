"""`jax-lstm export`: write the network of a run in another format."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from rich.console import Console

import jax_lstm as jl
from jax_lstm.cli.parser import add_imports, parse, take_imports
from jax_lstm.cli.trained import read_trained, seed_of

SUFFIXES = (".onnx", ".safetensors", ".stablehlo")


def main(argv: Sequence[str]) -> int:
    """Write one file, whose suffix tells the format."""
    parser = ArgumentParser(
        prog="jax-lstm export",
        description="Write the network of a run for other programs. .onnx: a model with weights, for onnxruntime. "
        ".safetensors: the weights by name. .stablehlo: a program of jax.export, which takes the weights as arguments.",
    )
    parser.add_argument("run_dir", type=str, help="directory of a run, made by jax-lstm train or jax-lstm import")
    parser.add_argument("--to", type=str, required=True, help=f"file to write: {', '.join(SUFFIXES)}")
    parser.add_argument("--seed", type=int | None, default=None, help="seed to write; null: that with the best score")
    parser.add_argument("--last", action="store_true", help="write the params of the last step, not the best")
    parser.add_argument("--streaming", action="store_true", help="also take and return the state, to run step by step")
    add_imports(parser)
    packages, argv = take_imports(parser, argv)
    values = parse(parser, argv)
    file = Path(values.to)
    if file.suffix not in SUFFIXES:
        parser.error(f"--to: wanted a file that ends in {' or '.join(SUFFIXES)}, but got {file}; name it so")
    if values.streaming and file.suffix == ".safetensors":
        parser.error("--streaming: wanted .onnx or .stablehlo, because .safetensors has weights only; leave it out")
    run = read_trained(parser, Path(values.run_dir), packages).run
    seed = seed_of(parser, run, values.seed)
    try:
        write(run.model, run.of_seed(seed, "last" if values.last else "best"), file, values.streaming)
    except (OSError, ValueError, TypeError, NotImplementedError, ImportError) as error:
        parser.error(str(error))
    step = run.step if values.last else int(run.best.step[run.seeds.index(seed)])
    notes = [f"Written to {file}" + (f": seed {seed}, step {step}." if step else ".")]
    if run.scaling is not None:
        notes.append(f"It takes and returns scaled numbers; {values.run_dir}/model.json has means and scales.")
    if file.suffix == ".stablehlo":
        notes.append("It takes the weights as arguments: export them with --to NAME.safetensors.")
    console = Console()
    for note in notes:
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    return 0


def write(model: Any, params: Any, file: Path, streaming: bool) -> None:
    """Write a cell or `Model` with its params into a file."""
    match file.suffix:
        case ".onnx":
            jl.interop.onnx.dump(model, params, file, streaming=streaming)
        case ".safetensors":
            jl.interop.safetensors.dump(model, params, file)
        case ".stablehlo":
            jl.interop.stablehlo.dump(model, params, file, streaming=streaming)
