"""Global inducing points: each layer is the exact regression on what the layers before it make of pseudo-examples."""

import itertools
import math

import pytest
import torch

from bbb.distributions import InducingPoints
from tests.tasks import passes_gradcheck, seeded

PRIOR_STD = 1.3


def make(sizes=(2, 3, 2), num=4, seed=1, activation=torch.tanh):
    generator = seeded(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    targets = [draw(num, size) for size in sizes[1:]]
    precisions = [0.3 * draw(num) for _ in sizes[1:]]
    return InducingPoints(draw(num, sizes[0]), targets, precisions, activation, PRIOR_STD)


def regression(features, targets, log_precision):
    """Mean ``(in + 1, out)`` and covariance of the weights of a Bayesian linear regression, written out."""
    features = torch.cat([features, torch.ones_like(features[:, :1])], dim=1)
    weighted = features.T @ torch.diag(log_precision.exp())
    covariance = torch.linalg.inv(weighted @ features + torch.eye(features.shape[1]).double() / PRIOR_STD**2)
    return covariance @ weighted @ targets, covariance


def kernels(q, w, sizes):
    """The layers of one weight vector, kernel and bias side by side, ``(out, in + 1)``, as a network reads them."""
    layers, start = [], 0
    for num_in, num_out in itertools.pairwise(sizes):
        kernel, bias = w[start : start + num_in * num_out], w[start + num_in * num_out :][:num_out]
        layers.append(torch.cat([kernel.view(num_out, num_in), bias.unsqueeze(1)], dim=1))
        start += (num_in + 1) * num_out
    assert start == q.dim == len(w)
    return layers


@pytest.mark.parametrize("sizes", [(2, 3, 2), (1, 4, 1), (3, 2), (2, 2, 3, 1)])
def test_the_density_is_that_of_one_regression_after_another(sizes):
    q = make(sizes)
    w = torch.randn(q.dim, generator=seeded(2), dtype=torch.float64)
    h, log_q = q.inputs.detach(), 0.0
    for i, layer in enumerate(kernels(q, w, sizes)):
        mean, covariance = regression(h, q.targets[i].detach(), q.log_precisions[i].detach())
        normals = torch.distributions.MultivariateNormal(mean.T, covariance)
        log_q += normals.log_prob(layer).sum()
        h = torch.tanh(h @ layer[:, :-1].T + layer[:, -1])
    torch.testing.assert_close(q.log_prob(w.unsqueeze(0)).squeeze(0).detach(), log_q, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_prob_of_a_draw_is_the_log_density_returned_with_it(dtype):
    q = make((2, 5, 4, 3)).to(dtype)
    w, log_q = q.rsample_and_log_prob(6, seeded(3))
    assert w.shape == (6, q.dim)
    assert log_q.shape == (6,)
    assert w.dtype == log_q.dtype == dtype
    torch.testing.assert_close(q.log_prob(w), log_q, rtol=1e-4 if dtype == torch.float32 else 1e-9, atol=1e-4)


def test_draws_of_a_single_layer_have_the_moments_of_the_regression():
    q = make((1, 1))
    mean, covariance = regression(q.inputs.detach(), q.targets[0].detach(), q.log_precisions[0].detach())
    w = q.rsample_and_log_prob(100_000, seeded(3))[0].detach()
    error = 5 / math.sqrt(len(w))
    assert ((w.mean(0) - mean[:, 0]).abs() < error * w.std(0)).all()
    products = (w - mean[:, 0]).unsqueeze(2) * (w - mean[:, 0]).unsqueeze(1)
    assert ((products.mean(0) - covariance).abs() < error * products.std(0)).all()


def test_a_layer_follows_the_draw_of_the_layer_before_it():
    """With all but certain targets, the last layer meets them whatever the first one is."""
    q = make((1, 30, 1), num=3)
    q.inputs.data.copy_(torch.tensor([[-2.0], [0.0], [2.0]]))
    q.log_precisions[1].data.fill_(15.0)
    w = q.rsample_and_log_prob(20, seeded(4))[0].detach()
    for draw in w:
        first, last = kernels(q, draw, (1, 30, 1))
        h = torch.tanh(q.inputs.detach() @ first[:, :-1].T + first[:, -1])
        outputs = h @ last[:, :-1].T + last[:, -1]
        assert (outputs - q.targets[1].detach()).abs().max() < 0.2
    assert (w[:, :30].std(0) > 0.1).all()


def test_without_precision_it_is_the_prior():
    q = make()
    for log_precision in q.log_precisions:
        log_precision.data.fill_(-200.0)
    w = torch.randn(5, q.dim, generator=seeded(2), dtype=torch.float64)
    prior = torch.distributions.Normal(0.0, PRIOR_STD)
    torch.testing.assert_close(q.log_prob(w).detach(), prior.log_prob(w).sum(1))
    torch.testing.assert_close(q.centre.detach(), torch.zeros(q.dim, dtype=torch.float64))


def test_gradients_pass_gradcheck():
    q = make()
    w = q.rsample_and_log_prob(2, seeded(3))[0].detach()
    assert passes_gradcheck(q, lambda q: q.rsample_and_log_prob(2, seeded(3)))
    assert passes_gradcheck(q, lambda q: q.log_prob(w))


def test_the_centre_is_the_draw_without_noise_and_a_copy_is_frozen():
    q = make()
    zero = torch.zeros(1, q.dim, dtype=torch.float64)
    torch.testing.assert_close(q.centre, q._draw(zero)[0][0])
    p = q.frozen()
    w = q.rsample_and_log_prob(3, seeded(1))[0].detach()
    before = p.log_prob(w)
    assert not before.requires_grad
    q.targets[0].data.add_(1.0)
    assert torch.equal(p.log_prob(w), before)


@pytest.mark.parametrize("change", [lambda q: q.widened(2.0), lambda q: q.narrowed(0.1)])
def test_it_has_no_variances_to_change(change):
    with pytest.raises(ValueError, match="InducingPoints: has no variances of its own"):
        change(make())
