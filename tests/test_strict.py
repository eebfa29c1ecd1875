"""The marked subset of the tests, run again in a process of its own under each strict flag of JAX."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tiers import slow_except

TESTS = Path(__file__).parent
MARKED = sorted(
    str(path)
    for path in TESTS.rglob("test_*.py")
    if path != Path(__file__) and "pytest.mark.strict" in path.read_text(encoding="utf-8")
)
# The flag, and the tests to run under it: all that are marked, unless the flag makes each of them slow.
# Strict promotion of dtypes and ranks is on in every run of the suite.
FLAGS = {
    "JAX_ENABLE_X64=0": "",
    "JAX_ENABLE_CHECKS=1": "",
    "JAX_CHECK_TRACER_LEAKS=1": "LSTM or gates",
    "JAX_DISABLE_JIT=1": "LSTM or RNN",
    "JAX_DEBUG_NANS=1": "",
    "JAX_DEBUG_KEY_REUSE=1": "",
}


def run_marked(files, flags, expression="", marker="strict"):
    """Pytest's exit code, its last words, and how many tests passed."""
    settings = dict(flag.split("=") for flag in flags)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", marker, "-k", expression, *files],
        env=os.environ | settings,
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    passed = re.search(r"(\d+) passed", done.stdout)
    return done.returncode, (done.stdout + done.stderr)[-3000:], int(passed[1]) if passed else 0


@pytest.mark.parametrize("flag", slow_except(["JAX_ENABLE_X64=0"], FLAGS))
def test_the_marked_tests_pass_under_a_strict_flag(flag):
    code, said, passed = run_marked(MARKED, [flag], FLAGS[flag])
    assert code == 0, said
    assert passed > (10 if FLAGS[flag] else 20), said


FAULTS = """
import sys
sys.path.insert(0, "tests")
import conftest  # its settings, and the environment's
import jax, jax.numpy as jnp, pytest

pytestmark = pytest.mark.strict

def test_JAX_ENABLE_X64():
    assert jnp.ones(1, float).dtype == "float64"

def test_JAX_ENABLE_CHECKS():
    assert not jax.config.jax_enable_checks

def test_JAX_CHECK_TRACER_LEAKS():
    kept = []
    jax.jit(lambda x: kept.append(x))(1.0)

def test_JAX_DISABLE_JIT():
    calls = []
    f = jax.jit(lambda x: calls.append(0))
    f(1.0), f(2.0)
    assert len(calls) == 1

def test_JAX_DEBUG_NANS():
    jnp.log(jnp.zeros(1, "float32") - 1)

def test_JAX_DEBUG_KEY_REUSE():
    key = jax.random.key(0)
    jax.random.normal(key), jax.random.normal(key)

def test_nothing_at_all():
    pass
"""


@pytest.mark.slow
@pytest.mark.parametrize("together", [["JAX_DISABLE_JIT=1"], [f for f in FLAGS if "JIT" not in f]])
def test_a_flag_reaches_the_tests_and_what_it_forbids_fails(together, tmp_path):
    file = tmp_path / "test_faults.py"
    file.write_text(FAULTS, encoding="utf-8")
    code, said, passed = run_marked([str(file), "-c", "pyproject.toml"], together)
    assert code == 1, said
    failed = set(re.findall(r"^FAILED .*::test_(\w+)", said, re.MULTILINE))
    assert failed == {flag.split("=")[0] for flag in together}, said
    assert passed == 7 - len(together), said


@pytest.mark.slow
def test_a_marker_that_selects_nothing_is_noticed():
    code, said, passed = run_marked(MARKED, [], marker="not strict")
    assert (code, passed) == (5, 0), said
