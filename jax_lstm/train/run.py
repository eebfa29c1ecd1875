"""The result of a training run, and the model of a run directory.

    run = fit(problem, optimizer, run_dir="runs/mine")      trained now
    run = load("runs/mine")                                 read from disk, in any process
    ys  = run.predict(xs)

`load` builds neither the task nor the optimizer: model.json has the model, and the checkpoint its params.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import yaml

from jax_lstm.train.checkpoint import Checkpoints, read_results
from jax_lstm.train.forms import difference, name_of
from jax_lstm.train.predictor import Predictor
from jax_lstm.train.run_dir import CHECKPOINTS, CONFIG, check_run_dir
from jax_lstm.train.state import Best, TrainState

MODEL = "model.json"
Which = Literal["best", "last"]


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """The params of one or more seeds, and their model.

    Args:
        predictor: the model and its scaling, for `predict`; None: the problem has none.
        config: the config of the run; {} if it has none.
        seeds: the seeds.
        metric: the name of the score that selects the best params; None: the params were given, not trained.
        maximize: True if a larger score is better.
        best: the best params of each seed, with their scores and steps; leaves have a leading axis over seeds.
        last: the params after the last step, with a leading axis over seeds.
        step: the last step.
        state: the whole training state; None: the run was loaded.
    """

    predictor: Predictor | None
    config: dict[str, Any]
    seeds: tuple[int, ...]
    metric: str | None
    maximize: bool
    best: Best
    last: Any
    step: int
    state: TrainState | None = None

    def __repr__(self) -> str:
        if self.metric is None:
            return "Run of given params"
        score = float(self.best.score[self._best()])
        seed = self.seeds[self._best()]
        return f"Run of seeds {self.seeds} to step {self.step}: best {self.metric} {score:.4g} of seed {seed}"

    def _best(self) -> int:
        score = np.asarray(self.best.score, np.float64)
        return int(np.where(np.isnan(score), -np.inf, score if self.maximize else -score).argmax())

    @property
    def params(self) -> Any:
        """The best params of the seed with the best score."""
        return self.of_seed(self.seeds[self._best()])

    def of_seed(self, seed: int, which: Which = "best") -> Any:
        """The params of one seed.

        Args:
            seed: one of `seeds`.
            which: "best" for those with the best validation score, "last" for those of the last step.

        Raises:
            ValueError: the run has no such seed.
        """
        if seed not in self.seeds:
            raise ValueError(f"Run.of_seed: wanted a seed of {list(self.seeds)}, but got {seed!r}; name one of them")
        n = self.seeds.index(seed)
        return jax.tree.map(lambda a: a[n], self.all_params(which))

    def all_params(self, which: Which = "best") -> Any:
        """The params of all seeds, with a leading axis over seeds; `which` as in `of_seed`."""
        if which not in ("best", "last"):
            raise ValueError(f'Run: wanted which to be "best" or "last", but got {which!r}; use one of them')
        return self.best.params if which == "best" else self.last

    @property
    def model(self) -> Any:
        """The cell or `Model`."""
        return self._predictor().model

    @property
    def cell(self) -> Any:
        """The cell: the model itself, or that of a `Model`."""
        return getattr(self.model, "cell", self.model)

    @property
    def scaling(self) -> Any:
        """The `Scaling` of inputs and targets; None if they are not scaled."""
        return self._predictor().scaling

    def predict(self, inputs: Any, lengths: Any = None, mask: Any = None, params: Any = None) -> Any:
        """Predict in original units; see `Predictor.predict`. params: those of one seed; None: `Run.params`."""
        return self._predictor().predict(self.params if params is None else params, inputs, lengths, mask)

    def _predictor(self) -> Predictor:
        if self.predictor is None:
            raise TypeError(
                "Run: wanted a run with a model, but its problem has no predictor; set Problem.predictor, or use "
                "run.params with your own function"
            )
        return self.predictor


def load(run_dir: str | Path, model: Any = None) -> Run:
    """Read a run from its directory.

    Args:
        run_dir: the directory.
        model: the cell or `Model`; needed if its class is not registered. None: build it from model.json.

    Returns:
        The run, with the params of its newest checkpoint. If its problem had no predictor and `model` is None, they
        are nested dicts and lists.

    Raises:
        FileNotFoundError: the directory has no model.json or no checkpoint.
        ValueError: the params in the checkpoint are not those of the model; the message names the leaf.
    """
    run_dir = Path(run_dir)
    path, config = run_dir / MODEL, run_dir / CONFIG
    if not path.is_file():
        raise FileNotFoundError(
            f"load: wanted the directory of a run, but {run_dir} has no {MODEL}; name another directory, or train again"
        )
    about = json.loads(path.read_text(encoding="utf-8"))
    predictor = None
    if "model" in about or model is not None:
        predictor = Predictor.from_config(about, model=model)
    found = read_results(run_dir / CHECKPOINTS)
    like = None if predictor is None else jax.eval_shape(predictor.model.init, jax.random.key(0))
    best = found["best"] | {"params": _as_like(like, found["best"]["params"], path)}
    return Run(
        predictor=predictor,
        config=yaml.safe_load(config.read_text(encoding="utf-8")) if config.is_file() else {},
        seeds=tuple(about["seeds"]),
        metric=about["metric"],
        maximize=about["maximize"],
        best=Best(**best),
        last=_as_like(like, found["params"], path),
        step=int(found["step"]),
    )


def save(run_dir: str | Path, model: Any, params: Any) -> None:
    """Write given params, such as imported ones, as a run directory that `load` reads.

    Args:
        run_dir: the directory; created if it does not exist.
        model: the cell, `Model` or `Predictor`.
        params: its params.

    Raises:
        FileExistsError: the directory has checkpoints.
        ValueError: the params are not those of the model; the message names the leaf.
    """
    run_dir = Path(run_dir)
    check_run_dir(run_dir, resume=False)
    predictor = model if isinstance(model, Predictor) else Predictor(model)
    if said := difference(jax.eval_shape(predictor.model.init, jax.random.key(0)), params, dtypes=False):
        raise ValueError(f"save: wanted params of this model, but {said}; give the params of the model")
    params = jax.tree.map(lambda a: jnp.asarray(a)[None], params)
    zero, none = jnp.zeros((), jnp.int32), jnp.asarray(jnp.nan, jnp.float32)
    best = Best(jax.tree.map(jnp.copy, params), none[None], zero[None], none, zero)
    run_dir.mkdir(parents=True, exist_ok=True)
    write_model(run_dir, predictor, None, False, (0,))
    with Checkpoints(run_dir / CHECKPOINTS) as checkpoints:
        checkpoints.save(0, TrainState(zero, None, params, None, None, best))  # pyrefly: ignore


def write_model(
    run_dir: Path, predictor: Predictor | None, metric: str | None, maximize: bool, seeds: Sequence[int]
) -> None:
    """Write model.json."""
    about = {} if predictor is None else predictor.to_config()
    about |= {"metric": metric, "maximize": maximize, "seeds": list(seeds)}
    (run_dir / MODEL).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def check_seeds(run_dir: Path, seeds: Sequence[int]) -> None:
    """Check that a run to resume has these seeds.

    Raises:
        ValueError: it has others.
    """
    path = run_dir / MODEL
    before = json.loads(path.read_text(encoding="utf-8"))["seeds"] if path.is_file() else list(seeds)
    if before != list(seeds):
        raise ValueError(f"resume: wanted the seeds of the run, {before}, but got {list(seeds)}; give the same seeds")


def check_scaling(run_dir: Path, predictor: Predictor | None) -> None:
    """Check that a run to resume has this scaling: its params and best scores belong to it.

    Raises:
        ValueError: it has another one.
    """
    path = run_dir / MODEL
    before = json.loads(path.read_text(encoding="utf-8")).get("scaling") if path.is_file() else None
    now = None if predictor is None or predictor.scaling is None else predictor.scaling.to_dict()
    if path.is_file() and before != now:
        raise ValueError(
            f"resume: wanted the scaling of the run, in {path}, but the scaling of this problem differs; give the same "
            "data and split, or pass scale=train.load(run_dir).scaling"
        )


def _as_like(like: Any, stored: Any, path: Path) -> Any:
    """The stored leaves in the structure of `like`, and a check of their shapes."""
    if like is None:
        return stored

    def leaf(keys: Any, want: Any) -> jax.Array:
        value: Any = stored
        try:
            for key in keys:
                value = value[getattr(key, "name", getattr(key, "key", getattr(key, "idx", None)))]
        except (KeyError, IndexError, TypeError):
            value = None
        if value is None or value.shape[1:] != want.shape:
            came = "nothing" if value is None else f"shape {value.shape[1:]}"
            raise ValueError(
                f"load: wanted params of the model in {path}, with {name_of(keys)} of shape {want.shape}, but the "
                f"checkpoint has {came}; give the model that was trained"
            )
        return jnp.asarray(value)

    return jax.tree_util.tree_map_with_path(leaf, like)
