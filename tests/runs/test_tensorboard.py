"""TensorBoard's event files: what they hold, that resuming doubles nothing, and that training does not notice them."""

import dataclasses

import pytest
import torch

from bbb import runs
from bbb.distributions import Gaussian, join
from bbb.inference import Epoch
from bbb.networks import BayesianNetwork
from bbb.runs import SettingsError
from bbb.runs.tensorboard import MOST_HISTOGRAMS, MOST_WEIGHTS, Board, open_board, posterior_parts
from bbb.system import StoppedError, StorageError
from tests import tasks

METRICS = {"train.nll", "train.kl", "train.elbo", "train.accuracy", "train.seconds"}
METRICS |= {"validation.accuracy", "validation.nll"}
FIRST, LAST = tasks.TOY.names
PARTS = {f"{kind}/{layer}" for kind in ("mean", "std") for layer in (FIRST, LAST)}


@pytest.fixture(autouse=True)
def _installed():
    pytest.importorskip("tensorboard")


def events_of(folder):
    """What TensorBoard itself reads."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "histograms": 0})
    events.Reload()
    return events


def steps_of(events, tag):
    return [event.step for event in events.Scalars(tag)]


def test_the_files_hold_metrics_scores_histograms_and_the_configuration(tmp_path):
    epochs, networks = [], []
    keep = Board.epoch

    def watch(board, epoch, network):
        networks.append(network.posterior.frozen())
        keep(board, epoch, network)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Board, "epoch", watch)
        result = tasks.run(tmp_path, callbacks={"on_epoch": epochs.append}, tensorboard=True).as_dict()
    events = events_of(tmp_path)
    assert {*events.Tags()["scalars"]} == METRICS | result.keys()
    for epoch in epochs:
        for name, value in runs.metrics(epoch).items():
            (written,) = (event.value for event in events.Scalars(name) if event.step == epoch.number)
            assert written == pytest.approx(value, rel=1e-6), name
    for name, value in result.items():
        (event,) = events.Scalars(name)
        assert (event.step, event.value) == (2, pytest.approx(value, rel=1e-6))
    assert {*events.Tags()["histograms"]} == PARTS
    for step, q in enumerate(networks, start=1):
        for tag, exact in ((f"mean/{FIRST}", q.mean[: 64 * 16 + 16]), (f"std/{LAST}", q.log_std[64 * 16 + 16 :].exp())):
            (histogram,) = (event.histogram_value for event in events.Histograms(tag) if event.step == step)
            assert histogram.num == len(exact)
            assert histogram.sum == pytest.approx(exact.double().sum().item(), rel=1e-4)
            assert histogram.max == pytest.approx(exact.max().item(), rel=1e-6)
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    hparams = HParamsPluginData.FromString(content).session_start_info.hparams
    assert hparams.keys() == {*tasks.DEFAULT, "seed"}
    assert (hparams["lr"].number_value, hparams["prior"].string_value) == (0.02, "gaussian")


def stopped_after(folder, num_epochs, **changes):
    """Run and press Ctrl-C after some epochs."""
    done = []
    callbacks = {"on_epoch": done.append, "should_stop": lambda: len(done) == num_epochs}
    with pytest.raises(StoppedError):
        tasks.run(folder, callbacks=callbacks, num_epochs=4, **changes)


def resume(folder, **changes):
    state = runs.load_progress(folder, tasks.CPU)
    return tasks.run(folder, state, num_epochs=4, **changes)


@pytest.mark.parametrize("cut", [None, 7])
def test_a_resumed_run_goes_on_without_doubled_or_missing_steps(tmp_path, cut):
    """Also after a kill in the middle of an epoch's events."""
    stopped_after(tmp_path, 2, tensorboard=True)
    if cut:
        (path,) = (tmp_path / "tensorboard").iterdir()
        content = path.read_bytes()
        path.write_bytes(content[: content.rindex(b"train.seconds") + cut])
    resume(tmp_path, tensorboard=True)
    events = events_of(tmp_path)
    for name in METRICS:
        assert steps_of(events, name) == [1, 2, 3, 4], name
    assert steps_of(events, "test_error") == [4]
    assert [event.step for event in events.Histograms(f"std/{FIRST}")] == ([1, 3, 4] if cut else [1, 2, 3, 4])


