"""Regression beyond the data: the curve of the paper, the quantiles, and the choice among candidates."""

import json
import math

import pytest
import torch

from bbb.studies import RegressionStudy
from bbb.studies import regression as module
from bbb.studies.regression import RANKS, curve_with_noise, draw_data
from tests.tasks import seeded


def test_the_curve_is_that_of_the_paper():
    zero = torch.zeros(3, dtype=torch.float64)
    x = torch.tensor([0.0, 0.25, 0.125], dtype=torch.float64)
    expected = torch.tensor([0.0, 0.25 + 0.3, 0.125 + 0.3 * math.sqrt(0.5) + 0.3], dtype=torch.float64)
    torch.testing.assert_close(curve_with_noise(x, zero), expected)
    moved = curve_with_noise(x, zero + 0.25) - 0.25
    torch.testing.assert_close(moved, curve_with_noise(x + 0.25, zero) - 0.25)  # the noise moves the sines


def test_the_data_are_uniform_in_the_first_half_with_noise_of_std_two_hundredths():
    num = 20_000
    data = draw_data(num, seeded(1))
    x, y = data.images[:, 0], data.labels
    assert (x.min() >= 0) & (x.max() <= 0.5)
    assert abs(x.mean() - 0.25) < 4 * 0.5 / math.sqrt(12 * num)
    slope = 1 + 0.3 * 2 * math.pi * torch.cos(2 * math.pi * x) + 0.3 * 4 * math.pi * torch.cos(4 * math.pi * x)
    residual = (y - curve_with_noise(x, torch.zeros(num)))[slope.abs() > 2] / slope[slope.abs() > 2]
    assert abs(residual.std() - 0.02) < 4 * 0.02 / math.sqrt(2 * len(residual)) + 0.001  # the curve is not straight
    assert torch.equal(draw_data(5, seeded(3)).labels, draw_data(5, seeded(3)).labels)


@pytest.fixture
def tiny(in_tmp, monkeypatch):
    """The study at toy size, with one seed and a candidate of each kind."""
    monkeypatch.setattr(module, "SEEDS", (1,))
    chosen = {part: module.CANDIDATES[part] for part in ("bayes_0.3_0.003", "bayes_1.0_0.01", "point_0.003")}
    monkeypatch.setattr(module, "CANDIDATES", chosen)
    return lambda: RegressionStudy(fast=True)


def made_up(nlls):
    scores = [{"validation_nll": nll, "test_nll": -nll, "noise_std": 0.1} for nll in nlls]
    bands = [[float(i)] * 141 for i in range(len(RANKS))]
    return {"scores": scores, "shown": {"quantiles": bands, "epistemic": [0.0] * 141}}


def test_the_candidate_with_the_lowest_mean_validation_nll_is_shown(tiny):
    parts = list(tiny().parts)
    results = dict(zip(parts, [made_up([0.0, 3.0]), made_up([1.0, 1.0]), made_up([5.0])], strict=True))
    shows = tiny().show(results)
    assert shows["chosen"]["Bayes by Backprop"]["prior_std"] == 1.0
    assert shows["scores"]["Bayes by Backprop"] == results[parts[1]]["scores"]


def test_a_points_bands_are_the_quantiles_of_its_noise(tiny):
    """A single Gaussian: the median is its mean, and the bands lie at +-0.6745 and +-1.6449 standard deviations."""
    result = tiny().make("point_0.003", lambda: None)
    std, quantiles = result["scores"][0]["noise_std"], torch.tensor(result["shown"]["quantiles"])
    for row, z in zip(quantiles - quantiles[2], (-1.64485, -0.67449, 0.0, 0.67449, 1.64485), strict=True):
        torch.testing.assert_close(row, torch.full((141,), z * std), atol=2e-4, rtol=0)
    assert result["shown"]["epistemic"] == [0.0] * 141


def test_the_study_is_deterministic_and_drawn_again_from_its_file(tiny, in_tmp):
    steps = []
    results = dict(tiny().run(lambda: steps.append(1)))
    assert len(steps) == sum(tiny().parts.values())
    shows = tiny().save(results, in_tmp)
    first = (in_tmp / "regression.png").read_bytes()
    assert tiny().make("bayes_0.3_0.003", lambda: None) == results["bayes_0.3_0.003"]
    (in_tmp / "regression.png").unlink()
    assert tiny().redraw(in_tmp)
    assert (in_tmp / "regression.png").read_bytes() == first
    assert json.loads((in_tmp / "regression.json").read_text())["shows"] == shows
    assert len(tiny().lines(shows)) == 2


@pytest.mark.slow
def test_a_posterior_is_less_sure_beyond_the_data_and_a_point_is_not(in_tmp, monkeypatch):
    monkeypatch.setattr(module, "SEEDS", (1,))
    study = RegressionStudy()
    study.num_passes = 1000
    bayes, point = (study.make(part, lambda: None) for part in ("bayes_0.3_0.003", "point_0.003"))
    x, spread = module._grid(), torch.tensor(bayes["shown"]["epistemic"])
    inside = spread[(x > 0) & (x < 0.5)].mean()
    assert spread[x > 1.1].mean() > 5 * inside
    assert spread[x < -0.15].mean() > 2 * inside
    assert max(point["shown"]["epistemic"]) == 0.0
    assert bayes["scores"][0]["test_nll"] < -0.8
