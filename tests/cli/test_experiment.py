"""The experiment command: what it counts, what it writes, and that every experiment's file is alive."""

import json
from pathlib import Path

import pytest

from jax_lstm.cli import main
from jax_lstm.cli.experiment import first_solved, read_run, turning_points
from jax_lstm.cli.measures import BY_NAME
from jax_lstm.cli.results import count, joined, page, read_results, read_spec, say, summary
from jax_lstm.tasks import Reber

pytestmark = pytest.mark.slow  # make test-all runs it

ROOT = Path(__file__).parents[2]
SPECS = sorted((ROOT / "configs" / "experiments").glob("*.yaml"))
RESULTS = ROOT / "notebooks" / "results"
CURVE = [
    {"step": 10, "mse": [0.5, 0.1, 0.5]},
    {"step": 20, "mse": [0.2, 0.4, 0.5]},
    {"step": 30, "mse": [0.1, 0.1, 0.5]},
]


def test_first_solved_counts_sequences_up_to_a_good_score():
    assert first_solved(CURVE, "mse", False, 0.2, 8) == [160, 80, None]
    assert first_solved(CURVE, "mse", True, 0.4, 8) == [80, 160, 80]
    assert first_solved(CURVE, "mse", False, None, 8) == [None] * 3


def test_a_mark_is_met_by_the_seeds_within_its_bounds():
    results = {"LSTM": {"score": [0.9, 1.0, 0.99], "sequences": [100, None, 300], "measured": {"λ": [0.0, 2.0, 1.0]}}}
    assert count({"run": "LSTM", "of": "score", "at_least": 0.99}, results) == 2
    assert count({"run": "LSTM", "of": "sequences", "at_most": 200}, results) == 1
    assert count({"run": "LSTM", "of": "score", "at_least": 0.95, "at_most": 0.995}, results) == 1
    assert count({"run": "LSTM", "of": "λ", "at_most": 1}, results) == 2
    mark = {"run": "LSTM", "of": "sequences", "at_most": 30000, "seeds": 3}
    assert say(mark | {"seeds_that_do": 3}) == (
        "LSTM: training sequences until solved at most 30,000, required for 3 seeds, reached by 3: met"
    )
    assert say(mark | {"seeds_that_do": 2}).endswith("reached by 2: NOT met")


def test_a_mark_on_an_order_is_met_where_means_do_not_fall():
    results = {"a": {"sequences": [100, 200]}, "b": {"sequences": [150, 150]}, "c": {"sequences": [100, None]}}
    ordered = {"of": "sequences", "seeds": 1}
    assert count(ordered | {"runs": ["a", "b", "c"]}, results) == 1
    assert count(ordered | {"runs": ["c", "a"]}, results) == 0
    assert count(ordered | {"runs": ["a", "b"]}, results) == 0, "the last must be worse than the first"
    assert say(ordered | {"runs": ["a", "c"], "seeds_that_do": 1}) == "mean training sequences until solved: a ≤ c: met"


def test_equality_marks_use_the_interquartile_range_of_run_one():
    results = {"a": {"score": [1, 2, 3, 4, 5]}, "b": {"score": [1, 4, 5, 6, 9]}, "c": {"score": [2, 3, 7, 11, 12]}}
    equal = {"of": "score", "apart": "interquartile range", "seeds": 1}
    assert count(equal | {"runs": ["a", "b"]}, results) == 1, "5 and 3, and ranges of 2"
    assert count(equal | {"runs": ["a", "c"]}, results) == 0, "3 and 7, and the first range is 2, though one is 8"
    assert count(equal | {"runs": ["c", "a"]}, results) == 1
    said = say(equal | {"runs": ["a", "b"], "seeds_that_do": 1})
    assert said == "mean test score: a = b, to within the interquartile range of a: met"


