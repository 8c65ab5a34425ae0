import math

import pytest
import torch

from bbb import evaluation, priors
from bbb.data import Split, to_float
from bbb.network import BayesianMLP, mlp
from bbb.weights import Gaussian


def test_predictive_is_the_mean_of_softmax_over_draws(toy_network, toy_split):
    log_probs = evaluation.predict(toy_network, toy_split.images, 7, torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(1)
    draws = torch.cat([toy_network.posterior.rsample(1, generator)[0] for _ in range(7)])
    expected = mlp(toy_network.layers(draws), to_float(toy_split.images)).softmax(-1).mean(0)
    torch.testing.assert_close(log_probs.exp(), expected)
    assert not log_probs.requires_grad


def test_predictive_stays_finite_where_probabilities_underflow():
    """Logits of +-500 leave probabilities that no float can hold; their logarithms are still right."""
    network = BayesianMLP((1, 2), Gaussian(torch.tensor([500.0, -500.0, 0, 0]), torch.full((4,), -9.0)))
    log_probs = evaluation.predict(network, torch.tensor([[126]], dtype=torch.uint8), 3, torch.Generator())
    assert log_probs.isfinite().all()
    assert log_probs[0, 1].item() == pytest.approx(-1000, abs=1)


def test_images_are_evaluated_in_chunks_with_the_same_weights(toy_network, toy_split, monkeypatch):
    whole = evaluation.predict(toy_network, toy_split.images, 3, torch.Generator().manual_seed(1))
    monkeypatch.setattr(evaluation, "CHUNK", 10)
    parts = evaluation.predict(toy_network, toy_split.images, 3, torch.Generator().manual_seed(1))
    torch.testing.assert_close(whole, parts)


def test_mean_weights_predict_as_a_posterior_of_no_width_does(toy_network, toy_split):
    toy_network.posterior.log_std.data.fill_(-20.0)
    draws = evaluation.predict(toy_network, toy_split.images, 2, torch.Generator())
    torch.testing.assert_close(evaluation.predict_with_mean(toy_network, toy_split.images), draws, atol=1e-5, rtol=1e-4)


def test_metrics_of_known_predictions():
    """Three of four right, all at confidence 0.7 and two classes."""
    probs = torch.tensor([[0.7, 0.3], [0.7, 0.3], [0.3, 0.7], [0.3, 0.7]])
    scores = evaluation.metrics(probs.log(), torch.tensor([0, 0, 1, 0]))
    assert scores.error == pytest.approx(25.0)
    assert scores.nll == pytest.approx(-(3 * math.log(0.7) + math.log(0.3)) / 4)
    assert scores.brier == pytest.approx((3 * 0.18 + 0.98) / 4)
    assert scores.ece == pytest.approx(5.0, abs=1e-3)
    assert scores.as_dict("test_").keys() == {"test_error", "test_nll", "test_brier", "test_ece"}


def test_elbo_of_a_posterior_that_is_the_prior_is_its_log_likelihood(toy_network, toy_split):
    prior = toy_network.posterior.frozen()
    elbo, kl = evaluation.elbo(toy_network, prior, toy_split, 4, torch.Generator().manual_seed(1))
    assert kl == pytest.approx(0.0, abs=1e-3)
    generator, expected = torch.Generator().manual_seed(1), 0.0
    for _ in range(4):
        logits = mlp(toy_network.layers(toy_network.posterior.rsample(1, generator)[0]), to_float(toy_split.images))[0]
        expected -= torch.nn.functional.cross_entropy(logits, toy_split.labels).item() / 4
    assert elbo == pytest.approx(expected, abs=1e-5)


def test_elbo_counts_the_kl_once_and_per_example(toy_network, toy_split):
    prior = priors.gaussian(toy_network.posterior.dim, 1.0)
    network_half = Split(toy_split.images[:32], toy_split.labels[:32])
    _, kl = evaluation.elbo(toy_network, prior, toy_split, 2, torch.Generator())
    _, kl_half = evaluation.elbo(toy_network, prior, network_half, 2, torch.Generator())
    assert kl == pytest.approx(kl_half)
    assert kl == pytest.approx(toy_network.posterior.kl_divergence(prior).item())


def test_many_images_are_predicted_in_parts_under_the_same_draws(toy_network, toy_split, monkeypatch):
    at_once = evaluation.predict(toy_network, toy_split.images, 3, torch.Generator().manual_seed(1))
    monkeypatch.setattr(evaluation, "CHUNK", 10)
    in_parts = evaluation.predict(toy_network, toy_split.images, 3, torch.Generator().manual_seed(1))
    torch.testing.assert_close(in_parts, at_once)
