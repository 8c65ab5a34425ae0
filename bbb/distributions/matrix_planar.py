"""Planar flows on a weight matrix, with rank-one vectors; the notation is that of :mod:`bbb.distributions.planar`."""

from typing import Any, Self

import torch
from torch import Tensor, nn

from bbb.distributions.planar import IDENTITY, Flow, units_of
from bbb.distributions.recursion import couple, couple_backward


class MatrixPlanarFlow(Flow):
    r"""K planar maps on a layer's weights, with rank-one u = a b^T and w = c d^T of 2 (out + in + 1) numbers per map.

    A bias counts as one more column of the weight matrix. Products factorise,
    :math:`\langle c_k d_k^T, a_j b_j^T\rangle = (c_k^T a_j)(d_k^T b_j)`, so K maps add only two thin matrix products
    to the cost of the layer.

    Args:
        rows: the factors a, then c, ``(2, K, out)``, in the units of :class:`PlanarFlow`.
        columns: the factors b, then d, ``(2, K, in + 1)``, the bias last; ``(2, K, in)`` for a layer without bias.
        b: ``(K,)``.
        scale: standard deviation of a typical coordinate of z.
        has_bias: whether the layer has a bias, which follows the kernel in the flat vector.
    """

    units: Tensor

    def __init__(self, rows: Tensor, columns: Tensor, b: Tensor, scale: float = 1.0, has_bias: bool = True) -> None:
        super().__init__()
        self.rows = nn.Parameter(rows)
        self.columns = nn.Parameter(columns)
        self.b = nn.Parameter(b)
        self.has_bias = has_bias
        self.register_buffer("units", units_of(scale, rows.shape[2] * columns.shape[2], like=b))

    @classmethod
    def identity(
        cls, shape: tuple[int, int], num_flows: int, scale: float, generator: torch.Generator, has_bias: bool = True
    ) -> Self:
        """Create flows that start as the identity, as :meth:`PlanarFlow.identity` does.

        Args:
            shape: ``(out, in)``.
            num_flows: K.
            scale: standard deviation of a coordinate of z.
            generator: source of the directions.
            has_bias: whether the layer has a bias.
        """
        num_out, num_columns = shape[0], shape[1] + has_bias
        c, d = (torch.randn(num_flows, n, generator=generator, device=generator.device) for n in (num_out, num_columns))
        squared_norm = c.square().sum(1) * d.square().sum(1)
        a = c * (IDENTITY * num_out * num_columns / squared_norm).unsqueeze(1)
        return cls(torch.stack([a, c]), torch.stack([d, d]), c.new_zeros(num_flows), scale, has_bias)

    def vectors(self) -> Tensor:
        """Write out the vectors u and w ``(2, K, D)``, in the layout of the flat vector."""
        full = torch.einsum("pko,pki->pkoi", self.rows, self.columns) * self.units.view(2, 1, 1, 1)
        return torch.cat([full[..., :-1].flatten(2), full[..., -1]], 2) if self.has_bias else full.flatten(2)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        y, log_det = _MatrixPlanarForward.apply(self._last_column_last(z), self.rows, self.columns, self.b, self.units)
        return self._row_by_row(y), log_det

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        z, log_det = super().inverse(self._last_column_last(y))
        return self._row_by_row(z), log_det

    def _last_column_last(self, z: Tensor) -> Tensor:
        """Lay the matrix out as a kernel, row by row, and then its last column: as it is, where that is the bias."""
        if self.has_bias:
            return z
        matrix = z.unflatten(1, (self.rows.shape[2], -1))
        return torch.cat([matrix[..., :-1].flatten(1), matrix[..., -1]], 1)

    def _row_by_row(self, z: Tensor) -> Tensor:
        """Undo :meth:`_last_column_last`."""
        if self.has_bias:
            return z
        weight, last = _as_matrix(z, self.rows.shape[2])
        return torch.cat([weight, last.unsqueeze(2)], 2).flatten(1)

    def _products(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        matrix = _as_matrix(z, self.rows.shape[2])
        projection, uw, ww, _ = _matrix_products(matrix, self.rows, self.columns, self.units)
        return projection, uw, ww

    def _update(self, z: Tensor, t: Tensor, tc: Tensor) -> Tensor:
        left, right = _factors(t, tc, self.rows, self.columns, self.units)
        weight, bias = _as_matrix(z, self.rows.shape[2])
        return _add_product(weight, bias, left, right)


class _MatrixPlanarForward(torch.autograd.Function):
    """K maps with rank-one vectors; besides thin products with z and dL/dy, the gradient needs small tensors only."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, rows: Tensor, columns: Tensor, b: Tensor, units: Tensor) -> tuple[Tensor, Tensor]:
        weight, bias = _as_matrix(z, rows.shape[2])
        projection, uw, ww, along = _matrix_products((weight, bias), rows, columns, units)
        t, tc, log_det, saved = couple(projection, uw, ww, b)
        left, right = _factors(t, tc, rows, columns, units)
        ctx.save_for_backward(z, rows, columns, units, t, tc, along, left, *saved)
        return _add_product(weight, bias, left, right), log_det

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_y: Tensor, grad_log_det: Tensor) -> tuple[Tensor | None, ...]:
        z, rows, columns, units, t, tc, along, left, *saved = ctx.saved_tensors
        (a, c), (b, d), num_flows = rows, columns, len(rows[0])
        weight, bias = _as_matrix(z, rows.shape[2])
        grad_weight, grad_bias = _as_matrix(grad_y, rows.shape[2])
        # The update y = z + left right, with left = [t a; tc c] in the units of u and of w.
        grad_left = _times_columns(grad_weight, grad_bias, columns.flatten(0, 1))
        grad_coefficients = (grad_left * rows.flatten(0, 1).T).sum(1)
        unit_u, unit_w = units
        grads = couple_backward(
            saved, unit_u * grad_coefficients[:, :num_flows], unit_w * grad_coefficients[:, num_flows:], grad_log_det
        )
        grad_projection, x, y = unit_w * grads[0], units.prod() * grads[1], unit_w.square() * (grads[2] + grads[2].T)
        coefficients = torch.cat([t * unit_u, tc * unit_w], 1)
        grad_rows = (grad_left * coefficients.unsqueeze(1)).sum(0).T.unflatten(0, (2, num_flows))
        grad_columns = _rows_times(left, grad_weight, grad_bias).unflatten(0, (2, num_flows))
        # The projections c^T Z d.
        grad_along = grad_projection.unsqueeze(1) * c.T
        grad_rows[1] += (along * grad_projection.unsqueeze(1)).sum(0).T
        grad_columns[1] += _rows_times(grad_along, weight, bias)
        # The products of vectors, w_k.u_j = (c_k.a_j)(d_k.b_j) and w_k.w_j = (c_k.c_j)(d_k.d_j).
        by_rows, by_columns = x * (d @ b.T), x * (c @ a.T)
        grad_rows[0] += by_rows.T @ c
        grad_rows[1] += by_rows @ a + (y * (d @ d.T)) @ c
        grad_columns[0] += by_columns.T @ d
        grad_columns[1] += by_columns @ b + (y * (c @ c.T)) @ d
        return _add_product(grad_weight, grad_bias, grad_along, d), grad_rows, grad_columns, grads[3], None


def _as_matrix(z: Tensor, num_out: int) -> tuple[Tensor, Tensor]:
    """View ``z (S, D)`` as a layer's weight ``(S, out, in)`` and bias ``(S, out)``."""
    return z[:, :-num_out].unflatten(1, (num_out, -1)), z[:, -num_out:]


def _matrix_products(
    z: tuple[Tensor, Tensor], rows: Tensor, columns: Tensor, units: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """w_k.z ``(S, K)``, w_k.u_j and w_k.w_j ``(K, K)``, and the intermediate Z d_k ``(S, out, K)``."""
    (a, c), (b, d) = rows, columns
    along = _times_columns(*z, d)
    uw, ww = (c @ a.T) * (d @ b.T), (c @ c.T) * (d @ d.T)
    return units[1] * (along * c.T).sum(1), units.prod() * uw, units[1].square() * ww, along


def _factors(t: Tensor, tc: Tensor, rows: Tensor, columns: Tensor, units: Tensor) -> tuple[Tensor, Tensor]:
    """The update of the weight matrix, bias last, as a product: left ``(S, out, 2 K)``, right ``(2 K, in + 1)``."""
    coefficients = torch.cat([t * units[0], tc * units[1]], 1)
    return rows.flatten(0, 1).T * coefficients.unsqueeze(1), columns.flatten(0, 1)


def _times_columns(weight: Tensor, bias: Tensor, columns: Tensor) -> Tensor:
    """Multiply [weight, bias] ``(S, out, in + 1)`` by vectors over its columns, ``(K, in + 1)``: ``(S, out, K)``."""
    return weight @ columns[:, :-1].T + bias.unsqueeze(2) * columns[:, -1]


def _rows_times(left: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Multiply ``left (S, out, K)`` transposed by [weight, bias], summed over draws: ``(K, in + 1)``."""
    left = left.flatten(0, 1).T
    return torch.cat([left @ weight.flatten(0, 1), (left @ bias.flatten()).unsqueeze(1)], 1)


def _add_product(weight: Tensor, bias: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Add ``left (S, out, K)`` times ``right (K, in + 1)`` to [weight, bias], as flat vectors ``(S, D)``."""
    right_weight = right[:, :-1].expand(len(weight), -1, -1)
    if torch.is_grad_enabled():
        return torch.cat([torch.baddbmm(weight, left, right_weight).flatten(1), bias + left @ right[:, -1]], 1)
    flat = weight.new_empty(len(weight), weight.shape[1] * (weight.shape[2] + 1))  # written once
    out_weight, out_bias = _as_matrix(flat, weight.shape[1])
    torch.baddbmm(weight, left, right_weight, out=out_weight)
    torch.add(bias, left @ right[:, -1], out=out_bias)
    return flat
