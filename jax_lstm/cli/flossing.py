"""Gradient flossing (Engelken 2023): train a cell so that its Lyapunov exponents, measured on noise, are 0.

    x_t ~ N(0, 0.1²), 8 features
    loss  = mean of λ_i²        over the 10 largest Lyapunov exponents λ_i of the cell along x_1..x_T, in nats per step
    score = max |λ_i|           over 10 exponents and all sequences

If an exponent is 0, gradients neither shrink nor grow in its direction. This is not a `Task`, since nothing is
predicted. It is a `Problem` for the training loop; `jax-lstm experiment flossing` trains and scores it.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key
from jsonargparse import ArgumentParser
from rich.console import Console

import jax_lstm as jl
from jax_lstm import gradflow
from jax_lstm.cli.choice import CELL, Choice, options_of
from jax_lstm.cli.outcome import Outcome
from jax_lstm.cli.parser import add_sections, choose, parse
from jax_lstm.cli.profile import mean_log_norms, profiles
from jax_lstm.tasks.generated import TEST_SEED, VALIDATION_SEED
from jax_lstm.train import OptConfig, Problem, TrainConfig, fit, optimizer
from jax_lstm.train.config import learning_rate
from jax_lstm.train.losses import largest_error, mse
from jax_lstm.train.step import over_seeds

FEATURES, AMPLITUDE = 8, 0.1
EXPONENTS = 10  # the exponents that are trained
VALIDATION_SIZE, TEST_SIZE = 4, 8  # sequences of noise
METRIC = "largest_error"


@dataclass(frozen=True)
class Flossing:
    """All options of one run of gradient flossing; an option out of range raises a ValueError.

    Args:
        cell: the cell and its options.
        hidden_size: H, the number of hidden units.
        length: T, the time steps of a sequence of noise; at least 2.
        opt: the options of the optimizer.
        train: the options of the training loop.
        run_dir: the directory that the run is written to.
    """

    cell: Choice
    hidden_size: int
    length: int
    opt: OptConfig
    train: TrainConfig
    run_dir: str

    def __post_init__(self):
        if self.length < 2:
            raise ValueError(f"length: wanted 2 or more, but got {self.length}")
        cell = self.build_cell()
        state = jax.eval_shape(lambda: cell.initial_state(cell.init(jax.random.key(0))))
        size = sum(leaf.size for leaf in jax.tree.leaves(state))
        if size < EXPONENTS:
            raise ValueError(
                f"hidden_size: wanted a state of at least {EXPONENTS} numbers, because flossing trains {EXPONENTS} "
                f"exponents, but got {size}; use more hidden units"
            )
        learning_rate(self.opt, self.train.steps)

    def build_cell(self) -> jl.Cell:
        """Make the cell."""
        return self.cell.make(CELL, "cell", input_size=FEATURES, hidden_size=self.hidden_size)

    def as_data(self) -> dict[str, Any]:
        """The options as nested dicts, for YAML; the section "flossing" distinguishes the run from one of a task."""
        return {
            "flossing": {"cell": self.cell.as_data(), "hidden_size": self.hidden_size, "length": self.length},
            "opt": asdict(self.opt),
            "train": asdict(self.train) | {"seeds": list(self.train.seeds)},
            "run_dir": self.run_dir,
        }


def read_flossing(argv: Sequence[str]) -> Flossing:
    """Parse the options of a run; on an error exit with code 2."""
    parser = ArgumentParser(prog="jax-lstm experiment", print_config=None)
    parser.add_argument("--hidden_size", type=int, default=32, help="H, the number of hidden units")
    parser.add_argument("--length", type=int, default=100, help="T, the steps of a sequence of noise")
    add_sections(parser, {"opt": OptConfig, "train": TrainConfig}, skip=set())
    parser.add_argument("--run_dir", type=str, required=True, help="directory that the run is written to")
    try:
        names, argv = choose(parser, argv, {"cell": CELL})
        values = parse(parser, argv)
        cell = Choice(names["cell"] or "LSTM", options_of(parser, values, "cell"))
        opt, train = OptConfig(**vars(values.opt)), TrainConfig(**vars(values.train))
        return Flossing(cell, values.hidden_size, values.length, opt, train, values.run_dir)
    except (ValueError, TypeError) as error:
        parser.error(str(error))


@partial(jax.jit, static_argnums=(1, 2))
def noise(key: Key[Array, ""], size: int, length: int) -> Float[Array, "B T 8"]:
    """Draw `size` sequences of noise: (size, length, 8)."""
    return AMPLITUDE * jax.random.normal(key, (size, length, FEATURES), jnp.float32)


def exponents(cell: jl.Cell, params: Any, xs: Float[Array, "B T I"]) -> Float[Array, "B 10"]:
    """The 10 largest Lyapunov exponents along each sequence, in nats per step; JAX can differentiate them."""
    return jax.vmap(partial(gradflow.lyapunov_spectrum, k=EXPONENTS), (None, None, 0))(cell, params, xs)


def build_problem(flossing: Flossing) -> Problem:
    """The pure functions that the training loop needs."""
    cell, size, length = flossing.build_cell(), flossing.train.batch_size, flossing.length
    validation = noise(jax.random.key(VALIDATION_SEED), VALIDATION_SIZE, length)

    def loss_fn(params, xs, carry, key):
        found = exponents(cell, params, xs)
        zeros = jnp.zeros_like(found)
        return jnp.mean(mse(found, zeros)), {METRIC: largest_error(found, zeros)}

    return Problem(
        # `Model.init` splits the key for cell and readout. Split it here too: a seed then gives the same cell params.
        init=lambda key: cell.init(jax.random.split(key)[0]),
        batch=lambda key, step: noise(jax.random.fold_in(key, step), size, length),
        loss=loss_fn,
        score=lambda params: jnp.max(jnp.abs(exponents(cell, params, validation))),
        maximize=False,
        metric=METRIC,
        probe=lambda params: mean_log_norms(cell, params, validation),
    )


def run(flossing: Flossing, sequences: int, console: Console) -> Outcome:
    """Train every seed, score its best params on the test sequences, and measure its gradient norms.

    Args:
        flossing: the options.
        sequences: the number of validation sequences that gradient norms are averaged over; at most 4 are used.
        console: where progress is printed.

    Returns:
        The scores of all seeds, and the gradient norms over time.
    """
    cell, problem = flossing.build_cell(), build_problem(flossing)
    opt, loop = flossing.opt, flossing.train
    trained = fit(
        problem,
        optimizer(opt, loop.steps),
        run_dir=flossing.run_dir,
        console=console,
        schedule=learning_rate(opt, loop.steps),
        config=flossing.as_data(),
        **loop.options,
    )
    test = noise(jax.random.key(TEST_SEED), TEST_SIZE, flossing.length)

    @jax.jit
    @partial(over_seeds, vmap=None)
    def score(params):
        return jnp.max(jnp.abs(exponents(cell, params, test)))

    params = trained.best.params
    xs = noise(jax.random.key(VALIDATION_SEED), VALIDATION_SIZE, flossing.length)[:sequences]
    xs = jnp.broadcast_to(xs, (len(flossing.train.seeds), *xs.shape))
    scores = np.asarray(score(params), np.float64).tolist()
    return Outcome(flossing.cell.label, METRIC, False, None, scores, profiles(cell, params, xs), {})