def test_a_run_that_takes_tensorboard_when_it_is_resumed_has_all_metrics(tmp_path):
    stopped_after(tmp_path, 2)
    resume(tmp_path, tensorboard=True)
    assert steps_of(events_of(tmp_path), "train.nll") == [1, 2, 3, 4]
    assert [event.step for event in events_of(tmp_path).Histograms(f"mean/{FIRST}")] == [3, 4]


def test_a_run_that_is_ended_twice_has_its_scores_once(tmp_path):
    for scores in ({"test_error": 1.0}, {"test_error": 1.0}):
        with open_board(tasks.settings(tensorboard=True), tmp_path, 0) as board:
            board.end(scores)
    assert steps_of(events_of(tmp_path), "test_error") == [2]


def test_training_does_not_notice(tmp_path):
    for name, is_on in (("with", True), ("without", False)):
        (tmp_path / name).mkdir()
        tasks.run(tmp_path / name, tensorboard=is_on)
    tasks.assert_same_weights(tmp_path / "with", tmp_path / "without")
    assert not (tmp_path / "without" / "tensorboard").exists()


def test_histograms_are_few_however_long_the_run(tmp_path, monkeypatch):
    from torch.utils.tensorboard import SummaryWriter

    steps = []
    monkeypatch.setattr(SummaryWriter, "add_histogram", lambda self, tag, values, step: steps.append(step))
    epoch = Epoch(1, 0.0, 0.0, 0.0, 0.0, None, None, 0.0)
    with open_board(tasks.settings(tensorboard=True, num_epochs=1003), tmp_path, 0) as board:
        for number in range(1, 1004):
            board.epoch(dataclasses.replace(epoch, number=number), tasks.network())
    chosen = sorted({*steps})
    assert (chosen[0], chosen[-1]) == (1, 1003)
    assert MOST_HISTOGRAMS <= len(chosen) <= MOST_HISTOGRAMS + 2


def test_histograms_are_thinned_evenly():
    values = torch.arange(3 * MOST_WEIGHTS + 1).float()
    q = Gaussian(values, torch.zeros_like(values))

    class Wide:
        names, layers = ("a",), (type("", (), {"dim": len(values)}),)

    network = type("", (), {"architecture": Wide, "posterior": q})
    part = posterior_parts(network)["mean/a"]
    assert len(part) == MOST_WEIGHTS
    assert (part[0], part[-1]) == (0, len(values) - 1)
    assert part.diff().min() > 0
    assert part.mean() == pytest.approx(values.mean().item(), rel=1e-3)


@pytest.mark.parametrize("num_flows", [0, 2])
def test_every_posterior_of_a_run_has_its_parts(num_flows):
    network = tasks.network(0, num_flows)
    base = network.posterior.base if num_flows else network.posterior
    parts = posterior_parts(network)
    assert torch.equal(torch.cat([parts[f"mean/{FIRST}"], parts[f"mean/{LAST}"]]), base.mean)
    assert torch.allclose(torch.cat([parts[f"std/{FIRST}"], parts[f"std/{LAST}"]]).log(), base.log_std)
    head, rest = network.split_head()
    flowed = tasks.network(0, 2).split_head()[0]
    joined = posterior_parts(BayesianNetwork(network.architecture, join(flowed if not num_flows else head.base, rest)))
    assert len(joined[f"mean/{FIRST}"]) == len(parts[f"mean/{FIRST}"])


def test_replicas_are_counted_together(tmp_path):
    tasks.run(tmp_path, tensorboard=True, num_replicas=2)
    (first, _) = events_of(tmp_path).Histograms(f"mean/{FIRST}")
    assert first.histogram_value.num == 2 * (64 * 16 + 16)


def test_without_its_package_the_run_is_refused(monkeypatch):
    monkeypatch.setattr("bbb.runs.tensorboard.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match="tensorboard=True: needs what is not installed; run: pip install tensorb"):
        runs.assemble(tasks.settings(tensorboard=True), tasks.CPU)
    runs.assemble(tasks.settings(), tasks.CPU)


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "tensorboard").write_text("a file")
    with pytest.raises(StorageError, match="tensorboard: cannot be written"):
        tasks.run(tmp_path, tensorboard=True)
