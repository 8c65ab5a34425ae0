"""Running an architecture with dropout: hidden units are dropped for each example anew."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bbb.distributions import NoiseSource, drop, normal
from bbb.networks.architecture import Apply, Architecture
from bbb.networks.forward import forward_drawn, run_drawn
from bbb.networks.gradients import LayerGradients, Pass
from bbb.networks.layers import Layer, LayerWeights
from bbb.networks.local import runs


def forward_dropped(
    architecture: Architecture, weights: Sequence[LayerWeights], x: Tensor, share: float, noise: NoiseSource
) -> Tensor:
    """Run a network and drop hidden units, each example's own (Srivastava et al. 2014).

    The units are the inputs of all layers but the first: of a dense layer its inputs, of a convolution its input
    channels. What is left is divided by 1 - share. For a single example this is a draw from
    :class:`bbb.distributions.Dropout`. A dense layer that runs on several vectors of an example drops units of each of
    them anew.

    Args:
        architecture: the network.
        weights: kernels ``(1, out, *rest)`` and biases ``(1, out)`` of each layer.
        x: inputs ``(B, P)``.
        share: probability that a unit is dropped, in [0, 1).
        noise: its source; each unit of each example takes one number.

    Returns:
        Outputs ``(1, B, C)``.
    """
    return forward_drawn(_Dropped(architecture, share, noise), weights, x)


def run_dropped(
    architecture: Architecture,
    weights: Sequence[LayerWeights],
    x: Tensor,
    share: float,
    noise: NoiseSource,
    gradients: LayerGradients,
) -> Pass:
    """Do what :func:`forward_dropped` does, with weights as :func:`run_drawn` takes them, to train a network."""
    return run_drawn(_Dropped(architecture, share, noise), weights, x, gradients)


def num_dropout_noise(architecture: Architecture, num_examples: int) -> int:
    """Count the numbers that :func:`forward_dropped` takes from its source."""
    masks = (_mask_shape(run.layer, run.inputs) for run in runs(architecture) if run.number > 0)
    return num_examples * sum(shape.numel() for shape in masks)


@dataclass(frozen=True)
class _Dropped(Architecture):
    whole: Architecture
    share: float
    noise: NoiseSource

    @property
    def layers(self) -> tuple[Layer, ...]:
        return self.whole.layers

    @property
    def num_inputs(self) -> int:
        return self.whole.num_inputs

    def __str__(self) -> str:
        return str(self.whole)

    def forward(self, apply: Apply, x: Tensor) -> Tensor:
        def apply_to_kept(i: int, h: Tensor) -> Tensor:
            if i == 0:
                return apply(i, h)
            return apply(i, h * drop(normal(_mask_shape(self.layers[i], h.shape), h, self.noise), self.share))

        return self.whole.forward(apply_to_kept, x)


def _mask_shape(layer: Layer, inputs: torch.Size) -> torch.Size:
    """Tell the shape of a mask of the units in inputs ``(..., units)`` or ``(..., channels, height, width)``."""
    end = len(inputs) - layer.num_axes + 1  # behind the axis of the units
    return torch.Size([*inputs[:end], *[1] * (layer.num_axes - 1)])
