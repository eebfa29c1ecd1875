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
from jax_lstm.layers import Readout, ReadoutParams
from jax_lstm.tasks import Adding, Digits, Task
from jax_lstm.train import Checkpoints, OptConfig, Problem, TrainConfig, TrainState, init_state, optimiser
from jax_lstm.train.config import learning_rate
from jax_lstm.train.losses import BY_NAME
from jax_lstm.train.run_dir import CHECKPOINTS


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
        name: digits: scanned digits, a pixel a step; adding: the sum of two marked numbers.
        length: T of adding; null: 100. The digits have 64 steps.
    """

    name: Literal["digits", "adding"]
    length: int | None = None

    def build(self) -> Task:
        """The task."""
        if self.name == "digits":
            if self.length is not None:
                raise ValueError(f"task.length: wanted null for digits, which has 64 steps, but got {self.length}")
            return Digits()
        try:
            return Adding() if self.length is None else Adding(self.length)
        except ValueError as error:
            raise ValueError(f"task.length: {error}") from error


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

    def outputs(self, params: ModelParams, xs: Float[Array, "B T I"]) -> Float[Array, "B O"]:
        """What the readout gives after the last step of each sequence."""
        state, _ = jl.batched(jl.unroll)(self.cell, params.cell, xs)
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
        ys = model.outputs(params, batch.xs)
        return loss(ys, batch.targets), metric(ys, batch.targets)

    return Problem(
        init=model.init,
        batch=lambda key, step: task.train_batch(key, step, experiment.train.batch_size),
        loss=loss_fn,
        score=lambda params: metric(model.outputs(params, validation.xs), validation.targets),
        maximise=task.maximise,
        metric=task.metric,
    )


def restore(experiment: Experiment, run_dir: Path) -> TrainState:
    """The newest state of a run.

    Raises:
        FileNotFoundError: it has none.
    """
    tx = optimiser(experiment.opt, experiment.train.steps)
    like = jax.eval_shape(lambda: init_state(build_problem(experiment), tx, experiment.train.seeds))
    with Checkpoints(run_dir / CHECKPOINTS) as checkpoints:
        return checkpoints.restore(like)
