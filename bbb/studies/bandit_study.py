"""The study of the mushroom bandit: a sampling agent beside greedy ones (Blundell et al. 2015, figure 6)."""

import itertools
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from matplotlib.figure import Figure

from bbb.data import Normalization, load, load_mushrooms
from bbb.distributions import Point, gaussian_prior
from bbb.networks import MLP, initial_network
from bbb.studies.bandit import NUM_ACTIONS, Bandit, Contexts, play
from bbb.studies.bandit_agents import Learning, NetworkAgent
from bbb.studies.bandit_figure import bandit_figure
from bbb.studies.choices import ContextsName
from bbb.studies.study import Results, Study
from bbb.studies.table import mean_and_error

SEEDS = (1, 2, 3, 4, 5)
NUM_INTERACTIONS, NUM_HIDDEN = 50_000, 100
NUM_POINTS = 250  # of a curve
LAST = 10  # the mistakes at the end are those of the last tenth
LOWEST_EDIBLE_DIGIT = 5


@dataclass(frozen=True)
class Arm:
    """An agent of the comparison.

    Attributes:
        name: as the figure calls it.
        learning: how it learns.
        epsilon: the share of its actions that are uniformly random.
        init_std: of its posterior; 0 for a point.
        prior_std: of its prior; 0 for none.
    """

    name: str
    learning: Learning
    epsilon: float = 0.0
    init_std: float = 0.0
    prior_std: float = 0.0


# Chosen on seeds 101 and 102; see docs/paper.md.
SAMPLING = Learning(noise_std=0.3, lr=0.003, num_draws=2)
GREEDY = Learning(lr=0.001, num_draws=1)
ARMS = {
    "bayes_by_backprop": Arm("Bayes by Backprop", SAMPLING, init_std=0.02, prior_std=1.0),
    "greedy": Arm("greedy", GREEDY),
    "greedy_1": Arm("1 % greedy", GREEDY, epsilon=0.01),
    "greedy_5": Arm("5 % greedy", GREEDY, epsilon=0.05),
}


