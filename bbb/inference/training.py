"""The one training loop: it yields an epoch at a time and logs nothing."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bbb.data import Split, batches, num_batches
from bbb.distributions import WeightDistribution
from bbb.inference.choices import OptimizerName
from bbb.inference.cuda_graph import Graphed
from bbb.inference.likelihood import Likelihood
from bbb.inference.objective import kl_shares
from bbb.inference.predictive import predict
from bbb.inference.step import DivergedError, Plan, Step, check_finite
from bbb.networks import BayesianNetwork
from bbb.system import ALONE, Group


@dataclass(frozen=True)
class Epoch:
    """The metrics of one epoch.

    The training metrics are means over the epoch's minibatches. They use draws from the posterior while it changed, and
    the input noise of training: ``train_nll`` in nats per example, ``train_kl`` in nats, ``train_elbo`` in nats per
    example (temperature 1), ``train_accuracy`` in 0..1. The validation metrics score the posterior predictive after the
    epoch; None if nothing is held out. ``train_kl`` and ``train_elbo`` are None where they are not defined, as for a
    point. ``seconds`` counts training and validation. For numbers in place of classes,
    ``train_rmse`` and ``validation_rmse``, in the units of y, stand in place of the accuracies, which are None.
    """

    number: int
    train_nll: float
    train_kl: float | None
    train_elbo: float | None
    train_accuracy: float | None
    validation_accuracy: float | None
    validation_nll: float | None
    seconds: float
    train_rmse: float | None = None
    validation_rmse: float | None = None


NEGLIGIBLE = 2.0**-50  # a share of the KL (below 10^7 nats) that is too small to change a float32 gradient


@dataclass
class Streams:
    """The random streams of a training: data order (CPU), weights and inputs (device), validation (a seed)."""

    order: torch.Generator
    weights: torch.Generator
    validation_seed: int

    def validation(self) -> torch.Generator:
        """Create the generator of the validation draws: the same in each epoch, so that only the weights differ."""
        return torch.Generator(self.weights.device).manual_seed(self.validation_seed)


class Training:
    """A training that yields an epoch at a time, and can be stopped after any step and resumed.

    Args:
        network: what to train, in place.
        likelihood: p(y | outputs).
        prior: p(w).
        train: the training set, on the network's device.
        validation: the images to score after each epoch, or None.
        plan: how to train.
        streams: the random streams; R of them for R replicas.
        group: the processes that share each minibatch.
    """

    def __init__(
        self,
        network: BayesianNetwork,
        likelihood: Likelihood,
        prior: WeightDistribution,
        train: Split,
        validation: Split | None,
        plan: Plan,
        streams: Streams | Sequence[Streams],
        group: Group = ALONE,
    ) -> None:
        self.network, self.likelihood, self.plan = network, likelihood, plan
        self.train, self.validation = train, validation
        self.streams = [streams] if isinstance(streams, Streams) else list(streams)
        self.num_batches = num_batches(train, plan.batch_size)
        self.num_passes = math.ceil(plan.steps_per_epoch / self.num_batches)
        self.num_steps = plan.num_epochs * self.num_passes * self.num_batches
        self.optimizer, self.schedule = _optimizer(network, likelihood, plan, self.num_steps)
        weights = [streams.weights for streams in self.streams]
        plain_step = Step(network, likelihood, prior, plan, weights, train, self.optimizer, group)
        self.tables = plain_step.tables
        in_graph = plan.cuda_graph and train.labels.device.type == "cuda"
        self.step: Step | Graphed = Graphed(plain_step, weights) if in_graph else plain_step
        self.epochs_done = self.passes_done = self.batches_done = 0
        self.seconds = 0.0  # spent on the current epoch so far
        self.totals = torch.zeros(3, *network.posterior.shape[:-1], device=train.labels.device, dtype=torch.float64)
        self.orders_of_pass = self._orders()

    def fit(self, on_step: Callable[[int, int], None] = lambda step, num_steps: None) -> Iterator[Epoch]:
        """Minimise the negative ELBO from the current state to the end, one epoch at a time.

        Args:
            on_step: called after each step with the number done and the number in all. It may call
                :meth:`state_dict`, and may raise an exception to stop the training.

        Yields:
            The metrics of each epoch.

        Raises:
            DivergedError: the loss is NaN or infinite. On a CPU the optimiser has not moved. On a GPU this is found
                after the epoch.
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

    def state_dict(self) -> dict[str, Any]:
        """Return all state of the training; a run resumed from it ends as if it had never been stopped."""
        return {
            "done": [self.epochs_done, self.passes_done, self.batches_done],
            "seconds": self.seconds,
            "totals": self.totals,
            "posterior": self.network.posterior.state_dict(),
            "fixed": self.network.fixed.state_dict() if self.network.fixed is not None else {},
            "likelihood": self.likelihood.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "orders": self.orders_of_pass if self.batches_done else self._orders(),
            "weights": [table.state_dict() for table in self.tables],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned, in a training made with the same arguments."""
        self.epochs_done, self.passes_done, self.batches_done = state["done"]
        self.seconds, self.totals = state["seconds"], state["totals"].to(self.totals)
        self.network.posterior.load_state_dict(state["posterior"])
        self.likelihood.load_state_dict(state["likelihood"])
        if self.network.fixed is not None:
            self.network.fixed.load_state_dict(state["fixed"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        for streams, order in zip(self.streams, state["orders"], strict=True):
            streams.order.set_state(order.cpu())  # set_state needs a CPU tensor, on any device
        for table, weights in zip(self.tables, state["weights"], strict=True):
            table.load_state_dict(weights)

    def _train_epoch(self, on_step: Callable[[int, int], None], start: float) -> None:
        """Make the remaining passes of an epoch over the training set, and add up ``totals``."""
        shares, orders = self._shares(), [streams.order for streams in self.streams]
        terms = list(zip(shares, self._with_kl(shares), strict=True))
        while self.passes_done < self.num_passes:
            self.orders_of_pass = self._orders()
            step = (self.epochs_done * self.num_passes + self.passes_done) * self.num_batches
            order = orders[0] if self.network.num_replicas is None else orders
            minibatches = batches(self.train, self.plan.batch_size, order, self.batches_done)
            for (kl_share, with_kl), (x, y) in zip(terms[self.batches_done :], minibatches, strict=True):
                try:
                    self.totals += self.step(x, y, kl_share, with_kl)
                except DivergedError as error:
                    number = self.passes_done * self.num_batches + self.batches_done + 1
                    raise DivergedError(f"epoch {self.epochs_done + 1}, step {number}: {error}") from None
                self.schedule.step()
                self.batches_done += 1
                self.seconds = time.perf_counter() - start
                on_step(step + self.batches_done, self.num_steps)
            self.passes_done, self.batches_done = self.passes_done + 1, 0

    def _orders(self) -> list[Tensor]:
        return [streams.order.get_state() for streams in self.streams]

    def _shares(self) -> list[float]:
        """The KL's shares of the minibatches in each pass of this epoch."""
        return kl_shares(self.plan.beta_type, self.num_batches, self.epochs_done, self.plan.num_epochs)

    def _with_kl(self, shares: list[float]) -> list[bool]:
        """Tell in which minibatches the KL is computed: in the first, for the metrics, and where its share matters."""
        return [i == 0 or share * self.plan.temperature > NEGLIGIBLE for i, share in enumerate(shares)]

    def _measure(self, totals: Tensor, num_with_kl: int, start: float) -> Epoch:
        num_train = len(self.train)
        nll, kl, total_score = (totals.view(3, -1).mean(1) / totals.new_tensor([num_train, num_with_kl, 1.0])).tolist()
        elbo = -nll - kl / num_train
        try:
            check_finite(-elbo)
        except DivergedError as error:
            raise DivergedError(f"epoch {self.epochs_done}: {error}") from None
        train_score = self.likelihood.mean_score(total_score, num_train)
        score, validation_nll = self._validate(self.validation) if self.validation is not None else (None, None)
        is_rmse, has_kl = self.likelihood.score == "rmse", self.network.posterior.has_density
        return Epoch(
            number=self.epochs_done,
            train_nll=nll,
            train_kl=kl if has_kl else None,
            train_elbo=elbo if has_kl else None,
            train_accuracy=None if is_rmse else train_score,
            validation_accuracy=None if is_rmse else score,
            validation_nll=validation_nll,
            seconds=time.perf_counter() - start,
            train_rmse=train_score if is_rmse else None,
            validation_rmse=score if is_rmse else None,
        )

    def _validate(self, validation: Split) -> tuple[float, float]:
        """Score the posterior predictive (replicas: their mixture): accuracy or RMSE, and NLL in nats per example."""
        predictions = [
            predict(network, self.likelihood, validation.images, self.plan.num_validation_samples, streams.validation())
            for network, streams in zip(self.network.replicas(), self.streams, strict=True)
        ]
        return self.likelihood.score_and_nll(self.likelihood.mix_replicas(predictions), validation.labels)


def _optimizer(
    network: BayesianNetwork, likelihood: Likelihood, plan: Plan, num_steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    kinds: dict[OptimizerName, Any] = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
    device = network.posterior.device
    lr: float | Tensor = plan.lr
    options: dict[str, bool] = {}
    if plan.cuda_graph and device.type == "cuda":  # a graph reads the learning rate from the device's memory
        lr = torch.tensor(plan.lr, device=device)
        options = {"capturable": True} if plan.optimizer == "adam" else {}
    learnt = [p for module in (network, likelihood) for p in module.parameters() if p.requires_grad]
    optimizer = kinds[plan.optimizer](learnt, lr=lr, fused=True, **options)
    if plan.lr_schedule == "cosine":
        return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
