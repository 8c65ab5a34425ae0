"""LeNet-5 as the pruning papers have it: two convolutions with max-pooling, 500 units, the head."""

import math
from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from bbb.networks.layers import Shape
from bbb.networks.module import ModuleArchitecture, NetworkError

SMALLEST_SIDE = 16  # pixels: two 5 x 5 convolutions and two poolings leave one


def lenet(input_shape: Shape, num_outputs: int, deterministic: Sequence[str] = ()) -> ModuleArchitecture:
    """Create LeNet-5: 20 and 50 kernels of 5 x 5, each followed by 2 x 2 max-pooling, 500 ReLU units, the head.

    The convolutional network of LeCun et al. 1998, in the form that the pruning literature compares on (for one,
    Molchanov et al. 2017, arXiv 1701.05369): 431,080 weights for 28 x 28 pixels and ten classes.

    Args:
        input_shape: channels, height and width of an image.
        num_outputs: C.
        deterministic: names of layers that are not to be Bayesian: ``conv1``, ``conv2``, ``hidden``.

    Raises:
        NetworkError: the inputs are no images, or too small.
    """
    if len(input_shape) != 3 or min(input_shape[1:]) < SMALLEST_SIDE:
        raise NetworkError(
            f"network=lenet: takes images of at least {SMALLEST_SIDE} x {SMALLEST_SIDE} pixels, not inputs of shape "
            f"{tuple(input_shape)}; use network=mlp"
        )
    parts: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(input_shape[0], 20, 5),
        "pool1": nn.MaxPool2d(2),
        "conv2": nn.Conv2d(20, 50, 5),
        "pool2": nn.MaxPool2d(2),
        "flatten": nn.Flatten(),
        "hidden": nn.Linear(_pooled(input_shape), 500),
        "relu": nn.ReLU(),
        "head": nn.Linear(500, num_outputs),
    }
    return ModuleArchitecture(nn.Sequential(OrderedDict(parts)), input_shape, num_outputs, "lenet", deterministic)


def num_lenet_weights(input_shape: Shape, num_outputs: int) -> int:
    """Count the weights of :func:`lenet` for images of a shape, before anything is made for them."""
    return 20 * (25 * input_shape[0] + 1) + 50 * (25 * 20 + 1) + 500 * (_pooled(input_shape) + 1) + 501 * num_outputs


def _pooled(input_shape: Shape) -> int:
    """Count the numbers that the second pooling leaves."""
    return 50 * math.prod(((side - 4) // 2 - 4) // 2 for side in input_shape[1:])