class BanditStudy(Study):
    """Cumulative regret of the agents; each part is an agent with a seed.

    Args:
        dataset: where the contexts come from.
        file: of the mushrooms; None looks in the folder of the data sets, and downloads it there.
        data_dir: that folder.
        sha256: the checksum that the file must have.
        fast: at toy size.

    Raises:
        bbb.data.DataError: the contexts cannot be had.
    """

    name: ClassVar[str] = "bandit"

    def __init__(
        self,
        dataset: ContextsName = "digits8x8",
        file: Path | None = None,
        data_dir: Path = Path("data"),
        sha256: str | None = None,
        fast: bool = False,
    ) -> None:
        super().__init__(fast)
        self.dataset, self._data_dir = dataset, data_dir
        self._mushrooms = load_mushrooms(file, data_dir, sha256) if dataset == "mushroom" else None
        self.seeds = SEEDS[:2] if fast else SEEDS
        self.num_interactions = 100 if fast else NUM_INTERACTIONS
        self.num_hidden = 8 if fast else NUM_HIDDEN

    @property
    def folder(self) -> Path:
        return super().folder / self.dataset

    @property
    def words(self) -> tuple[str, ...]:
        command, *options = super().words
        return command, f"dataset={self.dataset}", *options

    @property
    def config(self) -> dict[str, Any]:
        arms = {name: asdict(arm) for name, arm in ARMS.items()}
        return {**self._shared_config, "seeds": list(self.seeds), "arms": arms}

    def config_of(self, part: str) -> dict[str, Any]:
        arm, seed = _arm_and_seed(part)
        return {**self._shared_config, "seed": seed, "arm": asdict(arm)}

    @property
    def _shared_config(self) -> dict[str, Any]:
        return {
            "dataset": self.dataset,
            "sha256": self._mushrooms[1] if self._mushrooms is not None else None,
            "num_interactions": self.num_interactions,
            "num_hidden": self.num_hidden,
        }

    @property
    def parts(self) -> dict[str, int]:
        return {_part(arm, seed): self.num_interactions for arm in ARMS for seed in self.seeds}

    @cached_property
    def contexts(self) -> Contexts:
        """The mushrooms; or images of digits, of which 5 to 9 are edible."""
        if self._mushrooms is not None:
            split = self._mushrooms[0]
            return Contexts(split.images.float(), split.labels == 1)
        splits = load(self.dataset, self._data_dir)
        images, labels = (torch.cat([getattr(split, name) for split in splits]) for name in ("images", "labels"))
        return Contexts(Normalization()(images), labels >= LOWEST_EDIBLE_DIGIT)

    def make(self, part: str, on_step: Callable[[], None]) -> dict[str, Any]:
        """Let an agent play: its cumulative regret at each point, and its mistakes in the last tenth, in %."""
        start = time.perf_counter()
        arm, seed = _arm_and_seed(part)
        bandit = Bandit(self.contexts, seed, self.num_interactions)
        played = play(bandit, self._agent(arm, seed), on_step)
        cumulative = [0.0, *itertools.accumulate(played.regret)]
        last = played.is_mistake[-(self.num_interactions // LAST) :]
        return {
            "regret": [round(cumulative[point]) for point in self._points()],
            "mistakes": 100.0 * sum(last) / len(last),
            "seconds": time.perf_counter() - start,
        }

    def show(self, results: Results) -> dict[str, Any]:
        found = {arm.name: [results[_part(key, seed)] for seed in self.seeds] for key, arm in ARMS.items()}
        return {
            "points": self._points(),
            "curves": {name: [result["regret"] for result in seeds] for name, seeds in found.items()},
            "mistakes": {name: [result["mistakes"] for result in seeds] for name, seeds in found.items()},
            "title": f"Contexts: {self.dataset}; {self.num_interactions:,} interactions; {len(self.seeds)} seeds",
        }

    @staticmethod
    def draw(shows: dict[str, Any]) -> Figure:
        return bandit_figure(shows["points"], shows["curves"], shows["title"])

    @staticmethod
    def lines(shows: dict[str, Any]) -> list[str]:
        lines = [f"{shows['title']}; mean ± standard error"]
        for name, curves in shows["curves"].items():
            regret, regret_error = mean_and_error([seed[-1] for seed in curves])
            wrong, wrong_error = mean_and_error(shows["mistakes"][name])
            lines.append(
                f"{name:<18} cumulative regret {regret:>8,.0f} ± {regret_error or 0.0:,.0f}, "
                f"mistakes in the last tenth {wrong:.2f} ± {wrong_error or 0.0:.2f} %"
            )
        return lines

    def _points(self) -> list[int]:
        num = min(NUM_POINTS, self.num_interactions)
        return [self.num_interactions * (i + 1) // num for i in range(num)]

    def _agent(self, arm: Arm, seed: int) -> NetworkAgent:
        sizes = self.contexts.inputs.shape[1] + NUM_ACTIONS, self.num_hidden, self.num_hidden, 1
        start = torch.Generator().manual_seed(seed)
        network = initial_network(MLP(sizes), arm.init_std or 1.0, start, normalization=Normalization(scale=1.0))
        if arm.init_std == 0.0:
            network = network.with_posterior(Point(network.posterior.centre.detach().clone()))
        prior = gaussian_prior(network.posterior.dim, arm.prior_std) if arm.prior_std > 0.0 else None
        return NetworkAgent(network, prior, arm.learning, arm.epsilon, seed)


def _part(arm: str, seed: int) -> str:
    return f"{arm}_seed{seed}"


def _arm_and_seed(part: str) -> tuple[Arm, int]:
    arm, _, seed = part.rpartition("_seed")
    return ARMS[arm], int(seed)
