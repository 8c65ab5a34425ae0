"""Laws of ordinary training: it is that of an ordinary network, with weight decay and dropout."""

import pytest
import torch
import torch.nn.functional as F

from bbb.distributions import Gaussian, NoiseTable, Point, gaussian_prior, normal, scale_mixture_prior
from bbb.inference import Categorical
from bbb.inference.gradient import ByAutograd
from bbb.inference.point_gradient import PointGradient
from bbb.inference.step import Step
from bbb.networks import MLP, BayesianNetwork, forward_drawn, forward_dropped, initial_network, num_weights
from tests.inference.test_local_gradient import ARCHITECTURES, NUM_EXAMPLES, double, priors
from tests.tasks import PLAN, TOY, seeded

NLL_WEIGHT, KL_WEIGHT, SHARE = 0.4, 0.03, 0.4
DENSITIES = sorted(priors(1).keys() - {"ARD"})


def network(architecture, posterior="point", share=SHARE):
    return initial_network(architecture, 1.0, seeded(1), posterior=posterior, dropout=share).double()


def minibatch(architecture, seed):
    y = torch.randint(architecture.num_outputs, (NUM_EXAMPLES,), generator=seeded(seed))
    return double(NUM_EXAMPLES, architecture.num_inputs, seed=seed), y


@pytest.mark.parametrize("with_kl", [True, False], ids=["KL", "no KL"])
@pytest.mark.parametrize("prior", DENSITIES)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_terms_and_gradients_are_those_of_autograd(name, prior, with_kl):
    architecture = ARCHITECTURES[name]
    net, p = network(architecture), priors(num_weights(architecture.layers))[prior]
    mean, likelihood = net.posterior.mean, Categorical(architecture.num_outputs)
    ways = [way(net, likelihood, p, 1) for way in (ByAutograd, PointGradient)]
    for seed in (10, 11):  # the second minibatch finds the first one's gradients
        found = []
        for way in ways:
            mean.grad = None
            terms = way(*minibatch(architecture, seed), None, NLL_WEIGHT, KL_WEIGHT, with_kl)
            found.append((terms.nll, terms.kl, mean.grad.clone()))
        torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-11)


