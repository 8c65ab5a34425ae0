"""The data of a run: those of one task, or of several at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from bbb.data import (
    DataError,
    Split,
    check_shift,
    data_root,
    hold_out,
    load,
    permute,
    rotate,
    select,
    set_aside,
    subsample,
    unite,
)
from bbb.runs.settings import Settings
from bbb.runs.streams import generator


@dataclass(frozen=True)
class Task:
    """The data of an experiment, on its device."""

    train: Split
    validation: Split | None
    test: Split


def load_task(settings: Settings, device: torch.device) -> Task:
    """Load the data, keep the wanted classes, hold out validation, then keep the wanted share of the training set.

    Of a union, this is done for each of its tasks. A coreset is what is left out of the training on one task, and all
    that is trained on of each task of a union.

    Raises:
        bbb.data.DataError: the data are missing or damaged, leave nothing to train on, or have no such labels.
    """
    root = data_root(settings.data_dir)
    sets = {name: load(name, root) for name in dict.fromkeys(each.dataset for each in settings.tasks)}
    parts = [_part(each, *sets[each.dataset], settings.union is not None) for each in settings.tasks]
    if settings.union is None:
        train, validation, test = parts[0]
    else:
        train, validation, test = _united(parts, settings.head == "fresh")
    return Task(train.to(device), validation.to(device) if validation is not None else None, test.to(device))


def as_task(split: Split, classes: Sequence[int] | None, rotation: float, permutation: int | None) -> Split:
    """Make of examples of a data set those of a task: some classes, turned, with their pixels in another order."""
    return permute(rotate(select(split, classes), rotation), permutation)


def _part(settings: Settings, train: Split, test: Split, is_of_union: bool) -> tuple[Split, Split | None, Split]:
    """Make one task of its data set: what to train on, what is held out, and the test set."""
    if train.has_classes != (settings.likelihood == "categorical"):
        kind, other = ("classes", "categorical") if train.has_classes else ("numbers", "gaussian")
        raise DataError(f"likelihood={settings.likelihood}: dataset={settings.dataset} has {kind}; use {other}")
    how = settings.classes, settings.rotation, settings.permutation
    train, test = (as_task(split, *how) for split in (train, test))
    check_shift(train, settings.input_shift)
    train, validation = hold_out(train, settings.validation_fraction, generator(settings, "split"))
    if settings.coreset > 0:
        coreset, rest = set_aside(train, settings.coreset, generator(settings, "coreset"))
        train = coreset if is_of_union else rest
    return subsample(train, settings.fraction, generator(settings, "fraction")), validation, test


def _united(
    parts: Sequence[tuple[Split, Split | None, Split]], has_own_heads: bool
) -> tuple[Split, Split | None, Split]:
    """Make one task of several: with outputs of its own for each, or with the same for all.

    Raises:
        bbb.data.DataError: they do not fit each other.
    """
    nums = [int(max(train.labels.max(), test.labels.max())) + 1 for train, _, test in parts if train.has_classes]
    offsets = [sum(nums[:i]) if has_own_heads else 0 for i in range(len(parts))]
    if not has_own_heads and len({*nums}) > 1:
        raise DataError(f"union: has tasks of {', '.join(map(str, nums))} classes; use head=fresh, or other tasks")
    train = unite([train for train, _, _ in parts], offsets)
    test = unite([test for _, _, test in parts], offsets)
    held_out = [validation for _, validation, _ in parts if validation is not None]
    return train, unite(held_out, offsets) if held_out else None, test
