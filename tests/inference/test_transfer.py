import dataclasses

import pytest
import torch

from bbb.data import Split
from bbb.distributions import FlowedGaussian, Gaussian, gaussian_prior, kl_divergence
from bbb.inference import GaussianNoise, choose_inflation, predict_with_centre, prepare, source_error
from bbb.inference.transfer import NUM_FOLDS, _folds
from bbb.networks import MLP, initial_network
from tests.tasks import PLAN, THREE_CLASSES, TOY, seeded

TARGET, SHARED = (12, 8, 2), 13 * 8
FLAVOURS = [(0, "planar"), (16, "planar"), (16, "matrix_planar")]
flavours = pytest.mark.parametrize(("num_flows", "flow"), FLAVOURS)


def network(seed, num_flows=0, flow="planar", sizes=TOY.sizes):
    """A network whose posterior, flows included, is away from its start."""
    generator = seeded(seed)
    network = initial_network(MLP(sizes), 0.05, generator, num_flows, flow).double()
    with torch.no_grad():
        for parameter in network.posterior.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return network


def head_prior():
    return gaussian_prior(2 * 9, 0.1).double()


@flavours
@pytest.mark.parametrize(("inflation", "floor"), [(1.0, 0.0), (10.0, 0.03)])
def test_log_q_equals_log_p_at_the_start_for_the_shared_layers(num_flows, flow, inflation, floor):
    fresh = network(2, num_flows, flow, TARGET)
    source = network(1, num_flows, flow)
    started, prior = prepare(source, fresh, head_prior(), inflation, floor, start="prior")
    q = started.posterior.split(SHARED)[0]
    p = prior.parts[0] if num_flows else prior.split(SHARED)[0]
    assert isinstance(p, FlowedGaussian if num_flows else Gaussian)
    w, log_q = q.rsample_and_log_prob(5, seeded(3))
    torch.testing.assert_close(log_q, p.log_prob(w), rtol=1e-6, atol=1e-6)
    # the fresh head starts as wide as a fresh network's, at the mean of its prior
    started_head, fresh_head = (net.posterior.split(SHARED)[1] for net in (started, fresh))
    mean, log_std = ("base.mean", "base.log_std") if num_flows else ("mean", "log_std")
    torch.testing.assert_close(started_head.state_dict()[log_std], fresh_head.state_dict()[log_std])
    assert started_head.state_dict()[mean].abs().max() == 0.0


