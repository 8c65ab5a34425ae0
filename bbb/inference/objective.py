r"""The evidence lower bound, in nats, and the schemes that share its KL among minibatches.

For N examples in M minibatches, the cost of minibatch i is (Blundell et al. 2015, eqs. 8 and 9, arXiv 1505.05424)

.. math:: F_i = -\frac1S \sum_s \log p(D_i | w_s) + T \pi_i \, KL(q || p), \qquad \sum_i \pi_i = 1,

so that the costs of an epoch add up to the negative ELBO of the whole training set, at temperature T = 1.
"""

from typing import get_args

from torch import Tensor

from bbb.inference.choices import BetaType


def kl_shares(scheme: BetaType, num_batches: int, epoch: int = 0, num_epochs: int = 1) -> list[float]:
    r"""Share the KL among the minibatches of an epoch.

    - ``standard``: :math:`\pi_i = 1/M` (Graves 2011).
    - ``blundell``: :math:`\pi_i = 2^{M-i} / (2^M - 1)` (Blundell et al. 2015, section 3.4): the first minibatches
      follow the prior, the last ones the data.
    - ``soenderby``: ``standard`` times a warm-up that grows linearly from the first epoch and is complete after a
      quarter of the epochs (Sonderby et al. 2016, arXiv 1602.02282).
    - ``none``: 0, maximum likelihood of a noisy network.

    Args:
        scheme: one of the four.
        num_batches: M, the number of minibatches in an epoch.
        epoch: epochs finished before this one.
        num_epochs: epochs of the whole training.

    Returns:
        :math:`\pi_1, \dots, \pi_M`, which sum to one, except for ``none`` and during a warm-up.

    Raises:
        ValueError: unknown scheme.
    """
    if scheme == "none":
        return [0.0] * num_batches
    if scheme == "blundell":  # both terms divided by 2^M, which would overflow
        return [0.5**i / (1.0 - 0.5**num_batches) for i in range(1, num_batches + 1)]
    if scheme == "standard":
        return [1.0 / num_batches] * num_batches
    if scheme == "soenderby":
        return [min(1.0, 4.0 * (epoch + 1) / num_epochs) / num_batches] * num_batches
    raise ValueError(f"beta_type={scheme}: must be one of {', '.join(get_args(BetaType))}")


def negative_elbo(nll: Tensor, kl: Tensor, kl_share: float | Tensor = 1.0, temperature: float = 1.0) -> Tensor:
    """Combine the two terms of a minibatch's cost.

    Args:
        nll: negative log-likelihood summed over the minibatch, ``(S,)``: one for each draw of the weights, in nats;
            ``(S, R)`` for R replicas.
        kl: KL(q || p), a scalar, or ``(R,)``, in nats.
        kl_share: pi_i, this minibatch's share of the KL; 1 where the minibatch is the whole training set.
        temperature: T; 1 is the ELBO, below 1 a cold posterior (Wenzel et al. 2020, arXiv 2002.02405).

    Returns:
        A scalar, or ``(R,)``, in nats.
    """
    return nll.mean(0) + (temperature * kl_share) * kl
