r"""Planar flows on the weight matrices of all layers, for one draw, without a graph and with one recursion.

With Z a layer's deviation as a matrix, its bias last, and a, b, c, d the factors of its vectors, K maps are one update.
In the notation of :mod:`bbb.distributions.recursion`, and in the units of the vectors,

.. math:: Y = Z + \sum_k t_k \, a_k b_k^T + (t c)_k \, c_k d_k^T, \qquad x_k = c_k^T Z d_k.

Only the thin products with Z and with dL/dY are as large as the layer. All else is small, and takes about as long to
call as to compute. So the small matrices of all layers are stacked, and each operation on them is called once: see
:mod:`bbb.distributions.layer_stacks`.

The plain version is :meth:`bbb.distributions.matrix_planar.MatrixPlanarFlow.forward`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from bbb.distributions.layer_stacks import LayerStacks, Places
from bbb.distributions.matrix_planar import MatrixPlanarFlow
from bbb.distributions.recursion import couple, couple_backward


class MatrixPlanarInPlace:
    """K maps on each of L layers, for one draw after another.

    Args:
        flows: of each layer, in the order of the flat vector, all with K maps.
        places: where the numbers of a draw stand.
    """

    def __init__(self, flows: Sequence[MatrixPlanarFlow], places: Places) -> None:
        stacks, k = LayerStacks(flows, places), len(flows[0].b)
        self._stacks, self._places, self._num_flows = stacks, places, k
        self._saved: tuple[Tensor, ...] = ()
        new = torch.zeros_like(stacks.columns[:0, 0, 0]).new_zeros
        num = len(flows)
        # Products of vectors and gradients: what the stacked rows, and the columns, are multiplied with.
        self._mixed_rows, self._mixed_columns = new(num, 3 * k + 2, 2 * k), new(num, 2 * k, 2 * k)
        # Views of the stacks.
        rows, columns = stacks.rows, stacks.columns
        self._ac, self._c, self._d = rows[..., : 2 * k], rows[..., k : 2 * k], columns[:, k:]
        self._bias_of_columns, self._bias_of_d = columns[..., -1], columns[:, k:, -1]
        self._unit_w = stacks.units[:, -1:]

    @torch.no_grad()
    def forward(self, mean: Tensor) -> Tensor:
        """Write the image, ``mean (D,)`` plus f(deviation), and return log|det f'|, a scalar in nats."""
        stacks, k = self._stacks, self._num_flows
        torch.add(mean, self._places.deviation, out=self._places.image)
        stacks.parameters.stack()
        stacks.bias.stack()
        for layer in stacks.layers:
            torch.mm(layer.deviation, layer.d.T, out=layer.along)
        by_rows, by_columns = torch.bmm(self._c.mT, stacks.rows), torch.bmm(self._d, stacks.columns.mT)
        by_rows, along, c_bias, _ = by_rows.split([2 * k, k, 1, 1], 2)  # with a and c, with Z d, with the bias of Z
        projection = torch.addcmul(along.diagonal(dim1=1, dim2=2), c_bias.squeeze(2), self._bias_of_d)
        unit_products = (stacks.units * self._unit_w).unsqueeze(1)
        products = (by_rows * by_columns).mul_(unit_products)
        t, tc, log_det, saved = couple(
            (projection * self._unit_w).unsqueeze(1), products[..., :k], products[..., k:], stacks.b
        )
        coefficients = torch.cat([t, tc], 2).mul_(stacks.units.unsqueeze(1))
        self._saved = by_rows, by_columns, c_bias.squeeze(2), unit_products, coefficients, *saved
        torch.mul(self._ac, coefficients, out=stacks.left)
        for layer in stacks.layers:
            layer.image.addmm_(layer.left, layer.columns)
        torch.bmm(stacks.left, self._bias_of_columns.unsqueeze(2), out=stacks.bias_out)
        stacks.image_bias.unstack(is_first=False)
        return log_det.sum()

    @torch.no_grad()
    def backward(self, grad_log_det: float | Tensor, is_first: bool) -> None:
        """Write the gradient at the deviation, and store that of the flows' parameters.

        Args:
            grad_log_det: the gradient at the log-determinant.
            is_first: whether this is a minibatch's first draw. Later ones add to the gradients of the parameters.
        """
        stacks, k = self._stacks, self._num_flows
        by_rows, by_columns, c_bias, unit_products, coefficients, *saved = self._saved
        stacks.grad_bias.stack()
        grad_bias = stacks.rows[..., -1:]
        for layer in stacks.layers:
            torch.mm(layer.grad_image, layer.columns.T, out=layer.grad_left)
        ac_bias = torch.bmm(self._ac.mT, grad_bias).squeeze(2)
        grad_coefficients = (stacks.grad_left * self._ac).sum(1).addcmul_(ac_bias, self._bias_of_columns)
        grad_coefficients = grad_coefficients.mul_(stacks.units).unsqueeze(1)
        of_log_det = torch.zeros_like(self._unit_w).add_(grad_log_det)
        grad_projection, grad_uw, grad_ww, grad_b = couple_backward(
            tuple(saved), grad_coefficients[..., :k], grad_coefficients[..., k:], of_log_det
        )
        stacks.grad_b.copy_(grad_b)
        grad_x = grad_projection.squeeze(1) * self._unit_w
        # The products of vectors, w_k.u_j = (c_k.a_j)(d_k.b_j) and w_k.w_j = (c_k.c_j)(d_k.d_j).
        grad_products = torch.cat([grad_uw, grad_ww + grad_ww.mT], 2).mul_(unit_products)
        mixed_rows, mixed_columns = self._mixed_rows, self._mixed_columns
        for mixed, factor in ((mixed_rows, by_columns), (mixed_columns, by_rows)):
            torch.mul(grad_products, factor, out=mixed[:, k : 2 * k])
            mixed[:, :k, k:].copy_(mixed[:, k : 2 * k, :k].mT)
        # The projections c^T Z d, with Z d for the kernel and with the bias; and the bias's part of the update.
        mixed_rows[:, 2 * k : 3 * k, k:].diagonal(dim1=1, dim2=2).copy_(grad_x)
        torch.mul(grad_x, self._bias_of_d, out=mixed_rows[:, 3 * k, k:])
        torch.mul(coefficients.squeeze(1), self._bias_of_columns, out=mixed_rows[:, -1])
        torch.mul(stacks.grad_left, coefficients, out=stacks.grad_rows).baddbmm_(stacks.rows, mixed_rows)
        torch.mul(self._c, grad_x.unsqueeze(1), out=stacks.grad_along)
        for layer in stacks.layers:
            torch.mm(layer.left.T, layer.grad_image, out=layer.grad_columns)
            layer.grad_columns[k:].addmm_(layer.grad_along.T, layer.deviation)
            torch.addmm(layer.grad_image, layer.grad_along, layer.d, out=layer.grad_deviation)
        of_bias = stacks.grad_columns[..., -1]
        torch.mul(coefficients.squeeze(1), ac_bias, out=of_bias)
        of_bias[:, k:].addcmul_(grad_x, c_bias)
        stacks.grad_columns.baddbmm_(mixed_columns, stacks.columns)
        torch.baddbmm(grad_bias, stacks.grad_along, self._bias_of_d.unsqueeze(2), out=stacks.bias_out)
        stacks.grad_deviation_bias.unstack()
        stacks.gradients.unstack(is_first)
        for parameter, gradient in stacks.learnt:
            parameter.grad = gradient
