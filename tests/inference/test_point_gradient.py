"""Laws of the gradient of a point and of dropout: those of an ordinary network."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bbb.data import Split, batches
from bbb.distributions import (
    Dropout,
    Gaussian,
    Independent,
    NoiseTable,
    Point,
    drop,
    gaussian_prior,
    normal,
    scale_mixture_prior,
)
from bbb.inference import Categorical, Streams, Training, elbo, predict, predict_with_centre
from bbb.inference.gradient import ByAutograd
from bbb.inference.point_gradient import PointGradient
from bbb.inference.step import Step
from bbb.networks import (
    MLP,
    Architecture,
    BayesianNetwork,
    Dense,
    ModuleArchitecture,
    forward_drawn,
    forward_dropped,
    initial_network,
    num_dropout_noise,
    num_weights,
    units_left,
)
from tests.inference.test_local_gradient import ARCHITECTURES, NUM_EXAMPLES, double, gaussian
from tests.tasks import PLAN, seeded

SIZES = (4, 6, 5, 3)
PRIOR_STD = 0.4
NLL_WEIGHT, KL_WEIGHT = 0.4, 0.03


def start(kind, architecture=None, share=0.5, seed=1):
    architecture = architecture or MLP(SIZES)
    return initial_network(architecture, 0.1, seeded(seed), posterior=kind, dropout=share).double()


def table(window, seed=3):
    noise = NoiseTable(seeded(seed), 2, window)
    noise.begin_step()
    return noise


def data(num=64):
    x = double(num, SIZES[0], seed=5)
    return Split(126.0 * x, torch.randint(3, (num,), generator=seeded(6)))  # as pixels, which are scaled


def ordinary(network, share=None):
    """The same network as a module of PyTorch's own, under the same weights."""
    parts = []
    for i, (kernel, bias) in enumerate(network.centre_layers()):
        linear = nn.Linear(kernel.shape[2], kernel.shape[1]).double()
        linear.weight.data, linear.bias.data = kernel[0].detach().clone(), bias[0].detach().clone()
        parts += ([nn.ReLU()] if i else []) + [linear]
    return nn.Sequential(*parts)


def flat(module, of=lambda parameter: parameter):
    return torch.cat([of(parameter).flatten() for parameter in module.parameters()])


@pytest.mark.parametrize("weight_decay", [True, False])
def test_a_point_is_trained_as_an_ordinary_network_with_weight_decay(weight_decay):
    """SGD on the mean cost of a minibatch: N(0, s^2) decays the weights at 1 / (N s^2)."""
    network, train = start("point"), data()
    module = ordinary(network)
    beta_type = "standard" if weight_decay else "none"
    plan = dataclasses.replace(PLAN, num_epochs=3, batch_size=16, optimizer="sgd", lr=0.1, beta_type=beta_type)
    prior = Gaussian(
        torch.zeros(()).double(), torch.tensor(PRIOR_STD, dtype=torch.float64).log(), network.posterior.dim
    )
    epochs = [*Training(network, Categorical(3), prior, train, None, plan, Streams(seeded(1), seeded(2), 3)).fit()]
    decay = 1.0 / (len(train) * PRIOR_STD**2) if weight_decay else 0.0
    sgd, order = torch.optim.SGD(module.parameters(), lr=0.1, weight_decay=decay), seeded(1)
    for _ in range(3):
        for x, y in batches(train, 16, order):
            sgd.zero_grad()
            F.cross_entropy(module(x / 126.0), y).backward()
            sgd.step()
    torch.testing.assert_close(network.posterior.mean.detach(), flat(module).detach(), rtol=1e-9, atol=1e-9)
    assert all(epoch.train_kl is None and epoch.train_elbo is None for epoch in epochs)


PRIORS = {
    "isotropic": lambda dim: gaussian_prior(dim, PRIOR_STD).double(),
    "of its own means": lambda dim: gaussian(dim, seed=4).requires_grad_(False),
    "mixture": lambda dim: scale_mixture_prior(dim, 0.4, 1.0, 0.1).double(),
}