def test_turning_points_are_start_end_and_leaving_the_plateau():
    def probe(step):
        return {"step": step, "split": "probe", "log_norms": [[-step, 0.0], [-3 * step, 0.0]]}

    def validation(step, *scores):
        return {"step": step, "split": "validation", "mse": scores}

    records = [probe(0), validation(10, 1.0, 0.9), probe(10), validation(20, 0.9, 0.6), probe(20), probe(30)]
    found = turning_points(records, "mse", False, 1.0)
    assert [(p["when"], p["step"]) for p in found] == [("start", 0), ("leaves the plateau", 20), ("end", 30)]
    assert found[1]["ln_norm"] == [-40, 0]
    assert [p["when"] for p in turning_points(records, "mse", False, None)] == ["start", "end"]
    assert turning_points(records[1:2], "mse", False, 1.0) == []


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_every_experiment_spec_has_all_fields_and_valid_marks(path):
    spec = read_spec(path)
    texts = {"title", "part", "source", "published", "reproduction", "deviations"}
    assert set(spec) - {"measure", "overnight"} == texts | {"minutes", "runs", "solved", "marks"}
    assert all(isinstance(spec[key], str) and spec[key] for key in texts)
    assert set(spec.get("measure", [])) <= set(BY_NAME)
    for name, run in spec["runs"].items():
        experiment = read_run(ROOT / "configs", run, path.stem, name, None)
        assert len(experiment.train.seeds) >= 5
    for mark in spec["marks"]:
        if "runs" in mark:
            assert set(mark["runs"]) <= set(spec["runs"])
            continue
        assert mark["run"] in spec["runs"]
        assert {"at_least", "at_most"} & set(mark)
        assert mark["seeds"] >= 4


def test_a_quick_trial_writes_its_figures_and_the_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    configs, trials = ["--configs", str(ROOT / "configs")], tmp_path / "runs" / "trials"
    assert main(["experiment", "reber", "--quick", "2", *configs]) == 0
    assert not (tmp_path / "notebooks").exists(), "a trial must not take the place of a result"
    result = json.loads((trials / "reber.json").read_text(encoding="utf-8"))
    assert result["quick"] == 2
    assert set(result["results"]) == {"LSTM, b_f = 1", "tanh RNN"}
    mask = Reber().validation().mask
    assert mask is not None
    shared = int(mask[:4].sum(axis=1).min())
    for run in result["results"].values():
        assert run["seeds"] == list(range(10))
        assert all(0 <= score <= 1 for score in run["score"])
        assert len(run["score"]) == 10
        assert run["curve"]["sequences"] == [16]
        profile = run["ln_norm_ds_T_ds_k"]
        assert len(profile) == shared + 1, "no padding is measured"
        assert profile[-1] == 0
        assert all(x != 0 for x in profile[:-1])
    assert (trials / "reber.png").stat().st_size > 10_000
    spec = read_spec(ROOT / "configs" / "experiments" / "reber.yaml")
    assert [mark["seeds_that_do"] for mark in joined(result, spec)["marks"]] == [0, 0]
    assert "NOT met" in " ".join(capsys.readouterr().out.split())
    assert main(["experiment", "--table", *configs, "--out", str(trials)]) == 0
    written = (trials / "README.md").read_text(encoding="utf-8")
    results = read_results(trials, ROOT / "configs" / "experiments")
    assert written == page(results)
    assert "| Embedded Reber grammar (1) | tanh RNN | accuracy" in written
    row = summary(results).splitlines()[2]
    assert row.startswith("| Embedded Reber grammar (1) | 148 of 150 trials")
    assert row.endswith("| | 0 of 2 |")


def test_the_list_names_every_experiment_with_its_minutes(capsys):
    assert main(["experiment", "--list", "--configs", str(ROOT / "configs")]) == 0
    out = capsys.readouterr().out
    assert all(path.stem in out for path in SPECS)
    assert len(SPECS) >= 4


def test_the_results_pages_are_made_from_full_runs_only():
    results = sorted(RESULTS.glob("*.json"))
    assert {path.stem for path in results} == {p.stem for p in SPECS if not read_spec(p).get("overnight")}
    for path in results:
        result = json.loads(path.read_text(encoding="utf-8"))
        assert result["quick"] is None
        spec = read_spec(SPECS[0].parent / f"{path.stem}.yaml")
        # No word, mark or bound that a spec holds is kept a second time; what was run is, and is what the spec says.
        assert set(result) == {"name", "quick", "runs", "solved", "results"}
        assert (result["name"], result["runs"], result["solved"]) == (path.stem, spec["runs"], spec["solved"])
        assert set(result["results"]) == set(spec["runs"])
    found = read_results(RESULTS, SPECS[0].parent)
    assert (RESULTS / "README.md").read_text(encoding="utf-8") == page(found)
    shown = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    assert f"<!-- experiments -->\n{summary(found).strip()}\n<!-- /experiments -->" in shown


def test_a_table_of_nothing_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["experiment", "--table", "--configs", str(ROOT / "configs"), "--out", str(tmp_path / "nowhere")])
    assert "has no results" in capsys.readouterr().err


def test_an_unknown_name_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main(["experiment", "nothing", "--configs", str(ROOT / "configs")])
    assert left.value.code == 2
    assert "wanted one of a5, adding, adding_1997" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
