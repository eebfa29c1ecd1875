"""The package: its names, version, metadata, pins and packaged configs. `make dist` checks what is built."""

import importlib
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from check_dist import code_of, relative_links
from packaging.requirements import Requirement

import jax_lstm as jl
from jax_lstm import cli
from jax_lstm.cli import configs, main
from jax_lstm.cli.configs import configs_dir, find_config
from jax_lstm.cli.parser import experiment_parser, parse_experiment

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
PINS = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if line[0] != "#"]
PYTHONS = ["3.11", "3.12", "3.13"]
HERE = "https://github.com/jax-lstm/jax-lstm"


# Names and version.


def test_all_lists_exactly_the_public_names():
    found = {n for n, value in vars(jl).items() if not n.startswith("_") and not isinstance(value, ModuleType)}
    assert set(jl.__all__) == found | {"engines", "gradflow"}
    assert len(jl.__all__) == len(set(jl.__all__))


def test_the_version_is_read_from_the_package():
    assert re.fullmatch(r"\d+\.\d+\.\d+", jl.__version__)
    assert "version" not in PROJECT
    assert "version" in PROJECT["dynamic"]
    assert PYPROJECT["tool"]["hatch"]["version"]["path"] == "jax_lstm/__init__.py"


def test_the_command_line_prints_its_versions(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0
    out = capsys.readouterr().out
    assert re.fullmatch(rf"jax-lstm {jl.__version__} \(jax \d+\.\S+, Python 3\.\S+\)\n", out)


# Metadata.


def test_the_citation_agrees_with_the_package():
    assert CITATION["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(CITATION)
    assert CITATION["version"] == jl.__version__
    assert CITATION["license"] == PROJECT["license"]
    assert CITATION["abstract"] == PROJECT["description"]
    assert CITATION["keywords"] == PROJECT["keywords"]
    assert CITATION["authors"] == PROJECT["authors"]
    assert CITATION["repository-code"] == PROJECT["urls"]["Source"]


def test_the_project_has_one_address():
    assert set(PROJECT["urls"]) == {"Homepage", "Source", "Documentation", "Changelog", "Issues"}
    assert all(re.split(r"[/#]", url.removeprefix(HERE))[0] == "" for url in PROJECT["urls"].values())
    for file in ("pyproject.toml", "SECURITY.md", "CITATION.cff"):
        found = re.findall(r"https://github\.com/[\w.-]+/[\w.-]+", (ROOT / file).read_text(encoding="utf-8"))
        assert set(found) == {HERE}, file


def test_the_classifiers_name_the_supported_pythons():
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert named == PYTHONS
    assert PROJECT["requires-python"] == f">={PYTHONS[0]}"


def test_the_stability_policy_names_modules_that_exist():
    text = (ROOT / "docs" / "stability.md").read_text(encoding="utf-8")
    modules = [name for name in re.findall(r"`(jax_lstm\.[\w.]+)`", text) if name != "jax_lstm.__all__"]
    assert len(modules) >= 6
    for name in modules:
        importlib.import_module(name)
    assert all(python in text for python in PYTHONS)


def test_every_file_of_the_sdist_and_wheel_is_there():
    targets = PYPROJECT["tool"]["hatch"]["build"]["targets"]
    for name in [*targets["sdist"]["only-include"], *targets["wheel"]["force-include"]]:
        assert (ROOT / name).exists(), name


# The package page: the README with absolute links.


def package_page(readme):
    for rule in PYPROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        readme = re.sub(rule["pattern"], rule["replacement"], readme)
    return readme


def test_the_package_page_has_no_relative_link():
    page = package_page(README)
    assert relative_links(page) == []
    assert code_of(page) == code_of(README)
    for path in re.findall(rf"{HERE}/(?:raw|blob)/HEAD/([^\s)#\"]+)", page):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize(
    ("markdown", "page"),
    [
        ("![a plot](docs/a.png)", f"![a plot]({HERE}/raw/HEAD/docs/a.png)"),
        ('<img src="docs/a.png">', f'<img src="{HERE}/raw/HEAD/docs/a.png">'),
        ("[a page](docs/a.md#part)", f"[a page]({HERE}/blob/HEAD/docs/a.md#part)"),
        ("[license](LICENSE)", f"[license]({HERE}/blob/HEAD/LICENSE)"),
        ('<a href="docs/">', f'<a href="{HERE}/blob/HEAD/docs/">'),
        ("[![a](docs/a.png)](docs/a.md)", f"[![a]({HERE}/raw/HEAD/docs/a.png)]({HERE}/blob/HEAD/docs/a.md)"),
        ("[a part](#part)", f"[a part]({HERE}#part)"),
        ("[far away](https://jax.dev/a.md)", "[far away](https://jax.dev/a.md)"),
    ],
)
def test_a_relative_link_becomes_absolute(markdown, page):
    assert package_page(markdown) == page
    assert relative_links(page) == []


def test_a_relative_link_is_found():
    markdown = '![p](a.png) [t](b.md) <img src="c.png"> [s](#d) `[code](e.md)`\n\n[r]: f.md\n'
    assert sorted(relative_links(markdown)) == ["#d", "a.png", "b.md", "c.png", "f.md"]


# Pins.


def requirements(python):
    """What pyproject.toml asks for on a version of Python, apart from the package itself."""
    environment = {"python_version": python, "python_full_version": f"{python}.0", "extra": ""}
    lines = [*PROJECT["dependencies"], *(line for lines in EXTRAS.values() for line in lines)]
    found = [Requirement(line) for line in [*lines, *PYPROJECT["build-system"]["requires"]]]
    return [r for r in found if r.name != "jax_lstm" and (r.marker is None or r.marker.evaluate(environment))]


def pins(python):
    """The version that constraints.txt gives each package on a version of Python, on Linux."""
    environment = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    found = {}
    for pin in PINS:
        if pin.marker is None or pin.marker.evaluate(environment):
            assert pin.name not in found, pin
            found[pin.name] = str(pin.specifier).removeprefix("==")
    return found


@pytest.mark.parametrize("python", PYTHONS)
def test_constraints_pin_everything_that_is_asked_for(python):
    pinned = pins(python)
    for requirement in requirements(python):
        name = requirement.name.lower()
        assert name in pinned, f"{name} is not pinned; run make lock"
        assert requirement.specifier.contains(pinned[name]), f"{requirement}, but {pinned[name]} is pinned"


def test_the_lower_bounds_of_the_jax_stack_are_the_3_11_pins():
    pinned = pins("3.11")
    for name in ("jax", "jaxlib", "jaxtyping", "flax", "optax", "chex", "orbax-checkpoint"):
        floors = {s.version for r in requirements("3.11") if r.name == name for s in r.specifier if s.operator == ">="}
        assert floors == {pinned[name]}, name


def test_two_versions_of_jax_are_pinned():
    versions = [pins(python)["jax"].split(".")[:2] for python in PYTHONS]
    assert versions[0] != versions[1] == versions[2]


def test_the_build_tools_are_pinned_with_the_extra_dist():
    assert set(PYPROJECT["build-system"]["requires"]) <= set(EXTRAS["dist"])


# The packaged configs.


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(*argv):
    return parse_experiment(experiment_parser("train", ""), argv)[0]


def test_a_packaged_config_is_found_by_its_name(empty):
    expected = read(str(ROOT / "configs" / "digits.yaml"))
    assert read("digits.yaml") == read("--config", "digits.yaml") == expected
    assert read("digits.yaml", "--model.cell", "gru").model.cell.name == "GRU"
    assert Path(read("digits.yaml").run_dir) == Path("runs/digits"), "relative to the working directory"


def test_an_existing_file_wins_over_a_packaged_config(empty):
    text = (ROOT / "configs" / "adding.yaml").read_text(encoding="utf-8")
    (empty / "digits.yaml").write_text(text, encoding="utf-8")
    assert find_config("digits.yaml") == Path("digits.yaml")
    assert read("digits.yaml").task.name == "adding"


@pytest.mark.parametrize(
    "name", ["nothing.yaml", "digits", "../configs/digits.yaml", "experiments/reber.yaml", "a" * 300, "opt: {lr: 1}"]
)
def test_an_unknown_config_is_refused_with_the_packaged_names(empty, capsys, name):
    with pytest.raises(SystemExit) as left:
        main(["train", name])
    assert left.value.code == 2
    err = capsys.readouterr().err.split("error:")[-1]
    assert "adding.yaml, adding_1997.yaml, bytes.yaml" in err
    assert f"but {name} does not exist" in err
    assert list(empty.iterdir()) == []


def test_an_installed_package_has_its_configs_inside(tmp_path, monkeypatch):
    monkeypatch.setattr(configs, "PACKAGE", tmp_path / "jax_lstm")
    assert configs_dir() == tmp_path / "configs", "beside the package in a checkout"
    (tmp_path / "jax_lstm" / "configs").mkdir(parents=True)
    assert configs_dir() == tmp_path / "jax_lstm" / "configs"


def test_the_experiments_are_listed_in_an_empty_folder(empty, capsys):
    assert main(["experiment", "--list"]) == 0
    assert "reber" in capsys.readouterr().out


# An install without the extra train.


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_a_command_without_its_packages_says_what_to_install(command, monkeypatch, capsys):
    def absent(name):
        raise ModuleNotFoundError("No module named 'rich.console'", name="rich.console")

    monkeypatch.setattr(cli, "import_module", absent)
    with pytest.raises(SystemExit) as left:
        main([command])
    assert left.value.code == 2
    err = capsys.readouterr().err.split("error:")[-1]
    assert f"{command}: wanted the packages of the extra train, but rich is not installed" in err
    assert "pip install 'jax_lstm[train]'" in err


def test_a_missing_module_of_our_own_is_not_hidden(monkeypatch):
    def absent(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(cli, "import_module", absent)
    with pytest.raises(ModuleNotFoundError):
        main(["train"])
