"""A sequence of tasks: the runs that it is made of, and what its matrix of accuracies says."""

import json

import pytest
import torch

from bbb.data import Split
from bbb.runs import WEIGHTS, Run
from bbb.studies import grid, sequence_matrix
from bbb.studies.sequence import TaskSequence
from bbb.studies.sequence_checks import SequenceError, check_fit, check_unchanged
from bbb.studies.sequence_matrix import Retests, mean_matrix, measures
from tests.tasks import DEFAULT

PAIRS = [{"classes": [0, 1]}, {"classes": [2, 3]}, {"classes": [4, 5]}]
BASE = {**DEFAULT, "dataset": "digits8x8", "prior": "posterior", "head": "fresh", "experiment_name": "pairs"}


def sequence(**changes):
    return TaskSequence.from_config({**BASE, "tasks": PAIRS, **changes})


def test_each_task_starts_from_the_one_before_and_the_first_from_a_plain_prior():
    made = sequence(seeds=[3, 4])
    assert made.labels == ("0/1", "2/3", "4/5")
    assert list(made.chains) == [3, 4]
    for seed, chain in made.chains.items():
        grid.check_configs(chain)
        assert [job.source for job in chain] == [None, *chain[:-1]]
        assert [job.config["classes"] for job in chain] == [task["classes"] for task in PAIRS]
        assert [job.config["prior"] for job in chain] == ["gaussian", "posterior", "posterior"]
        assert [job.config["pretrained"] for job in chain] == [None, "pairs/task1", "pairs/task2"]
        assert {job.config["seed"] for job in chain} == {seed}
    assert list(grid.in_order(reversed(made.chains[3]))) == made.chains[3]
    assert made.jobs == [*made.chains[3], *made.chains[4]]


def test_the_same_tasks_alone_start_from_nothing():
    made = sequence(alone=True)
    assert [job.config["classes"] for job in made.alone[1]] == [[2, 3], [4, 5]]
    assert {(job.source, job.config["pretrained"], job.config["prior"]) for job in made.alone[1]} == {
        (None, None, "gaussian")
    }


def test_all_tasks_at_once_are_one_run_for_each_seed():
    made = sequence(joint=True, seeds=[3, 4])
    assert [made.joint[seed].config["seed"] for seed in (3, 4)] == [3, 4]
    config = made.joint[3].config
    assert (config["union"], config["prior"], config["pretrained"], config["head"]) == (
        PAIRS,
        "gaussian",
        None,
        "fresh",
    )
    grid.check_configs(made.jobs)
    assert made.joint[4] in made.jobs_of(4)
    assert made.joint[4] not in made.jobs_of(3)
    assert sequence().joint == {}


def test_posteriors_are_refined_on_the_coresets_so_far_and_no_task_starts_from_a_refined_one():
    turned = [{"rotation": 0.0}, {"rotation": 90.0}]
    made = sequence(tasks=turned, head="keep", coreset=5)
    refined = made.refined[1]
    grid.check_configs(made.jobs)
    assert [job.config["union"] for job in refined] == [turned[:1], turned]
    assert [job.source for job in refined] == made.chains[1]
    assert {(job.config["coreset"], job.config["prior"]) for job in refined} == {(5, "posterior")}
    assert not {job.source for job in made.chains[1]} & {*refined}
    assert all(job.config["union"] is None and job.config["coreset"] == 5 for job in made.chains[1])
    assert sequence().refined == {}


def test_a_source_from_outside_is_the_prior_of_the_first_task():
    first = sequence(pretrained="other").chains[1][0]
    assert (first.config["prior"], first.config["pretrained"]) == ("posterior", "other")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"tasks": None}, "tasks: missing; name a sequence, as in: python experiment.py sequence with split_mnist"),
        ({"tasks": [{}]}, "tasks=.*: must be at least two tasks"),
        ({"tasks": "abc"}, "tasks='abc': must be a list of keys with values"),
        ({"tasks": [{"clases": [0]}, {}]}, "tasks: 1: clases: unknown key; did you mean 'classes'?"),
        ({"tasks": [{}, {"seed": 2}]}, "tasks: 2: seed: is the same for all tasks; give it outside tasks"),
        ({"tasks": [{"classes": [0, 1]}, {"digits": [0, 1]}]}, "tasks: 2: is the same as task 1"),
        ({"seeds": [1, 1]}, r"seeds=\[1, 1\]: must be a list of different whole numbers"),
        ({"seeds": 3}, "seeds=3: must be a list of different whole numbers"),
        ({"alone": 1}, "alone=1: must be True or False"),
        ({"joint": 0}, "joint=0: must be True or False"),
        ({"coreset": 5}, "coreset=5: needs one head for all tasks, which head=fresh does not give; use keep"),
        (
            {"joint": True, "tasks": [{}, {"lr": 0.1}]},
            "joint=True: trains on several .* task 2 has lr=0.1",
        ),
    ],
)
def test_what_is_no_sequence_is_refused_in_one_line(changes, line):
    with pytest.raises(ValueError, match=line):
        sequence(**changes)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"tasks": [{"num_hidden": 8}, {"num_hidden": 9}]}, "tasks: 2: has 64-9-9-10 units.*before has 64-8-8-10"),
        ({"head": "keep", "tasks": [{"classes": [0, 1]}, {"classes": [2, 3, 4]}]}, "tasks: 2: has .*or use head=fresh"),
        ({"tasks": [{"classes": [0, 1]}, {"classes": [2, 33]}]}, "tasks: 2: classes"),
        ({"tasks": [{}, {"posterior": "point"}]}, "tasks: 2: has .*posterior=point, the task before has"),
    ],
)
def test_tasks_that_do_not_fit_each_other_are_refused_before_any_training(in_tmp, changes, line):
    made = sequence(**changes)
    with pytest.raises(SequenceError, match=line):
        check_fit(made.chains[1])


