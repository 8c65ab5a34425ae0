import math

import pytest
import torch

from bbb.distributions import (
    FLOWS,
    FlowedGaussian,
    Gaussian,
    ScaleMixture,
    flows_of,
    identity_flow,
    num_flow_parameters,
)
from tests.tasks import random_flow, random_flowed, random_gaussian, seeded

DIM = 7
POSTERIORS = {"gaussian": random_gaussian, "16 flows": random_flowed}


@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("num_samples", [1, 5])
def test_frozen_posterior_is_a_prior_at_distance_zero(posterior, num_samples):
    q = POSTERIORS[posterior](1)
    p = q.frozen()
    w, log_q = q.rsample_and_log_prob(num_samples, seeded(2))
    torch.testing.assert_close(log_q - p.log_prob(w), torch.zeros(num_samples).double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_a_step_on_the_posterior_leaves_the_frozen_copy_as_it_was(posterior):
    q = POSTERIORS[posterior](1)
    p = q.frozen()
    before = [value.clone() for value in p.state_dict().values()]
    optimizer = torch.optim.Adam(q.parameters(), lr=0.1)
    q.rsample_and_log_prob(1, seeded(2))[0].sum().backward()
    optimizer.step()
    assert not any(parameter.requires_grad for parameter in p.parameters())
    assert all(torch.equal(old, new) for old, new in zip(before, p.state_dict().values(), strict=True))
    assert not torch.equal(q.centre, p.centre)


def test_flows_that_do_not_fit_are_refused():
    q = random_flowed(1)
    with pytest.raises(ValueError, match=r"dims=\(7, 3\): 2 flows and 7 weights do not fit"):
        FlowedGaussian(q.base, list(q.flows), (7, 3))


def test_split_inside_a_block_of_flows_is_refused():
    with pytest.raises(ValueError, match="num_first=2: the blocks end at"):
        random_flowed(1).split(2)
    with pytest.raises(ValueError, match="a ScaleMixture cannot be split"):
        ScaleMixture(5, 0.5, 1.0, 0.1).split(2)


@pytest.mark.parametrize("flow", FLOWS)
def test_flows_on_an_isotropic_base_are_those_on_the_same_base_written_out(flow):
    flows, values = [random_flow(1, DIM, 3, flow)], torch.tensor([0.3, -0.5], dtype=torch.float64)
    scalar = FlowedGaussian(Gaussian(*values, dim=DIM), flows, [DIM])
    full = FlowedGaussian(Gaussian(*values.unsqueeze(1).expand(2, DIM).clone()), flows, [DIM])
    torch.testing.assert_close(scalar.centre, full.centre)
    w, log_q = scalar.rsample_and_log_prob(3, seeded(2))
    torch.testing.assert_close((w, log_q), full.rsample_and_log_prob(3, seeded(2)))
    torch.testing.assert_close(scalar.log_prob(w), log_q, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("flow", FLOWS)
def test_the_parameters_of_flows_are_counted(flow):
    layers = (((8, 12), True), ((3, 8), True), ((4, 2, 3, 3), False), ((5, 6), False))
    flows = [identity_flow(flow, shape, 5, 0.05, seeded(1), has_bias) for shape, has_bias in layers]
    matrices = [(shape[0], math.prod(shape[1:]) + has_bias) for shape, has_bias in layers]
    counted = sum(parameter.numel() for parameter in torch.nn.ModuleList(flows).parameters())
    assert counted == 5 * num_flow_parameters(matrices, flow)


def test_flows_are_told_by_family_and_number():
    assert flows_of(random_flowed(1, num_flows=16)) == ("planar", 16)
    assert flows_of(random_flowed(1, num_flows=3, flow="matrix_planar")) == ("matrix_planar", 3)
    assert flows_of(random_gaussian(1)) == (None, 0)
