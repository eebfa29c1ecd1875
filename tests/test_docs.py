"""README, docs and docstrings: the examples run, the links lead somewhere, and the tables are what commands print."""

import doctest
import importlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from tiers import slow_except

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DOCS = {p.relative_to(ROOT).as_posix(): p.read_text() for p in sorted((ROOT / "docs").glob("*.md"))}
PAGES = {"README.md": README} | DOCS
BLOCKS = {name: re.findall(r"```python\n(.*?)```", page, re.DOTALL) for name, page in PAGES.items()}
LINKED = PAGES | {
    name: (ROOT / name).read_text()
    for name in ("CONTRIBUTING.md", "benchmarks/README.md", "notebooks/results/README.md")
}
MODULES = sorted(
    ".".join(p.relative_to(ROOT).with_suffix("").parts)
    for p in (ROOT / "jax_lstm").rglob("*.py")
    if ">>> " in p.read_text()
)


def run_as_a_newcomer_would(code):
    """In a fresh interpreter, with jax's defaults."""
    environment = {k: v for k, v in os.environ.items() if k not in ("JAX_ENABLE_X64", "XLA_FLAGS")}
    environment |= {"PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as folder:  # for the files that examples write
        command = [sys.executable, "-c", code]
        return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)


# The README's module for reinforcement learning, against a loop of steps; run after the README's own examples.
RESETS = """
x, first = xs.swapaxes(0, 1), reset.T
memory = Memory()
variables = memory.init(jax.random.key(2), None, x, first)
carry, hs = memory.apply(variables, None, x, first)
weights, expected = variables["params"]["lstm"], []
state = cell.initial_state(weights)
for t in range(20):
    state, h = jl.step(cell, weights, state, x[t, 0], reset=first[t, 0])
    expected.append(h)
assert first.any()
assert jnp.allclose(hs[:, 0], jnp.stack(expected), atol=1e-6)
assert jnp.allclose(carry.h[0], h, atol=1e-6)
"""


@pytest.mark.parametrize(
    "page",
    slow_except(["README.md"], [name for name, blocks in BLOCKS.items() if blocks]),
)
def test_the_examples_of_a_page_run(page):
    result = run_as_a_newcomer_would("\n".join([*BLOCKS[page], RESETS if page == "README.md" else ""]))
    assert result.returncode == 0, result.stderr


def test_the_pages_have_examples():
    with_examples = {name for name, blocks in BLOCKS.items() if blocks}
    assert with_examples == {
        "README.md",
        *(
            f"docs/{n}.md"
            for n in ("semantics", "layers", "recipes", "experiments", "guarantees", "weights", "export", "data")
        ),
    }
    assert len(BLOCKS["README.md"]) >= 5


def test_a_wrong_readme_example_would_be_noticed():
    first = BLOCKS["README.md"][0]
    wrong = first.replace("hidden_size=16", "hidden_size=0")
    assert wrong != first
    assert "at least 1" in run_as_a_newcomer_would(wrong).stderr


def test_the_first_example_has_at_most_twelve_statements():
    import ast

    statements = [n for n in ast.walk(ast.parse(BLOCKS["README.md"][0])) if isinstance(n, ast.stmt)]
    assert len(statements) <= 12


def test_the_readme_is_short_and_starts_with_commands_and_a_plot():
    assert len(README.split()) <= 1300
    top = "\n".join(README.splitlines()[:40])
    assert "make demo" in top
    assert "make test" in top
    assert "![" in top
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)
    assert pictures == ["notebooks/results/gradient_flow.png", "benchmarks/results/speed.png"]


def prose(page):
    """A page without its code."""
    return re.sub(r"```.*?```|`[^`\n]*`", "", page, flags=re.DOTALL)


def anchors(page):
    """Where GitHub lets a link into a page lead: one anchor for each heading."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(name, page):
    """The relative links and pictures of a page that lead nowhere."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        inside = target.resolve().is_relative_to(ROOT) and target.exists()
        if not inside or (anchor and anchor not in anchors(target.read_text())):
            broken.append(link)
    return broken


@pytest.mark.parametrize("name", LINKED)
def test_every_relative_link_and_picture_is_there(name):
    assert broken_links(name, LINKED[name]) == []
    assert "<img" not in LINKED[name]
    assert "<a " not in LINKED[name]


@pytest.mark.parametrize(
    "link", ["docs/nothing.md", "docs/limits.md#nothing", "#nothing", "../README.md", "/README.md"]
)
def test_a_link_that_leads_nowhere_would_be_noticed(link):
    assert broken_links("README.md", f"{README}\n[text]({link})") == [link]
    assert broken_links("README.md", f"{README}\n`[text]({link})`") == []


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings_run(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("page", PAGES)
def test_every_test_that_a_page_names_is_there(page):
    files = [p.read_text() for p in (ROOT / "tests").rglob("*.py")]
    named = re.findall(r"`((?:tests/|test_)[\w/.]+)`", PAGES[page])
    assert len(named) >= (25 if page == "docs/guarantees.md" else 0)
    for name in named:
        found = (ROOT / name).exists() if name.startswith("tests/") else any(f"def {name}(" in text for text in files)
        assert found, name


def test_every_guarantee_names_a_test():
    rows = re.findall(r"^\| (?!promise|---)(.+) \| (.*) \|$", DOCS["docs/guarantees.md"], re.MULTILINE)
    assert len(rows) >= 20
    for promise, tests in rows:
        assert re.search(r"`(tests/|test_)", tests), promise
