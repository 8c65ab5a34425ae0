import dataclasses

import pytest
import torch
import yaml

from bbb import assembly, checkpoint, evaluation, pipeline, progress, runs, transfer
from bbb.errors import InputError
from bbb.settings import Settings
from tests.conftest import REPOSITORY

DEFAULT = yaml.safe_load((REPOSITORY / "configs" / "default.yaml").read_text())
CPU = torch.device("cpu")


def settings(**changes):
    tiny = {
        "dataset": "digits8x8",
        "num_epochs": 2,
        "lr": 0.02,
        "num_hidden": 16,
        "num_layers": 1,
        "num_test_samples": 5,
    }
    return Settings.from_config({**DEFAULT, **tiny, **changes})


def test_runs_without_a_folder_and_repeats_exactly(in_tmp):
    first, second = (pipeline.run(settings(), CPU) for _ in range(2))
    assert dataclasses.replace(first, seconds=0.0) == dataclasses.replace(second, seconds=0.0)
    assert list(in_tmp.iterdir()) == []
    assert first.num_epochs == 2
    assert 0 < first.test_error < 75  # chance is 90


def test_leaves_log_weights_and_plot(in_tmp):
    epochs = []
    result = pipeline.run(settings(), CPU, in_tmp, on_epoch=epochs.append)
    runs.finish(in_tmp)
    assert {path.name for path in in_tmp.iterdir()} == {"log.txt", "weights.safetensors", "training.png"}
    lines = (in_tmp / "log.txt").read_text().splitlines()
    assert lines == [progress.describe(epoch, 2) for epoch in epochs]
    assert (in_tmp / "training.png").read_bytes().startswith(b"\x89PNG")
    network, about = checkpoint.load_weights(in_tmp / "weights.safetensors")
    assert about["dataset"] == "digits8x8"
    test = assembly.load_task(settings(), CPU).test
    accuracy, _ = evaluation.accuracy_and_nll(evaluation.predict_with_mean(network, test.images), test.labels)
    assert result.test_error_mean_weights == pytest.approx(100 * (1 - accuracy))


def test_fraction_never_cuts_validation_or_test():
    whole, part = (assembly.load_task(settings(fraction=fraction), CPU) for fraction in (1.0, 0.1))
    assert torch.equal(whole.validation.images, part.validation.images)
    assert torch.equal(whole.test.images, part.test.images)
    assert len(part.train) == pytest.approx(0.1 * len(whole.train), abs=10)


def test_digits_are_kept_in_every_part():
    task = assembly.load_task(settings(digits=[7, 3]), CPU)
    for split in (task.train, task.validation, task.test):
        assert set(split.labels.tolist()) == {0, 1}
    assert assembly.create(settings(digits=[7, 3]), task)[0].sizes == (64, 16, 2)


def test_the_seed_chooses_split_and_start():
    tasks = [assembly.load_task(settings(seed=seed), CPU) for seed in (1, 1, 2)]
    assert torch.equal(tasks[0].train.images, tasks[1].train.images)
    assert not torch.equal(tasks[0].train.images, tasks[2].train.images)


def test_training_on_everything(in_tmp):
    epochs = []
    pipeline.run(settings(validation_fraction=0.0), CPU, in_tmp, on_epoch=epochs.append)
    assert epochs[0].validation_accuracy is None
    assert "validation" not in (in_tmp / "log.txt").read_text()


def test_pretrained_weights_are_the_start(in_tmp):
    pipeline.run(settings(), CPU, in_tmp)
    task = assembly.load_task(settings(), CPU)
    pretrained = settings(pretrained=str(in_tmp / "weights.safetensors"))
    network, _ = assembly.create(pretrained, task, assembly.load_source(pretrained, in_tmp))
    saved, _ = checkpoint.load_weights(in_tmp / "weights.safetensors")
    assert torch.equal(network.posterior.mean, saved.posterior.mean)
    epochs = []
    pipeline.run(pretrained, CPU, on_epoch=epochs.append)
    assert epochs[0].train_accuracy > 0.5


def test_pretrained_weights_of_another_layout_are_refused(in_tmp):
    pipeline.run(settings(), CPU, in_tmp)
    other = settings(pretrained=str(in_tmp / "weights.safetensors"), num_hidden=32)
    with pytest.raises(InputError, match=r"has layers of 64-16-10 units, the configuration asks for 64-32-10"):
        pipeline.check(other, in_tmp)


def test_pretrained_weights_with_other_flows_are_refused(in_tmp):
    pipeline.run(settings(num_flows=2), CPU, in_tmp)
    pretrained = str(in_tmp / "weights.safetensors")
    pipeline.check(settings(pretrained=pretrained, num_flows=2), in_tmp)
    message = r"64-16-10 units and 2 planar flows, the configuration asks for 64-16-10 units and 3 matrix_planar"
    with pytest.raises(InputError, match=message):
        pipeline.check(settings(pretrained=pretrained, num_flows=3, flow="matrix_planar"), in_tmp)


def test_check_leaves_nothing_behind(in_tmp):
    pipeline.check(settings(), in_tmp / "results")
    assert list(in_tmp.iterdir()) == []


@pytest.mark.parametrize("prior", ["gaussian", "scale_mixture"])
def test_prior_is_the_configured_one(prior):
    chosen = assembly.create_prior(settings(prior=prior, prior_std=0.5, prior_std1=0.5, prior_std2=0.5), 3, CPU)
    expected = torch.distributions.Normal(0.0, 0.5).log_prob(torch.ones(3)).sum()
    torch.testing.assert_close(chosen.log_prob(torch.ones(1, 3))[0], expected)


def test_transfer_with_auto_resumes_bit_identical_without_choosing_again(in_tmp):
    half = {"digits": [0, 1, 2, 3, 4], "num_epochs": 1, "experiment_name": "a"}
    (in_tmp / "a").mkdir()
    pipeline.run(settings(**half), CPU, in_tmp / "a", root=in_tmp)
    target = {"digits": [5, 6, 7, 8, 9], "pretrained": "a", "prior": "posterior", "prior_inflation": "auto"}
    choices, folders = [], [in_tmp / "whole", in_tmp / "parts"]
    for folder in folders:
        folder.mkdir()

    def stop(epoch):
        raise KeyboardInterrupt

    def count(step, num_steps):
        choices.append(step)

    whole = pipeline.run(settings(**target), CPU, folders[0], on_choice=count, root=in_tmp)
    num_choices = len(choices)
    assert num_choices > 0
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(settings(**target), CPU, folders[1], on_epoch=stop, on_choice=count, root=in_tmp)
    parts = pipeline.run(settings(**target, resume=True), CPU, folders[1], on_choice=count, root=in_tmp)
    assert len(choices) == 2 * num_choices
    assert dataclasses.replace(parts, seconds=0.0) == dataclasses.replace(whole, seconds=0.0)
    assert parts.prior_inflation in transfer.INFLATIONS
    networks = [checkpoint.load_weights(folder / "weights.safetensors")[0] for folder in folders]
    assert torch.equal(networks[0].posterior.mean, networks[1].posterior.mean)
