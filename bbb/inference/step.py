"""One training step: the gradient of a minibatch's cost, and the optimiser's move along it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bbb.data import Split, drop_pixels, num_batches, shift_images
from bbb.distributions import (
    ARD,
    Dropout,
    FlowedGaussian,
    Gaussian,
    NoiseSource,
    NoiseTable,
    Point,
    ScaleMixture,
    Stacked,
    WeightDistribution,
    has_closed_kl,
)
from bbb.inference.choices import BetaType, Estimator, LrSchedule, OptimizerName, Precision
from bbb.inference.drawn_gradient import DrawnGradient
from bbb.inference.gradient import ByAutograd, GradientEstimator
from bbb.inference.likelihood import Likelihood
from bbb.inference.local_gradient import LocalGradient
from bbb.inference.objective import negative_elbo
from bbb.inference.point_gradient import PointGradient
from bbb.networks import BayesianNetwork, num_dropout_noise, num_local_noise
from bbb.system import ALONE, Group, InputError

LARGE = 2**15  # weights: from there on a CPU runs one draw after another faster than all in one batch


@dataclass(frozen=True)
class Plan:
    """How to train; the fields are the configuration's keys of the same names (see ``configs/default.yaml``)."""

    num_epochs: int
    steps_per_epoch: int
    batch_size: int
    num_samples: int
    num_validation_samples: int
    lr: float
    lr_schedule: LrSchedule
    optimizer: OptimizerName
    beta_type: BetaType
    temperature: float
    input_dropout: float
    input_shift: int
    estimator: Estimator
    noise_reuse: int
    precision: Precision
    cuda_graph: bool


PLAIN = Plan(  # as configs/default.yaml says, for one epoch
    num_epochs=1,
    steps_per_epoch=1,
    batch_size=128,
    num_samples=1,
    num_validation_samples=5,
    lr=0.001,
    lr_schedule="cosine",
    optimizer="adam",
    beta_type="standard",
    temperature=1.0,
    input_dropout=0.0,
    input_shift=0,
    estimator="weights",
    noise_reuse=16,
    precision="float32",
    cuda_graph=False,
)


class DivergedError(InputError):
    """The loss became NaN or infinite."""


