"""The choices of a training run. Plain values: they are written to YAML and read back to the same."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import optax

Schedule = Literal["constant", "cosine", "warmup", "warmup_cosine"]


@dataclass(frozen=True)
class OptConfig:
    """Adam, with the gradient's global norm clipped.

    Args:
        lr: the peak learning rate.
        schedule: constant; cosine falls to 0 over train.steps; warmup rises from 0 over warmup_steps first.
        warmup_steps: how long the rise takes; only the schedules with warmup in their name take it.
        clip: the largest global norm that a gradient may keep; null: any.
        weight_decay: AdamW's: each step also takes lr * weight_decay of every param away; 0: plain Adam.
    """

    lr: float = 3e-3
    schedule: Schedule = "constant"
    warmup_steps: int = 0
    clip: float | None = 1.0
    weight_decay: float = 0.0

    def __post_init__(self):
        _want(0 < self.lr < math.inf, "opt.lr", "a number above 0", self.lr)
        _want(self.schedule in get_args(Schedule), "opt.schedule", " or ".join(get_args(Schedule)), self.schedule)
        if "warmup" in self.schedule:
            _want(self.warmup_steps > 0, "opt.warmup_steps", f"1 or more for {self.schedule}", self.warmup_steps)
        else:
            _want(self.warmup_steps == 0, "opt.warmup_steps", f"0 for {self.schedule}", self.warmup_steps)
        if self.clip is not None:
            _want(0 < self.clip < math.inf, "opt.clip", "a number above 0, or null", self.clip)
        _want(0 <= self.weight_decay < math.inf, "opt.weight_decay", "a number from 0 up", self.weight_decay)


@dataclass(frozen=True)
class TrainConfig:
    """The loop.

    Args:
        steps: how many optimiser steps a seed takes at most.
        batch_size: sequences a step and seed.
        devices: how many devices share each batch; auto: the most there are that divide batch_size.
        seeds: one run a seed, all in one program.
        vmap_seeds: true: all seeds at once by vmap; false: in turn, in the same program; null: in turn on a CPU only.
        log_every: steps between two lines of metrics.jsonl.
        eval_every: steps between two validations, each of which is also a checkpoint.
        probe: steps between two measurements of the gradient's profile, written to metrics.jsonl; null: never.
        patience: stop after this many validations without a better mean over seeds; null: never.
        target: stop as soon as every seed's best validation score is as good as this; null: never.
        tensorboard: also write TensorBoard event files.
    """

    steps: int = 1000
    batch_size: int = 64
    devices: int | Literal["auto"] = "auto"
    seeds: tuple[int, ...] = (0,)
    vmap_seeds: bool | None = None
    log_every: int = 50
    eval_every: int = 100
    probe: int | None = None
    patience: int | None = None
    target: float | None = None
    tensorboard: bool = False

    def __post_init__(self):
        for name in ("steps", "batch_size", "log_every", "eval_every"):
            _want(getattr(self, name) >= 1, f"train.{name}", "1 or more", getattr(self, name))
        if self.devices != "auto":
            count = self.devices if isinstance(self.devices, int) else 0
            _want(count >= 1, "train.devices", "auto, or 1 or more", self.devices)
            divides = self.batch_size % count == 0
            _want(divides, "train.devices", f"a divisor of train.batch_size ({self.batch_size})", count)
        if self.probe is not None:
            _want(self.probe >= 1, "train.probe", "1 or more, or null", self.probe)
        if self.patience is not None:
            _want(self.patience >= 1, "train.patience", "1 or more, or null", self.patience)
        _want(len(self.seeds) > 0, "train.seeds", "at least one seed", list(self.seeds))
        _want(len(set(self.seeds)) == len(self.seeds), "train.seeds", "each seed once", list(self.seeds))
        _want(all(0 <= s < 2**32 for s in self.seeds), "train.seeds", "seeds from 0 to 2³² − 1", list(self.seeds))

    @property
    def chunk(self) -> int:
        """Steps in one call of the compiled program: the most that meets every log, validation, probe and the end.

        With steps 1,500, log_every 50 and eval_every 100 it is 50. A prime number of steps makes it 1: right, but
        each step then pays for a call.
        """
        return math.gcd(self.steps, self.log_every, self.eval_every, self.probe or 0)


def learning_rate(opt: OptConfig, steps: int) -> Callable:
    """The learning rate as a function of the step, over a run of `steps`.

    Raises:
        ValueError: the rise takes as long as the run, or longer.
    """
    if opt.warmup_steps:
        _want(opt.warmup_steps < steps, "opt.warmup_steps", f"fewer than train.steps ({steps})", opt.warmup_steps)
    rise = optax.linear_schedule(0.0, opt.lr, opt.warmup_steps)
    fall = optax.cosine_decay_schedule(opt.lr, steps - opt.warmup_steps)
    flat = optax.constant_schedule(opt.lr)
    match opt.schedule:
        case "constant":
            return flat
        case "cosine":
            return fall
        case "warmup":
            return optax.join_schedules([rise, flat], [opt.warmup_steps])
        case "warmup_cosine":
            return optax.join_schedules([rise, fall], [opt.warmup_steps])


def optimiser(opt: OptConfig, steps: int) -> optax.GradientTransformation:
    """Clip by the global norm, then Adam (Kingma & Ba 2015), its decay decoupled (Loshchilov & Hutter 2019)."""
    adam = optax.adamw(learning_rate(opt, steps), weight_decay=opt.weight_decay)
    return adam if opt.clip is None else optax.chain(optax.clip_by_global_norm(opt.clip), adam)


def _want(held: bool, key: str, wanted: str, came: object) -> None:
    if not held:
        raise ValueError(f"{key}: wanted {wanted}, but got {came}")
