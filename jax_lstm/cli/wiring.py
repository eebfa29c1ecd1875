"""One experiment: its choices, and the wiring of task and model into something to train."""

from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
from jaxtyping import Array, Float, Int

import jax_lstm as jl
from jax_lstm.cells.base import output_size
from jax_lstm.cli.profile import mean_log_norms
from jax_lstm.cli.trained import Trained
from jax_lstm.tasks import (
    Adding,
    Batch,
    Bytes,
    ContinualReber,
    Continues,
    CopyMemory,
    Digits,
    LongLag,
    Lorenz,
    Marked,
    Noise,
    Parity,
    ReadsTokens,
    Reber,
    Task,
    TemporalOrder,
    Timing,
    TwoClasses,
    Words,
)
from jax_lstm.train import Checkpoints, OptConfig, Problem, TrainConfig, TrainState, init_state, optimiser
from jax_lstm.train.config import learning_rate
from jax_lstm.train.run_dir import CHECKPOINTS

PROBED = 4  # validation sequences that train.probe measures, and takes the mean over
MEASURED = 600  # steps at most that are measured of a sequence that asks for something at every step: streams are long

CELLS = {
    "lstm": "LSTM", "rnn": "RNN", "gru": "GRU", "janet": "JANET", "minlstm": "MinLSTM", "mingru": "MinGRU",
    "slstm": "SLSTM",
}  # fmt: skip
CellName = Literal["lstm", "rnn", "gru", "janet", "minlstm", "mingru", "slstm"]


@dataclass(frozen=True)
class ModelConfig:
    """One recurrent cell, or a stack of equal ones, and a linear readout of its outputs.

    Args:
        cell: the recurrent cell.
        hidden_size: H, its units.
        forget_bias: the LSTM's forget bias; null: the cell's own default.
        chrono: the LSTM's chrono initialisation for memories up to this many steps; null: none.
        options: the cell's other choices, by name: {peephole: true}.
        layers: how many cells stand on top of each other.
        dropout: the rate between two layers while training.
        embedding: E, the features of a symbol, for a task of symbols; null: hidden_size.
        window: steps that a gradient goes back at most, by truncated backpropagation through time; null: all.
    """

    cell: CellName
    hidden_size: int = 64
    forget_bias: float | None = None
    chrono: float | None = None
    options: dict[str, bool | int | float | str | None] = field(default_factory=dict)
    layers: int = 1
    dropout: float = 0.0
    embedding: int | None = None
    window: int | None = None

    def __post_init__(self):
        if self.layers < 1:
            raise ValueError(f"model.layers: wanted 1 or more, but got {self.layers}")
        if not 0 <= self.dropout < 1 or (self.dropout and self.layers == 1):
            raise ValueError(
                "model.dropout: wanted a rate from 0 up to, but below 1, and 0 for one layer, which has none to drop "
                f"between, but got {self.dropout}"
            )
        if self.embedding is not None and self.embedding < 1:
            raise ValueError(f"model.embedding: wanted 1 or more, or null, but got {self.embedding}")
        if self.window is not None and self.window < 1:
            raise ValueError(f"model.window: wanted 1 or more, or null, but got {self.window}")

    def build(self, task: Task) -> jl.Cell:
        """The cell that reads what a task gives."""
        if isinstance(task, ReadsTokens):
            return self.of_size(self.embedding or self.hidden_size)
        if self.embedding is not None:
            raise ValueError(f"model.embedding: wanted null for a task without symbols, but got {self.embedding}")
        return self.of_size(task.input_size)

    def of_size(self, input_size: int) -> jl.Cell:
        """The cell, or the stack."""
        choices = {"forget_bias": self.forget_bias, "chrono": self.chrono}
        given = {name: value for name, value in choices.items() if value is not None}
        if given and self.cell != "lstm":
            raise ValueError(f"model.{next(iter(given))}: only the lstm has it, but model.cell is {self.cell}")
        sizes = {"cell": CELLS[self.cell], "hidden_size": self.hidden_size}
        if twice := sorted(set(self.options) & {*sizes, *choices, "input_size"}):
            raise ValueError(f"model.options: {twice[0]} is not one of them; another key of the config says it")
        try:
            first = jl.from_config(sizes | {"input_size": input_size} | given | self.options)
            if self.layers == 1:
                return first
            above = jl.from_config(jl.to_config(first) | {"input_size": output_size(first)})
            return jl.Stack((first,) + (above,) * (self.layers - 1), dropout=self.dropout)
        except (ValueError, TypeError) as error:
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
            timing: a delay between two spikes, repeated; bytes: the next byte of the Python library's source; noise:
            none, the cell's exponents are trained.
        length: T of adding, copy, long_lag and noise, the least T of adding_1997, multiplication and two_classes; null:
            100. The symbols of a training stream of continual_reber; null: 500. The bytes of a training step of bytes;
            null: 128. The others have their own.
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
        "timing",
        "noise",
        "bytes",
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
            "timing": (Timing, ()),
            "noise": (Noise, ("length",)),
            "bytes": (lambda length=128: Bytes(length), ("length",)),
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
        cell = self.model.build(task)
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


def build_model(experiment: Experiment, task: Task) -> Trained:
    """The model that an experiment trains."""
    vocabulary = task.vocabulary if isinstance(task, ReadsTokens) else None
    net = jl.Model(experiment.model.build(task), task.output_size, vocabulary)
    return Trained(net, experiment.model.window, flossed=experiment.task.name == "noise")


def build_problem(experiment: Experiment) -> Problem:
    """The pure functions that the loop trains."""
    task = experiment.task.build()
    model, validation = build_model(experiment, task), task.validation()
    probed = steps_of_all(validation, PROBED)

    size, stateful = experiment.train.batch_size, isinstance(task, Continues)

    def loss_fn(params, batch, carry, key):
        (loss, score), state = model.values((task.loss, task.metric), params, batch, carry, key)
        return loss, (score, state if stateful else None)

    return Problem(
        init=model.init,
        batch=lambda key, step: task.train_batch(key, step, size),
        loss=loss_fn,
        score=lambda params: model.values((task.metric,), params, validation)[0][0],
        maximise=task.maximise,
        metric=task.metric,
        carry=partial(model.first_states, size) if stateful else None,
        probe=lambda params: mean_log_norms(model.cell, params.cell, model.net.embedded(params, probed)),
    )


def steps_of_all(batch: Batch, count: int) -> Float[Array, "N T I"] | Int[Array, "N T"]:
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
