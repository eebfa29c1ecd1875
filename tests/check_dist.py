"""Check what `make dist` has built: the package page, the files, and the commands of an installed wheel.

The wheel is installed in an empty environment, first alone, then with the extra train, and is used in an empty folder.
"""

import os
import re
import subprocess
import sys
import tarfile
import tempfile
from email import message_from_bytes
from pathlib import Path
from zipfile import ZipFile

ROOT = Path(__file__).parents[1]
UV = [str(Path(sys.executable).parent / "uv")]
LINK = r"""\]\(\s*<?([^)\s>]+)|\b(?:src|srcset|href)\s*=\s*["']([^"']+)|^ {0,3}\[[^\]]+\]:\s*<?([^\s>]+)"""
CODE = r"^```.*?^```|`[^`\n]+`"
TINY = ["--train.steps", "2", "--opt.warmup_steps", "1", "--train.batch_size", "4", "--train.devices", "1"]
TINY += ["--train.seeds", "[0]", "--model.hidden_size", "3"]


def relative_links(markdown: str) -> list[str]:
    """The links and pictures outside code that name no absolute address."""
    text = re.sub(CODE, "", markdown, flags=re.DOTALL | re.MULTILINE)
    targets = ["".join(groups) for groups in re.findall(LINK, text, re.MULTILINE)]
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def code_of(markdown: str) -> list[str]:
    """The code blocks and code spans."""
    return re.findall(CODE, markdown, re.DOTALL | re.MULTILINE)


def expect(truth: object, what: str) -> None:
    """Print what was checked; leave with 1 where it does not hold."""
    print(f"{'ok' if truth else 'FAILED'}: {what}", flush=True)
    if not truth:
        sys.exit(1)


def check_files(wheel: Path, sdist: Path) -> None:
    """The wheel has configs, py.typed and a page without relative links; the sdist has the sources and no more."""
    with ZipFile(wheel) as archive:
        names = archive.namelist()
        page = message_from_bytes(archive.read(next(n for n in names if n.endswith(".dist-info/METADATA"))))
    configs = {f"jax_lstm/{path.relative_to(ROOT)}" for path in (ROOT / "configs").rglob("*.yaml")}
    expect(configs and configs <= set(names), f"{wheel.name} has all {len(configs)} configs")
    expect("jax_lstm/py.typed" in names, "it has py.typed")
    expect(any(n.endswith("/licenses/LICENSE") for n in names), "it has the license")
    expect({n.split("/")[0].split("-")[0] for n in names} == {"jax_lstm"}, "it has nothing beside jax_lstm")
    text = page.get_payload(decode=True).decode()  # pyrefly: ignore[missing-attribute]
    expect(text.strip() and relative_links(text) == [], f"no link is relative: {relative_links(text)}")
    expect(code_of(text) == code_of((ROOT / "README.md").read_text(encoding="utf-8")), "the page has the README's code")
    with tarfile.open(sdist) as archive:
        names = [n.partition("/")[2] for n in archive.getnames()]
    wanted = {"LICENSE", "CHANGELOG.md", "README.md", "configs", "constraints.txt", "docs", "jax_lstm", "tests"}
    expect(wanted <= {n.split("/")[0] for n in names}, f"{sdist.name} has {', '.join(sorted(wanted))}")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    junk = set(names) - set(tracked) - {"PKG-INFO"}
    expect(not junk, f"it has tracked files only: {sorted(junk)}")
    expect(not any(n.startswith(".ci") for n in names), "it has no CI")


def check_commands(wheel: Path, folder: Path) -> None:
    """Install the wheel and use it, in `folder` alone."""
    venv, empty = folder / "venv", folder / "empty"
    empty.mkdir()
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    python = venv / ("Scripts" if os.name == "nt" else "bin") / "python"

    def run(*command: str | Path) -> subprocess.CompletedProcess:
        return subprocess.run(
            [str(c) for c in command], cwd=empty, env=environment, capture_output=True, text=True, check=False
        )

    def install(what: str) -> None:
        result = run(*UV, "pip", "install", "--quiet", "--python", python, "-c", ROOT / "constraints.txt", what)
        expect(result.returncode == 0, f"install {Path(what).name} {result.stderr}")

    def cli(*arguments: str, code: int = 0, say: str = "", leave: str = ".") -> None:
        result = run(python.parent / "jax-lstm", *arguments)
        printed = result.stdout + result.stderr
        good = result.returncode == code and say in printed and (empty / leave).exists() and "Traceback" not in printed
        expect(good, f"jax-lstm {' '.join(arguments)}" + ("" if good else f"\n{result.returncode}\n{printed}"))

    run(*UV, "venv", "--python", sys.executable, venv)
    install(str(wheel))
    version = wheel.name.split("-")[1]
    result = run(python, "-c", "import jax_lstm as jl; print(jl.__version__, jl.__file__)")
    expect(result.stdout.startswith(f"{version} {venv.resolve()}"), f"__version__ is {version}")
    cli("--version", say=f"jax-lstm {version} (jax ")
    cli("train", "digits.yaml", code=2, say="pip install 'jax_lstm[train]'")
    install(f"{wheel}[train]")
    cli("experiment", "--list", say="reber")
    cli("train", "nothing.yaml", code=2, say="digits.yaml")
    cli("train", "digits.yaml", *TINY, leave="runs/digits/checkpoints/2")
    cli("evaluate", "runs/digits", say="test accuracy", leave="runs/digits/test.json")
    cli("train", "runs/digits/config.yaml", "--run_dir", "again", leave="again/checkpoints/2")
    cli("demo", *TINY, leave="runs/demo/learning_curves.png")


def main() -> None:
    """Check dist/."""
    (wheel,), (sdist,) = (ROOT / "dist").glob("*.whl"), (ROOT / "dist").glob("*.tar.gz")
    check_files(wheel, sdist)
    with tempfile.TemporaryDirectory() as folder:
        check_commands(wheel, Path(folder))


if __name__ == "__main__":
    main()
