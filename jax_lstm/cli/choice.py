"""Choose a cell or a task by name, with options, on the command line or in a config.

The name is a registered name, such as LSTM, or the dotted path of any class, such as my_lab.cells.Leaky. In a config, a
choice is the name alone, or {class_path: NAME, init_args: {OPTION: VALUE}}. The options are the parameters of the
class, except those that the program sets, such as the sizes of a cell. choose.py describes options in a section of
their own.
"""

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import reduce
from importlib import import_module
from typing import Any, NamedTuple

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

import jax_lstm as jl
from jax_lstm.checks import shown
from jax_lstm.registry import CELLS
from jax_lstm.tasks import TASKS, Task, task_class

DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")


class Kind(NamedTuple):
    """What can be chosen, "cell" or "task": its registry, the parameters that the program sets, and its protocol."""

    what: str
    registry: dict[str, Any]
    set_parameters: tuple[str, ...]
    protocol: Any
    sections: tuple[str, ...] = ()
    """The sections that a class of this kind can name as its own."""


CELL = Kind("cell", CELLS, ("input_size", "hidden_size"), jl.Cell)
TASK = Kind("task", TASKS, (), Task, ("data",))


@dataclass(frozen=True)
class Choice:
    """The name of a class and its options, as plain data.

    Args:
        name: a registered name, or a dotted path.
        options: the values by option name; an option that is absent has its default.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The name without the path, for titles."""
        return self.name.rpartition(".")[2]

    def as_data(self) -> Any:
        """The choice as plain data, for YAML."""
        return {"class_path": self.name, "init_args": self.options} if self.options else self.name

    def make(self, kind: Kind, key: str, **values: Any) -> Any:
        """Make the cell or the task.

        Args:
            kind: `CELL` or `TASK`.
            key: the key of the choice in a config, such as "model.cell", for messages.
            values: the parameters that the program sets.

        Raises:
            ValueError: the class is not found, it refuses an option, or what it makes lacks a part of the protocol.
        """
        _, factory = find(kind, key, self.name)
        place = options_key(kind, key, self.name)
        parser = ArgumentParser(exit_on_error=False)
        add_options(parser, kind, key, self.name)
        try:
            parsed = parser.instantiate(parser.parse_object(nested(place, self.options)))
            made = factory(**values, **at(parsed, place))
            hash(made)  # it is a static argument of compiled functions
        except (ArgumentError, ValueError, TypeError) as error:
            raise ValueError(f"{place}: {error}") from error
        if missing := [name for name in _members(kind.protocol) if not _has(made, name)]:
            raise ValueError(f"{key}: wanted a {kind.what}, but {self.name} has no {missing[0]}")
        return made


def nested(key: str, value: Any) -> dict[str, Any]:
    """A dict of dicts with `value` at a dotted key, such as {"a": {"b": value}} for "a.b"."""
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


def at(values: Namespace, key: str) -> dict[str, Any]:
    """The options below a dotted key of parsed values, by name; empty if there are none."""
    found = values.get(key)
    return {} if found is None else vars(found)


def find(kind: Kind, key: str, name: str) -> tuple[str, Callable[..., Any]]:
    """Find a class by its registered name, in any case, or by its dotted path, which is imported.

    Returns:
        The name to write into a config, and the class, or the function that makes an object of it.

    Raises:
        ValueError: there is no such class, or it cannot be of this kind.
    """
    registered = _registered(kind, name)
    factory = kind.registry[registered] if registered else _import(kind, key, name)
    registered = registered or next((known for known in names(kind) if kind.registry[known] is factory), None)
    if registered is None:
        return name, factory
    # A config gets the path of a class of another package: its name is registered only after that package is imported.
    ours = factory.__module__.startswith("jax_lstm.") or "<locals>" in factory.__qualname__
    return (registered if ours else _path(factory)), factory


def options_key(kind: Kind, key: str, name: str) -> str:
    """The key of the options of a class: that of the choice, or the section that the class names as its own."""
    section = getattr(task_class(find(kind, key, name)[1]), "section", None)
    return section if section in kind.sections else key


def is_own(kind: Kind, key: str, name: str) -> bool:
    """Whether a class is one of this library."""
    return find(kind, key, name)[1].__module__.startswith("jax_lstm.")


def _registered(kind: Kind, name: str) -> str | None:
    """The registered name for a name in any case, or for the dotted path of a registered class; None if not found."""
    exact = {known: known for known in names(kind)} | registered_paths(kind)
    return exact.get(name) or {known.lower(): known for known in names(kind)}.get(name.lower())


