"""One training step: the gradient of a minibatch's cost, and what the posterior learns from it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bbb import data, objective
from bbb.data import Split
from bbb.network import BayesianMLP, local_mlp, mlp
from bbb.noise import NoiseSource, NoiseTable, Stacked
from bbb.parallel import ALONE, Group
from bbb.weights import WeightDistribution


@dataclass(frozen=True)
class Plan:
    """How to train; the fields are the configuration's keys of the same names (see ``configs/default.yaml``)."""

    num_epochs: int
    steps_per_epoch: int
    batch_size: int
    num_samples: int
    num_validation_samples: int
    lr: float
    lr_schedule: str
    optimizer: str
    beta_type: str
    temperature: float
    input_dropout: float
    estimator: str
    noise_reuse: int
    precision: str
    cuda_graph: bool


class Step:
    """The cost of a minibatch, its gradient in the posterior's parameters, and what was measured on the way.

    Args:
        network: holds the posterior, of one network or of R replicas.
        prior: p(w).
        plan: how to train.
        noise: source of the weights' and the inputs' noise, on the network's device; R of them for R replicas.
        train: the training set, whose size scales the cost.
        group: the processes that share each minibatch.
    """

    def __init__(
        self,
        network: BayesianMLP,
        prior: WeightDistribution,
        plan: Plan,
        noise: Sequence[torch.Generator],
        train: Split,
        group: Group = ALONE,
    ) -> None:
        self.network, self.prior, self.plan, self.group = network, prior, plan, group
        # Costs are scaled so that their mean over a pass is the negative ELBO per example, whatever the batch size.
        self.scale = data.num_batches(train, plan.batch_size) / len(train)
        self.tables = [_noise_table(network, plan, each, group) for each in noise]

    def __call__(self, x: Tensor, y: Tensor, share: float | Tensor, with_kl: bool = True) -> tuple[Tensor, Tensor]:
        """Leave the gradient of a minibatch's cost in the parameters, averaged over the group.

        Args:
            x: inputs ``(B, P)``, or ``(R, B, P)``.
            y: labels ``(B,)``, or ``(R, B)``.
            share: this minibatch's share of the KL.
            with_kl: False leaves the KL out, where its share is negligible.

        Returns:
            The cost per example, a scalar, in nats; and ``(3,)``, or ``(3, R)``: the minibatch's NLL, the KL (0 where
            it was left out), and the number of correct labels, the first and the last being means over draws.
        """
        for table in self.tables:
            table.begin_step()
        x, y = self._own_part(self._drop_pixels(x), y)
        nll, kl, num_correct = self._terms(x, y, with_kl)
        loss = objective.negative_elbo(nll * self.group.size, kl, share, self.plan.temperature).sum() * self.scale
        self.network.zero_grad()
        loss.backward()
        measured = torch.stack([nll.detach().mean(0) * self.group.size, kl.detach(), num_correct * self.group.size])
        cost = loss.detach()
        self.group.average([*(p.grad for p in self.network.posterior.parameters()), measured, cost])
        return cost, measured

    def _drop_pixels(self, x: Tensor) -> Tensor:
        share, generators = self.plan.input_dropout, [table.generator for table in self.tables]
        if self.network.num_replicas is None:
            return data.drop_pixels(x, share, generators[0])
        if share == 0.0:
            return x
        return torch.stack([data.drop_pixels(*each) for each in zip(x, [share] * len(x), generators, strict=True)])

    def _own_part(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Take this process's part of a minibatch."""
        if self.group.size == 1:
            return x, y
        part = slice(self.group.rank, None, self.group.size)
        return x[..., part, :], y[..., part]

    def _terms(self, x: Tensor, y: Tensor, with_kl: bool) -> tuple[Tensor, Tensor, Tensor]:
        """The NLL of a minibatch ``(S, ...)``, the KL, and the number of correct labels, a mean over draws."""
        posterior, prior, num_samples = self.network.posterior, self.prior, self.plan.num_samples
        in_bfloat16 = torch.autocast(x.device.type, torch.bfloat16, enabled=self.plan.precision == "bfloat16")
        source: NoiseSource = self.tables[0] if self.network.num_replicas is None else Stacked(self.tables)
        kl = posterior.base.mean.new_zeros(posterior.shape[:-1])
        if self.plan.estimator == "local":
            log_std = self.network.layers(posterior.log_std.unsqueeze(0))
            with in_bfloat16:
                logits = local_mlp(self.network.mean_layers(), log_std, x, num_samples, source)
            if with_kl:
                kl = objective.kl_divergence(posterior, prior, generator=source)
        else:
            if with_kl:
                w, kl = objective.draw_with_kl(posterior, prior, num_samples, source)
            else:
                w, _ = posterior.rsample(num_samples, source)
            with in_bfloat16:
                logits = mlp(self.network.layers(w), x)
        nll = objective.log_likelihood_loss(logits.to(posterior.base.mean.dtype), y)
        num_correct = (logits.detach().argmax(-1) == y).sum(-1).sum(0) / num_samples
        return nll, kl, num_correct


def _noise_table(network: BayesianMLP, plan: Plan, generator: torch.Generator, group: Group) -> NoiseTable:
    """Make the source of a step's noise.

    A table serves weights on a CPU. Activations take a fifth of their noise, which to draw is cheap, and a GPU draws
    fresh noise faster than it would wait for a window's place.
    """
    shared = plan.estimator == "weights" and generator.device.type == "cpu"
    return NoiseTable(generator, plan.noise_reuse if shared else 1, plan.num_samples * network.posterior.dim, group)
