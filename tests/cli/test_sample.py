"""A model of bytes from the command line: trained with a state that goes on, sampled, and what is refused."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_lstm as jl
from jax_lstm.cli import main
from jax_lstm.cli.build import Experiment, ModelConfig, build_problem
from jax_lstm.cli.choice import Choice
from jax_lstm.tasks import Bytes
from jax_lstm.train import OptConfig, TrainConfig, read_metrics

pytestmark = pytest.mark.slow  # make test-all runs it

ROOT = Path(__file__).parents[2]
CONFIG = str(ROOT / "configs/bytes.yaml")
SMALL = ["--model.hidden_size", "12", "--model.embedding", "6", "--train.batch_size", "4", "--train.devices", "1"]
SMALL += ["--train.steps", "2", "--opt.schedule", "constant", "--opt.warmup_steps", "0"]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A run of two steps."""
    folder = tmp_path_factory.mktemp("bytes") / "run"
    assert main(["train", CONFIG, "--run_dir", str(folder), *SMALL]) == 0
    return folder


def test_a_run_of_bytes_is_scored_beside_an_ngram(run_dir, capsys):
    assert main(["evaluate", str(run_dir), "--split", "validation"]) == 0
    printed = capsys.readouterr().out
    assert "order-3 n-gram" in printed
    assert f"{Bytes().baselines('validation')['order-3 n-gram']:.4f}" in printed
    assert read_metrics(run_dir)[-1]["bits_per_byte"][0] < 9


def test_a_sample_starts_with_its_prompt_and_depends_on_the_seed(run_dir, capsys):
    def sampled(*arguments):
        assert main(["sample", str(run_dir), "--prompt", "class ", "--length", "30", *arguments]) == 0
        return capsys.readouterr().out

    one = sampled("--temperature", "1.0", "--top_p", "1.0")
    assert one.startswith("class ")
    assert one == sampled("--temperature", "1.0", "--top_p", "1.0")
    assert one != sampled("--temperature", "1.0", "--top_p", "1.0", "--seed", "1")
    greedy = [sampled("--temperature", "0", "--seed", seed) for seed in "01"]
    assert greedy[0] == greedy[1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--prompt", ""], "--prompt: wanted at least one byte"),
        (["--length", "-1"], "steps must be at least 0"),
        (["--temperature", "-1"], "temperature must be 0 or more"),
        (["--top_p", "0"], "top_p must be above 0 and at most 1"),
        (["--seed", "-1"], "--seed: wanted a number from 0"),
    ],
)
def test_a_faulty_choice_is_refused_with_2(run_dir, capsys, arguments, says):
    with pytest.raises(SystemExit) as stopped:
        main(["sample", str(run_dir), *arguments])
    assert stopped.value.code == 2
    assert says in capsys.readouterr().err


def test_a_run_of_another_task_is_not_sampled(tmp_path, capsys):
    small = ["--train.steps", "1", "--train.eval_every", "1", "--train.log_every", "1", "--train.seeds", "[0]"]
    assert main(["train", str(ROOT / "configs/parity.yaml"), "--run_dir", str(tmp_path / "run"), *small]) == 0
    with pytest.raises(SystemExit):
        main(["sample", str(tmp_path / "run")])
    assert "wanted a run of task bytes" in capsys.readouterr().err


def test_a_run_of_a_text_of_ones_own_is_sampled_without_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("book").mkdir()
    for name in ("one.txt", "two.txt", "left.out"):
        Path("book", name).write_text("It was the best of times. " * 40, encoding="utf-8")
    small = [*SMALL, "--data.trained", "8", "--model.hidden_size", "4", "--model.layers", "1"]
    argv = ["train", str(ROOT / "configs/text.yaml"), "--data.path", "book", "--data.suffixes", ".txt", *small]
    assert main([*argv, "--run_dir", "run"]) == 0
    assert "order-3 n-gram" in capsys.readouterr().out
    assert main(["evaluate", "run"]) == 0
    Path("book").rename("gone")
    capsys.readouterr()
    assert main(["sample", "run", "--prompt", "It ", "--length", "5"]) == 0
    assert capsys.readouterr().out.startswith("It ")


def test_a_network_that_was_imported_may_be_sampled(tmp_path, capsys):
    model = jl.Model(jl.RNN(2, 3), 256, 256)
    jl.interop.safetensors.dump(model, model.init(jax.random.key(0)), tmp_path / "model.safetensors")
    assert main(["import", str(tmp_path / "model.safetensors"), "--to", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    assert main(["sample", str(tmp_path / "run"), "--length", "2"]) == 0
    assert capsys.readouterr().out.startswith("def ")


def experiment(**model):
    config = ModelConfig(Choice("LSTM"), 5, layers=2, embedding=3, **model)
    return Experiment(
        config, Choice("bytes", {"trained": 7}), OptConfig(), TrainConfig(steps=2, batch_size=4), "nowhere"
    )


def test_state_and_streams_continue_from_one_step_to_the_next():
    problem = build_problem(experiment())
    params, key = problem.init(jax.random.key(0)), jax.random.key(1)
    assert problem.carry is not None
    assert problem.batch is not None
    carry = problem.carry(params)
    batches = [problem.batch(key, t) for t in (0, 1)]
    losses = []
    for batch in batches:
        loss, _, carry = problem.loss(params, batch, carry, key)
        losses.append(loss)
    whole = jnp.concatenate([b.xs for b in batches], axis=1)
    cell = experiment().model.build(Bytes(7))
    net = jl.Model(cell, 256, 256)
    state, ys = jax.vmap(net.apply, (None, 0))(params, whole)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), carry, state)
    targets = jnp.concatenate([b.targets for b in batches], axis=1)
    expected = -jnp.take_along_axis(jax.nn.log_softmax(ys), targets[..., None], axis=-1).mean()
    np.testing.assert_allclose(np.mean(losses), expected, rtol=1e-5)


def test_dropout_uses_the_step_key_and_is_off_in_validation():
    problem = build_problem(experiment(dropout=0.5))
    assert problem.batch is not None
    params, batch = problem.init(jax.random.key(0)), problem.batch(jax.random.key(1), 0)
    assert problem.carry is not None
    carry = problem.carry(params)
    losses = [problem.loss(params, batch, carry, jax.random.key(k))[0] for k in (2, 2, 3)]
    assert losses[0] == losses[1] != losses[2]
    assert problem.score(params) == problem.score(params)


@pytest.mark.parametrize(
    ("model", "task", "says"),
    [
        ({"layers": 0}, "adding", "model.layers"),
        ({"dropout": 0.5}, "adding", "model.dropout"),
        ({"dropout": 1.0, "layers": 2}, "adding", "model.dropout"),
        ({"embedding": 3}, "adding", "model.embedding"),
        ({"embedding": 0}, "bytes", "model.embedding"),
        ({"cell": Choice("LSTM", {"hidden_size": 3})}, "adding", "model.cell: .*hidden_size"),
        ({"cell": Choice("LSTM", {"peepholes": True})}, "adding", "model.cell: .*peepholes"),
    ],
)
def test_an_invalid_model_is_refused_by_the_name_of_its_key(model, task, says):
    def make():
        config = ModelConfig(**({"cell": Choice("LSTM"), "hidden_size": 5} | model))
        return Experiment(config, Choice(task), OptConfig(), TrainConfig(), "nowhere")

    with pytest.raises(ValueError, match=says):
        make()
