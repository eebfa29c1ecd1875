"""What the README and the docstrings show is run, and the tables that it claims are what the commands print."""

import doctest
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from PIL import Image

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
MODULES = sorted(
    ".".join(p.relative_to(ROOT).with_suffix("").parts)
    for p in (ROOT / "jax_lstm").rglob("*.py")
    if ">>> " in p.read_text()
)


def run_as_a_newcomer_would(code):
    """In a fresh interpreter, with jax's defaults."""
    environment = {k: v for k, v in os.environ.items() if k not in ("JAX_ENABLE_X64", "XLA_FLAGS")}
    environment |= {"PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


def test_the_readme_examples_run():
    assert len(BLOCKS) >= 5
    result = run_as_a_newcomer_would("\n".join(BLOCKS))
    assert result.returncode == 0, result.stderr


def test_a_wrong_readme_example_would_be_noticed():
    wrong = BLOCKS[0].replace("hidden_size=16", "hidden_size=0")
    assert wrong != BLOCKS[0]
    assert "at least 1" in run_as_a_newcomer_would(wrong).stderr


def test_the_first_example_has_at_most_twelve_statements():
    import ast

    statements = [n for n in ast.walk(ast.parse(BLOCKS[0])) if isinstance(n, ast.stmt)]
    assert len(statements) <= 12


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings_run(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0


def test_every_test_that_the_readme_names_is_there():
    files = {p.relative_to(ROOT).as_posix(): p.read_text() for p in (ROOT / "tests").rglob("*.py")}
    promised = README.split("## What is promised")[1].split("## When not")[0]
    named = re.findall(r"`((?:tests/|test_)[\w/.]+)`", promised)
    assert len(named) >= 10
    for name in named:
        found = (
            (ROOT / name).exists() if name.startswith("tests/") else any(f"def {name}(" in t for t in files.values())
        )
        assert found, name


def test_the_headline_table_and_figure_are_what_their_command_makes(tmp_path):
    made, shown = tmp_path / "figure.png", ROOT / "notebooks" / "results" / "gradient_flow.png"
    assert f"({shown.relative_to(ROOT).as_posix()})" in README
    result = subprocess.run(
        [sys.executable, "-m", "jax_lstm.gradflow.headline", "--plot", str(made)],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    tables = re.findall(r"<!-- headline -->\n(.*?)<!-- /headline -->", README, re.DOTALL)
    assert [table.strip() for table in tables] == [result.stdout.strip()]
    with Image.open(shown) as figure:
        figure.load()  # what is written about a picture may stand behind it
        assert figure.info["Description"] == result.stdout.strip()
    # The same lines, whatever the fonts of another matplotlib.
    assert np.abs(imread(made) - imread(shown)).mean() < 0.02
