r"""Hamiltonian Monte Carlo over flat weight vectors: many chains in one batch.

Weights w move under momenta r ~ N(0, 1/s^2), where s is a scale of the weights, by the leapfrog scheme. The end of a
trajectory is accepted with probability

.. math:: \min\left(1, \exp(\log\pi(w') - s^2|r'|^2/2 - \log\pi(w) + s^2|r|^2/2)\right)

(Neal 2011, arXiv 1206.1901), so the chain keeps the density pi exactly. During the burn-in dual averaging finds the
step at which a given share is accepted (Hoffman and Gelman 2014, section 3.2, arXiv 1111.4246). All chains share the
step, so they run as one batch: C chains cost little more than one on a network this small.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from bbb.inference.log_joint import Densities, LogJoint

MAX_LEAPFROGS = 1000  # of a trajectory


@dataclass(frozen=True)
class Chains:
    """C chains at one moment.

    Attributes:
        w: their weights, ``(C, D)``.
        densities: those at the weights.
    """

    w: Tensor
    densities: Densities


class DualAveraging:
    """Adapt a step to the share of trajectories that is accepted (Hoffman and Gelman 2014, algorithm 5).

    Args:
        step: the first one.
        target: the share of trajectories to be accepted.
    """

    def __init__(self, step: float, target: float = 0.8) -> None:
        self.target, self.step, self.averaged = target, step, step
        self._centre, self._gap, self._count = math.log(10.0 * step), 0.0, 0

    def update(self, acceptance: float) -> None:
        """Move the step, given the share that was accepted with the last one."""
        self._count += 1
        rate = 1.0 / (self._count + 10.0)
        self._gap += rate * (self.target - acceptance - self._gap)
        log_step = self._centre - math.sqrt(self._count) / 0.05 * self._gap
        weight = self._count**-0.75
        self.averaged = math.exp(weight * log_step + (1.0 - weight) * math.log(self.averaged))
        self.step = math.exp(log_step)


def start_chains(target: LogJoint, w: Tensor) -> Chains:
    """Start chains at weights ``(C, D)``."""
    return Chains(w, target(w))


def trajectory(
    target: LogJoint,
    chains: Chains,
    step: float,
    num_leapfrogs: int,
    generator: torch.Generator,
    power: float = 1.0,
    scale: float = 1.0,
) -> tuple[Chains, Tensor]:
    """Move each chain along a trajectory, and accept or reject its end.

    Args:
        target: the densities.
        chains: where to start.
        step: of the leapfrog scheme, in units of ``scale``.
        num_leapfrogs: its number of steps.
        generator: source of momenta and decisions.
        power: of the likelihood (see :meth:`Densities.log_density`).
        scale: s, roughly the standard deviation of a weight.

    Returns:
        The chains, and the probability with which each end was accepted, ``(C,)``. An energy that is no number counts
        as rejected.
    """
    w, here = chains.w, chains.densities
    r = torch.empty_like(w).normal_(generator=generator)
    energy = here.log_density(power) - 0.5 * r.square().sum(1)
    for _ in range(num_leapfrogs):
        r = torch.add(r, here.slope(power), alpha=0.5 * step * scale)
        w = torch.add(w, r, alpha=step * scale)
        here = target(w)
        r = torch.add(r, here.slope(power), alpha=0.5 * step * scale)
    gain = here.log_density(power) - 0.5 * r.square().sum(1) - energy
    probability = gain.nan_to_num(nan=-math.inf).clamp(max=0.0).exp()
    draw = torch.rand(len(w), dtype=w.dtype, device=w.device, generator=generator)
    accepted = draw < probability
    return Chains(torch.where(accepted.unsqueeze(1), w, chains.w), here.where(accepted, chains.densities)), probability


@dataclass(frozen=True)
class HMCPlan:
    """How to sample.

    Attributes:
        num_burn_in: trajectories that are thrown away, and adapt the step.
        num_draws: trajectories that are kept, for each chain.
        length: of a trajectory, in units of the scale: step times number of steps.
        step: the first step.
        scale: roughly the standard deviation of a weight.
        acceptance: the share of trajectories to be accepted.
    """

    num_burn_in: int
    num_draws: int
    length: float = math.pi / 2
    step: float = 0.01
    scale: float = 1.0
    acceptance: float = 0.8


def sample(
    target: LogJoint,
    start: Tensor,
    plan: HMCPlan,
    generator: torch.Generator,
    on_step: Callable[[], None] = lambda: None,
) -> Iterator[tuple[Chains, float]]:
    """Sample from the posterior.

    The length of a trajectory is drawn anew each time, within a half of that planned, so that no chain comes back to
    where it started.

    Args:
        target: the densities.
        start: of C chains, ``(C, D)``.
        plan: how to sample.
        generator: source of all random numbers.
        on_step: called after each trajectory; may raise.

    Yields:
        After the burn-in the chains and the mean probability of acceptance, once for each draw.
    """
    chains, adaptation = start_chains(target, start), DualAveraging(plan.step, plan.acceptance)
    for i in range(plan.num_burn_in + plan.num_draws):
        step = adaptation.step if i < plan.num_burn_in else adaptation.averaged
        stretch = 0.5 + torch.rand((), generator=generator, device=start.device).item()
        num_leapfrogs = min(MAX_LEAPFROGS, max(1, round(stretch * plan.length / step)))
        chains, probability = trajectory(target, chains, step, num_leapfrogs, generator, scale=plan.scale)
        acceptance = probability.mean().item()
        if i < plan.num_burn_in:
            adaptation.update(acceptance)
        else:
            yield chains, acceptance
        on_step()
