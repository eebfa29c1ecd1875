"""Refuse a config that would import unknown code, before anything is imported.

The dotted path of a class in a config imports its module, and an import runs code. So a config may name only registered
classes, and classes of packages that the user lists with --imports.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from typing import Any

from jsonargparse import get_loader
from yaml import YAMLError

from jax_lstm.cli.choice import CELL, DOTTED, TASK, registered_paths

FLAG = "--imports"
HELP = (
    "packages, separated by commas, that a config may import classes from; a config that names any other class by its "
    "dotted path is refused, because an import runs code"
)
ANYWHERE = re.compile(rf"(?<![\w./\\-]){DOTTED.pattern}")  # a dotted path in a string, not in a file's path


def take_imports(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split a command line into the packages that --imports lists, and the other arguments.

    Raises:
        ValueError: --imports is given without the name of a package.
    """
    packages, rest, tokens = [], [], iter(argv)
    for token in tokens:
        if token == FLAG:
            token = f"{FLAG}={next(tokens, '')}"
        if not token.startswith(f"{FLAG}="):
            rest.append(token)
            continue
        listed = [name.strip() for name in token.partition("=")[2].split(",") if name.strip()]
        if not listed:
            raise ValueError(f"{FLAG}: wanted the name of a package, but got none")
        packages += listed
    return packages, rest


def check_imports(source: str, data: Any, packages: Sequence[str]) -> None:
    """Check that plain data from a file imports nothing but registered classes and classes of these packages.

    Args:
        source: the key and the file that the data come from, for the message.
        data: nested dicts, lists and scalars.
        packages: the names of top-level packages that may be imported.

    Raises:
        ValueError: the data name a class of another package.
    """
    known = {*registered_paths(CELL), *registered_paths(TASK)}
    for path in _paths(data):
        top = path.partition(".")[0]
        if path not in known and top not in packages:
            raise ValueError(
                f"{source} names {path}, and its import would run code of {top}; add --imports {top} if you trust that "
                "package"
            )


def _paths(data: Any, is_class: bool = True) -> Iterator[str]:
    """The dotted paths in data that a parser may import; `is_class`: whether data itself is the name of a class."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield from _paths(str(key), False)
            yield from _paths(value, key == "class_path")
    elif isinstance(data, list | tuple):
        for value in data:
            yield from _paths(value, False)
    elif isinstance(data, str):
        if is_class and DOTTED.fullmatch(data):
            yield data
            return
        # Another string with a dot can be something else, such as a file's name: it counts only if the package exists.
        yield from (found[0] for found in ANYWHERE.finditer(data) if _exists(found[0].partition(".")[0]))
        yield from _inside(data)


def _inside(text: str) -> Iterator[str]:
    """The dotted paths in a string that is itself YAML, because a parser of options would read it again."""
    load: Callable[[str], Any] = get_loader("yaml")
    try:
        loaded = load(text)
    except YAMLError:
        return
    if isinstance(loaded, dict | list):
        yield from _paths(loaded, False)


def _exists(package: str) -> bool:
    """Whether a top-level package can be found, which imports nothing; True also if the search fails."""
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):
        return True
