"""Configurations as plain data: numbers, texts, lists of them, True, False and None, and nothing executable."""

import ast
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from bbb.system import InputError

TASKS = "tasks"  # the key of a sequence that holds a list of the keys that differ
UNION = "union"  # the key of a run that holds a list of tasks to train on at once
_IN_PYTHON = {"null": "None", "true": "True", "false": "False"}
ALIASES: dict[str, str] = {"digits": "classes"}  # other names of keys
_SINCE = {  # keys that older configurations do not hold, and what was done without them
    "tensorboard": False,
    "network": "mlp",
    "deterministic": [],
    "normalization": "auto",
    "pixel_scale": 126.0,
    "likelihood": "categorical",
    "noise_std": 1.0,
    "learn_noise": False,
    "input_shift": 0,
    "posterior": "gaussian",
    "dropout": 0.5,
    "permutation": None,
    "union": None,
    "coreset": 0,
}
_OPTIONS_OF_OLD = ("resume",)  # keys that configurations held before they became options of a command


class SettingsError(InputError):
    """A configuration that cannot be run; the message has one line for each key that is wrong."""


def load_file(path: Path) -> dict[str, Any]:
    """Read the keys that a YAML or JSON file sets, as plain data: unlike Sacred's reader this one creates no objects.

    Raises:
        SettingsError: it cannot be read, or holds more than keys and plain values.
    """
    try:
        text = path.read_text(encoding="utf-8")
        config = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise SettingsError(f"{path}: cannot be read as a configuration ({reason:.200})") from None
    if not isinstance(config, dict) or not all(isinstance(key, str) for key in config):
        raise SettingsError(f"{path}: must hold keys and values, as in configs/default.yaml")
    for key, value in config.items():
        _judge(key, value)(f"{path}: {key}", value)
    return {ALIASES.get(str(key), str(key)): value for key, value in config.items()}


def modernised(config: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a configuration that an older version recorded: renamed keys, and keys that did not exist yet."""
    renamed = {ALIASES.get(str(key), str(key)): value for key, value in config.items() if key not in _OPTIONS_OF_OLD}
    if config.get("digits") == [*range(10)]:
        renamed["classes"] = None
    return {**_SINCE, **renamed}


def check_plain(key: str, value: Any) -> None:
    """Refuse a value that is not a number, a text, a list of these, True, False or None.

    Raises:
        SettingsError: it is something else.
    """
    values = value if isinstance(value, (list, tuple)) else [value]
    if not all(item is None or isinstance(item, (bool, int, float, str)) for item in values):
        raise SettingsError(f"{key}={value!r:.80}: must be a number, a text, a list of them, True, False or None")


def check_tasks(key: str, value: Any) -> None:
    """Refuse tasks that are not a list of keys with plain values.

    Raises:
        SettingsError: they are something else.
    """
    if not isinstance(value, list | tuple) or not all(isinstance(task, Mapping) for task in value):
        raise SettingsError(
            f"{key}={value!r:.80}: must be a list of keys with values, as in [{{'classes': [0, 1]}}, ...]"
        )
    for number, task in enumerate(value, start=1):
        for name, setting in task.items():
            check_plain(f"{key}: {number}: {name}", setting)


def check_text(key: str, text: str) -> None:
    """Refuse a value of the command line that Python reads as something not plain (see :func:`check_plain`).

    Raises:
        SettingsError: it is not plain.
    """
    value = read_value(key, text)
    _judge(key, value)(key, value)


def _judge(key: str, value: Any) -> Callable[[str, Any], None]:
    """Choose what checks a value; a union may be None."""
    has_tasks = key == TASKS or (key == UNION and value is not None)
    return check_tasks if has_tasks else check_plain


def in_python(text: str) -> str:
    """Turn YAML's ``null``, ``true`` and ``false``, as the files of configurations have them, into Python's words."""
    return _IN_PYTHON.get(text.strip(), text)


def read_value(key: str, text: str) -> Any:
    """Read a value of the command line as a Python literal or a word of YAML, or, if it is neither, as a text.

    Raises:
        SettingsError: it is nested too deeply.
    """
    try:
        return ast.literal_eval(in_python(text).strip())
    except (SyntaxError, ValueError):
        return text
    except (MemoryError, RecursionError):
        raise SettingsError(f"{key}: its value is nested too deeply") from None
