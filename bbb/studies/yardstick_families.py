"""The families of posteriors that are measured, and how each is fitted."""

import copy
import math
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

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
from bbb.inference import Plan, Streams, Training
from bbb.networks import BayesianNetwork
from bbb.studies.yardstick_problems import ACTIVATIONS, Problem


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
    num_inducing: int | None = None

    def as_config(self) -> dict[str, Any]:
        """All fields that are set, as plain data."""
        return {key: value for key, value in asdict(self).items() if value is not None}


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
HAS_DENSITY = [name for name, family in FAMILIES.items() if family.kind not in ("point", "laplace")]


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
    plan = _plan(len(problem.train), num_steps, 1 if network.posterior.is_certain else num_samples, family.lr)
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


def _inducing(
    problem: Problem, network: BayesianNetwork, num: int | None, generator: torch.Generator
) -> WeightDistribution:
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


def _plan(num_examples: int, num_steps: int, num_samples: int, lr: float) -> Plan:
    return Plan(
        num_epochs=1,
        steps_per_epoch=num_steps,
        batch_size=num_examples,
        num_samples=num_samples,
        num_validation_samples=1,
        lr=lr,
        lr_schedule="cosine",
        optimizer="adam",
        beta_type="standard",
        temperature=1.0,
        input_dropout=0.0,
        input_shift=0,
        estimator="weights",
        noise_reuse=16,
        precision="float32",
        cuda_graph=False,
    )


def laplace_outputs(
    problem: Problem, network: BayesianNetwork, inputs: Tensor, num: int, generator: torch.Generator
) -> tuple[Tensor, float]:
    """Draw outputs of the linearised Laplace approximation at a fitted point, by laplace-torch.

    Its covariance is the inverse of the whole generalised Gauss-Newton matrix (Daxberger et al. 2021, arXiv
    2106.14806).

    Args:
        problem: the problem.
        network: with a point.
        inputs: raw, ``(N, P)``.
        num: S, draws.
        generator: source of the draws.

    Returns:
        Outputs ``(S, N, C)``, and the approximation's log-evidence in nats, which is no bound.
    """
    with warnings.catch_warnings():  # of laplace-torch's own dependencies
        warnings.simplefilter("ignore")
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
        outputs = fitted.functional_samples(network.normalization(inputs), "glm", num, generator=generator)
        return outputs.detach(), fitted.log_marginal_likelihood().item()


def copies(networks: list[BayesianNetwork]) -> list[WeightDistribution]:
    """Copy the posteriors of networks, without gradients."""
    return [copy.deepcopy(network.posterior).requires_grad_(False) for network in networks]
