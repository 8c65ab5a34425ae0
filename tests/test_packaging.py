"""What is installed: the dependencies as they are declared twice, the wheel's contents, and its use away from here."""

import ast
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = ",".join(PROJECT["optional-dependencies"])
USE = """
import torch
from bbb.networks import MLP, initial_network
network = initial_network(MLP((4, 3, 2)), 0.05, torch.Generator().manual_seed(0))
weights, log_prob = network.posterior.rsample_and_log_prob(5)
assert weights.shape == (5, 4 * 3 + 3 + 3 * 2 + 2) and log_prob.shape == (5,)
import bbb
print(bbb.__file__)
"""


def declared() -> list[str]:
    """The dependencies in pyproject.toml, extras included."""
    extras = PROJECT["optional-dependencies"].values()
    return [*PROJECT["dependencies"], *(requirement for extra in extras for requirement in extra)]


def comparable(requirements: list[str]) -> list[str]:
    parsed = [Requirement(text) for text in requirements]
    return sorted(f"{canonicalize_name(one.name)}{one.specifier}{one.marker or ''}" for one in parsed)


def package_files() -> set[str]:
    """The modules and stubs of bbb/, what its pages are made of, and py.typed."""
    kinds = (".py", ".pyi", ".html", ".css", ".js")
    files = [path for path in ROOT.glob("bbb/**/*") if path.suffix in kinds or path.name == "py.typed"]
    return {path.relative_to(ROOT).as_posix() for path in files}


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command without the settings of pip and Python around it, and return what it prints."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "PYTHON"))}
    env["PIP_CONFIG_FILE"] = os.devnull
    result = subprocess.run(list(map(str, command)), cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def install(python: Path, *what: str, cwd: Path) -> None:
    """Install the project, then hold its dependencies, extras included, against what there is: nothing is fetched."""
    pip = [python, "-m", "pip", "install", "--no-index", "--no-build-isolation"]
    run(*pip, "--no-deps", "--force-reinstall", *what, cwd=cwd)
    run(*pip, *what[:-1], f"{what[-1]}[{EXTRAS}]", cwd=cwd)


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """The folder of a wheel and a source archive built from the tree, by the backend that pip would call."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-t", "sdist", "-d", folder, cwd=ROOT)
    return folder


@pytest.fixture
def fresh_python(tmp_path):
    """The Python of a new virtual environment that sees this environment's packages, but not what it has in .pth files.

    PyTorch is thus not installed once more, while pip finds each dependency and its version there.
    """
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "uninstall", "--yes", "setuptools", cwd=tmp_path)  # Python 3.11 brings an old one
    site_packages = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip()
    ours = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    (Path(site_packages) / "dependencies.pth").write_text("\n".join(ours) + "\n")
    return python


def test_requirements_txt_lists_what_pyproject_declares():
    lines = [line.split("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    assert comparable([line for line in lines if line]) == comparable(declared())


def test_every_package_imported_is_declared():
    distributions = packages_distributions()
    imported = set()
    for path in [*ROOT.glob("bbb/**/*.py"), ROOT / "experiment.py"]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.split(".")[0])
    names = {canonicalize_name(Requirement(text).name) for text in declared()}
    for module in sorted(imported - sys.stdlib_module_names - {"bbb"}):
        assert {canonicalize_name(name) for name in distributions.get(module, ())} & names, module


def test_every_ignored_type_error_has_its_code_and_a_reason():
    for path in ROOT.glob("bbb/**/*.py*"):
        for line in path.read_text().splitlines() if path.suffix in (".py", ".pyi") else ():
            if "type: ignore" in line:
                assert re.search(r"# type: ignore\[[a-z-]+(, [a-z-]+)*\]  # \w+", line), f"{path}: {line}"


def test_wheel_holds_the_package_and_nothing_else(archives):
    (wheel,) = archives.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == package_files()
    assert {"bbb/py.typed", "bbb/data/__init__.pyi"} <= names


def test_source_archive_holds_the_package(archives):
    (archive,) = archives.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    assert package_files() | {"experiment.py", "configs/default.yaml", "pyproject.toml", "README.md"} <= names


@pytest.mark.slow
def test_wheel_works_away_from_the_repository(archives, fresh_python, tmp_path):
    (wheel,) = archives.glob("*.whl")
    install(fresh_python, str(wheel), cwd=tmp_path)
    found = run(fresh_python, "-I", "-c", USE, cwd=tmp_path).strip()
    assert Path(found).is_relative_to(tmp_path / "venv")


@pytest.mark.slow
def test_editable_installation_works_away_from_the_repository(fresh_python, tmp_path):
    install(fresh_python, "--editable", str(ROOT), cwd=tmp_path)
    found = run(fresh_python, "-I", "-c", USE, cwd=tmp_path).strip()
    assert Path(found) == ROOT / "bbb" / "__init__.py"
