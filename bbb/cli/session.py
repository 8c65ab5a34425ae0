"""One training run from the command line: its folder, its record, its progress bar, and its end."""

import mimetypes
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sacred.run import Run
from tqdm import tqdm

from bbb import inference, runs, system
from bbb.cli.guarded import Guarded
from bbb.cli.options import Options
from bbb.cli.recorder import Recorder
from bbb.cli.signals import into_a_pipe, noticing_signals

if TYPE_CHECKING:  # it is loaded when a run begins
    import torch


@into_a_pipe()
def train(config: Mapping[str, Any], run: Run) -> dict[str, Any] | None:
    """Train on one task and evaluate, as a configuration says.

    Args:
        config: every key of ``configs/default.yaml``.
        run: Sacred's run, which logs the metrics.

    Returns:
        The result; None in all processes of a group but the first.

    Raises:
        SystemExit: user input cannot be used; the message has one line for each problem.
        bbb.system.StoppedError: Ctrl-C or SIGTERM.
    """
    recorder = next((observer for observer in run.observers if isinstance(observer, Recorder)), None)
    with system.refusing_bad_input(), system.enough_memory(), noticing_signals() as received:
        try:
            result = _train(config, run, recorder, received)
        except system.StoppedError as stopped:
            stopped.number = received[0] if received else signal.SIGTERM  # another process of the group received it
            raise
        if result is None:
            return None
        for line in runs.in_words(result):
            print(line)
        if recorder is not None and recorder.run_folder is not None:
            _add_artifacts(run, recorder.run_folder)
            runs.publish(recorder.run_folder)
            print(f"files: {', '.join(runs.PUBLISHED)} and the record in {recorder.run_folder}")
            print("all runs: python experiment.py runs, or in the browser: python experiment.py report")
    return result


def _train(
    config: Mapping[str, Any], run: Run, recorder: Recorder | None, received: list[int]
) -> dict[str, Any] | None:
    settings = runs.Settings.from_config(config)
    system.set_up(settings.num_threads, settings.precision)
    device = system.find_device(settings.device)
    state, assembly, folder = None, None, None
    if system.rank() == 0:  # only this process has a folder; it refuses for all
        state, assembly, folder = _start(config, settings, device, run, recorder)
    with system.joined(device) as group:
        state = group.from_first(state)
        if assembly is None:
            assembly = runs.assemble(settings, device, state["source"] if state else None)
        with _progress_bar(is_off=group.rank > 0) as bar:
            shown = Shown(bar, run, settings.num_epochs)
            result = runs.run(
                assembly,
                folder,
                state,
                on_choice=shown.step,
                on_step=shown.step,
                on_epoch=shown.epoch,
                on_test=shown.test,
                should_stop=lambda: bool(received),
                group=group,
            )
    return result.as_dict() if result is not None else None


def _start(
    config: Mapping[str, Any], settings: runs.Settings, device: "torch.device", run: Run, recorder: Recorder | None
) -> tuple[dict[str, Any] | None, "runs.Assembly", Path | None]:
    """Assemble a run, open its folder and start its record; returns its checkpoint too, if it is resumed."""
    state = None
    opened = recorder.open(settings.experiment_name) if recorder is not None else None
    if Options.of(run).resume:
        if opened is not None:
            opened.resume(config)
        state = runs.load_progress(opened.folder if opened is not None else None, device)
    assembly = runs.assemble(settings, device, state["source"] if state else None)
    if assembly.record is not None:
        run.info["source"] = assembly.record
    if files := runs.record_files(config):
        run.info["files"] = files
    report = assembly.pretrained.report if assembly.pretrained is not None else ()
    if report:
        run.info["matches"] = list(report)
    guarded = [observer for observer in run.observers if isinstance(observer, Guarded)]
    for observer in guarded:
        observer.begin()
    if recorder is not None:
        recorder.record(run.info)
    folder = opened.folder if opened is not None else None
    for observer in guarded:
        observer.folder = folder
    place = f", results in {folder}" if folder is not None else ""
    print(f"{settings.experiment_name}: {settings.dataset} on {device}{place}")
    for line in report:
        print(f"pretrained: {line}")
    return state, assembly, folder


def _add_artifacts(run: Run, folder: Path) -> None:
    """Hand the files of a completed run to all observers; our own record only lists them."""
    for name in runs.PUBLISHED:
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"  # Sacred would guess, and print its guess
        run.add_artifact(folder / name, content_type=kind)


class Shown:
    """What a run shows while it trains: the bar, a line for each epoch, and the metrics that Sacred logs.

    Args:
        bar: the bar; its first steps may be those of choosing an inflation, or those of a resumed run.
        run: Sacred's run.
        num_epochs: of the training.
    """

    def __init__(self, bar: "tqdm[Any]", run: Run, num_epochs: int) -> None:
        self.bar, self.run, self.num_epochs = bar, run, num_epochs

    def step(self, step: int, num_steps: int) -> None:
        """Move the bar; a count that begins anew begins a new bar."""
        if self.bar.total != num_steps or step < self.bar.n:
            self.bar.reset(num_steps)
            self.bar.initial = self.bar.n = step - 1
        self.bar.update()

    def test(self, num_images: int, num_all: int) -> None:
        """Move the bar while the trained posterior is tested."""
        if self.bar.total != num_all or num_images < self.bar.n:
            self.bar.set_description("test", refresh=False)
            self.bar.unit = " images"
            self.bar.reset(num_all)
        self.bar.update(num_images - self.bar.n)

    def epoch(self, epoch: "inference.Epoch") -> None:
        """Print and log an epoch."""
        self.bar.write(runs.describe(epoch, self.num_epochs), file=sys.stdout)
        log(self.run, epoch)


def log(run: Run, epoch: "inference.Epoch") -> None:
    """Log an epoch's metrics with Sacred, as ``train.nll`` and so on."""
    for name, value in runs.metrics(epoch).items():
        run.log_scalar(name, value, epoch.number)


@contextmanager
def _progress_bar(is_off: bool) -> Iterator["tqdm[Any]"]:
    """Show the steps and the time left, if the output goes to a terminal."""
    disable = True if is_off else None  # None: disabled if the output is not a terminal
    with tqdm(unit=" steps", file=sys.__stderr__, disable=disable, dynamic_ncols=True, mininterval=0.5) as bar:
        yield bar
