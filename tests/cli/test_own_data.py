"""A file of one's own: trained, scored and predicted by three commands."""

import csv
import json
from pathlib import Path

import jax
import numpy as np
import pytest
import yaml
from rich.console import Console

from jax_lstm import RNN
from jax_lstm.cli import main
from jax_lstm.cli.evaluate import _table
from jax_lstm.data import split_rows
from jax_lstm.train import load, read_metrics, save

SMALL = ["--model.cell", "RNN", "--model.hidden_size", "3", "--train.batch_size", "2", "--train.devices", "1"]
SMALL += ["--train.steps", "2", "--train.eval_every", "1", "--train.log_every", "1"]
FLOWS = ["--task", "series", "--data.path", "flows.csv", "--data.inputs", "rain,temp", "--data.targets", "flow"]
FLOWS += ["--data.sequence", "site", "--data.time", "date", "--data.split_by", "sequence"]


def write_flows(path, targets=True):
    """Rows of three interleaved sites of unequal lengths, with holes."""
    rng = np.random.default_rng(0)
    rows = [(site, day, *rng.gamma(1, 2, 3)) for day in range(14) for site in "abc" if day < 14 - 2 * "abc".index(site)]
    with open(path, "w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["site", "date", "rain", "temp", *["flow"] * targets])
        for k, (site, day, rain, temp, flow) in enumerate(rows):
            shown = ["" if k % 7 == 3 else f"{rain:.3f}", f"{temp:.3f}", "" if k % 9 == 4 else f"{100 + flow:.3f}"]
            out.writerow([site, f"2020-01-{day + 1:02d}", *shown[: 2 + targets]])


def table(path):
    """The rows of a CSV file, as dicts."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the run `run` of two seeds; its training file is gone, and `new.csv` has the same inputs."""
    folder = tmp_path_factory.mktemp("flows")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_flows("flows.csv")
        write_flows("new.csv", targets=False)
        assert main(["train", *FLOWS, *SMALL, "--train.seeds", "[0, 4]", "--run_dir", "run"]) == 0
        assert main(["evaluate", "run"]) == 0
        Path("flows.csv").rename("gone.csv")
    return folder


@pytest.fixture
def here(folder, monkeypatch):
    """The folder of the run as the working directory."""
    monkeypatch.chdir(folder)
    return folder


def refused(capsys, *argv):
    with pytest.raises(SystemExit) as left:
        main([*argv])
    out, err = capsys.readouterr()
    assert left.value.code == 2
    assert "Traceback" not in out + err
    return " ".join(err.split("error:")[-1].split())


def test_a_run_has_all_scores_and_what_predictions_need(here):
    config = yaml.safe_load(Path("run/config.yaml").read_text(encoding="utf-8"))
    assert config["task"] == "series"
    assert config["data"]["path"] == "flows.csv"
    facts = json.loads(Path("run/data.json").read_text(encoding="utf-8"))
    assert (facts["inputs"], facts["targets"], facts["flagged"]) == (["rain", "temp"], ["flow"], [0])
    record = [r for r in read_metrics(Path("run")) if r["split"] == "validation"][-1]
    assert {"mse", "mae", "rmse", "nse", "kge"} <= set(record)


@pytest.mark.parametrize("seed", [0, 4])
def test_scores_are_those_of_the_predictions_in_the_files_units(here, seed):
    """The test part is one site. Its predictions, as text in a CSV file, have the score that evaluate reports."""
    report = json.loads(Path("run/test.json").read_text(encoding="utf-8"))
    assert main(["predict", "run", "--data.path", "gone.csv", "--out", "all.csv", "--seed", str(seed)]) == 0
    site = "abc"[int(split_rows(3)[2][0])]
    pairs = list(zip(table("all.csv"), table("gone.csv"), strict=True))
    assert all((y["site"], y["date"]) == (k["site"], k["date"]) for y, k in pairs)
    errors = [float(y["flow"]) - float(k["flow"]) for y, k in pairs if k["site"] == site and k["flow"]]
    mse = np.mean(np.square(errors))
    n = report["seeds"].index(seed)
    assert report["scores"][n] == pytest.approx(mse, rel=1e-4)
    assert report["more"]["rmse"]["scores"][n] == pytest.approx(np.sqrt(mse), rel=1e-4)
    assert report["mean"] == pytest.approx(np.mean(report["scores"]))


def test_the_table_has_every_score_of_seeds_and_baselines(here, capsys):
    assert refused(capsys, "evaluate", "run").startswith("flows.csv: wanted a file, but there is none")
    report = json.loads(Path("run/test.json").read_text(encoding="utf-8"))
    assert set(report["more"]) == {"mae", "rmse", "nse", "kge"}
    assert set(report["baselines"]) == {"mean", "persistence"} == set(report["more"]["nse"]["baselines"])
    shown = Console(width=120)
    with shown.capture() as text:
        shown.print(_table(Path("run"), report))
    for number in (*report["scores"], report["mean"], report["baselines"]["mean"], report["more"]["kge"]["mean"]):
        assert f"{number:.4f}" in text.get()


def test_predictions_need_no_targets_and_no_training_file(here, capsys):
    assert main(["predict", "run", "--data.path", "new.csv"]) == 0
    assert "Written to run/predictions.csv: 36 predictions of seed" in capsys.readouterr().out
    rows = table("run/predictions.csv")
    assert [(row["site"], row["date"]) for row in rows] == [(k["site"], k["date"]) for k in table("new.csv")]
    assert list(rows[0]) == ["site", "date", "flow"]


def test_predictions_of_the_mean_are_the_mean_of_the_seeds(here):
    found = {}
    for seed in ("0", "4", "mean"):
        assert main(["predict", "run", "--data.path", "new.csv", "--out", "of.csv", "--seed", seed]) == 0
        found[seed] = np.array([float(row["flow"]) for row in table("of.csv")])
    np.testing.assert_allclose(found["mean"], (found["0"] + found["4"]) / 2, rtol=1e-5)
    assert np.abs(found["0"] - found["4"]).max() > 1e-3


def test_a_process_without_the_task_loads_the_run(here):
    run = load("run")
    xs = np.ones((1, 4, 3), np.float32)
    assert run.predict(xs).shape == (1, 4, 1)
    assert run.seeds == (0, 4)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["run", "--data.path", "none.csv"], "none.csv: wanted a file, but there is none"),
        (["run", "--data.path", "dry.csv"], "wanted a column 'rain'"),
        (["run", "--data.path", "new.csv", "--seed", "3"], "--seed: wanted one of 0, 4, or mean, but got 3"),
        (["run", "--data.path", "new.csv", "--seed", "best"], "seed"),
        (["run", "--data.path", "new.csv", "--out", "no/such/folder.csv"], "no/such/folder.csv"),
        (["run"], "data.path"),
        (
            ["nowhere", "--data.path", "new.csv"],
            "run_dir: wanted the directory of a run, but nowhere has no",
        ),
    ],
    ids=" ".join,
)
def test_predict_refuses_in_one_sentence(here, capsys, argv, says):
    Path("dry.csv").write_text("site,date,temp\na,2020-01-01,1\n", encoding="utf-8")
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    assert says in refused(capsys, "predict", *argv)
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


