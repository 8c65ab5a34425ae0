"""The same network in the words of the libraries a user would pick instead, and in ours.

All draw the weights once a step and train by Adam at 0.001 on the ELBO: cross-entropy + KL / N, each as its
documentation has it.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bbb import data
from bbb.data import Split
from bbb.inference import Categorical, Plan, predict
from bbb.networks import initial_network
from tests.benchmarks.contenders import (
    CLASSES,
    INIT_STD,
    OURS,
    PRIOR_STD,
    lenet_of,
    mlp_of,
    ordinary,
    ordinary_run,
    ours,
    training,
)
from tests.benchmarks.paired import Block
from tests.tasks import seeded

Batch = tuple[Tensor, Tensor]


class Peer:
    """A network, ``mlp`` or ``lenet``, that trains a batch at a time and predicts by averaging draws of its weights."""

    def __init__(self, num_train: int, kind: str = "mlp") -> None:
        self.num_train, self.kind = num_train, kind
        self.network = self.build()
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=OURS.lr)

    def build(self) -> nn.Module:
        raise NotImplementedError

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """The negative ELBO per example."""
        raise NotImplementedError

    def logits(self, x: Tensor) -> Tensor:
        """The logits ``(B, C)`` under one draw."""
        return self.network(x)

    def train(self, batches: Iterator[Batch]) -> None:
        for x, y in batches:
            self.optimizer.zero_grad()
            self.loss(x, y).backward()
            self.optimizer.step()

    def epochs(self, train: Split) -> Block:
        """Make a function that passes once over a training set."""
        order, normalization = seeded(1), data.Normalization()

        def batches() -> Iterator[Batch]:
            for x, y in data.batches(train, OURS.batch_size, order):
                yield normalization(x), y

        return lambda: self.train(batches())

    @torch.no_grad()
    def predict(self, images: Tensor, num_samples: int) -> Tensor:
        x = data.Normalization()(images)
        draws = torch.stack([self.logits(x).log_softmax(1) for _ in range(num_samples)])
        return draws.logsumexp(0) - math.log(num_samples)

    def made_of(self, linear: Callable[..., nn.Module], conv: Callable[..., nn.Module]) -> nn.Sequential:
        """Make the network of a library's layers."""
        return mlp_of(linear) if self.kind == "mlp" else lenet_of(conv, linear)


class Deterministic(Peer):
    """The floor: an ordinary network with fused Adam."""

    def build(self) -> nn.Module:
        return ordinary(self.kind)

    def epochs(self, train: Split) -> Block:
        return ordinary_run(train, self.network)


class Ours(Peer):
    """This project's own loop, by one of its recipes."""

    def __init__(self, num_train: int, prior: str, plan: Plan) -> None:
        self.network = initial_network(ours("mlp"), INIT_STD, seeded(1))
        self.prior, self.plan, self.draws = prior, plan, seeded(4)

    def epochs(self, train: Split) -> Block:
        epochs = training(self.network, train, self.prior, self.plan).fit()
        return lambda: next(epochs)

    def predict(self, images: Tensor, num_samples: int) -> Tensor:
        return predict(self.network, Categorical(CLASSES), images, num_samples, self.draws)


class Blitz(Peer):
    """BLiTZ: a class decorator and Bayesian layers; its prior is a scale mixture."""

    def build(self) -> nn.Module:
        from blitz.modules import BayesianConv2d, BayesianLinear
        from blitz.utils import variational_estimator

        @variational_estimator
        class Network(nn.Sequential):
            pass

        return Network(*self.made_of(BayesianLinear, lambda i, o, size: BayesianConv2d(i, o, (size, size))))

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        criterion, weight = nn.CrossEntropyLoss(), 1.0 / self.num_train
        return self.network.sample_elbo(x, y, criterion=criterion, sample_nbr=1, complexity_cost_weight=weight)


class BayesianTorch(Peer):
    """Bayesian-Torch: an ordinary network, converted."""

    def build(self) -> nn.Module:
        from bayesian_torch.models.dnn_to_bnn import dnn_to_bnn

        network = ordinary(self.kind)
        parameters = {
            "prior_mu": 0.0,
            "prior_sigma": PRIOR_STD,
            "posterior_mu_init": 0.0,
            "posterior_rho_init": -3.0,
            "type": "Reparameterization",
            "moped_enable": False,
        }
        dnn_to_bnn(network, parameters)
        return network

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        from bayesian_torch.models.dnn_to_bnn import get_kl_loss

        return F.cross_entropy(self.network(x), y) + get_kl_loss(self.network) / self.num_train


class TorchBNN(Peer):
    """Torchbnn: Bayesian layers and a loss for their KL."""

    def build(self) -> nn.Module:
        import torchbnn

        self.kl = torchbnn.BKLLoss(reduction="sum", last_layer_only=False)
        return self.made_of(
            partial(torchbnn.BayesLinear, 0.0, PRIOR_STD), partial(torchbnn.BayesConv2d, 0.0, PRIOR_STD)
        )

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(self.network(x), y) + self.kl(self.network) / self.num_train


class Pyro(Peer):
    """Pyro: stochastic variational inference with an automatic mean-field guide."""

    def __init__(self, num_train: int) -> None:
        import pyro
        from pyro.distributions import Categorical, Normal
        from pyro.infer import SVI, Trace_ELBO
        from pyro.infer.autoguide import AutoDiagonalNormal
        from pyro.nn import PyroModule, PyroSample

        def layer(*sizes: int) -> nn.Module:
            made = PyroModule[nn.Linear](*sizes)
            made.weight = PyroSample(Normal(0.0, PRIOR_STD).expand(made.weight.shape).to_event(2))
            made.bias = PyroSample(Normal(0.0, PRIOR_STD).expand(made.bias.shape).to_event(1))
            return made

        class Network(PyroModule):
            def __init__(self) -> None:
                super().__init__()
                self.layers = PyroModule[nn.Sequential](*mlp_of(layer))

            def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
                logits = self.layers(x)
                with pyro.plate("data", size=num_train, subsample_size=len(x)):
                    pyro.sample("label", Categorical(logits=logits), obs=y)
                return logits

        pyro.clear_param_store()
        self.network = Network()
        self.guide = AutoDiagonalNormal(self.network, init_scale=INIT_STD)
        self.svi = SVI(self.network, self.guide, pyro.optim.Adam({"lr": OURS.lr}), Trace_ELBO())
        self.replay = lambda trace: pyro.poutine.condition(self.network, trace)

    def train(self, batches: Iterator[Batch]) -> None:
        for x, y in batches:
            self.svi.step(x, y)

    def logits(self, x: Tensor) -> Tensor:
        return self.replay(self.guide(x))(x)
