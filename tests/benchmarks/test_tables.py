"""The tables and the picture are made from the results, and the README claims no more than was measured."""

import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
import tables  # noqa: E402


@pytest.mark.parametrize("path", tables.FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_the_tables_of_a_page_are_made_from_the_results(path):
    text = path.read_text()
    assert "<!-- bench:" in text
    assert tables.filled(text) == text


def test_every_table_is_on_a_page():
    pages = [path.read_text() for path in tables.FILES]
    assert all(any(f"<!-- bench:{name} -->" in page for page in pages) for name in tables.TABLES)
    assert "<!-- bench:brief -->" in pages[0]


def test_the_picture_is_drawn_from_the_results(tmp_path):
    tables.draw(tmp_path / "speed.png")
    with Image.open(tables.PICTURE) as picture:
        picture.load()
        assert picture.info["Description"] == tables.drawn_from()
    # The same bars, whatever the fonts of another matplotlib.
    assert np.abs(imread(tmp_path / "speed.png") - imread(tables.PICTURE)).mean() < 0.02


def test_the_readme_claims_about_speed_match_the_measurements():
    text = " ".join(tables.FILES[0].read_text().split())
    assert "A train step is faster than in Flax, Haiku, Equinox and Keras at every shape measured on a CPU" in text
    assert "PyTorch is faster at most shapes." in text
    assert "In the forward pass jax_lstm takes 0.9 to 1.2 times as long as the best JAX peer." in text
    rows, faster = tables.read("speed")["rows"], []
    for row in rows:
        figures = row["figures"]
        for name in (tables.OURS, tables.BATCHED, tables.VMAP):
            assert figures[name]["train"]["ms"] < tables.best(figures, "train")[1]
        ours = {kind: figures[tables.OURS][kind]["ms"] for kind in ("train", "forward")}
        assert 0.9 <= ours["forward"] / tables.best(figures, "forward")[1] < 1.25
        faster += [figures[tables.TORCH][kind]["ms"] < ours[kind] for kind in ours]
    assert sum(faster) > 1.4 * len(rows)  # of the train step and the forward pass


def times(**ms):
    """The figures of some libraries, each with one time of the train step and of the forward pass."""
    return {name.replace("_", " "): {"train": {"ms": t}, "forward": {"ms": t}} for name, t in ms.items()}


def test_other_ways_of_ours_are_columns_and_no_peers(monkeypatch):
    first = times(PyTorch=2.0, Haiku=5.0) | {"jax_lstm": times(a=2.0)["a"], "jax_lstm, vmap": times(a=3.0)["a"]}
    second = first | {"jax_lstm, batched": times(a=4.0)["a"], "jax_lstm, vmap": times(a=12.0)["a"]}
    assert tables.best(second, "train") == ("Haiku", 5.0)

    rows = [{"shape": [k] * 4, "figures": figures} for k, figures in enumerate((first, second))]
    monkeypatch.setattr(tables, "read", lambda name: {"rows": rows})
    assert tables.speed_brief().splitlines()[2:] == [
        "|0, 0, 0, 0|0.40||0.60|0.40|1.00|",
        "|1, 1, 1, 1|0.40|0.80|2.40|0.40|1.00|",
        "|geometric mean|0.40||1.20|0.40|1.00|",
        "|worst|0.40||2.40|0.40|1.00|",
    ]


def test_a_changed_figure_would_be_noticed(monkeypatch):
    text = tables.FILES[0].read_text()
    read = tables.read

    def altered(name):
        results = read(name)
        if name == "speed":
            for row in results["rows"]:
                row["figures"]["jax_lstm"]["train"]["ms"] *= 2
        return results

    monkeypatch.setattr(tables, "read", altered)
    assert tables.filled(text) != text
