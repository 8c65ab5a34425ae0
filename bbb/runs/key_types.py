"""The types of keys: what is allowed, in words and as rules."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, get_args

from pydantic import Field
from pydantic.fields import FieldInfo

RESULTS = "results"
_RESERVED = re.compile(r"\d+|latest|\.{1,2}|_.*")


def experiment_name(name: str) -> str:
    """Check the name of an experiment, without the folder of all results."""
    parts = name.removeprefix(f"{RESULTS}/").split("/")
    if not all(re.fullmatch(r"[A-Za-z0-9._-]+", part) for part in parts):
        raise ValueError
    if any(_RESERVED.fullmatch(part) for part in parts) or parts == [RESULTS]:
        raise ValueError
    return "/".join(parts)


def distinct(classes: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """Refuse a list that names something twice."""
    if classes is not None and len(set(classes)) != len(classes):
        raise ValueError
    return classes


def as_tuple(value: Any) -> Any:
    """Take a list for a tuple."""
    return tuple(value) if isinstance(value, list) else value


def as_tasks(value: Any) -> Any:
    """Take a list of tasks for a tuple of plain dictionaries."""
    if not isinstance(value, list | tuple) or not all(isinstance(task, Mapping) for task in value):
        return value
    return tuple(dict(task) for task in value)


def number(unit: str, **bounds: Any) -> Any:
    """Allow numbers in a range, of a unit."""
    return Field(description=f"a number {_range(bounds)} ({unit})", allow_inf_nan=False, **bounds)


def integer(unit: str, low: int, high: int) -> Any:
    """Allow whole numbers of a range, of a unit."""
    return Field(description=f"a whole number from {low} to {high} ({unit})", ge=low, le=high)


def description(annotated: Any) -> str:
    """Read what is allowed from the ``Field`` among the annotations of a key."""
    fields_of_key = (info for info in annotated.__metadata__ if isinstance(info, FieldInfo))
    return next(info.description for info in fields_of_key if info.description is not None)


def _range(bounds: Mapping[str, float]) -> str:
    words = {"gt": "above", "ge": "from", "lt": "below", "le": "up to"}
    return " and ".join(f"{words[name]} {bound:g}" for name, bound in bounds.items())


def choice(names: Any) -> Any:
    """Allow the values of a ``Literal``."""
    return Field(description=f"one of {', '.join(get_args(names))}")


Std = Annotated[float, number("a standard deviation", ge=1e-6, le=1e3)]
