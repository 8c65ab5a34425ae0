"""The contract of all likelihoods p(y | outputs of a network), and the categorical one."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from bbb.inference.scores import classification_scores


class Likelihood(ABC):
    """The probability of labels, given the outputs of a network.

    Attributes:
        num_outputs: C, the outputs that a network must have.
    """

    num_outputs: int

    @abstractmethod
    def log_prob(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Evaluate log p(y | outputs).

        Args:
            outputs: ``(S, B, C)``, or ``(S, R, B, C)`` for R replicas.
            y: ``(B,)``, or ``(R, B)``.

        Returns:
            ``(S, B)``, or ``(S, R, B)``, in nats.
        """

    def nll(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Sum the negative log-likelihood of a minibatch under each draw.

        Args:
            outputs: as in :meth:`log_prob`.
            y: likewise.

        Returns:
            ``(S,)``, or ``(S, R)``, in nats: minus the sum of :meth:`log_prob`. A subclass may compute it faster.
        """
        return -self.log_prob(outputs, y).sum(-1)

    @abstractmethod
    def num_correct(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Count the examples whose label is the most probable one, under each draw: ``(S,)``, or ``(S, R)``."""

    @abstractmethod
    def predictive(self, outputs: Tensor) -> Tensor:
        """Turn outputs ``(..., C)`` into log-probabilities; their mixture over draws is the posterior predictive.

        Returns:
            The log-probabilities of all C classes ``(..., C)``, in nats.
        """

    @abstractmethod
    def scores(self, predictive: Tensor, y: Tensor) -> dict[str, float]:
        """Score the posterior predictive.

        Args:
            predictive: log-probabilities ``(N, C)``, in nats.
            y: ``(N,)``.

        Returns:
            The scores that a result reports, by name.
        """


@dataclass(frozen=True)
class Categorical(Likelihood):
    """Class labels, with the network's outputs as logits.

    Args:
        num_outputs: C, the number of classes.
    """

    num_outputs: int

    def log_prob(self, outputs: Tensor, y: Tensor) -> Tensor:
        y = y.expand(outputs.shape[:-1])
        return outputs.log_softmax(-1).gather(-1, y.unsqueeze(-1)).squeeze(-1)

    def nll(self, outputs: Tensor, y: Tensor) -> Tensor:
        if outputs.shape[:-2] == (1,):  # the same as below, in fewer operations
            return F.cross_entropy(outputs.squeeze(0), y, reduction="sum").unsqueeze(0)
        y = y.expand(outputs.shape[:-1])
        loss = F.cross_entropy(outputs.flatten(0, -2), y.flatten(), reduction="none")
        return loss.view(y.shape).sum(-1)

    def num_correct(self, outputs: Tensor, y: Tensor) -> Tensor:
        return (outputs.argmax(-1) == y).sum(-1)

    def predictive(self, outputs: Tensor) -> Tensor:
        return outputs.log_softmax(-1)

    def scores(self, predictive: Tensor, y: Tensor) -> dict[str, float]:
        return classification_scores(predictive, y)
