"""Assemble a run from its settings: data, source, network and prior.

What :func:`assemble` loads and checks, before any work starts, is what the run then trains on.
"""

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bbb.data import Normalization, Split, data_root, load, standardization
from bbb.distributions import (
    ARD,
    FlowedGaussian,
    FlowName,
    Gaussian,
    Point,
    Pruned,
    ScaleMixture,
    WeightDistribution,
    gaussian_prior,
    num_flow_parameters,
    posterior_name,
    scale_mixture_prior,
)
from bbb.inference import Categorical, GaussianNoise, Likelihood, prepare, with_fresh_head
from bbb.networks import (
    Architecture,
    BayesianNetwork,
    KeptHead,
    NetworkError,
    PretrainedMean,
    WeightsError,
    build,
    initial_network,
    layer_dims,
    load_pretrained,
    load_weights,
    num_weights,
)
from bbb.runs.contents import checksum
from bbb.runs.folders import ResultsError, find_weights
from bbb.runs.settings import TASK, Settings
from bbb.runs.streams import generator, stream_seed
from bbb.runs.tasks import Task, as_task, load_task
from bbb.runs.tensorboard import check_tensorboard
from bbb.system import DeviceError, memory


@dataclass(frozen=True)
class Source:
    """The posterior that a run starts from.

    Attributes:
        record: the path of its weights file and the file's SHA-256.
        network: the network in it.
        about: the file's metadata, with its task.
        test: the test set of that task, under ``prior=posterior``; None if the file does not name the task.
    """

    record: dict[str, str]
    network: BayesianNetwork
    about: dict[str, Any]
    test: Split | None


@dataclass(frozen=True)
class Assembly:
    """The parts of a run, loaded and checked.

    Attributes:
        settings: the configuration.
        device: the device of the data and of all computation.
        task: the data.
        architecture: the network.
        normalization: what turns raw inputs into those of the network.
        likelihood: p(y | outputs), as training starts.
        source: the posterior to start from, or to take as the prior.
        pretrained: the trained network whose weights are the prior's mean, under ``prior=pretrained``.
        record: the path and the SHA-256 of the weights that ``pretrained`` names; None if it names none.
    """

    settings: Settings
    device: torch.device
    task: Task
    architecture: Architecture
    normalization: Normalization
    likelihood: Likelihood
    source: Source | None
    pretrained: PretrainedMean | None = None
    record: dict[str, str] | None = None

    def network_and_prior(self, inflation: float = 1.0) -> tuple[BayesianNetwork, WeightDistribution]:
        """Create the network, at the start of training, and its prior.

        Args:
            inflation: factor on the variances of the source's posterior, where it is the prior.
        """
        settings, source = self.settings, self.source
        architecture = self.architecture.copy()
        how = settings.init_std, settings.num_flows, settings.flow
        starts = [self._start(architecture, *how, replica) for replica in range(settings.num_replicas)]
        fresh = (BayesianNetwork.stacked(starts) if len(starts) > 1 else starts[0]).to(self.device)
        if self.pretrained is not None:
            return self._from_pretrained(fresh, self.pretrained)
        if source is None:
            return fresh, self._prior(fresh.posterior.dim)
        if fresh.fixed is not None and source.network.fixed is not None:
            fresh.fixed.load_state_dict(source.network.fixed.state_dict())
        if settings.prior != "posterior":
            posterior = source.network.posterior
            if not _keeps_head(settings, source):
                posterior = with_fresh_head(source.network, fresh)
            return fresh.with_posterior(posterior), self._prior_over(posterior)
        head_prior = None
        if not _keeps_head(settings, source):
            head_prior = gaussian_prior(layer_dims(architecture.layers)[-1], settings.prior_std, self.device)
        start = settings.prior_floor, settings.start, settings.init_std
        return prepare(source.network, fresh, head_prior, inflation, *start)

    def kept_heads(self) -> tuple[KeptHead, ...]:
        """List the heads of earlier tasks: those that the source has kept, and its own if a fresh one replaces it."""
        if self.source is None:
            return ()
        network, about = self.source.network, self.source.about
        if _keeps_head(self.settings, self.source):
            return tuple(about["kept_heads"])
        task = {key: about[key] for key in (*TASK, "score") if key in about}
        return (*about["kept_heads"], KeptHead(network.split_head()[1], task))

    def stream_seed(self, stream: str, replica: int = 0) -> int:
        """Derive the seed of one random stream of the run (see :func:`stream_seed`)."""
        return stream_seed(self.settings, stream, replica)

    def generator(self, stream: str, device: torch.device | None = None, replica: int = 0) -> torch.Generator:
        """Create the generator of one random stream of the run, on a device, or on the CPU."""
        return generator(self.settings, stream, device, replica)

    def _start(
        self, architecture: Architecture, init_std: float, num_flows: int, flow: FlowName, replica: int
    ) -> BayesianNetwork:
        draws = self.generator("init", replica=replica)
        kind = self.settings.posterior, self.settings.dropout
        return initial_network(architecture, init_std, draws, num_flows, flow, self.normalization, *kind)

    def _from_pretrained(
        self, fresh: BayesianNetwork, pretrained: PretrainedMean
    ) -> tuple[BayesianNetwork, WeightDistribution]:
        """Center prior and start at the weights of a trained network; where nothing matches, as without them."""
        mean, is_matched = pretrained.mean.to(self.device), pretrained.is_matched.to(self.device)
        base = fresh.posterior.base if isinstance(fresh.posterior, FlowedGaussian) else fresh.posterior
        if not isinstance(base, Gaussian | Point):
            raise TypeError(f"a {type(base).__name__} has no mean to start at")
        with torch.no_grad():
            base.mean.copy_(torch.where(is_matched, mean, base.mean))
        prior = Gaussian(mean, torch.full_like(mean, math.log(self.settings.prior_std)))
        return fresh, prior.requires_grad_(False)

    def _prior_over(self, posterior: WeightDistribution) -> WeightDistribution:
        """Create the prior of a posterior to start from: what it has pruned, the prior has at zero too."""
        if not isinstance(posterior, Pruned):
            return self._prior(posterior.dim)
        return Pruned(self._prior(posterior.base.dim), posterior.kept)

    def _prior(self, dim: int) -> Gaussian | ScaleMixture | ARD:
        """Create the prior over ``dim`` weights, for a ``prior`` that is no weights' file."""
        settings = self.settings
        if settings.prior == "gaussian":
            return gaussian_prior(dim, settings.prior_std, self.device)
        if settings.prior == "ard":
            return ARD(dim, settings.prior_std, self.device)
        stds = settings.prior_std1, settings.prior_std2
        return scale_mixture_prior(dim, settings.prior_pi, *stds, device=self.device)


