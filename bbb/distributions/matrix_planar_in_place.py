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
        self._stacks, num, k = LayerStacks(flows, places), len(flows), len(flows[0].b)
        self._num_flows = k
        rows, columns = self._stacks.rows, self._stacks.columns
        self._ac, self._c, self._d = rows[..., : 2 * k], rows[..., k : 2 * k], columns[:, k:]
        self._c_rows, self._columns_columns = self._c.mT, columns.mT
        self._bias, self._grad_bias = rows[..., -2:-1], rows[..., -1:]
        self._bias_of_columns, self._bias_of_d = columns[..., -1], columns[:, k:, -1]
        self._unit_w = self._stacks.units[:, -1:]
        # The products of c with all rows, which are a and c, Z d, and the bias of Z; and those of d with all columns.
        self._by_rows, self._by_columns = rows.new_zeros(num, k, 3 * k + 2), rows.new_zeros(num, k, 2 * k)
        self._by_ac, self._by_bias = self._by_rows[..., : 2 * k], self._by_rows[..., -2]
        self._by_along = self._by_rows[..., 2 * k : 3 * k].diagonal(dim1=1, dim2=2)
        self._saved: tuple[Tensor, ...] = ()
        # What rows and columns are multiplied with for their gradients.
        self._mixed_rows, self._mixed_columns = rows.new_zeros(num, 3 * k + 2, 2 * k), rows.new_zeros(num, 2 * k, 2 * k)
        self._of_along = self._mixed_rows[:, 2 * k : 3 * k, k:].diagonal(dim1=1, dim2=2)
        self._of_bias, self._of_grad_bias = self._mixed_rows[:, -2, k:], self._mixed_rows[:, -1]

    @torch.no_grad()
    def forward(self) -> Tensor:
        """Write the image, mean + f(deviation), and return log|det f'|, a scalar in nats."""
        stacks, k = self._stacks, self._num_flows
        stacks.inputs.stack()
        for layer in stacks.layers:
            torch.mm(layer.kernel.deviation, layer.d.T, out=layer.along)
        torch.bmm(self._c_rows, stacks.rows, out=self._by_rows)
        torch.bmm(self._d, self._columns_columns, out=self._by_columns)
        projection = torch.addcmul(self._by_along, self._by_bias, self._bias_of_d)
        unit_products = (stacks.units * self._unit_w).unsqueeze(1)
        products = (self._by_ac * self._by_columns).mul_(unit_products)
        projection = (projection * self._unit_w).unsqueeze(1)
        t, tc, log_det, saved = couple(projection, products[..., :k], products[..., k:], stacks.b)
        coefficients = torch.cat([t, tc], 2).mul_(stacks.units.unsqueeze(1))
        self._saved = unit_products, coefficients, *saved
        torch.mul(self._ac, coefficients, out=stacks.left)
        for layer in stacks.layers:
            kernel = layer.kernel
            torch.add(kernel.mean, kernel.deviation, out=kernel.image).addmm_(layer.left, layer.columns)
        torch.bmm(stacks.left, self._bias_of_columns.unsqueeze(2), out=stacks.bias_out)
        stacks.bias_out.add_(self._bias).add_(stacks.mean_bias)
        stacks.image_bias.unstack()
        return log_det.sum()

    @torch.no_grad()
    def backward(self, grad_log_det: float | Tensor, is_first: bool) -> None:
        """Write the gradient at the deviation's scale, and store that of the flows' parameters.

        Args:
            grad_log_det: the gradient at the log-determinant.
            is_first: whether this is a minibatch's first draw. Later ones add to the gradients of the parameters.
        """
        stacks, k, (unit_products, coefficients, *saved) = self._stacks, self._num_flows, self._saved
        stacks.grad_image_bias.stack()
        for layer in stacks.layers:
            torch.mm(layer.kernel.grad_image, layer.columns.T, out=layer.grad_left)
            torch.mm(layer.left.T, layer.kernel.grad_image, out=layer.grad_columns)
        ac_bias = torch.bmm(self._ac.mT, self._grad_bias).squeeze(2)
        grad_coefficients = (stacks.grad_left * self._ac).sum(1).addcmul_(ac_bias, self._bias_of_columns)
        grad_coefficients = grad_coefficients.mul_(stacks.units).unsqueeze(1)
        grad_projection, grad_uw, grad_ww, grad_b = couple_backward(
            tuple(saved),
            grad_coefficients[..., :k],
            grad_coefficients[..., k:],
            torch.zeros_like(stacks.units[:, :1]).add_(grad_log_det),
        )
        stacks.grad_b.copy_(grad_b)
        grad_x = grad_projection.squeeze(1) * self._unit_w
        # The products of vectors, w_k.u_j = (c_k.a_j)(d_k.b_j) and w_k.w_j = (c_k.c_j)(d_k.d_j).
        grad_products = torch.cat([grad_uw, grad_ww + grad_ww.mT], 2).mul_(unit_products)
        for mixed, factor in ((self._mixed_rows, self._by_columns), (self._mixed_columns, self._by_ac)):
            torch.mul(grad_products, factor, out=mixed[:, k : 2 * k])
            mixed[:, :k, k:].copy_(mixed[:, k : 2 * k, :k].mT)
        # The projections c^T Z d, with Z d for the kernel and with the bias; and the bias's part of the update.
        self._of_along.copy_(grad_x)
        torch.mul(grad_x, self._bias_of_d, out=self._of_bias)
        torch.mul(coefficients.squeeze(1), self._bias_of_columns, out=self._of_grad_bias)
        torch.mul(stacks.grad_left, coefficients, out=stacks.grad_rows).baddbmm_(stacks.rows, self._mixed_rows)
        torch.mul(self._c, grad_x.unsqueeze(1), out=stacks.grad_along)
        for layer in stacks.layers:
            kernel = layer.kernel
            layer.grad_columns[k:].addmm_(layer.grad_along.T, kernel.deviation)
            torch.addmm(kernel.grad_image, layer.grad_along, layer.d, out=kernel.grad_log_scale).mul_(kernel.deviation)
        of_bias = stacks.grad_columns[..., -1]
        torch.mul(coefficients.squeeze(1), ac_bias, out=of_bias)
        of_bias[:, k:].addcmul_(grad_x, self._by_bias)
        stacks.grad_columns.baddbmm_(self._mixed_columns, stacks.columns)
        torch.baddbmm(self._grad_bias, stacks.grad_along, self._bias_of_d.unsqueeze(2), out=stacks.bias_out)
        stacks.bias_out.mul_(self._bias)
        stacks.grad_log_scale_bias.unstack()
        stacks.gradients.unstack(is_first)
        for parameter, gradient in stacks.learnt:
            parameter.grad = gradient
