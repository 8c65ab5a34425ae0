import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_calibration_error

from bbb.inference import auroc, classification_scores, mixture, regression_scores, reliability, split_entropy
from tests.tasks import seeded

DRAWS = st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(2, 10), st.floats(0.0, 30.0), st.integers(0, 1000))


def log_probs_of(num_samples, num_images, num_classes, scale, seed):
    logits = torch.randn(num_samples, num_images, num_classes, generator=seeded(seed)).double()
    return (scale * logits).log_softmax(-1)


def test_scores_of_known_predictions():
    """Three of four right, all at confidence 0.7 and two classes."""
    probs = torch.tensor([[0.7, 0.3], [0.7, 0.3], [0.3, 0.7], [0.3, 0.7]])
    scores = classification_scores(probs.log(), torch.tensor([0, 0, 1, 0]))
    assert scores["error"] == pytest.approx(25.0)
    assert scores["nll"] == pytest.approx(-(3 * math.log(0.7) + math.log(0.3)) / 4)
    assert scores["brier"] == pytest.approx((3 * 0.18 + 0.98) / 4)
    assert scores["ece"] == pytest.approx(5.0, abs=1e-3)
    assert scores.keys() == {"error", "nll", "brier", "ece"}


@given(DRAWS)
def test_total_is_aleatoric_plus_epistemic_and_none_is_negative(shape):
    """The mutual information is a KL divergence, so that it cannot be negative; all are at most log C."""
    log_probs = log_probs_of(*shape)
    parts = split_entropy(log_probs)
    torch.testing.assert_close(parts.total, parts.aleatoric + parts.epistemic)
    mean = log_probs.exp().mean(0)
    kl = (log_probs.exp() * (log_probs - mean.log())).sum(-1).mean(0)
    torch.testing.assert_close(parts.epistemic, kl, atol=1e-9, rtol=1e-6)
    assert (parts.epistemic >= -1e-12).all()
    assert (parts.aleatoric >= 0).all()
    assert (parts.total <= math.log(shape[2]) + 1e-9).all()


def test_a_mixture_is_the_mean_of_its_members(generator):
    members = torch.randn(3, 5, 4, generator=generator).log_softmax(2)
    torch.testing.assert_close(mixture(members).exp(), members.exp().mean(0))


def test_draws_that_agree_are_unsure_of_noise_only_and_sure_draws_that_disagree_of_the_weights_only():
    agree = log_probs_of(1, 4, 3, 1.0, 0).expand(5, 4, 3)
    torch.testing.assert_close(split_entropy(agree).epistemic, torch.zeros(4).double(), atol=1e-12, rtol=0)
    sure = torch.tensor([[[0.0, -math.inf]], [[-math.inf, 0.0]]])
    parts = split_entropy(sure)
    assert parts.aleatoric.item() == 0.0
    assert parts.epistemic.item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("scale", [0.3, 1.0, 8.0])
def test_reliability_bins_reproduce_the_calibration_error_of_torchmetrics(scale):
    log_probs = (scale * torch.randn(2000, 10, generator=seeded(1))).log_softmax(1)
    labels = torch.randint(0, 10, (2000,), generator=seeded(2))
    bins = reliability(log_probs, labels, 15)
    expected = multiclass_calibration_error(log_probs.exp(), labels, num_classes=10, n_bins=15).item()
    assert bins.calibration_error() == pytest.approx(expected, abs=1e-6)
    assert bins.share.sum().item() == pytest.approx(1.0)
    accuracy = (bins.share * bins.accuracy).nansum().item()
    assert accuracy == pytest.approx((log_probs.argmax(1) == labels).double().mean().item())


def test_a_bin_holds_its_lower_edge_and_the_last_one_certainty():
    log_probs = torch.tensor([[0.5, 0.5], [1.0, 0.0]]).log()
    bins = reliability(log_probs, torch.tensor([1, 0]), 2)
    assert bins.share.tolist() == [0.0, 1.0]
    assert bins.confidence[1].item() == 0.75
    assert bins.accuracy[1].item() == 0.5


