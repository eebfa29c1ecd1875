"""The house: what may import what, and that the core needs nothing but jax."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "jax_lstm"
ABSENT = (
    "flax", "optax", "chex", "orbax", "matplotlib", "sklearn", "jsonargparse", "rich", "tensorboardX", "onnx",
    "safetensors", "h5py", "polars",
)  # fmt: skip

# A module that is None in sys.modules cannot be imported.
WITHOUT = "import sys; sys.modules.update(dict.fromkeys({absent!r})); import jax_lstm as jl; {code}"
USE = (
    "import jax; cell = jl.LSTM(2, 3); params = cell.init(jax.random.key(0)); "
    "xs = jax.random.normal(jax.random.key(1), (4, 2)); "
    "g = jax.grad(lambda p: jl.lstm(p, xs)[1].sum())(params); "
    "print(float(abs(g.w_h).sum()) > 0, jl.gradflow.sensitivity(cell, params, xs).shape)"
)


def run_without(absent, code):
    command = [sys.executable, "-c", WITHOUT.format(absent=absent, code=code)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_core_runs_with_flax_optax_and_chex_absent():
    result = run_without(ABSENT, USE)
    assert result.stdout.split("\n")[0] == "True (5,)", result.stderr


def test_the_test_above_would_notice_an_import_of_flax():
    result = run_without(ABSENT, "import jax_lstm.nnx")
    assert "ModuleNotFoundError" in result.stderr


def test_the_import_contract_is_kept():
    result = subprocess.run(["lint-imports"], cwd=ROOT, env=with_bin(), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_the_import_contract_can_be_broken(tmp_path):
    folder = tmp_path / "jax_lstm"
    for file in PACKAGE.rglob("*.py"):
        target = folder / file.relative_to(PACKAGE)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(file.read_text())
    (folder / "gates.py").write_text(
        (folder / "gates.py").read_text() + "\nimport flax\nfrom jax_lstm import sequence\n"
    )
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    result = subprocess.run(
        ["lint-imports", "--no-cache"], cwd=tmp_path, env=with_bin() | {"PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode != 0
    assert "0 broken" not in result.stdout


def with_bin():
    return os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


SERIALIZERS = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
RUNS_WHAT_IT_READS = {"eval", "exec", "__import__", "yaml.load", "yaml.unsafe_load", "yaml.full_load"}


def forbidden(source):
    """What in a file's text could run code that it reads, or reaches into JAX."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [part for a in node.names for part in a.name.split(".")]
            names += (getattr(node, "module", None) or "").split(".")
        elif isinstance(node, ast.Attribute):
            names = [node.attr]
        elif isinstance(node, ast.Call):
            found += [ast.unparse(node)] * (ast.unparse(node.func) in RUNS_WHAT_IT_READS)
            # Anything but a plain False may be true: a name, 1, what another call gives.
            found += [
                ast.unparse(k) for k in node.keywords if k.arg == "allow_pickle" and ast.unparse(k.value) != "False"
            ]
        found += sorted({*names} & {*SERIALIZERS, "_src"})
    return found


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda f: str(f.relative_to(PACKAGE)))
def test_no_file_runs_code_it_reads_or_uses_private_jax(file):
    assert forbidden(file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import os, pickle as p",
        "from dill import loads as read",
        "from torch import marshal",
        "pandas.io.pickle.loads(b)",
        "import jax._src.core",
        "from jax import _src",
        "from jax._src.core import Trace",
        "jax._src.core.Trace",
        "eval(text)",
        "exec(text)",
        "__import__(name)",
        "yaml.load(f, yaml.Loader)",
        "yaml.unsafe_load(f)",
        "yaml.full_load(f)",
        "np.load(f, allow_pickle=True)",
        "np.load(f, allow_pickle=1)",
        "np.load(f, allow_pickle=trusted)",
    ],
)
def test_forbidden_code_is_noticed(source):
    assert len(forbidden(source)) == 1


def test_safe_readers_are_not_forbidden():
    assert forbidden("yaml.safe_load(f); np.load(f, allow_pickle=False); np.load(f); import jax.tree_util") == []


def test_torch_is_installed_where_its_tests_must_run():
    required = os.environ.get("REQUIRE_TORCH") == "1"
    assert importlib.util.find_spec("torch") is not None or not required


def test_names_of_tests_have_at_most_60_characters():
    names = {
        f"{file.relative_to(ROOT)}: {node.name}": len(node.name)
        for file in sorted((ROOT / "tests").rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    assert names
    long = [name for name, length in names.items() if length > 60]
    assert not long, "\n".join(long)


COLLECT = """
import sys
import jax, pytest

programs = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, *_, **__: programs.append(event) if event.endswith("backend_compile_duration") else None
)
code = pytest.main(["--collect-only", "-q", "-m", "", "-p", "no:xdist", "-p", "no:cacheprovider", *sys.argv[1:]])
print(int(code), len(programs))
"""


def collect(path):
    """Pytest's exit code and the number of compiled programs."""
    command = [sys.executable, "-c", COLLECT, str(path), "-c", str(ROOT / "pyproject.toml")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return [int(number) for number in result.stdout.splitlines()[-1].split()]


@pytest.mark.slow
def test_collecting_the_tests_compiles_nothing():
    assert collect(ROOT / "tests") == [0, 0]


@pytest.mark.slow
def test_a_program_at_module_level_is_noticed(tmp_path):
    file = tmp_path / "test_module_level.py"
    file.write_text(
        "import jax.numpy as jnp\n\nx = jnp.sin(jnp.arange(3.0))\n\n\ndef test_x():\n    assert x.size == 3\n"
    )
    code, programs = collect(file)
    assert code == 0
    assert programs > 0


# Names that others replaced; each stood for something that has a standard name.
REPLACED = (
    *("door", "knob", "knobs", "AffineCell", "InputGatedCell", "linearise", "is_linearised", "recur_along"),
    *("over_time", "in_bulk", "like_data", "on_the_mesh", "parted", "Flags", "s_restart", "BothWays", "LearnedState"),
    *("lyapunov_start", "rivals", "HasRivals", "maximise", "optimiser", "wiring", "Around"),
)


def words_of_the_project(folder):
    """Every word of the files that are written by hand, with a file that it is in."""
    files = [p for kind in ("py", "md", "yaml", "toml") for p in folder.rglob(f"*.{kind}")]
    skipped = {Path(__file__).name, "CHANGELOG.md"}
    return {
        word: path
        for path in files
        if path.name not in skipped and not any(part.startswith(".") or part == "runs" for part in path.parts[1:])
        for word in re.findall(r"\w+", path.read_text(encoding="utf-8"))
    }


def test_no_replaced_name_comes_back(tmp_path):
    found = words_of_the_project(ROOT)
    assert {name: found[name] for name in REPLACED if name in found} == {}
    (tmp_path / "cell.py").write_text("BothWays = None")
    assert "BothWays" in words_of_the_project(tmp_path)
