"""Time contenders against a floor, each in a process of its own, in pairs that take turns.

The floor and the contender start as two fresh processes, each with its own memory, allocator and threads. They take
turns strictly: one makes a block of steps while the other waits, blocked, for a word over its pipe. A turn of each is
milliseconds apart, so a machine that changes its speed changes it for both; and a turn is long, so what it costs to
fill the caches again is lost in it. The ratio of a pair is the median over its turns. What one start of a process gets
by chance, such as the layout of its memory, differs from pair to pair: the median and the range over pairs tell it.

A fresh process for each turn would need 3 s to import and to warm up for each second of steps, and would put those
seconds between the two halves of a ratio.

Denormal numbers are flushed to zero in all processes. Adam's mean of the gradients of a unit that is dead shrinks by a
tenth each step and stays at the smallest denormals for good. A processor computes with those so slowly that, unflushed,
a deterministic step takes more than twice as long after two epochs on random images as before. Drawn weights keep their
units alive, so a floor that is not flushed flatters every ratio.
"""

import contextlib
import multiprocessing
import os
import platform
import re
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # as on the command line: who waits must not spin

import torch

from bbb.system import set_up

SPAWN = multiprocessing.get_context("spawn")
Block = Callable[[], object]  # makes a block of steps


class ContenderError(Exception):
    """A contender that cannot be run; the message is one line that says why."""


@dataclass(frozen=True)
class Contender:
    """What is timed.

    Attributes:
        make: called in the contender's own process; returns what makes a block of steps. It must be picklable.
        steps: the steps in a block.
        floor: the name of the contender that it is compared with.
    """

    make: Callable[[], Block]
    steps: int
    floor: str = "deterministic MLP"


@dataclass(frozen=True)
class Row:
    """What was measured: medians over pairs, in ms a step; the ratio's range over pairs; peak memory in MB."""

    name: str
    ms: float
    floor_ms: float
    ratio: float
    low: float
    high: float
    memory: float
    floor_memory: float

    def __str__(self) -> str:
        over = f"{self.memory - self.floor_memory:+.0f}"
        return (
            f"| {self.name} | {self.ms:.2f} | {self.floor_ms:.2f} | {self.ratio:.2f} ({self.low:.2f}-{self.high:.2f}) "
            f"| {over} |"
        )


HEAD = "| | ms | floor, ms | ratio (its range) | memory over the floor's, MB |\n|---|---|---|---|---|"


@dataclass(frozen=True)
class Rules:
    """How long to measure.

    Attributes:
        pairs: pairs of fresh processes.
        turns: turns that each process of a pair takes, after one that warms it up.
        seconds: of steps in a turn, at least; a turn is a whole number of blocks.
        threads: of each process; None for PyTorch's own choice.
    """

    pairs: int = 3
    turns: int = 5
    seconds: float = 0.7
    threads: int | None = None


class Process:
    """A contender in a process of its own, which works only while it is asked to."""

    def __init__(self, name: str, contender: Contender, rules: Rules) -> None:
        self.name = name
        self.pipe, other = SPAWN.Pipe()
        self.process = SPAWN.Process(target=_serve, args=(other, contender, rules))
        self.process.start()
        other.close()

    def turn(self) -> float:
        """Let it work, and wait; returns the ms of a step."""
        return self._ask("turn")

    def close(self) -> float:
        """End the process; returns its peak memory in MB."""
        memory = self._ask("close")
        self.process.join()
        return memory

    def kill(self) -> None:
        """End the process, whatever it does."""
        self.process.kill()
        self.process.join()

    def _ask(self, word: str) -> float:
        with contextlib.suppress(OSError):  # it may have ended, and have said why
            self.pipe.send(word)
        try:
            answer = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            raise ContenderError(f"{self.name}: its process ended with code {self.process.exitcode}") from None
        if isinstance(answer, str):
            raise ContenderError(f"{self.name}: {answer}")
        return answer


def _serve(pipe: Connection, contender: Contender, rules: Rules) -> None:
    """Answer each word with a number, or with a line that says what went wrong."""
    try:
        set_up(rules.threads)
        torch.set_flush_denormal(True)  # before the first parallel region, whose threads inherit it
        run = contender.make()
        while pipe.recv() == "turn":
            start, blocks = time.perf_counter(), 0
            while blocks == 0 or time.perf_counter() - start < rules.seconds:
                run()
                blocks += 1
            pipe.send(1e3 * (time.perf_counter() - start) / (blocks * contender.steps))
        pipe.send(peak_memory())
    except EOFError:
        pass  # the other side is gone
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {' '.join(str(error).split()):.200}")


def compare(name: str, contender: Contender, floor: Contender, rules: Rules) -> Row:
    """Time a contender and its floor in pairs.

    Raises:
        ContenderError: one of them cannot be run.
    """
    pairs = [_pair(name, contender, floor, rules) for _ in range(rules.pairs)]
    ratios = [ratio for _, _, ratio, _, _ in pairs]
    ms, floor_ms, ratio, memory, floor_memory = (statistics.median(column) for column in zip(*pairs, strict=True))
    return Row(name, ms, floor_ms, ratio, min(ratios), max(ratios), memory, floor_memory)


def _pair(name: str, contender: Contender, floor: Contender, rules: Rules) -> tuple[float, ...]:
    sides = [Process(f"{name}: its floor", floor, rules), Process(name, contender, rules)]
    try:
        turns = [[side.turn() for side in sides] for _ in range(rules.turns + 1)][1:]
        floor_memory, memory = (side.close() for side in sides)
    finally:
        for side in sides:
            side.kill()
    floor_ms, ms = (statistics.median(column) for column in zip(*turns, strict=True))
    return ms, floor_ms, statistics.median(ours / theirs for theirs, ours in turns), memory, floor_memory


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a fresh process."""
    with ProcessPoolExecutor(1, SPAWN) as process:
        return process.submit(function, *arguments).result()


def peak_memory() -> float:
    """Return the peak memory of this process in MB: of its tensors on the GPU, if it has used one."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status")
    if status.is_file():  # unlike getrusage it does not count what the parent held when it started this process
        return int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text())[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if platform.system() == "Darwin" else peak / 1024
