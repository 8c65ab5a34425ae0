"""The contract that every likelihood keeps, whatever its labels are."""

import dataclasses
import inspect
import math

import pytest
import torch
from torch import Tensor

from bbb.inference import Categorical, Likelihood, likelihood
from bbb.runs import Result
from tests.tasks import seeded


@dataclasses.dataclass(frozen=True)
class Member:
    """A likelihood, all the labels that there are, the width that each stands for, and the names of its scores."""

    likelihood: Likelihood
    labels: Tensor
    width: float
    scores: set[str]


MEMBERS = [
    Member(Categorical(4), torch.arange(4), 1.0, {"error", "nll", "brier", "ece"}),
]
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
def test_gradient_of_nll_is_that_of_finite_differences(member, draws):
    y = labels_of(member, draws)
    torch.autograd.gradcheck(
        lambda outputs: member.likelihood.nll(outputs, y), outputs_of(member, draws).requires_grad_()
    )


@members
@draws
def test_correct_is_where_no_label_is_more_probable(member, draws):
    outputs, y = outputs_of(member, draws), labels_of(member, draws)
    best = member.labels[log_probs_of_all_labels(member, outputs).argmax(-1)]
    num_correct = member.likelihood.num_correct(outputs, y)
    assert num_correct.tolist() == (best == y).sum(-1).tolist()
    assert 0 < num_correct.sum() < y.expand(best.shape).numel()
    assert member.likelihood.num_correct(outputs, best[0]).flatten()[0] == NUM_EXAMPLES


@members
@draws
def test_the_predictive_holds_the_log_probabilities_whose_mixture_is_scored(member, draws):
    outputs = outputs_of(member, draws)
    predictive = member.likelihood.predictive(outputs)
    assert predictive.shape == outputs.shape
    torch.testing.assert_close(predictive, log_probs_of_all_labels(member, outputs), rtol=1e-9, atol=1e-9)
    total = predictive.exp().mean(0).sum(-1)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-9)


@members
def test_scores_have_their_names_and_a_result_reports_them(member):
    outputs, y = outputs_of(member, (1,)), labels_of(member, (1,))
    scores = member.likelihood.scores(member.likelihood.predictive(outputs)[0], y)
    assert scores.keys() == member.scores
    assert all(isinstance(score, float) for score in scores.values())
    assert {f"test_{name}" for name in scores} <= {field.name for field in dataclasses.fields(Result)}
    assert scores["nll"] == pytest.approx(member.likelihood.nll(outputs, y).item() / NUM_EXAMPLES)


def test_categorical_nll_is_the_cross_entropy_summed_over_the_batch_for_each_draw():
    logits = torch.randn(3, 4, 5, generator=seeded(1))
    labels = torch.tensor([0, 4, 2, 2])
    expected = [torch.nn.functional.cross_entropy(logits[s], labels, reduction="sum") for s in range(3)]
    torch.testing.assert_close(Categorical(5).nll(logits, labels), torch.stack(expected))
