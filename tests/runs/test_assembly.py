import dataclasses

import pytest
import torch

from bbb import runs
from bbb.networks import load_weights
from bbb.runs import assembly
from bbb.runs import tasks as task_data
from bbb.system import InputError
from tests import tasks
from tests.tasks import CPU, settings


def assemble(**changes):
    return runs.assemble(settings(**changes), CPU)


def test_fraction_never_cuts_validation_or_test():
    whole, part = (runs.load_task(settings(fraction=fraction), CPU) for fraction in (1.0, 0.1))
    assert torch.equal(whole.validation.images, part.validation.images)
    assert torch.equal(whole.test.images, part.test.images)
    assert len(part.train) == pytest.approx(0.1 * len(whole.train), abs=10)


def test_classes_are_kept_in_every_part():
    made = assemble(classes=[7, 3])
    for split in (made.task.train, made.task.validation, made.task.test):
        assert set(split.labels.tolist()) == {0, 1}
    assert made.architecture.sizes == (64, 16, 2)
    assert made.network_and_prior()[0].architecture.sizes == (64, 16, 2)


def test_the_seed_chooses_split_and_start():
    loaded = [runs.load_task(settings(seed=seed), CPU) for seed in (1, 1, 2)]
    assert torch.equal(loaded[0].train.images, loaded[1].train.images)
    assert not torch.equal(loaded[0].train.images, loaded[2].train.images)
    starts = [assemble(seed=seed).network_and_prior()[0].posterior.mean for seed in (1, 1, 2)]
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])


def test_two_runs_of_an_assembly_do_not_share_layers_that_are_not_bayesian(in_tmp):
    """The first trains them: the second starts anew, and ends the same."""
    (in_tmp / "net.py").write_text(
        "from torch import nn\n\n\ndef make(input_shape, num_outputs):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, num_outputs))\n"
    )
    made = assemble(network="net.py:make", deterministic=["1"])
    first, second = (made.network_and_prior()[0] for _ in range(2))
    before = [parameter.clone() for parameter in second.fixed.parameters()]
    with torch.no_grad():
        for parameter in first.fixed.parameters():
            parameter.add_(1.0)
    assert all(map(torch.equal, second.fixed.parameters(), before))
    results = [dataclasses.replace(runs.run(made), seconds=0.0) for _ in range(2)]
    assert results[0] == results[1]


def test_replicas_of_an_architecture_with_layers_that_are_not_bayesian_are_refused(in_tmp):
    (in_tmp / "net.py").write_text(
        "from torch import nn\nfrom bbb.networks import MLP\n\n\nclass Own(MLP):\n    fixed = nn.Linear(2, 2)\n\n\n"
        "def make(input_shape, num_outputs):\n    return Own((64, num_outputs))\n"
    )
    with pytest.raises(InputError, match=r"num_replicas=2: network=net.py:make has layers that are not Bayesian"):
        assemble(network="net.py:make", num_replicas=2)


def test_pretrained_weights_are_the_start(in_tmp):
    tasks.run(in_tmp)
    pretrained = str(in_tmp / "weights.safetensors")
    network, _ = assemble(pretrained=pretrained).network_and_prior()
    saved, _ = load_weights(in_tmp / "weights.safetensors")
    assert torch.equal(network.posterior.mean, saved.posterior.mean)
    epochs = []
    tasks.run(callbacks={"on_epoch": epochs.append}, pretrained=pretrained)
    assert epochs[0].train_accuracy > 0.5


def test_pretrained_weights_of_another_layout_are_refused(in_tmp):
    tasks.run(in_tmp)
    with pytest.raises(InputError, match=r"has layers of 64-16-10 units, the configuration asks for 64-32-10"):
        assemble(pretrained=str(in_tmp / "weights.safetensors"), num_hidden=32)


def test_pretrained_weights_with_other_flows_are_refused(in_tmp):
    tasks.run(in_tmp, num_flows=2)
    pretrained = str(in_tmp / "weights.safetensors")
    assemble(pretrained=pretrained, num_flows=2)
    message = r"64-16-10 units and 2 planar flows, the configuration asks for 64-16-10 units and 3 matrix_planar"
    with pytest.raises(InputError, match=message):
        assemble(pretrained=pretrained, num_flows=3, flow="matrix_planar")


def test_assembling_leaves_nothing_behind(in_tmp):
    assemble()
    runs.check_writable(in_tmp / "results")
    assert list(in_tmp.iterdir()) == []


@pytest.mark.parametrize("prior", ["gaussian", "scale_mixture"])
def test_prior_is_the_configured_one(prior):
    _, chosen = assemble(prior=prior, prior_std=0.5, prior_std1=0.5, prior_std2=0.5).network_and_prior()
    expected = torch.distributions.Normal(0.0, 0.5).log_prob(torch.ones(chosen.dim)).sum()
    torch.testing.assert_close(chosen.log_prob(torch.ones(1, chosen.dim))[0], expected)


@pytest.fixture
def loads(monkeypatch):
    """The names of the data sets that are loaded, each time."""
    names, load = [], assembly.load

    def watched(name, data_dir):
        names.append(name)
        return load(name, data_dir)

    for room in (assembly, task_data):
        monkeypatch.setattr(room, "load", watched)
    return names


def test_a_run_trains_on_what_was_assembled_and_loads_nothing_more(in_tmp, loads):
    made = assemble()
    assert loads == ["digits8x8"]
    runs.run(made, in_tmp)
    assert loads == ["digits8x8"]


def test_transfer_loads_the_test_set_of_the_source_and_nothing_more(in_tmp, loads):
    tasks.run(in_tmp, classes=[0, 1, 2, 3, 4])
    pretrained = str(in_tmp / "weights.safetensors")
    loads.clear()
    made = assemble(classes=[5, 6, 7, 8, 9], pretrained=pretrained, prior="posterior", prior_inflation="auto")
    assert loads == ["digits8x8"] * 2
    runs.run(made)
    assert loads == ["digits8x8"] * 2
    assert made.source.test.images.shape[1] == 64
    assert assemble(classes=[5, 6, 7, 8, 9], pretrained=pretrained).source.test is None
    assert loads == ["digits8x8"] * 3
