"""Laws of every family of flows."""

import copy
import math

import pytest
import torch

from bbb.distributions import MatrixPlanarFlow, PlanarFlow, identity_flow, planar, recursion
from tests.tasks import one_by_one, seeded

SHAPE = (3, 4)
DIM = 15


def double(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def planar_flow(num_flows):
    return PlanarFlow(*(4.0 * double(2, num_flows, DIM)), double(num_flows, seed=1), scale=1.5)


def matrix_flow(num_flows):
    rows, columns = 2.0 * double(2, num_flows, SHAPE[0]), 2.0 * double(2, num_flows, SHAPE[1] + 1, seed=1)
    return MatrixPlanarFlow(rows, columns, double(num_flows, seed=2), scale=1.5)


def matrix_flow_without_bias(num_flows):
    rows, columns = 2.0 * double(2, num_flows, 3), 2.0 * double(2, num_flows, 5, seed=1)
    return MatrixPlanarFlow(rows, columns, double(num_flows, seed=2), scale=1.5, has_bias=False)


NO_BIAS = "matrix_planar without bias"
FAMILIES = {"planar": planar_flow, "matrix_planar": matrix_flow, NO_BIAS: matrix_flow_without_bias}
both = pytest.mark.parametrize("family", FAMILIES)


def at_the_start(family, shape, num_flows, scale):
    """Flows at the identity for a layer with a bias, or for one without: the flow, and the weights of the layer."""
    has_bias = family != NO_BIAS
    flow = identity_flow(family.split()[0], shape, num_flows, scale, seeded(1), has_bias)
    return flow, shape[0] * (math.prod(shape[1:]) + has_bias)


@both
@pytest.mark.parametrize("num_flows", [1, 4, 16])
@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.parametrize("size", ["small", "large"])
def test_all_at_once_equals_one_by_one_in_values_and_gradients(family, num_flows, num_samples, size, monkeypatch):
    if size == "large":  # as for long vectors, and for recursions of many maps
        monkeypatch.setattr(planar, "LONG", DIM)
        monkeypatch.setattr(planar, "MAPS_AT_ONCE", 3)
        monkeypatch.setattr(recursion, "FEW", 0)
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-3, 0.05, 1.0])
@both
def test_start_is_the_identity_with_tanh_alive(family, scale, dtype):
    shape, num_flows, num_samples = (40, 80), 16, 200
    flow, dim = at_the_start(family, shape, num_flows, scale)
    flow = flow.to(dtype)
    z = scale * torch.randn(num_samples, dim, generator=seeded(2), dtype=dtype)
    y, log_det = flow(z)
    # float32 directions leave u_hat at 1e-7 of |u|, in either precision
    assert (y - z).abs().max().item() < 1e-5 * scale
    assert log_det.abs().max().item() < 1e-5
    projection = z @ flow.vectors()[1].T + flow.b
    assert projection.std(0).mean().item() == pytest.approx(1.0, abs=0.1)
    assert (1 - torch.tanh(projection) ** 2).mean().item() > 0.5


@both
def test_parameters_are_of_order_one_whatever_the_size(family):
    for shape, scale in (((40, 80), 1e-3), ((4, 8), 1.0)):
        flow, _ = at_the_start(family, shape, 16, scale)
        for name, parameter in flow.named_parameters():
            if name != "b":
                assert 0.3 < parameter.square().mean().sqrt().item() < 1.5, name


@both
def test_every_parameter_gets_a_gradient_at_the_start(family):
    flow, dim = at_the_start(family, SHAPE, 4, 0.1)
    y, log_det = flow.double()(0.1 * double(2, dim, seed=3))
    ((y * double(2, dim, seed=4)).sum() + log_det.sum()).backward()
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


@both
def test_all_of_a_flow_has_the_type_and_the_device_of_its_parameters(family):
    flow = FAMILIES[family](4)
    elsewhere = type(flow)(*(parameter.to("meta") for parameter in flow.parameters()))
    assert {value.dtype for value in flow.state_dict().values()} == {torch.float64}
    assert {value.device.type for value in elsewhere.state_dict().values()} == {"meta"}


@pytest.mark.parametrize("has_bias", [True, False])
def test_vectors_of_a_matrix_are_outer_products_in_the_layout_of_the_flat_vector(has_bias):
    """The kernel row by row, then the bias; the bias is the last column of the matrix."""
    flow = FAMILIES["matrix_planar" if has_bias else NO_BIAS](4)
    for vectors, rows, columns, unit in zip(flow.vectors(), flow.rows, flow.columns, flow.units, strict=True):
        for vector, row, column in zip(vectors, rows, columns, strict=True):
            matrix = unit * torch.outer(row, column)
            kernel, bias = (matrix[:, :-1], matrix[:, -1]) if has_bias else (matrix, matrix[:0, 0])
            torch.testing.assert_close(vector, torch.cat([kernel.flatten(), bias]))


@pytest.mark.parametrize("family", ["planar", "matrix_planar"])
@pytest.mark.parametrize("has_bias", [True, False])
def test_a_kernel_of_any_rank_is_a_matrix_of_its_outputs(family, has_bias):
    flow = identity_flow(family, (4, 2, 3, 3), 3, 0.1, seeded(1), has_bias)
    assert flow.vectors().shape == (2, 3, 4 * (18 + has_bias))
    if family == "matrix_planar":
        assert (flow.rows.shape, flow.columns.shape) == ((2, 3, 4), (2, 3, 18 + has_bias))
