"""One experiment: its options, and how its task and model become a training problem."""

from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
from jaxtyping import Array, Float, Int

import jax_lstm as jl
from jax_lstm.cells.base import output_size
from jax_lstm.cli.profile import mean_log_norms
from jax_lstm.cli.trained_run import TrainedRun
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
    MarkedNumbers,
    Noise,
    Parity,
    ReadsTokens,
    Reber,
    Task,
    TemporalOrder,
    Timing,
    TwoClasses,
    GroupProduct,
)
from jax_lstm.train import Checkpoints, OptConfig, Problem, TrainConfig, TrainState, init_state, optimizer
from jax_lstm.train.config import learning_rate
from jax_lstm.train.run_dir import CHECKPOINTS

PROBED = 4  # validation sequences that train.probe averages over
MEASURED = 600  # measure at most this many steps of a sequence with targets at every step: streams are long

CELLS = {
    "lstm": "LSTM", "rnn": "RNN", "gru": "GRU", "janet": "JANET", "minlstm": "MinLSTM", "mingru": "MinGRU",
    "slstm": "SLSTM",
}  # fmt: skip
CellName = Literal["lstm", "rnn", "gru", "janet", "minlstm", "mingru", "slstm"]


@dataclass(frozen=True)
class ModelConfig:
    """Model: one or more recurrent layers and a linear readout.

    Args:
        cell: Recurrent cell of every layer. rnn is a tanh RNN.
        hidden_size: H, the number of hidden units per layer.
        forget_bias: Initial bias of the LSTM's forget gate. null is 1, unless chrono sets the bias.
        chrono: Chrono initialization of the LSTM's forget and input biases; the value is the longest time dependency
            of the task, in steps. null turns it off.
        options: Other options of the cell, as keyword arguments of its class; for example {peephole: true}.
        layers: Number of recurrent layers.
        dropout: Dropout rate between layers, in training only. Must be 0 for one layer.
        embedding: Embedding size, for a task that reads tokens (bytes). null is hidden_size; other tasks need null.
        window: Truncate gradients after this many time steps (truncated backpropagation through time). null does not
            truncate.
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
                "model.dropout: wanted a rate of at least 0 and below 1, and 0 for one layer, but got "
                f"{self.dropout} for {self.layers} layer{'s' * (self.layers != 1)}"
            )
        if self.embedding is not None and self.embedding < 1:
            raise ValueError(f"model.embedding: wanted 1 or more, or null, but got {self.embedding}")
        if self.window is not None and self.window < 1:
            raise ValueError(f"model.window: wanted 1 or more, or null, but got {self.window}")

    def build(self, task: Task) -> jl.Cell:
        """The cell, or stack of cells, for the inputs of a task."""
        if isinstance(task, ReadsTokens):
            return self.of_size(self.embedding or self.hidden_size)
        if self.embedding is not None:
            raise ValueError(f"model.embedding: wanted null for a task that reads no tokens, but got {self.embedding}")
        return self.of_size(task.input_size)

    def of_size(self, input_size: int) -> jl.Cell:
        """The cell, or stack of cells, for inputs with `input_size` features."""
        choices = {"forget_bias": self.forget_bias, "chrono": self.chrono}
        given = {name: value for name, value in choices.items() if value is not None}
        if given and self.cell != "lstm":
            raise ValueError(
                f"model.{next(iter(given))}: wanted null, because only the lstm has this option, but model.cell is "
                f"{self.cell}"
            )
        sizes = {"cell": CELLS[self.cell], "hidden_size": self.hidden_size}
        if twice := sorted(set(self.options) & {*sizes, *choices, "input_size"}):
            raise ValueError(f"model.options: {twice[0]} is set by another key of the config; remove it here")
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
    """Task: the data, the loss and the score.

    Args:
        name: digits: classify handwritten digits, one pixel per step.
            adding: add two marked numbers.
            adding_1997, multiplication: add or multiply two marked numbers, as in Hochreiter & Schmidhuber (1997).
            temporal_order: classify the order of rare symbols.
            long_lag: recall the first symbol.
            two_classes: classify noisy sequences by their first steps.
            reber: predict the second-last symbol of embedded Reber strings.
            continual_reber: the same on an endless stream of strings.
            copy: remember 10 symbols.
            parity, z60, a5: track the product of group elements.
            lorenz: predict the next point of the Lorenz system.
            timing: measure the delay between two spikes and repeat it.
            bytes: predict the next byte of Python source code.
            noise: predict nothing; train the cell's Lyapunov exponents to 0.
        length: Sequence length, in time steps. adding, noise: the length. copy: the lag; a sequence is 20 steps
            longer. long_lag: the lag. adding_1997, multiplication, two_classes: the shortest length; the longest is 1.1
            times that. For all of these, null is 100. continual_reber: symbols per training stream; null is 500.
            bytes: bytes per training stream and optimizer step; null is 128. Other tasks have a fixed length and need
            null.
        marks: Number of rare symbols of temporal_order, 2 or 3. null is 2. Other tasks need null.
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
        """The task with these options."""
        makes, takes = {
            "digits": (Digits, ()),
            "adding": (Adding, ("length",)),
            "adding_1997": (lambda length=100: MarkedNumbers("sum", length), ("length",)),
            "multiplication": (lambda length=100: MarkedNumbers("product", length), ("length",)),
            "temporal_order": (TemporalOrder, ("marks",)),
            "long_lag": (lambda length=100: LongLag(length), ("length",)),
            "two_classes": (lambda length=100: TwoClasses(length), ("length",)),
            "reber": (Reber, ()),
            "continual_reber": (lambda length=500: ContinualReber(length), ("length",)),
            "copy": (lambda length=100: CopyMemory(length), ("length",)),
            "parity": (Parity, ()),
            "z60": (partial(GroupProduct, "Z60"), ()),
            "a5": (partial(GroupProduct, "A5"), ()),
            "lorenz": (Lorenz, ()),
            "timing": (Timing, ()),
            "noise": (Noise, ("length",)),
            "bytes": (lambda length=128: Bytes(length), ("length",)),
        }[self.name]
        given = {key: value for key in ("length", "marks") if (value := getattr(self, key)) is not None}
        for key, value in given.items():
            if key not in takes:
                raise ValueError(
                    f"task.{key}: wanted null, because {self.name} does not have this option, but got {value}"
                )
        try:
            return makes(**given)
        except ValueError as error:
            raise ValueError(f"task.{next(iter(given))}: {error}") from error


