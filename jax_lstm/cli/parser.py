"""Read an experiment: a YAML file of plain data, then overrides from the command line.

A wrong value exits with code 2 before anything is written. The message names the key and says what was wanted.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ActionConfigFile, ArgumentParser, Namespace

from jax_lstm.cli.configs import find_config
from jax_lstm.cli.build import Experiment, ModelConfig, TaskConfig
from jax_lstm.train import OptConfig, TrainConfig
from jax_lstm.train.run_dir import CONFIG, read_config


class ConfigFile(ActionConfigFile):
    """Read a config file, or a packaged config by its name."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        """Add its keys to `cfg`."""
        super().__call__(parser, cfg, str(find_config(values)), option_string)


def experiment_parser(command: str, description: str) -> ArgumentParser:
    """A parser for one config file and every key of an experiment."""
    parser = ArgumentParser(prog=f"jax-lstm {command}", description=description)
    parser.add_argument(
        "--config",
        action=ConfigFile,
        help="config file in YAML, or the name of a packaged config such as digits.yaml; as the first argument it "
        "needs no --config",
    )
    for name, section in (("model", ModelConfig), ("task", TaskConfig), ("opt", OptConfig), ("train", TrainConfig)):
        parser.add_class_arguments(section, name)
    parser.add_argument("--run_dir", type=str, required=True, help="directory that the run is written to")
    return parser


def parse(parser: ArgumentParser, argv: Sequence[str]) -> Namespace:
    """Parse a command line; its sections (model, task, opt, train) become dataclasses."""
    try:
        return parser.instantiate(parser.parse_args(list(argv)))
    except UnicodeDecodeError as error:
        parser.error(f"config: wanted a YAML file, but it is not text ({error}); name another file")
    except (ValueError, TypeError) as error:  # raised by a section
        parser.error(str(error))


def parse_experiment(parser: ArgumentParser, argv: Sequence[str]) -> tuple[Experiment, Namespace]:
    """Parse a command line, whose first argument can be a config file: the experiment, and all parsed values."""
    if argv and not argv[0].startswith("-"):
        argv = ["--config", *argv]
    values = parse(parser, argv)
    try:
        return Experiment(values.model, values.task, values.opt, values.train, values.run_dir), values
    except (ValueError, TypeError) as error:  # options that contradict each other
        parser.error(str(error))


def experiment_of_run(parser: ArgumentParser, run_dir: Path) -> Experiment:
    """Read the experiment of a run from its directory; errors are reported by `parser`."""
    try:
        read_config(run_dir)
    except FileNotFoundError as error:
        parser.error(f"run_dir: {error}")
    return parse_experiment(experiment_parser("train", ""), [str(run_dir / CONFIG)])[0]