def assemble(settings: Settings, device: torch.device, started_with: Mapping[str, str] | None = None) -> Assembly:
    """Load the data and the source that settings name, and check that everything fits together.

    Args:
        settings: the configuration.
        device: where to compute.
        started_with: for a resumed run, the record of its source at the start; the source must be unchanged.

    Raises:
        bbb.system.InputError: the data, the network or the pretrained weights cannot be used, or the memory is too
            small; the message says which, and what to do.
    """
    check_tensorboard(settings)
    task = load_task(settings, device)
    hidden = [settings.num_hidden] * settings.num_layers
    num_outputs = _num_outputs(settings, task)
    with torch.random.fork_rng([]):  # modules draw the start of their own parameters
        torch.manual_seed(stream_seed(settings, "init"))
        architecture = build(settings.network, task.train.input_shape, num_outputs, hidden, settings.deterministic)
    if settings.num_replicas > 1 and architecture.fixed is not None:
        raise NetworkError(
            f"num_replicas={settings.num_replicas}: network={settings.network} has layers that are not Bayesian, which "
            "replicas would share; use num_replicas=1"
        )
    _check_memory(settings, architecture, device)
    normalization = _normalization(settings, task.train).to(device)
    likelihood = _likelihood(settings, num_outputs).to(device)
    parts = settings, device, task, architecture, normalization, likelihood
    if settings.pretrained is None:
        return Assembly(*parts, source=None)
    if started_with is None:
        record = source_record(settings.pretrained)
    else:
        record = _same_source(settings.pretrained, started_with)
    if settings.prior == "pretrained":
        keep_head = {"keep": True, "fresh": False, "auto": None}[settings.head]
        pretrained = load_pretrained(Path(record["weights"]), architecture, keep_head, settings.network)
        return Assembly(*parts, source=None, pretrained=pretrained, record=record)
    source = _load_source(settings, device, record)
    _check_layout(settings, source, architecture)
    return Assembly(*parts, source=source, record=record)


