"""The yardstick: its problems, its truth, its families and its measures."""

import itertools
import json
import math

import pytest
import torch

from bbb.distributions import Gaussian, Mixture, gaussian_prior
from bbb.inference import Rung
from bbb.networks import num_weights
from bbb.studies import YardstickStudy
from bbb.studies import yardstick as module
from bbb.studies.yardstick_families import FAMILIES, fit, fit_laplace, laplace_outputs
from bbb.studies.yardstick_measures import elbo, scores
from bbb.studies.yardstick_problems import in_gap, on_data, problems
from bbb.studies.yardstick_truth import TruthPlan, find_truth, mixing, refine
from tests.tasks import random_gaussian, seeded

SMALL = problems(fast=True)
ALL = problems(fast=False)
WITHOUT_DENSITY = ("ensemble", "Laplace")


@pytest.mark.parametrize("name", ALL)
def test_the_chosen_network_is_a_function_of_the_problems_examples(name):
    problem = ALL[name]
    target = problem.target()
    num = num_weights(target.network.architecture.layers)
    sizes = problem.sizes
    assert num == sum((num_in + 1) * num_out for num_in, num_out in itertools.pairwise(sizes))
    found = target(0.1 * torch.randn(2, num, generator=seeded(1)))
    assert found.log_likelihood.shape == (2,)
    assert torch.isfinite(found.log_likelihood).all()
    assert len(problem.test) > 0
    again = problems(fast=False)[name]
    assert torch.equal(problem.train.images, again.train.images)
    assert torch.equal(problem.train.labels, again.train.labels)


@pytest.mark.parametrize("name", ["gap", "paper"])
def test_no_example_lies_in_the_gap(name):
    problem = ALL[name]
    least, most = problem.gap
    x = problem.train.images[:, 0]
    assert not ((x > least) & (x < most)).any()
    assert in_gap(problem).sum() > 5
    assert on_data(problem).sum() > 10
    assert not (in_gap(problem) & on_data(problem)).any()


def test_the_bins_hold_the_probability_of_a_gaussian():
    """One draw with a known mean: the mass of each bin is that of the likelihood, and all of it is there."""
    problem = SMALL["gap"]
    mean = 0.3
    p = problem.probabilities(torch.full((1, 1, 1), mean))[0]
    assert p.sum().item() == pytest.approx(1.0, abs=1e-6)
    centres = 0.5 * (problem.bins[1:] + problem.bins[:-1])
    assert (p * centres).sum().item() == pytest.approx(mean, abs=1e-3)
    width = (problem.bins[1] - problem.bins[0]).item()
    assert (p * (centres - mean) ** 2).sum().item() == pytest.approx(problem.noise_std**2 + width**2 / 12, rel=0.01)


def test_classes_average_their_probabilities():
    outputs = torch.tensor([[[0.0, 0.0]], [[math.log(3.0), 0.0]]])
    torch.testing.assert_close(SMALL["moons"].probabilities(outputs), torch.tensor([[0.625, 0.375]]))


def test_a_refined_path_keeps_its_ends_and_its_shape():
    path = [Rung(0.0, 0.3), Rung(0.1, 0.2), Rung(1.0, 0.1)]
    fine = refine(path, 5)
    assert fine == [Rung(0.0, 0.3), Rung(0.05, 0.25), Rung(0.1, 0.2), Rung(0.55, pytest.approx(0.15)), Rung(1.0, 0.1)]


def test_chains_that_disagree_have_a_large_r_hat():
    same = torch.randn(4, 200, 3, generator=seeded(1))
    r_hat, num = mixing(same)
    assert r_hat < 1.05
    assert 400 < num < 1600
    same[0, :, 1] += 3.0
    assert mixing(same)[0] > 1.2
    assert mixing(torch.arange(4.0).view(4, 1, 1).expand(4, 10, 1)) == (1e6, pytest.approx(0.0, abs=40))


