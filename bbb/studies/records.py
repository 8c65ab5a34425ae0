"""Files of runs, which may hold anything: read with a reason where they cannot be, and as plain values."""

import json
import math
from pathlib import Path
from typing import Any

MAX_BYTES = 64 * 2**20  # of a file that is read; a larger one is no file of a run


def read_json(path: Path) -> Any:
    """Read a JSON file of a run.

    Raises:
        ValueError: it is not there, too large, or no JSON; the message says which, in one line.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"{path.name} is too large")
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ValueError(f"{path.name} is missing") from None
    except OSError as error:
        raise ValueError(f"{path.name} cannot be read ({error.strerror})") from None
    except (RecursionError, UnicodeDecodeError, json.JSONDecodeError):
        raise ValueError(f"{path.name} is damaged") from None


def plain(value: Any, depth: int = 8) -> Any:
    """Return a value that strict JSON can hold: numbers that are not finite are None, what else is odd is a text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if depth > 0 and isinstance(value, list | tuple):
        return [plain(item, depth - 1) for item in value]
    if depth > 0 and isinstance(value, dict):
        return {str(key): plain(item, depth - 1) for key, item in value.items()}
    return str(value)[:200]


def numbers(values: object) -> dict[str, float]:
    """Keep the finite numbers of a dictionary that may hold anything."""
    items = values.items() if isinstance(values, dict) else ()
    return {str(key): value for key, value in items if is_number(value)}


def is_number(value: object) -> bool:
    """Tell whether a value is a finite number, and neither True nor False."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def read_dictionary(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds a dictionary, as :func:`read_json` does."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} is damaged")
    return value
