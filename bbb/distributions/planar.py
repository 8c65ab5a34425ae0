r"""Planar normalizing flows over weight vectors, K of them at once (Rezende and Mohamed 2015, arXiv 1505.05770).

One planar map is (their eqs. 10 to 12 and appendix A.1)

.. math::
    f(z) = z + \hat u \tanh(w^T z + b), \qquad
    \hat u = u + (\mathrm{softplus}(-w^T u) - 1) \frac{w}{|w|^2}, \qquad
    \log|\det| = \log(1 + w^T \hat u \, (1 - \tanh^2)),

with :math:`w^T \hat u = \mathrm{softplus}(w^T u) - 1 > -1`, so that f is invertible. A composition of K maps never
forms the intermediate vectors. The arguments of tanh follow a recursion on scalars
(:mod:`bbb.distributions.recursion`), and the result is one update of rank K, :math:`z + \sum_k \hat u_k \tanh a_k`.
Log-determinants have shape ``(S,)``: one number, in nats, for each draw.
"""

import math
from typing import Any, Self

import torch
from torch import Tensor, nn

from bbb.distributions.recursion import couple, couple_backward, invert

IDENTITY = math.log(math.e - 1.0)  # the w.u at which u_hat is zero
LONG, MAPS_AT_ONCE = 2**17, 8  # numbers in a vector from which on fewer maps run at once, and how many


class Flow(nn.Module):
    """An invertible map of R^D, made of K planar maps; subclasses differ in how they store the vectors u and w.

    Attributes:
        b: the biases ``(K,)``.
    """

    b: nn.Parameter

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
    times the second. In these units they are of order one, whatever D and the width of the distribution. So a step
    of Adam, which moves every number by about its learning rate, is as gentle here as for other parameters.

    Args:
        u: the vectors u in these units, ``(K, D)``.
        w: the vectors w in these units, ``(K, D)``.
        b: ``(K,)``.
        scale: standard deviation of a typical coordinate of z.
    """

    units: Tensor

    def __init__(self, u: Tensor, w: Tensor, b: Tensor, scale: float = 1.0) -> None:
        super().__init__()
        # Two tensors, not one block of both: K = 16 maps on 784 x 400 weights make gradients of 20 MB each, which the
        # C library's allocator reuses, while a block of 40 MB would be mapped anew, page by page, in every step.
        self.u = nn.Parameter(u)
        self.w = nn.Parameter(w)
        self.b = nn.Parameter(b)
        self.register_buffer("units", units_of(scale, u.shape[1], like=b))

    @classmethod
    def identity(cls, dim: int, num_flows: int, scale: float, generator: torch.Generator) -> Self:
        """Create flows that start as the identity, with tanh in its active range for z of the given scale.

        Directions are random, w.z has standard deviation 1 under N(0, scale^2), and u = ln(e - 1) w / |w|^2, which
        makes u_hat zero.

        Args:
            dim: D.
            num_flows: K.
            scale: standard deviation of a coordinate of z.
            generator: source of the directions.
        """
        w = torch.randn(num_flows, dim, generator=generator, device=generator.device)
        u = w * (IDENTITY * dim / w.square().sum(1, keepdim=True))
        return cls(u, w, w.new_zeros(num_flows), scale)

    def vectors(self) -> Tensor:
        """Write out the vectors u and w ``(2, K, D)``."""
        return torch.stack([self.u, self.w]) * self.units.view(2, 1, 1)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return _PlanarForward.apply(z, self.u, self.w, self.b, self.units)

    def _products(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return _products(z, self.u, self.w, self.units)

    def _update(self, z: Tensor, t: Tensor, tc: Tensor) -> Tensor:
        return torch.addmm(z, t * self.units[0], self.u).addmm(tc * self.units[1], self.w)


class _PlanarForward(torch.autograd.Function):
    """K free planar maps; every gradient with respect to U and W is a small matrix times U, W, dL/dy or z.

    A product of K = 16 rows with W is bound by memory. A product of the 2 K rows of [U; W] is not: it takes several
    times as long as separate products with U and with W.

    Long vectors are taken a few maps at a time, so that the vectors of these stay in the processor's cache from one
    product to the next. The maps of a part are one update of z, and the next part starts from there.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, u: Tensor, w: Tensor, b: Tensor, units: Tensor) -> tuple[Tensor, Tensor]:
        num_maps = MAPS_AT_ONCE if u.shape[1] >= LONG else len(u)
        ctx.parts, ctx.units, ctx.shape = [], units, u.shape
        log_det = z.new_zeros(len(z))
        for part_u, part_w, part_b in zip(*(value.split(num_maps) for value in (u, w, b)), strict=True):
            t, tc, of_part, saved = couple(*_products(z, part_u, part_w, units), part_b)
            along_u, along_w = t * units[0], tc * units[1]
            ctx.parts.append((z, part_u, part_w, along_u, along_w, saved))
            z, log_det = torch.addmm(z, along_u, part_u).addmm_(along_w, part_w), log_det + of_part
        return z, log_det

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_log_det: Tensor) -> tuple[Tensor | None, ...]:
        (unit_u, unit_w), unit_uw = ctx.units, ctx.units.prod()
        grad_u, grad_w, grad_b = (grad.new_empty(shape) for shape in (ctx.shape, ctx.shape, ctx.shape[:1]))
        end = len(grad_b)
        for z, u, w, along_u, along_w, saved in reversed(ctx.parts):
            part = slice(end - len(u), end)
            end = part.start
            grads = couple_backward(saved, unit_u * (grad @ u.T), unit_w * (grad @ w.T), grad_log_det)
            grad_projection, grad_uw, grad_ww = unit_w * grads[0], unit_uw * grads[1], unit_w.square() * grads[2]
            # A product with few rows of numbers is the fastest to begin with; the others are added to it.
            torch.mm(along_u.T, grad, out=grad_u[part]).addmm_(grad_uw.T, w)
            of_draws = torch.mm(along_w.T, grad, out=grad_w[part]).addmm_(grad_projection.T, z)
            of_draws.addmm_(grad_uw, u).addmm_(grad_ww + grad_ww.T, w)
            grad_b[part] = grads[3]
            grad = torch.addmm(grad, grad_projection, w)
        return grad, grad_u, grad_w, grad_b, None


def units_of(scale: float, dim: int, like: Tensor) -> Tensor:
    """The units of u and of w, for D = ``dim`` coordinates of this scale."""
    return torch.tensor([scale, 1.0 / scale], dtype=like.dtype, device=like.device) / math.sqrt(dim)


def _products(z: Tensor, u: Tensor, w: Tensor, units: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return units[1] * (z @ w.T), units.prod() * (w @ u.T), units[1].square() * (w @ w.T)
