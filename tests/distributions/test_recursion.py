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


def layers(num_layers, num_samples, num_flows):
    """Projections, products of vectors with each other and b, of several layers."""
    generator = torch.Generator().manual_seed(1)
    u, w = torch.randn(2, num_layers, num_flows, 9, generator=generator, dtype=torch.float64)
    projection = torch.randn(num_layers, num_samples, num_flows, generator=generator, dtype=torch.float64)
    return projection, w @ u.mT, w @ w.mT, projection[:, 0].clone()


@pytest.mark.parametrize("few", [recursion.FEW, 0])
@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.parametrize("num_flows", [1, 5])
def test_layers_together_have_the_values_and_gradients_of_each_by_itself(num_flows, num_samples, few, monkeypatch):
    monkeypatch.setattr(recursion, "FEW", few)
    inputs = layers(3, num_samples, num_flows)
    together, apart = recursion.couple(*inputs), [recursion.couple(*parts) for parts in zip(*inputs, strict=True)]
    for i in range(3):
        torch.testing.assert_close(together[i], torch.stack([each[i] for each in apart]), rtol=1e-12, atol=1e-12)
    grad_t, grad_tc, grad_log_det = inputs[0].cos(), inputs[0].sin(), inputs[0][..., 0].square()
    backward = recursion.couple_backward(together[3], grad_t, grad_tc, grad_log_det)
    of_each = [
        recursion.couple_backward(each[3], grad_t[i], grad_tc[i], grad_log_det[i]) for i, each in enumerate(apart)
    ]
    for found, expected in zip(backward, zip(*of_each, strict=True), strict=True):
        torch.testing.assert_close(found, torch.stack(expected), rtol=1e-12, atol=1e-12)