def test_auroc_is_the_chance_that_an_outsider_scores_higher():
    inside, outside = torch.randint(0, 9, (60,), generator=seeded(1)), torch.randint(2, 12, (40,), generator=seeded(2))
    gap = outside.unsqueeze(1) - inside
    expected = ((gap > 0).double() + 0.5 * (gap == 0).double()).mean().item()
    assert auroc(inside, outside) == pytest.approx(expected)
    assert auroc(inside / 20, outside / 20) == pytest.approx(expected)


def test_calibration_errors_of_opposite_sign_do_not_cancel():
    """One bin too sure by .25, one not sure enough by .25, with half of the predictions each."""
    confidence = torch.tensor([0.75, 0.75, 0.55, 0.55], dtype=torch.float64)
    log_probs = torch.stack([confidence, 1 - confidence], 1).log()
    labels = torch.tensor([0, 1, 0, 0])  # accuracies .5 and 1
    expected = 0.5 * 0.25 + 0.5 * 0.45
    assert reliability(log_probs, labels, 10).calibration_error() == pytest.approx(expected)
    assert classification_scores(log_probs, labels)["ece"] == pytest.approx(100 * expected)


@pytest.mark.parametrize("num_outputs", [1, 3])
def test_scores_of_numbers_are_those_of_a_mixture_of_gaussians(num_outputs):
    """Against PyTorch's own mixture: the density of all outputs together, and the quantiles of each."""
    means = torch.randn(7, 50, num_outputs, generator=seeded(1), dtype=torch.float64)
    y = 1.5 * torch.randn(50, num_outputs, generator=seeded(2), dtype=torch.float64)
    weights = torch.distributions.Categorical(logits=torch.zeros(50, 7))
    components = torch.distributions.Normal(means.transpose(0, 1), 0.4)
    density = torch.distributions.MixtureSameFamily(weights, torch.distributions.Independent(components, 1))
    scores = regression_scores(means, y, 0.4)
    assert scores["nll"] == pytest.approx(-density.log_prob(y).mean().item(), rel=1e-6)
    assert scores["rmse"] == pytest.approx((density.mean - y).square().mean().sqrt().item(), rel=1e-6)
    rank = torch.stack([component.cdf(y) for component in map(lambda m: torch.distributions.Normal(m, 0.4), means)])
    for percent in (50, 90):
        low, high = 0.5 - percent / 200, 0.5 + percent / 200
        inside = ((rank.mean(0) >= low) & (rank.mean(0) <= high)).double().mean().item()
        assert scores[f"coverage_{percent}"] == pytest.approx(100 * inside)
        assert 0.0 < inside < 1.0


def test_calibrated_predictions_cover_what_they_promise_and_others_do_not():
    """Numbers drawn from the mixture itself. 20,000 of them: a standard error of .35 % at 50 %."""
    means = torch.randn(5, 20_000, 1, generator=seeded(1), dtype=torch.float64)
    chosen = torch.randint(0, 5, (1, 20_000, 1), generator=seeded(2))
    y = means.gather(0, chosen)[0] + 0.3 * torch.randn(20_000, 1, generator=seeded(3), dtype=torch.float64)
    scores = regression_scores(means, y, 0.3)
    assert scores["coverage_50"] == pytest.approx(50, abs=1.5)
    assert scores["coverage_90"] == pytest.approx(90, abs=1.0)
    too_sure, too_unsure = (regression_scores(means.mean(0, keepdim=True), y, std) for std in (0.3, 3.0))
    for percent in (50, 90):
        assert too_sure[f"coverage_{percent}"] < percent - 10
        assert too_unsure[f"coverage_{percent}"] > percent + 5


def test_a_single_gaussian_covers_its_central_intervals():
    """0.6745 and 1.6449 standard deviations to either side."""
    y = torch.tensor([[0.0], [0.67], [0.68], [-0.67], [-0.68], [1.64], [1.65], [-1.64], [-1.65], [9.0]])
    scores = regression_scores(torch.zeros(1, 10, 1), 2.0 * y, 2.0)
    assert (scores["coverage_50"], scores["coverage_90"]) == (pytest.approx(30), pytest.approx(70))
