r"""K planar maps as a recursion on scalars, the products of their vectors.

With :math:`x_k = w_k^T z`, :math:`H_{kj} = w_k^T \hat u_j` and the notation of :mod:`bbb.distributions.planar`,

.. math::
    a_k = x_k + b_k + \sum_{j<k} H_{kj} t_j, \quad t_k = \tanh a_k, \quad
    z_K = z + \sum_k t_k \hat u_k, \quad \log|\det| = \sum_k \log(1 + H_{kk} (1 - t_k^2)),

where :math:`1 + H_{kk} (1 - t_k^2) = t_k^2 + \mathrm{softplus}(w_k^T u_k) (1 - t_k^2)`. The right side is a sum of
positive numbers. It stays positive for w.u below -17 in float32, where H_kk rounds to -1 and the left side to zero.

:math:`\hat u_k = u_k + c_k w_k` is never formed: t and t c are the coefficients of u and w. Shapes throughout: the
projections x ``(..., S, K)``, the products ``uw[k, j] = w_k.u_j`` and ``ww[k, j] = w_k.w_j`` ``(..., K, K)``, b
``(..., K)``. The leading axes are layers, whose recursions run together.
"""

import math
from operator import mul

import torch
from torch import Tensor

BISECTIONS, NEWTON_STEPS = 24, 4
FEW = 2**12  # multiplications of a recursion that Python's own numbers run faster than PyTorch's operations


def correction(uw: Tensor, ww: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the factors c of u_hat_k = u_k + c_k w_k, the products H_kj = w_k.u_hat_j, and 1 + H_kk."""
    along = _diagonal(uw)
    c = (softplus(-along) - 1.0) / _diagonal(ww)
    h = torch.addcmul(uw, c.unsqueeze(-2), ww)
    # On the diagonal the sum above loses digits where w.u is large; softplus(w.u) - 1 is the same number.
    stretch = softplus(along)
    _diagonal(h).copy_(stretch - 1.0)
    return c, h, stretch


def softplus(x: Tensor) -> Tensor:
    """Evaluate softplus without torch's threshold at 20, so that it is smooth, and positive in both tails."""
    return torch.logaddexp(x, torch.zeros_like(x))


def couple(projection: Tensor, uw: Tensor, ww: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, ...]]:
    """Run the recursion: t and t c ``(..., S, K)``, the log-determinant ``(..., S)``, and what the backward needs."""
    c, h, stretch = correction(uw, ww)
    t = _run(projection + b.unsqueeze(-2), h)
    squared = t.square()
    slope = 1.0 - squared
    det = torch.addcmul(squared, stretch.unsqueeze(-2), slope)
    return t, t * c.unsqueeze(-2), det.log().sum(-1), (t, slope, det, c, h, _diagonal(uw), ww)


