"""Find the classes that configs and arguments choose, before the parser reads their options.

The options of a class are below the key of the choice, such as --task.length. A task that reads the user's files names
a section of its own, `section = "data"`: then they are --data.KEY, and below `data` in a config:

    task: series
    data: {path: flows.csv, targets: flow}
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import yaml
from jsonargparse import ArgumentParser, get_loader

from jax_lstm.checks import shown
from jax_lstm.cli import imports
from jax_lstm.cli.choice import Choice, Kind, add_options, find, is_own, names, nested, options_key, show_options
from jax_lstm.cli.configs import find_config


class Source(NamedTuple):
    """A choice in a config or on the command line: the name, and the options given with it in a mapping."""

    name: str
    options: dict[str, Any]


class Options(NamedTuple):
    """The options that a config has in a section of their own, and the class that was chosen when they were given."""

    section: str
    values: dict[str, Any]
    file: str
    name: str | None


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
    rest: list[str | tuple[str, Source] | Options] = []  # arguments, and the options of files and mappings, in order
    helped: tuple[str, str | None] | None = None
    own = {section: key for key, kind in kinds.items() for section in kind.sections}
    keys = (*kinds, *own)
    tokens = iter(_split(argv, [*(f"--{key}" for key in kinds), *(f"--{key}.help" for key in keys), "--config"]))
    for token in tokens:
        key = token[2:] if token.startswith("--") else ""
        if key in kinds:
            value = _value_of(token, tokens)
            source = chosen[key] = _source(kinds[key], key, _mapping(value) or value)
            rest.append((key, source))
        elif key.removesuffix(".help") in keys and key.endswith(".help"):
            helped = key.removesuffix(".help"), next((t for t in tokens if not t.startswith("-")), None)
        elif key == "config" and sections:
            file = _value_of(token, tokens)
            data = read_file(file, packages, tuple(kinds), sections)
            for key in kinds:
                if (value := _pop(data, key)) is not None:
                    source = chosen[key] = _source(kinds[key], key, value)
                    rest.append((key, source))
            for section, key in own.items():
                if (values := data.pop(section, None)) is not None:
                    rest.append(Options(section, values, file, _name(chosen[key])))
            rest += ["--config", yaml.safe_dump(data)]
        else:
            rest.append(token)
    if helped is not None:
        place, name = helped
        key = own.get(place, place)
        last = _name(chosen[key])
        if place in own and name is None and last is not None and options_key(kinds[key], key, last) == place:
            name = last
        show_options(kinds[key], key, name, place)
        parser.exit()
    for key, kind in kinds.items():
        add_options(parser, kind, key, _name(chosen[key]))
    arguments = []
    for item in rest:
        if isinstance(item, str):
            for key, kind in kinds.items():
                _check_place(item, kind, key, _name(chosen[key]))
            arguments.append(item)
        elif isinstance(item, Options):
            key = own[item.section]
            arguments += _arguments_of(item, kinds[key], key, _name(chosen[key]), packages)
        else:
            key, source = item
            if source.options and source.name == _name(chosen[key]):
                place = options_key(kinds[key], key, source.name)
                if place != key:
                    raise ValueError(
                        f"{key}: wanted the options of {source.name} in the section {place}, but got init_args; write "
                        f"{key}: {source.name} and {place}: {{OPTION: VALUE}}"
                    )
                arguments += ["--config", yaml.safe_dump(nested(key, source.options))]
    return {key: _name(source) for key, source in chosen.items()}, arguments


def _check_place(token: str, kind: Kind, key: str, name: str | None) -> None:
    """Check that an argument such as --data.path or --task.length is where the chosen class has its options."""
    place = key if name is None else options_key(kind, key, name)
    flag, _, option = token.partition("=")[0].rpartition(".")
    if place != key and flag == f"--{key}":
        raise ValueError(
            f"{key}.{option}: wanted --{place}.{option}, because the {kind.what} {name} has its options in the section "
            f"{place}, but got {flag}.{option}"
        )
    for section in kind.sections:
        if place != section and flag == f"--{section}":
            raise ValueError(f"{section}.{option}: {_no_section(kind, key, section, name)}")


def _arguments_of(given: Options, kind: Kind, key: str, name: str | None, packages: Sequence[str]) -> list[str]:
    """The arguments for options that a config has in a section of their own; none if their class was replaced.

    `name` is the class that was chosen last.
    """
    of, section = given.name or name, given.section
    if of is None or options_key(kind, key, of) != section:
        raise ValueError(f"{section}: {_no_section(kind, key, section, of)}")
    if of != name:
        return []
    if not is_own(kind, key, of):  # an option of a class of ours holds plain values: numbers, names and paths
        imports.check_imports(f"{section}: {given.file}", given.values, packages)
    return ["--config", yaml.safe_dump({section: given.values})]


def _no_section(kind: Kind, key: str, section: str, name: str | None) -> str:
    """That the chosen class has no such section, in the words of an error."""
    having = [known for known in names(kind) if options_key(kind, key, known) == section]
    came = f"the {kind.what} is {name}" if name else f"no {kind.what} is chosen"
    return f"wanted a {kind.what} that has this section ({' or '.join(having)}), but {came}; give --{key} {having[0]}"


def _name(source: Source | None) -> str | None:
    return None if source is None else source.name


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
    for key in keys:  # a section of its own is checked by `choose`, which knows the class
        imports.check_imports(f"{key}: {path}", _get(data, key), packages)
    return data


def choice_of(data: dict[str, Any], kind: Kind, key: str, packages: Sequence[str] = ()) -> Choice:
    """The choice in a config that `read_file` returned, with the options that the file has; nothing is completed.

    Raises:
        ValueError: there is none, it is refused, or an option would import another package.
    """
    name, options = _source(kind, key, _get(data, key))
    place = options_key(kind, key, name)
    if place != key:
        options = data.get(place, {})
        if not is_own(kind, key, name):
            imports.check_imports(f"{place}:", options, packages)
    return Choice(name, options)


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
