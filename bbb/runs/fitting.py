"""Train a posterior over one's own network and data, from Python, without configuration or Sacred."""

import copy
import hashlib
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from bbb.data import Normalization, Split, as_split, as_tensor, check_alike, standardization
from bbb.distributions import WeightDistribution, gaussian_prior
from bbb.inference import PLAIN, Categorical, Epoch, Estimator, GaussianNoise, Likelihood, Streams, Training
from bbb.networks import Architecture, BayesianNetwork, ModuleArchitecture, initial_network, num_weights
from bbb.runs.folders import CHECKPOINT, WEIGHTS
from bbb.runs.posterior import Posterior, Prior
from bbb.runs.progress import Progress, describe, load_progress
from bbb.system import InputError

Array = NDArray[np.generic] | Tensor
NUMBERS = "numbers, in an array or a tensor"


def fit(
    network: nn.Module | Architecture,
    x: Array,
    y: Array,
    *,
    validation: tuple[Array, Array] | None = None,
    prior: Prior | WeightDistribution | float = 1.0,
    likelihood: Likelihood | None = None,
    deterministic: tuple[str, ...] = (),
    num_epochs: int = 20,
    batch_size: int = 128,
    lr: float = 1e-3,
    temperature: float = 1.0,
    estimator: Estimator = "local",
    num_samples: int = 1,
    init_std: float = 0.02,
    seed: int = 1,
    device: str | torch.device = "cpu",
    folder: str | Path | None = None,
    show_progress: bool = True,
) -> Posterior:
    """Train a posterior over the weights of a network by Bayes by Backprop.

    Means start as a ReLU network's weights do (He et al. 2015). Bytes are divided by 126, as in Blundell et al. 2015;
    floats are standardised. Under the prior that a posterior has become, inputs keep the normalization of its training.

    Args:
        network: an ordinary module of Linear and Conv2d layers, or an :class:`bbb.networks.Architecture`.
        x: inputs ``(N, ...)``: bytes, or floats.
        y: classes ``(N,)`` counted from 0, or numbers ``(N,)`` or ``(N, C)``.
        validation: inputs and labels to score after each epoch.
        prior: p(w): ``posterior.as_prior()``, with whose normalization inputs are read and at whose deterministic
            layers those of the network start; any distribution over the weights; or the standard deviation of a
            Gaussian at zero. Training starts at the centre of a prior that is no number.
        likelihood: p(y | outputs); by default categorical for classes; for numbers Gaussian, with a noise that is
            learnt.
        deterministic: names of layers of a module that are not to be Bayesian.
        num_epochs: passes over the data.
        batch_size: examples per step.
        lr: Adam's learning rate, which a cosine takes to 0.
        temperature: weight of the KL; 1 is the ELBO.
        estimator: ``local`` (noise on the activations of dense layers, drawn kernels) or ``weights`` (drawn weights).
        num_samples: S, draws per step.
        init_std: standard deviation of every weight's posterior at the start.
        seed: of everything random.
        device: where to compute.
        folder: where a checkpoint is saved after each epoch, and weights and log in the end. A training that was
            stopped there goes on from its checkpoint, given the same data, network and arguments. None saves nothing.
        show_progress: whether to show a bar with the time left.

    Raises:
        bbb.system.InputError: the data or the network cannot be used; the message says why.
        bbb.inference.DivergedError: the loss became NaN or infinite.
    """
    if estimator not in get_args(Estimator):
        raise InputError(f"estimator={estimator}: must be one of {', '.join(get_args(Estimator))}")
    if not isinstance(prior, Prior | WeightDistribution) and not prior > 0:
        raise InputError(f"prior={prior}: must be posterior.as_prior(), a distribution or a standard deviation above 0")
    place = torch.device(device)
    train = _split(x, y).to(place)
    if likelihood is None:
        likelihood = _default_likelihood(train)
    _check_labels(likelihood, train, "y")
    held_out = None
    if validation is not None:
        if len(validation) != 2:
            raise InputError("validation: must be a pair (x, y), inputs and labels")
        held_out = _split(*validation, "validation ").to(place)
        check_alike(train, held_out, "the data and validation")
        _check_labels(likelihood, held_out, "validation y")
    architecture: Architecture
    if isinstance(network, Architecture):
        architecture = network.copy()
    else:
        architecture = ModuleArchitecture(network, train.input_shape, likelihood.num_outputs, "module", deterministic)
    takes_bytes = train.images.dtype == torch.uint8
    start, p = _network_and_prior(architecture, train, prior, init_std, seed)
    plan = replace(
        PLAIN,
        num_epochs=num_epochs,
        batch_size=batch_size,
        num_samples=num_samples,
        lr=lr,
        temperature=temperature,
        estimator=estimator,
        noise_reuse=1,
    )
    order, weights = (torch.Generator(where).manual_seed(seed + 1) for where in ("cpu", place))
    streams = Streams(order, weights, validation_seed=seed)
    process = Training(start, likelihood.to(place), p, train, held_out, plan, streams)
    saved_in = Path(folder) if folder is not None else None
    about: dict[str, Any] = {"prior_inflation": 1.0, "source": None, "inputs": None}
    if saved_in is not None:
        about["inputs"] = _fingerprint(process, p, train, held_out, seed)
    _train(process, saved_in, about, show_progress)
    posterior = Posterior(start, likelihood, takes_bytes=takes_bytes, input_shape=train.input_shape)
    if saved_in is not None:
        posterior.save(saved_in / WEIGHTS)
        (saved_in / CHECKPOINT).unlink(missing_ok=True)
    return posterior


