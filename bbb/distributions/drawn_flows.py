"""Flows on one draw of the weights: from its deviation to its weights, and from their gradient back."""

from typing import Protocol

import torch
from torch import Tensor

from bbb.distributions.flowed import FlowedGaussian
from bbb.distributions.layer_stacks import Places
from bbb.distributions.matrix_planar import MatrixPlanarFlow
from bbb.distributions.matrix_planar_in_place import MatrixPlanarInPlace


class DrawnFlows(Protocol):
    """The flows of a posterior, for one draw after another; see :class:`Places` for where their numbers stand."""

    def forward(self) -> Tensor:
        """Write the image, mean + f(deviation), and return log|det f'|, a scalar in nats."""

    def backward(self, grad_log_det: float | Tensor, is_first: bool) -> None:
        """Write the gradient at the deviation's scale, and store that of the flows' parameters.

        Args:
            grad_log_det: the gradient at the log-determinant.
            is_first: whether this is a minibatch's first draw. Later ones add to the gradients of the parameters.
        """


def drawn_flows(flowed: FlowedGaussian, places: Places) -> DrawnFlows:
    """Choose how draws go through flows: by hand where that is faster.

    Args:
        flowed: the posterior.
        places: where the numbers of a draw stand.
    """
    flows = [flow for flow in flowed.flow_list if isinstance(flow, MatrixPlanarFlow)]
    if len(flows) == len(flowed.flow_list) and len({len(flow.b) for flow in flows}) == 1:
        return MatrixPlanarInPlace(flows, places)
    return FlowsByAutograd(flowed, places)


class FlowsByAutograd:
    """Any flows, and their gradient by autograd: the plain version.

    Args:
        flowed: the posterior.
        places: where the numbers of a draw stand.
    """

    def __init__(self, flowed: FlowedGaussian, places: Places) -> None:
        self._flowed, self._places = flowed, places
        self._start, self._log_det = places.deviation, places.deviation[:0]
        self._images: list[Tensor] = []

    def forward(self) -> Tensor:
        with torch.enable_grad():
            self._start = self._places.deviation.unsqueeze(0).requires_grad_()
            self._images, self._log_det = self._flowed.images(self._start)
        parts = (whole.split(self._flowed.dims) for whole in (self._places.mean, self._places.image))
        for start, place, image in zip(*parts, self._images, strict=True):
            torch.add(start, image.detach()[0], out=place)
        return self._log_det.detach()[0]

    def backward(self, grad_log_det: float | Tensor, is_first: bool) -> None:
        grads = self._places.grad_image.unsqueeze(0).split(self._flowed.dims, dim=1)
        of_log_det = torch.zeros_like(self._log_det).add_(grad_log_det)
        inputs = [self._start, *self._flowed.flows.parameters()]
        found = torch.autograd.grad([*self._images, self._log_det], inputs, [*grads, of_log_det])
        torch.mul(found[0][0], self._places.deviation, out=self._places.grad_log_scale)
        for parameter, value in zip(inputs[1:], found[1:], strict=True):
            parameter.grad = value if is_first or parameter.grad is None else parameter.grad + value
