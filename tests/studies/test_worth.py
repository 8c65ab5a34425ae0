"""What a posterior is worth: images saved, and nats."""

import math

import pytest

from bbb.runs import Run
from bbb.studies import worth
from bbb.studies.evidence import Arm
from bbb.studies.plot import Maker
from bbb.studies.worth import FRACTIONS, PAIRS, code_length, images_needed
from tests.tasks import CONFIGS


def test_a_power_law_is_interpolated_exactly():
    nums = [10, 100, 1000]
    errors = [50.0 * num**-0.5 for num in nums]
    for wanted in (10.0, 5.0, 2.0):
        assert images_needed(nums, errors, wanted) == pytest.approx((50.0 / wanted) ** 2)


def test_an_error_that_is_never_reached_needs_no_number_and_one_that_is_always_the_first():
    assert images_needed([10, 100], [8.0, 4.0], 3.9) is None
    assert images_needed([10, 100], [8.0, 4.0], 8.0) == 10
    assert images_needed([10, 100], [8.0, 4.0], 9.0) == 10
    assert images_needed([10, 100], [8.0, 4.0], 4.0) == pytest.approx(100)
    assert images_needed([10, 100, 1000], [8.0, 9.0, 2.0], 8.5) == 10


def test_a_code_is_as_long_as_its_blocks_under_the_posteriors_before():
    nums = [10, 30, 100]
    assert code_length(nums, [2.0, 0.5, 99.0], math.log(5)) == pytest.approx(10 * math.log(5) + 20 * 2.0 + 70 * 0.5)
    uniform = [math.log(5)] * 3
    assert code_length(nums, uniform, math.log(5)) == pytest.approx(100 * math.log(5))


def runs_of(arm):
    """Results in which transfer needs half of the images, in every pair of tasks."""
    factor = 2.0 if worth.TRANSFER in arm.name else 1.0
    error = 100.0 * (factor * 1e5 * arm.fraction) ** -0.5
    return [
        Run(None, "COMPLETED", {"classes": None}, {"test_error": error, "test_nll": error / 50, "elbo": -error})
        for _ in worth.SEEDS
    ]


def test_it_says_how_many_images_and_nats_the_source_saves(monkeypatch):
    monkeypatch.setattr(worth, "_num_images", lambda run: next(sizes))
    monkeypatch.setattr(worth, "about", lambda arms, shown: shown)
    (plot,) = worth.plots(Maker("x", {}, CONFIGS))
    sizes = iter([round(1e5 * fraction) for _ in PAIRS for fraction in FRACTIONS])
    shows = worth.evidence({arm: runs_of(arm) for arm in plot.arms})
    for found in shows["pairs"].values():
        for saved in found["saved"]:
            assert saved["needed"] == pytest.approx(2 * saved["images"], rel=1e-4)
        ours, scratch = (found["code_length"][name][0] for name in (worth.TRANSFER, worth.SCRATCH))
        first = found["images"][0] * math.log(10)
        assert scratch - first == pytest.approx(math.sqrt(2) * (ours - first), rel=1e-4)
        evidence = found["evidence"]
        assert evidence[worth.SCRATCH][0] == pytest.approx(math.sqrt(2) * evidence[worth.TRANSFER][0], rel=1e-4)
        assert evidence[worth.SCRATCH][0] == pytest.approx(-10_000.0 * found["error"][worth.SCRATCH][3][0], rel=1e-4)
    figure = plot.draw(shows)
    assert [axes.get_title().splitlines()[0] for axes in figure.axes] == [*PAIRS]


def test_both_arms_of_a_pair_see_the_same_images_for_as_long():
    (plot,) = worth.plots(Maker("x", {}, CONFIGS))
    keys = ("dataset", "classes", "rotation", "fraction", "seed", "num_epochs", "steps_per_epoch", "temperature", "lr")
    for arm, jobs in plot.arms.items():
        if worth.TRANSFER not in arm.name:
            continue
        others = plot.arms[Arm(arm.name.replace(worth.TRANSFER, worth.SCRATCH), arm.fraction)]
        for job, other in zip(jobs, others, strict=True):
            assert {key: job.config[key] for key in keys} == {key: other.config[key] for key in keys}
            assert job.source is not None
            assert other.source is None
            assert job.config["temperature"] == (1.0 if worth.AT_ONE in arm.name else 0.03)