def couple_backward(
    saved: tuple[Tensor, ...], grad_t: Tensor, grad_tc: Tensor, grad_log_det: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Run the recursion backward: gradients with respect to the projections, ``uw``, ``ww`` and b."""
    t, slope, det, c, h, along, ww = saved
    per_det = grad_log_det.unsqueeze(-1) / det
    grad_t = torch.addcmul(grad_t, grad_tc, c.unsqueeze(-2))
    grad_t.addcmul_(t * per_det, _diagonal(h).unsqueeze(-2), value=-2.0)
    grad_a = _run_back(grad_t, h, slope)
    grad_diagonal = (per_det * slope).sum(-2)
    grad_h = torch.tril(grad_a.mT @ t, -1)  # below the diagonal, where H = w.u + c w.w
    grad_c = (grad_h * ww).sum(-2) + (grad_tc * t).sum(-2)
    per_norm = grad_c / _diagonal(ww)
    grad_along = grad_diagonal * torch.sigmoid(along) - per_norm * torch.sigmoid(-along)
    grad_ww = grad_h * c.unsqueeze(-2)
    _diagonal(grad_ww).addcmul_(per_norm, c, value=-1.0)  # zero until here, as in grad_h
    _diagonal(grad_h).copy_(grad_along)
    return grad_a, grad_h, grad_ww, grad_a.sum(-2)


def _diagonal(square: Tensor) -> Tensor:
    return square.diagonal(dim1=-2, dim2=-1)


def _run(a: Tensor, h: Tensor) -> Tensor:
    """Turn a without the sum ``(..., S, K)`` into t."""
    if _is_short(a):
        tanh = math.tanh
        numbers: list[float] = []
        for draws, matrix in zip(_lists(a), _lists(h), strict=True):
            for starts in draws:
                t: list[float] = []
                for start, row in zip(starts, matrix, strict=True):
                    t.append(tanh(start + sum(map(mul, row, t))))  # over the maps before this one, which t has
                numbers += t
        return torch.tensor(numbers, dtype=a.dtype).view(a.shape)
    by_flow, products = a.movedim(-1, 0).contiguous(), _by_flow(h)
    for k in range(len(by_flow)):
        by_flow[k + 1 :].addcmul_(products[k + 1 :, k], by_flow[k].tanh_())
    return by_flow.movedim(0, -1)


def _run_back(grad: Tensor, h: Tensor, slope: Tensor) -> Tensor:
    """Turn dL/dt ``(..., S, K)`` into dL/da, from the last map to the first."""
    if _is_short(grad):
        # As a triangular system for each draw, dL/da_j - slope_j sum_(k > j) H_kj dL/da_k = slope_j dL/dt_j.
        system = h.mT.unsqueeze(-3) * -slope.unsqueeze(-1)
        right = (grad * slope).unsqueeze(-1)
        return torch.linalg.solve_triangular(system, right, upper=True, unitriangular=True).squeeze(-1)
    by_flow, slopes_by_flow, products = grad.movedim(-1, 0).contiguous(), slope.movedim(-1, 0), _by_flow(h)
    for k in reversed(range(len(by_flow))):
        by_flow[:k].addcmul_(products[k, :k], by_flow[k].mul_(slopes_by_flow[k]))
    return by_flow.movedim(0, -1)


def _lists(matrices: Tensor) -> list[list[list[float]]]:
    """Python's own numbers of matrices ``(..., N, K)``, matrix by matrix."""
    lists: list[list[list[float]]] = matrices.reshape(-1, *matrices.shape[-2:]).tolist()
    return lists


def _by_flow(h: Tensor) -> Tensor:
    """View products ``(..., K, K)`` as ``(K, K, ..., 1)``, where the last axis stands for the draws."""
    return h.movedim((-2, -1), (0, 1)).unsqueeze(-1)


def _is_short(a: Tensor) -> bool:
    return a.device.type == "cpu" and a.shape[-1] * a.numel() <= FEW


def invert(projection: Tensor, uw: Tensor, ww: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Undo the recursion, given projections of the image y; return t, t c and the log-determinant, for autograd."""
    c, h, stretch = correction(uw, ww)
    later: list[Tensor] = []  # t_j of the maps j > k
    for k in reversed(range(len(b))):
        right = projection[:, k]
        if later:
            right = right - torch.stack(later, 1) @ h[k, k + 1 :]
        later.insert(0, torch.tanh(root(right, stretch[k], b[k]) + b[k]))
    t = torch.stack(later, 1)
    log_det = torch.log(t.square() + stretch * (1.0 - t.square())).sum(1)
    return t, t * c, log_det


def root(right: Tensor, stretch: Tensor, b: Tensor) -> Tensor:
    """Solve x + (stretch - 1) tanh(x + b) = right for x ``(S,)``, which is unique since stretch > 0."""
    h = stretch - 1.0
    with torch.no_grad():
        low, high = right - h.abs(), right + h.abs()
        for _ in range(BISECTIONS):
            x = 0.5 * (low + high)
            above = x + h * torch.tanh(x + b) > right
            low, high = torch.where(above, low, x), torch.where(above, x, high)
        x = 0.5 * (low + high)
        for _ in range(NEWTON_STEPS):
            x = (x - _newton(x, right, stretch, b)).clamp(low, high)
    return x - _newton(x, right, stretch, b)  # at the root, the gradient of a Newton step is that of the root


def _newton(x: Tensor, right: Tensor, stretch: Tensor, b: Tensor) -> Tensor:
    t = torch.tanh(x + b)
    # The derivative is held constant: its own gradient is multiplied by the residual, which is zero up to rounding.
    derivative = (t.square() + stretch * (1.0 - t.square())).detach()
    return (x + (stretch - 1.0) * t - right) / derivative
