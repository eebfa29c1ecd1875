"""The options of one experiment, and the conversion of its task and model to a training `Problem`."""

from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import jax
from jaxtyping import Array, Float, Int

import jax_lstm as jl
from jax_lstm.abilities import output_size
from jax_lstm.cli.choice import CELL, TASK, Choice, options_key
from jax_lstm.cli.profile import mean_log_norms
from jax_lstm.cli.scores import OF_A_SPLIT, names_on, scores_in_chunks, scores_of
from jax_lstm.cli.trained_run import TrainedRun
from jax_lstm.data import shortest
from jax_lstm.tasks import Batch, Continues, ReadsTokens, Task
from jax_lstm.train import Checkpoints, OptConfig, Predictor, Problem, TrainConfig, TrainState, init_state, optimizer
from jax_lstm.train.config import learning_rate
from jax_lstm.train.losses import BY_NAME
from jax_lstm.train.run_dir import CHECKPOINTS

PROBED = 4  # validation sequences over which train.probe averages gradient norms
MEASURED = 600  # measure gradients over at most this many steps, if there are targets at every step


@dataclass(frozen=True)
class ModelConfig:
    """Model: one or more recurrent layers and a linear readout.

    Args:
        cell: Recurrent cell of every layer.
        hidden_size: H, the number of hidden units per layer.
        layers: Number of recurrent layers.
        dropout: Dropout rate between layers, in training only. Must be 0 for one layer.
        embedding: Embedding size, for a task that reads tokens (bytes). null is hidden_size; other tasks need null.
        window: Truncate gradients after this many time steps (truncated backpropagation through time). null does not
            truncate.
    """

    cell: Choice
    hidden_size: int = 64
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
        """The cell, or stack of cells, for a task; it reads the task's features, or embedded tokens."""
        if isinstance(task, ReadsTokens):
            return self.of_size(self.embedding or self.hidden_size)
        if self.embedding is not None:
            raise ValueError(f"model.embedding: wanted null for a task that reads no tokens, but got {self.embedding}")
        return self.of_size(task.input_size)

    def of_size(self, input_size: int) -> jl.Cell:
        """The cell, or stack of cells, for inputs with `input_size` features."""
        first = self._layer(input_size)
        if self.layers == 1:
            return first
        above = self._layer(output_size(first))
        try:
            return jl.Stack((first,) + (above,) * (self.layers - 1), dropout=self.dropout)
        except (ValueError, TypeError) as error:
            raise ValueError(f"model: {error}") from error

    def _layer(self, input_size: int) -> jl.Cell:
        return self.cell.make(CELL, "model.cell", input_size=input_size, hidden_size=self.hidden_size)


@dataclass(frozen=True)
class Experiment:
    """All options of one training run; options that are wrong or contradict each other raise a ValueError.

    Args:
        model: the options of the model.
        task: the task and its options.
        opt: the options of the optimizer.
        train: the options of the training loop.
        run_dir: the directory that the run is written to.
    """

    model: ModelConfig
    task: Choice
    opt: OptConfig
    train: TrainConfig
    run_dir: str

    def __post_init__(self):
        task = self.build_task()
        self.model.build(task)
        learning_rate(self.opt, self.train.steps)
        if hasattr(task, "texts"):
            task.texts()  # or an unreadable file would be reported as an error of train.batch_size
        try:
            jax.eval_shape(lambda: task.train_batch(jax.random.key(0), 0, self.train.batch_size))
        except ValueError as error:
            raise ValueError(f"train.batch_size: {error}") from error

    def build_task(self) -> Task:
        """Make the task."""
        return self.task.make(TASK, "task")

    def as_data(self) -> dict[str, Any]:
        """The options as nested dicts of plain values, for YAML."""
        model = {f.name: getattr(self.model, f.name) for f in fields(self.model)} | {"cell": self.model.cell.as_data()}
        train = asdict(self.train) | {"seeds": list(self.train.seeds)}
        section = options_key(TASK, "task", self.task.name)
        task = self.task.as_data() if section == "task" else self.task.name
        own = {} if section == "task" else {section: self.task.options}
        return {
            "model": model,
            "task": task,
            **own,
            "opt": asdict(self.opt),
            "train": train,
            "run_dir": self.run_dir,
        }


def build_model(experiment: Experiment, task: Task) -> TrainedRun:
    """The model of an experiment, and the window of its gradients."""
    return TrainedRun(model_of(experiment.model, task), experiment.model.window)


def model_of(config: ModelConfig, task: Task) -> jl.Model:
    """The model for a task: cells, readout, and an embedding if the task reads tokens."""
    vocabulary = task.vocabulary if isinstance(task, ReadsTokens) else None
    return jl.Model(config.build(task), task.output_size, vocabulary)


def build_problem(experiment: Experiment) -> Problem:
    """Combine task and model into the pure functions that the training loop needs."""
    task = experiment.build_task()
    model, validation = build_model(experiment, task), task.validation()
    probed = steps_of_all(validation, PROBED)

    size, stateful = experiment.train.batch_size, isinstance(task, Continues)
    scored = names_on(task, validation)
    reported = () if task.metric in OF_A_SPLIT else (task.metric,)

    def loss_fn(params, batch, carry, key):
        state, ys = model.outputs(params, batch, carry, key)
        loss = BY_NAME[task.loss](ys, batch.targets, batch.weights)
        return loss, scores_of(task, reported, ys, batch), state if stateful else None

    def score(params):
        return scores_in_chunks(task, scored, lambda batch: model.outputs(params, batch)[1], validation)

    return Problem(
        init=model.init,
        batch=lambda key, step: task.train_batch(key, step, size),
        # Batches of ragged sequences are cut to one of a few lengths, which are branches of the program.
        loss=shortest(loss_fn, getattr(task, "cut_lengths", (task.length,))),
        score=score,
        maximize=task.maximize,
        metric=task.metric,
        carry=partial(model.first_states, size) if stateful else None,
        probe=lambda params: mean_log_norms(model.cell, params.cell, model.net.embedded(params, probed)),
        predictor=Predictor(
            model.net,
            scaling=getattr(task, "scaling", None),
            every_step=validation.weights is not None,
            window=model.window,
        ),
    )


def steps_of_all(batch: Batch, count: int) -> Float[Array, "N T I"] | Int[Array, "N T"]:
    """Inputs for gradient measurements: the first sequences of a batch, cut to the shortest of them, without padding.

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
    like = jax.eval_shape(lambda: init_state(problem, tx, experiment.train.seeds, ema=experiment.train.ema))
    with Checkpoints(run_dir / CHECKPOINTS) as checkpoints:
        return checkpoints.restore(like)
