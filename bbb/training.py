"""The one training loop: it yields an epoch at a time and logs nothing."""

import math
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


class Training:
    """A training that yields an epoch at a time, and can be stopped after any step and resumed.

    Args:
        network: what to train, in place.
        prior: p(w).
        train: the training set, on the network's device.
        validation: what to score after each epoch, or None.
        plan: how to train.
        noise: the random streams.
    """

    def __init__(
        self,
        network: BayesianMLP,
        prior: WeightDistribution,
        train: Split,
        validation: Split | None,
        plan: Plan,
        noise: Noise,
    ) -> None:
        self.network, self.prior, self.train, self.validation = network, prior, train, validation
        self.plan, self.noise = plan, noise
        self.num_batches = data.num_batches(train, plan.batch_size)
        self.num_passes = math.ceil(plan.steps_per_epoch / self.num_batches)
        self.num_steps = plan.num_epochs * self.num_passes * self.num_batches
        self.optimizer, self.schedule = _optimizer(network, plan, self.num_steps)
        self.epochs_done = self.passes_done = self.batches_done = 0
        self.seconds = 0.0  # of the epoch that is being trained
        self.totals = torch.zeros(3, device=train.labels.device, dtype=torch.float64)
        self.order_of_pass = noise.order.get_state()

    def fit(self, on_step: Callable[[int, int], None] = lambda step, num_steps: None) -> Iterator[Epoch]:
        """Minimise the negative ELBO, an epoch at a time, from where the training stands to its end.

        Args:
            on_step: called after each step with the number done and the number in all. It may take
                :meth:`state_dict`, and may raise to stop the training there.

        Yields:
            What each epoch measured.

        Raises:
            DivergedError: the loss is NaN or infinite; the step that would have followed it is not made.
        """
        while self.epochs_done < self.plan.num_epochs:
            start = time.perf_counter() - self.seconds
            self._train_epoch(on_step, start)
            totals = self.totals / self.num_passes
            self.totals = torch.zeros_like(totals)
            self.passes_done, self.seconds = 0, 0.0
            self.epochs_done += 1
            yield self._measure(totals.tolist(), start)

    def state_dict(self) -> dict[str, object]:
        """Return all that changes in a training: from it, a resumed run ends as one that was never stopped."""
        return {
            "done": [self.epochs_done, self.passes_done, self.batches_done],
            "seconds": self.seconds,
            "totals": self.totals,
            "posterior": self.network.posterior.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "order": self.order_of_pass if self.batches_done else self.noise.order.get_state(),
            "weights": self.noise.weights.get_state(),
        }

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Go to where :meth:`state_dict` was called, in a training made with the same arguments."""
        self.epochs_done, self.passes_done, self.batches_done = state["done"]
        self.seconds, self.totals = state["seconds"], state["totals"].to(self.totals)
        self.network.posterior.load_state_dict(state["posterior"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        # A generator takes its state from the CPU, wherever it draws and wherever the checkpoint was loaded to.
        self.noise.order.set_state(state["order"].cpu())
        self.noise.weights.set_state(state["weights"].cpu())

    def _train_epoch(self, on_step: Callable[[int, int], None], start: float) -> None:
        """Make what is left of an epoch's passes over the training set, adding up ``totals``."""
        shares = objective.kl_weights(self.plan.beta_type, self.num_batches, self.epochs_done, self.plan.num_epochs)
        while self.passes_done < self.num_passes:
            self.order_of_pass = self.noise.order.get_state()
            step = (self.epochs_done * self.num_passes + self.passes_done) * self.num_batches
            batches = data.batches(self.train, self.plan.batch_size, self.noise.order, self.batches_done)
            for share, (x, y) in zip(shares[self.batches_done :], batches, strict=True):
                self.totals += self._train_step(x, y, share)
                self.batches_done += 1
                self.seconds = time.perf_counter() - start
                on_step(step + self.batches_done, self.num_steps)
            self.passes_done, self.batches_done = self.passes_done + 1, 0

    def _train_step(self, x: Tensor, y: Tensor, share: float) -> Tensor:
        """Train on a minibatch with its share of the KL; returns its NLL, the KL and the number of correct labels."""
        nll, kl, num_correct = _terms(self.network, self.prior, x, y, self.plan, self.noise.weights)
        # Scaled so that its mean over a pass is the negative ELBO per example, whatever the batch size.
        scale = self.num_batches / len(self.train)
        loss = objective.negative_elbo(nll, kl, share, self.plan.temperature) * scale
        if loss.device.type == "cpu":  # elsewhere it would make every step wait; there the epoch's sum is checked
            step = self.passes_done * self.num_batches + self.batches_done + 1
            _check_finite(loss.item(), f"epoch {self.epochs_done + 1}, step {step}")
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        return torch.stack([nll.detach().mean(), kl.detach(), num_correct])

    def _measure(self, totals: list[float], start: float) -> Epoch:
        num_train = len(self.train)
        nll, kl, accuracy = totals[0] / num_train, totals[1] / self.num_batches, totals[2] / num_train
        elbo = -nll - kl / num_train
        _check_finite(-elbo, f"epoch {self.epochs_done}")
        scores = None, None
        if self.validation is not None:
            images, num_samples = self.validation.images, self.plan.num_validation_samples
            log_probs = evaluation.predict(self.network, images, num_samples, self.noise.validation())
            scores = evaluation.accuracy_and_nll(log_probs, self.validation.labels)
        return Epoch(self.epochs_done, nll, kl, elbo, accuracy, *scores, time.perf_counter() - start)


def _check_finite(loss: float, where: str) -> None:
    if not math.isfinite(loss):
        raise DivergedError(f"{where}: the loss is {loss}; a smaller lr or a smaller init_std may help")


def _optimizer(
    network: BayesianMLP, plan: Plan, num_steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    kinds = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
    optimizer = kinds[plan.optimizer](network.posterior.parameters(), lr=plan.lr, fused=True)
    if plan.lr_schedule == "cosine":
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
