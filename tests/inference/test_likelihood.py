"""The contract that every likelihood keeps, whatever its labels are."""

import dataclasses
import inspect
import math

import pytest
import torch
from torch import Tensor

from bbb.data import Split
from bbb.distributions import gaussian_prior
from bbb.inference import Categorical, GaussianNoise, Likelihood, Training, likelihood
from bbb.networks import MLP, initial_network
from bbb.runs import Result
from tests.tasks import PLAN, seeded, streams


@dataclasses.dataclass(frozen=True)
class Member:
    """A likelihood, all the labels that there are (of numbers: those of a grid, as wide as any output is far), the
    width that each stands for, and the names of its scores.
    """

    likelihood: Likelihood
    labels: Tensor
    width: float
    scores: set[str]


MEMBERS = [
    Member(Categorical(4), torch.arange(4), 1.0, {"error", "nll", "brier", "ece"}),
    Member(
        GaussianNoise(1, 0.7).double(),
        torch.linspace(-20, 20, 801, dtype=torch.float64),
        0.05,
        {"rmse", "nll", "coverage_50", "coverage_90"},
    ),
]
CLASSES, NUMBERS = MEMBERS
NUM_EXAMPLES = 6
DRAWS = [(1,), (3,), (1, 1), (1, 2), (3, 2)]  # (S,) and (S, R)

members = pytest.mark.parametrize("member", MEMBERS, ids=lambda member: type(member.likelihood).__name__)
draws = pytest.mark.parametrize("draws", DRAWS, ids=str)


def outputs_of(member, draws):
    shape = *draws, NUM_EXAMPLES, member.likelihood.num_outputs
    return 3.0 * torch.randn(shape, generator=seeded(1), dtype=torch.float64)


def labels_of(member, draws):
    """Labels ``(B,)``, or ``(R, B)``: those of R replicas differ."""
    index = torch.randint(len(member.labels), (*draws[1:], NUM_EXAMPLES), generator=seeded(2))
    return member.labels[index]


def log_probs_of_all_labels(member, outputs):
    """log p of each label there is, for each example: the labels are the last axis."""
    shape = outputs.shape[1:-1]
    return torch.stack([member.likelihood.log_prob(outputs, label.expand(shape)) for label in member.labels], -1)


def test_every_likelihood_is_a_member():
    kinds = {kind for _, kind in inspect.getmembers(likelihood, inspect.isclass) if issubclass(kind, Likelihood)}
    assert kinds - {Likelihood} == {type(member.likelihood) for member in MEMBERS}


@members
@draws
def test_log_prob_is_a_number_for_each_draw_and_example(member, draws):
    log_prob = member.likelihood.log_prob(outputs_of(member, draws), labels_of(member, draws))
    assert log_prob.shape == (*draws, NUM_EXAMPLES)
    assert log_prob.isfinite().all()


@members
@draws
def test_probabilities_of_all_labels_sum_to_one(member, draws):
    log_probs = log_probs_of_all_labels(member, outputs_of(member, draws))
    total = log_probs.logsumexp(-1) + math.log(member.width)
    torch.testing.assert_close(total, torch.zeros_like(total), rtol=0, atol=1e-6)


@members
@pytest.mark.parametrize("num_samples", [1, 3])
def test_each_draw_and_each_replica_is_scored_on_its_own(member, num_samples):
    outputs, y = outputs_of(member, (num_samples, 2)), labels_of(member, (num_samples, 2))
    log_prob = member.likelihood.log_prob(outputs, y)
    for replica in range(2):
        alone = member.likelihood.log_prob(outputs[:, replica], y[replica])
        torch.testing.assert_close(log_prob[:, replica], alone, rtol=0, atol=0)
        for s in range(num_samples):
            torch.testing.assert_close(alone[[s]], member.likelihood.log_prob(outputs[[s], replica], y[replica]))


