import json
import math
import random

import pytest

from bbb.runs import Run
from bbb.studies import Arm, reproduction, worth, worth_evidence
from bbb.studies.worth_evidence import SCRATCH, SCRATCH_AT_ONE, TRANSFER, TRANSFER_AT_ONE, code_lengths, images_for
from bbb.studies.worth_figure import worth_figure
from tests.made_runs import make_run
from tests.tasks import CONFIGS

OF_THE_START = {"pretrained", "prior"}


@pytest.mark.parametrize("power", [0.3, 0.5, 1.0])
def test_on_a_power_law_the_images_for_an_error_are_exact(power):
    images = [100, 200, 500, 1000, 10000]
    errors = [100 * number**-power for number in images]
    for number in (100, 137, 200, 450, 9999):
        assert images_for(100 * number**-power, images, errors) == pytest.approx(number)


def test_an_error_that_is_never_reached_has_no_images_and_one_that_is_always_has_the_first():
    assert images_for(1.0, [10, 100], [5.0, 1.1]) is None
    assert images_for(6.0, [10, 100], [5.0, 1.1]) == 10
    assert images_for(2.0, [10, 100, 1000], [5.0, 6.0, 2.0]) == pytest.approx(1000)
    assert images_for(0.0, [10, 100], [5.0, 0.0]) == pytest.approx(100)


def test_the_code_length_is_that_of_blocks_coded_one_after_the_other():
    lengths = code_lengths([10, 30, 100], [0.5, 0.2, 0.1], 4)
    assert lengths == pytest.approx([10 * math.log(4), 10 * math.log(4) + 20 * 0.5, 10 * math.log(4) + 10 + 70 * 0.2])


@pytest.fixture(params=[False, True], ids=["full", "fast"])
def arms(request):
    (plot,) = (plot for plot in reproduction.plots(request.param, CONFIGS) if plot.name == "worth")
    return plot.arms


def test_both_arms_of_a_pair_differ_in_where_they_start_and_in_nothing_else(arms):
    roles = {SCRATCH: TRANSFER, SCRATCH_AT_ONE: TRANSFER_AT_ONE}
    compared = 0
    for arm, jobs in arms.items():
        pair, _, role = arm.name.rpartition(": ")
        if role in roles.values():
            (baseline,) = (scratch for scratch, transfer in roles.items() if transfer == role)
            for job, other in zip(jobs, arms[Arm(f"{pair}: {baseline}", arm.fraction)], strict=True):
                differing = {key for key in job.config if job.config[key] != other.config[key]}
                also = {"start", "prior_floor"} if role == TRANSFER else set()
                if role == TRANSFER_AT_ONE and (role, arm.fraction) in worth.PRIOR_STDS:
                    also = {"prior_std", "init_std"}  # each arm has the prior that is best for it
                assert differing == OF_THE_START | also
                assert job.source.config["seed"] == job.config["seed"]
                compared += 1
        if "T = 1" in role:
            chains = [*jobs, *(job.source for job in jobs if job.source is not None)]
            assert {job.config["temperature"] for job in chains} == {1.0}, "a cold ELBO is none"
            assert {job.config["input_dropout"] for job in chains} == {0.0}, "images that vary are other data"
    assert compared >= 6


def test_three_seeds_of_each_pair_and_the_least_and_the_most_images():
    (plot,) = (plot for plot in reproduction.plots(False, CONFIGS) if plot.name == "worth")
    assert {arm.name.rpartition(": ")[0] for arm in plot.arms} == {pair.name for pair in worth.PAIRS}
    for arm, jobs in plot.arms.items():
        assert [job.config["seed"] for job in jobs] == [1, 2, 3]
        assert arm.fraction in worth.FRACTIONS[arm.name.rpartition(": ")[2]]
    assert worth.FRACTIONS[SCRATCH][:4] == worth.FRACTIONS[TRANSFER], "code lengths are of the same blocks"
    assert worth.FRACTIONS[SCRATCH][-1] >= 5 * worth.FRACTIONS[TRANSFER][-1], "room for what transfer saves"


