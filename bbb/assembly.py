"""From settings to what an experiment is made of: data, source, network and prior."""

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bbb import checkpoint, data, machine, priors, runs, transfer
from bbb.data import Split
from bbb.network import BayesianMLP, layer_dims, num_flow_parameters, num_weights
from bbb.settings import Settings
from bbb.weights import WeightDistribution

_STREAMS = ("split", "fraction", "init", "order", "weights", "validation", "evaluation", "source", "inflation")
_STREAMS_OF_SPLIT = ("split", "fraction")
_TASK = ("dataset", "digits", "rotation")  # what a weights file tells of its task


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


def source_record(pretrained: str, root: Path) -> dict[str, str]:
    """Find the weights file that the key ``pretrained`` names: its path and its SHA-256.

    Raises:
        bbb.runs.ResultsError: there is none, or it cannot be read.
    """
    path = runs.find_weights(pretrained, root)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise runs.ResultsError(f"pretrained={pretrained!r}: cannot read {path} ({error.strerror})") from None
    return {"weights": str(path), "sha256": hashlib.sha256(content).hexdigest()}


def load_source(
    settings: Settings, root: Path, device: torch.device | None = None, started_with: Mapping[str, str] | None = None
) -> Source | None:
    """Load the weights that the key ``pretrained`` names, if it names any.

    Args:
        settings: the configuration.
        root: the results folder.
        device: where the network shall live.
        started_with: the record of the source that a resumed run was started with; it must be the same.

    Raises:
        bbb.runs.ResultsError: there are no such weights, or they are others than the run was started with.
        bbb.checkpoint.WeightsError: they are damaged.
    """
    if settings.pretrained is None:
        return None
    if started_with is None:
        record = source_record(settings.pretrained, root)
    else:
        record = _same_source(settings.pretrained, root, started_with)
    network, about = checkpoint.load_weights(Path(record["weights"]), device)
    if network.num_replicas is not None:
        raise checkpoint.WeightsError(
            f"{record['weights']}: holds {network.num_replicas} replicas; name the weights of a run with num_replicas=1"
        )
    _check_about(Path(record["weights"]), network, about)
    return Source(record, network, about)


def load_source_test(settings: Settings, source: Source, device: torch.device) -> Split | None:
    """Load the test set of the source's task; None where its weights file does not tell what it was.

    Raises:
        bbb.data.DataError: the data are not there or damaged.
        bbb.checkpoint.WeightsError: the weights are not for images of that size.
    """
    about = source.about
    if not {"dataset", "digits"} <= about.keys():
        return None
    _, test = data.load(about["dataset"], data.data_root(settings.data_dir))
    if test.images.shape[1] != source.network.sizes[0]:
        raise checkpoint.WeightsError(
            f"{source.record['weights']}: its layers start with {source.network.sizes[0]} units, the images of its "
            f"dataset={about['dataset']} have {test.images.shape[1]} pixels"
        )
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
    _check_memory(settings, sizes, device)
    shape = settings.num_flows, settings.flow
    starts = [
        BayesianMLP.initial(sizes, settings.init_std, generator(settings, "init", replica=replica), *shape)
        for replica in range(settings.num_replicas)
    ]
    fresh = (BayesianMLP.stacked(starts) if len(starts) > 1 else starts[0]).to(device)
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


def stream_seed(settings: Settings, stream: str, replica: int = 0) -> int:
    """Derive the seed of one random stream, independent of the others; that of a replica is as with seed + replica."""
    seed = settings.seed + replica
    if stream in _STREAMS_OF_SPLIT and settings.split_seed is not None:
        seed = settings.split_seed
    return int(np.random.SeedSequence([seed, _STREAMS.index(stream)]).generate_state(1, np.uint64)[0] >> 1)


def generator(settings: Settings, stream: str, device: torch.device | None = None, replica: int = 0) -> torch.Generator:
    """Create the generator of one random stream."""
    return torch.Generator(device or torch.device("cpu")).manual_seed(stream_seed(settings, stream, replica))


def _same_source(pretrained: str, root: Path, started_with: Mapping[str, str]) -> dict[str, str]:
    """Find the weights that a resumed run was started with: where they were, else under the name ``pretrained``."""
    for name in (started_with["weights"], pretrained):
        with contextlib.suppress(runs.ResultsError):
            record = source_record(name, root)
            if record["sha256"] == started_with["sha256"]:
                return record
    raise runs.ResultsError(
        f"resume=True: the run was started with pretrained={pretrained!r} when that meant {started_with['weights']}, "
        "which is gone or has changed; start again without resume=True"
    )


def _check_about(path: Path, network: BayesianMLP, about: Mapping[str, object]) -> None:
    """Refuse what weights tell of their task if no run of ours could have written it: it may come from anyone."""
    wrong = [key for key in _TASK if key in about and not Settings.accepts(key, about[key])]
    if not wrong and "digits" in about and len(about["digits"]) != network.sizes[-1]:
        wrong = ["digits"]
    if wrong:
        told = ", ".join(f"{key}={about[key]!r}" for key in wrong)
        raise checkpoint.WeightsError(f"{path}: tells what cannot be of the data it was trained on: {told:.200}")


def _keeps_head(settings: Settings, source: Source) -> bool:
    if settings.head == "auto":
        there = source.about.get("dataset"), source.about.get("digits")
        return there == (settings.dataset, list(settings.digits))
    return settings.head == "keep"


def _check_memory(settings: Settings, sizes: Sequence[int], device: torch.device) -> None:
    """Refuse a network whose training could not fit the memory: the posterior, its gradient, Adam's state, the draws.

    Raises:
        bbb.machine.DeviceError: it is too large.
    """
    dim = num_weights(sizes)
    parameters = 2 * dim + settings.num_flows * num_flow_parameters(sizes, settings.flow)
    needed = 4 * settings.num_replicas * (4 * parameters + 3 * settings.num_samples * dim)
    there = machine.memory(device)
    if needed > there:
        raise machine.DeviceError(
            f"num_hidden={settings.num_hidden}: training {dim:,} weights with num_layers={settings.num_layers}, "
            f"num_flows={settings.num_flows}, num_samples={settings.num_samples} and "
            f"num_replicas={settings.num_replicas} takes {needed / 2**30:,.0f} GiB, {device} has "
            f"{there / 2**30:,.0f}; make one of them smaller"
        )


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