def _network_and_prior(
    architecture: Architecture, train: Split, prior: Prior | WeightDistribution | float, init_std: float, seed: int
) -> tuple[BayesianNetwork, WeightDistribution]:
    """Make the network at its start, and its prior, where the data are."""
    place, takes_bytes = train.labels.device, train.images.dtype == torch.uint8
    if isinstance(prior, Prior):
        normalization = copy.deepcopy(prior.normalization)
        _check_prior(prior, architecture, train)
    else:
        normalization = Normalization() if takes_bytes else standardization(train.images, train.input_shape)
    draws = torch.Generator().manual_seed(seed)
    start = initial_network(architecture, init_std, draws, normalization=normalization).to(place)
    if not isinstance(prior, Prior | WeightDistribution):
        return start, gaussian_prior(start.posterior.dim, prior, place)
    if isinstance(prior, Prior) and start.fixed is not None:
        start.fixed.load_state_dict(dict(prior.fixed))
    distribution = prior.distribution if isinstance(prior, Prior) else prior
    posterior = distribution.narrowed(init_std).requires_grad_(True)
    return start.with_posterior(posterior).to(place), distribution.to(place)


def _check_prior(prior: Prior, architecture: Architecture, train: Split) -> None:
    """Refuse a prior whose weights would mean something else for this network and these inputs.

    Raises:
        InputError: the message says why.
    """
    if (train.images.dtype == torch.uint8) != prior.takes_bytes:
        kind, other = ("bytes, 0..255", "floats") if prior.takes_bytes else ("floats", "bytes")
        raise InputError(f"x: holds {other}, and the prior was learnt on {kind}; give {kind}, in the units of then")
    ours = {} if architecture.fixed is None else architecture.fixed.state_dict()
    num_inputs = next((len(t) for t in prior.normalization.buffers()), train.images.shape[1])
    is_same = {name: t.shape for name, t in ours.items()} == {name: t.shape for name, t in prior.fixed.items()}
    if architecture.num_inputs != num_inputs or prior.distribution.dim != num_weights(architecture.layers):
        raise InputError(
            f"prior: is over {prior.distribution.dim} weights of a network for {num_inputs} inputs; this one has "
            f"{num_weights(architecture.layers)} and {architecture.num_inputs}; it must be the same network"
        )
    if not is_same:
        raise InputError(
            f"prior: has the deterministic parameters {', '.join(prior.fixed) or 'none'}; the network has "
            f"{', '.join(ours) or 'none'}; both trainings need the same network and the same deterministic="
        )


