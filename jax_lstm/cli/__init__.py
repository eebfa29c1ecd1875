"""The command line, `jax-lstm`: one command per file."""

import platform
import sys
from argparse import REMAINDER, ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from importlib import import_module

import jax

import jax_lstm

COMMANDS = {
    "train": "train a network on a task, once per seed, from a config file",
    "evaluate": "score the best checkpoint of each seed on the test split",
    "predict": "write the predictions of a trained network for a file of your own as CSV",
    "sample": "generate text with a network trained on the task bytes or text",
    "runs": "list and compare the runs below a folder",
    "export": "write a trained network as ONNX, safetensors or StableHLO",
    "import": "make a run of the weights in an ONNX, safetensors or Keras file",
    "gradflow": "measure how far gradients reach, in a trained network or in a new cell",
    "experiment": "reproduce a published experiment with several seeds",
    "demo": "compare an LSTM with a tanh RNN on two tasks, in a few minutes",
}
FILES = {"import": "import_weights"}  # `import` is a keyword of Python


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the command and its arguments; None: those of the process.

    Returns:
        The exit code: 0 success, 1 training failed, 130 interrupted. A wrong argument exits with 2.
    """
    parser = ArgumentParser(
        prog="jax-lstm",
        description="Train recurrent networks and measure how far their gradients reach.",
        epilog="commands:\n" + "\n".join(f"  {name:11s} {what}" for name, what in COMMANDS.items()),
        formatter_class=RawDescriptionHelpFormatter,
    )
    version = f"jax-lstm {jax_lstm.__version__} (jax {jax.__version__}, Python {platform.python_version()})"
    parser.add_argument("--version", action="version", version=version, help="print the versions and exit")
    parser.add_argument(
        "command", choices=list(COMMANDS), help="one of the commands below; jax-lstm COMMAND --help lists its arguments"
    )
    parser.add_argument("arguments", nargs=REMAINDER, help="the arguments of the command")
    values = parser.parse_args(argv)
    try:
        command = import_module(
            f"jax_lstm.cli.{FILES.get(values.command, values.command)}"
        )  # import only the command that runs
        return command.main(values.arguments)
    except ModuleNotFoundError as error:
        package = (error.name or "jax_lstm").partition(".")[0]
        if package == "jax_lstm":
            raise
        parser.error(
            f"{values.command}: wanted the packages of the extra train, but {package} is not installed; run "
            "pip install 'jax_lstm[train]'"
        )
    except KeyboardInterrupt:
        print(f"jax-lstm {values.command}: interrupted", file=sys.stderr)
        return 130