def source_record(pretrained: str) -> dict[str, str]:
    """Find the weights file that the key ``pretrained`` names: its path and its SHA-256.

    Raises:
        bbb.runs.ResultsError: there is none, or it cannot be read.
    """
    path = find_weights(pretrained)
    try:
        return {"weights": str(path), "sha256": checksum(path)}
    except OSError as error:
        raise ResultsError(f"pretrained={pretrained!r}: cannot read {path} ({error.strerror})") from None


def _load_source(settings: Settings, device: torch.device, record: dict[str, str]) -> Source:
    """Load the posterior that the key ``pretrained`` names.

    Raises:
        bbb.networks.WeightsError: it is damaged, or holds replicas.
        bbb.data.DataError: the data of its task are missing or damaged.
    """
    path = Path(record["weights"])
    network, about = load_weights(path, device, settings.network)
    if network.num_replicas is not None:
        raise WeightsError(
            f"{path}: holds {network.num_replicas} replicas; name the weights of a run with num_replicas=1"
        )
    if isinstance(network.posterior, Pruned) and settings.estimator == "local":
        raise WeightsError(
            f"{path}: holds a pruned posterior, which estimator=local cannot train; use estimator=weights"
        )
    _check_kind(settings, path, network.posterior)
    _check_about(path, network, about)
    test = _load_source_test(settings, path, network, about) if settings.prior == "posterior" else None
    return Source(record, network, about, test.to(device) if test is not None else None)


def _check_kind(settings: Settings, path: Path, posterior: WeightDistribution) -> None:
    """Refuse a posterior that is no prior, or is not of the kind to be trained.

    Raises:
        bbb.networks.WeightsError: the message says what to use.
    """
    kind = posterior_name(posterior)
    if kind == "laplace" and not posterior.makes_a_prior:
        raise WeightsError(
            f"{path}: holds a Laplace approximation whose precisions are not above 0; use one that a run has written"
        )
    if settings.prior == "posterior" and not posterior.makes_a_prior:
        raise WeightsError(
            f"{path}: holds posterior={kind}, which has no variances and is no prior; use prior=pretrained, which "
            "centres a Gaussian prior at its weights"
        )
    if kind != settings.posterior:
        raise WeightsError(
            f"{path}: holds posterior={kind}, the configuration asks for posterior={settings.posterior}; use "
            f"posterior={kind}, or prior=pretrained, which centres a Gaussian prior at its weights"
        )
    if kind in ("dropout", "laplace") and isinstance(posterior, Pruned):
        raise WeightsError(f"{path}: holds a pruned posterior, which posterior={kind} cannot train; use another")
    if settings.head == "fresh" and (kind == "dropout" or (kind == "point" and isinstance(posterior, Pruned))):
        raise WeightsError(f"{path}: holds {kind} weights whose head cannot be replaced; use head=keep")


def _load_source_test(
    settings: Settings, path: Path, network: BayesianNetwork, about: Mapping[str, Any]
) -> Split | None:
    """Load the test set of the source's task; None if its weights file does not name the task.

    Raises:
        bbb.data.DataError: the data are missing or damaged.
        bbb.networks.WeightsError: the weights are not for images of that size.
    """
    if not {"dataset", "classes"} <= about.keys() or about.get("score", "accuracy") != "accuracy":
        return None
    _, test = load(about["dataset"], data_root(settings.data_dir))
    num_inputs = network.architecture.num_inputs
    if test.images.shape[1] != num_inputs:
        raise WeightsError(
            f"{path}: its layers start with {num_inputs} units, the images of its dataset={about['dataset']} have "
            f"{test.images.shape[1]} pixels"
        )
    test = as_task(test, about["classes"], about.get("rotation", 0.0), about.get("permutation"))
    if not test.has_classes or int(test.labels.max()) >= network.architecture.num_outputs:
        raise WeightsError(
            f"{path}: tells what cannot be of the data it was trained on: its network has "
            f"{network.architecture.num_outputs} outputs, its dataset={about['dataset']} has other labels"
        )
    return test


def _same_source(pretrained: str, started_with: Mapping[str, str]) -> dict[str, str]:
    """Find the weights that a resumed run was started with: at their old path, else by the name ``pretrained``."""
    for name in (started_with["weights"], pretrained):
        with contextlib.suppress(ResultsError):
            record = source_record(name)
            if record["sha256"] == started_with["sha256"]:
                return record
    raise ResultsError(
        f"resume=True: the run was started with pretrained={pretrained!r} when that meant {started_with['weights']}, "
        "which is gone or has changed; start again without resume=True"
    )


