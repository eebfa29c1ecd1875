"""One experiment: its choices, and the wiring of task, cell and readout into something to train.

    s_t = cell over x_1..x_T        y_t = h_t w + b

The loss and the score, by the names that the task gives them, compare y_T, or every y_t, with the target.
"""

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
from jaxtyping import Array, Float, Key

import jax_lstm as jl
from jax_lstm.cli.profile import largest_exponents, mean_log_norms
from jax_lstm.layers import Readout, ReadoutParams
from jax_lstm.tasks import (
    Adding,
    Batch,
    ContinualReber,
    CopyMemory,
    Digits,
    LongLag,
    Lorenz,
    Marked,
    Noise,
    Parity,
    Reber,
    Task,
    TemporalOrder,
    TwoClasses,
    Words,
)
from jax_lstm.train import Checkpoints, OptConfig, Problem, TrainConfig, TrainState, init_state, optimiser
from jax_lstm.train.config import learning_rate
from jax_lstm.train.losses import BY_NAME
from jax_lstm.train.run_dir import CHECKPOINTS

PROBED = 4  # validation sequences that train.probe measures, and takes the mean over
MEASURED = 600  # steps at most that are measured of a sequence that asks for something at every step: streams are long

CELLS = {"lstm": "LSTM", "rnn": "RNN", "gru": "GRU", "minlstm": "MinLSTM"}
CellName = Literal["lstm", "rnn", "gru", "minlstm"]


@dataclass(frozen=True)
class ModelConfig:
    """One recurrent cell and a linear readout of its outputs.

    Args:
        cell: the recurrent cell.
        hidden_size: H, its units.
        forget_bias: the LSTM's forget bias; null: the cell's own default.
        chrono: the LSTM's chrono initialisation for memories up to this many steps; null: none.
        window: steps that a gradient goes back at most, by truncated backpropagation through time; null: all.
    """

    cell: CellName
    hidden_size: int = 64
    forget_bias: float | None = None
    chrono: float | None = None
    window: int | None = None

    def __post_init__(self):
        if self.window is not None and self.window < 1:
            raise ValueError(f"model.window: wanted 1 or more, or null, but got {self.window}")

    def build(self, input_size: int) -> jl.Cell:
        """The cell."""
        choices = {"forget_bias": self.forget_bias, "chrono": self.chrono}
        given = {name: value for name, value in choices.items() if value is not None}
        if given and self.cell != "lstm":
            raise ValueError(f"model.{next(iter(given))}: only the lstm has it, but model.cell is {self.cell}")
        try:
            return jl.from_config(
                {"cell": CELLS[self.cell], "input_size": input_size, "hidden_size": self.hidden_size} | given
            )
        except ValueError as error:
            raise ValueError(f"model: {error}") from error


