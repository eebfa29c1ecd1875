"""The arguments of `fit`, checked before anything is compiled or written."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import optax

from jax_lstm.train.config import TrainConfig
from jax_lstm.train.hooks import Hook
from jax_lstm.train.run import check_seeds
from jax_lstm.train.run_dir import check_run_dir


def as_optimizer(optimizer: Any) -> optax.GradientTransformation:
    """The optimizer; an optax.MultiSteps becomes one.

    Raises:
        TypeError: it is not an optimizer.
    """
    if isinstance(optimizer, optax.MultiSteps):
        return optimizer.gradient_transformation()
    if not (callable(getattr(optimizer, "init", None)) and callable(getattr(optimizer, "update", None))):
        raise TypeError(
            f"fit: optimizer must be an Optax optimizer, but is a {type(optimizer).__name__}; give for example "
            "optax.adam(1e-3)"
        )
    return optimizer


def as_config(steps: int | None, options: dict[str, Any]) -> TrainConfig:
    """The options of the loop.

    Raises:
        TypeError: an option is unknown.
        ValueError: an option is out of range.
    """
    known = [f.name for f in fields(TrainConfig) if f.name not in ("steps", "batch_size")]
    if unknown := [name for name in options if name not in known]:
        hint = "; the problem makes its batches" if unknown[0] == "batch_size" else ""
        raise TypeError(f"fit: options must be some of {', '.join(known)}, but got {unknown[0]}{hint}")
    given: dict[str, Any] = options | ({} if steps is None else {"steps": steps})
    if "seeds" in given:
        if not hasattr(given["seeds"], "__iter__"):
            raise TypeError(f"fit: seeds must be a list of seeds, but is {given['seeds']!r}; pass [{given['seeds']!r}]")
        given["seeds"] = tuple(given["seeds"])
    devices = given.get("devices")
    # The size of the batch is not known yet: no divisor is refused here.
    return TrainConfig(batch_size=devices if isinstance(devices, int) and devices > 0 else 1, **given)


def check_arguments(
    directory: Path | None, train: TrainConfig, params: Any, resume: bool, hooks: Sequence[Any]
) -> None:
    """Check the other arguments of `fit`; its docstring names the errors."""
    if directory is not None:
        check_run_dir(directory, resume)
        check_seeds(directory, train.seeds)
    elif resume or train.tensorboard:
        what = "resume=True" if resume else "tensorboard=True"
        raise ValueError(f"fit: wanted a run_dir for {what}, but got None; name a directory")
    if resume and params is not None:
        raise ValueError("fit: wanted params or resume=True, but got both; leave params out, the checkpoint has them")
    if not isinstance(hooks, list | tuple):
        raise TypeError(f"fit: hooks must be a list of hooks, but is a {type(hooks).__name__}; pass hooks=[hook]")
    for hook in hooks:
        if not isinstance(hook, Hook):
            raise TypeError(f"fit: hooks must be instances of Hook, but one is a {type(hook).__name__}; subclass Hook")
