r"""The curvature of the likelihood at a point, as a number for each weight: what makes it a Laplace approximation."""

from collections.abc import Callable

import torch
from torch import Tensor

from bbb.data import Split
from bbb.distributions import Gaussian, Laplace, WeightDistribution
from bbb.inference.likelihood import Likelihood
from bbb.networks import BayesianNetwork, Dense, Layer, first_draw

_AT_ONCE = 128  # examples


def fisher_diagonal(
    network: BayesianNetwork, likelihood: Likelihood, data: Split, generator: torch.Generator
) -> Tensor:
    r"""Estimate the diagonal of the Fisher information at the centre of a posterior.

    .. math:: F_d = \sum_n E_{y \sim p(y | x_n, \mu)} \left[ \partial_d \log p(y | x_n, \mu) \right]^2

    The expectation is that of one draw for each example. Labels are drawn from the network, not taken from the data: at
    a network that fits all of them the gradients vanish, and the curvature does not (Kunstner et al. 2019, arXiv
    1905.12558).

    Args:
        network: a single network.
        likelihood: p(y | outputs).
        data: N examples; the sum is over all, not a mean.
        generator: source of the labels, on the device of the data.

    Returns:
        ``(D,)``, the expected second derivative of the negative log-likelihood for each weight.
    """
    layers = network.architecture.layers
    weights = [*map(first_draw, network.layers(network.posterior.centre.detach().unsqueeze(0)))]
    sums = [[torch.zeros_like(part) for part in pair if part is not None] for pair in weights]
    for images in data.images.split(_AT_ONCE):
        passed: list[tuple[int, Tensor, Tensor]] = []  # of each run of a layer its number, inputs, zeros on its outputs

        def apply(i: int, h: Tensor, passed: list[tuple[int, Tensor, Tensor]] = passed) -> Tensor:
            outputs = layers[i].apply(h, *weights[i])
            passed.append((i, h.detach().clone(), torch.zeros_like(outputs, requires_grad=True)))
            return outputs + passed[-1][2]

        outputs = network.architecture.forward(apply, network.normalization(images))
        labels = likelihood.sample(outputs.detach(), generator)
        nll = likelihood.nll(outputs.unsqueeze(0), labels).sum()
        grads = torch.autograd.grad(nll, [zeros for _, _, zeros in passed])
        for i, layer in enumerate(layers):
            runs = [(h, grad) for (number, h, _), grad in zip(passed, grads, strict=True) if number == i]
            by_example = (
                torch.cat([value.unflatten(0, (len(images), -1)) for value in values], 1)
                for values in zip(*runs, strict=True)
            )
            for total, part in zip(sums[i], _squares(layer, *weights[i], *by_example), strict=True):
                total += part
    return torch.cat([part.flatten() for pair in sums for part in pair])


def measure_curvature(
    network: BayesianNetwork,
    likelihood: Likelihood,
    prior: WeightDistribution,
    data: Split,
    generator: torch.Generator,
) -> None:
    """Give a trained point its precision: that of the prior, plus :func:`fisher_diagonal`.

    Args:
        network: its posterior is a :class:`bbb.distributions.Laplace`, of which the precision changes.
        likelihood: p(y | outputs).
        prior: the Gaussian that the point was trained under.
        data: what it was trained on.
        generator: as in :func:`fisher_diagonal`.

    Raises:
        ValueError: posterior or prior are of another kind.
    """
    posterior = network.posterior
    if not isinstance(posterior, Laplace) or not isinstance(prior, Gaussian):
        raise ValueError(f"posterior={posterior}, prior={prior}: must be a Laplace approximation under a Gaussian")
    of_prior = torch.exp(-2.0 * prior.log_std.detach())
    posterior.precision.copy_(fisher_diagonal(network, likelihood, data, generator) + of_prior)


def _squares(layer: Layer, kernel: Tensor, bias: Tensor | None, h: Tensor, grad: Tensor) -> list[Tensor]:
    """Sum over examples the squared gradients at a layer's kernel and bias.

    Args:
        layer: the layer.
        kernel: its kernel.
        bias: its bias.
        h: its inputs, ``(B, V, *in)``: V for each example.
        grad: the gradients at its outputs, ``(B, V, *out)``.
    """
    if isinstance(layer, Dense) and h.shape[1] == 1:  # each gradient is an outer product
        squares = grad[:, 0].square()
        return [squares.T @ h[:, 0].square()] + ([] if bias is None else [squares.sum(0)])
    parts = (kernel,) if bias is None else (kernel, bias)

    def run(x: Tensor) -> Callable[..., Tensor]:
        return lambda kernel, bias=None: layer.apply(x, kernel, bias)

    def of_one(x: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
        pull_back: Callable[[Tensor], tuple[Tensor, ...]] = torch.func.vjp(run(x), *parts)[1]
        return pull_back(grad)

    return [gradients.square().sum(0) for gradients in torch.func.vmap(of_one)(h, grad)]
