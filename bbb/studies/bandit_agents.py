"""The agents of the mushroom bandit: a network of expected rewards that learns online from a buffer.

It takes a context and a one-hot action, and gives the expected reward. With a Gaussian posterior over its weights the
agent samples: it acts on the mean of a few draws, which is Thompson sampling for a single draw (Blundell et al. 2015,
section 5.3, arXiv 1505.05424). With a point in place of a posterior it is greedy, or epsilon-greedy.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bbb.data import Split
from bbb.distributions import NoiseTable, WeightDistribution, gaussian_prior
from bbb.inference import PLAIN, GaussianNoise, Plan, Step
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
        noise_reuse: steps, and actions, that share a table of noise.
    """

    capacity: int = 4096
    batch_size: int = 64
    steps_per_interaction: int = 1
    lr: float = 0.001
    noise_std: float = 1.0
    num_draws: int = 2
    noise_reuse: int = 64


class Buffer:
    """The last interactions.

    Args:
        capacity: the most that it holds.
        num_inputs: P of the network.
    """

    def __init__(self, capacity: int, num_inputs: int) -> None:
        self._inputs, self._rewards = torch.zeros(capacity, num_inputs), torch.zeros(capacity)
        self._num_seen = 0

    def __len__(self) -> int:
        return min(self._num_seen, len(self._rewards))

    def add(self, x: Tensor, reward: float) -> None:
        """Add an input ``(P,)`` and its reward, in place of the oldest if the buffer is full."""
        at = self._num_seen % len(self._rewards)
        self._inputs[at], self._rewards[at] = x, reward
        self._num_seen += 1

    def sample(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw a minibatch with replacement: inputs ``(size, P)`` and rewards ``(size,)``."""
        index = torch.randint(len(self), (size,), generator=generator)
        return self._inputs[index], self._rewards[index]


class NetworkAgent:
    """An agent with a network of expected rewards.

    Args:
        network: its input is a context followed by a one-hot action.
        prior: p(w); None trains without, on the likelihood alone.
        learning: how it learns.
        epsilon: the share of actions that are uniformly random.
        seed: of its noise, its minibatches and its random actions.
    """

    def __init__(
        self,
        network: BayesianNetwork,
        prior: WeightDistribution | None,
        learning: Learning,
        epsilon: float,
        seed: int,
    ) -> None:
        self.network, self.learning, self.epsilon, self._has_prior = network, learning, epsilon, prior is not None
        self.buffer = Buffer(learning.capacity, network.architecture.num_inputs)
        self._actions, dim = torch.eye(NUM_ACTIONS), network.posterior.dim
        self._order, self._whims, to_learn, to_act = (torch.Generator().manual_seed(4 * seed + i) for i in range(4))
        likelihood, unused = GaussianNoise(1, learning.noise_std), gaussian_prior(dim, 1.0)
        moved = [parameter for parameter in network.posterior.parameters() if parameter.requires_grad]
        optimizer = torch.optim.Adam(moved, lr=learning.lr, fused=True)
        full = Split(torch.zeros(learning.capacity, 1), torch.zeros(learning.capacity))  # its size scales the cost
        self._step = Step(network, likelihood, prior or unused, _plan(learning), [to_learn], full, optimizer)
        self._noise = NoiseTable(to_act, learning.noise_reuse, learning.num_draws * dim)

    def act(self, context: Tensor) -> int:
        """Choose the action with the highest expected reward, or with probability epsilon any."""
        if self.epsilon > 0.0:
            whim, which = torch.rand(2, generator=self._whims).tolist()
            if whim < self.epsilon:
                return int(which * NUM_ACTIONS)
        return int(self.expected_rewards(context).argmax())

    @torch.no_grad()
    def expected_rewards(self, context: Tensor) -> Tensor:
        """Average a few draws' rewards of each action in a context ``(P,)``: ``(A,)``."""
        self._noise.begin_step()
        w, _ = self.network.posterior.rsample_and_log_prob(self.learning.num_draws, self._noise)
        x = torch.cat([context.expand(NUM_ACTIONS, -1), self._actions], 1)
        return forward_drawn(self.network.architecture, self.network.layers(w), x).mean(0).squeeze(-1)

    def learn(self, context: Tensor, action: int, reward: float) -> None:
        """Add an interaction to the buffer, and train on minibatches of it.

        The buffer is the data: the KL counts once in a pass over the N interactions that it holds.
        """
        self.buffer.add(torch.cat([context, self._actions[action]]), reward)
        kl_share = self.learning.batch_size / len(self.buffer)
        for _ in range(self.learning.steps_per_interaction):
            x, y = self.buffer.sample(self.learning.batch_size, self._order)
            self._step(x, y, kl_share, self._has_prior)


def _plan(learning: Learning) -> Plan:
    """Say what a step needs to know; what counts epochs is not used."""
    return replace(
        PLAIN,
        batch_size=learning.batch_size,
        lr=learning.lr,
        lr_schedule="constant",
        noise_reuse=learning.noise_reuse,
    )
