"""From the posterior learnt on one task to the prior and the start of the next."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bbb import evaluation, priors
from bbb.data import Split
from bbb.network import BayesianMLP, layer_dims
from bbb.training import Noise, Plan, Training
from bbb.weights import Gaussian, WeightDistribution, join

STARTS = ("prior", "narrow", "random")
INFLATIONS = (1.0, 10.0, 100.0)  # what auto chooses from
NUM_FOLDS = 2
SHORTENED = 4  # a choice trains for a quarter of the epochs


def prepare(
    source: BayesianMLP,
    fresh: BayesianMLP,
    head_prior: Gaussian | None,
    inflation: float = 1.0,
    floor: float = 0.0,
    start: str = "prior",
    max_std: float = math.inf,
) -> tuple[BayesianMLP, WeightDistribution]:
    """Make the posterior of a source task the prior of the next, and start there.

    Args:
        source: the network trained on the source task.
        fresh: a network at its random start, with the layers of the target task.
        head_prior: prior of a fresh last layer, which then starts at mean zero, as wide as that of ``fresh``; None to
            keep the source's head.
        inflation: factor on the variances of the source's posterior (see :func:`bbb.priors.from_posterior`).
        floor: standard deviation added to it, in quadrature.
        start: where the posterior starts: ``prior``; ``narrow``, at the prior but no weight wider than ``max_std``,
            since a wide prior makes a noisy start and standard deviations shrink slowly; ``random``, at ``fresh``.
        max_std: standard deviation.

    Returns:
        The network to train and its prior. At the prior, log q - log p is zero for every draw but for a fresh head.

    Raises:
        ValueError: unknown start.
    """
    if start not in STARTS:
        raise ValueError(f"start={start}: must be one of {', '.join(STARTS)}")
    if head_prior is None:
        prior = priors.from_posterior(source.posterior, inflation, floor)
        posterior = prior.frozen()
    else:
        num_shared = _num_shared(fresh)
        shared = priors.from_posterior(source.posterior.split(num_shared)[0], inflation, floor)
        prior = join(shared, head_prior).requires_grad_(False)
        head = fresh.posterior.split(num_shared)[1]
        with torch.no_grad():  # with few images, the random weights of a fresh head would be a noise never unlearnt
            head.base.mean.zero_()
        posterior = join(shared, head)
    if start == "random":
        return fresh, prior
    if start == "narrow":
        with torch.no_grad():
            posterior.base.log_std.clamp_(max=math.log(max_std))
    return BayesianMLP(fresh.sizes, posterior.requires_grad_(True)), prior


def choose_inflation(
    train: Split,
    create: Callable[[float], tuple[BayesianMLP, WeightDistribution]],
    plan: Plan,
    seed: int,
    on_step: Callable[[int, int], None] = lambda step, num_steps: None,
    candidates: Sequence[float] = INFLATIONS,
) -> tuple[float, dict[float, float]]:
    """Choose the prior's scale by cross-validation on the target's training set, in shortened trainings.

    Args:
        train: the target's training set; each image is held out once for each candidate.
        create: makes the network and the prior for an inflation.
        plan: how the run itself will train.
        seed: of the folds and of the noise, which all candidates share.
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
            streams = (torch.Generator(place).manual_seed(seed + 1) for place in ("cpu", device))
            process = Training(network, prior, kept, None, plan, Noise(*streams, seed))
            num_steps = NUM_FOLDS * len(candidates) * process.num_steps
            for _ in process.fit(lambda *_, total=num_steps: on_step(next(step), total)):
                pass
            draws = torch.Generator(device).manual_seed(seed)
            log_probs = evaluation.predict(network, held_out.images, plan.num_validation_samples, draws)
            nll = evaluation.accuracy_and_nll(log_probs, held_out.labels)[1]
            scores[inflation] += nll * len(held_out) / len(train)
    return min(candidates, key=scores.__getitem__), scores


def source_error(
    network: BayesianMLP, source: BayesianMLP, test: Split, num_samples: int, generator: torch.Generator
) -> float:
    """Measure what a network has kept of its source task: the test error of its hidden layers under the source's head.

    Args:
        network: the network after training on the target task.
        source: the network before it.
        test: the source task's test set.
        num_samples: draws of the weights.
        generator: source of the draws.

    Returns:
        The error in %.
    """
    num_shared = _num_shared(source)
    parts = network.posterior.split(num_shared)[0], source.posterior.split(num_shared)[1]
    log_probs = evaluation.predict(BayesianMLP(source.sizes, join(*parts)), test.images, num_samples, generator)
    return 100.0 * (1.0 - evaluation.accuracy_and_nll(log_probs, test.labels)[0])


def _folds(train: Split, generator: torch.Generator) -> Tensor:
    """Deal the images of each class to the folds at random ``(N,)``, in turn, so that folds have classes alike."""
    order = torch.randperm(len(train), generator=generator)
    by_class = order[train.labels.cpu()[order].argsort(stable=True)]
    fold = torch.empty(len(train), dtype=torch.int64)
    fold[by_class] = torch.arange(len(train)) % NUM_FOLDS
    return fold


def _num_shared(network: BayesianMLP) -> int:
    """Count the weights before the last layer."""
    return sum(layer_dims(network.sizes)[:-1])
