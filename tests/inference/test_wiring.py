"""The wiring of the ELBO: what a training pays for each minibatch, what its costs add up to, and where it ends.

All in float64, and with weights that stay as they are, or noise that comes back, where a law is an identity.
"""

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from bbb.data import Normalization, Split
from bbb.distributions import NoiseTable, Stacked, gaussian_prior, kl_divergence, scale_mixture_prior
from bbb.inference import Categorical, GaussianNoise, Step, Training, elbo
from bbb.networks import MLP, BayesianNetwork, forward_drawn, initial_network, num_weights
from bbb.system import Group
from tests.tasks import PLAN, THREE_CLASSES, TOY, network, seeded, streams

MIXTURE = scale_mixture_prior(num_weights(TOY.layers), 0.5, 1.0, 0.1)
NUM, NUM_BATCHES = 64, 7  # of 10 images each, but for the last, which has 4
T = 0.3
NEGLIGIBLE = 2.0**-50  # a part of the KL that no gradient in float32 shows, and that may be left out
VARIANTS = {
    "Gaussian prior": {},
    "local": {"estimator": "local"},
    "mixture, many draws": {"prior": MIXTURE, "num_samples": 3},
    "flows": {"num_flows": 4},
    "matrix flows, mixture, many draws": {
        "num_flows": 4,
        "flow": "matrix_planar",
        "prior": MIXTURE,
        "num_samples": 2,
    },
    "replicas": {"num_replicas": 2},
}


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Silent(Categorical):
    """A likelihood that learns nothing from the labels, so that a cost is its share of the KL."""

    def nll(self, outputs, y):
        return 0.0 * super().nll(outputs, y)


class SameNoise(NoiseTable):
    """Draws the same noise in each step, so that all minibatches are scored under the same weights."""

    def __init__(self, seed):
        super().__init__(seeded(seed), num_uses=1, window=0)
        self.seed = seed

    def begin_step(self):
        self.generator.manual_seed(self.seed)


def training(split, likelihood=THREE_CLASSES, prior=None, num_flows=0, flow="planar", num_replicas=1, **changes):
    """A training whose weights stay as they are: it has a learning rate of zero, and draws fresh noise each step."""
    seeds = range(1, 1 + num_replicas)
    networks = [network(seed, num_flows, flow) for seed in seeds]
    started = BayesianNetwork.stacked(networks) if num_replicas > 1 else networks[0]
    prior = prior or gaussian_prior(started.posterior.dim, 0.5)
    plan = dataclasses.replace(PLAN, **{"lr": 0.0, "noise_reuse": 1, "temperature": T, **changes})
    return Training(started, likelihood, prior, split, None, plan, [streams(seed) for seed in seeds])


def fit(process) -> tuple[Tensor, Tensor]:
    """Train to the end: the cost of each step, and its gradient in all parameters."""
    costs, gradients, gradient = [], [], process.step.gradient

    def recorded(*arguments):
        cost, measured = gradient(*arguments)
        costs.append(cost.clone())
        gradients.append(flat(p.grad for p in process.network.posterior.parameters()))
        return cost, measured

    process.step.gradient = recorded
    list(process.fit())
    return torch.stack(costs), torch.stack(gradients)


def flat(tensors):
    return torch.cat([tensor.flatten() for tensor in tensors]).clone()


def gradient_of(value, posterior):
    return flat(torch.autograd.grad(value.sum(), list(posterior.parameters())))


