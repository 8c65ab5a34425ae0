"""The mushroom bandit of Blundell et al. 2015, section 5.3 (arXiv 1505.05424): contexts, rewards and regret.

A context is edible or poisonous, and an agent eats it or passes. To pass gives 0. To eat what is edible gives 5. To eat
what is poisonous gives 5 or -35, each with probability 1/2. An oracle eats what is edible and passes the rest.
"""

from collections.abc import Callable
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
    """A game of T interactions. Its contexts and its luck do not depend on what an agent does.

    Args:
        contexts: to draw from, with replacement.
        seed: of the draws.
        num_interactions: T.
    """

    def __init__(self, contexts: Contexts, seed: int, num_interactions: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.num_interactions = num_interactions
        shown = torch.randint(len(contexts.is_edible), (num_interactions,), generator=generator)
        self.inputs, self._shown = contexts.inputs, shown.tolist()
        self.is_edible: list[bool] = contexts.is_edible[shown].tolist()
        self._is_lucky: list[bool] = (torch.rand(num_interactions, generator=generator) < 0.5).tolist()

    def context(self, t: int) -> Tensor:
        """Return what the agent sees in interaction t, ``(P,)``."""
        return self.inputs[self._shown[t]]

    def reward(self, t: int, action: int) -> float:
        """Return what an action gives in interaction t."""
        if action == PASS:
            return 0.0
        return FED if self.is_edible[t] or self._is_lucky[t] else POISONED

    def best(self, t: int) -> int:
        """Return the action of the oracle in interaction t."""
        return EAT if self.is_edible[t] else PASS


class Agent(Protocol):
    """Who plays."""

    def act(self, context: Tensor) -> int:
        """Choose an action for a context ``(P,)``."""

    def learn(self, context: Tensor, action: int, reward: float) -> None:
        """Learn from the reward of an action in a context ``(P,)``."""


@dataclass(frozen=True)
class Played:
    """What a game of T interactions came to.

    Attributes:
        regret: the oracle's reward minus the agent's, for each interaction. A poisonous mushroom that happens to give 5
            makes it negative. Its mean is 15 for a poisonous one that is eaten, and 5 for an edible one that is not.
        is_mistake: whether the action was not the oracle's, for each interaction.
    """

    regret: list[float]
    is_mistake: list[bool]


def play(bandit: Bandit, agent: Agent, on_step: Callable[[], None] = lambda: None) -> Played:
    """Let an agent play a game to its end.

    Args:
        bandit: the game.
        agent: acts and learns.
        on_step: called after each interaction; may raise.
    """
    regret, is_mistake = [], []
    for t in range(bandit.num_interactions):
        context, best = bandit.context(t), bandit.best(t)
        action = agent.act(context)
        reward = bandit.reward(t, action)
        agent.learn(context, action, reward)
        regret.append(bandit.reward(t, best) - reward)
        is_mistake.append(action != best)
        on_step()
    return Played(regret, is_mistake)