class Step:
    """The cost of a minibatch, its gradient in the posterior's parameters, and the optimiser's move.

    Args:
        network: holds the posterior, of one network or of R replicas.
        likelihood: p(y | outputs).
        prior: p(w).
        plan: how to train.
        noise: source of the weights' and the inputs' noise, on the network's device; R of them for R replicas.
        train: the training set, whose size scales the cost.
        optimizer: moves the posterior's parameters.
        group: the processes that share each minibatch.
    """

    def __init__(
        self,
        network: BayesianNetwork,
        likelihood: Likelihood,
        prior: WeightDistribution,
        plan: Plan,
        noise: Sequence[torch.Generator],
        train: Split,
        optimizer: torch.optim.Optimizer,
        group: Group = ALONE,
    ) -> None:
        self.network, self.plan = network, plan
        self.optimizer, self.group, self.input_shape = optimizer, group, train.input_shape
        self.moved = [parameter for part in optimizer.param_groups for parameter in part["params"]]
        # Costs are scaled so that their mean over a pass is the negative ELBO per example, whatever the batch size.
        self.scale = num_batches(train, plan.batch_size) / len(train)
        self.estimator = _estimator(network, likelihood, prior, plan)
        num = min(plan.batch_size, len(train))
        self.tables = [_noise_table(network, prior, plan, generator, num, group) for generator in noise]

    def __call__(self, x: Tensor, y: Tensor, kl_share: float | Tensor, with_kl: bool = True) -> Tensor:
        """Train on a minibatch.

        Args:
            x: raw inputs ``(B, P)``, or ``(R, B, P)``.
            y: labels ``(B, ...)``, or ``(R, B, ...)``.
            kl_share: this minibatch's share of the KL.
            with_kl: False leaves the KL out, for a minibatch whose share is negligible.

        Returns:
            ``(3,)``, or ``(3, R)``: the minibatch's NLL, the KL (0 where it was left out), and the total score
            (of classes: the correct labels); the first and the last are means over draws.

        Raises:
            DivergedError: the cost is NaN or infinite; the optimiser has not moved. Not checked on a GPU, where the
                check would make every step wait.
        """
        cost, measured = self.gradient(x, y, kl_share, with_kl)
        if cost.device.type == "cpu":
            check_finite(cost.item())
        self.optimizer.step()
        return measured

    def gradient(self, x: Tensor, y: Tensor, kl_share: float | Tensor, with_kl: bool = True) -> tuple[Tensor, Tensor]:
        """Store the gradient of a minibatch's cost in the parameters, averaged over the group.

        Returns:
            The cost per example, a scalar, in nats; and what :meth:`__call__` returns.
        """
        for table in self.tables:
            table.begin_step()
        x, y = self._own_part(self._noisy(x), y)
        for parameter in self.moved:
            parameter.grad = None
        noise: NoiseSource = self.tables[0] if self.network.num_replicas is None else Stacked(self.tables)
        nll_weight, kl_weight = self.group.size * self.scale, kl_share * self.plan.temperature * self.scale
        terms = self.estimator(x, y, noise, nll_weight, kl_weight, with_kl)
        nll = terms.nll.unsqueeze(0) * self.group.size
        cost = negative_elbo(nll, terms.kl, kl_share, self.plan.temperature).sum() * self.scale
        measured = torch.stack([terms.nll * self.group.size, terms.kl, terms.score * self.group.size])
        grads = [parameter.grad for parameter in self.moved if parameter.grad is not None]
        self.group.average([*grads, measured, cost])
        return cost, measured

    def _noisy(self, x: Tensor) -> Tensor:
        """Shift raw inputs, normalise them, and drop a share of them."""
        if self.plan.input_shift == 0 and self.plan.input_dropout == 0.0:
            return self.network.normalization(x)
        generators = [table.generator for table in self.tables]
        if self.network.num_replicas is None:
            return self._noisy_part(x, generators[0])
        return torch.stack([self._noisy_part(part, own) for part, own in zip(x, generators, strict=True)])

    def _noisy_part(self, x: Tensor, generator: torch.Generator) -> Tensor:
        shifted = shift_images(x, self.plan.input_shift, self.input_shape, generator)
        return drop_pixels(self.network.normalization(shifted), self.plan.input_dropout, generator)

    def _own_part(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Take this process's part of a minibatch."""
        if self.group.size == 1:
            return x, y
        part = slice(self.group.rank, None, self.group.size)
        return (x[:, part], y[:, part]) if self.network.num_replicas is not None else (x[part], y[part])


def check_finite(loss: float) -> None:
    """Refuse a loss that is NaN or infinite.

    Raises:
        DivergedError: the loss is NaN or infinite.
    """
    if not math.isfinite(loss):
        raise DivergedError(f"the loss is {loss}; a smaller lr or a smaller init_std may help")


def _estimator(
    network: BayesianNetwork, likelihood: Likelihood, prior: WeightDistribution, plan: Plan
) -> GradientEstimator:
    """Choose how to estimate gradients: by hand where that is faster."""
    parts = network, likelihood, prior, plan.num_samples, plan.precision
    if plan.estimator == "local":
        return LocalGradient(*parts)
    posterior = network.posterior
    is_plain = network.num_replicas is None and isinstance(prior, Gaussian | ScaleMixture)
    if isinstance(posterior, Dropout) or (isinstance(posterior, Point) and is_plain):
        return PointGradient(*parts)
    # Flows take many draws at once in little more time than one.
    one_by_one = posterior.dim >= LARGE and posterior.device.type == "cpu" and isinstance(posterior, Gaussian)
    is_known = isinstance(posterior, Gaussian | FlowedGaussian) and isinstance(prior, Gaussian | ScaleMixture | ARD)
    if is_known and network.num_replicas is None and (plan.num_samples == 1 or one_by_one):
        return DrawnGradient(*parts)
    return ByAutograd(*parts)


def _noise_table(
    network: BayesianNetwork, prior: WeightDistribution, plan: Plan, generator: torch.Generator, num: int, group: Group
) -> NoiseTable:
    """Make the source of a step's noise, for minibatches of ``num`` examples.

    On a GPU the noise is drawn anew in each step, which takes less time than to wait for the position of a window.
    """
    num_uses = plan.noise_reuse if generator.device.type == "cpu" else 1
    posterior, dim = network.posterior, network.posterior.dim
    window = plan.num_samples * posterior.num_noise
    if isinstance(posterior, Dropout):
        window = num_dropout_noise(network.architecture, num)
    elif posterior.is_certain:
        window, num_uses = 0, 1
    if plan.estimator == "local" and num_uses > 1:
        window = plan.num_samples * num_local_noise(network.architecture, num)
        window += 0 if has_closed_kl(prior) else dim  # a draw of the weights, for the KL
    return NoiseTable(generator, num_uses, window, group)
