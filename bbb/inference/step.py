"""One training step: the gradient of a minibatch's cost, and the optimiser's move along it."""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bbb.data import Split, drop_pixels, num_batches
from bbb.distributions import (
    Gaussian,
    NoiseSource,
    NoiseTable,
    Stacked,
    WeightDistribution,
    draw_with_kl,
)
from bbb.inference.choices import BetaType, Estimator, LrSchedule, OptimizerName, Precision
from bbb.inference.likelihood import Likelihood
from bbb.inference.local_gradient import LocalGradient
from bbb.inference.objective import negative_elbo
from bbb.networks import BayesianNetwork, forward_drawn, num_activations
from bbb.system import ALONE, Group, InputError


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
    estimator: Estimator
    noise_reuse: int
    precision: Precision
    cuda_graph: bool


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
        self.network, self.likelihood, self.prior, self.plan = network, likelihood, prior, plan
        self.optimizer, self.group = optimizer, group
        # Costs are scaled so that their mean over a pass is the negative ELBO per example, whatever the batch size.
        self.scale = num_batches(train, plan.batch_size) / len(train)
        self.local = LocalGradient(network, prior) if plan.estimator == "local" else None
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
        x, y = self._own_part(self._drop_pixels(self.network.normalization(x)), y)
        self.optimizer.zero_grad()
        nll, kl, score = self._terms(x, y, with_kl)
        loss = negative_elbo(nll * self.group.size, kl, kl_share, self.plan.temperature).sum() * self.scale
        loss.backward()
        if self.local is not None:
            self.local.store(kl_share * self.plan.temperature * self.scale if with_kl else 0.0)
        measured = torch.stack([nll.detach().mean(0) * self.group.size, kl.detach(), score * self.group.size])
        cost = loss.detach()
        moved = (parameter for group in self.optimizer.param_groups for parameter in group["params"])
        grads = [parameter.grad for parameter in moved if parameter.grad is not None]
        self.group.average([*grads, measured, cost])
        return cost, measured

    def _drop_pixels(self, x: Tensor) -> Tensor:
        share, generators = self.plan.input_dropout, [table.generator for table in self.tables]
        if self.network.num_replicas is None:
            return drop_pixels(x, share, generators[0])
        if share == 0.0:
            return x
        return torch.stack([drop_pixels(part, share, own) for part, own in zip(x, generators, strict=True)])

    def _own_part(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Take this process's part of a minibatch."""
        if self.group.size == 1:
            return x, y
        part = slice(self.group.rank, None, self.group.size)
        return (x[:, part], y[:, part]) if self.network.num_replicas is not None else (x[part], y[part])

    def _terms(self, x: Tensor, y: Tensor, with_kl: bool) -> tuple[Tensor, Tensor, Tensor]:
        """The NLL of a minibatch ``(S, ...)``, the KL, and the total score, a mean over draws."""
        network, posterior, num_samples = self.network, self.network.posterior, self.plan.num_samples
        is_low = self.plan.precision == "bfloat16"
        in_bfloat16 = torch.autocast(x.device.type, torch.bfloat16) if is_low else contextlib.nullcontext()
        noise: NoiseSource = self.tables[0] if network.num_replicas is None else Stacked(self.tables)
        if self.local is not None:
            with in_bfloat16:
                outputs, kl = self.local.forward(x, num_samples, noise, with_kl)
        else:
            kl = torch.zeros(posterior.shape[:-1], dtype=posterior.dtype, device=posterior.device)
            if with_kl:
                w, kl = draw_with_kl(posterior, self.prior, num_samples, noise)
            else:
                w, _ = posterior.rsample_and_log_prob(num_samples, noise)
            with in_bfloat16:
                outputs = forward_drawn(network.architecture, network.layers(w), x)
        nll = self.likelihood.nll(outputs.to(posterior.dtype), y)
        score = self.likelihood.total_score(outputs.detach(), y).sum(0) / num_samples
        return nll, kl, score


def check_finite(loss: float) -> None:
    """Refuse a loss that is NaN or infinite.

    Raises:
        DivergedError: the loss is NaN or infinite.
    """
    if not math.isfinite(loss):
        raise DivergedError(f"the loss is {loss}; a smaller lr or a smaller init_std may help")


def _noise_table(
    network: BayesianNetwork, prior: WeightDistribution, plan: Plan, generator: torch.Generator, num: int, group: Group
) -> NoiseTable:
    """Make the source of a step's noise, for minibatches of ``num`` examples.

    On a GPU the noise is drawn anew in each step, which takes less time than to wait for the position of a window.
    """
    num_uses = plan.noise_reuse if generator.device.type == "cpu" else 1
    dim, window = network.posterior.dim, plan.num_samples * network.posterior.dim
    if plan.estimator == "local" and num_uses > 1:
        window = plan.num_samples * num * num_activations(network.architecture)
        window += 0 if isinstance(prior, Gaussian) else dim  # a draw of the weights, for the KL
    return NoiseTable(generator, num_uses, window, group)
