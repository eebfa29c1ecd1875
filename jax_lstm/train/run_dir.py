"""A run's directory.

    config.yaml     the effective config, complete
    run.json        versions, devices there and used, seeds
    metrics.jsonl   metrics.py writes it
    checkpoints/    checkpoint.py writes it

`jax-lstm train config.yaml --run_dir elsewhere` does the run again.
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


def open_run(run_dir: Path, config: dict[str, Any], seeds: tuple[int, ...], devices: int, resume: bool) -> None:
    """Make the directory and write what is known before the first step; a refusal writes nothing.

    A resumed run has the config it began with, but for what MAY_CHANGE names. (More steps stretch a cosine schedule.)
    `devices` is how many of them it trains on.

    Raises:
        FileExistsError: it has checkpoints and `resume` is False, or it is a file.
        FileNotFoundError: it has none and `resume` is True.
        ValueError: `resume` with another config; the message names the keys.
    """
    if run_dir.exists() and not run_dir.is_dir():
        raise FileExistsError(f"run_dir: wanted a directory, but {run_dir} is a file")
    step = newest_step(run_dir / CHECKPOINTS)
    if step is not None and not resume:
        raise FileExistsError(
            f"run_dir: {run_dir} already has step {step}; continue it with --resume, or name another directory"
        )
    if resume:
        if step is None:
            raise FileNotFoundError(f"--resume: {run_dir} holds no checkpoint; train without --resume first")
        before, now = flat(read_config(run_dir)), flat(config)
        changed = [k for k in sorted(before | now) if before.get(k) != now.get(k) and k not in MAY_CHANGE]
        if changed:
            raise ValueError(
                f"--resume: {run_dir} was made with "
                + ", ".join(f"{k}={before.get(k)} (now {now.get(k)})" for k in changed)
                + "; give the same config, or name another run_dir"
            )
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / CONFIG).write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
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


def read_config(run_dir: Path) -> dict[str, Any]:
    """The effective config of a run.

    Raises:
        FileNotFoundError: the directory is not a run's.
    """
    path = run_dir / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{run_dir} is not a run's directory: it has no {CONFIG}")
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"opt": {"lr": 1}} as {"opt.lr": 1}."""
    leaves = {}
    for key, value in config.items():
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return leaves