def _import(kind: Kind, key: str, name: str) -> Callable[..., Any]:
    """Import the class at a dotted path, and check that it can be of this kind."""
    if name in kind.registry:
        raise ValueError(
            f"{key}: wanted a {kind.what} with the options {' and '.join(kind.set_parameters)}, but {name} has other "
            f"sizes; choose one of {', '.join(names(kind))}"
        )
    if not DOTTED.fullmatch(name):
        raise ValueError(
            f"{key}: wanted one of {', '.join(names(kind))}, or a dotted path such as my_lab.{kind.what}s.Mine, but "
            f"got {name}"
        )
    try:
        factory = _imported(name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"{key}: wanted a class that can be imported, but got {name} ({error}); install its package, or add its "
            "folder to PYTHONPATH"
        ) from error
    if task_class(factory) is None:
        raise ValueError(f"{key}: wanted a class, but {name} is {shown(factory)}; give the path of a class")
    if missing := [p for p in kind.set_parameters if p not in inspect.signature(factory).parameters]:
        raise ValueError(f"{key}: wanted a class with the parameter {missing[0]}, but {name} has none of that name")
    return factory


def _imported(name: str) -> Any:
    """What a dotted path leads to: an attribute of a module, or of a class in it, as of a nested class."""
    parts = name.split(".")
    for k in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:k])
        try:
            found = import_module(module)
        except ModuleNotFoundError as error:
            if k > 1 and f"{module}.".startswith(f"{error.name}."):  # the path may go on inside a class of its parent
                continue
            raise
        return reduce(getattr, parts[k:], found)
    raise ModuleNotFoundError(name)


def names(kind: Kind) -> Iterator[str]:
    """The registered names that can be chosen: not layers such as Stack, which lack the sizes as parameters."""
    for name, factory in kind.registry.items():
        if set(kind.set_parameters) <= set(inspect.signature(factory).parameters):
            yield name


def registered_paths(kind: Kind) -> dict[str, str]:
    """The registered names by the dotted paths of their classes."""
    return {_path(kind.registry[name]): name for name in names(kind)}


def _path(factory: Callable[..., Any]) -> str:
    return f"{factory.__module__}.{factory.__qualname__}"


def _members(protocol: Any) -> list[str]:
    """The public names of a protocol."""
    return [name for name in vars(protocol) if not name.startswith("_")]


def _has(made: Any, name: str) -> bool:
    """Whether an object has an attribute. A property is not read: it may need a file that is gone."""
    return inspect.getattr_static(made, name, _has) is not _has or hasattr(made, name)


def add_options(parser: ArgumentParser, kind: Kind, key: str, name: str | None) -> None:
    """Add the options of the class called `name` to a parser; without a name, only say how to choose."""
    how = f"--{key} NAME chooses the {kind.what}: one of {', '.join(names(kind))}, or the dotted path of a class. "
    if name is None:
        parser.add_argument_group(
            f"{kind.what} ({key})", how + f"--{key}.help lists them, --{key}.help NAME the options."
        )
        return
    name, factory = find(kind, key, name)
    place = options_key(kind, key, name)
    group: Any = parser.add_argument_group(f"{kind.what} ({place}): {name}", f"{_summary(factory)} {how}")
    add = group.add_class_arguments if inspect.isclass(factory) else group.add_function_arguments
    add(factory, place, as_group=False, skip=set(kind.set_parameters), fail_untyped=False)


def _summary(factory: Callable[..., Any]) -> str:
    return (inspect.getdoc(factory) or "").partition("\n")[0]


def options_of(parser: ArgumentParser, values: Namespace, key: str) -> dict[str, Any]:
    """The parsed options below a dotted key as plain data, with all defaults."""
    data = yaml.safe_load(parser.dump(values, skip_unset=False, skip_validation=True))
    for name in key.split("."):
        data = data.get(name) or {}
    return data


def show_options(kind: Kind, key: str, name: str | None, place: str) -> None:
    """Print the options of a class, for --KEY.help NAME; without a name, print the names.

    `place` is `key`, or a section: then the names are those of the classes that have it.
    """
    if name is None:
        known = [name for name in names(kind) if place in (key, options_key(kind, key, name))]
        width = max(map(len, known))
        print(f"--{key} NAME chooses the {kind.what}: one of these, or the dotted path of a class.")
        for registered in known:
            print(f"  {registered:{width}s}  {_summary(kind.registry[registered])}")
        print(f"--{place}.help NAME lists the options of one.")
        return
    usage = f"--{key} {name} [--{options_key(kind, key, name)}.OPTION VALUE ...]"
    parser = ArgumentParser(prog=f"--{key} {name}", usage=usage, add_help=False)
    add_options(parser, kind, key, name)
    parser.print_help()
