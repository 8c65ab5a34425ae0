"""Laws of drawn weights by hand: the terms and gradients are those of autograd, from the same noise."""

import dataclasses

import pytest
import torch

from bbb.distributions import ARD, Gaussian, Independent, NoiseTable, gaussian_prior, scale_mixture_prior
from bbb.inference import Categorical
from bbb.inference.drawn_gradient import DrawnGradient
from bbb.inference.gradient import ByAutograd
from bbb.inference.step import LARGE, Step
from bbb.networks import MLP, BayesianNetwork, initial_network, num_weights
from tests.inference.test_local_gradient import ARCHITECTURES, NUM_EXAMPLES, double, gaussian, priors
from tests.tasks import PLAN, seeded

NLL_WEIGHT, KL_WEIGHT = 0.4, 0.03


def table(network, num_samples):
    noise = NoiseTable(seeded(3), 2, num_samples * network.posterior.dim)
    noise.begin_step()
    return noise


def same(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("with_kl", [True, False], ids=["KL", "no KL"])
@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.parametrize("prior", priors(1))
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_terms_and_gradients_are_those_of_autograd(name, prior, num_samples, with_kl):
    architecture = ARCHITECTURES[name]
    dim, num_classes = num_weights(architecture.layers), architecture.num_outputs
    network, p = BayesianNetwork(architecture, gaussian(dim, seed=1)), priors(dim)[prior]
    parameters = [*network.posterior.parameters()]
    ways = [way(network, Categorical(num_classes), p, num_samples) for way in (ByAutograd, DrawnGradient)]
    for seed in (10, 11):  # the second minibatch finds the first one's gradients
        x = double(NUM_EXAMPLES, architecture.num_inputs, seed=seed)
        y = torch.randint(num_classes, (NUM_EXAMPLES,), generator=seeded(seed))
        weight = torch.tensor(KL_WEIGHT, dtype=torch.float64) if seed == 10 else KL_WEIGHT  # a tensor in a GPU's graph
        terms, gradients = [], []
        for way in ways:
            for parameter in parameters:
                parameter.grad = None
            terms.append(way(x, y, table(network, num_samples), NLL_WEIGHT, weight, with_kl))
            gradients.append([parameter.grad.clone() for parameter in parameters])
        same([terms[1].nll, terms[1].kl], [terms[0].nll, terms[0].kl])
        torch.testing.assert_close(terms[1].score, terms[0].score, check_dtype=False)
        same(gradients[1], gradients[0])


@pytest.mark.parametrize("with_kl", [True, False], ids=["KL", "no KL"])
@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.parametrize("prior", sorted(priors(1).keys() - {"ARD"}))
@pytest.mark.parametrize("name", ["MLP", "convolutions"])
@pytest.mark.parametrize("flow", ["planar", "matrix_planar"])
def test_flows_go_with_drawn_weights(flow, name, prior, num_samples, with_kl):
    architecture = ARCHITECTURES[name]
    network = initial_network(architecture, 0.3, seeded(1), 3, flow).double()
    with torch.no_grad():
        for i, parameter in enumerate(network.posterior.parameters()):
            parameter.add_(0.1 * double(*parameter.shape, seed=20 + i))
    parameters, p = [*network.posterior.parameters()], priors(network.posterior.dim)[prior]
    x, y = double(NUM_EXAMPLES, architecture.num_inputs, seed=2), torch.tensor([0, 1, 2, 0, 1])
    terms, gradients = [], []
    for way in (ByAutograd, DrawnGradient):
        for parameter in parameters:
            parameter.grad = None
        estimator = way(network, Categorical(3), p, num_samples)
        terms.append(estimator(x, y, table(network, num_samples), NLL_WEIGHT, KL_WEIGHT, with_kl))
        gradients.append([parameter.grad.clone() for parameter in parameters])
    same([terms[1].nll, terms[1].kl], [terms[0].nll, terms[0].kl])
    same(gradients[1], gradients[0])


def test_a_prior_that_follows_a_gaussian_is_refused_with_flows():
    network = initial_network(ARCHITECTURES["MLP"], 0.3, seeded(1), 3, "planar")
    with pytest.raises(ValueError, match="prior=ARD: needs a Gaussian posterior, without flows"):
        DrawnGradient(network, Categorical(3), priors(network.posterior.dim)["ARD"], 1)


def test_layers_that_do_not_run_have_no_gradient():
    class Lazy(MLP):
        def forward(self, apply, x):
            return apply(1, x)

    architecture = Lazy((3, 3, 3))
    network = BayesianNetwork(architecture, gaussian(num_weights(architecture.layers), seed=1))
    by_hand = DrawnGradient(network, Categorical(3), priors(network.posterior.dim)["isotropic"], 2)
    by_hand(double(4, 3, seed=2), torch.tensor([0, 1, 2, 0]), table(network, 2), 1.0, 0.0, False)
    for parameter in network.posterior.parameters():
        kernel, bias = network.layers(parameter.grad.unsqueeze(0))[0]
        assert (kernel == 0).all()
        assert (bias == 0).all()


@pytest.mark.parametrize(
    ("num_hidden", "num_samples", "prior", "way"),
    [
        (4, 1, "gaussian", DrawnGradient),
        (4, 2, "gaussian", ByAutograd),  # a batched product is faster for a small network
        (LARGE, 2, "gaussian", DrawnGradient),
        (LARGE, 2, "mixture", DrawnGradient),
        (4, 1, "ARD", DrawnGradient),
        (4, 1, "of parts", ByAutograd),
    ],
)
def test_the_way_is_chosen_for_speed(num_hidden, num_samples, prior, way, toy_split):
    architecture = MLP((12, num_hidden, 3))
    dim = num_weights(architecture.layers)
    network = BayesianNetwork(architecture, Gaussian(torch.zeros(dim), torch.zeros(dim)))
    prior = {
        "gaussian": gaussian_prior(dim, 1.0),
        "ARD": ARD(dim, 1.0),
        "mixture": scale_mixture_prior(dim, 0.5, 1.0, 0.1),
        "of parts": Independent([gaussian_prior(5, 1.0), gaussian_prior(dim - 5, 1.0)]),
    }[prior]
    plan = dataclasses.replace(PLAN, num_samples=num_samples)
    step = Step(network, Categorical(3), prior, plan, [seeded(1)], toy_split, torch.optim.SGD(network.parameters()))
    assert type(step.estimator) is way