def _fingerprint(process: Training, prior: WeightDistribution, train: Split, held_out: Split | None, seed: int) -> str:
    """Compute a SHA-256 of all that decides how a training goes: data, plan, prior, start and seed."""
    digest = hashlib.sha256(repr((process.plan, seed, process.network.architecture.layers)).encode())
    modules = process.network, process.likelihood, prior
    tensors = [tensor for module in modules for _, tensor in sorted(module.state_dict().items())]
    for split in (train, held_out):
        tensors += [] if split is None else [split.images, split.labels]
    for tensor in tensors:
        digest.update(repr(tuple(tensor.shape)).encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _train(process: Training, folder: Path | None, about: Mapping[str, Any], show_progress: bool) -> None:
    """Train with a bar, from a checkpoint if there is one.

    Raises:
        InputError: the checkpoint is that of another training.
    """
    progress = Progress(process, folder, about, minutes=5.0)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / CHECKPOINT).exists():
            state = load_progress(folder, process.train.labels.device)
            if state.get("inputs") != about["inputs"]:
                raise InputError(
                    f"{folder / CHECKPOINT}: is of a training with other data, another network or other arguments; "
                    "name another folder, or remove that file to start again"
                )
            progress.restore(state)
    with _progress_bar(process.num_steps, show_progress) as bar:

        def on_step(step: int, num_steps: int) -> None:
            bar.update(step - bar.n)

        def on_epoch(epoch: Epoch) -> None:
            bar.set_postfix_str(describe(epoch, process.plan.num_epochs).split(" | ", 1)[1].rsplit(" | ", 1)[0])

        progress.train(on_epoch, on_step)


def _progress_bar(num_steps: int, is_shown: bool) -> "tqdm[Any]":
    """Make a bar for the terminal or the notebook; a notebook without ipywidgets gets one of plain text."""
    in_notebook = "ipykernel.zmqshell" in sys.modules
    kind = tqdm
    if in_notebook and find_spec("ipywidgets") is not None:  # else tqdm would warn, at each first use
        from tqdm.auto import tqdm as kind
    disable = None if is_shown and not in_notebook else not is_shown  # None: disabled if the output is not a terminal
    return kind(total=num_steps, unit=" steps", disable=disable)


def _split(x: Array, y: Array, prefix: str = "") -> Split:
    """Check and flatten a user's data; whole numbers 0..255 are bytes, and True and False are classes."""
    inputs, labels = as_tensor(x, f"{prefix}x", NUMBERS), as_tensor(y, f"{prefix}y", NUMBERS)
    if not inputs.is_floating_point() and inputs.numel() > 0:
        if inputs.min() < 0 or inputs.max() > 255:
            raise InputError(f"{prefix}x: whole numbers must be bytes, 0..255; give floats otherwise")
        inputs = inputs.to(torch.uint8)
    return as_split(inputs, labels.long() if labels.dtype == torch.bool else labels, f"{prefix}x", f"{prefix}y")


def _check_labels(likelihood: Likelihood, split: Split, name: str) -> None:
    """Refuse labels that a likelihood gives no probability.

    Raises:
        InputError: the message says why.
    """
    takes_classes, num = likelihood.score == "accuracy", likelihood.num_outputs
    if split.has_classes != takes_classes:
        kind, wanted = ("classes", "floats") if split.has_classes else ("floats", "classes, as whole numbers")
        raise InputError(f"{name}: holds {kind}; likelihood={type(likelihood).__name__} needs {wanted}")
    if takes_classes and int(split.labels.max()) >= num:
        raise InputError(
            f"{name}: holds class {int(split.labels.max())}; must be 0..{num - 1}, the network's {num} outputs"
        )
    width = 1 if split.labels.ndim == 1 else split.labels.shape[1]
    if not takes_classes and width != num:
        raise InputError(f"{name}: has {width} numbers for each example; the likelihood has num_outputs={num}")


def _default_likelihood(train: Split) -> Likelihood:
    if train.has_classes:
        return Categorical(int(train.labels.max()) + 1)
    num_outputs = 1 if train.labels.ndim == 1 else train.labels.shape[1]
    return GaussianNoise(num_outputs, max(float(train.labels.std()), 1e-6), is_learnt=True)
