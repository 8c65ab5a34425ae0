"""The contract of studies that are not made of runs: parts that are computed once and kept, and one figure.

Such a study has a command of its own name. It joins ``reproduce`` and ``figures`` by a place in
:func:`bbb.studies.all_studies`.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from matplotlib.figure import Figure

from bbb.runs import RESULTS, save_figure
from bbb.studies.records import read_dictionary
from bbb.system import lock, write_aside, writing

Results = Mapping[str, dict[str, Any]]  # of each part by its name: plain data


class Study(ABC):
    """What a command computes in parts, and the figure of it.

    Attributes:
        name: of its command, its files and its folder.
        fast: at toy size, in seconds.
    """

    name: ClassVar[str]

    def __init__(self, fast: bool = False) -> None:
        self.fast = fast

    @property
    @abstractmethod
    def config(self) -> dict[str, Any]:
        """All that the figure depends on, as plain data; a file of another configuration is not drawn."""

    @abstractmethod
    def config_of(self, part: str) -> dict[str, Any]:
        """All that a part depends on, as plain data; a part of another configuration is computed anew."""

    @property
    @abstractmethod
    def parts(self) -> Mapping[str, int]:
        """The names of the parts, which name their files, and the steps of each, for a progress bar."""

    @abstractmethod
    def make(self, part: str, on_step: Callable[[], None]) -> dict[str, Any]:
        """Compute a part, as plain data; ``on_step`` is called after each of its steps and may raise."""

    @abstractmethod
    def show(self, results: Results) -> dict[str, Any]:
        """Turn the results of all parts into what the figure shows, with the numbers beside it, as plain data."""

    @staticmethod
    @abstractmethod
    def draw(shows: dict[str, Any]) -> Figure:
        """Turn that data into the figure."""

    @staticmethod
    @abstractmethod
    def lines(shows: dict[str, Any]) -> list[str]:
        """Say in a few lines what was found."""

    @property
    def words(self) -> tuple[str, ...]:
        """The command, as words of the command line."""
        return self.name, *(["fast=True"] if self.fast else [])

    @property
    def folder(self) -> Path:
        """Where the parts are kept; those of toy size never replace the others."""
        return Path(RESULTS) / ("reproduce-fast" if self.fast else "") / self.name

    def kept(self) -> dict[str, dict[str, Any]]:
        """Read the parts that were finished before, of this configuration."""
        found = {}
        for part in self.parts:
            try:
                record = read_dictionary(self._path(part))
            except ValueError:  # not there, or damaged
                continue
            if record.get("config") == _plain(self.config_of(part)) and isinstance(record.get("result"), dict):
                found[part] = record["result"]
        return found

    def run(self, on_step: Callable[[], None] = lambda: None) -> Iterator[tuple[str, dict[str, Any]]]:
        """Compute the missing parts and keep each; yield the parts in their order.

        Raises:
            bbb.system.BusyError: another process computes them.
            bbb.system.StorageError: a file cannot be written.
        """
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        claim = lock(self.folder)
        try:
            before = self.kept()
            for part in self.parts:
                result = before.get(part)
                if result is None:
                    result = _plain(self.make(part, on_step))
                    record = {"config": self.config_of(part), "result": result}
                    write_aside(self._path(part), f"{json.dumps(record)}\n".encode())
                yield part, result
        finally:
            claim.release()

    def save(self, results: Results, where: Path) -> dict[str, Any]:
        """Draw the figure, write the JSON file from which it can be drawn again, and return what it shows."""
        shows = _plain(self.show(results))
        parts = ",\n  ".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in shows.items())
        head = json.dumps({"figure": self.name, "config": self.config})[:-1]
        with writing(where):
            where.mkdir(parents=True, exist_ok=True)
        write_aside(where / f"{self.name}.json", f'{head},\n "shows": {{\n  {parts}\n }}\n}}\n'.encode())
        save_figure(where / f"{self.name}.png", self.draw(shows))
        return shows

    def redraw(self, where: Path) -> bool:
        """Draw the figure from its JSON file; do nothing and return False if no file has the same configuration."""
        try:
            record = read_dictionary(where / f"{self.name}.json")
            if record["config"] != _plain(self.config):
                return False
            figure = self.draw(record["shows"])
        except (ValueError, KeyError, TypeError, AttributeError):  # no file, or not written by us
            return False
        save_figure(where / f"{self.name}.png", figure)
        return True

    def _path(self, part: str) -> Path:
        return self.folder / f"{part}.json"


def _plain(value: Any) -> Any:
    """Return a value as JSON gives it back."""
    return json.loads(json.dumps(value))
