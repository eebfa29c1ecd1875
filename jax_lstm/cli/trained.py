"""Read the trained network of a run, without its training data and its optimizer."""

import json
from argparse import ArgumentParser
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from jax_lstm.cli.build import ModelConfig, model_of
from jax_lstm.cli.choice import CELL, TASK
from jax_lstm.cli.choose import choice_of, read_file
from jax_lstm.cli.parser import CHOICES, SECTIONS, check_run_of_task
from jax_lstm.train import Run, load
from jax_lstm.train.run_dir import CONFIG

FACTS = "data.json"


class Trained(NamedTuple):
    """A trained network, and its task; None: it was imported, or trained in Python."""

    run: Run
    task: Any


def write_facts(task: Any, run_dir: Path) -> None:
    """Write what the task learned from its training file into a run, so that the file may be gone later."""
    if hasattr(task, "facts"):
        (run_dir / FACTS).write_text(json.dumps(task.facts(), indent=1) + "\n", encoding="utf-8")


def check_facts(task: Any, run_dir: Path) -> None:
    """Check that a run is continued on the same training data.

    Raises:
        ValueError: the columns, labels, means or scales of the training file have changed.
    """
    path = run_dir / FACTS
    if hasattr(task, "facts") and path.is_file() and _plain(task.facts()) != json.loads(path.read_text("utf-8")):
        raise ValueError(
            f"--resume: the training file must be the same, but its columns, labels or scaling differ from {path}; "
            "name another run_dir"
        )


def _plain(facts: dict[str, Any]) -> Any:
    return json.loads(json.dumps(facts))


def with_facts(task: Any, run_dir: Path) -> Any:
    """The task with what `write_facts` wrote; the task itself if it wrote nothing."""
    path = run_dir / FACTS
    if not hasattr(task, "with_facts") or not path.is_file():
        return task
    try:
        return task.with_facts(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"run_dir: {path} is damaged ({error}); train again") from error


def import_packages(parser: ArgumentParser, packages: Sequence[str]) -> None:
    """Import the packages of --imports, which register their cells; on an error exit with code 2."""
    for package in packages:
        try:
            import_module(package)
        except ImportError as error:
            parser.error(f"--imports: wanted a package that can be imported, but got {package} ({error})")


def read_trained(parser: ArgumentParser, run_dir: Path, packages: Sequence[str]) -> Trained:
    """Read a run; on an error exit with code 2.

    Args:
        parser: what reports an error.
        run_dir: the directory of the run.
        packages: packages that the run's config may import; they are imported.
    """
    import_packages(parser, packages)
    try:
        task, model = _of_config(run_dir, packages) if (run_dir / CONFIG).is_file() else (None, None)
        return Trained(load(run_dir, model), task)
    except KeyError as error:
        parser.error(f"run_dir: wanted all keys in the files of {run_dir}, but {error} is missing; train again")
    except (OSError, ValueError, TypeError) as error:
        parser.error(f"run_dir: {str(error).removeprefix('run_dir: ').removeprefix('load: ')}")


def _of_config(run_dir: Path, packages: Sequence[str]) -> tuple[Any, Any]:
    """The task of a run and its `Model`, made of its config."""
    check_run_of_task(run_dir)
    data = read_file(str(run_dir / CONFIG), packages, tuple(CHOICES), SECTIONS)
    task = with_facts(choice_of(data, TASK, "task", packages).make(TASK, "task"), run_dir)
    model = ModelConfig(**data["model"] | {"cell": choice_of(data, CELL, "model.cell")})
    return task, model_of(model, task)


def seed_of(parser: ArgumentParser, run: Run, seed: int | None, others: str = "") -> int:
    """A seed of a run; None: the one with the best score. On an error exit with code 2, and name `others`."""
    if seed is None:
        score = run.best.score
        return run.seeds[int(score.argmax() if run.maximize else score.argmin())]
    if seed not in run.seeds:
        parser.error(f"--seed: wanted one of {', '.join(map(str, run.seeds))}{others}, but got {seed}")
    return seed