@members
@draws
def test_nll_is_minus_the_sum_of_log_prob_and_so_is_its_gradient(member, draws):
    outputs, y = outputs_of(member, draws).requires_grad_(), labels_of(member, draws)
    nll, expected = member.likelihood.nll(outputs, y), -member.likelihood.log_prob(outputs, y).sum(-1)
    assert nll.shape == draws
    torch.testing.assert_close(nll, expected, rtol=1e-9, atol=1e-9)
    weights = torch.arange(1.0, 1.0 + nll.numel()).view(draws).double()  # tell draws from each other
    ours, theirs = (torch.autograd.grad((weights * value).sum(), outputs)[0] for value in (nll, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    assert (ours != 0).any(-1).all()


@members
@draws
def test_nll_and_its_gradient_at_once_are_those_of_autograd(member, draws):
    outputs, y = outputs_of(member, draws).requires_grad_(), labels_of(member, draws)
    learnt = [parameter for parameter in member.likelihood.parameters() if parameter.requires_grad]
    nll = member.likelihood.nll(outputs, y)
    expected = torch.autograd.grad(0.3 * nll.sum(), [outputs, *learnt])
    found, grad = member.likelihood.nll_with_gradient(outputs.detach(), y, 0.3)
    assert not found.requires_grad
    assert not grad.requires_grad
    torch.testing.assert_close(found, nll.detach(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close([grad, *(parameter.grad for parameter in learnt)], [*expected], rtol=1e-9, atol=1e-9)
    member.likelihood.zero_grad()


@members
@draws
def test_gradient_of_nll_is_that_of_finite_differences(member, draws):
    y = labels_of(member, draws)
    torch.autograd.gradcheck(
        lambda outputs: member.likelihood.nll(outputs, y), outputs_of(member, draws).requires_grad_()
    )


@members
def test_the_total_score_is_a_sum_over_examples_for_each_draw_and_replica(member):
    outputs, y = outputs_of(member, (3, 2)), labels_of(member, (3, 2))
    total = member.likelihood.total_score(outputs, y).double()
    assert total.shape == (3, 2)
    parts = [member.likelihood.total_score(outputs[..., [i], :], y[..., [i]]) for i in range(NUM_EXAMPLES)]
    torch.testing.assert_close(total, torch.stack(parts).sum(0).double())
    for replica in range(2):
        alone = member.likelihood.total_score(outputs[:, replica], y[replica]).double()
        torch.testing.assert_close(alone, total[:, replica])


@members
def test_the_mean_of_the_total_score_is_what_is_told_of_the_predictive_of_one_draw(member):
    outputs, y = outputs_of(member, (1,)), labels_of(member, (1,))
    score = member.likelihood.mean_score(member.likelihood.total_score(outputs, y).item(), NUM_EXAMPLES)
    predictive = member.likelihood.mix([member.likelihood.predictive(outputs[0])])
    assert score == pytest.approx(member.likelihood.score_and_nll(predictive, y)[0], rel=1e-9)
    assert member.likelihood.score in ("accuracy", "rmse")


@members
def test_the_predictive_is_the_mean_of_the_probabilities_under_the_draws(member):
    outputs, y = outputs_of(member, (3,)), labels_of(member, (3,))
    predictive = member.likelihood.mix(member.likelihood.predictive(draw) for draw in outputs)
    expected = -(member.likelihood.log_prob(outputs, y).logsumexp(0) - math.log(3)).mean().item()
    assert member.likelihood.score_and_nll(predictive, y)[1] == pytest.approx(expected, rel=1e-9)
    assert member.likelihood.scores(predictive, y)["nll"] == pytest.approx(expected, rel=1e-9)


@members
def test_an_ensemble_of_replicas_is_the_mixture_of_all_their_draws(member):
    outputs, y = outputs_of(member, (3, 2)), labels_of(member, (3,))
    replicas = [
        member.likelihood.mix(member.likelihood.predictive(draw) for draw in part) for part in outputs.unbind(1)
    ]
    together = member.likelihood.mix(member.likelihood.predictive(draw) for draw in outputs.flatten(0, 1))
    ensemble = member.likelihood.scores(member.likelihood.mix_replicas(replicas), y)
    assert ensemble == pytest.approx(member.likelihood.scores(together, y), rel=1e-9)


@draws
def test_correct_is_where_no_label_is_more_probable(draws):
    outputs, y = outputs_of(CLASSES, draws), labels_of(CLASSES, draws)
    best = CLASSES.labels[log_probs_of_all_labels(CLASSES, outputs).argmax(-1)]
    num_correct = CLASSES.likelihood.total_score(outputs, y)
    assert num_correct.tolist() == (best == y).sum(-1).tolist()
    assert 0 < num_correct.sum() < y.expand(best.shape).numel()
    assert CLASSES.likelihood.total_score(outputs, best[0]).flatten()[0] == NUM_EXAMPLES


@draws
def test_the_predictive_holds_the_log_probabilities_whose_mixture_is_scored(draws):
    outputs = outputs_of(CLASSES, draws)
    predictive = CLASSES.likelihood.predictive(outputs)
    assert predictive.shape == outputs.shape
    torch.testing.assert_close(predictive, log_probs_of_all_labels(CLASSES, outputs), rtol=1e-9, atol=1e-9)
    total = predictive.exp().mean(0).sum(-1)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-9)


@members
def test_scores_have_their_names_and_a_result_reports_them(member):
    outputs, y = outputs_of(member, (1,)), labels_of(member, (1,))
    scores = member.likelihood.scores(member.likelihood.mix([member.likelihood.predictive(outputs[0])]), y)
    assert scores.keys() == member.scores
    assert all(isinstance(score, float) for score in scores.values())
    assert {f"test_{name}" for name in scores} <= {field.name for field in dataclasses.fields(Result)}
    assert scores["nll"] == pytest.approx(member.likelihood.nll(outputs, y).item() / NUM_EXAMPLES)


def test_categorical_nll_is_the_cross_entropy_summed_over_the_batch_for_each_draw():
    logits = torch.randn(3, 4, 5, generator=seeded(1))
    labels = torch.tensor([0, 4, 2, 2])
    expected = [torch.nn.functional.cross_entropy(logits[s], labels, reduction="sum") for s in range(3)]
    torch.testing.assert_close(Categorical(5).nll(logits, labels), torch.stack(expected))


@pytest.mark.parametrize("num_outputs", [1, 3])
@draws
def test_numbers_have_independent_gaussian_noise_around_the_outputs(draws, num_outputs):
    noise = GaussianNoise(num_outputs, 0.4).double()
    outputs = torch.randn(*draws, NUM_EXAMPLES, num_outputs, generator=seeded(1), dtype=torch.float64)
    y = torch.randn(*draws[1:], NUM_EXAMPLES, num_outputs, generator=seeded(2), dtype=torch.float64)
    expected = torch.distributions.Normal(outputs, 0.4).log_prob(y).sum(-1)
    torch.testing.assert_close(noise.log_prob(outputs, y), expected, rtol=1e-6, atol=1e-6)
    squares = (y - outputs).square().mean(-1).sum(-1)
    torch.testing.assert_close(noise.total_score(outputs, y), squares)
    if num_outputs == 1:  # numbers without an axis of their own
        torch.testing.assert_close(noise.log_prob(outputs, y.squeeze(-1)), expected, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(noise.total_score(outputs, y.squeeze(-1)), squares)


def test_gradient_in_the_noise_is_that_of_finite_differences():
    outputs, y = outputs_of(NUMBERS, (3,)), labels_of(NUMBERS, (3,))
    noise = GaussianNoise(1, 0.7, is_learnt=True).double()

    def nll(log_std):
        return torch.func.functional_call(noise, {"log_std": log_std}, (), strict=True)

    noise.forward = lambda: noise.nll(outputs, y)
    torch.autograd.gradcheck(nll, noise.log_std.detach().clone().requires_grad_())


def test_fixed_noise_is_given_and_learnt_noise_starts_there():
    for is_learnt in (False, True):
        noise = GaussianNoise(1, 0.25, is_learnt)
        assert noise.noise_std == pytest.approx(0.25)
        assert [p.requires_grad for p in noise.parameters()] == [is_learnt]


def regression(num=400, std=0.3):
    """Numbers on a plane, with noise: inputs of two numbers."""
    x = torch.randn(num, 2, generator=seeded(1))
    return Split(x, x @ torch.tensor([2.0, -1.0]) + 0.5 + std * torch.randn(num, generator=seeded(2)))


def trained_noise(noise, **changes):
    plan = dataclasses.replace(
        PLAN, batch_size=50, **{"num_epochs": 120, "lr_schedule": "cosine", "lr": 0.05, **changes}
    )
    started, split = initial_network(MLP((2, 1)), 0.02, seeded(1)), regression()
    started.normalization.scale = 1.0
    process = Training(started, noise, gaussian_prior(3, 3.0), split, split, plan, streams(1))
    return list(process.fit())


@pytest.mark.parametrize("estimator", ["weights", "local"])
def test_learnt_noise_reaches_that_of_the_data(estimator):
    """It starts ten times too large, and too small. The fit itself takes the share 3/400 of the variance."""
    for start in (3.0, 0.2):
        noise = GaussianNoise(1, start, is_learnt=True)
        epochs = trained_noise(noise, estimator=estimator)
        split = regression()
        design = torch.cat([split.images, torch.ones(len(split), 1)], 1)
        residual = split.labels - design @ torch.linalg.lstsq(design, split.labels).solution
        assert noise.noise_std == pytest.approx(residual.square().mean().sqrt().item(), rel=0.03)
        assert epochs[-1].train_rmse == pytest.approx(noise.noise_std, rel=0.05)
        assert epochs[-1].validation_rmse == pytest.approx(noise.noise_std, rel=0.03)
        assert epochs[-1].train_accuracy is epochs[-1].validation_accuracy is None


def test_fixed_noise_stays():
    noise = GaussianNoise(1, 2.0)
    trained_noise(noise, num_epochs=1)
    assert noise.noise_std == 2.0
