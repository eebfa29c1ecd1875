"""Read an experiment from a YAML file of plain data and from the command line, which overrides the file.

The classes of the cell and the task are found first, because their options are arguments too. Then one parser reads
everything. A wrong value exits with code 2 before anything is written. The message names the key and what was wanted.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from jsonargparse import ActionConfigFile, ArgumentParser, Namespace, get_loader

from jax_lstm.checks import shown
from jax_lstm.cli import imports
from jax_lstm.cli.build import Experiment, ModelConfig
from jax_lstm.cli.choice import CELL, TASK, Choice, Kind, add_options, find, nested, options_of, show_options
from jax_lstm.cli.configs import find_config
from jax_lstm.train import OptConfig, TrainConfig
from jax_lstm.train.run_dir import CONFIG, read_config

CHOICES = {"model.cell": CELL, "task": TASK}
SECTIONS = ("model", "task", "opt", "train")


class Source(NamedTuple):
    """A choice in a config or on the command line: the name, and the options given with it in a mapping."""

    name: str
    options: dict[str, Any]


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
        cell, task = (Choice(names[key] or "", options_of(parser, values, key)) for key in CHOICES)
        model = {name: value for name, value in vars(values.model).items() if name != "cell"}
        experiment = Experiment(
            ModelConfig(cell, **model),
            task,
            OptConfig(**vars(values.opt)),
            TrainConfig(**vars(values.train)),
            values.run_dir,
        )
    except (ValueError, TypeError) as error:
        parser.error(str(error))
    return experiment, values


def choose(
    parser: ArgumentParser,
    argv: Sequence[str],
    kinds: dict[str, Kind],
    packages: Sequence[str] = (),
    sections: Sequence[str] = (),
) -> tuple[dict[str, str | None], list[str]]:
    """Find the classes that configs and arguments choose, and add their options to the parser.

    The last choice of a key counts. If it names another class, the options that a config gave before it are dropped.
    --KEY.help prints the options and exits.

    Args:
        parser: the parser that gets the options.
        argv: the arguments.
        kinds: the kind of each key, such as {"task": TASK}.
        packages: packages that a config may import.
        sections: the sections that a config may have; if empty, --config is left to the parser.

    Returns:
        The chosen name of each key, None if there is none; and the other arguments, with every config as YAML text.

    Raises:
        ValueError: a file or a class is not found or is refused; the message names the key.
    """
    chosen: dict[str, Source | None] = dict.fromkeys(kinds)
    rest: list[str | tuple[str, Source]] = []  # arguments, and the choices of files and mappings, in order
    tokens = iter(_split(argv, [*(f"--{key}{end}" for key in kinds for end in ("", ".help")), "--config"]))
    for token in tokens:
        key = token[2:] if token.startswith("--") else ""
        if key in kinds:
            value = _value_of(token, tokens)
            source = chosen[key] = _source(kinds[key], key, _mapping(value) or value)
            rest.append((key, source))
        elif key.removesuffix(".help") in kinds and key.endswith(".help"):
            key = key.removesuffix(".help")
            show_options(kinds[key], key, next((t for t in tokens if not t.startswith("-")), None))
            parser.exit()
        elif key == "config" and sections:
            data = read_file(_value_of(token, tokens), packages, tuple(kinds), sections)
            for key in kinds:
                if (value := _pop(data, key)) is not None:
                    source = chosen[key] = _source(kinds[key], key, value)
                    rest.append((key, source))
            rest += ["--config", yaml.safe_dump(data)]
        else:
            rest.append(token)
    for key, kind in kinds.items():
        source = chosen[key]
        add_options(parser, kind, key, None if source is None else source.name)
    arguments = []
    for item in rest:
        if isinstance(item, str):
            arguments.append(item)
            continue
        key, source = item
        last = chosen[key]
        if last is not None and source.options and source.name == last.name:
            arguments += ["--config", yaml.safe_dump(nested(key, source.options))]
    return {key: None if source is None else source.name for key, source in chosen.items()}, arguments


def read_file(name: str, packages: Sequence[str], keys: Sequence[str], sections: Sequence[str]) -> dict[str, Any]:
    """Read a config file as plain data, and check its sections and what it would import.

    `name` is the path of a file or the name of a packaged config; `keys` are the keys of choices, such as "model.cell".

    Raises:
        ValueError: there is no such file, it is not a config, or it would import another package.
    """
    path = find_config(name)
    load: Callable[[str], Any] = get_loader("yaml")
    try:
        data = load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"config: wanted a YAML file, but {path} is not text ({error}); name another file") from error
    except IsADirectoryError as error:
        raise ValueError(f"config: wanted a file, but {path} is not a file; name a file in it") from error
    except yaml.YAMLError as error:
        raise ValueError(f"config: wanted YAML, but {path} is not ({' '.join(str(error).split())})") from error
    if not isinstance(data, dict):
        raise ValueError(f"config: wanted the sections {', '.join(sections)}, but {path} has none; name another file")
    for key in data:
        if key not in (*sections, "run_dir"):
            raise ValueError(f"{key}: wanted one of the keys {', '.join(sections)} and run_dir, but {path} has {key}")
    for name in set(sections) & set(data) - set(keys):
        if not isinstance(data[name], dict):
            raise ValueError(f"{name}: wanted the options of this section, but {path} has {shown(data[name])}")
        if dotted := [key for key in data[name] if "." in str(key)]:  # it would not be seen by check_imports
            raise ValueError(f"{name}.{dotted[0]}: wanted nested mappings, but {path} has a key with a point")
    for key in keys:
        imports.check_imports(f"{key}: {path}", _get(data, key), packages)
    return data


def _get(data: dict[str, Any], key: str) -> Any:
    """The value at a dotted key of a config; None if it is absent."""
    section, _, name = key.partition(".")
    return data.get(section, {}).get(name) if name else data.get(section)


def _pop(data: dict[str, Any], key: str) -> Any:
    """Remove a dotted key from a config and return its value; None if it is absent."""
    section, _, name = key.partition(".")
    return data.get(section, {}).pop(name, None) if name else data.pop(section, None)


def _source(kind: Kind, key: str, value: Any) -> Source:
    """A choice in a config or on the command line: a name, or {class_path: NAME, init_args: {...}}."""
    if isinstance(value, str):
        return Source(find(kind, key, value)[0], {})
    parts = set(value) if isinstance(value, dict) else set()
    if "class_path" not in parts or not parts <= {"class_path", "init_args"}:
        raise ValueError(f"{key}: wanted a name, or {{class_path: NAME, init_args: {{...}}}}, but got {shown(value)}")
    name, options = value["class_path"], value.get("init_args") or {}
    if not isinstance(name, str) or not isinstance(options, dict):
        raise ValueError(f"{key}: wanted a name as class_path and a mapping as init_args, but got {shown(value)}")
    return Source(find(kind, key, name)[0], options)


def _mapping(text: str) -> dict[str, Any] | None:
    """A mapping that is written on the command line, such as "{class_path: LSTM}"; None for anything else."""
    load: Callable[[str], Any] = get_loader("yaml")
    try:
        loaded = load(text) if text.startswith("{") else None
    except yaml.YAMLError:
        return None
    return loaded if isinstance(loaded, dict) else None


def _split(argv: Sequence[str], flags: Sequence[str]) -> list[str]:
    """The arguments, with each FLAG=VALUE split in two if FLAG is one of `flags`."""
    return [
        part
        for token in argv
        for part in (token.split("=", 1) if token.partition("=")[0] in flags and "=" in token else [token])
    ]


def _value_of(token: str, tokens: Any) -> str:
    value = next(tokens, None)
    if value is None:
        raise ValueError(f"{token.removeprefix('--')}: wanted a value after {token}, but got none")
    return value


def experiment_of_run(parser: ArgumentParser, run_dir: Path, packages: Sequence[str] = ()) -> Experiment:
    """Read the experiment of a run from the config in its directory; on an error exit with code 2."""
    try:
        data = read_config(run_dir)
    except FileNotFoundError as error:
        parser.error(f"run_dir: {error}")
    if isinstance(data, dict) and "flossing" in data:
        parser.error(
            f"run_dir: wanted a run of a task, but {run_dir} is a run of gradient flossing, which jax-lstm experiment "
            "flossing trains and scores"
        )
    reader = experiment_parser("train", "")
    return parse_experiment(reader, ["--config", str(run_dir / CONFIG)], packages)[0]
