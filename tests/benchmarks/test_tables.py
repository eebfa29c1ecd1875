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
    assert (
        "A train step is faster than in Flax, Haiku, Equinox and Keras at the five shapes of our CPU benchmark" in text
    )
    assert "PyTorch is faster at every shape on one CPU device." in text
    assert "In the forward pass, the best JAX peer is faster too, except at batch size 1." in text
    for row in tables.read("speed")["rows"]:
        figures = row["figures"]
        ours = {kind: figures[tables.OURS][kind]["ms"] for kind in ("train", "forward")}
        assert ours["train"] < tables.best(figures, "train")[1]
        assert (tables.best(figures, "forward")[1] < ours["forward"]) == (row["shape"][0] > 1)
        assert all(figures[tables.TORCH][kind]["ms"] < ours[kind] for kind in ours)


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
