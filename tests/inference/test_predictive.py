import pytest
import torch

from bbb.data import Normalization, Split
from bbb.distributions import Gaussian, gaussian_prior
from bbb.inference import (
    Categorical,
    ExpectedEntropy,
    elbo,
    predict,
    predict_draws,
    predict_with_centre,
    predictive,
    split_entropy,
)
from bbb.networks import MLP, BayesianNetwork, forward_drawn
from tests.tasks import THREE_CLASSES, seeded


def outputs(network, w, split):
    return forward_drawn(network.architecture, network.layers(w), Normalization()(split.images))


def test_predictive_is_the_mean_of_softmax_over_draws(toy_network, toy_split):
    log_probs = predict(toy_network, THREE_CLASSES, toy_split.images, 7, seeded(1))
    generator = seeded(1)
    draws = torch.cat([toy_network.posterior.rsample_and_log_prob(1, generator)[0] for _ in range(7)])
    torch.testing.assert_close(log_probs.exp(), outputs(toy_network, draws, toy_split).softmax(-1).mean(0))
    assert not log_probs.requires_grad


def test_predictive_stays_finite_where_probabilities_underflow():
    """Logits of +-500 leave probabilities that no float can hold; their logarithms are still right."""
    posterior = Gaussian(torch.tensor([500.0, -500.0, 0, 0]), torch.full((4,), -9.0))
    network = BayesianNetwork(MLP((1, 2)), posterior)
    log_probs = predict(network, Categorical(2), torch.tensor([[126]], dtype=torch.uint8), 3, seeded())
    assert log_probs.isfinite().all()
    assert log_probs[0, 1].item() == pytest.approx(-1000, abs=1)


@pytest.mark.parametrize("limit", ["CHUNK", "NUM_ACTIVATIONS"])  # images, and 11 activations of each
def test_images_are_evaluated_in_chunks_with_the_same_weights(toy_network, toy_split, monkeypatch, limit):
    whole = predict(toy_network, THREE_CLASSES, toy_split.images, 3, seeded(1))
    monkeypatch.setattr(f"bbb.inference.predictive.{limit}", 10)
    parts = predict(toy_network, THREE_CLASSES, toy_split.images, 3, seeded(1))
    torch.testing.assert_close(whole, parts)


def test_the_centre_predicts_as_a_posterior_of_no_width_does(toy_network, toy_split):
    toy_network.posterior.log_std.data.fill_(-20.0)
    draws = predict(toy_network, THREE_CLASSES, toy_split.images, 2, seeded())
    centre = predict_with_centre(toy_network, THREE_CLASSES, toy_split.images)
    torch.testing.assert_close(centre, draws, atol=1e-5, rtol=1e-4)


def test_elbo_of_a_posterior_that_is_the_prior_is_its_log_likelihood(toy_network, toy_split):
    prior = toy_network.posterior.frozen()
    per_example, kl = elbo(toy_network, THREE_CLASSES, prior, toy_split, 4, seeded(1))
    assert kl == pytest.approx(0.0, abs=1e-3)
    generator, expected = seeded(1), 0.0
    for _ in range(4):
        w, _ = toy_network.posterior.rsample_and_log_prob(1, generator)
        logits = outputs(toy_network, w, toy_split)[0]
        expected -= torch.nn.functional.cross_entropy(logits, toy_split.labels).item() / 4
    assert per_example == pytest.approx(expected, abs=1e-5)


def test_elbo_counts_the_kl_once_and_per_example(toy_network, toy_split):
    prior = gaussian_prior(toy_network.posterior.dim, 1.0)
    half = Split(toy_split.images[:32], toy_split.labels[:32])
    _, kl = elbo(toy_network, THREE_CLASSES, prior, toy_split, 2, seeded())
    _, kl_half = elbo(toy_network, THREE_CLASSES, prior, half, 2, seeded())
    assert kl == pytest.approx(kl_half)
    assert kl == pytest.approx(toy_network.posterior.kl_divergence(prior).item())


def test_expected_entropy_is_gathered_while_draws_are_mixed(toy_network, toy_split, monkeypatch):
    """In chunks too; the prediction is the same to the last bit."""
    monkeypatch.setattr(predictive, "CHUNK", 20)
    watch = ExpectedEntropy()
    watched = predict(toy_network, THREE_CLASSES, toy_split.images, 7, seeded(1), watch=watch)
    assert torch.equal(watched, predict(toy_network, THREE_CLASSES, toy_split.images, 7, seeded(1)))
    draws = torch.stack([*predict_draws(toy_network, THREE_CLASSES, toy_split.images, 7, seeded(1))])
    torch.testing.assert_close(watch.mean, split_entropy(draws).aleatoric)
