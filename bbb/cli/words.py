"""The words of the command line: which exist, what they mean, and which are refused before Sacred reads them."""

import re
from collections.abc import Mapping
from pathlib import Path

from sacred import Experiment
from sacred.config import ConfigDict

from bbb.cli.options import OPTIONS, as_option
from bbb.runs import ALIASES, KEYS, check_text, in_python, load_file, nearest, unknown_key
from bbb.system import InputError


def check_words(
    experiment: Experiment, named: Mapping[str, Path], words: list[str], sequences: Mapping[str, Path] | None = None
) -> list[str]:
    """Refuse unknown words, and prefer a named configuration to a file of the same name.

    Args:
        experiment: Sacred's experiment, with its commands and options.
        named: the named configurations, with their files.
        words: the command line without the program's name.
        sequences: the named sequences of tasks, with their files.

    Returns:
        The words to hand to Sacred.

    Raises:
        InputError: a word is unknown; the message suggests the nearest one.
    """
    command, sequences = _check_command(experiment, named, words), sequences or {}
    if command == "sequence":
        named = {**named, **sequences}
    first = words[1] if words[1:] else ""
    if command in OPTIONS and "with" not in words and re.match("[^-].*=", first):  # reproduce fast=True
        words = [command, "with", *words[1:]]
    flags = {flag: option for option in experiment.all_cli_options for flag in option.get_flags()}
    checked, options = [], []
    for i, word in enumerate(words):
        takes_previous = i > 0 and words[i - 1] in flags and flags[words[i - 1]].arg is not None
        if "with" not in words[:i] or word.startswith("-") or takes_previous:
            checked.append(word)
            continue
        if word in sequences and word not in named:
            raise InputError(f"{word}: is a sequence of tasks; write: python experiment.py sequence with {word}")
        option = as_option(command, word)
        if option is not None:
            options += option
        else:
            checked.append(_check_change(experiment, named, command, word, i))
    if checked[-1:] == ["with"]:
        checked.pop()
    return checked + options


def _check_command(experiment: Experiment, named: Mapping[str, Path], words: list[str]) -> str:
    """Find the command among the words; ``main`` if they hold none."""
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


def _check_change(experiment: Experiment, named: Mapping[str, Path], command: str, word: str, number: int) -> str:
    """Check a word after ``with`` that sets a key or names a configuration; return what Sacred will read."""
    key, is_change, value = word.partition("=")
    if is_change:
        if not key.strip().isidentifier():  # Sacred would split a dotted key
            raise InputError(unknown_key(key))
        check_text(key, value)
        takers = [name for name, options in OPTIONS.items() if key in options]
        if takers and key not in KEYS:
            *others, last = takers
            known = f"{', '.join(others)} and {last}" if others else last
            raise InputError(f"{word}: is an option of {known}, not of {command}")
        return f"{ALIASES.get(key.strip(), key)}={in_python(value)}"
    if word in named:
        return str(named[word]) if Path(word).is_file() else word
    if Path(word).is_file() and Path(word).suffix in (".yaml", ".yml", ".json"):
        alias = f"the file of word {number}"  # not a path: Sacred would read the file itself, and create objects
        experiment.named_configs[alias] = ConfigDict(load_file(Path(word)))
        return alias
    raise InputError(f"{word}: unknown named configuration{nearest(word, named)}")
