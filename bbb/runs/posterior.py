"""A trained posterior to work with from Python: predictions, weights and draws, as arrays and tensors."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bbb.data import Normalization, as_tensor
from bbb.distributions import WeightDistribution, mean_and_std
from bbb.inference import Categorical, GaussianNoise, Likelihood, mixture, predict, predict_draws, split_entropy
from bbb.networks import (
    Architecture,
    BayesianNetwork,
    Shape,
    WeightsError,
    load_weights,
    pruned_network,
    save_weights,
)
from bbb.runs.folders import find_weights
from bbb.system import InputError

PIXELS = 255.0  # floats in 0..1 stand for so many grey levels
Inputs = NDArray[np.generic] | Tensor


@dataclass(frozen=True)
class Prediction:
    """The posterior predictive of N inputs in C classes; entropies in nats.

    Attributes:
        probs: ``(N, C)``.
        entropy: of the predictive ``(N,)``; the sum of the two parts below.
        aleatoric: the mean entropy of a draw ``(N,)``: the noise that every draw of the weights predicts.
        epistemic: the mutual information of label and weights ``(N,)``: the disagreement between draws.
        classes: the C labels of the data set, in the order of ``probs``.
    """

    probs: Tensor
    entropy: Tensor
    aleatoric: Tensor
    epistemic: Tensor
    classes: tuple[int, ...]

    @property
    def labels(self) -> Tensor:
        """The most probable class of each input ``(N,)``, as the data set labels it."""
        return torch.tensor(self.classes)[self.probs.argmax(1).cpu()]


@dataclass(frozen=True)
class NumberPrediction:
    """The posterior predictive of N inputs with C numbers each: a mixture of S Gaussians.

    Attributes:
        means: of the S draws ``(S, N, C)``.
        noise_std: the standard deviation that all share.
    """

    means: Tensor
    noise_std: float

    @property
    def mean(self) -> Tensor:
        """Of the predictive, ``(N, C)``."""
        return self.means.mean(0)

    @property
    def epistemic(self) -> Tensor:
        """The standard deviation of the draws' means, ``(N, C)``."""
        return self.means.std(0, correction=0)

    @property
    def std(self) -> Tensor:
        """Of the predictive, noise included, ``(N, C)``."""
        return (self.means.var(0, correction=0) + self.noise_std**2).sqrt()

    def quantile(self, rank: float) -> Tensor:
        """Find the numbers ``(N, C)`` below which the predictive has a probability of ``rank``, by bisection."""
        spread = 10.0 * self.noise_std
        low, high = self.means.min(0).values - spread, self.means.max(0).values + spread
        for _ in range(60):
            middle = 0.5 * (low + high)
            below = torch.special.ndtr((middle - self.means) / self.noise_std).mean(0) < rank
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return 0.5 * (low + high)


@dataclass(frozen=True)
class LayerWeightsSummary:
    """Mean and standard deviation of a layer's weights: kernel ``(out, *rest)`` and bias ``(out,)``, None without."""

    kernel_mean: Tensor
    kernel_std: Tensor
    bias_mean: Tensor | None
    bias_std: Tensor | None

    @property
    def signal_to_noise(self) -> Tensor:
        """|mean| / std of the kernel (Blundell et al. 2015, section 5.1): what pruning goes by; 0 if it is removed."""
        return torch.where(self.kernel_std > 0, self.kernel_mean.abs() / self.kernel_std, 0.0)


@dataclass(frozen=True)
class Prior:
    """A prior for another training of a network, and what its weights need to mean what they did.

    Attributes:
        distribution: over the weights.
        normalization: of the inputs that the weights were learnt on.
        takes_bytes: whether these were bytes, 0..255.
        fixed: the parameters of the deterministic layers, at which theirs start; empty if there are none.
    """

    distribution: WeightDistribution
    normalization: Normalization
    takes_bytes: bool
    fixed: Mapping[str, Tensor]


