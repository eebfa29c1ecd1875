"""The directory of a run.

    config.yaml     the complete config, with all defaults and overrides
    run.json        package versions, devices available and used, seeds
    model.json      the model and how it predicts, written by run.py
    metrics.jsonl   written by metrics.py
    checkpoints/    written by checkpoint.py
    source/         the position in a source of batches, written by source.py

`fit` writes model.json, metrics.jsonl and checkpoints/. It writes config.yaml if it gets a config, and source/ if the
batches come from a source. `open_run` writes run.json.

`jax-lstm train RUN/config.yaml --run_dir elsewhere` repeats the run.
"""

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import yaml

from jax_lstm.train.checkpoint import newest_step

CONFIG, INFO, CHECKPOINTS = "config.yaml", "run.json", "checkpoints"
MAY_CHANGE = ("train.steps", "train.patience", "train.target", "train.probe", "train.tensorboard", "train.devices")
ADDED = {"opt.accumulate": 1, "train.ema": None}  # keys that older runs do not have, and what they did


def open_run(run_dir: Path, config: dict[str, Any], seeds: tuple[int, ...], devices: int, resume: bool) -> None:
    """Create the directory of a run and write config.yaml and run.json; an error writes nothing.

    Args:
        run_dir: the directory.
        config: the complete config, as nested dicts.
        seeds: the seeds.
        devices: the number of devices that train.
        resume: continue the run in this directory. Its config must be the same, except for the keys in MAY_CHANGE.
            (More steps stretch a cosine schedule.)

    Raises:
        FileExistsError: run_dir is a file, or it has checkpoints and `resume` is False.
        FileNotFoundError: `resume` is True and there is no checkpoint.
        ValueError: `resume` is True and the config has changed; the message names the keys.
    """
    check_run_dir(run_dir, resume)
    if resume:
        before, now = ADDED | flat(read_config(run_dir)), ADDED | flat(config)
        changed = [k for k in sorted(before | now) if before.get(k) != now.get(k) and k not in MAY_CHANGE]
        if changed:
            raise ValueError(
                f"--resume: the config must be the same, but {run_dir} has "
                + ", ".join(f"{k}={before.get(k)} (now {now.get(k)})" for k in changed)
                + "; give the same config, or name another run_dir"
            )
    run_dir.mkdir(parents=True, exist_ok=True)
    write_config(run_dir, config)
    info = {
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")},
        "device": {
            "platform": jax.default_backend(),
            "kind": jax.devices()[0].device_kind,
            "count": jax.device_count(),
            "used": devices,
        },
        "seeds": list(seeds),
    }
    (run_dir / INFO).write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")


def check_run_dir(run_dir: Path, resume: bool) -> None:
    """Check that a run can be written to a directory; writes nothing.

    Raises:
        FileExistsError: run_dir is a file, or it has checkpoints and `resume` is False.
        FileNotFoundError: `resume` is True and there is no checkpoint.
    """
    if run_dir.exists() and not run_dir.is_dir():
        raise FileExistsError(f"run_dir: wanted a directory, but {run_dir} is a file; name another path")
    step = newest_step(run_dir / CHECKPOINTS)
    if step is not None and not resume:
        raise FileExistsError(
            f"run_dir: {run_dir} already has a checkpoint of step {step}; continue it with --resume (in Python: "
            "resume=True), or name another directory"
        )
    if step is None and resume:
        raise FileNotFoundError(f"--resume: {run_dir} has no checkpoint; train without --resume first")


def write_config(run_dir: Path, config: dict[str, Any] | None) -> None:
    """Write config.yaml; without a config do nothing."""
    if config is not None:
        (run_dir / CONFIG).write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")


def read_config(run_dir: Path) -> dict[str, Any]:
    """Read config.yaml of a run, as nested dicts.

    Raises:
        FileNotFoundError: the directory has no config.yaml.
    """
    path = run_dir / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{run_dir} is not the directory of a run: it has no {CONFIG}")
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested dicts: {"opt": {"lr": 1}} becomes {"opt.lr": 1}."""
    leaves = {}
    for key, value in config.items():
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return leaves
