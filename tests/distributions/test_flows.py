import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bbb import recursion
from bbb.flows import PlanarFlow
from bbb.matrix_flows import MatrixPlanarFlow

SHAPE = (3, 4)
DIM = 15


def double(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def planar_flow(num_flows):
    return PlanarFlow(*(4.0 * double(2, num_flows, DIM)), double(num_flows, seed=1), scale=1.5)


def matrix_flow(num_flows):
    rows, columns = 2.0 * double(2, num_flows, SHAPE[0]), 2.0 * double(2, num_flows, SHAPE[1] + 1, seed=1)
    return MatrixPlanarFlow(rows, columns, double(num_flows, seed=2), scale=1.5)


FAMILIES = {"planar": planar_flow, "matrix_planar": matrix_flow}
both = pytest.mark.parametrize("family", FAMILIES)


def one_by_one(z, maps):
    """The composition of planar maps (u, w, b) as in the paper, by autograd: the oracle."""
    log_det = 0.0
    for u, w, bias in maps:
        u_hat = u + (F.softplus(-w @ u) - 1) * w / (w @ w)
        t = torch.tanh(z @ w + bias)
        z, log_det = z + t.unsqueeze(1) * u_hat, log_det + torch.log((1 + (w @ u_hat) * (1 - t**2)).abs())
    return z, log_det


@both
@pytest.mark.parametrize("num_flows", [1, 4, 16])
@pytest.mark.parametrize("num_samples", [1, 3])
def test_all_at_once_equals_one_by_one_in_values_and_gradients(family, num_flows, num_samples):
    flow = FAMILIES[family](num_flows)
    z = double(num_samples, DIM, seed=3).requires_grad_()
    weights, per_draw = double(num_samples, DIM, seed=4), double(num_samples, seed=5)
    results = []
    for y, log_det in (flow(z), one_by_one(z, zip(*flow.vectors(), flow.b, strict=True))):
        assert log_det.shape == (num_samples,)
        loss = (y * weights).sum() + (log_det * per_draw).sum()
        results.append([y, log_det, *torch.autograd.grad(loss, [z, *flow.parameters()])])
    torch.testing.assert_close(results[0], results[1], rtol=1e-6, atol=1e-6)


@both
def test_log_det_equals_the_jacobian(family):
    flow, z = FAMILIES[family](4), double(1, DIM, seed=3)
    jacobian = torch.autograd.functional.jacobian(lambda z: flow(z)[0], z)[0, :, 0]
    torch.testing.assert_close(flow(z)[1][0], torch.linalg.slogdet(jacobian).logabsdet, rtol=1e-6, atol=1e-6)


@both
@pytest.mark.parametrize("num_flows", [1, 16])
def test_inverse_round_trip_both_ways(family, num_flows):
    flow, x = FAMILIES[family](num_flows), 2.0 * double(3, DIM, seed=3)
    y, log_det = flow(x)
    z, same = flow.inverse(y)
    torch.testing.assert_close(z, x, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(same, log_det, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(flow(flow.inverse(x)[0])[0], x, rtol=1e-6, atol=1e-6)


@both
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_gradients_pass_gradcheck(family, direction):
    flow, z = FAMILIES[family](3), double(2, DIM, seed=3).requires_grad_()
    parameters = dict(flow.named_parameters())

    def call(z, *values):
        return torch.func.functional_call(_Direction(flow, direction), dict(zip(names, values, strict=True)), (z,))

    names = [f"flow.{name}" for name in parameters]
    assert torch.autograd.gradcheck(call, (z, *parameters.values()))


class _Direction(torch.nn.Module):
    def __init__(self, flow, direction):
        super().__init__()
        self.flow, self.direction = flow, direction

    def forward(self, z):
        return getattr(self.flow, self.direction)(z)


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


def steep_flow(family, along):
    """One float32 map with w.u = along and b = 0: at z = 0, where it is steepest, the determinant is softplus(w.u)."""
    flow = FAMILIES[family](1).float()
    with torch.no_grad():
        u, w = flow.vectors()[:, 0]
        (flow.u if family == "planar" else flow.rows[0]).mul_(along / (w @ u))
        flow.b.zero_()
    return flow


steep = pytest.mark.parametrize("along", [-80.0, -50.0, -30.0, -20.0, 20.0, 50.0])


@both
@steep
def test_log_det_and_its_gradient_are_exact_in_float32_where_the_map_is_steepest(family, along):
    flow = steep_flow(family, along)
    exact = copy.deepcopy(flow).double()
    u, w = exact.vectors()[:, 0]
    expected = torch.log(torch.logaddexp(w @ u, torch.zeros((), dtype=torch.float64)))
    log_det = flow(torch.zeros(1, DIM))[1]
    # w.u is a float32 product, right to 1e-6 of its size; for w.u << 0 that is the log-determinant itself
    torch.testing.assert_close(log_det[0].double(), expected, rtol=1e-5, atol=1e-5)
    ours, theirs = (
        torch.autograd.grad(value, [p for p in of.parameters() if p is not of.b])
        for value, of in ((log_det.sum(), flow), (expected, exact))
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5, check_dtype=False)


@both
@steep
def test_inverse_stays_finite_and_true_in_float32_where_the_map_is_steepest(family, along):
    """z itself cannot be found where det << 1e-7: an interval of z rounds to one y. Its image can."""
    flow = steep_flow(family, along)
    y = torch.cat([torch.zeros(1, DIM), double(2, DIM, seed=3).float()]).requires_grad_()
    z, log_det = flow.inverse(y)
    gradients = torch.autograd.grad(z.sum() + log_det.sum(), [y, *flow.parameters()])
    assert all(value.isfinite().all() for value in (z, log_det, *gradients))
    # y is a sum of terms as large as u, each right to float32's last digit; in float64 the same holds to 1e-10
    rounding = 32 * torch.finfo(torch.float32).eps * flow.vectors()[0].abs().max().item()
    assert (flow(z)[0] - y).abs().max().item() < rounding
    exact, y = copy.deepcopy(flow).double(), y.double()
    torch.testing.assert_close(exact(exact.inverse(y)[0])[0], y, rtol=0, atol=1e-10)


def identity(family, shape, num_flows, scale, generator):
    if family == "planar":
        return PlanarFlow.identity(shape[0] * (shape[1] + 1), num_flows, scale, generator)
    return MatrixPlanarFlow.identity(shape, num_flows, scale, generator)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-3, 0.05, 1.0])
@both
def test_start_is_the_identity_with_tanh_alive(family, scale, dtype, generator):
    shape, num_flows, num_samples = (40, 80), 16, 200
    flow = identity(family, shape, num_flows, scale, generator).to(dtype)
    z = scale * torch.randn(num_samples, shape[0] * (shape[1] + 1), generator=generator, dtype=dtype)
    y, log_det = flow(z)
    # float32 directions leave u_hat at 1e-7 of |u|, in either precision
    assert (y - z).abs().max().item() < 1e-5 * scale
    assert log_det.abs().max().item() < 1e-5
    projection = z @ flow.vectors()[1].T + flow.b
    assert projection.std(0).mean().item() == pytest.approx(1.0, abs=0.1)
    assert (1 - torch.tanh(projection) ** 2).mean().item() > 0.5


@both
def test_parameters_are_of_order_one_whatever_the_size(family, generator):
    for shape, scale in (((40, 80), 1e-3), ((4, 8), 1.0)):
        flow = identity(family, shape, 16, scale, generator)
        for name, parameter in flow.named_parameters():
            if name != "b":
                assert 0.3 < parameter.square().mean().sqrt().item() < 1.5, name


@both
def test_every_parameter_gets_a_gradient_at_the_start(family, generator):
    flow = identity(family, SHAPE, 4, 0.1, generator).double()
    y, log_det = flow(0.1 * double(2, DIM, seed=3))
    ((y * double(2, DIM, seed=4)).sum() + log_det.sum()).backward()
    for name, parameter in flow.named_parameters():
        if name != "b":  # at the identity b moves nothing: u_hat is zero
            assert parameter.grad.abs().max() > 1e-6, name


@both
def test_draws_are_independent_of_each_other(family):
    flow, z = FAMILIES[family](4), double(3, DIM, seed=3)
    together = flow(z)
    apart = [torch.cat(parts) for parts in zip(*(flow(draw) for draw in z.split(1)), strict=True)]
    torch.testing.assert_close(list(together), apart)


@both
def test_nothing_breaks_where_products_are_large(family):
    flow = FAMILIES[family](4)
    for parameter in flow.parameters():
        parameter.data.mul_(math.sqrt(10.0))
    flow, z = flow.float(), double(2, DIM, seed=3).float().requires_grad_()
    y, log_det = flow(z)
    (y.sum() + log_det.sum()).backward()
    assert y.isfinite().all()
    assert z.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in flow.parameters())
