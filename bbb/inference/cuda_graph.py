"""A training step as a CUDA graph: one launch replays all kernels of the step."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

WARM_UP = 3  # runs before a capture, on a side stream, as PyTorch requires

Measure = Callable[[Tensor, Tensor, Tensor, bool], Tensor]
Captured = tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]  # the graph, its inputs and its output


class Graphed:
    """A step that runs eagerly at first, and is then captured and replayed; one graph for each input shape.

    Args:
        step: takes inputs, labels, a share of the KL (a scalar tensor) and whether the KL counts; returns a tensor.
        generators: all generators that the step uses, on the GPU.
    """

    def __init__(self, step: Measure, generators: Sequence[torch.Generator]) -> None:
        self.step, self.generators = step, generators
        self._runs: dict[tuple[torch.Size, bool], int] = {}
        self._graphs: dict[tuple[torch.Size, bool], Captured] = {}

    def __call__(self, x: Tensor, y: Tensor, kl_share: float, with_kl: bool) -> Tensor:
        """Run the step; the next call overwrites the returned tensor."""
        key = x.shape, with_kl
        share = torch.full((), kl_share, device=x.device)
        if key not in self._graphs:
            self._runs[key] = self._runs.get(key, 0) + 1
            if self._runs[key] <= WARM_UP:
                return self._warm_up(x, y, share, with_kl)
            self._graphs[key] = self._capture([x.clone(), y.clone(), share], with_kl)
        graph, inputs, measured = self._graphs[key]
        for buffer, value in zip(inputs, (x, y, share), strict=True):
            buffer.copy_(value)
        graph.replay()
        return measured

    def _warm_up(self, x: Tensor, y: Tensor, kl_share: Tensor, with_kl: bool) -> Tensor:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            measured = self.step(x, y, kl_share, with_kl)
        torch.cuda.current_stream().wait_stream(stream)
        return measured

    def _capture(self, inputs: list[Tensor], with_kl: bool) -> Captured:
        graph, (x, y, kl_share) = torch.cuda.CUDAGraph(), inputs
        for generator in self.generators:
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph):  # records the kernels and runs none
            measured = self.step(x, y, kl_share, with_kl)
        return graph, inputs, measured
