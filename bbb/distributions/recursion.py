r"""K planar maps as a recursion on scalars, the products of their vectors.

With :math:`x_k = w_k^T z`, :math:`H_{kj} = w_k^T \hat u_j` and the notation of :mod:`bbb.distributions.planar`,

.. math::
    a_k = x_k + b_k + \sum_{j<k} H_{kj} t_j, \quad t_k = \tanh a_k, \quad
    z_K = z + \sum_k t_k \hat u_k, \quad \log|\det| = \sum_k \log(1 + H_{kk} (1 - t_k^2)),

where :math:`1 + H_{kk} (1 - t_k^2) = t_k^2 + \mathrm{softplus}(w_k^T u_k) (1 - t_k^2)`. The right side is a sum of
positive numbers. It stays positive for w.u below -17 in float32, where H_kk rounds to -1 and the left side to zero.

:math:`\hat u_k = u_k + c_k w_k` is never formed: t and t c are the coefficients of u and w. Shapes throughout: the
projections x ``(S, K)``, the products ``uw[k, j] = w_k.u_j`` and ``ww[k, j] = w_k.w_j`` ``(K, K)``, b ``(K,)``.
"""

import math
from operator import mul

import torch
from torch import Tensor

BISECTIONS, NEWTON_STEPS = 24, 4
FEW = 2**12  # multiplications of a recursion that Python's own numbers run faster than PyTorch's operations


def correction(uw: Tensor, ww: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the factors c of u_hat_k = u_k + c_k w_k, the products H_kj = w_k.u_hat_j, and 1 + H_kk."""
    along = uw.diagonal()
    c = (softplus(-along) - 1.0) / ww.diagonal()
    h = uw + c * ww
    # On the diagonal the sum above loses digits where w.u is large; softplus(w.u) - 1 is the same number.
    stretch = softplus(along)
    return c, h.diagonal_scatter(stretch - 1.0), stretch


def softplus(x: Tensor) -> Tensor:
    """Evaluate softplus without torch's threshold at 20, so that it is smooth, and positive in both tails."""
    return torch.logaddexp(x, torch.zeros_like(x))


def couple(projection: Tensor, uw: Tensor, ww: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, ...]]:
    """Run the recursion: t ``(S, K)``, t c ``(S, K)``, the log-determinant ``(S,)``, and what the backward needs."""
    c, h, stretch = correction(uw, ww)
    by_flow = (projection + b).T.contiguous()  # a, turned into t row by row
    _run_(by_flow, h)
    t = by_flow.T
    slope = 1.0 - t.square()
    det = t.square() + stretch * slope
    return t, t * c, det.log().sum(1), (t, slope, det, c, h, uw.diagonal(), ww)


def couple_backward(
    saved: tuple[Tensor, ...], grad_t: Tensor, grad_tc: Tensor, grad_log_det: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Run the recursion backward: gradients with respect to the projections, ``uw``, ``ww`` and b."""
    t, slope, det, c, h, along, ww = saved
    per_det = grad_log_det.unsqueeze(1) / det
    grad_t = grad_t + grad_tc * c - 2.0 * t * per_det * h.diagonal()
    by_flow = grad_t.T.contiguous()  # dL/dt, turned into dL/da from the last row to the first
    _run_back_(by_flow, h, slope.T)
    grad_a = by_flow.T
    grad_diagonal = (per_det * slope).sum(0)
    grad_h = torch.tril(grad_a.T @ t, -1)  # below the diagonal, where H = w.u + c w.w
    grad_c = (grad_h * ww).sum(0) + (grad_tc * t).sum(0)
    squared_norm = ww.diagonal()
    grad_along = grad_diagonal * torch.sigmoid(along) - grad_c * torch.sigmoid(-along) / squared_norm
    grad_uw = grad_h + torch.diag(grad_along)
    grad_ww = grad_h * c - torch.diag(grad_c * c / squared_norm)
    return grad_a, grad_uw, grad_ww, grad_a.sum(0)


def _run_(a: Tensor, h: Tensor) -> None:
    """Turn a without the sum ``(K, S)`` into t, row by row."""
    if _is_short(a):
        products, columns = h.tolist(), []
        for starts in a.T.tolist():
            t: list[float] = []
            for start, row in zip(starts, products, strict=True):
                t.append(math.tanh(start + sum(map(mul, row, t))))  # over the maps before this one, which t has
            columns.append(t)
        a.copy_(torch.tensor(columns, dtype=a.dtype).T)
        return
    for k, row in enumerate(a.unbind(0)):
        a[k + 1 :].addr_(h[k + 1 :, k], row.tanh_())


def _run_back_(grad: Tensor, h: Tensor, slope: Tensor) -> None:
    """Turn dL/dt ``(K, S)`` into dL/da, from the last row to the first."""
    if _is_short(grad):
        products, columns = h.T.flip(0, 1).tolist(), []
        for starts, slopes in zip(grad.T.flip(1).tolist(), slope.T.flip(1).tolist(), strict=True):
            later: list[float] = []
            for start, own, row in zip(starts, slopes, products, strict=True):
                later.append(own * (start + sum(map(mul, row, later))))
            columns.append(later)
        grad.copy_(torch.tensor(columns, dtype=grad.dtype).T.flip(0))
        return
    rows, slopes_of = grad.unbind(0), slope.unbind(0)
    for k in reversed(range(len(rows))):
        grad[:k].addr_(h[k, :k], rows[k].mul_(slopes_of[k]))


def _is_short(a: Tensor) -> bool:
    num_flows, num_draws = a.shape
    return a.device.type == "cpu" and num_flows**2 * num_draws <= FEW


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
