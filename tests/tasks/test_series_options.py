"""The options of the task series: several ways to write them, and what is refused."""

import pytest

from jax_lstm.tasks import TASKS, Series


def test_columns_are_text_or_a_list():
    one, other = Series("a.csv", "rain,temp", "flow"), Series("a.csv", ["rain", " temp"], ["flow"])
    assert one == other
    assert hash(one) == hash(other)
    assert one.inputs == ("rain", "temp")
    assert Series("a.csv", ["a,b"], "y").inputs == ("a,b",)
    assert TASKS["series"] is Series
    assert Series.section == "data"


def test_forecasting_reads_its_targets_by_default():
    assert Series("a.csv", targets="flow", kind="forecasting").inputs == ("flow",)
    assert Series("a.csv", "rain", "flow", kind="forecasting").inputs == ("rain",)


def test_auto_is_chosen_by_the_kind():
    assert (Series("a.csv", "x", "y").metric, Series("a.csv", "x", "y").split_by) == ("mse", "time")
    found = Series("a.csv", "x", "y", sequence="s", kind="classification")
    assert (found.metric, found.split_by, found.loss) == ("accuracy", "sequence", "cross_entropy")
    assert Series("a.csv", "x", "y", metric="nse").maximize


REFUSED = [
    ({"path": None}, r"^Series: path must be a file, but is None; give yours with --data\.path FILE$"),
    ({"targets": None}, r"targets must name columns, but is None; give them with --data\.targets"),
    ({"inputs": None}, r"inputs must name columns, but is None; give them with --data\.inputs"),
    ({"inputs": "x,,z"}, "inputs must be names such as rain,temp, but a name in 'x,,z' is empty"),
    ({"inputs": "x,y"}, "inputs must not have a target for regression, but both have 'y'"),
    ({"kind": "guess"}, "kind must be one of regression, forecasting, classification, labeling, but is 'guess'"),
    ({"kind": "labeling", "targets": "y,z"}, "targets must be one column of labels for labeling, but are y, z"),
    ({"sequence": "t", "time": "t"}, "sequence and time must be two columns, but both are 't'"),
    ({"kind": "classification", "split_by": "time"}, "split_by must be sequence for classification"),
    ({"kind": "classification", "window": 3}, "window and warmup must be None and 0 for classification"),
    ({"ahead": 2}, "ahead must be 1 for regression, which does not use it, but is 2"),
    ({"kind": "forecasting", "ahead": 0}, "ahead must be at least 1, but is 0"),
    ({"window": 0}, "window must be at least 1, but is 0"),
    ({"stride": 2}, "stride must be None without a window, but is 2"),
    ({"window": 3, "warmup": 3}, "warmup must be below window = 3, but is 3"),
    ({"warmup": -1}, "warmup must be at least 0, but is -1"),
    ({"split_by": "row"}, "split_by must be one of auto, time, sequence, but is 'row'"),
    ({"fractions": (0.5, 0.5, 0.5)}, "fractions must be three numbers above 0 with the sum 1"),
    ({"fractions": (0.5, 0.5)}, "fractions must be three numbers above 0 with the sum 1"),
    ({"fractions": 0.7}, "fractions must be three numbers above 0 with the sum 1"),
    ({"fractions": "0.7,0.2,0.1"}, "fractions must be three numbers above 0 with the sum 1"),
    ({"fractions": (1.0, 0.0, 0.0)}, "fractions must be three numbers above 0 with the sum 1"),
    ({"holes": "zero"}, "holes must be one of mean, last, but is 'zero'"),
    ({"metric": "accuracy"}, "metric must be one of auto, mse, mae, rmse, nse, kge, but is 'accuracy'"),
    ({"season": 0}, "season must be at least 1, but is 0"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Series(**{"path": "a.csv", "inputs": "x", "targets": "y"} | options)


def test_columns_of_another_type_are_refused():
    with pytest.raises(TypeError, match="inputs must be names such as rain,temp, or a list of names, but is"):
        Series("a.csv", [1, 2], "y")


def test_a_part_without_known_targets_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n" + "".join(f"{k},{k if k < 8 else ''}\n" for k in range(10)))
    with pytest.raises(
        ValueError, match=r"wanted known targets in the test part, but there are none; change fractions"
    ):
        Series(str(tmp_path / "a.csv"), "x", "y").test()
    (tmp_path / "a.csv").write_text("x,y\n" + "".join(f"{k if k > 8 else ''},{k}\n" for k in range(10)))
    with pytest.raises(ValueError, match=r"column 'x': wanted values in the training part, but all are absent"):
        Series(str(tmp_path / "a.csv"), "x", "y").test()
