"""The families of posteriors that are measured, and how each is fitted."""

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bbb.distributions import (
    FlowName,
    FullGaussian,
    Gaussian,
    InducingPoints,
    Point,
    WeightDistribution,
    gaussian_prior,
)
from bbb.inference import PLAIN, Streams, Training
from bbb.networks import BayesianNetwork
from bbb.studies.yardstick_problems import ACTIVATIONS, Problem

if TYPE_CHECKING:
    from laplace.baselaplace import BaseLaplace


@dataclass(frozen=True)
class Family:
    """A family of posteriors.

    Attributes:
        kind: ``gaussian``, ``full``, ``planar``, ``matrix_planar``, ``inducing``, ``point`` or ``laplace``.
        num_flows: K.
        lr: of Adam, at the start of a cosine.
        init_std: standard deviations at the start, as a share of the prior's.
        num_inducing: M, pseudo-examples; all examples where there are fewer.
    """

    kind: str
    num_flows: int = 0
    lr: float = 0.05
    init_std: float = 0.1
    num_inducing: int = 0


FAMILIES: dict[str, Family] = {
    "mean field": Family("gaussian"),
    "full covariance": Family("full", lr=0.03),
    "inducing points": Family("inducing", lr=0.03, num_inducing=100),
    "ensemble": Family("point", lr=0.01),
    "Laplace": Family("laplace", lr=0.01),
    **{f"{count} planar": Family("planar", count) for count in (4, 16)},
    **{f"{count} matrix_planar": Family("matrix_planar", count) for count in (4, 16)},
    **{f"64 {flow}": Family(flow, 64) for flow in ("planar", "matrix_planar")},
}


def fit(
    problem: Problem, family: Family, num_steps: int, num_samples: int, seed: int, on_step: Callable[[], None]
) -> BayesianNetwork:
    """Fit a posterior of a family: maximise the ELBO, or the density at a point.

    Args:
        problem: what to learn.
        family: of the posterior; ``laplace`` starts as a point.
        num_steps: of Adam, each with all examples.
        num_samples: draws in each step.
        seed: of the start and of the draws.
        on_step: called after each step; may raise.
    """
    network = _start(problem, family, torch.Generator().manual_seed(seed))
    prior = gaussian_prior(network.posterior.dim, problem.prior_std)
    streams = Streams(torch.Generator().manual_seed(seed), torch.Generator().manual_seed(1000 + seed), seed)
    plan = replace(
        PLAIN,
        steps_per_epoch=num_steps,
        batch_size=len(problem.train),
        num_samples=1 if network.posterior.is_certain else num_samples,
        lr=family.lr,
    )
    training = Training(network, problem.likelihood, prior, problem.train, None, plan, streams)
    for _ in training.fit(lambda step, num_steps: on_step()):
        pass
    return network


def _start(problem: Problem, family: Family, generator: torch.Generator) -> BayesianNetwork:
    flow: FlowName = "matrix_planar" if family.kind == "matrix_planar" else "planar"
    network = problem.network(family.init_std * problem.prior_std, generator, family.num_flows, flow)
    if family.kind in ("point", "laplace"):
        return network.with_posterior(Point(network.posterior.centre.detach().clone()))
    if family.kind == "full" and isinstance(network.posterior, Gaussian):
        return network.with_posterior(FullGaussian.of(network.posterior))
    if family.kind == "inducing":
        return network.with_posterior(_inducing(problem, network, family.num_inducing, generator))
    return network


def _inducing(problem: Problem, network: BayesianNetwork, num: int, generator: torch.Generator) -> WeightDistribution:
    """Start inducing points at examples; classes are numbers, 2 where an example is of a class and -2 elsewhere."""
    data = problem.train
    chosen = torch.randperm(len(data), generator=generator)[:num]
    targets, log_precision = data.labels[chosen].unsqueeze(1), math.log(0.1) - 2.0 * math.log(problem.noise_std or 0.3)
    if problem.noise_std is None:
        targets = 4.0 * nn.functional.one_hot(data.labels[chosen], problem.sizes[-1]) - 2.0
    hidden = problem.sizes[1:-1]
    return InducingPoints.at(
        network.normalization(data.images[chosen]),
        hidden,
        targets.float(),
        ACTIVATIONS[problem.activation],
        problem.prior_std,
        [*[-2.0] * len(hidden), log_precision],
        generator,
    )


def fit_laplace(problem: Problem, network: BayesianNetwork) -> "BaseLaplace":
    """Fit the linearised Laplace approximation at a fitted point, by laplace-torch.

    Its covariance is the inverse of the whole generalised Gauss-Newton matrix (Daxberger et al. 2021, arXiv
    2106.14806).

    Args:
        problem: the problem.
        network: with a point.
    """
    with _quiet_laplace():
        from laplace import Laplace  # here, since it takes seconds to import

        module, layers = problem.module(), network.layers(network.posterior.centre.detach().unsqueeze(0))
        weights = [part.squeeze(0) for layer in layers for part in layer if part is not None]
        nn.utils.vector_to_parameters(torch.cat([part.flatten() for part in weights]), module.parameters())
        x, y = network.normalization(problem.train.images), problem.train.labels
        is_numbers = problem.noise_std is not None
        fitted = Laplace(
            module,
            "regression" if is_numbers else "classification",
            subset_of_weights="all",
            hessian_structure="full",
            sigma_noise=problem.noise_std or 1.0,
            prior_precision=problem.prior_std**-2,
        )
        pairs = torch.utils.data.TensorDataset(x, y.unsqueeze(1) if is_numbers else y)
        fitted.fit(torch.utils.data.DataLoader(pairs, batch_size=len(x)))
    return fitted


def laplace_outputs(fitted: "BaseLaplace", x: Tensor, num: int, generator: torch.Generator) -> Tensor:
    """Draw outputs ``(S, N, C)`` of a Laplace approximation.

    Args:
        fitted: the approximation.
        x: normalised inputs, ``(N, P)``.
        num: S, draws.
        generator: source of the draws.
    """
    with _quiet_laplace():
        return fitted.functional_samples(x, "glm", num, generator=generator).detach()


@contextlib.contextmanager
def _quiet_laplace() -> Iterator[None]:
    """Leave out the warnings of laplace-torch's own dependencies."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
