"""The options of a training run: plain values that can be written to YAML and read back unchanged."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
import optax

Schedule = Literal["constant", "cosine", "warmup", "warmup_cosine"]


@dataclass(frozen=True)
class OptConfig:
    """Optimizer: Adam with gradient clipping.

    Args:
        lr: Peak learning rate.
        schedule: Learning-rate schedule. constant: always lr. cosine: falls from lr to 0 over train.steps. warmup:
            rises linearly from 0 to lr over warmup_steps, then stays. warmup_cosine: rises, then falls to 0.
        warmup_steps: Optimizer steps of the warmup. Required by warmup and warmup_cosine; must be 0 otherwise.
        clip: Largest global norm of a gradient; a larger gradient is scaled down to it. null turns clipping off.
        weight_decay: Weight decay of AdamW; each step subtracts lr * weight_decay * param. 0 is plain Adam.
        accumulate: Average the gradients of this many batches for each update of the params. train.steps and
            warmup_steps count batches.
    """

    lr: float = 3e-3
    schedule: Schedule = "constant"
    warmup_steps: int = 0
    clip: float | None = 1.0
    weight_decay: float = 0.0
    accumulate: int = 1

    def __post_init__(self):
        _want(0 < self.lr < math.inf, "opt.lr", "a number above 0", self.lr)
        _want(self.schedule in get_args(Schedule), "opt.schedule", " or ".join(get_args(Schedule)), self.schedule)
        if "warmup" in self.schedule:
            _want(self.warmup_steps > 0, "opt.warmup_steps", f"1 or more for {self.schedule}", self.warmup_steps)
        else:
            _want(self.warmup_steps == 0, "opt.warmup_steps", f"0 for {self.schedule}", self.warmup_steps)
        if self.clip is not None:
            _want(0 < self.clip < math.inf, "opt.clip", "a number above 0, or null", self.clip)
        _want(0 <= self.weight_decay < math.inf, "opt.weight_decay", "0 or more", self.weight_decay)
        _want(self.accumulate >= 1, "opt.accumulate", "1 or more", self.accumulate)


@dataclass(frozen=True)
class TrainConfig:
    """Training loop.

    Args:
        steps: Optimizer steps per seed. Training can end earlier; see patience and target.
        batch_size: Sequences per optimizer step and seed.
        devices: Number of devices that split each batch; it must divide batch_size. Each CPU core counts as one device.
            auto uses as many as possible.
        seeds: Random seeds. Each seed trains its own network; all seeds are trained in one program.
        vmap_seeds: true trains all seeds at once with vmap, false one after another in the same program. null means
            false on a CPU and true on a GPU or TPU.
        log_every: Steps between two training records in metrics.jsonl (loss, score, gradient norm, learning rate).
        eval_every: Steps between two validations; each validation also writes a checkpoint.
        probe: Steps between two measurements of how far gradients reach (gradient norms over time steps), written to
            metrics.jsonl. null turns this off.
        patience: Stop after this many validations in a row without a better mean score over seeds. null never stops.
        target: Stop once the best validation score of every seed is at least this good. null never stops.
        tensorboard: Also write TensorBoard event files, into run_dir/tensorboard.
        ema: Decay of an average of the params over steps, such as 0.999. Validation and the best params use the
            average. null does not average.
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
    ema: float | None = None

    def __post_init__(self):
        for name in ("steps", "batch_size", "log_every", "eval_every"):
            value = getattr(self, name)
            _want(
                isinstance(value, int | np.integer) and bool(value >= 1),
                f"train.{name}",
                "an integer, 1 or more",
                value,
            )
        if self.devices != "auto":
            count = self.devices if isinstance(self.devices, int) else 0
            _want(count >= 1, "train.devices", "auto, or 1 or more", self.devices)
            divides = self.batch_size % count == 0
            _want(divides, "train.devices", f"a divisor of train.batch_size ({self.batch_size})", count)
        if self.probe is not None:
            _want(self.probe >= 1, "train.probe", "1 or more, or null", self.probe)
        if self.patience is not None:
            _want(self.patience >= 1, "train.patience", "1 or more, or null", self.patience)
        if self.ema is not None:
            _want(0 < self.ema < 1, "train.ema", "a number between 0 and 1, or null", self.ema)
        seeds = tuple(int(s) if isinstance(s, int | np.integer) else s for s in self.seeds)  # NumPy's are no JSON
        object.__setattr__(self, "seeds", seeds)
        _want(len(self.seeds) > 0, "train.seeds", "at least one seed", list(self.seeds))
        _want(len(set(self.seeds)) == len(self.seeds), "train.seeds", "each seed once", list(self.seeds))
        valid = all(isinstance(s, int) and 0 <= s < 2**32 for s in self.seeds)
        _want(valid, "train.seeds", "seeds from 0 to 2³² − 1", list(self.seeds))

    @property
    def chunk(self) -> int:
        """Steps per call of the compiled program: the greatest common divisor of steps and all intervals.

        With steps 1,500, log_every 50 and eval_every 100 it is 50. A prime number of steps makes it 1: the result is
        the same, but training is slower, because every step is a call of its own.
        """
        return math.gcd(self.steps, self.log_every, self.eval_every, self.probe or 0)

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments of `fit`: all fields except batch_size, which the problem decides."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "batch_size"}


def learning_rate(opt: OptConfig, steps: int) -> Callable:
    """The learning-rate schedule.

    Args:
        opt: the optimizer's options.
        steps: the length of the run, in optimizer steps.

    Returns:
        An Optax schedule: step (from 0) -> learning rate.

    Raises:
        ValueError: the warmup takes `steps` steps or more, or one update takes more than `steps` batches.
    """
    _want(opt.accumulate <= steps, "opt.accumulate", f"at most train.steps ({steps})", opt.accumulate)
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


def optimizer(opt: OptConfig, steps: int) -> optax.GradientTransformation:
    """The optimizer: clipping by global norm, then AdamW; with `accumulate`, of the mean gradient of several batches.

    Args:
        opt: the optimizer's options.
        steps: the length of the run, in optimizer steps.

    Returns:
        An Optax transformation. Without weight decay it is Adam (Kingma & Ba 2015), else AdamW (Loshchilov & Hutter
        2019).
    """
    rate, k = learning_rate(opt, steps), opt.accumulate
    adam = optax.adamw(rate if k == 1 else lambda update: rate(update * k), weight_decay=opt.weight_decay)
    clipped = adam if opt.clip is None else optax.chain(optax.clip_by_global_norm(opt.clip), adam)
    return clipped if k == 1 else optax.MultiSteps(clipped, k).gradient_transformation()


def _want(held: bool, key: str, wanted: str, came: object) -> None:
    if not held:
        raise ValueError(f"{key}: wanted {wanted}, but got {came}")
