"""`jax-lstm sample`: generate text with a model trained on the task bytes or text."""

import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from jsonargparse import ArgumentParser

import jax_lstm as jl
from jax_lstm.cli.parser import add_imports, parse, take_imports
from jax_lstm.cli.trained import read_trained

BYTES = 256


def main(argv: Sequence[str]) -> int:
    """Sample bytes after a prompt, in one compiled scan; print the prompt and the sample."""
    parser = ArgumentParser(
        prog="jax-lstm sample",
        description="Generate text with the best checkpoint of the best seed of a run of task bytes or text. Prints "
        "the prompt and the sampled bytes as text.",
    )
    parser.add_argument("run_dir", type=str, help="directory of a run of task bytes or text")
    parser.add_argument("--prompt", type=str, default="def ", help="text to continue, at least one byte")
    parser.add_argument("--length", type=int, default=600, help="number of bytes to sample")
    parser.add_argument(
        "--temperature",
        type=float,
        default=0.8,
        help="softmax temperature: lower is less random; 0 always takes the most likely byte",
    )
    parser.add_argument(
        "--top_p",
        type=float,
        default=0.95,
        help="sample among the most likely bytes with this total probability; 1: among all",
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed of the sample")
    add_imports(parser)
    packages, argv = take_imports(parser, argv)
    values = parse(parser, argv)
    prompt = np.frombuffer(values.prompt.encode(), np.uint8).astype(np.int32)
    if not len(prompt):
        parser.error("--prompt: wanted at least one byte, but got none; give some text")
    if not 0 <= values.seed < 2**32:
        parser.error(f"--seed: wanted a number from 0 to 2³² − 1, but got {values.seed}")
    run_dir = Path(values.run_dir)
    run, task = read_trained(parser, run_dir, packages)
    if getattr(run.model, "vocabulary", None) != BYTES or run.model.output_size != BYTES:
        of = "an imported network" if task is None else f"a run of another task, {type(task).__name__}"
        parser.error(
            f"run_dir: wanted a run of task bytes or text, but {run_dir} is {of}; train configs/bytes.yaml first"
        )
    try:
        _, symbols = jl.sample(
            run.model,
            run.params,
            jax.random.key(values.seed),
            prompt,
            steps=values.length,
            temperature=values.temperature,
            top_p=values.top_p,
        )
    except ValueError as error:
        parser.error(str(error))
    sys.stdout.write(values.prompt + np.asarray(symbols, np.uint8).tobytes().decode("utf-8", "replace") + "\n")
    return 0
