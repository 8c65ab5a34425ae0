"""Memory for flows on the weight matrices of L layers at once: stacks of small matrices, and how to fill them.

Layers with fewer rows or columns than the largest one are filled up with zeros, which change no product.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from bbb.distributions.matrix_planar import MatrixPlanarFlow


class Places(NamedTuple):
    """Where the numbers of a draw stand, each ``(D,)`` and apart from the others.

    Attributes:
        mean: what the deviation is from.
        deviation: what goes through the flows.
        image: the mean, and on it what became of the deviation.
        grad_image: the gradient at the image.
        grad_log_scale: the gradient at the logarithm of a factor on the deviation, deviation times gradient at it.
    """

    mean: Tensor
    deviation: Tensor
    image: Tensor
    grad_image: Tensor
    grad_log_scale: Tensor


class Pairs:
    """Tensors of single layers, and where they stand in a stack.

    Args:
        pairs: of a tensor, and of a view of a stack.
    """

    def __init__(self, pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
        pairs = list(pairs)
        self._single, self._stacked = [single for single, _ in pairs], [stacked for _, stacked in pairs]

    def stack(self) -> None:
        """Copy to the stacks."""
        if self._single:
            torch._foreach_copy_(self._stacked, self._single)

    def unstack(self, is_first: bool = True) -> None:
        """Copy from the stacks, or add."""
        if self._single and is_first:
            torch._foreach_copy_(self._single, self._stacked)
        elif self._single:
            torch._foreach_add_(self._single, self._stacked)


class Layer(NamedTuple):
    """A layer's kernel ``(out, in)`` in each place, and its views of the stacks, without the bias."""

    kernel: Places
    columns: Tensor  # b and d, (2 K, in)
    d: Tensor
    along: Tensor  # Z d, (out, K)
    left: Tensor  # (out, 2 K)
    grad_left: Tensor
    grad_along: Tensor
    grad_columns: Tensor


class LayerStacks:
    """The memory of flows that run together.

    Args:
        flows: of each layer, in the order of the flat vector, all with K maps.
        places: where the numbers of a draw stand.

    Attributes:
        inputs: parameters, and biases of mean and deviation.
        rows: the columns a and c, then Z d, the bias of Z, and that of the gradient at the image,
            ``(L, out, 3 K + 2)``.
        columns: the rows b and d, the bias last, ``(L, 2 K, in + 1)``.
        left: the left factor of the update, of which ``columns`` is the right one, ``(L, out, 2 K)``.
        layers: their views.
        learnt: the parameters, and memory for their gradients.
    """

    def __init__(self, flows: Sequence[MatrixPlanarFlow], places: Places) -> None:
        num, k = len(flows), len(flows[0].b)
        shapes = [_kernel_shape(flow) for flow in flows]
        most_rows, most_columns = (max(sizes) for sizes in zip(*shapes, strict=True))
        new = torch.zeros_like(places.deviation[:0]).new_zeros
        self.rows, self.columns = new(num, most_rows, 3 * k + 2), new(num, 2 * k, most_columns + 1)
        self.b, self.units = new(num, k), new(num, 2 * k)
        self.left, self.grad_left, self.grad_rows = (new(num, most_rows, 2 * k) for _ in range(3))
        self.grad_along = new(num, most_rows, k)
        self.mean_bias, self.bias_out = new(num, most_rows, 1), new(num, most_rows, 1)
        self.grad_columns, self.grad_b = torch.zeros_like(self.columns), torch.zeros_like(self.b)
        self.learnt = [(value, torch.empty_like(value, requires_grad=False)) for f in flows for value in f.parameters()]
        self.layers: list[Layer] = []
        parameters: list[tuple[Tensor, Tensor]] = []
        gradients: list[tuple[Tensor, Tensor]] = []
        biases: tuple[list[tuple[Tensor, Tensor]], ...] = ([], [], [], [], [])
        of, start = dict(self.learnt), 0
        for i, (flow, (num_out, num_in)) in enumerate(zip(flows, shapes, strict=True)):
            end = start + num_out * num_in
            self.layers.append(self._layer(i, Places(*(place[start:end].view(num_out, num_in) for place in places))))
            start = end + num_out * flow.has_bias
            if flow.has_bias:
                stacks = self.mean_bias, self.rows[..., -2:-1], self.bias_out, self.rows[..., -1:], self.bias_out
                for pairs, place, stack in zip(biases, places, stacks, strict=True):
                    pairs.append((place[end:start], stack[i, :num_out, 0]))
            learnt = flow.rows.detach(), flow.columns.detach(), flow.b.detach()
            parameters += _pairs(*learnt, self.rows[i, :, : 2 * k], self.columns[i], self.b[i], num_in)
            parameters.append((flow.units.unsqueeze(1).expand(2, k), self.units[i].view(2, k)))
            grads = of[flow.rows], of[flow.columns], of[flow.b]
            gradients += _pairs(*grads, self.grad_rows[i], self.grad_columns[i], self.grad_b[i], num_in)
        of_mean, of_deviation, of_image, of_grad_image, of_grad_log_scale = biases
        self.inputs, self.image_bias = Pairs(parameters + of_mean + of_deviation), Pairs(of_image)
        self.grad_image_bias, self.grad_log_scale_bias = Pairs(of_grad_image), Pairs(of_grad_log_scale)
        self.gradients = Pairs(gradients)

    def _layer(self, i: int, kernel: Places) -> Layer:
        (num_out, num_in), k = kernel.mean.shape, self.b.shape[1]
        columns = self.columns[i, :, :num_in]
        return Layer(
            kernel,
            columns,
            d=columns[k:],
            along=self.rows[i, :num_out, 2 * k : 3 * k],
            left=self.left[i, :num_out],
            grad_left=self.grad_left[i, :num_out],
            grad_along=self.grad_along[i, :num_out],
            grad_columns=self.grad_columns[i, :, :num_in],
        )


def _kernel_shape(flow: MatrixPlanarFlow) -> tuple[int, int]:
    return flow.rows.shape[2], flow.columns.shape[2] - flow.has_bias


def _pairs(
    rows: Tensor, columns: Tensor, b: Tensor, of_rows: Tensor, of_columns: Tensor, of_b: Tensor, num_in: int
) -> list[tuple[Tensor, Tensor]]:
    """Pair a flow's parameters, or their gradients, with their places in the stacks."""
    rows, columns = rows.flatten(0, 1).T, columns.flatten(0, 1)
    kernel = columns[:, :num_in], of_columns[:, :num_in]
    bias = [(columns[:, -1], of_columns[:, -1])] if columns.shape[1] > num_in else []
    return [(rows, of_rows[: len(rows)]), kernel, (b, of_b), *bias]
