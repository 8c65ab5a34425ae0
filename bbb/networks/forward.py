"""Running an architecture under drawn weights."""

from collections.abc import Sequence

from torch import Tensor

from bbb.networks.architecture import Architecture
from bbb.networks.layers import LayerWeights


def forward_drawn(architecture: Architecture, weights: Sequence[LayerWeights], x: Tensor) -> Tensor:
    """Run a network under S sets of weights at once.

    Args:
        architecture: the network.
        weights: kernels ``(S, out, *rest)`` and biases ``(S, out)`` of each layer; for R replicas with the axes
            ``(S, R, ...)``.
        x: inputs ``(B, P)``, shared by all draws; ``(R, B, P)`` for replicas, each of which has its own.

    Returns:
        Outputs ``(S, B, C)``, or ``(S, R, B, C)``.
    """
    layers = architecture.layers
    draws = weights[0][0].shape[: -len(layers[0].shape)]
    if draws == (1,):  # a plain product is faster than a batched one of batch size 1

        def apply_single(i: int, h: Tensor) -> Tensor:
            kernel, bias = weights[i]
            return layers[i].apply(h, kernel.squeeze(0), None if bias is None else bias.squeeze(0))

        return architecture.forward(apply_single, x).unsqueeze(0)
    num_draws = len(draws)

    def apply(i: int, h: Tensor) -> Tensor:
        kernel, bias = weights[i]
        flat_bias = None if bias is None else bias.flatten(0, num_draws - 1)
        return layers[i].apply_batched(h, kernel.flatten(0, num_draws - 1), flat_bias)

    h = x.expand(*draws, *x.shape[-2:]).flatten(0, -3)
    return architecture.forward(apply, h).unflatten(0, draws)
