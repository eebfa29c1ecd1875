"""The registry of tasks: every task is in it under a name, and a new one is one call."""

from dataclasses import dataclass

import pytest
import ragged

from jax_lstm.tasks import TASKS, GroupProduct, MarkedNumbers, Task, register_task, task_class
from jax_lstm.tasks.group_product import a5


@pytest.fixture
def registry():
    """The registry, restored after the test."""
    names = dict(TASKS)
    yield TASKS
    TASKS.clear()
    TASKS.update(names)


@pytest.fixture
def needed(tmp_path):
    """The options that have no default, by the name of the task."""
    path = ragged.write(tmp_path, "a.csv", ragged.csv(ragged.columns()))
    return {"series": {"path": path, **ragged.OPTIONS}}


@pytest.mark.parametrize("name", TASKS)
def test_every_registered_task_has_the_protocol_and_its_class(name, needed):
    options = needed.get(name, {})
    task = TASKS[name](**options)
    assert isinstance(task, Task)
    assert type(task) is task_class(TASKS[name])
    assert hash(task) == hash(TASKS[name](**options))


def test_a_factory_fixes_some_options_of_its_class():
    assert TASKS["a5"](ramp=10) == GroupProduct("A5", ramp=10)
    assert TASKS["multiplication"](30) == MarkedNumbers("product", 30)


def test_a_task_is_registered_by_one_call(registry):
    @dataclass(frozen=True)
    class Spikes:
        width: int = 3

    register_task("spikes", Spikes)
    register_task("spikes", Spikes)
    assert registry["spikes"](width=4) == Spikes(4)


@pytest.mark.parametrize(
    ("name", "factory", "error", "said"),
    [
        ("A5", a5, ValueError, "name must be made of lower-case letters"),
        ("z60", a5, ValueError, "'z60' is the name of jax_lstm.tasks.group_product.z60"),
        ("new", lambda: None, TypeError, "factory must be a class, or a function whose return annotation"),
        ("new", 3, TypeError, "but is 3"),
    ],
)
def test_a_bad_name_or_factory_is_refused(registry, name, factory, error, said):
    with pytest.raises(error, match=f"^register_task: .*{said}"):
        register_task(name, factory)
    assert "new" not in registry
