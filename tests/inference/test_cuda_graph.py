"""The bookkeeping of CUDA graphs, without a GPU: what records is stood in for, and streams where there are none."""

import contextlib

import pytest
import torch

from bbb.inference import Step
from bbb.inference.cuda_graph import WARM_UP, Graphed
from tests.tasks import training


class Graph:
    """Stands in for a CUDA graph: with each replay, it makes the step again that was made under it."""

    def __init__(self):
        self.generators = []

    def register_generator_state(self, generator):
        self.generators.append(generator)

    def replay(self):
        self.measured.copy_(self.step(*self.arguments))


class Recording:
    """The graphs of a test, and the one that records."""

    def __init__(self):
        self.graphs, self.current = [], None

    def new_graph(self):
        self.graphs.append(Graph())
        return self.graphs[-1]

    @contextlib.contextmanager
    def record(self, graph):
        self.current = graph
        yield
        self.current = None

    def recordable(self, step):
        """As on a GPU, a step under a graph is recorded and not made."""

        def make(*arguments):
            if self.current is None:
                return step(*arguments)
            measured = torch.zeros(3, dtype=torch.float64)
            self.current.step, self.current.arguments, self.current.measured = step, arguments, measured
            return measured

        return make


class Stream:
    def wait_stream(self, other):
        pass


@pytest.fixture
def recording(monkeypatch):
    recording = Recording()
    monkeypatch.setattr(torch.cuda, "CUDAGraph", recording.new_graph)
    monkeypatch.setattr(torch.cuda, "graph", recording.record)
    if not torch.cuda.is_available():
        monkeypatch.setattr(torch.cuda, "Stream", Stream)
        monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    return recording


def test_each_shape_is_warmed_up_captured_and_replayed_with_its_own_input(recording):
    calls, inputs = [], []

    def step(x, y, kl_share, with_kl):
        calls.append((x.shape, with_kl))
        return torch.stack([x.sum() * kl_share + with_kl, y.sum(), kl_share]).double()

    graphed = Graphed(recording.recordable(step), [torch.Generator()])
    for i in range(10):
        for size in (4, 3):
            for with_kl in (True, False):
                x, y = torch.full((size,), float(i)), torch.full((size,), i)
                measured = graphed(x, y, 0.5 + i, with_kl)
                assert measured.tolist() == pytest.approx([(0.5 + i) * size * i + with_kl, size * i, 0.5 + i])
                inputs.append((x, y, i))
        assert len(recording.graphs) == (0 if i < WARM_UP else 4)
    assert len(calls) == 4 * 10
    assert all((x == i).all() and (y == i).all() for x, y, i in inputs)  # a caller's tensors stay its own


@pytest.mark.parametrize(
    ("changes", "num_graphs"),
    [
        ({"batch_size": 10}, 2),  # six minibatches of 10 images and one of 4
        ({"batch_size": 2, "beta_type": "blundell", "temperature": 2.0**-30}, 2),  # a KL that counts in 20 of 32
        ({"batch_size": 8, "beta_type": "soenderby", "estimator": "local", "num_samples": 2}, 1),
    ],
    ids=["a smaller last minibatch", "a KL that is left out", "local"],
)
def test_a_training_whose_steps_are_replayed_is_the_training(changes, num_graphs, toy_split, recording):
    plain, graphed = (training(toy_split, toy_split, num_epochs=8, optimizer="sgd", **changes) for _ in range(2))
    generators = [streams.weights for streams in graphed.streams]
    graphed.step = Graphed(recording.recordable(graphed.step), generators)
    for epoch, expected in zip(graphed.fit(), plain.fit(), strict=True):
        for name in ("train_nll", "train_kl", "train_elbo", "validation_nll"):
            assert getattr(epoch, name) == pytest.approx(getattr(expected, name), rel=1e-5)
    torch.testing.assert_close(
        graphed.network.posterior.state_dict(), plain.network.posterior.state_dict(), rtol=1e-5, atol=1e-6
    )
    assert len(recording.graphs) == num_graphs
    assert all(graph.generators == generators for graph in recording.graphs)


def test_there_are_no_graphs_on_a_cpu(toy_split):
    assert isinstance(training(toy_split, cuda_graph=True).step, Step)
