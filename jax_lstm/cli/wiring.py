"""One experiment: its choices, and the wiring of task, cell and readout into something to train.

    s_T = cell over x_1..x_T        y = s_T.h w + b

The loss and the score, by the names that the task gives them, compare y with the target.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
from jaxtyping import Array, Float, Key

import jax_lstm as jl
from jax_lstm.cli.profile import mean_log_norms
from jax_lstm.layers import Readout, ReadoutParams
from jax_lstm.tasks import Adding, Batch, Digits, LongLag, Marked, Reber, Task, TemporalOrder
from jax_lstm.train import Checkpoints, OptConfig, Problem, TrainConfig, TrainState, init_state, optimiser
from jax_lstm.train.config import learning_rate
from jax_lstm.train.losses import BY_NAME
from jax_lstm.train.run_dir import CHECKPOINTS

PROBED = 4  # validation sequences that train.probe measures, and takes the mean over


@dataclass(frozen=True)
class ModelConfig:
    """One recurrent cell and a linear readout of its last output.

    Args:
        cell: the recurrent cell.
        hidden_size: H, its units.
        forget_bias: the LSTM's forget bias; null: the cell's own default.
        chrono: the LSTM's chrono initialisation for memories up to this many steps; null: none.
    """

    cell: Literal["lstm", "rnn", "gru"]
    hidden_size: int = 64
    forget_bias: float | None = None
    chrono: float | None = None

    def build(self, input_size: int) -> jl.Cell:
        """The cell."""
        choices = {"forget_bias": self.forget_bias, "chrono": self.chrono}
        given = {name: value for name, value in choices.items() if value is not None}
        if given and self.cell != "lstm":
            raise ValueError(f"model.{next(iter(given))}: only the lstm has it, but model.cell is {self.cell}")
        try:
            return jl.from_config(
                {"cell": self.cell.upper(), "input_size": input_size, "hidden_size": self.hidden_size} | given
            )
        except ValueError as error:
            raise ValueError(f"model: {error}") from error


@dataclass(frozen=True)
class TaskConfig:
    """What is learned.

    Args:
        name: digits: scanned digits, a pixel a step; adding: the sum of two marked numbers; adding_1997 and
            multiplication: its original form; temporal_order: in which order rare symbols came; long_lag: two
            sequences that differ in their first symbol; reber: the embedded Reber grammar's outer symbol.
        length: T of adding and long_lag, or the least T of adding_1997 and multiplication; null: 100. The others have
            their own.
        marks: how many rare symbols temporal_order has, 2 or 3; null: 2.
    """

    name: Literal["digits", "adding", "adding_1997", "multiplication", "temporal_order", "long_lag", "reber"]
    length: int | None = None
    marks: int | None = None

    def build(self) -> Task:
        """The task."""
        makes, takes = {
            "digits": (Digits, ()),
            "adding": (Adding, ("length",)),
            "adding_1997": (lambda length=100: Marked("sum", length), ("length",)),
            "multiplication": (lambda length=100: Marked("product", length), ("length",)),
            "temporal_order": (TemporalOrder, ("marks",)),
            "long_lag": (lambda length=100: LongLag(length), ("length",)),
            "reber": (Reber, ()),
        }[self.name]
        given = {key: value for key in ("length", "marks") if (value := getattr(self, key)) is not None}
        for key, value in given.items():
            if key not in takes:
                raise ValueError(f"task.{key}: wanted null for {self.name}, which has none to choose, but got {value}")
        try:
            return makes(**given)
        except ValueError as error:
            raise ValueError(f"task.{next(iter(given))}: {error}") from error


@dataclass(frozen=True)
class Experiment:
    """All choices of one training run; what they exclude together is refused here.

    Args:
        model: the cell.
        task: what it learns.
        opt: the optimiser.
        train: the loop.
        run_dir: where the run is written.
    """

    model: ModelConfig
    task: TaskConfig
    opt: OptConfig
    train: TrainConfig
    run_dir: str

    def __post_init__(self):
        task = self.task.build()
        self.model.build(task.input_size)
        learning_rate(self.opt, self.train.steps)
        try:
            jax.eval_shape(lambda: task.train_batch(jax.random.key(0), 0, self.train.batch_size))
        except ValueError as error:
            raise ValueError(f"train.batch_size: {error}") from error

    def as_data(self) -> dict[str, Any]:
        """Plain dicts, lists and values, for YAML."""
        data = asdict(self)
        data["train"]["seeds"] = list(self.train.seeds)
        return data


class ModelParams(NamedTuple):
    """The params of the cell and of its readout."""

    cell: Any
    readout: ReadoutParams


class Model(NamedTuple):
    """A cell and its readout, both static."""

    cell: jl.Cell
    readout: Readout

    def init(self, key: Key[Array, ""]) -> ModelParams:
        """Draw both."""
        key_cell, key_readout = jax.random.split(key)
        return ModelParams(self.cell.init(key_cell), self.readout.init(key_readout))

    def outputs(self, params: ModelParams, batch: Batch) -> Float[Array, "B O"]:
        """What the readout gives after the last step of each sequence."""
        state, _ = jl.batched(jl.unroll)(self.cell, params.cell, batch.xs, None, batch.mask)
        return self.readout.apply(params.readout, state.h)


def build_model(experiment: Experiment, task: Task) -> Model:
    """The model that an experiment trains."""
    cell = experiment.model.build(task.input_size)
    return Model(cell, Readout(cell.hidden_size, task.output_size))


def build_problem(experiment: Experiment) -> Problem:
    """The pure functions that the loop trains."""
    task = experiment.task.build()
    model, validation = build_model(experiment, task), task.validation()
    loss, metric = BY_NAME[task.loss], BY_NAME[task.metric]

    def loss_fn(params, batch):
        ys = model.outputs(params, batch)
        return loss(ys, batch.targets), metric(ys, batch.targets)

    return Problem(
        init=model.init,
        batch=lambda key, step: task.train_batch(key, step, experiment.train.batch_size),
        loss=loss_fn,
        score=lambda params: metric(model.outputs(params, validation), validation.targets),
        maximise=task.maximise,
        metric=task.metric,
        probe=lambda params: mean_log_norms(model.cell, params.cell, steps_of_all(validation, PROBED)),
    )


def steps_of_all(batch: Batch, count: int) -> Float[Array, "N T I"]:
    """The first sequences of a batch, over the steps that all of them have: no padding is measured."""
    xs = batch.xs[:count]
    return xs if batch.mask is None else xs[:, : int(batch.mask[:count].sum(axis=1).min())]


def restore(experiment: Experiment, run_dir: Path) -> TrainState:
    """The newest state of a run.

    Raises:
        FileNotFoundError: it has none.
    """
    tx = optimiser(experiment.opt, experiment.train.steps)
    like = jax.eval_shape(lambda: init_state(build_problem(experiment), tx, experiment.train.seeds))
    with Checkpoints(run_dir / CHECKPOINTS) as checkpoints:
        return checkpoints.restore(like)
