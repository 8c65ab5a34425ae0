"""The true posterior of a small problem, by Hamiltonian Monte Carlo, and its log-evidence, from both sides."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bbb.inference import HMCPlan, Rung, anneal, find_path, sample
from bbb.studies.yardstick_problems import Problem

LARGE = 1e6  # R-hat of chains that have not moved
NUM_FUNCTIONS = 60  # numbers of the function whose mixing is checked, at most


@dataclass(frozen=True)
class TruthPlan:
    """How the truth is found.

    Attributes:
        num_chains: chains, and particles of the annealing.
        num_rungs: densities between the prior and the posterior.
        num_burn_in: trajectories of each chain that are thrown away; each chain starts where a particle arrived.
        num_draws: those that are kept.
        length: of a trajectory, in units of the prior's standard deviation.
        num_leapfrogs: of a trajectory at each density of the annealing.
    """

    num_chains: int = 32
    num_rungs: int = 1000
    num_burn_in: int = 40
    num_draws: int = 120
    length: float = 0.7
    num_leapfrogs: int = 10

    @property
    def num_steps(self) -> int:
        """What a progress bar counts."""
        return 2 * (self.num_rungs - 1) + self.num_burn_in + self.num_draws


@dataclass(frozen=True)
class Truth:
    """What is known of the true posterior.

    Attributes:
        outputs: of the network at the problem's inputs under all draws, ``(S, N, C)``.
        test_outputs: those at the test set.
        evidence: the log-evidence in nats: a lower bound, an upper bound, and the standard error of each.
        r_hat: the largest potential scale reduction of the function's values (Vehtari et al. 2021, arXiv 1903.08008).
        num_effective: the smallest effective number of draws of them.
        acceptance: the share of trajectories that was accepted.
    """

    outputs: Tensor
    test_outputs: Tensor
    evidence: tuple[float, float, float, float]
    r_hat: float
    num_effective: float
    acceptance: float


def find_truth(problem: Problem, plan: TruthPlan, seed: int, on_step: Callable[[], None]) -> Truth:
    """Sample the posterior of a problem, and bound its log-evidence.

    Particles are annealed from the prior to the posterior. Chains go on where they arrived. Where the chains end,
    particles are annealed back.

    Args:
        problem: the problem.
        plan: how.
        seed: of all random numbers.
        on_step: called ``plan.num_steps`` times; may raise.
    """
    target, generator = problem.target(), torch.Generator().manual_seed(seed)
    scale = problem.prior_std

    def from_prior() -> Tensor:
        return target.prior.rsample_and_log_prob(plan.num_chains, generator)[0]

    path = find_path(target, from_prior(), generator, num_leapfrogs=plan.num_leapfrogs, scale=scale)
    rungs = refine(path, plan.num_rungs)
    upwards, particles = anneal(target, from_prior(), rungs, generator, plan.num_leapfrogs, scale, on_step)
    step = rungs[-1].step
    chains_plan = HMCPlan(plan.num_burn_in, plan.num_draws, plan.length, step, scale)
    outputs, test_outputs, acceptances = [], [], []
    x_test = target.network.normalization(problem.test.images)
    x_inputs = target.network.normalization(problem.inputs)
    chains = particles
    for chains, acceptance in sample(target, particles.w, chains_plan, generator, on_step):
        outputs.append(target.outputs(chains.w, x_inputs))
        test_outputs.append(target.outputs(chains.w, x_test))
        acceptances.append(acceptance)
    downwards, _ = anneal(target, chains.w, rungs[::-1], generator, plan.num_leapfrogs, scale, on_step)
    by_chain = torch.stack(outputs, dim=1)  # (chains, draws, N, C)
    r_hat, num_effective = mixing(by_chain.flatten(2))
    error = math.sqrt(plan.num_chains)
    return Truth(
        by_chain.flatten(0, 1),
        torch.cat(test_outputs),
        (
            upwards.mean().item(),
            -downwards.mean().item(),
            upwards.std().item() / error,
            downwards.std().item() / error,
        ),
        r_hat,
        num_effective,
        sum(acceptances) / len(acceptances),
    )


def refine(path: Sequence[Rung], num: int) -> list[Rung]:
    """Put so many rungs on a path, evenly between its own."""
    where, own = np.linspace(0, len(path) - 1, num), np.arange(len(path))
    powers = np.interp(where, own, [rung.power for rung in path])
    steps = np.interp(where, own, [rung.step for rung in path])
    return [Rung(float(power), float(step)) for power, step in zip(powers, steps, strict=True)]


def mixing(values: Tensor) -> tuple[float, float]:
    """Evaluate the largest R-hat and the smallest effective number of draws, by ArviZ.

    Args:
        values: numbers that chains report, ``(chains, draws, numbers)``; at most :data:`NUM_FUNCTIONS` of them are
            looked at, evenly spaced.
    """
    from arviz_stats.base.array import array_stats  # here, since it takes a second to import

    chosen = np.unique(np.linspace(0, values.shape[-1] - 1, NUM_FUNCTIONS).astype(int))
    shown, axes = values[..., chosen].double().numpy(), {"chain_axis": 0, "draw_axis": 1}
    with np.errstate(divide="ignore", invalid="ignore"):  # of chains that have not moved
        r_hat, num_effective = array_stats.rhat(shown, **axes), array_stats.ess(shown, **axes)
    return float(np.nan_to_num(r_hat, nan=LARGE, posinf=LARGE).max()), float(np.nan_to_num(num_effective).min())
