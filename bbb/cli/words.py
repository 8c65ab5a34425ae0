"""The words of the command line: which there are, what they mean, and what is refused before Sacred reads them."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from sacred import Experiment
from sacred.commandline_options import CLIOption
from sacred.config import ConfigDict

from bbb.cli.options import OPTIONS, as_option
from bbb.runs import check_text, load_file, nearest, unknown_key
from bbb.system import InputError

# Modules that Sacred's options import from packages which are not among the requirements, and those packages.
_NEEDS = {
    "--mongo_db": {"pymongo": "pymongo"},
    "--sql": {"sqlalchemy": "sqlalchemy"},
    "--tiny_db": {"tinydb": "tinydb", "tinydb_serialization": "tinydb-serialization", "hashfs": "hashfs"},
    "--s3": {"boto3": "boto3"},
}


def check_words(experiment: Experiment, named: Mapping[str, Path], words: list[str]) -> list[str]:
    """Refuse what is not known, and let named configurations win over files of their names.

    Args:
        experiment: Sacred's, whose commands and options count.
        named: the named configurations, with their files.
        words: the command line without the program's name.

    Returns:
        The words to hand to Sacred.

    Raises:
        InputError: a word is not known; the message suggests the nearest.
    """
    command = _check_command(experiment, named, words)
    if command in OPTIONS and "with" not in words and words[1:] and "=" in words[1]:  # reproduce fast=True
        words = [command, "with", *words[1:]]
    flags = {flag: option for option in experiment.all_cli_options for flag in option.get_flags()}
    checked, options = [], []
    for i, word in enumerate(words):
        if word.startswith("-"):
            _check_package(flags, word)
        takes_previous = i > 0 and words[i - 1] in flags and flags[words[i - 1]].arg is not None
        if "with" not in words[:i] or word.startswith("-") or takes_previous:
            checked.append(word)
            continue
        option = as_option(command, word)
        if option is not None:
            options += option
        else:
            checked.append(_check_change(experiment, named, word, i))
    if checked[-1:] == ["with"]:
        checked.pop()
    return checked + options


def _check_command(experiment: Experiment, named: Mapping[str, Path], words: list[str]) -> str:
    """Find the command among the words; ``main`` where there is none."""
    known = [command for command, _ in experiment.gather_commands()]
    command = words[0] if words and not words[0].startswith("-") else "main"
    if command in named:
        raise InputError(f"{command}: is a named configuration, not a command; write: with {command}")
    if command not in ("with", "help", *known):
        raise InputError(f"{command}: unknown command{nearest(command, ['with', *known])}")
    if command == "help" and not {*words[1:]} <= {*known}:
        raise InputError(f"help: there is help for {', '.join(known)}")
    if words[-1:] == ["with"]:
        raise InputError(f"with: name a configuration ({', '.join(named)}) or set a key, as in num_epochs=10")
    return "main" if command == "with" else command


def _check_change(experiment: Experiment, named: Mapping[str, Path], word: str, number: int) -> str:
    """Judge a word after ``with`` that sets a key or names a configuration; returns what Sacred shall read."""
    key, is_change, value = word.partition("=")
    if is_change:
        if not key.strip().isidentifier():  # Sacred would take a dotted key apart
            raise InputError(unknown_key(key))
        check_text(key, value)
        return word
    if word in named:
        return str(named[word]) if Path(word).is_file() else word
    if Path(word).is_file() and Path(word).suffix in (".yaml", ".yml", ".json"):
        alias = f"the file of word {number}"  # not a path: Sacred would read that itself, and create objects
        experiment.named_configs[alias] = ConfigDict(load_file(Path(word)))
        return alias
    raise InputError(f"{word}: unknown named configuration{nearest(word, named)}")


def _check_package(flags: Mapping[str, CLIOption], word: str) -> None:
    """Refuse an option whose packages are not installed."""
    flag = word.partition("=")[0] if word.startswith("--") else word[:2]
    if flag not in flags:
        return
    _, long_flag = flags[flag].get_flags()
    missing = [package for module, package in _NEEDS.get(long_flag, {}).items() if find_spec(module) is None]
    if missing:
        raise InputError(f"{flag}: needs what is not installed; run: pip install {' '.join(missing)}")
