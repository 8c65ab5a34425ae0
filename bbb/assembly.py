"""From settings to what an experiment is made of: data, source, network and prior."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bbb import checkpoint, data, priors, runs, transfer
from bbb.data import Split
from bbb.network import BayesianMLP, layer_dims
from bbb.settings import Settings
from bbb.weights import WeightDistribution

_STREAMS = ("split", "fraction", "init", "order", "weights", "validation", "evaluation", "source", "inflation")


@dataclass(frozen=True)
class Task:
    """The data of an experiment, on its device."""

    train: Split
    validation: Split | None
    test: Split


@dataclass(frozen=True)
class Source:
    """The posterior that a run starts from: what identifies its file, the network in it, and what the file tells."""

    record: dict[str, str]
    network: BayesianMLP
    about: dict[str, object]


def load_task(settings: Settings, device: torch.device) -> Task:
    """Load the data, keep the wanted classes, hold out validation, then keep the wanted share of the training set.

    Raises:
        bbb.data.DataError: the data are not there or damaged, or leave nothing to train on.
    """
    train, test = data.load(settings.dataset, data.data_root(settings.data_dir))
    train, test = (data.rotate(data.select(split, settings.digits), settings.rotation) for split in (train, test))
    train, validation = data.hold_out(train, settings.validation_fraction, generator(settings, "split"))
    train = data.subsample(train, settings.fraction, generator(settings, "fraction"))
    return Task(train.to(device), validation.to(device) if validation is not None else None, test.to(device))


def source_record(settings: Settings, root: Path) -> dict[str, str] | None:
    """Find the weights file that the key ``pretrained`` names, if it names any: its path and its SHA-256.

    Raises:
        bbb.runs.ResultsError: there is none.
    """
    if settings.pretrained is None:
        return None
    path = runs.find_weights(settings.pretrained, root)
    return {"weights": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def load_source(settings: Settings, root: Path, device: torch.device | None = None) -> Source | None:
    """Load the weights that the key ``pretrained`` names, if it names any.

    Raises:
        bbb.runs.ResultsError: there are no such weights.
        bbb.checkpoint.WeightsError: they are damaged.
    """
    record = source_record(settings, root)
    return None if record is None else Source(record, *checkpoint.load_weights(Path(record["weights"]), device))


def load_source_test(settings: Settings, source: Source, device: torch.device) -> Split | None:
    """Load the test set of the source's task; None where its weights file does not tell what it was.

    Raises:
        bbb.data.DataError: the data are not there or damaged.
    """
    about = source.about
    if not {"dataset", "digits"} <= about.keys():
        return None
    _, test = data.load(about["dataset"], data.data_root(settings.data_dir))
    return data.rotate(data.select(test, about["digits"]), about.get("rotation", 0.0)).to(device)


def create(
    settings: Settings, task: Task, source: Source | None = None, inflation: float = 1.0
) -> tuple[BayesianMLP, WeightDistribution]:
    """Create the network, at its start, and its prior.

    Args:
        settings: the configuration.
        task: the data, which decide the number of inputs and the device.
        source: the weights to start from, or whose posterior shall be the prior.
        inflation: factor on the variances of such a prior.

    Raises:
        bbb.checkpoint.WeightsError: the source is of another layout than configured.
    """
    device = task.train.labels.device
    sizes = (task.train.images.shape[1], *[settings.num_hidden] * settings.num_layers, len(settings.digits))
    init = generator(settings, "init")
    fresh = BayesianMLP.initial(sizes, settings.init_std, init, settings.num_flows, settings.flow).to(device)
    keep_head = source is not None and (settings.prior != "posterior" or _keeps_head(settings, source))
    if source is not None:
        _check_layout(settings, source, sizes, keep_head)
    if settings.prior != "posterior":
        return source.network if source is not None else fresh, create_prior(settings, fresh.posterior.dim, device)
    head_prior = None if keep_head else priors.gaussian(layer_dims(sizes)[-1], settings.prior_std, device)
    where = settings.prior_floor, settings.start, settings.init_std
    return transfer.prepare(source.network, fresh, head_prior, inflation, *where)


def create_prior(settings: Settings, dim: int, device: torch.device) -> WeightDistribution:
    """Create the prior over ``dim`` weights that settings ask for, where it is not a posterior."""
    if settings.prior == "gaussian":
        return priors.gaussian(dim, settings.prior_std, device)
    return priors.scale_mixture(dim, settings.prior_pi, settings.prior_std1, settings.prior_std2)


def stream_seed(settings: Settings, stream: str) -> int:
    """Derive the seed of one random stream, independent of the others."""
    return int(np.random.SeedSequence([settings.seed, _STREAMS.index(stream)]).generate_state(1, np.uint64)[0] >> 1)


def generator(settings: Settings, stream: str, device: torch.device | None = None) -> torch.Generator:
    """Create the generator of one random stream."""
    return torch.Generator(device or torch.device("cpu")).manual_seed(stream_seed(settings, stream))


def _keeps_head(settings: Settings, source: Source) -> bool:
    if settings.head == "auto":
        there = source.about.get("dataset"), source.about.get("digits")
        return there == (settings.dataset, list(settings.digits))
    return settings.head == "keep"


def _check_layout(settings: Settings, source: Source, sizes: Sequence[int], keep_head: bool) -> None:
    there = source.network.sizes, source.about["num_flows"], source.about["flow"]
    wanted = sizes, settings.num_flows, settings.flow
    end = None if keep_head else -1
    if _layout(sizes[:end], *wanted[1:]) != _layout(there[0][:end], *there[1:]):
        change = "num_layers, num_hidden, dataset, digits, num_flows or flow" + ("; or head=fresh" * keep_head)
        raise checkpoint.WeightsError(
            f"pretrained={settings.pretrained!r}: {source.record['weights']} has layers of {_layout(*there)}, the "
            f"configuration asks for {_layout(*wanted)}; change {change}"
        )


def _layout(sizes: Sequence[int], num_flows: int, flow: str | None) -> str:
    """Put what must agree between weights and a configuration into words."""
    units = f"{'-'.join(map(str, sizes))} units"
    return f"{units} and {num_flows} {flow} flows" if num_flows else units
