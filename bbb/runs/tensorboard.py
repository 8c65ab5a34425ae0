"""A run for TensorBoard: event files beside its record. Training knows nothing of them."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bbb.distributions import mean_and_std
from bbb.inference import Epoch
from bbb.networks import BayesianNetwork, layer_dims
from bbb.runs.plain import SettingsError
from bbb.runs.progress import metrics
from bbb.runs.settings import Settings
from bbb.system import writing

if TYPE_CHECKING:  # its package is an extra
    from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"  # in the run's folder
MOST_HISTOGRAMS = 20  # epochs of a run that have them
MOST_WEIGHTS = 100_000  # of a layer that a histogram counts, evenly spread over it


class Board:
    """The event files of a run.

    A resumed run goes on: what is in its files already is not written again, and what a killed process could not write
    is made up for.

    Args:
        writer: writes the files.
        settings: the run's.
        num_done: epochs before the run was resumed; their posteriors are gone.
        last: the last step that the files hold, by tag.
    """

    def __init__(self, writer: "SummaryWriter", settings: Settings, num_done: int, last: dict[str, int]) -> None:
        self.writer, self.settings, self.num_done, self.last = writer, settings, num_done, last
        self.place = Path(writer.log_dir)

    def epoch(self, epoch: Epoch, network: BayesianNetwork) -> None:
        """Write the metrics of an epoch, and at some epochs the histograms of mean and standard deviation.

        Args:
            epoch: the metrics.
            network: as it is after this epoch.

        Raises:
            bbb.system.StorageError: they cannot be written.
        """
        every = math.ceil(self.settings.num_epochs / MOST_HISTOGRAMS)
        is_chosen = epoch.number % every == 0 or epoch.number in (1, self.settings.num_epochs)
        with writing(self.place):
            for tag, value in metrics(epoch).items():
                if epoch.number > self.last.get(tag, 0):
                    self.writer.add_scalar(tag, value, epoch.number)
            if is_chosen and epoch.number > self.num_done:
                for tag, values in posterior_parts(network).items():
                    self.writer.add_histogram(tag, values, epoch.number)
            self.writer.flush()

    def end(self, scores: dict[str, Any]) -> None:
        """Write the scores of the trained posterior, and the configuration that made them.

        Args:
            scores: the numbers of a result, by name.

        Raises:
            bbb.system.StorageError: they cannot be written.
        """
        numbers = {name: value for name, value in scores.items() if isinstance(value, int | float)}
        if numbers.keys() <= self.last.keys():
            return
        config = asdict(self.settings).items()
        plain = {key: value if isinstance(value, int | float | str) else str(value) for key, value in config}
        with writing(self.place):
            self.writer.add_hparams(plain, numbers, run_name=".", global_step=self.settings.num_epochs)


def check_tensorboard(settings: Settings) -> None:
    """Refuse to write for TensorBoard where it is not installed.

    Raises:
        SettingsError: the message says what to install.
    """
    if settings.tensorboard and find_spec("tensorboard") is None:
        raise SettingsError("tensorboard=True: needs what is not installed; run: pip install tensorboard")


@contextmanager
def open_board(settings: Settings, folder: Path | None, num_done: int) -> Iterator[Board | None]:
    """Open the event files of a run; None if it has none.

    Args:
        settings: the run's.
        folder: the run's folder.
        num_done: epochs before the run was resumed.

    Raises:
        bbb.system.StorageError: they cannot be written.
    """
    if not settings.tensorboard or folder is None:
        yield None
        return
    from torch.utils.tensorboard import SummaryWriter

    place = folder / FOLDER
    last = _last_steps(place)
    with writing(place):
        writer = SummaryWriter(str(place))
    with writer:
        yield Board(writer, settings, num_done, last)


def posterior_parts(network: BayesianNetwork) -> dict[str, Tensor]:
    """Read mean and standard deviation of each layer's weights, as ``mean/LAYER`` and ``std/LAYER``.

    Under flows they are those of the Gaussian that the flows transform. Of a layer with more than
    :data:`MOST_WEIGHTS` weights, so many are read.
    """
    architecture = network.architecture
    parts: dict[str, Tensor] = {}
    for kind, values in zip(("mean", "std"), mean_and_std(network.posterior), strict=True):
        layers = values.split(layer_dims(architecture.layers), dim=-1)
        named = zip(architecture.names, layers, strict=True)
        parts |= {f"{kind}/{name}": _thinned(part.flatten()) for name, part in named}
    return parts


def _thinned(values: Tensor) -> Tensor:
    if len(values) <= MOST_WEIGHTS:
        return values
    chosen = torch.linspace(0, len(values) - 1, MOST_WEIGHTS, dtype=torch.float64, device=values.device)
    return values[chosen.round().long()]


def _last_steps(place: Path) -> dict[str, int]:
    """Read the last step of each tag of scalars in event files."""
    if not place.exists():
        return {}
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(place), size_guidance={"scalars": 1})
    events.Reload()
    return {tag: events.Scalars(tag)[-1].step for tag in events.Tags()["scalars"]}
