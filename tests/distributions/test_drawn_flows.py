"""The contract of flows on one draw after another: images, determinants and gradients are those of autograd."""

import pytest
import torch

from bbb.distributions import FlowedGaussian, Gaussian, MatrixPlanarFlow, Places, drawn_flows, recursion
from bbb.distributions.drawn_flows import FlowsByAutograd
from bbb.distributions.matrix_planar_in_place import MatrixPlanarInPlace
from tests.tasks import random_flow, seeded

SHAPES = {"biases": [(4, 6, True), (2, 5, True), (3, 3, True)], "no biases": [(3, 4, False), (2, 5, False)]}
SHAPES["some biases"] = SHAPES["no biases"] + SHAPES["biases"]
SHAPES["one layer"] = SHAPES["biases"][:1]
TOLERANCE = {"rtol": 1e-9, "atol": 1e-11}


def double(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def matrix_flow(i, num_out, num_in, has_bias, num_flows):
    factors = (double(2, num_flows, num, seed=i + num) for num in (num_out, num_in + has_bias))
    return MatrixPlanarFlow(*factors, double(num_flows, seed=i), 0.4 + 0.1 * i, has_bias)


def flowed(flow, layers, num_flows):
    shapes = SHAPES[layers]
    dims = [num_out * (num_in + has_bias) for num_out, num_in, has_bias in shapes]
    if flow == "planar":
        flows = [random_flow(i, dim, num_flows) for i, dim in enumerate(dims)]
    else:
        flows = [matrix_flow(i, *shape, num_flows) for i, shape in enumerate(shapes)]
    return FlowedGaussian(Gaussian(*double(2, sum(dims), seed=9)), flows, dims)


def places_for(q):
    """Places for the draws of a posterior, without numbers in them but for the mean."""
    return Places(
        q.base.mean.detach(), *(torch.full_like(q.base.mean, torch.nan, requires_grad=False) for _ in range(4))
    )


def plain(q, deviation, grad_image, grad_log_det):
    start = deviation.unsqueeze(0).requires_grad_()
    images, log_det = q.images(start)
    inputs, grads = (
        [start, *q.flows.parameters()],
        [*grad_image.unsqueeze(0).split(q.dims, 1), log_det * 0 + grad_log_det],
    )
    found = torch.autograd.grad([*images, log_det], inputs, grads)
    return torch.cat(images, 1)[0] + q.base.mean, log_det[0], found[0][0] * deviation, found[1:]


@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize("num_flows", [1, 3, 16])
@pytest.mark.parametrize("layers", SHAPES)
@pytest.mark.parametrize("flow", ["planar", "matrix_planar"])
def test_draws_go_through_flows_as_autograd_sends_them(flow, layers, num_flows, size, monkeypatch):
    if size == "large":  # as for recursions of many maps
        monkeypatch.setattr(recursion, "FEW", 0)
    q = flowed(flow, layers, num_flows)
    places = places_for(q)
    by_hand = drawn_flows(q, places)
    for minibatch in (0, 100):  # the second one finds the first one's parameters and gradients
        sums = [torch.zeros_like(parameter) for parameter in q.flows.parameters()]
        for s in range(3):
            deviation, grad_image = double(2, q.dim, seed=minibatch + s)
            weight = [0.0, -0.7, torch.tensor(-0.3, dtype=torch.float64)][s]  # a tensor in a GPU's graph
            places.deviation.copy_(deviation)
            log_det = by_hand.forward()
            places.grad_image.copy_(grad_image)
            by_hand.backward(weight, is_first=s == 0)
            image, *expected, grads = plain(q, deviation, grad_image, weight)
            found = [places.image, log_det, places.grad_log_scale, places.deviation, places.grad_image]
            torch.testing.assert_close(found, [image, *expected, deviation, grad_image], **TOLERANCE)
            sums = [total + grad for total, grad in zip(sums, grads, strict=True)]
        torch.testing.assert_close([parameter.grad for parameter in q.flows.parameters()], sums, **TOLERANCE)
        with torch.no_grad():
            for i, parameter in enumerate(q.parameters()):
                parameter.add_(0.1 * double(*parameter.shape, seed=i))


def test_flows_are_run_by_hand_where_that_is_known():
    matrix, planar = flowed("matrix_planar", "biases", 3), flowed("planar", "biases", 3)
    other = FlowedGaussian(matrix.base, [*matrix.flow_list[:2], matrix_flow(2, 3, 3, True, 4)], matrix.dims)
    mixed = FlowedGaussian(matrix.base, [*matrix.flow_list[:2], planar.flow_list[2]], matrix.dims)
    ways = [type(drawn_flows(q, places_for(q))) for q in (matrix, planar, other, mixed)]
    assert ways == [MatrixPlanarInPlace, FlowsByAutograd, FlowsByAutograd, FlowsByAutograd]
