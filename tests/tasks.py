"""Shared toy tasks: small data, networks, plans, configurations and jobs, each from a seed of its own."""

import dataclasses
import math
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from safetensors.torch import load_file
from torch import Tensor

import experiment
from bbb import runs
from bbb.cli import session
from bbb.data import Split
from bbb.distributions import FlowedGaussian, FullGaussian, Gaussian, MatrixPlanarFlow, PlanarFlow, gaussian_prior
from bbb.inference import PLAIN, Categorical, Streams, Training
from bbb.networks import MLP, initial_network
from bbb.runs import Settings
from bbb.studies import Job

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIGS = REPOSITORY / "configs"
CPU = torch.device("cpu")
TOY = MLP((12, 8, 3))
THREE_CLASSES = Categorical(3)
DEFAULT = yaml.safe_load((CONFIGS / "default.yaml").read_text())
TINY = {"dataset": "digits8x8", "num_epochs": 2, "lr": 0.02, "num_hidden": 16, "num_layers": 1, "num_test_samples": 5}
PLAN = dataclasses.replace(
    PLAIN, num_epochs=3, batch_size=10, num_validation_samples=2, lr=0.01, lr_schedule="constant"
)


class Twice(torch.nn.Module):
    """A network of 4 inputs and 2 outputs, whose body is run twice."""

    def __init__(self):
        super().__init__()
        self.body, self.head = torch.nn.Linear(4, 4), torch.nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.body(self.body(x).tanh()).tanh())


def seeded(seed=0):
    """A generator of one's own, so that no test changes another's numbers."""
    return torch.Generator().manual_seed(seed)


