"""Transfer: the posterior of one task becomes the prior, and the start, of the next."""

import copy
import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import get_args

import torch
from torch import Tensor

from bbb.data import Split
from bbb.distributions import FlowedGaussian, Gaussian, Laplace, Pruned, WeightDistribution, join
from bbb.inference.choices import Start
from bbb.inference.likelihood import Categorical, Likelihood
from bbb.inference.predictive import OnImages, ignore, predict
from bbb.inference.scores import error_rate
from bbb.inference.step import Plan
from bbb.inference.training import Streams, Training
from bbb.networks import BayesianNetwork

INFLATIONS = (1.0, 10.0, 100.0)  # the candidates of prior_inflation=auto
NUM_FOLDS = 2
SHORTENED = 4  # trainings that choose an inflation have a quarter of the epochs


def prepare(
    source: BayesianNetwork,
    fresh: BayesianNetwork,
    head_prior: Gaussian | None,
    inflation: float = 1.0,
    floor: float = 0.0,
    start: Start = "prior",
    max_std: float = math.inf,
) -> tuple[BayesianNetwork, WeightDistribution]:
    """Make the source task's posterior the prior of the target task, and choose where to start.

    Args:
        source: the network trained on the source task.
        fresh: a network at its random start, with the layers of the target task.
        head_prior: prior of a fresh last layer. This layer starts at mean zero, with the standard deviations of
            ``fresh``. None keeps the source's head.
        inflation: factor on the variances of the source's posterior (see
            :meth:`bbb.distributions.WeightDistribution.widened`).
        floor: standard deviation added to the source's, in quadrature.
        start: where the posterior starts. ``prior``: at the prior. ``narrow``: at the prior, but no weight wider than
            ``max_std``, since a wide prior makes a noisy start and standard deviations shrink slowly. ``random``: at
            ``fresh``.
        max_std: the largest standard deviation at the start, under ``narrow``.

    Returns:
        The network to train and its prior. Started at the prior, log q - log p is zero for every draw, except for a
        fresh head.

    Raises:
        ValueError: unknown start.
    """
    if start not in get_args(Start):
        raise ValueError(f"start={start}: must be one of {', '.join(get_args(Start))}")
    prior: WeightDistribution
    posterior: WeightDistribution
    shared = source.posterior if head_prior is None else source.split_head()[0]
    prior = shared.widened(inflation, floor)
    posterior = shared.frozen() if isinstance(shared, Laplace) else prior.frozen()
    if head_prior is not None:
        prior = join(prior, head_prior).requires_grad_(False)
        posterior = join(posterior, _at_zero(fresh.split_head()[1]))
    if start == "random":
        return _with_the_support_of(prior, fresh), prior
    if start == "narrow":
        posterior = posterior.narrowed(max_std)
    return fresh.with_posterior(posterior.requires_grad_(True)), prior


def with_fresh_head(source: BayesianNetwork, fresh: BayesianNetwork) -> WeightDistribution:
    """Make the posterior that has the hidden layers of one network, and the head of another, as it is there."""
    return join(source.split_head()[0], fresh.split_head()[1]).requires_grad_(True)


def choose_inflation(
    train: Split,
    create: Callable[[float], tuple[BayesianNetwork, WeightDistribution]],
    likelihood: Likelihood,
    plan: Plan,
    seed: int,
    on_step: Callable[[int, int], None] = lambda step, num_steps: None,
    candidates: Sequence[float] = INFLATIONS,
) -> tuple[float, dict[float, float]]:
    """Choose the prior's scale by cross-validation on the target's training set, in shortened trainings.

    Args:
        train: the target's training set; each image is held out once for each candidate.
        create: makes the network and the prior for an inflation.
        likelihood: p(y | outputs).
        plan: how the run itself will train.
        seed: seed of the folds and of the noise; all candidates share both.
        on_step: called after each step with the number done and the number in all.
        candidates: the inflations to try.

    Returns:
        The inflation with the lowest held-out NLL of the posterior predictive, and the NLL of each, in nats per
        example.
    """
    plan = dataclasses.replace(plan, num_epochs=max(1, plan.num_epochs // SHORTENED))
    device = train.labels.device
    fold = _folds(train, torch.Generator().manual_seed(seed)).to(device)
    scores = dict.fromkeys(candidates, 0.0)
    step = itertools.count(1)
    for k in range(NUM_FOLDS):
        kept, held_out = train[fold != k], train[fold == k]
        for inflation in candidates:
            network, prior = create(inflation)
            own = copy.deepcopy(likelihood)  # what it learns is of this training alone
            order, weights = (torch.Generator(place).manual_seed(seed + 1) for place in ("cpu", device))
            streams = Streams(order, weights, validation_seed=seed)
            process = Training(network, own, prior, kept, None, plan, streams)
            num_steps = NUM_FOLDS * len(candidates) * process.num_steps
            for _ in process.fit(lambda *_, total=num_steps: on_step(next(step), total)):
                pass
            draws = torch.Generator(device).manual_seed(seed)
            predictive = predict(network, own, held_out.images, plan.num_validation_samples, draws)
            nll = own.score_and_nll(predictive, held_out.labels)[1]
            scores[inflation] += nll * len(held_out) / len(train)
    return min(candidates, key=scores.__getitem__), scores


def source_error(
    network: BayesianNetwork,
    source: BayesianNetwork,
    test: Split,
    num_samples: int,
    generator: torch.Generator,
    on_images: OnImages = ignore,
) -> float:
    """Measure forgetting: the test error on the source task, with the network's hidden layers and the source's head.

    Args:
        network: the network after training on the target task.
        source: the network before that training.
        test: the source task's test set.
        num_samples: draws of the weights.
        generator: source of the draws.
        on_images: as in :func:`bbb.inference.predict`.

    Returns:
        The error in %.
    """
    posterior = join(network.split_head()[0], source.split_head()[1])
    likelihood = Categorical(source.architecture.num_outputs)
    combined = BayesianNetwork(source.architecture.copy(), posterior, source.normalization)
    if combined.fixed is not None and network.fixed is not None:
        combined.fixed.load_state_dict(network.fixed.state_dict())
    log_probs = predict(combined, likelihood, test.images, num_samples, generator, on_images)
    return error_rate(log_probs, test.labels)


def _with_the_support_of(prior: WeightDistribution, fresh: BayesianNetwork) -> BayesianNetwork:
    """Remove the weights that a pruned prior has removed: else the KL would be infinite."""
    if isinstance(prior, Pruned) and isinstance(fresh.posterior, Gaussian):
        return fresh.with_posterior(Pruned.of(fresh.posterior, prior.kept))
    return fresh


def _at_zero(head: WeightDistribution) -> WeightDistribution:
    """Move a fresh head to mean zero, since training on few images would not remove the noise of random weights."""
    base = head.base if isinstance(head, FlowedGaussian) else head
    if not isinstance(base, Gaussian | Laplace):
        raise ValueError(f"head: a {type(head).__name__} cannot be moved; it must be Gaussian, with flows or without")
    with torch.no_grad():
        base.mean.zero_()
    return head


def _folds(train: Split, generator: torch.Generator) -> Tensor:
    """Assign images to folds at random ``(N,)``, so that each fold has nearly the same number of each class."""
    order = torch.randperm(len(train), generator=generator)
    by_class = order[train.labels.cpu()[order].argsort(stable=True)] if train.has_classes else order
    fold = torch.empty(len(train), dtype=torch.int64)
    fold[by_class] = torch.arange(len(train)) % NUM_FOLDS
    return fold