def shares_of(scheme, num_batches, epoch, num_epochs):
    """What the papers say, on its own: nothing here is shared with the code."""
    if scheme == "blundell":
        return [2.0 ** (num_batches - i) / (2.0**num_batches - 1.0) for i in range(1, num_batches + 1)]
    total = {"standard": 1.0, "none": 0.0, "soenderby": min(1.0, 4.0 * (epoch + 1) / num_epochs)}[scheme]
    return [total / num_batches] * num_batches


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("scheme", ["standard", "blundell", "soenderby", "none"])
def test_minibatch_i_pays_its_share_of_the_kl(scheme, variant, toy_split):
    """Two passes an epoch, each of which pays the whole KL; eight epochs, in two of which soenderby warms up."""
    changes = {"beta_type": scheme, "num_epochs": 8, "steps_per_epoch": 8, **VARIANTS[variant]}
    process = training(toy_split, Silent(3), **changes)
    noise = streams(1).weights
    kls = []
    for _ in range(8 * 2 * NUM_BATCHES):
        posterior, prior = process.network.posterior, process.step.estimator.prior
        draws = posterior.rsample_and_log_prob(process.plan.num_samples, noise)
        kls.append(gradient_of(kl_divergence(posterior, prior, draws), posterior))
    _, gradients = fit(process)
    shares = torch.tensor([shares_of(scheme, NUM_BATCHES, epoch, 8) * 2 for epoch in range(8)]).flatten()
    expected = NUM_BATCHES / NUM * T * shares.unsqueeze(1) * torch.stack(kls)
    torch.testing.assert_close(gradients, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("temperature", [1.0, 2.0**-30])
def test_a_kl_that_is_left_out_is_negligible(temperature, toy_split):
    """64 minibatches: the shares of Blundell's scheme fall to 2^-64."""
    changes = {"beta_type": "blundell", "batch_size": 1, "num_epochs": 1, "temperature": temperature}
    process = training(toy_split, Silent(3), **changes)
    posterior = process.network.posterior
    kl = gradient_of(kl_divergence(posterior, process.step.estimator.prior), posterior)
    _, gradients = fit(process)
    owed = temperature * torch.tensor(shares_of("blundell", NUM, 0, 1))
    torch.testing.assert_close(gradients @ kl / (kl @ kl), owed, rtol=1e-9, atol=NEGLIGIBLE)
    assert (gradients[owed <= NEGLIGIBLE] == 0.0).all()


def with_same_weights(process):
    """Let all minibatches see the same weights; returns the cost of the whole training set under these."""
    network, num_replicas = process.network, process.network.num_replicas
    process.step.tables = tables = [SameNoise(5 + replica) for replica in range(num_replicas or 1)]
    for table in tables:
        table.begin_step()
    draws = network.posterior.rsample_and_log_prob(
        process.plan.num_samples, Stacked(tables) if num_replicas else tables[0]
    )
    shape = (num_replicas,) if num_replicas else ()
    x, y = Normalization()(process.train.images), process.train.labels
    outputs = forward_drawn(TOY, network.layers(draws[0]), x.expand(*shape, *x.shape))
    nll = -THREE_CLASSES.log_prob(outputs, y.expand(*shape, NUM)).sum(-1).mean(0)
    kl = kl_divergence(network.posterior, process.step.estimator.prior, draws)
    return lambda temperature: ((nll + temperature * kl) / NUM).sum()


@pytest.mark.parametrize("batch_size", [10, 64, 1])
@pytest.mark.parametrize("scheme", ["standard", "blundell", "soenderby", "none"])
@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "local"])  # which draws for each image
def test_minibatches_add_up_to_the_whole_training_set(variant, scheme, batch_size, toy_split):
    """The mean cost of M minibatches is the negative ELBO per example: each is scaled by M / N. So is the gradient."""
    changes = {"beta_type": scheme, "batch_size": batch_size, "num_epochs": 1, **VARIANTS[variant]}
    process = training(toy_split, **changes)
    whole = with_same_weights(process)(0.0 if scheme == "none" else T)
    expected = gradient_of(whole, process.network.posterior)
    costs, gradients = fit(process)
    torch.testing.assert_close(costs.mean(), whole.detach(), rtol=1e-6, atol=0)
    torch.testing.assert_close(gradients.mean(0), expected, rtol=1e-6, atol=1e-9)


def test_local_and_weights_have_equal_expected_gradients(toy_split):
    """On two layers, to the standard errors of 20,000 draws each: no |z| is large, and the mean of z^2 is near one."""
    images, y = toy_split.images[:8], toy_split.labels[:8]
    means, errors = [], []
    for seed, estimator in enumerate(("weights", "local")):
        started = network(1)
        with torch.no_grad():
            started.posterior.mean.add_(0.1 * torch.randn(started.posterior.dim, generator=seeded(2)))
            started.posterior.log_std.fill_(math.log(0.2))
        plan = dataclasses.replace(PLAN, estimator=estimator, num_samples=500, noise_reuse=1)
        parameters = list(started.posterior.parameters())
        prior = gaussian_prior(started.posterior.dim, 1.0)
        optimizer = torch.optim.SGD(parameters, lr=0.0)
        step = Step(started, THREE_CLASSES, prior, plan, [seeded(10 + seed)], toy_split, optimizer)
        gradients = []
        for _ in range(40):
            step.gradient(images, y, 1.0)
            gradients.append(flat(p.grad for p in parameters))
        errors.append(torch.stack(gradients).std(0) / math.sqrt(len(gradients)))
        means.append(torch.stack(gradients).mean(0))
    error = errors[0].hypot(errors[1])
    active = error > 1e-12  # weights of pixels that are zero in all images have the gradient of the KL alone
    z = (means[0] - means[1])[active] / error[active]
    assert z.abs().max() < 5.0
    assert z.square().mean() < 1.5
    assert ((means[0] - means[1])[~active].abs() < 1e-9).all()
    assert active.double().mean() > 0.9


