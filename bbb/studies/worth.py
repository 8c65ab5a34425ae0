"""What a posterior is worth as a prior: which runs tell, and what they show.

Three sources are each the prior of another task. Beside each of these is the same task from scratch.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

import bbb.studies.worth_figure as worth_figure
from bbb.runs import Run, Settings, load_task
from bbb.studies.evidence import Arm, Runs, about, rounded
from bbb.studies.plot import Arms, Maker, Plot
from bbb.studies.table import mean_and_error

SEEDS = (1, 2, 3)
FRACTIONS = (0.002, 0.01, 0.03, 0.1, 0.3)
EVIDENCE_AT = 0.1  # the fraction of the runs at temperature 1, which have an ELBO
REACHED_AT = (0.01, 0.1)  # the fractions whose errors the baseline is to reach
FEW_DRAWS = {"num_test_samples": 20, "num_validation_samples": 1}  # there are many runs, and nothing is chosen
_SMALL = {"dataset": "digits8x8", "classes": None}
# For each pair of tasks, what the source changes of domain_a, and the target of transfer and of domain_b.
PAIRS: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "digits 0-4 to 5-9": ({}, {}),
    "upright to turned by 30°": ({}, {"classes": [0, 1, 2, 3, 4], "rotation": 30.0}),
    "8x8 digits to small MNIST": (_SMALL, {"dataset": "mnist8x8", "classes": None, "head": "keep"}),
}
TRANSFER, SCRATCH, AT_ONE = "transfer", "from scratch", ", T = 1"


def plots(make: Maker) -> list[Plot]:
    """List the figure with its runs.

    Args:
        make: makes the runs.
    """
    arms: Arms = {}
    for pair, (of_source, of_target) in PAIRS.items():
        for seed in SEEDS:
            source = make("domain_a", f"domain_a/{_folder(pair)}{seed}", seed=seed, **of_source)
            for fraction in FRACTIONS:
                for name, colder in (("", {}), (AT_ONE, {"temperature": 1.0})):
                    if name == AT_ONE and fraction != EVIDENCE_AT:
                        continue
                    changes = {"fraction": fraction, "seed": seed, **FEW_DRAWS, **of_target, **colder}
                    to = make("transfer", f"worth/{_folder(pair)}", source, **changes)
                    arms.setdefault(Arm(f"{pair}: {TRANSFER}{name}", fraction), []).append(to)
                    changes.pop("head", None)
                    alone = make("domain_b", f"worth/{_folder(pair)}", **changes)
                    arms.setdefault(Arm(f"{pair}: {SCRATCH}{name}", fraction), []).append(alone)
    return [Plot("worth", arms, evidence, lambda shows: worth_figure.worth(**shows))]


def _folder(pair: str) -> str:
    return f"pair{[*PAIRS].index(pair) + 1}_"


def evidence(arms: Runs) -> dict[str, Any]:
    """Show for each pair of tasks how many images the source's posterior saves, and how many nats.

    An arm is named ``PAIR: transfer`` or ``PAIR: from scratch``, with ``, T = 1`` for the runs that have an ELBO.
    """
    shows: dict[str, Any] = {}
    for pair in PAIRS:
        nums = [_num_images(arms[Arm(f"{pair}: {SCRATCH}", fraction)][0]) for fraction in FRACTIONS]
        found: dict[str, Any] = {"images": nums, "error": {}, "nll": {}, "code_length": {}, "evidence": {}}
        for name in (TRANSFER, SCRATCH):
            runs = [arms[Arm(f"{pair}: {name}", fraction)] for fraction in FRACTIONS]
            for score in ("error", "nll"):
                found[score][name] = [[rounded(run.result[f"test_{score}"]) for run in seeds] for seeds in runs]
            log_num = math.log(_num_classes(runs[0][0]))
            by_seed = zip(*found["nll"][name], strict=True)
            found["code_length"][name] = [rounded(code_length(nums, nlls, log_num)) for nlls in by_seed]
            at_one = arms[Arm(f"{pair}: {name}{AT_ONE}", EVIDENCE_AT)]
            num = nums[FRACTIONS.index(EVIDENCE_AT)]
            found["evidence"][name] = [rounded(num * run.result["elbo"]) for run in at_one]
        errors = {name: [mean_and_error(seeds)[0] for seeds in found["error"][name]] for name in found["error"]}
        found["saved"] = []
        for fraction in REACHED_AT:
            i = FRACTIONS.index(fraction)
            needed = images_needed(nums, errors[SCRATCH], errors[TRANSFER][i])
            found["saved"].append({"images": nums[i], "needed": None if needed is None else rounded(needed)})
        shows[pair] = found
    return {"pairs": shows, "title": f"What a posterior is worth: {about(arms, 'mean and standard error')}"}


def images_needed(nums: Sequence[float], errors: Sequence[float], wanted: float) -> float | None:
    """Interpolate how many images training needs for an error, along straight lines of log error and log number.

    Args:
        nums: numbers of images, ascending.
        errors: the error after training on each, in %, above 0.
        wanted: the error to be reached, in %.

    Returns:
        The smallest such number; the first one if it has a lower error; None if none has.
    """
    if errors[0] <= wanted:
        return nums[0]
    for i in range(1, len(nums)):
        if errors[i] <= wanted:
            share = math.log(errors[i - 1] / wanted) / math.log(errors[i - 1] / errors[i])
            return nums[i - 1] * (nums[i] / nums[i - 1]) ** share
    return None


def code_length(nums: Sequence[int], nlls: Sequence[float], of_guess: float) -> float:
    r"""Sum the prequential code length of labels, sent in blocks (Blier and Ollivier 2018, arXiv 1802.07044).

    .. math:: n_1 \log C + \sum_k (n_{k+1} - n_k) \, \mathrm{NLL}_k

    Each block is coded with the posterior that was learnt on all blocks before, and the first one with a guess. The
    test images stand for a block to come: both are drawn from the same source. The code length is minus the
    log-evidence of a model that is trained so (Dawid 1984).

    Args:
        nums: n, numbers of images, ascending.
        nlls: the NLL on other images after training on each, in nats per image; the last is not used.
        of_guess: log C, of C classes.

    Returns:
        Nats for the first ``nums[-1]`` labels.
    """
    blocks = (after - before for before, after in itertools.pairwise(nums))
    return nums[0] * of_guess + sum(num * nll for num, nll in zip(blocks, nlls, strict=False))


def _num_images(run: Run) -> int:
    return len(load_task(Settings.from_config(run.config), torch.device("cpu")).train)


def _num_classes(run: Run) -> int:
    classes = run.config["classes"]
    return 10 if classes is None else len(classes)
