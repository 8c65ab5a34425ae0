"""The posterior predictive, and the evidence lower bound of a trained posterior."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from bbb.data import Split
from bbb.distributions import WeightDistribution, kl_divergence
from bbb.inference.likelihood import Likelihood
from bbb.inference.scores import entropy
from bbb.networks import BayesianNetwork, LayerWeights, forward_drawn, num_activations

CHUNK = 10_000  # images evaluated at once: bounds memory, costs no speed
NUM_ACTIVATIONS = 2**21  # of all layers, that are evaluated at once: they stay in the processor's cache

OnImages = Callable[[int], None]
Watch = Callable[[Iterator[Tensor]], Iterator[Tensor]]


def ignore(num_images: int) -> None:
    """Do nothing when images have been evaluated."""


class ExpectedEntropy:
    """The mean entropy of the draws that are combined, gathered on the way: a second pass would cost another test.

    An instance is the ``watch`` of one call of :func:`predict`, under a likelihood of classes.
    """

    def __init__(self) -> None:
        self._parts: list[Tensor] = []

    def __call__(self, draws: Iterator[Tensor]) -> Iterator[Tensor]:
        """Pass on the draws ``(N, C)`` of some images, in nats, and add up their entropies."""
        total, num = torch.zeros(()), 0
        for log_probs in draws:
            total = total.to(log_probs.device) + entropy(log_probs)
            num += 1
            yield log_probs
        self._parts.append(total / num)

    @property
    def mean(self) -> Tensor:
        """The expected entropy of a draw for each image, ``(N,)``, in nats: the aleatoric part of the entropy."""
        return torch.cat(self._parts)


@torch.no_grad()
def predict(
    network: BayesianNetwork,
    likelihood: Likelihood,
    images: Tensor,
    num_samples: int,
    generator: torch.Generator,
    on_images: OnImages = ignore,
    watch: Watch = iter,
) -> Tensor:
    r"""Evaluate the posterior predictive :math:`\frac1S \sum_s p(y | x, w_s)`.

    Each draw of the weights is used for all images, as the joint posterior requires. Large sets are evaluated in
    chunks, with the same draws for each chunk.

    Args:
        network: the network with its posterior.
        likelihood: p(y | outputs).
        images: raw inputs ``(N, P)``, which the network normalises.
        num_samples: S, draws of the weights; of a point one, since all are the same.
        generator: source of the draws.
        on_images: called with the number of images whenever some have been evaluated under a draw; may raise.
        watch: passes on the draws of each chunk, in order, and may look at them (see :class:`ExpectedEntropy`).

    Returns:
        What ``likelihood.mix`` makes of the draws: for classes log-probabilities ``(N, C)``, in nats; for numbers the
        means ``(S, N, C)``.
    """
    start, parts = generator.get_state(), []
    for chunk in images.split(CHUNK):
        generator.set_state(start)
        draws = predict_draws(network, likelihood, chunk, num_samples, generator, on_images)
        parts.append(likelihood.mix(watch(draws)))
    return torch.cat(parts, dim=-2)


@torch.no_grad()
def predict_draws(
    network: BayesianNetwork,
    likelihood: Likelihood,
    images: Tensor,
    num_samples: int,
    generator: torch.Generator,
    on_images: OnImages = ignore,
) -> Iterator[Tensor]:
    """Yield what :func:`predict` combines: the predictive ``(N, C)`` under each of the draws of the weights."""
    x, size = network.normalization(images), _num_at_once(network)
    for _ in range(num_distinct(network.posterior, num_samples)):
        w, _ = network.posterior.rsample_and_log_prob(1, generator)
        yield likelihood.predictive(_run(network, network.layers(w), x, size, on_images))


def num_distinct(posterior: WeightDistribution, num_samples: int) -> int:
    """Count the draws that a prediction needs, out of ``num_samples``: of a point a single one tells all."""
    return 1 if posterior.is_certain else num_samples


@torch.no_grad()
def predict_with_centre(network: BayesianNetwork, likelihood: Likelihood, images: Tensor) -> Tensor:
    """Predict with the centre of the posterior in place of draws from it: as a single draw, ``(N, C)``."""
    return likelihood.predictive(_outputs(network, network.centre_layers(), images))


@torch.no_grad()
def elbo(
    network: BayesianNetwork,
    likelihood: Likelihood,
    prior: WeightDistribution,
    split: Split,
    num_samples: int,
    generator: torch.Generator,
    on_images: OnImages = ignore,
) -> tuple[float, float]:
    r"""Estimate the evidence lower bound, at temperature 1 and without input noise.

    .. math:: \frac1N \left( E_q[\log p(D | w)] - KL(q || p) \right)

    Args:
        network: q and the network it parameterises.
        likelihood: p(y | outputs).
        prior: p.
        split: D, the training set of N images.
        num_samples: draws of the weights to average over.
        generator: source of the draws.
        on_images: as in :func:`predict`.

    Returns:
        The ELBO in nats per example, and the KL in nats.

    Raises:
        ValueError: the posterior has no density.
    """
    if not network.posterior.has_density:
        raise ValueError("posterior: has no density, so that neither KL nor ELBO is defined")
    log_likelihood = kl = 0.0
    for _ in range(num_samples):
        w, log_q = network.posterior.rsample_and_log_prob(1, generator)
        outputs = _outputs(network, network.layers(w), split.images, on_images).unsqueeze(0)
        log_likelihood += likelihood.log_prob(outputs, split.labels).double().sum().item() / num_samples
        kl += kl_divergence(network.posterior, prior, (w, log_q)).item() / num_samples
    return (log_likelihood - kl) / len(split), kl


def _outputs(
    network: BayesianNetwork, layers: list[LayerWeights], images: Tensor, on_images: OnImages = ignore
) -> Tensor:
    """Outputs ``(N, C)`` under one draw of the weights."""
    size, normalize = _num_at_once(network), network.normalization
    return torch.cat([_run(network, layers, normalize(chunk), size, on_images) for chunk in images.split(CHUNK)])


def _num_at_once(network: BayesianNetwork) -> int:
    """Count the examples that are evaluated at once: as many as is fast."""
    return max(1, NUM_ACTIVATIONS // num_activations(network.architecture))


def _run(network: BayesianNetwork, layers: list[LayerWeights], x: Tensor, size: int, on_images: OnImages) -> Tensor:
    """Outputs ``(N, C)`` for normalised inputs, ``size`` of them at once."""
    outputs = []
    for part in x.split(size):
        outputs.append(forward_drawn(network.architecture, layers, part)[0])
        on_images(len(part))
    return torch.cat(outputs)