def test_the_truth_lies_between_its_bounds_and_counts_its_steps():
    problem, plan, steps = SMALL["gap"], TruthPlan(8, 40, 5, 10), []
    truth = find_truth(problem, plan, 1, lambda: steps.append(1))
    assert len(steps) == plan.num_steps
    assert truth.outputs.shape == (80, len(problem.inputs), 1)
    assert truth.test_outputs.shape == (80, len(problem.test), 1)
    low, high, *errors = truth.evidence
    assert low < high
    assert min(errors) > 0
    assert 0.3 < truth.acceptance <= 1.0


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in WITHOUT_DENSITY and "64" not in name])
def test_each_family_fits_better_the_longer_it_is_trained(family):
    problem = SMALL["gap"]
    target = problem.target()
    values = []
    for num_steps in (5, 100):
        steps = []
        network = fit(problem, FAMILIES[family], num_steps, 4, 1, lambda steps=steps: steps.append(1))
        assert len(steps) == num_steps
        values.append(elbo(target, network.posterior, 500, seeded(1)))
    assert values[1] > values[0] + 20


def test_an_elbo_is_that_of_the_closed_form():
    """Under a likelihood that is the same everywhere the ELBO is -KL: a factorised one, and a mixture of two apart."""
    target = SMALL["gap"].target(torch.float64)
    dim = target.prior.dim
    target.log_likelihood = lambda w: torch.zeros(len(w), dtype=torch.float64)
    q = random_gaussian(1, dim)
    kl = q.kl_divergence(gaussian_prior(dim, 1.0).double()).item()
    assert elbo(target, q, 20_000, seeded(1)) == pytest.approx(-kl, abs=0.3)
    far = Gaussian(q.mean.detach() + 10.0, q.log_std.detach())
    kl_far = far.kl_divergence(gaussian_prior(dim, 1.0).double()).item()
    mixed = elbo(target, Mixture([q, far]), 20_000, seeded(1))
    assert mixed == pytest.approx(-0.5 * (kl + kl_far) + math.log(2.0), rel=1e-3)
    near = Gaussian(q.mean.detach() * torch.where(torch.arange(dim) < 1, -8.0, 1.0), q.log_std.detach())
    kl_near = near.kl_divergence(gaussian_prior(dim, 1.0).double()).item()
    best = elbo(target, Mixture.weighted([q, near], [-kl, -kl_near]), 20_000, seeded(1))
    assert best == pytest.approx(torch.tensor([-kl, -kl_near]).logsumexp(0).item(), abs=0.3)
    assert best > elbo(target, Mixture([q, near]), 20_000, seeded(1)) - 0.05


def test_components_over_other_weights_are_refused():
    with pytest.raises(ValueError, match=r"components: must be over the same number of weights, not \[3, 4\]"):
        Mixture([random_gaussian(1, 3), random_gaussian(1, 4)])


def test_inducing_points_beat_the_mean_field():
    problem = SMALL["gap"]
    target = problem.target()
    values = {}
    for family in ("mean field", "inducing points"):
        network = fit(problem, FAMILIES[family], 300, 4, 1, lambda: None)
        values[family] = elbo(target, network.posterior, 500, seeded(1))
    assert values["inducing points"] > values["mean field"] + 20


@pytest.mark.parametrize("name", SMALL)
def test_laplace_is_the_posterior_of_the_linearised_network(name):
    """Its draws have the mean of the fitted point, and the covariance J (J^T H J + P)^-1 J^T, written out."""
    problem = SMALL[name]
    network = fit(problem, FAMILIES["Laplace"], 200, 1, 1, lambda: None)
    fitted = fit_laplace(problem, network)
    outputs = laplace_outputs(fitted, network.normalization(problem.inputs), 4000, seeded(1))
    assert math.isfinite(fitted.log_marginal_likelihood())
    target, w = problem.target(), network.posterior.centre.detach()
    at = [network.normalization(x) for x in (problem.train.images, problem.inputs)]
    train, shown = (torch.func.jacrev(lambda w, x=x: target.outputs(w.unsqueeze(0), x)[0])(w).double() for x in at)
    if problem.noise_std is None:
        p = target.outputs(w.unsqueeze(0))[0].softmax(-1).double().detach()
        curvature = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
    else:
        curvature = torch.full((len(train), 1, 1), problem.noise_std**-2, dtype=torch.float64)
    precision = torch.einsum("nid,nij,nje->de", train, curvature, train)
    precision += torch.eye(len(w)).double() / problem.prior_std**2
    covariance = torch.einsum("nid,de,nie->ni", shown, torch.linalg.inv(precision), shown)
    mean = target.outputs(w.unsqueeze(0), at[1])[0].detach()
    error = 5 * covariance.sqrt() / math.sqrt(len(outputs))
    assert ((outputs.mean(0) - mean).abs() < error + 1e-4).all()
    torch.testing.assert_close(outputs.var(0).double(), covariance, rtol=0.15, atol=1e-4)