@flavours
def test_kept_head_makes_the_whole_posterior_the_prior(num_flows, flow):
    source = network(1, num_flows, flow)
    started, prior = prepare(source, source, None, 1.0, 0.0, start="prior")
    w, log_q = started.posterior.rsample_and_log_prob(5, seeded(3))
    torch.testing.assert_close(log_q, prior.log_prob(w), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(log_q, source.posterior.log_prob(w), rtol=1e-6, atol=1e-6)


@flavours
def test_a_step_moves_the_posterior_and_leaves_prior_and_source(num_flows, flow):
    source, fresh = network(1, num_flows, flow), network(2, num_flows, flow, TARGET)
    started, prior = prepare(source, fresh, head_prior(), 2.0, 0.01, start="prior")
    assert not any(parameter.requires_grad for parameter in prior.parameters())
    before = {name: value.clone() for name, value in [*prior.state_dict().items(), *source.state_dict().items()]}
    optimizer = torch.optim.SGD(started.posterior.parameters(), lr=0.1)
    w, log_q = started.posterior.rsample_and_log_prob(1, seeded(3))
    (kl_divergence(started.posterior, prior, (w, log_q)) + w.square().sum()).backward()
    optimizer.step()
    after = dict([*prior.state_dict().items(), *source.state_dict().items()])
    assert all(torch.equal(after[name], value) for name, value in before.items())
    if num_flows == 0:
        assert kl_divergence(started.posterior, prior).item() > 0.1


def test_random_start_is_the_fresh_network():
    fresh = network(2)
    started, prior = prepare(network(1), fresh, None, 1.0, 0.0, start="random")
    assert started is fresh
    assert kl_divergence(fresh.posterior, prior).item() > 10.0


@pytest.mark.parametrize("num_flows", [0, 4])
def test_prior_widens_variances_and_keeps_means(num_flows):
    posterior = network(1, num_flows).posterior
    prior = posterior.widened(10.0, 0.03)
    q, p = (d.base if num_flows else d for d in (posterior, prior))
    torch.testing.assert_close(p.mean, q.mean)
    torch.testing.assert_close(p.log_std.exp().square(), 10.0 * q.log_std.exp().square() + 0.03**2)


@flavours
def test_source_error_is_that_of_the_source_until_something_is_learnt(num_flows, flow):
    source, fresh = network(1, num_flows, flow).float(), network(2, num_flows, flow, TARGET).float()
    images = torch.randint(0, 256, (200, 12), generator=seeded(3), dtype=torch.uint8)
    labels = predict_with_centre(source, THREE_CLASSES, images).argmax(1)
    started, _ = prepare(source, fresh, head_prior().float(), 1.0, 0.0, start="prior")
    error = source_error(started, source, Split(images, labels), 20, seeded(4))
    assert error < 10.0  # labels are the source's own
    started.posterior.requires_grad_(False)
    (started.posterior.base if num_flows else started.posterior).mean.neg_()
    assert source_error(started, source, Split(images, labels), 20, seeded(4)) > error + 10.0


def test_auto_chooses_by_held_out_images_and_repeats(toy_split):
    """A prior that holds q at a random network is too tight; one a thousand times as wide drowns the start in noise."""
    source = initial_network(TOY, 0.001, seeded(0))
    plan = dataclasses.replace(PLAN, num_epochs=80, temperature=0.1)

    def create(inflation):
        return prepare(source, source, None, inflation, 0.0, start="prior")

    steps = []
    chosen, scores = choose_inflation(
        toy_split, create, THREE_CLASSES, plan, 7, lambda *step: steps.append(step), (1.0, 1e4, 1e6)
    )
    assert chosen == min(scores, key=scores.get) == 1e4
    assert scores[1e4] < 0.5 * scores[1.0]
    assert [step for step, _ in steps] == list(range(1, steps[0][1] + 1))
    assert choose_inflation(toy_split, create, THREE_CLASSES, plan, 7, candidates=(1.0, 1e4, 1e6)) == (chosen, scores)


def test_no_candidate_learns_from_another_one(toy_split):
    """A likelihood that learns starts anew for each, and the run's own is left as it is."""
    numbers = Split(toy_split.images, toy_split.labels.float())
    source, noise = initial_network(MLP((12, 8, 1)), 0.001, seeded(0)), GaussianNoise(1, 2.0, is_learnt=True)

    def create(inflation):
        return prepare(source, source, None, inflation, 0.0, start="prior")

    _, together = choose_inflation(numbers, create, noise, PLAN, 7, candidates=(1.0, 100.0))
    assert noise.log_std.item() == torch.tensor(2.0).log().item()
    _, alone = choose_inflation(numbers, create, noise, PLAN, 7, candidates=(100.0,))
    assert alone[100.0] == together[100.0]


def test_folds_have_classes_alike(toy_split):
    fold = _folds(toy_split, seeded(1))
    counts = torch.stack([toy_split.labels[fold == k].bincount(minlength=3) for k in range(NUM_FOLDS)])
    assert (counts.max(0).values - counts.min(0).values).max() <= 1


@pytest.mark.parametrize("num_flows", [0, 4])
def test_narrow_start_is_at_the_priors_mean_and_no_wider_than_asked(num_flows):
    source, fresh = network(1, num_flows), network(2, num_flows, sizes=TARGET)
    started, prior = prepare(source, fresh, head_prior(), 10.0, 0.1, "narrow", 0.02)
    q, p = started.posterior, prior.parts[0] if num_flows else prior
    q, p = (q.base, p.base) if num_flows else (q, p)
    torch.testing.assert_close(q.mean[:SHARED], p.mean[:SHARED])
    assert q.log_std.exp().max().item() == pytest.approx(0.02)
    assert p.log_std.exp().min().item() > 0.0999


def test_unknown_start_is_refused():
    source = network(1)
    with pytest.raises(ValueError, match="start=there: must be one of prior, narrow, random"):
        prepare(source, source, None, start="there")
