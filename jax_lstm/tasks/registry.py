"""The registry of tasks: `TASKS` maps the name of each task to its factory, for the command line and the configs.

A factory returns a task. It is the task's dataclass, or a function that fixes some of the dataclass's options:

    register_task("adding", Adding)

    def a5(**options: Any) -> GroupProduct:
        return GroupProduct("A5", **options)

    register_task("a5", a5)
"""

import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

from jax_lstm.checks import shown

TASKS: dict[str, Callable[..., Any]] = {}


def register_task(name: str, factory: Callable[..., Any]) -> None:
    """Register a task under a name.

    Args:
        name: the name: lower-case letters, digits and underscores, such as "adding".
        factory: the task's class, or a function whose return annotation is a class. Its parameters are the options of
            the task.

    Raises:
        ValueError: the name has other characters, or another factory has it.
        TypeError: factory is neither a class nor a function whose return annotation is a class.
    """
    if not (isinstance(name, str) and name.isidentifier() and name == name.lower()):
        raise ValueError(
            f"register_task: name must be made of lower-case letters, digits and underscores, but is {shown(name)}"
        )
    if task_class(factory) is None:
        raise TypeError(
            "register_task: factory must be a class, or a function whose return annotation is a class, but is "
            f"{shown(factory)}"
        )
    if TASKS.setdefault(name, factory) is not factory:
        raise ValueError(
            f"register_task: name must be new, but {shown(name)} is the name of {_where(TASKS[name])}; choose "
            "another name"
        )


def task_class(factory: Any) -> type | None:
    """The class of a factory's tasks: the factory itself, or its return annotation; None if neither is a class."""
    if not inspect.isclass(factory):
        factory = get_type_hints(factory).get("return") if inspect.isfunction(factory) else None
    return factory if inspect.isclass(factory) else None


def _where(factory: Callable[..., Any]) -> str:
    return f"{factory.__module__}.{factory.__qualname__}"
