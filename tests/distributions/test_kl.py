import pytest
import torch

from bbb import fused, objective, priors
from bbb.weights import Gaussian

DIM = 37


def posterior(seed, *replicas):
    generator = torch.Generator().manual_seed(seed)
    mean, log_std = torch.randn(2, *replicas, DIM, generator=generator, dtype=torch.float64)
    return Gaussian(0.3 * mean, 0.2 * log_std - 2.0)


PRIORS = {
    "mixture": priors.scale_mixture(DIM, 0.25, 1.0, 0.05),
    "narrow mixture": priors.scale_mixture(DIM, 0.5, 1.0, 1e-6),
    "equal mixture": priors.scale_mixture(DIM, 0.5, 0.5, 0.5),
    "isotropic": priors.gaussian(DIM, 0.7).double(),
    "posterior": posterior(9).frozen(),
}


@pytest.mark.parametrize("replicas", [(), (3,)], ids=["one", "replicas"])
@pytest.mark.parametrize("num_samples", [1, 4])
@pytest.mark.parametrize("prior", PRIORS)
def test_equals_drawing_and_then_scoring_and_so_do_its_gradients(prior, num_samples, replicas):
    q, p = posterior(1, *replicas), PRIORS[prior]
    w, kl = fused.draw(q, p, num_samples, torch.Generator().manual_seed(2))
    draws = q.rsample(num_samples, torch.Generator().manual_seed(2))
    expected = objective.kl_divergence(q, p, draws)
    assert kl.shape == replicas
    torch.testing.assert_close(w, draws[0], rtol=0, atol=0)
    torch.testing.assert_close(kl, expected, rtol=1e-9, atol=1e-9)
    weights = torch.arange(1.0, 1.0 + kl.numel()).view(kl.shape).double()
    ours = torch.autograd.grad((w.sin() * w).sum() + (weights * kl).sum(), list(q.parameters()))
    theirs = torch.autograd.grad((draws[0].sin() * draws[0]).sum() + (weights * expected).sum(), list(q.parameters()))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_replicas_are_independent():
    q = posterior(1, 3)
    w, kl = fused.draw(q, PRIORS["mixture"], 2, torch.Generator().manual_seed(2))
    assert w.shape == (2, 3, DIM)
    kl[1].backward()
    assert q.mean.grad[1].abs().min() > 0
    assert (q.mean.grad[[0, 2]] == 0).all()


def test_only_pairs_it_knows_are_drawn():
    assert fused.can_draw(posterior(1), PRIORS["mixture"])
    assert not fused.can_draw(priors.gaussian(DIM, 1.0), PRIORS["mixture"])
    assert not fused.can_draw(posterior(1), torch.nn.Identity())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("std2", [0.5, 0.0025, 1e-6])
def test_a_product_of_responsibilities_does_not_underflow(std2, dtype):
    """log p at w = 0, where every responsibility is as small as it can be."""
    p = priors.scale_mixture(1000, 0.5, 1.0, std2)
    w = torch.zeros(1, 1000, dtype=dtype)
    density = 0.5 / (2 * torch.pi) ** 0.5 * (1.0 + 1.0 / std2)
    expected = 1000 * torch.tensor(density, dtype=torch.float64).log()
    torch.testing.assert_close(p.log_prob(w).double()[0], expected, rtol=1e-5, atol=0)
