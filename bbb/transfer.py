"""From the posterior learnt on one task to the prior and the start of the next."""

import torch

from bbb import evaluation, priors
from bbb.data import Split
from bbb.network import BayesianMLP, layer_dims
from bbb.weights import Gaussian, WeightDistribution, join


def prepare(
    source: BayesianMLP, fresh: BayesianMLP, head_prior: Gaussian | None, inflation: float, floor: float, at_prior: bool
) -> tuple[BayesianMLP, WeightDistribution]:
    """Make the posterior of a source task the prior of the next, and start there.

    Args:
        source: the network trained on the source task.
        fresh: a network at its random start, with the layers of the target task.
        head_prior: prior of a fresh last layer, which then starts as ``fresh`` does; None to keep the source's head.
        inflation: factor on the variances of the source's posterior (see :func:`bbb.priors.from_posterior`).
        floor: standard deviation added to it, in quadrature.
        at_prior: start the posterior at the prior; else at ``fresh``.

    Returns:
        The network to train and its prior. At the prior, log q - log p is zero for every draw but for a fresh head.
    """
    if head_prior is None:
        prior = priors.from_posterior(source.posterior, inflation, floor)
        start = prior.frozen()
    else:
        num_shared = _num_shared(fresh)
        shared = priors.from_posterior(source.posterior.split(num_shared)[0], inflation, floor)
        prior = join(shared, head_prior).requires_grad_(False)
        start = join(shared, fresh.posterior.split(num_shared)[1])
    return (BayesianMLP(fresh.sizes, start.requires_grad_(True)) if at_prior else fresh), prior


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


def _num_shared(network: BayesianMLP) -> int:
    """Count the weights before the last layer."""
    return sum(layer_dims(network.sizes)[:-1])
