"""The agents of the mushroom bandit: a network of expected rewards that learns online from a buffer.

It takes a context and a one-hot action, and gives the expected reward. With a Gaussian posterior over its weights the
agent samples: it acts on the mean of a few draws, which is Thompson sampling for a single draw (Blundell et al. 2015,
section 5.3, arXiv 1505.05424). With a point in place of a posterior it is greedy, or epsilon-greedy.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bbb.data import Split
from bbb.distributions import NoiseTable, Stacked, WeightDistribution
from bbb.inference import GaussianNoise, Plan, Step
from bbb.networks import BayesianNetwork, forward_drawn
from bbb.studies.bandit import NUM_ACTIONS


@dataclass(frozen=True)
class Learning:
    """How an agent learns.

    Attributes:
        capacity: interactions that the buffer holds.
        batch_size: of each training step.
        steps_per_interaction: training steps.
        lr: of Adam.
        noise_std: of the rewards, in their units.
        num_draws: of the weights, to act on the mean of.
        noise_reuse: steps that share a table of noise.
    """

    capacity: int = 4096
    batch_size: int = 64
    steps_per_interaction: int = 1
    lr: float = 0.001
    noise_std: float = 1.0
    num_draws: int = 2
    noise_reuse: int = 16


class Buffer:
    """The last interactions of R games.

    Args:
        num_games: R.
        capacity: the most interactions that it holds.
        num_inputs: P of the network.
    """

    def __init__(self, num_games: int, capacity: int, num_inputs: int) -> None:
        self._inputs, self._rewards = torch.zeros(num_games, capacity, num_inputs), torch.zeros(num_games, capacity)
        self._games, self._num_seen = torch.arange(num_games).unsqueeze(1), 0

    def __len__(self) -> int:
        return min(self._num_seen, self._rewards.shape[1])

    def add(self, inputs: Tensor, rewards: Tensor) -> None:
        """Add inputs ``(R, P)`` and rewards ``(R,)``, in place of the oldest if the buffer is full."""
        at = self._num_seen % self._rewards.shape[1]
        self._inputs[:, at], self._rewards[:, at] = inputs, rewards
        self._num_seen += 1

    def sample(self, size: int, generators: Sequence[torch.Generator]) -> tuple[Tensor, Tensor]:
        """Draw a minibatch with replacement for each game: inputs ``(R, size, P)`` and rewards ``(R, size)``."""
        index = torch.stack([torch.randint(len(self), (size,), generator=each) for each in generators])
        return self._inputs[self._games, index], self._rewards[self._games, index]


class NetworkAgent:
    """An agent with a network of expected rewards for each of R games.

    Args:
        network: R replicas; its input is a context followed by a one-hot action.
        prior: p(w) of each replica.
        learning: how it learns.
        epsilon: the share of actions that are uniformly random.
        seeds: R of them; they decide the noise, the minibatches and the random actions.
    """

    def __init__(
        self,
        network: BayesianNetwork,
        prior: WeightDistribution,
        learning: Learning,
        epsilon: float,
        seeds: Sequence[int],
    ) -> None:
        self.network, self.learning, self.epsilon = network, learning, epsilon
        self.buffer = Buffer(len(seeds), learning.capacity, network.architecture.num_inputs)
        self._actions = torch.eye(NUM_ACTIONS)
        self._order, self._whims, to_learn, to_act = (
            [torch.Generator().manual_seed(4 * seed + i) for seed in seeds] for i in range(4)
        )
        likelihood = GaussianNoise(1, learning.noise_std)
        moved = [parameter for parameter in network.posterior.parameters() if parameter.requires_grad]
        optimizer = torch.optim.Adam(moved, lr=learning.lr, fused=True)
        full = Split(torch.zeros(learning.capacity, 1), torch.zeros(learning.capacity))  # its size scales the cost
        self._step = Step(network, likelihood, prior, _plan(learning), to_learn, full, optimizer)
        window = learning.num_draws * network.posterior.dim
        self._tables = [NoiseTable(each, learning.noise_reuse, window) for each in to_act]

    def act(self, contexts: Tensor) -> Tensor:
        """Choose the action with the highest expected reward, or with probability epsilon any."""
        best = self.expected_rewards(contexts).argmax(1)
        if self.epsilon == 0.0:
            return best
        whims = torch.stack([torch.rand(2, generator=each) for each in self._whims])
        any_action = (whims[:, 1] * NUM_ACTIONS).long()
        return torch.where(whims[:, 0] < self.epsilon, any_action, best)

    @torch.no_grad()
    def expected_rewards(self, contexts: Tensor) -> Tensor:
        """Average a few draws' rewards of each action: ``(R, A)`` for contexts ``(R, P)``."""
        for table in self._tables:
            table.begin_step()
        w, _ = self.network.posterior.rsample_and_log_prob(self.learning.num_draws, Stacked(self._tables))
        each = contexts.unsqueeze(1).expand(-1, NUM_ACTIONS, -1)
        x = torch.cat([each, self._actions.expand(len(contexts), -1, -1)], -1)
        return forward_drawn(self.network.architecture, self.network.layers(w), x).mean(0).squeeze(-1)

    def learn(self, contexts: Tensor, actions: Tensor, rewards: Tensor) -> None:
        """Add an interaction to the buffer, and train on minibatches of it.

        The buffer is the data: the KL counts once in a pass over the N interactions that it holds.
        """
        self.buffer.add(torch.cat([contexts, self._actions[actions]], 1), rewards)
        kl_share = self.learning.batch_size / len(self.buffer)
        for _ in range(self.learning.steps_per_interaction):
            x, y = self.buffer.sample(self.learning.batch_size, self._order)
            self._step(x, y, kl_share)


def _plan(learning: Learning) -> Plan:
    """Say what a step needs to know; what counts epochs is not used."""
    return Plan(
        num_epochs=1,
        steps_per_epoch=1,
        batch_size=learning.batch_size,
        num_samples=1,
        num_validation_samples=1,
        lr=learning.lr,
        lr_schedule="constant",
        optimizer="adam",
        beta_type="standard",
        temperature=1.0,
        input_dropout=0.0,
        input_shift=0,
        estimator="weights",
        noise_reuse=learning.noise_reuse,
        precision="float32",
        cuda_graph=False,
    )