def test_steps_are_those_of_an_ordinary_network_with_weight_decay():
    """A prior N(0, s^2), paid once in N examples, decays weights at the rate 1 / (N s^2)."""
    std, lr, num_train = 0.5, 0.1, 40
    architecture = MLP((6, 5, 3))
    net = network(architecture)
    ours = torch.optim.SGD(net.parameters(), lr=lr)
    plain = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3)).double()
    with torch.no_grad():
        for (kernel, bias), layer in zip(net.centre_layers(), (plain[0], plain[2]), strict=True):
            layer.weight.copy_(kernel[0])
            layer.bias.copy_(bias[0])
    theirs = torch.optim.SGD(plain.parameters(), lr=lr, weight_decay=1.0 / (num_train * std**2))
    gradient = PointGradient(net, Categorical(3), gaussian_prior(net.posterior.dim, std).double(), 1)
    for seed in range(5):
        x, y = minibatch(architecture, seed)
        gradient(x, y, None, 1.0 / NUM_EXAMPLES, 1.0 / num_train, True)
        ours.step()
        theirs.zero_grad()
        F.cross_entropy(plain(x), y).backward()
        theirs.step()
    for (kernel, bias), layer in zip(net.centre_layers(), (plain[0], plain[2]), strict=True):
        torch.testing.assert_close(kernel[0], layer.weight, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(bias[0], layer.bias, rtol=1e-9, atol=1e-12)


def test_dropout_drops_hidden_units_of_each_example_on_its_own():
    """The gradient is that of the formulas as they are written down, with the same masks."""
    architecture = MLP((6, 5, 4, 3))
    net = network(architecture, "dropout")
    x, y = minibatch(architecture, 3)
    gradient = PointGradient(net, Categorical(3), gaussian_prior(net.posterior.dim, 1.0).double(), 1)
    terms = gradient(x, y, seeded(4), 1.0, 0.0, False)
    noise, h = seeded(4), x
    weights = net.posterior.mean.detach().clone().requires_grad_()
    least = torch.special.ndtri(torch.tensor(SHARE, dtype=torch.float64))
    for i, (kernel, bias) in enumerate(net.layers(weights.unsqueeze(0))):
        if i > 0:
            keep = normal(h.shape, h, noise) >= least
            assert 0 < keep.sum() < keep.numel()
            h = F.relu(h) * keep / (1.0 - SHARE)
        h = F.linear(h, kernel[0], bias[0])
    nll = F.cross_entropy(h, y, reduction="sum")
    torch.testing.assert_close(terms.nll, nll.detach(), rtol=1e-10, atol=1e-12)
    (expected,) = torch.autograd.grad(nll, weights)
    torch.testing.assert_close(net.posterior.mean.grad, expected, rtol=1e-9, atol=1e-11)


def test_a_dropout_of_nothing_is_a_point():
    architecture = MLP((6, 5, 4, 3))
    grads = []
    for net in (network(architecture), network(architecture, "dropout", 0.0)):
        gradient = PointGradient(net, Categorical(3), gaussian_prior(net.posterior.dim, 1.0).double(), 1)
        gradient(*minibatch(architecture, 3), seeded(4), 1.0, 0.5, True)
        grads.append(net.posterior.mean.grad)
    torch.testing.assert_close(*grads, rtol=1e-10, atol=1e-12)


def test_masks_of_examples_and_of_draws_have_the_same_mean():
    """Of a network without hidden nonlinearity: its outputs under weight scaling, within five standard errors."""

    class Linear(MLP):
        def forward(self, apply, x):
            return apply(1, apply(0, x))

    architecture, num = Linear((3, 20, 2)), 20_000
    net = BayesianNetwork(architecture, network(MLP((3, 20, 2)), "dropout").posterior)
    x = double(1, 3, seed=1)
    scaled = forward_drawn(architecture, net.centre_layers(), x)[0, 0].detach()
    q = net.posterior
    with torch.no_grad():
        of_draws = forward_drawn(architecture, net.layers(q.rsample_and_log_prob(num, seeded(2))[0]), x)[:, 0]
        of_examples = forward_dropped(architecture, net.centre_layers(), x.expand(num, 3), SHARE, seeded(3))[0]
    for outputs in (of_draws, of_examples):
        assert ((outputs.mean(0) - scaled).abs() < 5 * outputs.std(0) / num**0.5).all()
    torch.testing.assert_close(of_draws.std(0), of_examples.std(0), rtol=0.05, atol=0)


@pytest.mark.parametrize("posterior", ["point", "dropout"])
def test_a_step_chooses_it_and_has_noise_enough(posterior, toy_split):
    net = initial_network(TOY, 1.0, seeded(1), posterior=posterior)
    prior = scale_mixture_prior(net.posterior.dim, 0.5, 1.0, 0.1)
    step = Step(net, Categorical(3), prior, PLAN, [seeded(1)], toy_split, torch.optim.SGD(net.parameters(), lr=0.1))
    assert type(step.estimator) is PointGradient
    assert isinstance(step.tables[0], NoiseTable)
    before = net.posterior.mean.detach().clone()
    for _ in range(20):
        step(toy_split.images[:10], toy_split.labels[:10], 0.1)
    assert (net.posterior.mean != before).any()


def test_other_posteriors_and_priors_are_refused():
    dim = num_weights(TOY.layers)
    for q, p in (
        (Gaussian(torch.zeros(dim), torch.zeros(dim)), gaussian_prior(dim, 1.0)),
        (Point(torch.zeros(dim)),) * 2,
    ):
        with pytest.raises(ValueError, match=r"must be (the point of a single network|a Gaussian or a scale mixture)"):
            PointGradient(BayesianNetwork(TOY, q), Categorical(3), p, 1)
