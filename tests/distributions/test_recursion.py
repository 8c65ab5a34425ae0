import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bbb.distributions import recursion


@given(st.lists(st.floats(-30, 30), min_size=4, max_size=4), st.lists(st.floats(-30, 30), min_size=4, max_size=4))
def test_maps_are_invertible_for_any_vectors(u, w):
    u, w = torch.tensor(u, dtype=torch.float64), torch.tensor(w, dtype=torch.float64)
    assume(w @ w > 1e-6)
    assume(w @ u > -700)  # below, softplus(w.u) is less than the smallest float64
    c, h, stretch = recursion.correction((w @ u).reshape(1, 1), (w @ w).reshape(1, 1))
    assert stretch.item() > 0.0  # 1 + w.u_hat, held on its own since w.u_hat itself rounds to -1
    u_hat = u + (F.softplus(-w @ u) - 1) * w / (w @ w)
    size = 1.0 + (w.abs() @ u.abs()).item()  # what the sum w.u_hat cancels from
    assert h.item() == pytest.approx((w @ u_hat).item(), abs=1e-8 * size)
    assert c.item() * (w @ w).item() == pytest.approx((F.softplus(-w @ u) - 1).item(), abs=1e-8 * size)


@settings(max_examples=50)
@given(st.floats(1e-3, 51), st.floats(-20, 20), st.floats(-100, 100))
def test_root_solves_its_equation(stretch, b, right):
    stretch, b, right = (torch.tensor(value, dtype=torch.float64) for value in (stretch, b, right))
    x = recursion.root(right.unsqueeze(0), stretch, b)
    assert (x + (stretch - 1) * torch.tanh(x + b) - right).abs().item() < 1e-9 * (1 + right.abs().item())
