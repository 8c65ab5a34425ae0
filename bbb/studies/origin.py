"""Where a configuration comes from: the named configuration nearest to it, what differs, and the command that makes it.

Nothing here loads PyTorch.
"""

import ast
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bbb.runs import in_python, load_file
from bbb.studies.grid import FREE
from bbb.system import InputError

DEFAULT = "default"


@dataclass(frozen=True)
class Origin:
    """What a configuration was made of.

    Attributes:
        named: the named configuration that it differs least from; ``default`` if that is none.
        changes: the keys that differ from it, with their values, without those that compute nothing.
        command: the command line that makes such a run again.
    """

    named: str
    changes: dict[str, Any]
    command: str


def named_configs(folder: Path) -> dict[str, dict[str, Any]]:
    """Read the named configurations of a folder, every key of each; ``default`` is the first.

    A file that cannot be read is left out: what is shown of other runs does not need it.
    """
    default = load_file(folder / f"{DEFAULT}.yaml")
    configs = {DEFAULT: default}
    for path in sorted(folder.glob("*.yaml")):
        try:
            configs.setdefault(path.stem, {**default, **load_file(path)})
        except InputError:
            continue
    return configs


def origin(config: Mapping[str, Any], named: Mapping[str, Mapping[str, Any]]) -> Origin:
    """Find the named configuration with the fewest differences; among several, the one of the same experiment name.

    Args:
        config: a run's configuration, which may be of another version, or be damaged.
        named: as :func:`named_configs` reads them.
    """
    name = str(config.get("experiment_name"))

    def distance(candidate: str) -> tuple[int, bool, bool]:
        base = named[candidate]
        return len([*_differing(config, base, but=FREE)]), base["experiment_name"] != name, candidate != DEFAULT

    nearest = min(named, key=distance)
    words = [_word(key, config[key]) for key in _differing(config, named[nearest])]
    start = [] if nearest == DEFAULT else [nearest]
    line = " ".join(["python experiment.py", *["with"] * bool(start or words), *start, *words])
    changes = {key: config[key] for key in _differing(config, named[nearest], but=FREE)}
    return Origin(nearest, changes, line)


def _differing(config: Mapping[str, Any], base: Mapping[str, Any], but: tuple[str, ...] = ()) -> Iterator[str]:
    """The keys of a configuration whose values are not those of another one; lists and tuples are compared as lists."""
    for key, value in config.items():
        if key not in but and (key not in base or not _same(value, base[key])):
            yield key


def _same(one: Any, other: Any) -> bool:
    one, other = (list(value) if isinstance(value, tuple) else value for value in (one, other))
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _word(key: str, value: Any) -> str:
    """Write a key and its value as a word of a shell's command line, which is read back as the same value."""
    text = value if isinstance(value, str) and not _is_literal(value) else repr(value)
    return shlex.quote(f"{key}={text}")


def _is_literal(text: str) -> bool:
    """Tell whether a text would be read as another value, such as the text ``1`` or ``None``."""
    try:
        ast.literal_eval(in_python(text).strip())
    except (SyntaxError, ValueError):
        return False
    except (MemoryError, RecursionError):
        return True
    return True
