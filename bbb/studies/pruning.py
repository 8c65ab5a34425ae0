"""How much of a posterior is needed: its test scores without the weights of the lowest signal-to-noise ratio.

Of a point, with dropout or without, the weights of the lowest magnitude are removed. The experiment is that of Blundell
et al. 2015, section 5.1, table 2 (arXiv 1505.05424). It prints nothing.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bbb.distributions import Gaussian, Point, log_importance
from bbb.inference import num_distinct
from bbb.networks import BayesianNetwork, PruningError, check_prunable, kernel_mask, pruned_network, save_weights
from bbb.runs import WEIGHTS, Retest, check_writable, save_figure
from bbb.studies.pruning_figure import pruning_figure
from bbb.system import write_aside

SHARES = (0.0, 0.5, 0.75, 0.95, 0.98, 0.99)  # of the weights of the kernels; the paper's table 2
DECIBEL = 20.0 / math.log(10.0)  # of a ratio of amplitudes, for one nat
NUM_BINS = 80
LEFT_OUT = 0.001  # of the signal-to-noise ratios: the lowest, of means that are zero by chance
_NOT_ABOUT = ("likelihood", "num_replicas", "flow", "num_flows")  # what reading a file adds


@dataclass(frozen=True)
class PrunedFile:
    """A weights file of a pruned posterior: where it is, and the bytes of it and of the whole one."""

    path: Path
    num_bytes: int
    num_bytes_whole: int


@dataclass
class PruningStudy:
    """A posterior, and what is left of its scores.

    Args:
        name: what the user calls the posterior.
        retest: its test.

    Attributes:
        rows: for each share that was tried the share, ``num_kept`` weights of kernels, and the scores.

    Raises:
        bbb.networks.PruningError: it cannot be pruned, or its folder cannot be written to.
    """

    name: str
    retest: Retest
    rows: list[dict[str, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        try:
            self._whole: Gaussian | Point = check_prunable(self._network)
        except PruningError as error:
            raise PruningError(f"pretrained={self.name!r}: {error}") from None
        check_writable(self.folder)
        self._kernels = kernel_mask(self._network.architecture.layers).to(self.retest.device)

    @property
    def folder(self) -> Path:
        """Where the results go: beside the weights."""
        return self.retest.path.parent

    @property
    def rank(self) -> str:
        """What the weights are ranked by, as a formula."""
        return "|mean|" if isinstance(self._whole, Point) else "|mean| / std"

    @property
    def num_samples(self) -> int:
        """Count the draws that are averaged."""
        return num_distinct(self._whole, self.retest.settings.num_test_samples)

    @property
    def num_weights(self) -> int:
        """Count the weights of the kernels, among which to choose."""
        return int(self._kernels.sum())

    @property
    def num_biases(self) -> int:
        """Count the biases, which all stay."""
        return self._whole.dim - self.num_weights

    def run(self, share: float | None = None) -> Iterator[dict[str, float]]:
        """Score the posterior at the shares of the paper, and yield each row.

        Args:
            share: one more.
        """
        for each in sorted({*SHARES, *([] if share is None else [share])}):
            network = self._pruned(each)
            num_kept = int((network.posterior.kept & self._kernels).sum())  # type: ignore[operator]  # a buffer
            self.rows.append({"share": each, "num_kept": num_kept, **self.retest.scores(network)})
            yield self.rows[-1]

    def save(self) -> list[Path]:
        """Write the rows and the histograms, and the figure of both: ``prune.json`` and ``prune.png``."""
        record = self.record()
        paths = [self._path(f"prune.{kind}") for kind in ("json", "png")]
        write_aside(paths[0], f"{json.dumps(record, indent=1)}\n".encode())
        save_figure(paths[1], pruning_figure(**record["figure"]))
        return paths

    def save_pruned(self, share: float) -> PrunedFile:
        """Write the pruned posterior as a weights file: one bit for each weight, and what is kept."""
        path, retest = self._path(f"pruned-{share:g}.safetensors"), self.retest
        about = {key: value for key, value in retest.about.items() if key not in _NOT_ABOUT}
        about["pruned"] = {"share": share, "of": self.name}
        learnt = dict(retest.posterior.likelihood.named_parameters())
        save_weights(path, self._pruned(share), about, learnt, retest.posterior.input_shape)
        return PrunedFile(path, path.stat().st_size, retest.path.stat().st_size)

    def record(self) -> dict[str, Any]:
        """Collect what the study found; ``figure`` is all that its figure shows."""
        ratios = log_importance(self._whole)[self._kernels]
        decibels = DECIBEL * ratios[ratios.isfinite()].sort().values
        weights = {"means": self._whole.centre[self._kernels]}
        if self._whole.has_density:
            draw, _ = self._whole.rsample_and_log_prob(1, torch.Generator(self.retest.device).manual_seed(0))
            weights["a draw"] = draw[0, self._kernels]
        most = float(max(values.abs().max() for values in weights.values()))
        main = "rmse" if "rmse" in self.rows[0] else "error"
        cuts = {f"{row['share']:g}": self._cut(ratios, row["num_kept"]) for row in self.rows}
        return {
            "pretrained": self.name,
            "num_weights": self.num_weights,
            "num_biases": self.num_biases,
            "num_samples": self.num_samples,
            "rows": self.rows,
            "figure": {
                "shares": [row["share"] for row in self.rows],
                "scores": [row[main] for row in self.rows],
                "score": "RMSE" if main == "rmse" else "test error (%)",
                "weights": {name: _histogram(values, -most, most) for name, values in weights.items()},
                "signal_to_noise": _histogram(
                    decibels, float(decibels[int(LEFT_OUT * len(decibels))]), float(decibels[-1])
                ),
                "cuts": {share: cut for share, cut in cuts.items() if cut is not None},
                "rank": self.rank,
                "title": f"{self.name}: {self.num_weights:,} weights, pruned by {self.rank}",
            },
        }

    @property
    def _network(self) -> BayesianNetwork:
        return self.retest.posterior.network

    def _pruned(self, share: float) -> BayesianNetwork:
        return pruned_network(self._network, share)

    def _cut(self, log_ratios: Tensor, num_kept: float) -> float | None:
        """Find the lowest ratio that is kept, in dB; None if all are, or if it is that of a mean of zero."""
        num_removed = len(log_ratios) - int(num_kept)
        cut = DECIBEL * float(log_ratios.sort().values[num_removed]) if 0 < num_removed < len(log_ratios) else -math.inf
        return cut if math.isfinite(cut) else None

    def _path(self, name: str) -> Path:
        """Name a file beside the weights; those of weights that are not a run's own begin with their name."""
        weights = self.retest.path
        return self.folder / (name if weights.name == WEIGHTS else f"{weights.stem}-{name}")


def _histogram(values: Tensor, least: float, most: float) -> dict[str, Any]:
    """Count values in equal bins: the first edge, the width of a bin, and the share in each, in %."""
    most = most if most > least else least + 1.0
    counts = torch.histc(values.double(), NUM_BINS, least, most)
    shares = [float(f"{share:.6g}") for share in (100.0 * counts / len(values)).tolist()]
    return {"first": least, "width": (most - least) / NUM_BINS, "shares": shares}
