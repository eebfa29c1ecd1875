"""Reading an experiment: a YAML file of plain data, then overrides from the command line.

A refusal exits with 2 before anything is written; its message names the key and what was wanted.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ActionConfigFile, ArgumentParser, Namespace

from jax_lstm.cli.configs import find_config
from jax_lstm.cli.wiring import Experiment, ModelConfig, TaskConfig
from jax_lstm.train import OptConfig, TrainConfig
from jax_lstm.train.run_dir import CONFIG, read_config


class ConfigFile(ActionConfigFile):
    """Read a config file, or a packaged config by its name."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        """Add its keys to `cfg`."""
        super().__call__(parser, cfg, str(find_config(values)), option_string)


def experiment_parser(command: str, description: str) -> ArgumentParser:
    """A parser of one config file and of every key of an experiment."""
    parser = ArgumentParser(prog=f"jax-lstm {command}", description=description)
    parser.add_argument(
        "--config",
        action=ConfigFile,
        help="a YAML file of plain data, or the name of a packaged config, such as digits.yaml; as the first argument "
        "it needs no --config",
    )
    for name, section in (("model", ModelConfig), ("task", TaskConfig), ("opt", OptConfig), ("train", TrainConfig)):
        parser.add_class_arguments(section, name)
    parser.add_argument("--run_dir", type=str, required=True, help="where the run is written")
    return parser


def parse(parser: ArgumentParser, argv: Sequence[str]) -> Namespace:
    """The values of a command line, its sections as dataclasses."""
    try:
        return parser.instantiate(parser.parse_args(list(argv)))
    except UnicodeDecodeError as error:
        parser.error(f"config: wanted a text file of YAML, but it is not text ({error})")
    except (ValueError, TypeError) as error:  # a section's own refusal
        parser.error(str(error))


def parse_experiment(parser: ArgumentParser, argv: Sequence[str]) -> tuple[Experiment, Namespace]:
    """The experiment, and the values that it was made from."""
    if argv and not argv[0].startswith("-"):
        argv = ["--config", *argv]
    values = parse(parser, argv)
    try:
        return Experiment(values.model, values.task, values.opt, values.train, values.run_dir), values
    except (ValueError, TypeError) as error:  # choices that exclude each other
        parser.error(str(error))


def experiment_of_run(parser: ArgumentParser, run_dir: Path) -> Experiment:
    """The experiment that a run's directory says it was; `parser` is the one that complains if it cannot."""
    try:
        read_config(run_dir)
    except FileNotFoundError as error:
        parser.error(f"run_dir: {error}")
    return parse_experiment(experiment_parser("train", ""), [str(run_dir / CONFIG)])[0]