@pytest.fixture
def tiny(in_tmp, monkeypatch):
    """The study at toy size, on one problem, with one chain step and few families."""
    monkeypatch.setattr(module, "FAST_FAMILIES", ("mean field", "ensemble"))

    def make():
        study = YardstickStudy(fast=True)
        study.truth_plan = TruthPlan(4, 10, 2, 4)
        study.problems = {name: study.problems[name] for name in ("gap", "moons")}
        return study

    return make


def test_the_study_is_kept_and_drawn_again_from_its_file(tiny, in_tmp):
    steps = []
    results = dict(tiny().run(lambda: steps.append(1)))
    assert len(steps) == sum(tiny().parts.values())
    shows = tiny().save(results, in_tmp)
    first = (in_tmp / "yardstick.png").read_bytes()
    assert dict(tiny().run(lambda: pytest.fail("computed again"))) == results
    (in_tmp / "yardstick.png").unlink()
    assert tiny().redraw(in_tmp)
    assert (in_tmp / "yardstick.png").read_bytes() == first
    assert json.loads((in_tmp / "yardstick.json").read_text())["shows"] == shows
    assert {(row["problem"], row["family"], row["as"]) for row in shows["rows"]} == {
        (problem, family, label)
        for problem in ("gap", "moons")
        for family in ("mean field", "ensemble")
        for label in ("alone", "mixed")
    }
    assert any(line.startswith("gap: log-evidence between") for line in tiny().lines(shows))


def test_measures_compare_with_the_truth():
    problem = SMALL["moons"]
    truth = {"evidence": [-31.0, -29.0], "probabilities": [[0.9, 0.1]] * 130}
    found = [{"elbo": -40.0, "probabilities": [[0.4, 0.6]] * 65 + [[0.9, 0.1]] * 65, "nll": 1.0}]
    measures = scores(problem, truth, found)
    assert measures["nats_to_evidence"] == [10.0, 0.0]
    assert measures["total_variation"][0] == pytest.approx(0.25)
    assert measures["agreement"][0] == pytest.approx(50.0)
    regression = SMALL["gap"]
    truth = {"evidence": [0.0, 0.0], "probabilities": [[1.0, 0.0]], "std_on_data": 0.1, "std_in_gap": 0.5}
    found = [{"elbo": 0.0, "probabilities": [[1.0, 0.0]], "std_on_data": 0.2, "std_in_gap": 0.25}]
    measures = scores(regression, truth, found)
    assert (measures["std_on_data"][0], measures["std_in_gap"][0]) == (2.0, 0.5)


@pytest.mark.slow
def test_bounds_of_the_evidence_come_together_and_no_elbo_lies_above_them():
    problem = SMALL["gap"]
    coarse, fine = (find_truth(problem, TruthPlan(16, num, 60, 120), 1, lambda: None) for num in (60, 400))
    widths = [truth.evidence[1] - truth.evidence[0] for truth in (coarse, fine)]
    assert 0 < widths[1] < 0.5 * widths[0]
    assert fine.r_hat < 1.1
    network = fit(problem, FAMILIES["inducing points"], 2000, 8, 1, lambda: None)
    _, high, _, high_error = fine.evidence
    assert elbo(problem.target(), network.posterior, 2000, seeded(1)) < high + 4 * high_error