def test_damaged_facts_are_named(here, capsys):
    path = Path("run/data.json")
    whole = path.read_text(encoding="utf-8")
    try:
        for damaged in (whole[:50], "{}"):
            path.write_text(damaged, encoding="utf-8")
            assert "run/data.json is damaged" in refused(capsys, "predict", "run", "--data.path", "new.csv")
    finally:
        path.write_text(whole, encoding="utf-8")


def test_a_run_continues_on_the_same_data_only(here, capsys):
    argv = ["train", "run/config.yaml", "--resume", "--train.steps", "3"]
    write_flows("flows.csv")
    try:
        text = Path("flows.csv").read_text(encoding="utf-8")
        Path("flows.csv").write_text(text.replace(",100.", ",200."), encoding="utf-8")
        assert "--resume: the training file must be the same" in refused(capsys, *argv)
    finally:
        Path("flows.csv").unlink()


LABELS = ["--task", "series", "--data.path", "labels.csv", "--data.inputs", "x", "--data.targets", "kind"]


@pytest.mark.parametrize(
    ("kind", "rows", "head"),
    [("classification", 6, ["sequence", "kind", "probability"]), ("labeling", 24, ["step", "kind", "probability"])],
)
def test_labels_are_predicted_with_their_probability(kind, rows, head, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    classes = kind == "classification"
    lines = ["sequence,x,kind"]
    for n in range(6):
        for t in range(4):
            x = (n if classes else n + t) % 2
            lines.append(f"{n},{x},{('wet', 'dry')[x]}")
    Path("labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    more = ["--data.sequence", "sequence"] if classes else []
    assert main(["train", *LABELS, "--data.kind", kind, *more, *SMALL, "--run_dir", "run"]) == 0
    assert main(["predict", "run", "--data.path", "labels.csv"]) == 0
    found = table("run/predictions.csv")
    assert (len(found), list(found[0])) == (rows, head)
    assert {row["kind"] for row in found} <= {"dry", "wet"}
    assert classes or [int(row["step"]) for row in found] == list(range(24))
    assert all(0.5 <= float(row["probability"]) <= 1 for row in found)


def test_only_a_run_of_series_predicts_from_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save("run", RNN(1, 2), RNN(1, 2).init(jax.random.key(0)))
    assert "run is another; in Python, run it with train.load" in refused(
        capsys, "predict", "run", "--data.path", "a.csv"
    )


def test_a_forecast_names_the_steps_ahead(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_flows("flows.csv")
    ahead = ["--data.kind", "forecasting", "--data.ahead", "2"]
    assert main(["train", *FLOWS, *ahead, *SMALL, "--run_dir", "run"]) == 0
    assert main(["predict", "run", "--data.path", "flows.csv"]) == 0
    assert list(table("run/predictions.csv")[0]) == ["site", "date", "flow+2"]


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--data.path", "none.csv"], "none.csv: wanted a file, but there is none"),
        (["--data.path", "."], "directory"),
        (["--data.inputs", "rain,wind"], "wanted a column 'wind'"),
        (["--data.inputs", "site"], "column"),
        (["--data.kind", "guess"], "kind"),
        (["--data.path", "null"], "give yours with --data.path FILE"),
    ],
    ids=" ".join,
)
def test_a_bad_file_is_refused_and_nothing_is_written(tmp_path, monkeypatch, capsys, argv, says):
    monkeypatch.chdir(tmp_path)
    write_flows("flows.csv")
    assert says in refused(capsys, "train", *FLOWS, *SMALL, "--run_dir", "run", *argv)
    assert [path.name for path in Path().iterdir()] == ["flows.csv"]


def test_a_file_that_cannot_be_written_is_an_error_of_out(here, capsys):
    said = refused(capsys, "predict", "run", "--data.path", "gone.csv", "--out", "no/folder.csv")
    assert (
        said
        == "--out: wanted a file that can be written, but got no/folder.csv (No such file or directory); name another"
    )


def test_a_text_that_does_not_exist_is_no_error_of_the_batch(here, capsys):
    said = refused(capsys, "train", "text.yaml", "--data.path", "nowhere")
    assert said.startswith("nowhere: wanted a file or a folder")