@dataclass(frozen=True)
class Experiment:
    """All options of one training run; contradictory options raise a ValueError.

    Args:
        model: the options of the model.
        task: the options of the task.
        opt: the options of the optimizer.
        train: the options of the training loop.
        run_dir: the directory that the run is written to.
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
                raise ValueError(f"model.window: wanted null for the task noise, but got {self.model.window}")
            state = jax.eval_shape(lambda: cell.initial_state(cell.init(jax.random.key(0))))
            size = sum(leaf.size for leaf in jax.tree.leaves(state))
            if size < task.output_size:
                raise ValueError(
                    f"model.hidden_size: wanted a state of at least {task.output_size} numbers, because noise trains "
                    f"{task.output_size} exponents, but got {size}; use more hidden units"
                )
        learning_rate(self.opt, self.train.steps)
        try:
            jax.eval_shape(lambda: task.train_batch(jax.random.key(0), 0, self.train.batch_size))
        except ValueError as error:
            raise ValueError(f"train.batch_size: {error}") from error

    def as_data(self) -> dict[str, Any]:
        """Nested dicts of plain values, for YAML."""
        data = asdict(self)
        data["train"]["seeds"] = list(self.train.seeds)
        return data


def build_model(experiment: Experiment, task: Task) -> TrainedRun:
    """The model of an experiment, for its task."""
    vocabulary = task.vocabulary if isinstance(task, ReadsTokens) else None
    net = jl.Model(experiment.model.build(task), task.output_size, vocabulary)
    return TrainedRun(net, experiment.model.window, flossed=experiment.task.name == "noise")


def build_problem(experiment: Experiment) -> Problem:
    """The pure functions that the training loop needs: task and model combined."""
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
        maximize=task.maximize,
        metric=task.metric,
        carry=partial(model.first_states, size) if stateful else None,
        probe=lambda params: mean_log_norms(model.cell, params.cell, model.net.embedded(params, probed)),
    )


def steps_of_all(batch: Batch, count: int) -> Float[Array, "N T I"] | Int[Array, "N T"]:
    """Inputs to measure gradients on: the first sequences of a batch, cut to the shortest of them, without padding.

    Args:
        batch: the batch.
        count: the number N of sequences, at most.

    Returns:
        xs (N, T, I), or tokens (N, T). If the batch has targets at every step, T is at most 600.
    """
    xs = batch.xs[:count] if batch.weights is None else batch.xs[:count, :MEASURED]
    return xs if batch.mask is None else xs[:, : int(batch.mask[:count].sum(axis=1).min())]


def restore(experiment: Experiment, run_dir: Path) -> TrainState:
    """Restore the newest state of a run from its checkpoints.

    Raises:
        FileNotFoundError: the run has no checkpoint.
    """
    tx, problem = optimizer(experiment.opt, experiment.train.steps), build_problem(experiment)
    like = jax.eval_shape(lambda: init_state(problem, tx, experiment.train.seeds))
    with Checkpoints(run_dir / CHECKPOINTS) as checkpoints:
        return checkpoints.restore(like)
