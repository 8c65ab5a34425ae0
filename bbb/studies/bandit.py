"""The mushroom bandit of Blundell et al. 2015, section 5.3 (arXiv 1505.05424): contexts, rewards and regret.

A context is edible or poisonous, and an agent eats it or passes. To pass gives 0. To eat what is edible gives 5. To eat
what is poisonous gives 5 or -35, each with probability 1/2. An oracle eats what is edible and passes the rest.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

PASS, EAT = 0, 1
NUM_ACTIONS = 2
FED, POISONED = 5.0, -35.0  # the rewards of eating


@dataclass(frozen=True)
class Contexts:
    """What an agent may be shown.

    Attributes:
        inputs: of a network, ``(N, P)``.
        is_edible: ``(N,)``.
    """

    inputs: Tensor
    is_edible: Tensor


class Bandit:
    """R games, each with contexts and luck of its own, which no agent's action changes.

    Args:
        contexts: to draw from, with replacement.
        seeds: one for each of the R games.
        num_interactions: T.
    """

    def __init__(self, contexts: Contexts, seeds: Sequence[int], num_interactions: int) -> None:
        self.contexts, self.seeds, self.num_interactions = contexts, list(seeds), num_interactions
        num, generators = len(contexts.is_edible), [torch.Generator().manual_seed(seed) for seed in seeds]
        self._shown = torch.stack([torch.randint(num, (num_interactions,), generator=each) for each in generators])
        self.is_edible = contexts.is_edible[self._shown]
        self._is_lucky = torch.stack([torch.rand(num_interactions, generator=each) < 0.5 for each in generators])

    def context(self, t: int) -> Tensor:
        """Return what the R agents see in interaction t, ``(R, P)``."""
        return self.contexts.inputs[self._shown[:, t]]

    def reward(self, t: int, actions: Tensor) -> Tensor:
        """Return what the actions ``(R,)`` give in interaction t, ``(R,)``."""
        is_fed = self.is_edible[:, t] | self._is_lucky[:, t]
        return torch.where(is_fed, FED, POISONED) * (actions == EAT)

    def best(self, t: int) -> Tensor:
        """Return the actions of the oracle in interaction t, ``(R,)``."""
        return torch.where(self.is_edible[:, t], EAT, PASS)


class Agent(Protocol):
    """Who plays R games at once."""

    def act(self, contexts: Tensor) -> Tensor:
        """Choose actions ``(R,)`` for contexts ``(R, P)``."""

    def learn(self, contexts: Tensor, actions: Tensor, rewards: Tensor) -> None:
        """Learn from the rewards ``(R,)`` of actions ``(R,)`` in contexts ``(R, P)``."""


@dataclass(frozen=True)
class Played:
    """What R games of T interactions came to.

    Attributes:
        regret: the oracle's reward minus the agent's, ``(R, T)``. A poisonous mushroom that happens to give 5 makes it
            negative; its mean is 15 for a poisonous mushroom that is eaten and 5 for an edible one that is not.
        actions: ``(R, T)``.
    """

    regret: Tensor
    actions: Tensor


def play(bandit: Bandit, agent: Agent, on_step: Callable[[], None] = lambda: None) -> Played:
    """Let an agent play the games to their end.

    Args:
        bandit: the games.
        agent: acts and learns.
        on_step: called after each interaction; may raise.
    """
    regret, actions = [], []
    for t in range(bandit.num_interactions):
        contexts = bandit.context(t)
        chosen = agent.act(contexts)
        rewards = bandit.reward(t, chosen)
        agent.learn(contexts, chosen, rewards)
        regret.append(bandit.reward(t, bandit.best(t)) - rewards)
        actions.append(chosen)
        on_step()
    return Played(torch.stack(regret, 1), torch.stack(actions, 1))
