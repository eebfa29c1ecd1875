"""The tables in the READMEs are what the results say, and no more is claimed than was measured."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
import tables  # noqa: E402


@pytest.mark.parametrize("path", tables.FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_the_tables_of_a_readme_are_made_from_the_results(path):
    text = path.read_text()
    assert "<!-- bench:" in text
    assert tables.filled(text) == text


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
