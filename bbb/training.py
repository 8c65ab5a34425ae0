"""The one training loop: it yields an epoch at a time and logs nothing."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bbb import data, evaluation, objective, uncertainty
from bbb.data import Split
from bbb.errors import InputError
from bbb.graphs import Graphed
from bbb.network import BayesianMLP
from bbb.parallel import ALONE, Group
from bbb.steps import Plan, Step
from bbb.weights import WeightDistribution


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


NEGLIGIBLE = 2.0**-50  # of the KL, which is below 10^7 nats: a share that no gradient in float32 shows


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
        noise: the random streams; those of R replicas, if the network stands for so many.
        group: the processes that share each minibatch.
    """

    def __init__(
        self,
        network: BayesianMLP,
        prior: WeightDistribution,
        train: Split,
        validation: Split | None,
        plan: Plan,
        noise: Noise | Sequence[Noise],
        group: Group = ALONE,
    ) -> None:
        self.network, self.train, self.validation, self.plan = network, train, validation, plan
        self.noises = [noise] if isinstance(noise, Noise) else list(noise)
        in_graph = plan.cuda_graph and train.labels.device.type == "cuda"
        weights = [each.weights for each in self.noises]
        self.step = Step(network, prior, plan, weights, train, group)
        self.make_step = Graphed(self._make_step, weights) if in_graph else self._make_step
        self.num_batches = data.num_batches(train, plan.batch_size)
        self.num_passes = math.ceil(plan.steps_per_epoch / self.num_batches)
        self.num_steps = plan.num_epochs * self.num_passes * self.num_batches
        self.optimizer, self.schedule = _optimizer(network, plan, self.num_steps)
        self.epochs_done = self.passes_done = self.batches_done = 0
        self.seconds = 0.0  # of the epoch that is being trained
        self.totals = torch.zeros(3, *network.posterior.shape[:-1], device=train.labels.device, dtype=torch.float64)
        self.orders_of_pass = self._orders()

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
            num_with_kl = sum(self._with_kl(self._shares()))
            self.epochs_done += 1
            yield self._measure(totals, num_with_kl, start)

    def state_dict(self) -> dict[str, object]:
        """Return all that changes in a training: from it, a resumed run ends as one that was never stopped."""
        return {
            "done": [self.epochs_done, self.passes_done, self.batches_done],
            "seconds": self.seconds,
            "totals": self.totals,
            "posterior": self.network.posterior.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "orders": self.orders_of_pass if self.batches_done else self._orders(),
            "weights": [table.state_dict() for table in self.step.tables],
        }

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Go to where :meth:`state_dict` was called, in a training made with the same arguments."""
        self.epochs_done, self.passes_done, self.batches_done = state["done"]
        self.seconds, self.totals = state["seconds"], state["totals"].to(self.totals)
        self.network.posterior.load_state_dict(state["posterior"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        for noise, order in zip(self.noises, state["orders"], strict=True):
            noise.order.set_state(order.cpu())  # a generator takes its state from the CPU, wherever it draws
        for table, weights in zip(self.step.tables, state["weights"], strict=True):
            table.load_state_dict(weights)

    def _train_epoch(self, on_step: Callable[[int, int], None], start: float) -> None:
        """Make what is left of an epoch's passes over the training set, adding up ``totals``."""
        shares, orders = self._shares(), [noise.order for noise in self.noises]
        terms = list(zip(shares, self._with_kl(shares), strict=True))
        while self.passes_done < self.num_passes:
            self.orders_of_pass = self._orders()
            step = (self.epochs_done * self.num_passes + self.passes_done) * self.num_batches
            order = orders[0] if self.network.num_replicas is None else orders
            batches = data.batches(self.train, self.plan.batch_size, order, self.batches_done)
            for (share, with_kl), (x, y) in zip(terms[self.batches_done :], batches, strict=True):
                self._train_step(x, y, share, with_kl)
                self.batches_done += 1
                self.seconds = time.perf_counter() - start
                on_step(step + self.batches_done, self.num_steps)
            self.passes_done, self.batches_done = self.passes_done + 1, 0

    def _orders(self) -> list[Tensor]:
        return [noise.order.get_state() for noise in self.noises]

    def _shares(self) -> list[float]:
        """The shares of the KL that the minibatches of each pass of this epoch have."""
        return objective.kl_weights(self.plan.beta_type, self.num_batches, self.epochs_done, self.plan.num_epochs)

    def _with_kl(self, shares: list[float]) -> list[bool]:
        """Tell in which minibatches the KL is computed: where it counts, and in the first, to be reported."""
        return [i == 0 or share * self.plan.temperature > NEGLIGIBLE for i, share in enumerate(shares)]

    def _train_step(self, x: Tensor, y: Tensor, share: float, with_kl: bool) -> None:
        """Train on a minibatch with its share of the KL, and add what it measured to ``totals``."""
        _, measured = self.make_step(x, y, share, with_kl)
        self.schedule.step()
        self.totals += measured

    def _make_step(self, x: Tensor, y: Tensor, share: float | Tensor, with_kl: bool) -> tuple[Tensor, Tensor]:
        loss, measured = self.step(x, y, share, with_kl)
        if loss.device.type == "cpu":  # elsewhere it would make every step wait; there the epoch's sum is checked
            step = self.passes_done * self.num_batches + self.batches_done + 1
            _check_finite(loss.item(), f"epoch {self.epochs_done + 1}, step {step}")
        self.optimizer.step()
        return loss, measured

    def _measure(self, totals: Tensor, num_with_kl: int, start: float) -> Epoch:
        num_train = len(self.train)
        nll, kl, accuracy = (
            totals.view(3, -1).mean(1) / totals.new_tensor([num_train, num_with_kl, num_train])
        ).tolist()
        elbo = -nll - kl / num_train
        _check_finite(-elbo, f"epoch {self.epochs_done}")
        scores = None, None
        if self.validation is not None:
            predictions = [
                evaluation.predict(
                    network, self.validation.images, self.plan.num_validation_samples, noise.validation()
                )
                for network, noise in zip(self.network.replicas(), self.noises, strict=True)
            ]
            scores = evaluation.accuracy_and_nll(uncertainty.mixture(torch.stack(predictions)), self.validation.labels)
        return Epoch(self.epochs_done, nll, kl, elbo, accuracy, *scores, time.perf_counter() - start)


def _check_finite(loss: float, where: str) -> None:
    if not math.isfinite(loss):
        raise DivergedError(f"{where}: the loss is {loss}; a smaller lr or a smaller init_std may help")


def _optimizer(
    network: BayesianMLP, plan: Plan, num_steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    kinds = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
    device = network.posterior.base.mean.device
    lr, options = plan.lr, {}
    if plan.cuda_graph and device.type == "cuda":  # a graph reads the learning rate from the device's memory
        lr = torch.tensor(plan.lr, device=device)
        options = {"capturable": True} if plan.optimizer == "adam" else {}
    optimizer = kinds[plan.optimizer](network.posterior.parameters(), lr=lr, fused=True, **options)
    if plan.lr_schedule == "cosine":
        return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
