"""What the yardstick measures of a posterior: its ELBO, its predictions, and how far they are from the true ones."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bbb.distributions import Mixture, WeightDistribution
from bbb.inference import LogJoint
from bbb.studies.table import mean_and_error
from bbb.studies.yardstick_problems import Problem, in_gap, on_data

AT_ONCE = 250  # draws
RANKS = (0.05, 0.5, 0.95)  # of the bands in the figure


@torch.no_grad()
def elbo(target: LogJoint, q: WeightDistribution, num_draws: int, generator: torch.Generator) -> float:
    """Estimate the evidence lower bound in nats, of all examples; a mixture's from as many draws of each component.

    Args:
        target: the densities.
        q: the posterior.
        num_draws: S.
        generator: source of the draws.
    """
    components = q.component_list if isinstance(q, Mixture) else [q]
    shares = q.log_weights.exp().tolist() if isinstance(q, Mixture) else [1.0]
    total, num = 0.0, math.ceil(num_draws / AT_ONCE / len(components))
    for component, share in zip(components, shares, strict=True):
        for _ in range(num):
            w, _ = component.rsample_and_log_prob(AT_ONCE, generator)
            gain = target.log_likelihood(w) + target.prior.log_prob(w) - q.log_prob(w)
            total += share * gain.double().mean().item() / num
    return total


@torch.no_grad()
def draws(q: WeightDistribution, num: int, generator: torch.Generator) -> Tensor:
    """Draw weights ``(S, D)`` from a posterior; of a point a single one.

    Args:
        q: the posterior.
        num: S.
        generator: source of the draws.
    """
    if q.is_certain:
        return q.centre.detach().unsqueeze(0)
    parts = [q.rsample_and_log_prob(AT_ONCE, generator)[0] for _ in range(math.ceil(num / AT_ONCE))]
    return torch.cat(parts)[:num]


@torch.no_grad()
def predictions(problem: Problem, outputs: Tensor, test_outputs: Tensor) -> dict[str, Any]:
    """Summarise the outputs of draws: predictions, and scores of the test set, as plain data.

    Args:
        problem: the problem.
        outputs: of the network at the problem's inputs, ``(S, N, C)``.
        test_outputs: those at its test set.
    """
    probabilities = problem.probabilities(outputs)
    summary: dict[str, Any] = {"probabilities": [[round(p, 5) for p in row] for row in probabilities.tolist()]}
    likelihood = problem.likelihood
    predictive = likelihood.mix(likelihood.predictive(test_outputs))
    scored = likelihood.scores(predictive, problem.test.labels)
    if problem.noise_std is None:
        accuracy, confidence = 100.0 - scored["error"], 100.0 * predictive.exp().amax(1).mean().item()
        return summary | {"nll": scored["nll"], "error": scored["error"], "overconfidence": confidence - accuracy}
    function = outputs[..., 0]
    deviation = function.std(0, correction=0)
    ranks = torch.tensor(RANKS, dtype=function.dtype)
    return summary | {
        "nll": scored["nll"],
        "coverage": scored["coverage_90"],
        "std_on_data": deviation[on_data(problem)].mean().item(),
        "std_in_gap": deviation[in_gap(problem)].mean().item(),
        "bands": [[round(v, 4) for v in row] for row in function.quantile(ranks, dim=0).tolist()],
    }


def scores(problem: Problem, truth: Mapping[str, Any], found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Compare what seeds found with the truth: each measure as mean and standard error.

    Args:
        problem: the problem.
        truth: the result of its part for the truth.
        found: those of each seed of a family, as :func:`predictions` makes them, with ``elbo``.
    """
    evidence = 0.5 * (truth["evidence"][0] + truth["evidence"][1])
    true = torch.tensor(truth["probabilities"])
    measures: dict[str, list[float]] = {}
    for one in found:
        own = torch.tensor(one["probabilities"])
        values = {"nats_to_evidence": None if one.get("elbo") is None else evidence - one["elbo"]}
        values |= {"total_variation": 0.5 * (own - true).abs().sum(1).mean().item()}
        if problem.noise_std is None:
            values |= {"agreement": 100.0 * (own.argmax(1) == true.argmax(1)).float().mean().item()}
        else:
            values |= {key: one[key] / truth[key] for key in ("std_on_data", "std_in_gap")}
        values |= {key: one[key] for key in ("nll", "error", "overconfidence", "coverage") if key in one}
        for key, value in values.items():
            if value is not None:
                measures.setdefault(key, []).append(value)
    return {key: [round(value or 0.0, 5) for value in mean_and_error(values)] for key, values in measures.items()}
