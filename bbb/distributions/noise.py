"""Standard normal noise, drawn anew or read from a table that several training steps share."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bbb.system import ALONE, Group

ALIGNMENT = 16  # numbers; vector instructions are slower when they cross cache lines
FEWEST_PLACES = 4096  # where a window may start; a longer table costs more to draw


class NoiseTable:
    """A source of noise that is much cheaper than drawing it: steps read random windows of one table.

    Within one step the numbers are exactly independent and N(0, 1). So the estimate of the gradient is unbiased, as
    with fresh noise. No two steps read the same window: later steps use a number again for other weights, until the
    table is drawn anew. Evolution strategies share noise in this way (Salimans et al. 2017, arXiv 1703.03864, section
    2).

    Args:
        generator: source of the table and of the windows' positions.
        num_uses: steps after which the table is drawn anew; 1 draws fresh noise in every step, without a table.
        window: the most numbers that one step reads.
        group: the processes of a run. Their tables are equal, and each process reads its own window.
    """

    def __init__(self, generator: torch.Generator, num_uses: int, window: int, group: Group = ALONE) -> None:
        self.generator, self.num_uses, self.window, self.group = generator, num_uses, window, group
        self._num_places = max(FEWEST_PLACES, num_uses * group.size)
        self._drawn_from = generator.get_state()
        self._uses, self._at, self._left = num_uses, 0, 0
        self._table: Tensor | None = None
        self._places: list[int] = []  # of this process's window, for each use of the table

    def begin_step(self) -> None:
        """Choose the window of a step; :meth:`normal` reads it from its start."""
        if self.num_uses == 1:
            return
        if self._uses == self.num_uses:
            self._draw_table()
        self._left, self._at = self.window, ALIGNMENT * self._places[self._uses]
        self._uses += 1

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Read float32 noise of a shape. Do not write to the result: it may be a view of the table.

        Raises:
            ValueError: the step reads more than ``window`` numbers.
        """
        if self.num_uses == 1:
            for_all = torch.empty(self.group.size, *shape, device=self.generator.device)
            return for_all.normal_(generator=self.generator)[self.group.rank]
        num = math.prod(shape)
        start, self._at, self._left = self._at, self._at + num, self._left - num
        if self._left < 0 or self._table is None:
            raise ValueError(f"shape={tuple(shape)}: a step reads more than window={self.window} numbers")
        return self._table[start : self._at].view(*shape)

    def state_dict(self) -> dict[str, Any]:
        """Return what continues with the same noise: not the table, but the generator state that made it."""
        return {"generator": self.generator.get_state(), "drawn_from": self._drawn_from, "uses": self._uses}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned, between two steps."""
        # set_state needs a CPU tensor, whatever the device of the generator and of the loaded checkpoint.
        self._uses = state["uses"]
        if self.num_uses > 1 and self._uses < self.num_uses:
            self.generator.set_state(state["drawn_from"].cpu())
            self._draw_table()
            self._uses = state["uses"]
        self.generator.set_state(state["generator"].cpu())

    def _draw_table(self) -> None:
        self._drawn_from = self.generator.get_state()
        if self._table is None:
            self._table = torch.empty(self.window + ALIGNMENT * self._num_places, device=self.generator.device)
        self._table.normal_(generator=self.generator)
        places = torch.randperm(self._num_places, generator=self.generator, device=self.generator.device)
        self._places = places[self.group.rank :: self.group.size][: self.num_uses].tolist()
        self._uses = 0


class Stacked:
    """The noise of R replicas; each reads its own table, as it would if it were trained alone.

    Args:
        tables: R tables.
    """

    def __init__(self, tables: Sequence[NoiseTable]) -> None:
        self.tables = tables

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Read noise ``(S, R, ...)``."""
        num_samples, _, *rest = shape
        return torch.stack([table.normal((num_samples, *rest)) for table in self.tables], dim=1)


class Selected:
    """The noise of some of D weights, read together with that of the others.

    Args:
        source: of the noise of all D weights.
        dim: D.
        index: of the K weights, ``(K,)``.
    """

    def __init__(self, source: "NoiseSource", dim: int, index: Tensor) -> None:
        self.source, self.dim, self.index = source, dim, index

    def normal(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Draw noise ``(..., K)``.

        Raises:
            ValueError: the shape does not end in K.
        """
        *draws, num = shape
        if num != len(self.index):
            raise ValueError(f"shape={tuple(shape)}: must end in {len(self.index)}, the number of selected weights")
        return normal((*draws, self.dim), like, self.source).index_select(-1, self.index)


NoiseSource = torch.Generator | NoiseTable | Stacked | Selected | None


def normal(shape: Sequence[int], like: Tensor, source: NoiseSource) -> Tensor:
    """Draw standard normal noise of the type and on the device of a tensor.

    Args:
        shape: of the noise.
        like: a tensor of the wanted type and device.
        source: a generator on that device, a table, a part of either, or None for PyTorch's own generator.
    """
    if isinstance(source, Selected):
        return source.normal(shape, like)
    if isinstance(source, NoiseTable | Stacked):
        return source.normal(shape).to(like.dtype)
    return torch.empty(*shape, dtype=like.dtype, device=like.device).normal_(generator=source)