def test_tasks_that_fit_are_let_through(in_tmp):
    check_fit(sequence().chains[1])
    check_fit(sequence(head="keep").chains[1])


def test_weights_that_changed_after_a_later_task_started_from_them_are_refused(in_tmp, monkeypatch):
    first, second, _ = sequence().chains[1]
    folder = in_tmp / "results/pairs/task1/1"
    folder.mkdir(parents=True)
    (folder / WEIGHTS).write_bytes(b"new")
    source = {"weights": str(folder / WEIGHTS), "sha256": "0" * 64}
    config = {**second.config, "pretrained": "pairs/task1"}
    later = Run(in_tmp / "results/pairs/task2/1", "COMPLETED", config, {})
    later.folder.mkdir(parents=True)
    (later.folder / "info.json").write_text(json.dumps({"source": source}))
    completed = {first: Run(folder, "COMPLETED", first.config, {})}
    monkeypatch.setattr("bbb.studies.sequence_checks.find_runs", lambda: [later])
    with pytest.raises(
        SequenceError, match=r"task1/1/weights.safetensors: has changed since .*task2/1 started from it"
    ):
        check_unchanged([first, second], completed)
    check_unchanged([first, second], {**completed, second: later})


MATRIX = [[99.0, 40.0, None], [99.5, 98.0, 55.0], [80.0, 96.0, 97.0]]


def test_measures_are_those_of_the_publications():
    found = measures(MATRIX, [2, 2, 2], alone=[98.5, 96.0], joint=[99.0, 98.0, 97.0])
    assert found["joint"] == pytest.approx(98.0)
    assert found["average"] == pytest.approx((80 + 96 + 97) / 3)
    assert found["forgetting"] == pytest.approx(((99.5 - 80) + (98 - 96)) / 2)
    assert found["backward_transfer"] == pytest.approx(((80 - 99) + (96 - 98)) / 2)
    assert found["learning"] == pytest.approx((99 + 98 + 97) / 3)
    assert found["forward_transfer"] == pytest.approx(((98 - 98.5) + (97 - 96)) / 2)
    assert found["zero_shot"] == pytest.approx(((40 - 50) + (55 - 50)) / 2)
    own_heads = [[99.0, None], [99.5, 98.0]]
    found = measures(own_heads, [2, 2])
    assert found["forgetting"] == pytest.approx(-0.5)
    assert "zero_shot" not in found
    assert "joint" not in found
    assert "forward_transfer" not in found


def test_a_mean_matrix_averages_over_seeds():
    other = [[97.0, 50.0, None], [92.0, 98.0, 45.0], [84.0, 94.0, 99.0]]
    assert mean_matrix([MATRIX, other]) == [[98.0, 45.0, None], [95.75, 98.0, 50.0], [82.0, 95.0, 98.0]]


def test_scores_are_computed_once_for_the_same_weights(in_tmp, monkeypatch):
    folders = [in_tmp / str(i) for i in range(2)]
    for i, folder in enumerate(folders):
        folder.mkdir()
        (folder / WEIGHTS).write_bytes(bytes([i]))
    runs = [Run(folder, "COMPLETED", {"num_test_samples": 3, "network": "mlp"}, {}) for folder in folders]
    tested = []

    class Retest:
        device = None

        test = Split(torch.zeros(10, 1), torch.zeros(10, dtype=torch.int64))

        def predictive(self, network):
            tested.append(network)
            is_wrong = (torch.arange(10) < len(tested)).long()
            return torch.nn.functional.one_hot(is_wrong, 2).double().log()

    monkeypatch.setattr(sequence_matrix, "open_retest", lambda *args: Retest())
    monkeypatch.setattr(sequence_matrix, "read_about", lambda path: {"heads": [0] * int(path.parent.name)})
    monkeypatch.setattr(
        sequence_matrix, "load_weights", lambda path, device, network, head: ((path.parent.name, head), {})
    )
    counted = []
    matrix = Retests(in_tmp / "s", False, lambda: counted.append(1)).matrix(runs)
    assert matrix == [[90.0, None], [80.0, 70.0]]
    assert tested == [("0", 0), ("1", 0), ("1", 1)]
    assert len(counted) == 3
    assert Retests(in_tmp / "s", False).matrix(runs) == matrix
    assert len(tested) == 3
    (folders[1] / WEIGHTS).write_bytes(b"changed")
    assert Retests(in_tmp / "s", False).matrix(runs)[0] == matrix[0]
    assert len(tested) == 5
    assert len(json.loads((in_tmp / "s/_tests.json").read_text())) == 5
