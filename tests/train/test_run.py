"""What `fit` takes and returns, and what `load` reads in another process."""

import subprocess
import sys
from dataclasses import dataclass, replace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jax_lstm as jl
from jax_lstm import train
from jax_lstm.train import Predictor, Problem
from tests.train.toy import PROBLEM, Line, batch, loss, score

SEEDS = (3, 5)
QUIET = {"progress": False, "log_every": 2, "eval_every": 2}
MODEL = jl.Model(jl.GRU(2, 3), 1)


def summed(model=MODEL) -> Problem:
    """Sum the features of a sequence."""
    predictor = Predictor(model)

    def draw(key, step):
        xs = jax.random.normal(jax.random.fold_in(key, step), (4, 5, 2), jnp.float32)
        return xs, xs.sum((1, 2))

    def error(params, data):
        xs, targets = data
        state, _ = jl.batched(jl.unroll)(model.cell, params.cell, xs)
        return jnp.mean(jnp.square(model.readout.apply(params.readout, state.h)[:, 0] - targets))

    return Problem(
        init=model.init,
        batch=draw,
        loss=lambda params, data, carry, key: error(params, data),
        score=lambda params: error(params, draw(jax.random.key(9), 0)),
        maximize=False,
        metric="mse",
        predictor=predictor,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two seeds, and its directory, which is given as a string."""
    run_dir = tmp_path_factory.mktemp("runs") / "new" / "gru"
    config = {"note": "mine"}
    return train.fit(summed(), optax.adam(0.01), 6, run_dir=str(run_dir), seeds=SEEDS, config=config, **QUIET), run_dir


def test_a_run_has_the_params_of_its_seeds(trained):
    run, _ = trained
    best = int(np.argmin(run.best.score))
    chex.assert_trees_all_equal(run.params, run.of_seed(SEEDS[best]))
    chex.assert_trees_all_equal(run.of_seed(5, "last"), jax.tree.map(lambda a: a[1], run.all_params("last")))
    chex.assert_trees_all_equal(run.last, run.state.params)
    assert (run.step, run.metric, run.maximize, run.seeds) == (6, "mse", False, SEEDS)
    assert (run.model, run.cell, run.scaling) == (MODEL, MODEL.cell, None)
    assert isinstance(run.params, type(MODEL.init(jax.random.key(0))))
    assert repr(run) == f"Run of seeds (3, 5) to step 6: best mse {run.best.score[best]:.4g} of seed {SEEDS[best]}"
    with pytest.raises(ValueError, match=r"^Run.of_seed: wanted a seed of \[3, 5\], but got 0; name one of them$"):
        run.of_seed(0)
    with pytest.raises(ValueError, match=r'^Run: wanted which to be "best" or "last", but got \'first\''):
        run.all_params("first")  # pyrefly: ignore


def test_load_reads_what_fit_returned(trained):
    run, run_dir = trained
    loaded = train.load(str(run_dir))
    chex.assert_trees_all_equal((loaded.best, loaded.last), (run.best, run.last))
    chex.assert_trees_all_equal(loaded.params, run.params)
    for name in ("config", "seeds", "metric", "maximize", "step", "model"):
        assert getattr(loaded, name) == getattr(run, name)
    assert loaded.state is None
    xs = np.random.default_rng(0).normal(size=(3, 5, 2)).astype(np.float32)
    np.testing.assert_array_equal(loaded.predict(xs), run.predict(xs))
    np.testing.assert_array_equal(loaded.predict(xs, params=run.of_seed(5)), run.predict(xs, params=run.of_seed(5)))


FRESH = """
import sys
import numpy as np
from jax_lstm import train

run = train.load(sys.argv[1])
print(run.predict(np.ones((1, 5, 2), np.float32)).item())
absent = [name for name in ("jax_lstm.tasks", "jax_lstm.cli") if name in sys.modules]
assert not absent, absent
"""


def test_a_fresh_process_predicts_without_the_problem(trained):
    run, run_dir = trained
    command = [sys.executable, "-c", FRESH, str(run_dir)]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    want = run.predict(np.ones((1, 5, 2), np.float32)).item()
    assert float(said.stdout) == pytest.approx(want, rel=1e-5)


@dataclass(frozen=True)
class Own(jl.GRU):
    """A cell that is not registered."""


def test_an_unregistered_model_is_given_to_load(tmp_path):
    model = jl.Model(Own(2, 3), 1)
    run = train.fit(summed(model), optax.adam(0.01), 2, run_dir=tmp_path, **QUIET)
    with pytest.raises(ValueError, match="model="):
        train.load(tmp_path)
    chex.assert_trees_all_equal(train.load(tmp_path, model).params, run.params)
    with pytest.raises(
        ValueError, match=r"^load: wanted params of the model .*, with cell.w_x of shape \(2, 12\), but"
    ):
        train.load(tmp_path, jl.Model(jl.GRU(2, 4), 1))


def test_a_problem_without_predictor_is_loaded_as_dicts(tmp_path):
    run = train.fit(PROBLEM, optax.adam(0.1), 2, run_dir=tmp_path, **QUIET)
    chex.assert_trees_all_equal(train.load(tmp_path).params, run.params._asdict())
    with pytest.raises(TypeError, match=r"^Run: wanted a run with a model, but its problem has no predictor; set"):
        run.predict(np.ones((1, 5, 2)))


def test_load_of_another_directory_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^load: wanted the directory of a run, but .* has no model.json"):
        train.load(tmp_path)


def test_saved_params_are_loaded_and_trained_on(tmp_path):
    params = MODEL.init(jax.random.key(4))
    train.save(tmp_path / "new", MODEL, params)
    run = train.load(tmp_path / "new")
    chex.assert_trees_all_equal(run.params, params)
    assert (run.step, run.metric, run.seeds) == (0, None, (0,))
    assert repr(run) == "Run of given params"
    still = train.fit(summed(), optax.sgd(0.0), 2, params=run.params, seeds=SEEDS, **QUIET)
    for seed in SEEDS:
        chex.assert_trees_all_equal(still.of_seed(seed), params)
    with pytest.raises(FileExistsError, match="already has a checkpoint of step 0"):
        train.save(tmp_path / "new", MODEL, params)
    with pytest.raises(ValueError, match=r"^save: wanted params of this model, but cell.w_x has shape \(2, 9\), not"):
        train.save(tmp_path / "other", jl.Model(jl.GRU(2, 5), 1), params)


def test_params_of_the_cell_alone_leave_the_readout_to_each_seed():
    weights = jl.interop.torch.dump(MODEL.cell, MODEL.cell.init(jax.random.key(4)))
    cell, given = jl.interop.torch.load(weights)  # a state dict of PyTorch
    assert cell == MODEL.cell
    run = train.fit(summed(), optax.sgd(0.0), 2, params=given, seeds=SEEDS, **QUIET)
    one, other = (run.of_seed(seed) for seed in SEEDS)
    chex.assert_trees_all_equal(one.cell, given)
    chex.assert_trees_all_equal(other.cell, given)
    assert (one.readout.w != other.readout.w).any()


def test_params_of_another_model_are_refused_by_leaf():
    line = Line(jnp.zeros(3), jnp.zeros(()))
    for params, said in (
        (line._replace(w=jnp.zeros(4)), r"w has shape \(4,\), not shape \(3,\); give params of this model"),
        (line._asdict(), r"its structure is PyTreeDef\({.*; give params of this model"),
        ({"w": line.w}, "b is missing"),
        (jax.tree.map(lambda a: jnp.stack([a, a]), line), r"w has shape \(2, 3\), not shape \(3,\); .*for one seed"),
    ):
        with pytest.raises(
            ValueError, match=f"^fit: wanted params like those of the model to train, or of its cell, but .*{said}"
        ):
            train.fit(PROBLEM, optax.sgd(0.1), 2, params=params, **QUIET)


def test_wrong_arguments_of_fit_get_one_sentence(tmp_path):
    sgd = optax.sgd(0.1)

    def said(error, match, **given):
        with pytest.raises(error, match=match):
            train.fit(PROBLEM, steps=2, **QUIET | {"optimizer": sgd} | given)

    said(TypeError, "^fit: optimizer must be an Optax optimizer, but is a float; give for example", optimizer=0.1)
    said(TypeError, "^fit: options must be some of devices, seeds, .*, but got epochs$", epochs=3)
    said(TypeError, "^fit: options must be .*, but got batch_size; the problem makes its batches$", batch_size=3)
    said(ValueError, "^train.patience: wanted 1 or more, or null, but got 0", patience=0)
    said(ValueError, "^fit: wanted a run_dir for resume=True, but got None; name a directory$", resume=True)
    said(ValueError, "^fit: wanted a run_dir for tensorboard=True, but got None", tensorboard=True)
    said(TypeError, "^fit: hooks must be instances of Hook, but one is a function; subclass Hook$", hooks=[print_it])
    said(TypeError, "^fit: hooks must be a list of hooks, but is a Hook; pass", hooks=train.Hook())
    said(TypeError, r"^fit: seeds must be a list of seeds, but is 3; pass \[3\]$", seeds=3)
    (tmp_path / "file").touch()
    said(FileExistsError, "^run_dir: wanted a directory, but .*file is a file", run_dir=tmp_path / "file")
    said(FileNotFoundError, "has no checkpoint", run_dir=tmp_path, resume=True)


def print_it(step):
    """No hook."""


def test_a_used_directory_is_refused_unless_resumed(tmp_path):
    run = train.fit(PROBLEM, optax.sgd(0.1), 2, run_dir=tmp_path, **QUIET)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(FileExistsError, match=r"already has a checkpoint of step 2; continue it with .*resume=True"):
        train.fit(PROBLEM, optax.sgd(0.1), 2, run_dir=tmp_path, **QUIET)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=r"^fit: wanted params or resume=True, but got both"):
        train.fit(PROBLEM, optax.sgd(0.1), 2, run_dir=tmp_path, resume=True, params=run.params, **QUIET)


def test_nothing_is_written_without_a_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = train.fit(PROBLEM, optax.adam(0.1), 4, **QUIET)
    np.testing.assert_allclose(score(run.params), run.best.score[0], rtol=1e-3)
    assert list(tmp_path.iterdir()) == []


def test_accumulated_gradients_equal_a_large_batch():
    def part(key, step):  # the quarter of a batch
        return jax.tree.map(lambda a: a.reshape(4, 2, *a.shape[1:])[step % 4], batch(key, step // 4))

    small = replace(PROBLEM, batch=part, loss=lambda params, data, carry, key: loss(params, data)[0])
    for tx in (optax.MultiSteps(optax.adam(0.1), 4), optax.MultiSteps(optax.adam(0.1), 4).gradient_transformation()):
        got = train.fit(small, tx, 12, **QUIET | {"eval_every": 12})
        want = train.fit(PROBLEM, optax.adam(0.1), 3, **QUIET)
        chex.assert_trees_all_close(got.last, want.last, rtol=1e-5)


def test_an_optimizer_may_read_the_loss():
    run = train.fit(PROBLEM, optax.polyak_sgd(), 4, **QUIET)
    fixed = train.fit(PROBLEM, optax.sgd(1e-3), 4, **QUIET)
    assert run.best.score[0] < fixed.best.score[0]


def test_several_scores_are_written_and_one_selects(tmp_path):
    def scores(params):
        return {"offset": jnp.abs(params.b - 1), "mse": score(params)}

    problem = replace(PROBLEM, score=scores)
    run = train.fit(problem, optax.adam(0.1), 6, run_dir=tmp_path, seeds=SEEDS, **QUIET)
    records = [r for r in train.read_metrics(tmp_path) if r["split"] == "validation"]
    assert [r["step"] for r in records] == [2, 4, 6]
    np.testing.assert_allclose(run.best.score, np.min([r["mse"] for r in records], axis=0))
    last = jax.vmap(scores)(run.last)
    for name in ("mse", "offset"):
        np.testing.assert_allclose(records[-1][name], last[name], rtol=1e-4)


def test_the_average_of_params_is_scored_and_kept():
    decay, kept = 0.8, []
    problem = replace(PROBLEM, metric="mse")
    for steps in range(1, 5):
        kept.append(train.fit(problem, optax.sgd(0.05), steps, progress=False).last)
    mean = jax.tree.map(lambda *ws: sum(decay ** (3 - t) * w for t, w in enumerate(ws)) * 0.2 / (1 - decay**4), *kept)
    run = train.fit(problem, optax.sgd(0.05), 4, ema=decay, progress=False)
    chex.assert_trees_all_close(run.best.params, mean, rtol=1e-5)
    chex.assert_trees_all_close(run.last, kept[-1], rtol=1e-6)
    np.testing.assert_allclose(run.best.score, jax.vmap(score)(mean), rtol=1e-4)


def test_another_optimizer_model_or_seed_cannot_resume(tmp_path):
    def resumed(problem, optimizer, seeds=SEEDS, **given):
        return train.fit(problem, optimizer, 4, run_dir=tmp_path, resume=True, seeds=seeds, **QUIET | given)

    train.fit(PROBLEM, optax.adam(0.1), 2, run_dir=tmp_path, seeds=SEEDS, **QUIET)
    wider = replace(PROBLEM, init=lambda key: PROBLEM.init(key)._replace(w=jnp.zeros(4, jnp.float32)))
    for problem, optimizer, given, said in (
        (PROBLEM, optax.sgd(0.1), {}, "opt_state.0.count is too much"),
        (wider, optax.adam(0.1), {}, r"\S*params.w has shape \(2, 3\), not \(2, 4\)"),
        (PROBLEM, optax.adam(0.1), {"ema": 0.9}, "ema.count is missing"),
    ):
        match = (
            f"^resume: wanted the state of this problem .* checkpoint of step 2 in .* differs: {said}; give the same"
        )
        with pytest.raises(ValueError, match=match):
            resumed(problem, optimizer, **given)
    with pytest.raises(ValueError, match=r"^resume: wanted the seeds of the run, \[3, 5\], but got \[3, 6\]; give"):
        resumed(PROBLEM, optax.adam(0.1), (3, 6))
    assert resumed(PROBLEM, optax.adam(0.1)).step == 4


def test_a_metric_that_is_not_finite_is_written_as_null(tmp_path):
    problem = replace(
        PROBLEM,
        loss=lambda params, data, carry, key: (loss(params, data)[0], {"odd": jnp.log(-1 - params.b**2)}),
        score=lambda params: {"mse": score(params), "odd": -jnp.inf},
    )
    train.fit(
        problem, optax.adam(0.1), 2, run_dir=tmp_path, tensorboard=True, seeds=SEEDS, **QUIET | {"progress": True}
    )
    assert [r["odd"] for r in train.read_metrics(tmp_path)] == [[None, None]] * 2


def test_a_callback_in_the_loss_runs_at_every_step():
    seen = []

    def told(params, data, carry, key):
        jax.debug.callback(lambda x: seen.append(float(x)), params.b)
        return loss(params, data)

    run = train.fit(replace(PROBLEM, loss=told), optax.sgd(0.1), 6, **QUIET)
    jax.effects_barrier()
    assert len(seen) == 6
    assert seen[0] == 0 != run.last.b[0]


def test_a_run_is_not_resumed_with_another_scaling(tmp_path):
    xs = np.random.default_rng(0).normal(size=(10, 3, 2))

    def fit(ys, steps, **options):
        problem = train.supervised(jl.RNN(2, 2), xs, ys, scale=True)
        return train.fit(problem, optax.sgd(0.1), steps=steps, run_dir=tmp_path / "run", **QUIET, **options)

    fit(xs[:, 0], 2)
    fit(xs[:, 0], 4, resume=True)
    with pytest.raises(ValueError, match=r"^resume: wanted the scaling of the run, .* but the scaling of this problem"):
        fit(2 * xs[:, 0], 6, resume=True)
    assert train.load(tmp_path / "run").step == 4