@pytest.mark.parametrize("scheme", ["standard", "blundell"])
@pytest.mark.parametrize("estimator", ["weights", "local"])
def test_a_training_reaches_the_posterior_in_closed_form(estimator, scheme):
    """Linear regression whose inputs are orthogonal to each other and to the bias: its posterior is factorised."""
    noise_std, prior_std, num = 0.7, 1.3, 8
    columns = torch.cat([torch.ones(num, 1), torch.randn(num, 3, generator=seeded(3))], 1)
    x = torch.linalg.qr(columns).Q[:, 1:] * torch.tensor([1.0, 2.0, 0.5])
    y = 2.0 * torch.randn(num, generator=seeded(4))
    design = torch.cat([x, torch.ones(num, 1)], 1)
    precision = design.square().sum(0) / noise_std**2 + prior_std**-2
    mean, std = design.T @ y / noise_std**2 / precision, precision.rsqrt()

    started, split = initial_network(MLP((3, 1)), 0.3, seeded(1)), Split(126.0 * x, y)  # as pixels, which are scaled
    changes = {"num_epochs": 300, "batch_size": 3, "num_samples": 256, "lr": 0.05, "lr_schedule": "cosine"}
    plan = dataclasses.replace(PLAN, estimator=estimator, beta_type=scheme, **changes)
    process = Training(
        started, GaussianNoise(1, noise_std), gaussian_prior(4, prior_std), split, None, plan, streams(1)
    )
    list(process.fit())
    q = started.posterior
    torch.testing.assert_close(q.log_std.exp().detach(), std, rtol=0.03, atol=0)
    assert ((q.mean - mean).abs() < 0.05 * std).all()


def test_elbo_averages_the_kl_over_all_draws_and_divides_by_n_once(toy_split):
    trained, generator, log_likelihoods, kls = network(1), seeded(3), [], []
    for _ in range(4):
        w, log_q = trained.posterior.rsample_and_log_prob(1, generator)
        outputs = forward_drawn(TOY, trained.layers(w), Normalization()(toy_split.images))
        log_likelihoods.append(outputs.log_softmax(-1)[0, torch.arange(NUM), toy_split.labels].sum().item())
        kls.append((log_q - MIXTURE.log_prob(w)).item())
    assert max(kls) - min(kls) > 1.0  # so that each of them counts
    per_example, kl = elbo(trained, THREE_CLASSES, MIXTURE, toy_split, 4, seeded(3))
    assert kl == pytest.approx(sum(kls) / 4, rel=1e-9)
    assert per_example == pytest.approx((sum(log_likelihoods) - sum(kls)) / 4 / NUM, rel=1e-9)


@pytest.mark.parametrize("num_outputs", [None, 2])
@pytest.mark.parametrize("num_replicas", [1, 2])
def test_processes_share_out_the_examples_whatever_their_labels_are(num_replicas, num_outputs, toy_split):
    """Each of three takes every third example of a minibatch of ten, with its labels, and all are taken once."""
    step = training(toy_split, num_replicas=num_replicas).step
    shape = (num_replicas, 10) if num_replicas > 1 else (10,)
    number = torch.arange(10.0).expand(shape)
    x, y = number.unsqueeze(-1).expand(*shape, 12), number
    y = y if num_outputs is None else y.unsqueeze(-1).expand(*shape, num_outputs)
    taken = []
    for rank in range(3):
        step.group = Group(rank, 3)
        own_x, own_y = step._own_part(x, y)
        wanted = torch.arange(float(rank), 10.0, 3.0)
        assert torch.equal(own_x, wanted.unsqueeze(-1).expand(*shape[:-1], len(wanted), 12))
        axis = wanted if num_outputs is None else wanted.unsqueeze(-1).expand(len(wanted), num_outputs)
        assert torch.equal(own_y, axis.expand(*shape[:-1], *axis.shape))
        taken += wanted.tolist()
    assert sorted(taken) == list(range(10))
