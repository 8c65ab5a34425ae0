"""The bookkeeping of graphs; CUDA itself is stood in for by a graph that runs its step again."""

import contextlib

import pytest
import torch

from bbb.graphs import WARM_UP, Graphed


class Graph:
    """Records the last step that ran under it, and runs that again."""

    running = None

    def register_generator_state(self, generator):
        self.generator = generator

    def replay(self):
        for old, new in zip(self.outputs, self.again(), strict=True):
            old.copy_(new)


@pytest.fixture
def without_gpu(monkeypatch):
    class Stream:
        def wait_stream(self, other):
            pass

    @contextlib.contextmanager
    def recording(graph):
        Graph.running = graph
        yield
        Graph.running = None

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "graph", recording)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)


def test_each_shape_is_warmed_up_captured_and_replayed_with_its_own_input(without_gpu):
    calls = []

    def step(x, y, share, with_kl):
        outputs = x.sum() * share + with_kl, y.sum()
        if Graph.running is not None:
            Graph.running.outputs = outputs
            Graph.running.again = lambda: (x.sum() * share + with_kl, y.sum())
        else:
            calls.append(x.shape)
        return outputs

    graphed = Graphed(step, [torch.Generator()])
    for i in range(10):
        for size in (4, 3):
            for with_kl in (True, False):
                x, y = torch.full((size,), float(i)), torch.full((size,), i)
                loss, measured = graphed(x, y, 0.5, with_kl)
                assert loss.item() == pytest.approx(0.5 * size * i + with_kl)
                assert measured.item() == size * i
    assert len(calls) == 4 * WARM_UP
