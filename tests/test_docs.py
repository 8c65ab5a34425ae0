"""README.md and docs/: links lead somewhere, commands and code run, and the first page stays short."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys

import pytest

from tests.documentation import (
    PAGES,
    README,
    REPOSITORY,
    anchors,
    block_with,
    documented_commands,
    floors_named,
    python_blocks,
    python_programs,
    relative_links,
)

FLOORS = {path.name for path in (REPOSITORY / "bbb").iterdir() if any(path.glob("*.py"))}
MODULE_COMMANDS = documented_commands("-m")


def test_commands_are_found_on_every_kind_of_page():
    assert len(documented_commands("experiment.py")) >= 20
    assert len(MODULE_COMMANDS) >= 3
    assert all("SEED" not in command and "..." not in command for command in documented_commands())


@pytest.mark.parametrize("command", MODULE_COMMANDS)
def test_modules_files_and_options_of_commands_exist(command):
    """Those of experiment.py are run (test_experiment.py, test_cluster.py and others); these take minutes."""
    _, _, module, *words = shlex.split(command)
    specification = importlib.util.find_spec(module)
    assert specification is not None, f"{module}: there is no such module"
    for word in words:
        if word.endswith(".py"):
            assert (REPOSITORY / word).is_file(), f"{word}: there is no such file"
        elif word.startswith("--"):
            assert f'"{word}"' in (REPOSITORY / specification.origin).read_text(), f"{word}: not an option of {module}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_lead_to_what_is_there(page):
    dead = []
    for link in relative_links():
        path, _, anchor = link.address.partition("#")
        target = (link.page.parent / path).resolve() if path else link.page
        is_dead = not target.exists() or not target.is_relative_to(REPOSITORY)
        if link.page == page and (is_dead or (anchor and anchor not in anchors(target))):
            dead.append(link.address)
    assert dead == []


def test_links_are_found():
    addresses = [link.address for link in relative_links()]
    assert any(address.endswith(".png") for address in addresses)
    assert any("#" in address for address in addresses)


def test_pages_use_the_links_that_are_checked():
    for page in PAGES:
        assert not re.search(r"<img|<a |^\[[^\]]+\]:", page.read_text(), re.MULTILINE), page.name


def test_the_readme_is_short():
    assert len(README.read_text().splitlines()) <= 150


@pytest.mark.parametrize("page", [README, REPOSITORY / "docs" / "architecture.md"], ids=lambda page: page.name)
def test_the_map_names_every_floor_and_no_other(page):
    assert floors_named(page) == FLOORS


def python(folder, *words):
    """Run Python in a process and a folder of its own, with this clone's code."""
    (folder / "configs").symlink_to(REPOSITORY / "configs")
    (folder / "my_net.py").write_text(block_with("def make("))
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    """What the README's first command leaves, for one epoch."""
    folder = tmp_path_factory.mktemp("first")
    (command,) = (line for line in documented_commands() if line.endswith("with blundell dataset=digits8x8"))
    _, script, *words = shlex.split(command)
    python(folder, str(REPOSITORY / script), *words, "num_epochs=1")
    return folder / "results"


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(code, id=f"{page.name}-{i}", marks=[pytest.mark.slow] if page != README else [])
        for i, (page, code) in enumerate(python_programs())
    ],
)
def test_python_code_of_the_pages_runs(tmp_path, code, request):
    """In a process and a folder of its own, for one epoch."""
    if 'load("results/blundell")' in code:
        (tmp_path / "results").symlink_to(request.getfixturevalue("first_run"))
    python(tmp_path, "-c", re.sub(r'("num_epochs": |num_epochs=)\d+', r"\g<1>1", code))


@pytest.mark.parametrize("page", [README, REPOSITORY / "docs" / "python.md"], ids=lambda page: page.name)
def test_blocks_from_python_are_short(page):
    """Ten lines of code at most, empty ones not counted."""
    for block_of, body in python_blocks():
        assert block_of != page or sum(1 for line in body.splitlines() if line.strip()) <= 10, body


def test_the_readme_shows_python():
    assert any(page == README for page, _ in python_blocks())
