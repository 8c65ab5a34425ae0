r"""The log-evidence of a network by annealed importance sampling, from below and from above.

Particles go from the prior to the posterior through the densities :math:`p(w) \, p(y|x,w)^{\beta_t}`, with a trajectory
of Hamiltonian Monte Carlo at each. The weight of a particle,

.. math:: \log v = \sum_t (\beta_t - \beta_{t-1}) \log p(y | x, w_{t-1}),

has the mean :math:`E[v] = p(y|x)` (Neal 2001, arXiv physics/9803008), so the mean of log v lies below the log-evidence.
Particles that start at draws from the posterior and go the other way have weights of mean 1 / p(y|x), so minus the mean
of their logarithms lies above it (Grosse et al. 2015, arXiv 1511.02543).
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bbb.inference.hmc import Chains, DualAveraging, start_chains, trajectory
from bbb.inference.log_joint import LogJoint

LEAST_GAIN = 1e-9  # in beta; ends the search for the next one


@dataclass(frozen=True)
class Rung:
    """A density on the way from the prior to the posterior.

    Attributes:
        power: beta, of the likelihood.
        step: of the leapfrog scheme there.
    """

    power: float
    step: float


def find_path(
    target: LogJoint,
    start: Tensor,
    generator: torch.Generator,
    spread: float = 0.5,
    num_trajectories: int = 5,
    num_leapfrogs: int = 10,
    scale: float = 1.0,
    on_step: Callable[[], None] = lambda: None,
) -> list[Rung]:
    """Find powers and steps in a trial run, whose particles are thrown away.

    The next power is the one at which the log-weights of one move have the given standard deviation among particles.

    Args:
        target: the densities.
        start: draws from the prior, ``(P, D)``.
        generator: source of all random numbers.
        spread: that standard deviation, in nats.
        num_trajectories: at each power, to adapt the step.
        num_leapfrogs: of a trajectory.
        scale: roughly the standard deviation of a weight under the prior.
        on_step: called after each power; may raise.

    Returns:
        The rungs, the prior first, the posterior last.
    """
    particles, step = start_chains(target, start), 0.1
    rungs = [Rung(0.0, step)]
    while rungs[-1].power < 1.0:
        width = particles.densities.log_likelihood.std().item()
        power = min(1.0, rungs[-1].power + max(LEAST_GAIN, spread / max(width, spread)))
        adaptation = DualAveraging(step)
        for _ in range(num_trajectories):
            particles, chance = trajectory(target, particles, adaptation.step, num_leapfrogs, generator, power, scale)
            adaptation.update(chance.mean().item())
        step = adaptation.averaged
        rungs.append(Rung(power, step))
        on_step()
    return rungs


def anneal(
    target: LogJoint,
    start: Tensor,
    rungs: Sequence[Rung],
    generator: torch.Generator,
    num_leapfrogs: int = 10,
    scale: float = 1.0,
    on_step: Callable[[], None] = lambda: None,
) -> tuple[Tensor, Chains]:
    """Carry particles from the density of the first rung to that of the last.

    Args:
        target: the densities.
        start: draws from the first density, ``(P, D)``: from the prior, or from the posterior for the way back.
        rungs: the densities in the order of the way; they must not depend on these particles.
        generator: source of all random numbers.
        num_leapfrogs: of the trajectory at each power.
        scale: roughly the standard deviation of a weight under the prior.
        on_step: called after each power; may raise.

    Returns:
        The log-weights ``(P,)``, in nats, and where the particles are.
    """
    particles = start_chains(target, start)
    log_weights = torch.zeros(len(start), dtype=torch.float64, device=start.device)
    for last, rung in itertools.pairwise(rungs):
        log_weights += (rung.power - last.power) * particles.densities.log_likelihood.double()
        particles, _ = trajectory(target, particles, rung.step, num_leapfrogs, generator, rung.power, scale)
        on_step()
    return log_weights, particles