class Posterior:
    """A network with its posterior and its likelihood.

    Args:
        network: the network.
        likelihood: p(y | outputs).
        classes: the labels of the data set; by default 0..C-1.
        takes_bytes: whether the network was trained on bytes, 0..255.
        input_shape: of one example; None for what the architecture knows of it.
    """

    def __init__(
        self,
        network: BayesianNetwork,
        likelihood: Likelihood,
        classes: tuple[int, ...] | None = None,
        takes_bytes: bool = True,
        input_shape: Shape | None = None,
    ) -> None:
        self.network, self.likelihood, self.takes_bytes = network.requires_grad_(False), likelihood, takes_bytes
        self.input_shape = input_shape
        self.classes = tuple(range(likelihood.num_outputs)) if classes is None else tuple(classes)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the layers with a posterior, the head last."""
        return self.network.architecture.names

    def predict(self, inputs: Inputs, num_samples: int = 100, seed: int = 0) -> Prediction | NumberPrediction:
        """Average predictions over draws of the weights.

        Args:
            inputs: ``(N, ...)``, or a single one, as an array or a tensor. A network that was trained on bytes takes
                bytes 0..255, or floats in 0..1.
            num_samples: S, draws of the weights.
            seed: of the draws.

        Raises:
            bbb.system.InputError: the inputs have another shape than those of training, or are not finite.
        """
        x = self._as_inputs(inputs)
        draws = torch.Generator(x.device).manual_seed(seed)
        members = self.network.replicas()
        if isinstance(self.likelihood, GaussianNoise):
            means = [predict(member, self.likelihood, x, num_samples, draws) for member in members]
            return NumberPrediction(self.likelihood.mix_replicas(means), self.likelihood.noise_std)
        log_probs = [
            torch.stack([*predict_draws(member, self.likelihood, x, num_samples, draws)]) for member in members
        ]
        together = torch.cat(log_probs)
        parts = split_entropy(together)
        return Prediction(mixture(together).exp(), parts.total, parts.aleatoric, parts.epistemic, self.classes)

    def score(self, inputs: Inputs, labels: Inputs, num_samples: int = 100, seed: int = 0) -> dict[str, float]:
        """Score the posterior predictive: error or RMSE, NLL and calibration, as a run's result does.

        Args:
            inputs: as in :meth:`predict`.
            labels: ``(N,)``, counted from 0 in the order of ``classes``; or numbers ``(N,)`` or ``(N, C)``.
            num_samples: S.
            seed: of the draws.

        Raises:
            bbb.system.InputError: the inputs are as :meth:`predict` refuses them, or the labels are not of this kind.
        """
        x = self._as_inputs(inputs)
        y = self._as_labels(labels, len(x))
        draws = torch.Generator(x.device).manual_seed(seed)
        predictives = [predict(member, self.likelihood, x, num_samples, draws) for member in self.network.replicas()]
        return self.likelihood.scores(self.likelihood.mix_replicas(predictives), y)

    def weights(self, name: str) -> LayerWeightsSummary:
        """Read means and standard deviations of a layer's weights; with flows, those of their Gaussian base.

        Raises:
            ValueError: there is no such layer.
        """
        if name not in self.names:
            raise ValueError(f"name={name!r}: there is no such layer; there are {', '.join(self.names)}")
        mean, std = (value.unsqueeze(0) for value in mean_and_std(self.network.posterior))
        i = self.names.index(name)
        (kernel_mean, bias_mean), (kernel_std, bias_std) = self.network.layers(mean)[i], self.network.layers(std)[i]
        parts = [None if part is None else part[0].clone() for part in (kernel_mean, kernel_std, bias_mean, bias_std)]
        return LayerWeightsSummary(parts[0], parts[1], parts[2], parts[3])  # type: ignore[arg-type]  # kernels exist

    def draws(self, num_samples: int, seed: int = 0) -> list[dict[str, Tensor]]:
        """Draw weights as state dictionaries, ``NAME.weight`` and ``NAME.bias``, each of one deterministic network."""
        generator = torch.Generator(self.network.posterior.device).manual_seed(seed)
        drawn = []
        for _ in range(num_samples):
            w, _ = self.network.posterior.rsample_and_log_prob(1, generator)
            state = {} if self.network.fixed is None else dict(self.network.fixed.state_dict())
            for name, (kernel, bias) in zip(self.names, self.network.layers(w), strict=True):
                state[f"{name}.weight"] = kernel[0].clone()
                if bias is not None:
                    state[f"{name}.bias"] = bias[0].clone()
            drawn.append(state)
        return drawn

    def as_prior(self, inflation: float = 1.0, floor: float = 0.0) -> Prior:
        """Make the posterior the prior of another training of the same network.

        Args:
            inflation: factor on every variance (see :meth:`bbb.distributions.WeightDistribution.widened`).
            floor: standard deviation added in quadrature to all weights.

        Returns:
            Copies: the widened distribution, the normalization and the deterministic layers.

        Raises:
            bbb.system.InputError: the posterior is a point, with dropout or without.
        """
        network = self.network
        if not network.posterior.makes_a_prior:
            raise InputError("a point has no variances and is no prior; train with posterior=gaussian or laplace")
        fixed = {} if network.fixed is None else copy.deepcopy(network.fixed.state_dict())
        distribution, normalization = network.posterior.widened(inflation, floor), copy.deepcopy(network.normalization)
        return Prior(distribution, normalization, self.takes_bytes, fixed)

    def pruned(self, share: float) -> "Posterior":
        """Copy the posterior without the weights that have the lowest |mean| / std; of a point, the lowest |mean|.

        Args:
            share: of the weights of all kernels, in [0, 1); biases stay.

        Raises:
            bbb.networks.PruningError: the share is not, or the posterior has flows or replicas, or is pruned already.
        """
        network = pruned_network(self.network, share)
        return Posterior(network, self.likelihood, self.classes, self.takes_bytes, self.input_shape)

    def save(self, path: str | Path) -> None:
        """Write a weights file, which :func:`load` reads."""
        about = {"classes": list(self.classes), "score": self.likelihood.score, "takes_bytes": self.takes_bytes}
        save_weights(Path(path), self.network, about, dict(self.likelihood.named_parameters()), self.input_shape)

    def _as_inputs(self, inputs: Inputs) -> Tensor:
        """Flatten inputs to ``(N, P)``, on the network's device, in the units of training."""
        x = as_tensor(inputs, "inputs:", "numbers").to(self.network.posterior.device)
        num_inputs = self.network.architecture.num_inputs
        if x.numel() == 0 or num_inputs not in (math.prod(x.shape), math.prod(x.shape[1:])):
            raise InputError(f"inputs: have shape {tuple(x.shape)}; must be (N, ...) with {num_inputs} numbers each")
        x = x.reshape(-1, num_inputs)
        if not x.is_floating_point():
            if self.takes_bytes and (x.min() < 0 or x.max() > PIXELS):
                raise InputError("inputs: whole numbers must be bytes, 0..255, as in training")
            return x.to(torch.uint8) if self.takes_bytes else x.float()
        if not x.isfinite().all():
            raise InputError("inputs: hold values that are not finite")
        if self.takes_bytes:
            if x.min() < 0 or x.max() > 1:
                raise InputError("inputs: floats must lie in 0..1, since training was on bytes; or give bytes, 0..255")
            return x.float() * PIXELS
        return x.float()

    def _as_labels(self, labels: Inputs, num: int) -> Tensor:
        """Check the labels of as many inputs, and put them on the network's device."""
        y, num_outputs = as_tensor(labels, "labels:", "numbers"), self.likelihood.num_outputs
        takes_classes = self.likelihood.score == "accuracy"
        shapes = [(num,)] if takes_classes else [(num,)] * (num_outputs == 1) + [(num, num_outputs)]
        if tuple(y.shape) not in shapes:
            wanted = " or ".join(map(str, shapes))
            raise InputError(f"labels: have shape {tuple(y.shape)} for {num} inputs; must be {wanted}")
        if not y.isfinite().all():
            raise InputError("labels: hold values that are not finite")
        if not takes_classes:
            return y.float().to(self.network.posterior.device)
        if y.is_floating_point():
            raise InputError(f"labels: hold floats; must be classes as whole numbers 0..{num_outputs - 1}")
        y = y.long()
        if y.min() < 0 or y.max() >= num_outputs:
            wrong = int(y.min() if y.min() < 0 else y.max())
            raise InputError(
                f"labels: hold {wrong}; must be 0..{num_outputs - 1}, counted in the order of classes={self.classes}"
            )
        return y.to(self.network.posterior.device)


