import dataclasses

import pytest
import torch

from bbb import runs
from bbb.inference import accuracy_and_nll, predict_with_centre, transfer
from bbb.networks import load_weights
from bbb.runs import WEIGHTS, folders
from bbb.system import StoppedError
from tests import tasks
from tests.tasks import CPU, settings


def test_runs_without_a_folder_and_repeats_exactly(in_tmp):
    first, second = (tasks.run() for _ in range(2))
    assert dataclasses.replace(first, seconds=0.0) == dataclasses.replace(second, seconds=0.0)
    assert list(in_tmp.iterdir()) == []
    assert first.num_epochs == 2
    assert 0 < first.test_error < 75  # chance is 90


def test_leaves_log_weights_and_plot(in_tmp):
    epochs, made = [], runs.assemble(settings(), CPU)
    result = runs.run(made, in_tmp, on_epoch=epochs.append)
    folders.finish(in_tmp)
    assert {path.name for path in in_tmp.iterdir()} == {*runs.PUBLISHED, "findings.json"}
    lines = (in_tmp / "log.txt").read_text().splitlines()
    assert lines == [runs.describe(epoch, 2) for epoch in epochs]
    assert (in_tmp / "training.png").read_bytes().startswith(b"\x89PNG")
    network, about = load_weights(in_tmp / "weights.safetensors")
    assert about["dataset"] == "digits8x8"
    test = made.task.test
    accuracy, _ = accuracy_and_nll(predict_with_centre(network, made.likelihood, test.images), test.labels)
    assert result.test_error_mean_weights == pytest.approx(100 * (1 - accuracy))


def test_training_on_everything(in_tmp):
    epochs = []
    tasks.run(in_tmp, callbacks={"on_epoch": epochs.append}, validation_fraction=0.0)
    assert epochs[0].validation_accuracy is None
    assert "validation" not in (in_tmp / "log.txt").read_text()


def test_transfer_with_auto_resumes_bit_identical_without_choosing_again(in_tmp):
    source = in_tmp / "results" / "a"
    source.mkdir(parents=True)
    tasks.run(source, classes=[0, 1, 2, 3, 4], num_epochs=1, experiment_name="a")
    target = {"classes": [5, 6, 7, 8, 9], "pretrained": "a", "prior": "posterior", "prior_inflation": "auto"}
    choices, (whole_folder, parts_folder) = [], (in_tmp / "whole", in_tmp / "parts")
    for folder in (whole_folder, parts_folder):
        folder.mkdir()

    def stop(epoch):
        raise KeyboardInterrupt

    def count(step, num_steps):
        choices.append(step)

    whole = tasks.run(whole_folder, callbacks={"on_choice": count}, **target)
    num_choices = len(choices)
    assert num_choices > 0
    with pytest.raises(KeyboardInterrupt):
        tasks.run(parts_folder, callbacks={"on_epoch": stop, "on_choice": count}, **target)
    state = runs.load_progress(parts_folder, CPU)
    made = runs.assemble(settings(**target), CPU, state["source"])
    parts = runs.run(made, parts_folder, state, on_choice=count)
    assert len(choices) == 2 * num_choices
    assert dataclasses.replace(parts, seconds=0.0) == dataclasses.replace(whole, seconds=0.0)
    assert parts.prior_inflation in transfer.INFLATIONS
    networks = [load_weights(folder / "weights.safetensors")[0] for folder in (whole_folder, parts_folder)]
    assert torch.equal(networks[0].posterior.mean, networks[1].posterior.mean)


@pytest.mark.parametrize("how", ["MLP", "replicas", "transfer"])
def test_testing_counts_its_images_can_be_stopped_and_goes_on(tmp_path, how):
    changes = {"num_replicas": 2} if how == "replicas" else {}
    if how == "transfer":
        (tmp_path / "source").mkdir()
        tasks.run(tmp_path / "source", classes=[0, 1, 2])
        changes = {"classes": [3, 4, 5], "prior": "posterior", "pretrained": str(tmp_path / "source" / WEIGHTS)}
    counts = []
    whole = tasks.run(callbacks={"on_test": lambda *count: counts.append(count)}, **changes)
    done, num_all = zip(*counts, strict=True)
    assert list(done) == sorted({*done})
    assert {*num_all} == {done[-1]}
    folder, counted = tmp_path / "stopped", []
    folder.mkdir()
    callbacks = {"on_test": lambda *count: counted.append(count), "should_stop": lambda: len(counted) == 3}
    with pytest.raises(StoppedError, match="resume=True goes on from the last checkpoint"):
        tasks.run(folder, callbacks=callbacks, **changes)
    assert counted == counts[:3]
    resumed = tasks.run(folder, runs.load_progress(folder, CPU), **changes)
    assert dataclasses.replace(resumed, seconds=0.0) == dataclasses.replace(whole, seconds=0.0)