def _check_about(path: Path, network: BayesianNetwork, about: dict[str, Any]) -> None:
    """Refuse metadata about the task that no run of ours could have written: the file may come from anyone."""
    if "digits" in about:  # what the key was called
        about.setdefault("classes", about["digits"])
    wrong = [key for key in TASK if key in about and not Settings.accepts(key, about[key])]
    if not wrong and about.get("classes") is not None and len(about["classes"]) != network.architecture.num_outputs:
        wrong = ["classes"]
    if wrong:
        claims = ", ".join(f"{key}={about[key]!r}" for key in wrong)
        raise WeightsError(f"{path}: tells what cannot be of the data it was trained on: {claims:.200}")


def _keeps_head(settings: Settings, source: Source) -> bool:
    if settings.head == "auto":
        if settings.prior != "posterior":
            return True
        same_set = source.about.get("dataset") == settings.dataset
        theirs, num_outputs = source.about.get("classes"), source.network.architecture.num_outputs
        ours = list(range(num_outputs)) if settings.classes is None else list(settings.classes)
        return same_set and (list(range(num_outputs)) if theirs is None else theirs) == ours
    return settings.head == "keep"


def _num_outputs(settings: Settings, task: Task) -> int:
    """Read from the labels how many outputs the network must have."""
    if settings.likelihood == "gaussian":
        return 1 if task.train.labels.ndim == 1 else task.train.labels.shape[1]
    if settings.classes is not None and settings.union is None:
        return len(settings.classes)
    held_out = [task.validation.labels] if task.validation is not None else []
    return int(max(labels.max() for labels in (task.train.labels, task.test.labels, *held_out))) + 1


def _normalization(settings: Settings, train: Split) -> Normalization:
    is_bytes = train.images.dtype == torch.uint8
    name = settings.normalization
    if name == "auto":
        name = "pixels" if is_bytes else "standardize"
    if name == "standardize":
        return standardization(train.images, train.input_shape)
    return Normalization(scale=1.0 / settings.pixel_scale if name == "pixels" else 1.0)


def _likelihood(settings: Settings, num_outputs: int) -> Likelihood:
    if settings.likelihood == "categorical":
        return Categorical(num_outputs)
    return GaussianNoise(num_outputs, settings.noise_std, settings.learn_noise)


def _check_memory(settings: Settings, architecture: Architecture, device: torch.device) -> None:
    """Refuse a network whose training could not fit the memory: the posterior, its gradient, Adam's state, the draws.

    Raises:
        bbb.system.DeviceError: it is too large.
    """
    dim = num_weights(architecture.layers)
    shapes = [layer.matrix_shape for layer in architecture.layers]
    parameters = 2 * dim + settings.num_flows * num_flow_parameters(shapes, settings.flow)
    needed = 4 * settings.num_replicas * (4 * parameters + 3 * settings.num_samples * dim)
    available = memory(device)
    if needed > available:
        raise DeviceError(
            f"num_hidden={settings.num_hidden}: training {dim:,} weights with num_layers={settings.num_layers}, "
            f"num_flows={settings.num_flows}, num_samples={settings.num_samples} and "
            f"num_replicas={settings.num_replicas} takes {needed / 2**30:,.0f} GiB, {device} has "
            f"{available / 2**30:,.0f}; make one of them smaller"
        )


def _check_layout(settings: Settings, source: Source, architecture: Architecture) -> None:
    """Refuse a source whose layers or flows differ from the configuration; a head that is not kept may differ.

    Raises:
        bbb.networks.WeightsError: they differ.
    """
    keeps_head = _keeps_head(settings, source)
    own_flows = source.about["flow"], source.about["num_flows"]
    wanted_flows = (settings.flow, settings.num_flows) if settings.num_flows else (None, 0)
    end = None if keeps_head else -1
    if source.network.architecture.layers[:end] == architecture.layers[:end] and own_flows == wanted_flows:
        return
    change = "num_layers, num_hidden, network, dataset, classes, num_flows or flow" + ("; or head=fresh" * keeps_head)
    raise WeightsError(
        f"pretrained={settings.pretrained!r}: {source.record['weights']} has layers of "
        f"{_layout(source.network.architecture, *own_flows)}, the configuration asks for "
        f"{_layout(architecture, *wanted_flows)}; change {change}"
    )


def _layout(architecture: Architecture, flow: str | None, num_flows: int) -> str:
    """Describe what must agree between weights and a configuration."""
    return f"{architecture} and {num_flows} {flow} flows" if num_flows else str(architecture)
