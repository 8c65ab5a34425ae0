"""Problems so small that their true posterior can be had: what to learn, with which network, likelihood and prior."""

import itertools
import math
from dataclasses import dataclass

import torch
from sklearn.datasets import make_moons
from torch import Tensor, nn

from bbb.data import Normalization, Split, load, standardization
from bbb.distributions import FlowName, gaussian_prior
from bbb.inference import Categorical, GaussianNoise, Likelihood, LogJoint
from bbb.networks import BayesianNetwork, ModuleArchitecture, initial_network
from bbb.studies.regression import HIGHEST_X, draw_data

NUM_BINS = 200  # of y, in which the predictive distribution of a number is stored
ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu}
MODULES = {"tanh": nn.Tanh, "relu": nn.ReLU}


@dataclass(frozen=True)
class Problem:
    """A problem with its network.

    Attributes:
        name: of the problem.
        title: what it is, in a few words.
        train: the examples that make the posterior.
        test: others, for NLL and calibration.
        inputs: where predictions are compared with the truth, ``(N, P)``.
        sizes: units of the network's layers.
        activation: ``tanh`` or ``relu``.
        prior_std: of the Gaussian prior of every weight.
        noise_std: of the likelihood; None for classes.
        gap: of regression, the range of x without data; None for others.
        is_standardized: whether the network standardises its inputs.
        pixel_scale: grey levels that become 1, of images.
    """

    name: str
    title: str
    train: Split
    test: Split
    inputs: Tensor
    sizes: tuple[int, ...]
    activation: str
    prior_std: float
    noise_std: float | None = None
    gap: tuple[float, float] | None = None
    is_standardized: bool = False
    pixel_scale: float = 1.0

    @property
    def likelihood(self) -> Likelihood:
        """p(y | outputs)."""
        return Categorical(self.sizes[-1]) if self.noise_std is None else GaussianNoise(1, self.noise_std)

    def module(self) -> nn.Sequential:
        """Make the network as an ordinary module."""
        parts: list[nn.Module] = []
        for num_in, num_out in itertools.pairwise(self.sizes):
            parts += [nn.Linear(num_in, num_out), MODULES[self.activation]()]
        return nn.Sequential(*parts[:-1])

    def network(
        self, init_std: float, generator: torch.Generator, num_flows: int = 0, flow: FlowName = "planar"
    ) -> BayesianNetwork:
        """Make the network with a posterior to train, as :func:`bbb.networks.initial_network` does."""
        architecture = ModuleArchitecture(self.module(), (self.sizes[0],), self.sizes[-1])
        normalization = Normalization(scale=1.0 / self.pixel_scale)
        if self.is_standardized:
            normalization = standardization(self.train.images, self.train.input_shape)
        return initial_network(architecture, init_std, generator, num_flows, flow, normalization)

    def target(self, dtype: torch.dtype = torch.float32) -> LogJoint:
        """Make the density of the true posterior."""
        network = self.network(0.1, torch.Generator().manual_seed(0))
        prior = gaussian_prior(network.posterior.dim, self.prior_std).to(dtype)
        return LogJoint(network, self.likelihood.to(dtype), prior, self.train)

    @property
    def bins(self) -> Tensor:
        """The edges of the bins of y, ``(NUM_BINS + 1,)``: a margin around all numbers; the outer ones are open."""
        y = self.train.labels
        margin = 1.5 * (y.max() - y.min())
        return torch.linspace((y.min() - margin).item(), (y.max() + margin).item(), NUM_BINS + 1)

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Average over draws the probabilities of the classes, or of the bins of y.

        Args:
            outputs: of the network under S draws, ``(S, N, C)``.

        Returns:
            ``(N, classes or bins)``.
        """
        if self.noise_std is None:
            return outputs.softmax(-1).mean(0)
        inner = self.bins[1:-1].to(outputs.dtype)
        below = torch.special.ndtr((inner - outputs) / self.noise_std).mean(0)  # (N, bins - 1)
        edges = torch.cat([torch.zeros_like(below[:, :1]), below, torch.ones_like(below[:, :1])], dim=1)
        return edges.diff(dim=1)


def problems(fast: bool) -> dict[str, Problem]:
    """List the problems by name.

    Args:
        fast: two of them, with fewer units.
    """
    made = [_gap(10 if fast else 50), _paper(50), _moons(4 if fast else 10), _digits()]
    return {problem.name: problem for problem in (made[::2] if fast else made)}


def _gap(num_hidden: int) -> Problem:
    """Two clusters of 40 points on a wave, with nothing between them."""
    generator = torch.Generator().manual_seed(1)

    def draw(num: int) -> Split:
        left, right = (torch.rand(num, generator=generator) for _ in range(2))
        x = torch.cat([-1.0 + 0.3 * left, 0.5 + 0.5 * right])
        y = torch.cos(4.0 * x + 0.8) + 0.1 * torch.randn(2 * num, generator=generator)
        return Split(x.unsqueeze(1), y)

    inputs = torch.linspace(-1.5, 1.5, 61).unsqueeze(1)
    return Problem(
        "gap",
        "regression with a gap",
        draw(40),
        draw(250),
        inputs,
        (1, num_hidden, 1),
        "tanh",
        1.0,
        0.1,
        gap=(-0.4, 0.2),
    )


def _paper(num_hidden: int) -> Problem:
    """The curve of Blundell et al. 2015, section 5.2, and the range beyond its data as the gap."""
    train, test = (draw_data(num, torch.Generator().manual_seed(i)) for i, num in ((1, 100), (2, 500)))
    inputs = torch.linspace(-0.2, 0.7, 61).unsqueeze(1)
    return Problem(
        "paper",
        "the paper's regression",
        train,
        test,
        inputs,
        (1, num_hidden, 1),
        "tanh",
        1.0,
        0.1,
        (HIGHEST_X + 0.05, 0.7),
        is_standardized=True,
    )


def _moons(num_hidden: int) -> Problem:
    def draw(num: int, seed: int) -> Split:
        x, y = make_moons(num, noise=0.2, random_state=seed)
        return Split(torch.tensor(x, dtype=torch.float32), torch.tensor(y))

    side = torch.linspace(-2.5, 3.5, 13), torch.linspace(-2.0, 2.5, 10)
    inputs = torch.cartesian_prod(*side)
    return Problem(
        "moons", "two moons", draw(100, 1), draw(500, 2), inputs, (2, num_hidden, num_hidden, 2), "tanh", 1.0
    )


def _digits() -> Problem:
    """Digits of 8x8 pixels: 300 to learn, 360 to test."""
    train, test = load("digits8x8")
    few = Split(train.images[:300].float(), train.labels[:300])
    test = Split(test.images.float(), test.labels)
    return Problem(
        "digits8x8", "digits of 8x8 pixels", few, test, test.images, (64, 10, 10), "relu", 0.3, pixel_scale=126.0
    )


def in_gap(problem: Problem) -> Tensor:
    """Which of a regression's inputs lie where there are no data, ``(N,)``."""
    least, most = problem.gap if problem.gap is not None else (math.nan, math.nan)
    return (problem.inputs[:, 0] >= least) & (problem.inputs[:, 0] <= most)


def on_data(problem: Problem) -> Tensor:
    """Which of a regression's inputs lie next to an example, ``(N,)``."""
    spacing = (problem.inputs[1, 0] - problem.inputs[0, 0]).item()
    return ((problem.inputs - problem.train.images.T).abs() < spacing).any(1)