@dataclass(frozen=True)
class TaskConfig:
    """What is learned.

    Args:
        name: digits: scanned digits, a pixel a step; adding: the sum of two marked numbers; adding_1997 and
            multiplication: its original form; temporal_order: in which order rare symbols came; long_lag: two
            sequences that differ in their first symbol; two_classes: one of two, told by the first steps, in noise;
            reber: the embedded Reber grammar's outer symbol, and continual_reber: that of endless strings; copy: ten
            symbols remembered; parity, z60, a5: the product of group elements; lorenz: the next point of its orbit;
            noise: none, the cell's exponents are trained.
        length: T of adding, copy, long_lag and noise, the least T of adding_1997, multiplication and two_classes; null:
            100. The symbols of a training stream of continual_reber; null: 500. The others have their own.
        marks: how many rare symbols temporal_order has, 2 or 3; null: 2.
    """

    name: Literal[
        "digits",
        "adding",
        "adding_1997",
        "multiplication",
        "temporal_order",
        "long_lag",
        "two_classes",
        "reber",
        "continual_reber",
        "copy",
        "parity",
        "z60",
        "a5",
        "lorenz",
        "noise",
    ]
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
            "two_classes": (lambda length=100: TwoClasses(length), ("length",)),
            "reber": (Reber, ()),
            "continual_reber": (lambda length=500: ContinualReber(length), ("length",)),
            "copy": (lambda length=100: CopyMemory(length), ("length",)),
            "parity": (Parity, ()),
            "z60": (partial(Words, "Z60"), ()),
            "a5": (partial(Words, "A5"), ()),
            "lorenz": (Lorenz, ()),
            "noise": (Noise, ("length",)),
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
        cell = self.model.build(task.input_size)
        if self.task.name == "noise":
            if self.model.window is not None:
                raise ValueError(
                    f"model.window: wanted null for noise, which trains exponents, but got {self.model.window}"
                )
            state = jax.eval_shape(lambda: cell.initial_state(cell.init(jax.random.key(0))))
            size = sum(leaf.size for leaf in jax.tree.leaves(state))
            if size < task.output_size:
                raise ValueError(
                    f"model.hidden_size: wanted a state of at least {task.output_size} numbers, whose exponents noise "
                    f"trains, but got {size}"
                )
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
    window: int | None = None
    flossed: bool = False

    def init(self, key: Key[Array, ""]) -> ModelParams:
        """Draw both."""
        key_cell, key_readout = jax.random.split(key)
        return ModelParams(self.cell.init(key_cell), self.readout.init(key_readout))

    def outputs(self, params: ModelParams, batch: Batch) -> Float[Array, "B *T O"]:
        """What the readout gives after the last step of each sequence, or at every step where the batch weighs them.

        Of a cell that is flossed, its largest exponents along each sequence.
        """
        if self.flossed:
            return largest_exponents(self.cell, params.cell, batch.xs, self.readout.output_size)
        run = jl.unroll if self.window is None else partial(jl.tbptt, window=self.window)
        state, hs = jl.batched(run)(self.cell, params.cell, batch.xs, None, batch.mask)
        return self.readout.apply(params.readout, state.h if batch.weights is None else hs)

    def values(self, names: tuple[str, ...], params: ModelParams, batch: Batch) -> tuple[Float[Array, ""], ...]:
        """Losses and scores, by their names."""
        ys = self.outputs(params, batch)
        return tuple(BY_NAME[name](ys, batch.targets, batch.weights) for name in names)


def build_model(experiment: Experiment, task: Task) -> Model:
    """The model that an experiment trains."""
    cell = experiment.model.build(task.input_size)
    readout, flossed = Readout(cell.hidden_size, task.output_size), experiment.task.name == "noise"
    return Model(cell, readout, experiment.model.window, flossed)


def build_problem(experiment: Experiment) -> Problem:
    """The pure functions that the loop trains."""
    task = experiment.task.build()
    model, validation = build_model(experiment, task), task.validation()
    probed = steps_of_all(validation, PROBED)

    def loss_fn(params, batch):
        loss, score = model.values((task.loss, task.metric), params, batch)
        return loss, score

    return Problem(
        init=model.init,
        batch=lambda key, step: task.train_batch(key, step, experiment.train.batch_size),
        loss=loss_fn,
        score=lambda params: model.values((task.metric,), params, validation)[0],
        maximise=task.maximise,
        metric=task.metric,
        probe=lambda params: mean_log_norms(model.cell, params.cell, probed),
    )


def steps_of_all(batch: Batch, count: int) -> Float[Array, "N T I"]:
    """The first sequences of a batch, over the first steps that all of them have: no padding is measured.

    Where something is asked for at every step, over the first 600 at most.
    """
    xs = batch.xs[:count] if batch.weights is None else batch.xs[:count, :MEASURED]
    return xs if batch.mask is None else xs[:, : int(batch.mask[:count].sum(axis=1).min())]


def restore(experiment: Experiment, run_dir: Path) -> TrainState:
    """The newest state of a run.

    Raises:
        FileNotFoundError: it has none.
    """
    tx, problem = optimiser(experiment.opt, experiment.train.steps), build_problem(experiment)
    like = jax.eval_shape(lambda: init_state(problem, tx, experiment.train.seeds))
    with Checkpoints(run_dir / CHECKPOINTS) as checkpoints:
        return checkpoints.restore(like)
