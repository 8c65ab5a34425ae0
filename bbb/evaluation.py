"""The posterior predictive, and how good it is."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from bbb import objective
from bbb.data import Split, to_float
from bbb.network import BayesianMLP, Layer, mlp
from bbb.weights import WeightDistribution

CHUNK = 10_000  # images evaluated at once: bounds memory, costs no speed
ECE_BINS = 15


@dataclass(frozen=True)
class Metrics:
    """How well predictions fit labels: error in %, NLL in nats per example, Brier score in 0..2, ECE in %."""

    error: float
    nll: float
    brier: float
    ece: float

    def as_dict(self, prefix: str) -> dict[str, float]:
        """Return the metrics with ``prefix`` before each name."""
        return {f"{prefix}{name}": value for name, value in asdict(self).items()}


@torch.no_grad()
def predict(network: BayesianMLP, images: Tensor, num_samples: int, generator: torch.Generator) -> Tensor:
    r"""Evaluate the posterior predictive :math:`\log \frac1S \sum_s p(y | x, w_s)`.

    Each draw of the weights is used for all images, as the joint posterior asks: many images are taken in parts, and
    the draws repeated for each. The mean is taken in log space.

    Args:
        network: the network with its posterior.
        images: ``(N, P)``, uint8.
        num_samples: S, draws of the weights.
        generator: source of the draws.

    Returns:
        Log-probabilities ``(N, C)``, in nats.
    """
    start, parts = generator.get_state(), []
    for chunk in images.split(CHUNK):
        generator.set_state(start)
        total = None
        for log_probs in predict_draws(network, chunk, num_samples, generator):
            total = log_probs if total is None else torch.logaddexp(total, log_probs, out=total)
        parts.append(total)
    return torch.cat(parts) - math.log(num_samples)


@torch.no_grad()
def predict_draws(
    network: BayesianMLP, images: Tensor, num_samples: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Yield the log-probabilities ``(N, C)`` under each of the draws of the weights that :func:`predict` averages."""
    x = to_float(images)
    for _ in range(num_samples):
        w, _ = network.posterior.rsample(1, generator)
        yield mlp(network.layers(w), x)[0].log_softmax(1)


@torch.no_grad()
def predict_with_mean(network: BayesianMLP, images: Tensor) -> Tensor:
    """Predict with the mean of the posterior in place of draws from it: log-probabilities ``(N, C)``."""
    return _log_probs(network.mean_layers(), images)


@torch.no_grad()
def elbo(
    network: BayesianMLP, prior: WeightDistribution, split: Split, num_samples: int, generator: torch.Generator
) -> tuple[float, float]:
    r"""Estimate the evidence lower bound, at temperature 1 and without input noise.

    .. math:: \frac1N \left( E_q[\log p(D | w)] - KL(q || p) \right)

    Args:
        network: q and the network it parameterises.
        prior: p.
        split: D, the training set of N images.
        num_samples: draws of the weights to average over.
        generator: source of the draws.

    Returns:
        The ELBO in nats per example, and the KL in nats.
    """
    log_likelihood = kl = 0.0
    for _ in range(num_samples):
        w, log_q = network.posterior.rsample(1, generator)
        log_probs = _log_probs(network.layers(w), split.images)
        log_likelihood += log_probs.gather(1, split.labels.unsqueeze(1)).double().sum().item() / num_samples
        kl += objective.kl_divergence(network.posterior, prior, (w, log_q)).item() / num_samples
    return (log_likelihood - kl) / len(split), kl


def accuracy_and_nll(log_probs: Tensor, labels: Tensor) -> tuple[float, float]:
    """Score log-probabilities ``(N, C)`` against labels ``(N,)``: accuracy in 0..1 and NLL in nats per example."""
    correct = (log_probs.argmax(1) == labels).float().mean()
    nll = -log_probs.gather(1, labels.unsqueeze(1)).mean()
    return correct.item(), nll.item()


def metrics(log_probs: Tensor, labels: Tensor) -> Metrics:
    """Score log-probabilities ``(N, C)`` against labels ``(N,)``.

    The Brier score is the squared distance of the probabilities from the one-hot label (Brier 1950); the expected
    calibration error compares confidence and accuracy in 15 equal bins (Guo et al. 2017, arXiv 1706.04599).
    """
    from torchmetrics.functional.classification import multiclass_calibration_error  # takes seconds to import

    accuracy, nll = accuracy_and_nll(log_probs, labels)
    probs = log_probs.exp()
    one_hot = torch.nn.functional.one_hot(labels, log_probs.shape[1])
    brier = (probs - one_hot).square().sum(1).mean().item()
    ece = multiclass_calibration_error(probs, labels, num_classes=log_probs.shape[1], n_bins=ECE_BINS).item()
    return Metrics(100.0 * (1.0 - accuracy), nll, brier, 100.0 * ece)


def _log_probs(layers: list[Layer], images: Tensor) -> Tensor:
    """Log-probabilities ``(N, C)`` under one draw of the weights."""
    return torch.cat([mlp(layers, to_float(chunk))[0].log_softmax(1) for chunk in images.split(CHUNK)])
