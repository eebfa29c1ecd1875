"""Read an experiment from a YAML file of plain data and from the command line, which overrides the file.

The classes of the cell and the task are found first, because their options are arguments too. Then one parser reads
everything. A wrong value exits with code 2 before anything is written. The message names the key and what was wanted.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ActionConfigFile, ArgumentParser, Namespace

from jax_lstm.cli import imports
from jax_lstm.cli.build import Experiment, ModelConfig
from jax_lstm.cli.choice import CELL, TASK, Choice, options_key, options_of
from jax_lstm.cli.choose import choose
from jax_lstm.train import OptConfig, TrainConfig
from jax_lstm.train.run_dir import CONFIG, read_config

CHOICES = {"model.cell": CELL, "task": TASK}
SECTIONS = ("model", "task", *TASK.sections, "opt", "train")


def experiment_parser(command: str, description: str) -> ArgumentParser:
    """A parser for --config and every key of an experiment; `parse_experiment` adds the options of the classes."""
    usage = f"jax-lstm {command} [CONFIG] [--KEY VALUE ...]"
    parser = ArgumentParser(prog=f"jax-lstm {command}", usage=usage, description=description, print_config=None)
    parser.add_argument(
        "--config",
        action=ActionConfigFile,
        help="config file in YAML, or the name of a packaged config such as digits.yaml; as the first argument it "
        "needs no --config",
    )
    add_sections(parser, {"model": ModelConfig, "opt": OptConfig, "train": TrainConfig}, skip={"cell"})
    parser.add_argument("--run_dir", type=str, required=True, help="directory that the run is written to")
    add_imports(parser)
    return parser


def add_sections(parser: ArgumentParser, sections: dict[str, type], skip: set[str]) -> None:
    """Add one group of arguments per section, such as opt: OptConfig, without the parameters in `skip`."""
    for name, section in sections.items():
        group: Any = parser.add_argument_group((section.__doc__ or name).partition("\n")[0].rstrip("."))
        group.add_class_arguments(section, name, as_group=False, skip=skip)


def add_imports(parser: Any) -> None:
    """Add --imports to the help; `take_imports` reads it."""
    parser.add_argument(imports.FLAG, type=str, metavar="PACKAGES", help=imports.HELP)


def take_imports(parser: Any, argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The packages that --imports lists, and the other arguments; on an error exit with code 2."""
    packages, rest = [], []
    try:
        packages, rest = imports.take_imports(argv)
    except ValueError as error:
        parser.error(str(error))
    return packages, rest


def parse(parser: ArgumentParser, argv: Sequence[str]) -> Namespace:
    """Parse a command line; on an error exit with code 2."""
    try:
        return parser.parse_args(list(argv))
    except (ValueError, TypeError) as error:
        parser.error(str(error))


def parse_experiment(
    parser: ArgumentParser, argv: Sequence[str], packages: Sequence[str] = ()
) -> tuple[Experiment, Namespace]:
    """Parse a command line, whose first argument can be a config file; on an error exit with code 2.

    Args:
        parser: what `experiment_parser` returned.
        argv: the arguments.
        packages: packages that a config may import, besides those that argv lists with --imports.

    Returns:
        The experiment, and all parsed values.
    """
    if argv and not argv[0].startswith("-"):
        argv = ["--config", *argv]
    listed, argv = take_imports(parser, argv)
    try:
        names, argv = choose(parser, argv, CHOICES, [*packages, *listed], SECTIONS)
        values = parse(parser, argv)
        for key in CHOICES:
            if names[key] is None:
                raise ValueError(f"{key}: wanted a name, but got none; give --{key} NAME, or a config")
        places = {key: options_key(kind, key, names[key] or "") for key, kind in CHOICES.items()}
        cell, task = (Choice(names[key] or "", options_of(parser, values, place)) for key, place in places.items())
        model = {name: value for name, value in vars(values.model).items() if name != "cell"}
        experiment = Experiment(
            ModelConfig(cell, **model),
            task,
            OptConfig(**vars(values.opt)),
            TrainConfig(**vars(values.train)),
            values.run_dir,
        )
    except (ValueError, TypeError, OSError) as error:
        parser.error(str(error))
    return experiment, values


def check_run_of_task(run_dir: Path) -> None:
    """Check that a directory is that of a run of a task.

    Raises:
        FileNotFoundError: it has no config.
        ValueError: it is a run of gradient flossing.
    """
    data = read_config(run_dir)
    if isinstance(data, dict) and "flossing" in data:
        raise ValueError(
            f"wanted a run of a task, but {run_dir} is a run of gradient flossing, which jax-lstm experiment flossing "
            "trains and scores"
        )


def experiment_of_run(parser: ArgumentParser, run_dir: Path, packages: Sequence[str] = ()) -> Experiment:
    """Read the experiment of a run from the config in its directory; on an error exit with code 2."""
    try:
        check_run_of_task(run_dir)
    except (FileNotFoundError, ValueError) as error:
        parser.error(f"run_dir: {error}")
    reader = experiment_parser("train", "")
    return parse_experiment(reader, ["--config", str(run_dir / CONFIG)], packages)[0]
