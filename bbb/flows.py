r"""Planar normalizing flows over weight vectors, K of them at once (Rezende and Mohamed 2015, arXiv 1505.05770).

One planar map is (their eqs. 10 to 12 and appendix A.1)

.. math::
    f(z) = z + \hat u \tanh(w^T z + b), \qquad
    \hat u = u + (\mathrm{softplus}(-w^T u) - 1) \frac{w}{|w|^2}, \qquad
    \log|\det| = \log(1 + w^T \hat u \, (1 - \tanh^2)),

with :math:`w^T \hat u = \mathrm{softplus}(w^T u) - 1 > -1`, so that f is invertible. A composition of K maps
never needs the vectors between them: the arguments of tanh follow a recursion on scalars (:mod:`bbb.recursion`), and
the result is one update of rank K, :math:`z + \sum_k \hat u_k \tanh a_k`. Log-determinants have shape ``(S,)``: one
number, in nats, for each draw.
"""

import math
from typing import Self

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from bbb.recursion import Couple, couple, couple_backward, invert

_IDENTITY = math.log(math.e - 1.0)  # the w.u at which u_hat is zero


class Flow(nn.Module):
    """An invertible map of R^D; K planar maps in families that differ by how they hold their vectors u and w."""

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``z (S, D)`` forward.

        Returns:
            ``y (S, D)`` and log|det dy/dz| ``(S,)``, differentiable in z and in the parameters.
        """
        raise NotImplementedError

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``y (S, D)`` back.

        Returns:
            ``z (S, D)`` with ``forward(z) = y``, and the log-determinant *of the forward map* at z, log|det dy/dz|
            ``(S,)``; both differentiable in y and in the parameters, by the implicit function theorem.
        """
        projection, uw, ww = self._products(y)
        t, tc, log_det = invert(projection, uw, ww, self.b)
        return self._update(y, -t, -tc), log_det

    def _products(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Products w_k.z ``(S, K)``, w_k.u_j ``(K, K)`` and w_k.w_j ``(K, K)``."""
        raise NotImplementedError

    def _update(self, z: Tensor, t: Tensor, tc: Tensor) -> Tensor:
        """Add t U + tc W to z, for coefficients ``(S, K)``."""
        raise NotImplementedError


class PlanarFlow(Flow):
    """K planar maps whose vectors u and w are free: 2 D + 1 parameters each.

    The parameters are u and w in units of a typical z: u = scale / sqrt(D) times the first, w = 1 / (scale sqrt(D))
    times the second. They are of order one, whatever D and the width of the distribution, so that a step of an
    optimiser like Adam, which moves every number by about its learning rate, is as gentle here as elsewhere.

    Args:
        uw: the vectors u, then the vectors w, in these units, ``(2, K, D)``: one block, so that a product reads both.
        b: ``(K,)``.
        scale: standard deviation of a typical coordinate of z.
    """

    def __init__(self, uw: Tensor, b: Tensor, scale: float = 1.0) -> None:
        super().__init__()
        self.uw = nn.Parameter(uw)
        self.b = nn.Parameter(b)
        units = torch.tensor([scale, 1.0 / scale], dtype=uw.dtype, device=uw.device) / math.sqrt(uw.shape[2])
        self.register_buffer("units", units)

    @classmethod
    def identity(cls, dim: int, num_flows: int, scale: float, generator: torch.Generator) -> Self:
        """Create flows that start as the identity, with tanh neither saturated nor dead for z of the given scale.

        Directions are random, w.z has standard deviation 1 under N(0, scale^2), and u = ln(e - 1) w / |w|^2, which
        makes u_hat zero.

        Args:
            dim: D.
            num_flows: K.
            scale: standard deviation of a coordinate of z.
            generator: source of the directions.
        """
        w = torch.randn(num_flows, dim, generator=generator, device=generator.device)
        u = w * (_IDENTITY * dim / w.square().sum(1, keepdim=True))
        return cls(torch.stack([u, w]), w.new_zeros(num_flows), scale)

    def vectors(self) -> Tensor:
        """Write out the vectors u and w ``(2, K, D)``."""
        return self.uw * self.units.view(2, 1, 1)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return _PlanarForward.apply(z, self.uw, self.b, self.units)

    def _products(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (u, w), (_, unit) = self.uw, self.units
        return unit * (z @ w.T), self.units.prod() * (w @ u.T), unit.square() * (w @ w.T)

    def _update(self, z: Tensor, t: Tensor, tc: Tensor) -> Tensor:
        return torch.addmm(z, _coefficients(t, tc, self.units), self.uw.flatten(0, 1))


class MatrixPlanarFlow(Flow):
    r"""K planar maps on the weights of a layer with rank-one vectors u = a b^T and w = c d^T: 2 (out + in + 1) each.

    A bias counts as one more column of the weight matrix. Products factorise,
    :math:`\langle c_k d_k^T, a_j b_j^T\rangle = (c_k^T a_j)(d_k^T b_j)`, so that K maps cost two thin matrix products
    more than the layer itself.

    Args:
        rows: the factors a, then c, ``(2, K, out)``, in the units of :class:`PlanarFlow`.
        columns: the factors b, then d, ``(2, K, in + 1)``, the bias last.
        b: ``(K,)``.
        scale: standard deviation of a typical coordinate of z.
    """

    def __init__(self, rows: Tensor, columns: Tensor, b: Tensor, scale: float = 1.0) -> None:
        super().__init__()
        self.rows = nn.Parameter(rows)
        self.columns = nn.Parameter(columns)
        self.b = nn.Parameter(b)
        dim = rows.shape[2] * columns.shape[2]
        self.register_buffer(
            "units", torch.tensor([scale, 1.0 / scale], dtype=b.dtype, device=b.device) / math.sqrt(dim)
        )

    @classmethod
    def identity(cls, shape: tuple[int, int], num_flows: int, scale: float, generator: torch.Generator) -> Self:
        """Create flows that start as the identity, as :meth:`PlanarFlow.identity` does.

        Args:
            shape: ``(out, in)``.
            num_flows: K.
            scale: standard deviation of a coordinate of z.
            generator: source of the directions.
        """
        num_out, num_in = shape
        c, d = (torch.randn(num_flows, n, generator=generator, device=generator.device) for n in (num_out, num_in + 1))
        squared_norm = c.square().sum(1) * d.square().sum(1)
        a = c * (_IDENTITY * num_out * (num_in + 1) / squared_norm).unsqueeze(1)
        return cls(torch.stack([a, c]), torch.stack([d, d]), c.new_zeros(num_flows), scale)

    def vectors(self) -> Tensor:
        """Write out the vectors u and w ``(2, K, D)``, in the layout of the flat vector."""
        full = torch.einsum("pko,pki->pkoi", self.rows, self.columns) * self.units.view(2, 1, 1, 1)
        return torch.cat([full[..., :-1].flatten(2), full[..., -1]], 2)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        t, tc, log_det = Couple.apply(*self._products(z), self.b)
        return self._update(z, t, tc), log_det

    def _products(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (a, c), (b, d) = self.rows, self.columns
        num_out, num_weights = a.shape[1], a.shape[1] * (b.shape[1] - 1)
        weight, bias = z[:, :num_weights].unflatten(1, (num_out, -1)), z[:, num_weights:]
        along = weight @ d[:, :-1].T + bias.unsqueeze(2) * d[:, -1]
        unit = self.units[1]
        uw, ww = (c @ a.T) * (d @ b.T), (c @ c.T) * (d @ d.T)
        return unit * (along * c.T).sum(1), self.units.prod() * uw, unit.square() * ww

    def _update(self, z: Tensor, t: Tensor, tc: Tensor) -> Tensor:
        rows, columns = self.rows.flatten(0, 1), self.columns.flatten(0, 1)
        num_weights = rows.shape[1] * (columns.shape[1] - 1)
        weight, bias = z[:, :num_weights].unflatten(1, (rows.shape[1], -1)), z[:, num_weights:]
        scaled = rows.T * _coefficients(t, tc, self.units).unsqueeze(1)
        weight = torch.baddbmm(weight, scaled, columns[:, :-1].expand(len(z), -1, -1))
        return torch.cat([weight.flatten(1), bias + scaled @ columns[:, -1]], 1)


class _PlanarForward(torch.autograd.Function):
    """K free planar maps; forward and backward each read the block of vectors U and W as few times as can be.

    With M = [U; W] the result is z + [t, tc] M, and every gradient with respect to M is a small matrix times M plus a
    small matrix times [dL/dy; z].
    """

    @staticmethod
    def forward(ctx: FunctionCtx, z: Tensor, uw: Tensor, b: Tensor, units: Tensor) -> tuple[Tensor, Tensor]:
        block, num_flows, unit = uw.flatten(0, 1), len(b), units[1]
        w = block[num_flows:]
        gram = w @ block.T
        products = unit * (z @ w.T), units.prod() * gram[:, :num_flows], unit.square() * gram[:, num_flows:]
        t, tc, log_det, saved = couple(*products, b)
        coefficients = _coefficients(t, tc, units)
        ctx.save_for_backward(z, uw, units, coefficients, *saved)
        return torch.addmm(z, coefficients, block), log_det

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: FunctionCtx, grad_y: Tensor, grad_log_det: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        z, uw, units, coefficients, *saved = ctx.saved_tensors
        block, num_flows, (unit_u, unit_w) = uw.flatten(0, 1), uw.shape[1], units
        grad_t, grad_tc = (grad_y @ block.T).split(num_flows, 1)
        grads = couple_backward(saved, unit_u * grad_t, unit_w * grad_tc, grad_log_det)
        grad_projection, grad_uw, grad_ww = unit_w * grads[0], units.prod() * grads[1], unit_w.square() * grads[2]
        grad_z = torch.addmm(grad_y, grad_projection, block[num_flows:])
        above = torch.cat([torch.zeros_like(grad_uw), grad_uw.T], 1)
        below = torch.cat([grad_uw, grad_ww + grad_ww.T], 1)
        grad_block = torch.cat([above, below]) @ block
        along_z = torch.cat([torch.zeros_like(grad_projection), grad_projection], 1)
        grad_block.addmm_(torch.cat([coefficients, along_z]).T, torch.cat([grad_y, z]))
        return grad_z, grad_block.view_as(uw), grads[3], None


def _coefficients(t: Tensor, tc: Tensor, units: Tensor) -> Tensor:
    """The coefficients ``(S, 2 K)`` of the stored vectors in the update t U + tc W."""
    return torch.cat([t * units[0], tc * units[1]], 1)
