"""Regression beyond the data: Bayes by Backprop beside a point network (Blundell et al. 2015, section 5.2, figure 5).

The curve is y = x + 0.3 sin(2 pi (x + e)) + 0.3 sin(4 pi (x + e)) + e, with e ~ N(0, 0.02^2), and x uniform on 0..0.5.
Noise inside the sines makes y noisier where the curve is steep. The networks have one noise for all x, and learn it.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import torch
from matplotlib.figure import Figure
from torch import Tensor

from bbb.data import Split, standardization
from bbb.distributions import Point, WeightDistribution, gaussian_prior
from bbb.inference import PLAIN, GaussianNoise, Plan, Streams, Training, predict
from bbb.networks import MLP, BayesianNetwork, initial_network
from bbb.runs import NumberPrediction
from bbb.studies.regression_figure import regression_figure
from bbb.studies.study import Results, Study
from bbb.studies.table import mean_and_error

NOISE_STD, HIGHEST_X = 0.02, 0.5
NUM_TRAIN, NUM_VALIDATION, NUM_TEST = 500, 500, 1000
BEYOND = (-0.2, 1.2)  # the range of the figure
RANKS = (0.05, 0.25, 0.5, 0.75, 0.95)
SEEDS = (1, 2, 3)


@dataclass(frozen=True)
class Candidate:
    """A network to fit; of those of a kind, the one with the lowest validation NLL is shown.

    Attributes:
        kind: ``bayes_by_backprop`` or ``point``.
        lr: of Adam, at the start of a cosine.
        prior_std: of the Gaussian prior; 0 for none.
    """

    kind: str
    lr: float
    prior_std: float = 0.0


BAYES_BY_BACKPROP = [(0.1, 0.01), (0.3, 0.003), (0.3, 0.01), (1.0, 0.01)]  # standard deviations and learning rates
CANDIDATES = {
    **{f"bayes_{std}_{lr}": Candidate("bayes_by_backprop", lr, std) for std, lr in BAYES_BY_BACKPROP},
    **{f"point_{lr}": Candidate("point", lr) for lr in (0.003, 0.01)},
}
KINDS = {"bayes_by_backprop": "Bayes by Backprop", "point": "point network"}


def curve_with_noise(x: Tensor, noise: Tensor) -> Tensor:
    """Evaluate the curve of the paper at x, with noise e of the same shape."""
    moved = x + noise
    return x + 0.3 * torch.sin(2 * math.pi * moved) + 0.3 * torch.sin(4 * math.pi * moved) + noise


def draw_data(num: int, generator: torch.Generator) -> Split:
    """Draw examples from the curve, with x in 0..0.5: inputs ``(N, 1)`` and numbers ``(N,)``."""
    x = HIGHEST_X * torch.rand(num, generator=generator)
    return Split(x.unsqueeze(1), curve_with_noise(x, NOISE_STD * torch.randn(num, generator=generator)))


class RegressionStudy(Study):
    """Median and quantile bands of both kinds of network, in the data and beyond; each part is a candidate."""

    name: ClassVar[str] = "regression"

    def __init__(self, fast: bool = False) -> None:
        super().__init__(fast)
        self.seeds = SEEDS[:2] if fast else SEEDS
        self.num_passes = 4 if fast else 4000
        self.num_draws = 10 if fast else 500
        self.num_hidden, self.batch_size = 100, 100

    @property
    def config(self) -> dict[str, Any]:
        return {**self._shared_config, "candidates": {part: asdict(each) for part, each in CANDIDATES.items()}}

    def config_of(self, part: str) -> dict[str, Any]:
        return {**self._shared_config, "candidate": asdict(CANDIDATES[part])}

    @property
    def _shared_config(self) -> dict[str, Any]:
        return {
            "noise_std": NOISE_STD,
            "num_train": NUM_TRAIN,
            "num_passes": self.num_passes,
            "num_draws": self.num_draws,
            "num_hidden": self.num_hidden,
            "batch_size": self.batch_size,
            "seeds": list(self.seeds),
        }

    @property
    def parts(self) -> dict[str, int]:
        num_steps = len(self.seeds) * self.num_passes * math.ceil(NUM_TRAIN / self.batch_size)
        return dict.fromkeys(CANDIDATES, num_steps)

    def make(self, part: str, on_step: Callable[[], None]) -> dict[str, Any]:
        """Fit a candidate on the data of each seed: its scores, and the quantiles of the first seed."""
        fits = [self._fit(CANDIDATES[part], seed, on_step) for seed in self.seeds]
        return {"scores": [scores for scores, _ in fits], "shown": fits[0][1]}

    def show(self, results: Results) -> dict[str, Any]:
        best = {
            kind: min((part for part in CANDIDATES if CANDIDATES[part].kind == kind), key=_nll(results))
            for kind in KINDS
        }
        data = draw_data(NUM_TRAIN, _generator(self.seeds[0], 0))
        return {
            "x": [round(x, 4) for x in _grid().tolist()],
            "data": [[round(value, 4) for value in values.tolist()] for values in (data.images[:, 0], data.labels)],
            "bands": {KINDS[kind]: results[part]["shown"]["quantiles"] for kind, part in best.items()},
            "epistemic": {KINDS[kind]: results[part]["shown"]["epistemic"] for kind, part in best.items()},
            "chosen": {KINDS[kind]: asdict(CANDIDATES[part]) for kind, part in best.items()},
            "scores": {KINDS[kind]: results[part]["scores"] for kind, part in best.items()},
            "title": f"Trained on {NUM_TRAIN} examples; bands of 50 % and 90 %",
        }

    @staticmethod
    def draw(shows: dict[str, Any]) -> Figure:
        return regression_figure(shows["x"], shows["data"], shows["bands"], shows["title"])

    @staticmethod
    def lines(shows: dict[str, Any]) -> list[str]:
        lines = []
        for name, chosen in shows["chosen"].items():
            prior = f", prior of std {chosen['prior_std']}" if chosen["prior_std"] else ""
            measures = {
                score: mean_and_error([scores[score] for scores in shows["scores"][name]])
                for score in shows["scores"][name][0]
            }
            scores = ", ".join(f"{score} {mean:.3f} ± {error or 0.0:.3f}" for score, (mean, error) in measures.items())
            lines.append(f"{name}: lr {chosen['lr']}{prior}: {scores}")
        return lines

    def _fit(
        self, candidate: Candidate, seed: int, on_step: Callable[[], None]
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """Fit a candidate on the data of a seed; return its scores, and its quantiles on the grid."""
        train, validation, test = (
            draw_data(num, _generator(seed, i)) for i, num in enumerate((NUM_TRAIN, NUM_VALIDATION, NUM_TEST))
        )
        network, prior = self._start(candidate, seed, train)
        likelihood = GaussianNoise(1, 0.1, is_learnt=True)
        streams = Streams(_generator(seed, 3), _generator(seed, 4), seed)
        training = Training(network, likelihood, prior, train, None, self._plan(candidate), streams)
        for _ in training.fit(lambda step, num_steps: on_step()):
            pass
        scores = {"noise_std": likelihood.noise_std}
        for name, split in (("validation", validation), ("test", test)):
            means = predict(network, likelihood, split.images, self.num_draws, _generator(seed, 5))
            scores |= {f"{name}_{score}": value for score, value in likelihood.scores(means, split.labels).items()}
        means = predict(network, likelihood, _grid().unsqueeze(1), self.num_draws, _generator(seed, 5))
        prediction = NumberPrediction(means.double(), likelihood.noise_std)
        quantiles = [[round(y, 4) for y in prediction.quantile(rank)[:, 0].tolist()] for rank in RANKS]
        return scores, {"quantiles": quantiles, "epistemic": [round(y, 4) for y in prediction.epistemic[:, 0].tolist()]}

    def _start(self, candidate: Candidate, seed: int, train: Split) -> tuple[BayesianNetwork, WeightDistribution]:
        """Make a network and its prior; a point without a prior gets one that training leaves out."""
        architecture = MLP((1, self.num_hidden, self.num_hidden, 1))
        normalization = standardization(train.images, train.input_shape)
        network = initial_network(architecture, 0.02, _generator(seed, 6), normalization=normalization)
        if candidate.kind == "point":
            network = network.with_posterior(Point(network.posterior.centre.detach().clone()))
        return network, gaussian_prior(network.posterior.dim, candidate.prior_std or 1.0)

    def _plan(self, candidate: Candidate) -> Plan:
        return replace(
            PLAIN,
            steps_per_epoch=self.num_passes * math.ceil(NUM_TRAIN / self.batch_size),
            batch_size=self.batch_size,
            lr=candidate.lr,
            beta_type="standard" if candidate.prior_std > 0.0 else "none",
            estimator="local" if candidate.kind == "bayes_by_backprop" else "weights",
        )


def _generator(seed: int, stream: int) -> torch.Generator:
    return torch.Generator().manual_seed(100 * seed + stream)


def _grid() -> Tensor:
    least, most = BEYOND
    return torch.linspace(least, most, 141)


def _nll(results: Results) -> Callable[[str], float]:
    """The mean validation NLL of a part."""
    return lambda part: mean_and_error([scores["validation_nll"] for scores in results[part]["scores"]])[0]
