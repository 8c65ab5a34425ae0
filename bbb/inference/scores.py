"""Scores of a posterior predictive: accuracy, calibration, and the parts of its entropy."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

ECE_BINS = 15


@dataclass(frozen=True)
class Entropy:
    """The entropy of predictive distributions, each part ``(N,)`` in nats; ``total = aleatoric + epistemic``."""

    total: Tensor
    aleatoric: Tensor
    epistemic: Tensor


@dataclass(frozen=True)
class Reliability:
    """Predictions in K equal bins of confidence: the share in each, their mean confidence and accuracy.

    All are ``(K,)`` in 0..1; confidence and accuracy are NaN in an empty bin.
    """

    share: Tensor
    confidence: Tensor
    accuracy: Tensor

    def calibration_error(self) -> float:
        """Return the expected calibration error in 0..1: the mean distance of accuracy from confidence."""
        return (self.share * (self.accuracy - self.confidence).abs()).nansum().item()


def accuracy_and_nll(log_probs: Tensor, labels: Tensor) -> tuple[float, float]:
    """Score log-probabilities ``(N, C)`` against labels ``(N,)``: accuracy in 0..1 and NLL in nats per example."""
    num_correct = int((log_probs.argmax(1) == labels).sum())
    nll = -log_probs.gather(1, labels.unsqueeze(1)).double().mean()
    return num_correct / len(labels), nll.item()


def error_rate(log_probs: Tensor, labels: Tensor) -> float:
    """Return the share of predictions ``(N, C)`` whose most probable class is not the label ``(N,)``, in %."""
    num_wrong = int((log_probs.argmax(1) != labels).sum())
    return 100.0 * num_wrong / len(labels)


def classification_scores(log_probs: Tensor, labels: Tensor) -> dict[str, float]:
    """Score log-probabilities ``(N, C)`` against labels ``(N,)``.

    Returns:
        ``error`` in %, ``nll`` in nats per example, ``brier`` in 0..2, the squared distance of the probabilities from
        the one-hot label (Brier 1950), and ``ece`` in %, the expected calibration error in 15 equal bins of confidence
        (Guo et al. 2017, arXiv 1706.04599).
    """
    _, nll = accuracy_and_nll(log_probs, labels)
    one_hot = torch.nn.functional.one_hot(labels, log_probs.shape[1])
    brier = (log_probs.exp() - one_hot).square().sum(1).double().mean().item()
    ece = 100.0 * reliability(log_probs, labels).calibration_error()
    return {"error": error_rate(log_probs, labels), "nll": nll, "brier": brier, "ece": ece}


def regression_scores(means: Tensor, y: Tensor, noise_std: float) -> dict[str, float]:
    """Score a mixture of S Gaussians with means ``(S, N, C)`` and one standard deviation against numbers ``(N, C)``.

    Returns:
        ``rmse`` of the mixture's mean, in the units of y, ``nll`` in nats per example, and ``coverage_50`` and
        ``coverage_90``: the share of the numbers, in %, inside the central 50 % and 90 % intervals of the mixture.
    """
    means, y = means.double(), y.double()
    rmse = (means.mean(0) - y).square().mean().sqrt().item()
    z = (y - means) / noise_std
    log_probs = (-0.5 * z.square() - math.log(noise_std) - 0.5 * math.log(2.0 * math.pi)).sum(-1)
    nll = -mixture(log_probs.unsqueeze(-1)).mean().item()
    rank = torch.special.ndtr(z).mean(0)  # where y lies in the mixture's distribution function
    coverage = {f"coverage_{p}": 100.0 * ((rank - 0.5).abs() <= p / 200).double().mean().item() for p in (50, 90)}
    return {"rmse": rmse, "nll": nll, **coverage}


def split_entropy(log_probs: Tensor) -> Entropy:
    r"""Split the entropy of the posterior predictive into the expected entropy and the mutual information.

    .. math:: H[E_w\, p(y | x, w)] = E_w\, H[p(y | x, w)] + I(y; w | x)

    The first part is aleatoric: the noise that every draw of the weights predicts. The second is epistemic: the
    disagreement between draws (Houlsby et al. 2011, arXiv 1112.5745; Depeweg et al. 2018, arXiv 1710.07283, eq. 2).

    Args:
        log_probs: ``(S, N, C)``, log-probabilities of C classes under each of S draws of the weights.
    """
    total, aleatoric = entropy(mixture(log_probs)), entropy(log_probs).mean(0)
    return Entropy(total, aleatoric, total - aleatoric)


def mixture(log_probs: Tensor) -> Tensor:
    """Return the log-probabilities ``(N, C)`` of the mean of distributions with log-probabilities ``(S, N, C)``."""
    return torch.logsumexp(log_probs, 0) - math.log(len(log_probs))


def entropy(log_probs: Tensor) -> Tensor:
    """Return the entropy ``(...)``, in nats, of distributions with log-probabilities ``(..., C)``."""
    return torch.special.entr(log_probs.exp()).sum(-1)


def reliability(log_probs: Tensor, labels: Tensor, num_bins: int = ECE_BINS) -> Reliability:
    """Compare confidence and accuracy in equal bins of confidence (Guo et al. 2017, arXiv 1706.04599).

    Args:
        log_probs: ``(N, C)``, log-probabilities.
        labels: ``(N,)``, the true classes.
        num_bins: K; a bin includes its lower edge, the last one both edges.
    """
    confidence, predicted = log_probs.exp().max(1)
    edges = torch.linspace(0, 1, num_bins + 1, device=confidence.device)
    bins = (torch.bucketize(confidence, edges, right=True) - 1).clamp(0, num_bins - 1)
    number = torch.bincount(bins, minlength=num_bins).double()
    total_confidence = torch.bincount(bins, confidence.double(), minlength=num_bins)
    num_correct = torch.bincount(bins, (predicted == labels).double(), minlength=num_bins)
    return Reliability(number / len(labels), total_confidence / number, num_correct / number)


def auroc(inside: Tensor, outside: Tensor) -> float:
    """Return the probability that an outside score ``(M,)`` exceeds an inside score ``(N,)``; ties count half.

    It is the area under the curve of true against false positives; 0.5 is chance level.

    Args:
        inside: scores, such as entropies, of inputs like the training data.
        outside: scores of other inputs.
    """
    from torchmetrics.functional.classification import binary_auroc  # here, since it takes seconds to import

    scores = torch.cat([inside, outside]).double()
    labels = torch.cat([torch.zeros(len(inside)), torch.ones(len(outside))]).long()
    return binary_auroc(scores / scores.max().clamp(min=1.0), labels.to(scores.device)).item()