def load(
    source: str | Path, network: str | nn.Module | Architecture | None = None, head: int | None = None
) -> Posterior:
    """Load the posterior of a finished run.

    Args:
        source: a weights file, a run's folder, or the name of an experiment, such as ``results/blundell``.
        network: a user's own network, which the file alone must not make run: ``FILE.py:FUNCTION``, or the module.
        head: after a sequence of tasks, the number of the head to predict with, counted from 0; None for the last.

    Raises:
        bbb.runs.ResultsError: there is no such run.
        bbb.networks.WeightsError: the file is damaged, or holds a user's network that was not given.
    """
    path = find_weights(str(source))
    loaded, about = load_weights(path, network=network, head=head)
    num_outputs = loaded.architecture.num_outputs
    classes = about.get("classes", about.get("digits"))
    if about.get("score", "accuracy") == "accuracy":
        likelihood: Likelihood = Categorical(num_outputs)
    else:
        likelihood = GaussianNoise(num_outputs, noise_std=1.0)
        if {*about["likelihood"]} != {"log_std"} or about["likelihood"]["log_std"].shape != ():
            raise WeightsError(f"{path}: damaged, it does not hold the noise of its likelihood")
        likelihood.load_state_dict(about["likelihood"])
    input_shape = None if "sizes" in about else tuple(map(int, about["input_shape"]))
    return Posterior(loaded, likelihood, classes, bool(about.get("takes_bytes", True)), input_shape)
