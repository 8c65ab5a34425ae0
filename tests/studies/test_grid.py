import hashlib
import itertools
import json
from pathlib import Path

import pytest

from bbb import runs
from bbb.studies import grid
from bbb.system import InputError
from tests.tasks import job

RESULTS = Path("results")


def recorded(folder, job, status="COMPLETED", source=None, **changes):
    """A run folder as Sacred leaves it."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({**job.config, **changes}))
    (folder / "run.json").write_text(json.dumps({"status": status, "result": {"test_error": 1.0}}))
    (folder / runs.WEIGHTS).write_text(f"the weights in {folder}")
    if source is not None:
        checksum = hashlib.sha256((source / runs.WEIGHTS).read_bytes()).hexdigest()
        (folder / "info.json").write_text(json.dumps({"source": {"sha256": checksum}}))
    return folder


def test_a_grid_is_the_product_of_its_lists():
    lists = {"beta_type": ["blundell", "none"], "classes": [[0, 1], [2, 3]], "seed": [1, 2, 3]}
    combinations = grid.expand(grid.check_grid(lists))
    assert [tuple(each.values()) for each in combinations] == list(itertools.product(*lists.values()))
    assert all(list(each) == list(lists) for each in combinations)


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ("seed", "grid='seed': must be keys with lists"),
        ({}, "grid={}: must be keys with lists"),
        ({"sed": [1]}, "grid: sed: unknown key; did you mean 'seed'"),
        ({1: [1]}, "grid: 1: unknown key"),
        ({"seed": 1}, "grid: seed=1: must be a list of values"),
        ({"seed": []}, r"grid: seed=\[\]: must be a list of values"),
        ({"seed": [1, 2, 1]}, "grid: seed=1: is there twice"),
        ({"lr": [{"a": 1}]}, "grid: lr={'a': 1}: must be a number"),
        ({"experiment_name": ["a", "b"]}, "grid: experiment_name: does not tell runs apart"),
    ],
)
def test_what_is_no_grid_is_refused(lists, message):
    with pytest.raises(InputError, match=message):
        grid.check_grid(lists)


def test_every_problem_of_a_grid_is_told_once():
    with pytest.raises(InputError) as error:
        grid.check_configs([job(lr=-1, seed=seed) for seed in (1, 2)] + [job(num_hidden=0)])
    assert [line.partition(":")[0] for line in str(error.value).splitlines()] == ["lr=-1", "num_hidden=0"]


@pytest.mark.parametrize(("key", "value"), [("resume", "abc"), ("resume", False), ("lrr", 1), ("grid", {})])
def test_a_key_that_no_configuration_has_is_refused(key, value):
    with pytest.raises(InputError, match=f"^{key}: unknown key") as error:
        grid.check_configs([job(), job(**{key: value})])
    assert len(str(error.value).splitlines()) == 1


def test_inputs_that_are_not_there_are_told_before_anything_starts(in_tmp):
    with pytest.raises(InputError, match="pretrained='nope': there is no"):
        grid.check_inputs([job(), job(pretrained="nope", prior="posterior")])
    source = job(experiment_name="later")
    grid.check_inputs([source, job(source, pretrained="later", prior="posterior")])
    assert not RESULTS.exists()


def test_completed_runs_are_found_by_configuration_and_not_by_name(in_tmp):
    wanted = [job(seed=1), job(seed=2), job(seed=3), job(seed=4), job(seed=1, lr=0.5), job(seed=5, rotation=30)]
    elsewhere = {"experiment_name": "other", "num_threads": 7, "data_dir": "d", "device": "cpu", "resume": True}
    recorded(RESULTS / "other" / "1", wanted[0], **elsewhere)
    recorded(RESULTS / "default" / "1", wanted[1], "FAILED")
    recorded(RESULTS / "default" / "2", wanted[2], "RUNNING")
    (recorded(RESULTS / "default" / "3", wanted[3]) / runs.WEIGHTS).unlink()
    recorded(RESULTS / "default" / "4", wanted[4], lr=0.25)
    recorded(RESULTS / "default" / "5", wanted[5], rotation=30.0)
    recorded(RESULTS / "default" / "6", wanted[5], classes="damaged", seed={"a": []})
    found = grid.find_completed(wanted)
    assert {each.config["seed"]: run.folder.parent.name for each, run in found.items()} == {1: "other", 5: "default"}
    assert list(found) == [wanted[0], wanted[5]]


def test_a_run_that_started_from_other_weights_is_not_the_wanted_one(in_tmp):
    source = job(experiment_name="a")
    wanted = job(source, pretrained="a", prior="posterior")
    assert grid.find_completed([source, wanted]) == {}
    first = recorded(RESULTS / "b" / "1", source)  # the same run under another name
    started = recorded(RESULTS / "c" / "1", wanted, source=first, pretrained="b")
    found = grid.find_completed([source, wanted])
    assert [found[each].folder for each in (source, wanted)] == [first, started]
    assert wanted.placed(found[source]).config["pretrained"] == str(first)
    (first / runs.WEIGHTS).write_text("of another machine")
    assert list(grid.find_completed([source, wanted])) == [source]
    (started / "info.json").write_text("{half")
    assert list(grid.find_completed([source, wanted])) == [source]


@pytest.mark.parametrize(("key", "value"), [("network", "own.py:make"), ("dataset", "own.npz")])
def test_a_run_that_read_another_file_of_the_same_name_is_not_the_wanted_one(in_tmp, key, value):
    wanted, file = job(**{key: value}), Path(value.partition(":")[0])
    file.write_text("of today")
    folder = recorded(RESULTS / "a" / "1", wanted)
    assert grid.find_completed([wanted]) == {}, "what it read is not known"
    (folder / "info.json").write_text(json.dumps({"files": runs.record_files(wanted.config)}))
    assert grid.find_completed([wanted])[wanted].folder == folder
    file.write_text("of tomorrow")
    assert grid.find_completed([wanted]) == {}
    file.unlink()
    assert grid.find_completed([wanted]) == {}


def test_a_source_comes_before_what_starts_from_it_and_once():
    source = job()
    first, second = job(source), job(source)
    assert list(grid.in_order([first, second, source, first])) == [source, first, second]


def test_a_completed_run_of_a_version_in_which_classes_were_digits_is_not_made_again(in_tmp):
    since = ("classes", "network", "deterministic", "normalization", "pixel_scale", "likelihood", "noise_std")
    wanted = [
        job(seed=1),
        job(seed=2, classes=[5, 6]),
        job(seed=3, network="lenet"),
        job(seed=4, likelihood="gaussian"),
    ]
    for number, each in enumerate(wanted, start=1):
        digits = each.config["classes"] or [*range(10)]
        folder = recorded(RESULTS / "default" / str(number), each, digits=digits, resume=False)
        config = json.loads((folder / "config.json").read_text())
        old = {key: value for key, value in config.items() if key not in (*since, "learn_noise")}
        (folder / "config.json").write_text(json.dumps(old))
    assert list(grid.find_completed(wanted)) == wanted[:2]


def test_digits_in_a_grid_are_classes():
    assert grid.check_grid({"digits": [[0, 1], [2, 3]]}) == {"classes": [[0, 1], [2, 3]]}