def made_arms(tmp_path):
    """Runs of digits8x8 with scores made up: 1197 images in all, two seeds."""
    draws, arms = random.Random(1), {}
    fractions = {SCRATCH: (0.1, 0.2, 1.0), TRANSFER: (0.1, 0.2), SCRATCH_AT_ONE: (0.1,), TRANSFER_AT_ONE: (0.1,)}
    for role in fractions:
        for fraction in fractions[role]:
            runs = arms[Arm(worth_evidence.arm_name("a: b", role), fraction)] = []
            for seed in (1, 2):
                changes = {"dataset": "digits8x8", "fraction": fraction, "seed": seed}
                name, score = f"{role[:4]}{len(role)}{fraction}", draws.uniform(1, 30)
                folder = make_run(tmp_path, name, seed, score=score, **changes)
                record = json.loads((folder / "run.json").read_text())
                config = json.loads((folder / "config.json").read_text())
                runs.append(Run(folder, "COMPLETED", config, record["result"]))
    return arms


def test_the_evidence_is_of_the_runs_and_transfer_is_worth_what_scratch_pays_more(tmp_path, monkeypatch):
    monkeypatch.setattr(worth_evidence, "num_classes", lambda run: 10)
    arms = made_arms(tmp_path)
    shown = worth_evidence.worth(arms)["pairs"]["a: b"]
    assert shown["images"] == {
        SCRATCH: [120, 240, 1197],
        TRANSFER: [120, 240],
        SCRATCH_AT_ONE: [120],
        TRANSFER_AT_ONE: [120],
    }
    by_role = {role: [runs for arm, runs in arms.items() if arm.name == f"a: b: {role}"] for role in shown["images"]}
    for role in (SCRATCH, TRANSFER):
        for i in range(2):
            found = [runs[i].result["test_error"] for runs in by_role[role]]
            assert shown["errors"][role][i] == pytest.approx(found, rel=1e-5)
            nlls = [runs[i].result["test_nll"] for runs in by_role[role]]
            lengths = code_lengths(shown["images"][role], nlls, 10)
            assert shown["code_lengths"][role][i] == pytest.approx(lengths, rel=1e-5)
    gained = [
        120 * (scratch.result["test_nll"] - transfer.result["test_nll"])
        for scratch, transfer in zip(by_role[SCRATCH][0], by_role[TRANSFER][0], strict=True)
    ]
    assert shown["worth"]["code_length"][0] == [0.0, 0.0], "the first block costs the same"
    assert shown["worth"]["code_length"][1][0] == pytest.approx(sum(gained) / 2, rel=1e-3)
    elbos = [
        [120 * json.loads((run.folder / "metrics.json").read_text())["train.elbo"]["values"][-1] for run in runs[0]]
        for runs in (by_role[TRANSFER_AT_ONE], by_role[SCRATCH_AT_ONE])
    ]
    assert shown["worth"]["elbo"][0][0] == pytest.approx((sum(elbos[0]) - sum(elbos[1])) / 2, rel=1e-3)


def test_the_figure_draws_means_and_leads_from_transfer_to_scratch():
    pair = {
        "images": {"s": [10, 100], "t": [10], "s1": [10]},
        "errors": {"s": [[20.0, 5.0], [24.0, 7.0]], "t": [[10.0], [12.0]]},
        "code_lengths": {"s": [[23.0, 90.0]], "t": [[23.0]]},
        "elbos": {"s1": [[-50.0], [-60.0]]},
        "worth": {"images": [10], "errors": [11.0], "equal_images": [35.0]},
    }
    above, below = worth_figure({"a to b": pair}, "title").axes
    assert list(above.lines[0].get_ydata()) == [22.0, 6.0]
    (lead,) = (line for line in above.lines if list(line.get_xdata()) == [10, 35.0])
    assert list(lead.get_ydata()) == [11.0, 11.0]
    assert any(list(line.get_ydata()) == [55.0] for line in below.lines), "the code length is minus the ELBO"
