"""The one training loop: it yields an epoch at a time and logs nothing."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from bbb import data, evaluation, objective
from bbb.data import Split
from bbb.errors import InputError
from bbb.network import BayesianMLP, local_mlp, mlp
from bbb.weights import WeightDistribution


@dataclass(frozen=True)
class Plan:
    """How to train; the fields are the configuration's keys of the same names (see ``configs/default.yaml``)."""

    num_epochs: int
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


@dataclass(frozen=True)
class Epoch:
    """What one epoch measured.

    The training metrics are means over the epoch's minibatches, of draws from the posterior as it moved, with the
    input noise of training: ``train_nll`` in nats per example, ``train_kl`` in nats, ``train_elbo`` in nats per example
    (temperature 1), ``train_accuracy`` in 0..1. The validation metrics are those of the posterior predictive after the
    epoch; None where nothing is held out. ``seconds`` counts training and validation.
    """

    number: int
    train_nll: float
    train_kl: float
    train_elbo: float
    train_accuracy: float
    validation_accuracy: float | None
    validation_nll: float | None
    seconds: float


class DivergedError(InputError):
    """The loss became NaN or infinite."""


@dataclass
class Noise:
    """The random streams of a training: data order (CPU), weights and inputs (device), validation (a seed)."""

    order: torch.Generator
    weights: torch.Generator
    validation_seed: int

    def validation(self) -> torch.Generator:
        """Create the generator of the validation draws: the same each epoch, so that epochs differ by weights only."""
        return torch.Generator(self.weights.device).manual_seed(self.validation_seed)


def fit(
    network: BayesianMLP,
    prior: WeightDistribution,
    train: Split,
    validation: Split | None,
    plan: Plan,
    noise: Noise,
    on_step: Callable[[int, int], None] = lambda step, num_steps: None,
) -> Iterator[Epoch]:
    """Minimise the negative ELBO, an epoch at a time.

    Args:
        network: what to train, in place.
        prior: p(w).
        train: the training set, on the network's device.
        validation: what to score after each epoch, or None.
        plan: how to train.
        noise: the random streams.
        on_step: called after each step with the number done and the number in all, for a progress bar.

    Yields:
        What each epoch measured.

    Raises:
        DivergedError: the loss of an epoch is NaN or infinite.
    """
    num_batches = data.num_batches(train, plan.batch_size)
    optimizer, schedule = _optimizer(network, plan, num_batches)
    step = 0
    for number in range(1, plan.num_epochs + 1):
        start = time.perf_counter()
        shares = objective.kl_weights(plan.beta_type, num_batches, number - 1, plan.num_epochs)
        totals = torch.zeros(3, device=train.labels.device, dtype=torch.float64)
        for share, (x, y) in zip(shares, data.batches(train, plan.batch_size, noise.order), strict=True):
            nll, kl, num_correct = _terms(network, prior, x, y, plan, noise.weights)
            # Scaled so that its mean over the epoch is the negative ELBO per example, whatever the batch size.
            loss = objective.negative_elbo(nll, kl, share, plan.temperature) * (num_batches / len(train))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            totals += torch.stack([nll.detach().mean(), kl.detach(), num_correct])
            step += 1
            on_step(step, plan.num_epochs * num_batches)
        yield _measure(network, validation, plan, noise, number, totals.tolist(), num_batches, len(train), start)


def _optimizer(
    network: BayesianMLP, plan: Plan, num_batches: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    kinds = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
    optimizer = kinds[plan.optimizer](network.posterior.parameters(), lr=plan.lr, fused=True)
    if plan.lr_schedule == "cosine":
        num_steps = plan.num_epochs * num_batches
        return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)


def _terms(
    network: BayesianMLP, prior: WeightDistribution, x: Tensor, y: Tensor, plan: Plan, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """The NLL of a minibatch ``(S,)``, the KL, and the number of correct labels, a mean over draws."""
    posterior = network.posterior
    x = data.drop_pixels(x, plan.input_dropout, generator)
    if plan.estimator == "local":
        log_std = network.layers(posterior.log_std.unsqueeze(0))
        logits = local_mlp(network.mean_layers(), log_std, x, plan.num_samples, generator)
        kl = objective.kl_divergence(posterior, prior, generator=generator)
    else:
        draws = posterior.rsample(plan.num_samples, generator)
        logits = mlp(network.layers(draws[0]), x)
        kl = objective.kl_divergence(posterior, prior, draws)
    nll = objective.log_likelihood_loss(logits, y)
    num_correct = (logits.detach().argmax(-1) == y).sum() / len(logits)
    return nll, kl, num_correct


def _measure(
    network: BayesianMLP,
    validation: Split | None,
    plan: Plan,
    noise: Noise,
    number: int,
    totals: list[float],
    num_batches: int,
    num_train: int,
    start: float,
) -> Epoch:
    nll, kl, accuracy = totals[0] / num_train, totals[1] / num_batches, totals[2] / num_train
    elbo = -nll - kl / num_train
    if not abs(elbo) < float("inf"):
        raise DivergedError(f"epoch {number}: the loss is {-elbo}; a smaller lr or a smaller init_std may help")
    val_accuracy = val_nll = None
    if validation is not None:
        log_probs = evaluation.predict(network, validation.images, plan.num_validation_samples, noise.validation())
        val_accuracy, val_nll = evaluation.accuracy_and_nll(log_probs, validation.labels)
    return Epoch(number, nll, kl, elbo, accuracy, val_accuracy, val_nll, time.perf_counter() - start)