def wait_for(find, seconds=120):
    """Ask until something is found, and give it."""
    end = time.monotonic() + seconds
    while not (found := find()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return found


def split(seed=0):
    """Sixty-four images of 12 pixels in 3 classes that a network can tell apart."""
    generator = seeded(seed)
    labels = torch.arange(64) % 3
    centres = torch.randint(0, 256, (3, 12), generator=generator)
    noise = torch.randint(-20, 21, (64, 12), generator=generator)
    return Split((centres[labels] + noise).clamp(0, 255).to(torch.uint8), labels)


def network(seed=0, num_flows=0, flow="planar", sizes=TOY.sizes):
    """A network for :func:`split`, at its start."""
    return initial_network(MLP(sizes), 0.05, seeded(seed), num_flows, flow)


def streams(seed=1):
    return Streams(seeded(seed), seeded(seed + 1), 7)


def training(split, validation=None, prior=None, seed=1, num_flows=0, flow="planar", **changes):
    """A training of :func:`network` by :data:`PLAN`, but for changes."""
    trained = network(seed, num_flows, flow)
    prior = prior or gaussian_prior(trained.posterior.dim, 1.0)
    plan = dataclasses.replace(PLAN, **changes)
    return Training(trained, THREE_CLASSES, prior, split, validation, plan, streams(seed))


def without_time(epochs):
    return [dataclasses.replace(epoch, seconds=0.0) for epoch in epochs]


def settings(**changes):
    """The default configuration on the embedded digits, tiny."""
    return Settings.from_config({**DEFAULT, **TINY, **changes})


def run(folder=None, state=None, callbacks=None, **changes):
    """Assemble and run :func:`settings` on the CPU."""
    return runs.run(runs.assemble(settings(**changes), CPU), folder, state, **(callbacks or {}))


def job(source=None, **changes):
    """A run to be made, of the default configuration on the embedded digits."""
    return Job({**DEFAULT, "dataset": "digits8x8", **changes}, (), source)


def one_by_one(z, maps):
    """The composition of planar maps (u, w, b) as in the paper, by autograd: the oracle."""
    log_det = 0.0
    for u, w, bias in maps:
        u_hat = u + (F.softplus(-w @ u) - 1) * w / (w @ w)
        t = torch.tanh(z @ w + bias)
        z, log_det = z + t.unsqueeze(1) * u_hat, log_det + torch.log((1 + (w @ u_hat) * (1 - t**2)).abs())
    return z, log_det


class Conjugate:
    """Bayesian linear regression with orthogonal inputs, where the posterior is a factorised Gaussian, exactly."""

    dim, num, noise_std, prior_std = 3, 8, 0.7, 1.3

    def __init__(self):
        generator = seeded(3)
        orthogonal, _ = torch.linalg.qr(torch.randn(self.num, self.dim, generator=generator, dtype=torch.float64))
        self.x = orthogonal * torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
        self.y = torch.randn(self.num, generator=generator, dtype=torch.float64)
        precision = self.x.square().sum(0) / self.noise_std**2 + self.prior_std**-2
        mean = self.x.T @ self.y / self.noise_std**2 / precision
        self.exact = Gaussian(mean, -0.5 * precision.log())
        self.prior = Gaussian(
            torch.tensor(0.0, dtype=torch.float64),
            torch.tensor(math.log(self.prior_std), dtype=torch.float64),
            self.dim,
        )

    def log_evidence(self) -> Tensor:
        covariance = self.noise_std**2 * torch.eye(self.num).double() + self.prior_std**2 * self.x @ self.x.T
        zero = torch.zeros(self.num).double()
        return torch.distributions.MultivariateNormal(zero, covariance).log_prob(self.y)

    def expected_nll(self, q: Gaussian) -> Tensor:
        """E_q of the negative log-likelihood, in closed form, as a tensor of shape (1,)."""
        residual = (self.y - self.x @ q.mean).square().sum() + (self.x.square() @ (2 * q.log_std).exp()).sum()
        constant = 0.5 * self.num * math.log(2 * math.pi * self.noise_std**2)
        return (residual / (2 * self.noise_std**2) + constant).unsqueeze(0)


def random_gaussian(seed, dim=7):
    """A full Gaussian in float64, away from every start."""
    generator = seeded(seed)
    mean, log_std = (torch.randn(dim, generator=generator, dtype=torch.float64) for _ in range(2))
    return Gaussian(mean, -1.0 + 0.3 * log_std)


def random_full(seed, dim=7):
    """A Gaussian in float64 with correlations."""
    full = FullGaussian.of(random_gaussian(seed, dim))
    full.lower.data.normal_(generator=seeded(seed + 1)).mul_(math.sqrt(dim))
    return full


def random_flow(seed, dim, num_flows, flow="planar", scale=0.4):
    """K maps of either family in float64, away from every start; those of a layer take out = 2 where that divides D."""
    generator = seeded(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    if flow == "planar":
        return PlanarFlow(*draw(2, num_flows, dim), draw(num_flows), scale)
    num_out = 2 if dim > 2 and dim % 2 == 0 else 1
    return MatrixPlanarFlow(draw(2, num_flows, num_out), draw(2, num_flows, dim // num_out), draw(num_flows), scale)


def random_flowed(seed, dim=7, num_flows=16, flow="planar"):
    """Flows on :func:`random_gaussian`, in two blocks, the second of three weights; in one where D is at most three."""
    dims = [dim - 3, 3] if dim > 3 else [dim]
    flows = [random_flow(seed + 10 * i, block, num_flows, flow) for i, block in enumerate(dims, start=1)]
    return FlowedGaussian(random_gaussian(seed, dim), flows, dims)


class _Function(torch.nn.Module):
    def __init__(self, q, call):
        super().__init__()
        self.q, self.call = q, call

    def forward(self):
        return self.call(self.q)


def passes_gradcheck(q, call):
    """Tell whether what ``call`` makes of a distribution has the gradients of finite differences, in all parameters."""
    function = _Function(q, call)
    names, values = [f"q.{name}" for name, _ in q.named_parameters()], [*q.parameters()]

    def evaluate(*values):
        return torch.func.functional_call(function, dict(zip(names, values, strict=True)), ())

    return not values or torch.autograd.gradcheck(evaluate, values, fast_mode=True)


SMALL = ["dataset=digits8x8", "num_epochs=1", "num_hidden=8", "num_test_samples=3", "num_threads=1"]


def command(*words):
    """Run a command line in this process."""
    experiment.command_line(["experiment.py", *words])


def refused(capsys, *words):
    """Run a command line that must be refused, and return the lines it printed."""
    with pytest.raises(SystemExit) as stop:
        command(*words)
    assert capsys.readouterr().err == ""
    assert isinstance(stop.value.code, str), "a message is exit status 1, printed on standard error"
    return stop.value.code.splitlines()


def assert_same_weights(*folders):
    """Two runs ended with the same tensors, to the last bit."""
    ours, theirs = (load_file(folder / "weights.safetensors") for folder in folders)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def interrupt_after(monkeypatch, num_epochs):
    """Press Ctrl-C once that many epochs are saved."""
    write = session.log

    def log_and_interrupt(run, epoch):
        write(run, epoch)
        if epoch.number == num_epochs:
            raise KeyboardInterrupt

    monkeypatch.setattr(session, "log", log_and_interrupt)
