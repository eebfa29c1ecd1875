"""`jax-lstm`: one command a file."""

import platform
import sys
from argparse import REMAINDER, ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from importlib import import_module

import jax

import jax_lstm

COMMANDS = {
    "train": "train one experiment, all its seeds",
    "evaluate": "score the best checkpoints of a run on the test split",
    "sample": "let a run of task bytes write",
    "gradflow": "measure how far gradients reach, in a run or in a fresh cell",
    "experiment": "do a published experiment again, several seeds",
    "demo": "LSTM against tanh RNN on digits and on adding, in a few minutes",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code: 0 done, 1 failed, 2 refused, 130 interrupted."""
    parser = ArgumentParser(
        prog="jax-lstm",
        description="Recurrent cells trained and measured.",
        epilog="\n".join(f"{name:11s} {what}" for name, what in COMMANDS.items()),
        formatter_class=RawDescriptionHelpFormatter,
    )
    version = f"jax-lstm {jax_lstm.__version__} (jax {jax.__version__}, Python {platform.python_version()})"
    parser.add_argument("--version", action="version", version=version, help="print the versions and leave")
    parser.add_argument("command", choices=list(COMMANDS), help="jax-lstm COMMAND --help says more")
    parser.add_argument("arguments", nargs=REMAINDER, help="what the command takes")
    values = parser.parse_args(argv)
    try:
        command = import_module(f"jax_lstm.cli.{values.command}")  # only the one that runs pays for its imports
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