@pytest.mark.parametrize("with_kl", [True, False], ids=["prior", "no prior"])
@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_terms_and_gradients_are_those_of_autograd(name, prior, with_kl):
    architecture = ARCHITECTURES[name]
    dim, num_classes = num_weights(architecture.layers), architecture.num_outputs
    network, p = BayesianNetwork(architecture, Point(double(dim, seed=1))), PRIORS[prior](dim)
    ways = [way(network, Categorical(num_classes), p, 1) for way in (ByAutograd, PointGradient)]
    mean = network.posterior.mean
    for seed in (10, 11):  # the second minibatch finds the first one's gradients
        x = double(NUM_EXAMPLES, architecture.num_inputs, seed=seed)
        y = torch.randint(num_classes, (NUM_EXAMPLES,), generator=seeded(seed))
        weight = torch.tensor(KL_WEIGHT, dtype=torch.float64) if seed == 10 else KL_WEIGHT
        terms, gradients = [], []
        for way in ways:
            mean.grad = None
            terms.append(way(x, y, None, NLL_WEIGHT, weight, with_kl))
            gradients.append(mean.grad.clone())
        torch.testing.assert_close([terms[1].nll, terms[1].kl], [terms[0].nll, terms[0].kl], rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_dropout_is_that_of_an_ordinary_network_under_the_same_masks(share):
    network, train = start("dropout", share=share), data(8)
    x, y = train.images / 126.0, train.labels
    module, prior = ordinary(network), PRIORS["isotropic"](network.posterior.dim)
    window = num_dropout_noise(network.architecture, len(x))
    terms = PointGradient(network, Categorical(3), prior, 1)(x, y, table(window), NLL_WEIGHT, KL_WEIGHT, True)
    noise, h = table(window), x
    for i, layer in enumerate(module):
        h = layer(h)
        if isinstance(layer, nn.ReLU):
            h = h * drop(normal((len(x), SIZES[(i + 1) // 2]), h, noise), share)
    nll = F.cross_entropy(h, y, reduction="sum")
    penalty = -prior.log_prob(flat(module).unsqueeze(0))[0]
    (NLL_WEIGHT * nll + KL_WEIGHT * penalty).backward()
    torch.testing.assert_close([terms.nll, terms.kl], [nll.detach(), penalty.detach()], rtol=1e-9, atol=1e-9)
    gradient = flat(module, lambda parameter: parameter.grad)
    torch.testing.assert_close(network.posterior.mean.grad, gradient, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_dropout_of_nothing_is_a_point(name):
    architecture = ARCHITECTURES[name]
    x = double(NUM_EXAMPLES, architecture.num_inputs, seed=2)
    y = torch.randint(architecture.num_outputs, (NUM_EXAMPLES,), generator=seeded(2))
    gradients = []
    for kind in ("point", "dropout"):
        network = start(kind, architecture, share=0.0)
        prior = PRIORS["isotropic"](network.posterior.dim)
        PointGradient(network, Categorical(architecture.num_outputs), prior, 1)(x, y, seeded(1), 1.0, 0.1, True)
        gradients.append(network.posterior.mean.grad)
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


def grouped():
    parts = nn.Conv2d(1, 4, 2), nn.ReLU(), nn.Conv2d(4, 6, 2, groups=2, bias=False), nn.Flatten(), nn.Linear(24, 3)
    return ModuleArchitecture(nn.Sequential(*parts), (1, 4, 4), 3, "grouped")


@pytest.mark.parametrize("name", [*ARCHITECTURES, "groups"])
def test_what_an_example_sees_in_training_is_a_draw_of_the_weights(name):
    """From the same noise: the units that are dropped are the columns that a draw sets to zero."""
    architecture = grouped() if name == "groups" else ARCHITECTURES[name]
    network = start("dropout", architecture, share=0.4)
    num = num_dropout_noise(architecture, 1)
    if num != units_left(architecture.layers)[1]:
        pytest.skip("a layer runs on several vectors of an example, or several times")
    x, w = double(1, architecture.num_inputs, seed=2), network.posterior.rsample_and_log_prob(1, table(num))[0]
    drawn = forward_drawn(architecture, network.layers(w), x)
    trained = forward_dropped(architecture, network.centre_layers(), x, 0.4, table(num))
    torch.testing.assert_close(trained, drawn, rtol=1e-9, atol=1e-9)
    assert (w == 0).any()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_step_reads_as_much_noise_as_it_reserves(name):
    architecture = ARCHITECTURES[name]
    network = start("dropout", architecture)
    noise = table(num_dropout_noise(architecture, 5))
    x = double(5, architecture.num_inputs, seed=2)
    forward_dropped(architecture, network.centre_layers(), x, 0.5, noise)
    with pytest.raises(ValueError, match="a step reads more than"):
        noise.normal((1,))


class Linear(Architecture):
    """Two layers without anything between them: the outputs are linear in the masks."""

    layers = Dense(20, 4), Dense(3, 20)
    num_inputs = 4

    def forward(self, apply, x):
        return apply(1, apply(0, x))

    def __str__(self):
        return "linear"


def test_over_many_masks_a_linear_network_predicts_as_with_weight_scaling():
    network, num = start("dropout", Linear(), share=0.3), 20_000
    x = double(1, 4, seed=2)
    scaled = forward_drawn(network.architecture, network.centre_layers(), x)[0, 0]
    trained = forward_dropped(network.architecture, network.centre_layers(), x.expand(num, 4), 0.3, seeded(1))[0]
    w, _ = network.posterior.rsample_and_log_prob(num, seeded(2))
    drawn = forward_drawn(network.architecture, network.layers(w), x)[:, 0]
    for outputs in (trained, drawn):
        error = outputs.std(0) / num**0.5
        assert error.min() > 0
        assert ((outputs.mean(0) - scaled).abs() < 5 * error).all()


def test_masks_are_drawn_anew_in_every_step():
    network, train = start("dropout"), data(16)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    step = Step(
        network, Categorical(3), PRIORS["isotropic"](network.posterior.dim), PLAN, [seeded(1)], train, optimizer
    )
    x, y = train.images[:8], train.labels[:8]
    costs = [step(x, y, 0.0, False)[0].item() for _ in range(20)]
    assert len({*costs}) == 20


def test_a_point_is_run_once_however_many_draws_are_asked_for(toy_split):
    network = start("point", MLP((12, 8, 3))).float()
    seen = []
    log_probs = predict(network, Categorical(3), toy_split.images, 100, seeded(1), seen.append)
    assert seen == [len(toy_split)]
    assert torch.equal(log_probs, Categorical(3).mix([predict_with_centre(network, Categorical(3), toy_split.images)]))
    dropped = start("dropout", MLP((12, 8, 3))).float()
    predict(dropped, Categorical(3), toy_split.images, 7, seeded(1), seen.append)
    assert len(seen) == 8
    with pytest.raises(ValueError, match="neither KL nor ELBO is defined"):
        elbo(dropped, Categorical(3), gaussian_prior(dropped.posterior.dim, 1.0), toy_split, 1, seeded(1))


def test_the_way_is_chosen_by_the_posterior(toy_split):
    def way(network, prior):
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        step = Step(network, Categorical(3), prior, PLAN, [seeded(1)], toy_split, optimizer)
        return type(step.estimator)

    dim = num_weights(MLP((12, 8, 3)).layers)
    of_parts = Independent([gaussian_prior(5, 1.0), gaussian_prior(dim - 5, 1.0)])
    point, dropped = (start(kind, MLP((12, 8, 3))) for kind in ("point", "dropout"))
    assert way(point, gaussian_prior(dim, 1.0)) is way(dropped, gaussian_prior(dim, 1.0)) is PointGradient
    assert way(point, of_parts) is way(BayesianNetwork.stacked([point, point]), gaussian_prior(dim, 1.0)) is ByAutograd
    for network, prior, num, message in (
        (dropped, of_parts, 1, "must be a Gaussian or a scale mixture"),
        (dropped, gaussian_prior(dim, 1.0), 2, "num_samples=2: a point is drawn once"),
        (point.with_posterior(gaussian(dim, seed=1)), gaussian_prior(dim, 1.0), 1, "must be the point of a single"),
    ):
        with pytest.raises(ValueError, match=message):
            PointGradient(network, Categorical(3), prior, num)


def test_a_mask_of_units_must_fit_the_weights():
    with pytest.raises(ValueError, match="unit: has shape"):
        Dropout(torch.zeros(3), 0.5, torch.zeros(2, dtype=torch.int32), 1)
