"""The contract of all likelihoods p(y | outputs of a network), the categorical one, and the Gaussian one."""

import math
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bbb.inference.scores import accuracy_and_nll, classification_scores, mixture, regression_scores

LOG_2PI = math.log(2.0 * math.pi)


class Likelihood(nn.Module):
    """Evaluate the probability of labels, given a network's outputs.

    What a likelihood has to learn are its parameters. They are trained with the posterior and have no prior.

    Args:
        num_outputs: C, the number of outputs the network must have.

    Attributes:
        score: what an epoch reports beside the NLL: ``accuracy``, in 0..1, or ``rmse``, in the units of y.
    """

    score: str

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.num_outputs = num_outputs

    def log_prob(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Evaluate log p(y | outputs).

        Args:
            outputs: ``(S, B, C)``, or ``(S, R, B, C)`` for R replicas.
            y: ``(B, ...)``, or ``(R, B, ...)``.

        Returns:
            ``(S, B)``, or ``(S, R, B)``, in nats.
        """
        raise NotImplementedError

    def nll(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Sum the negative log-likelihood of a minibatch under each draw.

        Args:
            outputs: as in :meth:`log_prob`.
            y: as in :meth:`log_prob`.

        Returns:
            ``(S,)``, or ``(S, R)``, in nats: minus the sum of :meth:`log_prob`, possibly in fewer operations.
        """
        return -self.log_prob(outputs, y).sum(-1)

    def nll_with_gradient(self, outputs: Tensor, y: Tensor, weight: float) -> tuple[Tensor, Tensor]:
        """Evaluate :meth:`nll`, and ``weight`` times its gradient at the outputs, both without a graph.

        What the likelihood has to learn gets its gradient, with the same weight.
        """
        leaf = outputs.detach().requires_grad_()
        with torch.enable_grad():
            nll = self.nll(leaf, y)
        nll.backward(torch.full_like(nll, weight))
        assert leaf.grad is not None
        return nll.detach(), leaf.grad

    def sample(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        """Draw labels from p(y | outputs).

        Args:
            outputs: ``(B, C)``.
            generator: source of the draws, on their device.

        Returns:
            ``(B, ...)``, as the labels of a data set.
        """
        raise NotImplementedError

    def total_score(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Sum over a minibatch what :meth:`mean_score` makes the score of, under each draw: ``(S,)``, or ``(S, R)``."""
        raise NotImplementedError

    def mean_score(self, total: float, num_examples: int) -> float:
        """Turn a total over examples into the score."""
        raise NotImplementedError

    def predictive(self, outputs: Tensor) -> Tensor:
        """Convert the outputs ``(..., C)`` of one draw to a form that :meth:`mix` averages over draws."""
        raise NotImplementedError

    def mix(self, draws: Iterable[Tensor]) -> Tensor:
        """Combine the :meth:`predictive` of S draws, each ``(N, C)``, into the posterior predictive."""
        raise NotImplementedError

    def mix_replicas(self, predictives: Sequence[Tensor]) -> Tensor:
        """Combine the posterior predictives of R replicas into that of their ensemble."""
        raise NotImplementedError

    def score_and_nll(self, predictive: Tensor, y: Tensor) -> tuple[float, float]:
        """Score the posterior predictive: :attr:`score`, and NLL in nats per example."""
        raise NotImplementedError

    def scores(self, predictive: Tensor, y: Tensor) -> dict[str, float]:
        """Score the posterior predictive in full.

        Args:
            predictive: as :meth:`mix` returns it.
            y: ``(N, ...)``.

        Returns:
            Each score by its name: what a result reports for a data set.
        """
        raise NotImplementedError


class Categorical(Likelihood):
    """Class labels ``(B,)`` in 0..C-1, with the network's outputs as logits.

    The posterior predictive is the log-probabilities of the classes, ``(N, C)``.
    """

    score = "accuracy"

    def log_prob(self, outputs: Tensor, y: Tensor) -> Tensor:
        y = y.expand(outputs.shape[:-1])
        return outputs.log_softmax(-1).gather(-1, y.unsqueeze(-1)).squeeze(-1)

    def nll(self, outputs: Tensor, y: Tensor) -> Tensor:
        if outputs.shape[:-2] == (1,):  # as below, in fewer operations
            return F.cross_entropy(outputs.squeeze(0), y, reduction="sum").unsqueeze(0)
        y = y.expand(outputs.shape[:-1])
        loss = F.cross_entropy(outputs.flatten(0, -2), y.flatten(), reduction="none")
        return loss.view(y.shape).sum(-1)

    @torch.no_grad()
    def nll_with_gradient(self, outputs: Tensor, y: Tensor, weight: float) -> tuple[Tensor, Tensor]:
        if type(self) is not Categorical:  # a subclass may have an NLL of its own
            return super().nll_with_gradient(outputs, y, weight)
        log_probs, labels = outputs.log_softmax(-1), y.expand(outputs.shape[:-1]).unsqueeze(-1)
        nll = log_probs.gather(-1, labels).sum((-2, -1)).neg_()
        minus_one = torch.full_like(nll, -1.0).view(*nll.shape, 1, 1).expand(labels.shape)
        grad = log_probs.exp_().scatter_add_(-1, labels, minus_one)  # the probabilities, less 1 at the label
        return nll, grad.mul_(weight)

    def sample(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        return torch.multinomial(outputs.softmax(-1), 1, generator=generator).squeeze(-1)

    def total_score(self, outputs: Tensor, y: Tensor) -> Tensor:
        return (outputs.argmax(-1) == y).sum(-1)

    def mean_score(self, total: float, num_examples: int) -> float:
        return total / num_examples

    def predictive(self, outputs: Tensor) -> Tensor:
        return outputs.log_softmax(-1)

    def mix(self, draws: Iterable[Tensor]) -> Tensor:
        num, total = 0, torch.empty(0)
        for log_probs in draws:
            total = log_probs if num == 0 else torch.logaddexp(total, log_probs, out=total)
            num += 1
        return total - math.log(num)

    def mix_replicas(self, predictives: Sequence[Tensor]) -> Tensor:
        return mixture(torch.stack([*predictives]))

    def score_and_nll(self, predictive: Tensor, y: Tensor) -> tuple[float, float]:
        return accuracy_and_nll(predictive, y)

    def scores(self, predictive: Tensor, y: Tensor) -> dict[str, float]:
        return classification_scores(predictive, y)


class GaussianNoise(Likelihood):
    r"""Numbers ``(B,)`` or ``(B, C)``: the network's outputs plus Gaussian noise, :math:`y \sim N(f(x), \sigma^2)`.

    The posterior predictive is a mixture of S Gaussians, given by their means ``(S, N, C)``.

    Args:
        num_outputs: C.
        noise_std: sigma, in the units of y.
        is_learnt: whether sigma is a parameter that starts there.
    """

    score = "rmse"

    def __init__(self, num_outputs: int, noise_std: float, is_learnt: bool = False) -> None:
        super().__init__(num_outputs)
        self.log_std = nn.Parameter(torch.tensor(math.log(noise_std)), requires_grad=is_learnt)

    @property
    def noise_std(self) -> float:
        """Sigma, in the units of y."""
        return self.log_std.exp().item()

    def log_prob(self, outputs: Tensor, y: Tensor) -> Tensor:
        z = (_like(y, outputs) - outputs) * torch.exp(-self.log_std)
        return (-0.5 * z.square() - self.log_std - 0.5 * LOG_2PI).sum(-1)

    def sample(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.randn(outputs.shape, generator=generator, dtype=outputs.dtype, device=outputs.device)
        return outputs + self.log_std.detach().exp() * noise

    def total_score(self, outputs: Tensor, y: Tensor) -> Tensor:
        return (_like(y, outputs) - outputs).square().mean(-1).sum(-1)

    def mean_score(self, total: float, num_examples: int) -> float:
        return math.sqrt(total / num_examples)

    def predictive(self, outputs: Tensor) -> Tensor:
        return outputs

    def mix(self, draws: Iterable[Tensor]) -> Tensor:
        return torch.stack([*draws])

    def mix_replicas(self, predictives: Sequence[Tensor]) -> Tensor:
        return torch.cat([*predictives])

    def score_and_nll(self, predictive: Tensor, y: Tensor) -> tuple[float, float]:
        scores = self.scores(predictive, y)
        return scores["rmse"], scores["nll"]

    def scores(self, predictive: Tensor, y: Tensor) -> dict[str, float]:
        return regression_scores(predictive, _like(y, predictive), self.noise_std)


def _like(y: Tensor, outputs: Tensor) -> Tensor:
    """Give numbers ``(..., B)`` the axis of a single output, where outputs ``(S, ..., B, 1)`` have one."""
    return y.unsqueeze(-1) if y.ndim == outputs.ndim - 2 else y
