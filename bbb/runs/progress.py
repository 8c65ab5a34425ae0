"""The progress of a run on disk: saved while it trains, so that it can be stopped at any instant and resumed."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from bbb.inference import Epoch, Training
from bbb.runs.checkpoint import StateError, load_state, save_state
from bbb.runs.folders import CHECKPOINT, RESUMABLE
from bbb.system import StoppedError, write_aside


class Progress:
    """A training whose state is saved: at the start, after each epoch, at intervals within one, and when stopped.

    Args:
        process: the training.
        folder: the run's folder, or None to save nothing.
        about: what was chosen before training, and is needed to resume: ``prior_inflation`` and ``source``.
        minutes: the interval at which the state is saved within an epoch.
    """

    def __init__(self, process: Training, folder: Path | None, about: Mapping[str, Any], minutes: float) -> None:
        self.process, self.folder, self.about, self.minutes = process, folder, about, minutes
        self.history: list[Epoch] = []
        self.saved_at = time.monotonic()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore the state of a checkpoint.

        Raises:
            bbb.runs.StateError: the checkpoint belongs to another training.
        """
        try:
            self.process.load_state_dict(state)
            self.history = [Epoch(**epoch) for epoch in state["history"]]
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError):
            where = "checkpoint" if self.folder is None else self.folder / CHECKPOINT
            raise StateError(f"{where}: the checkpoint of another training") from None

    def save(self) -> None:
        """Save the state, then the log, so that the log has only epochs whose state is saved."""
        if self.folder is not None:
            state = {**self.process.state_dict(), **self.about, "history": [asdict(epoch) for epoch in self.history]}
            save_state(self.folder / CHECKPOINT, state)
            lines = [describe(epoch, self.process.plan.num_epochs) for epoch in self.history]
            write_aside(self.folder / "log.txt", "".join(f"{line}\n" for line in lines).encode())
        self.saved_at = time.monotonic()

    def train(self, on_epoch: Callable[[Epoch], None], on_step: Callable[[int, int], None]) -> list[Epoch]:
        """Train to the end.

        Args:
            on_epoch: called with the metrics of each epoch; a resumed run starts with those of the earlier epochs.
            on_step: called after each step with the number done and the number in all; may raise
                :class:`bbb.system.StoppedError`.

        Returns:
            The metrics of all epochs.
        """
        for epoch in self.history:
            on_epoch(epoch)

        def after_step(step: int, num_steps: int) -> None:
            on_step(step, num_steps)
            if time.monotonic() - self.saved_at > 60.0 * self.minutes:
                self.save()

        try:
            for epoch in self.process.fit(after_step):
                self.history.append(epoch)
                self.save()
                on_epoch(epoch)
        except StoppedError as stopped:
            self.save()
            if self.folder is not None:
                stopped.what_next = RESUMABLE
            raise
        return self.history


def load_progress(folder: Path | None, device: torch.device) -> dict[str, Any]:
    """Read the last checkpoint of a run: the training's state, and what was chosen before it.

    Raises:
        bbb.runs.StateError: there is none, or it is damaged.
    """
    if folder is None:
        raise StateError("resume=True: without files there is nothing to resume from")
    state = load_state(folder / CHECKPOINT, device)
    if not isinstance(state, dict) or not {"history", "prior_inflation", "source"} <= state.keys():
        raise StateError(f"{folder / CHECKPOINT}: not the checkpoint of a run")
    return state


def metrics(epoch: Epoch) -> dict[str, float]:
    """Name the metrics of an epoch as ``train.nll`` and so on, without those that do not apply."""
    measured = {"train": ("nll", "kl", "elbo", "accuracy", "rmse"), "validation": ("accuracy", "rmse", "nll")}
    named = {f"{part}.{name}": getattr(epoch, f"{part}_{name}") for part, names in measured.items() for name in names}
    named["train.seconds"] = epoch.seconds
    return {name: value for name, value in named.items() if value is not None}


def describe(epoch: Epoch, num_epochs: int) -> str:
    """Format the metrics of an epoch as one line."""
    train = _score(epoch.train_accuracy, epoch.train_rmse)
    line = f"epoch {epoch.number:>{len(str(num_epochs))}}/{num_epochs} | train {train}, NLL {epoch.train_nll:.4f}"
    if epoch.train_kl is not None:
        line += f", KL {epoch.train_kl:.4g}, ELBO {epoch.train_elbo:.4f}"
    if epoch.validation_nll is not None:
        validation = _score(epoch.validation_accuracy, epoch.validation_rmse)
        line += f" | validation {validation}, NLL {epoch.validation_nll:.4f}"
    return f"{line} | {epoch.seconds:.3f} s"


def _score(accuracy: float | None, rmse: float | None) -> str:
    return f"RMSE {rmse:.4g}" if accuracy is None else f"{100 * accuracy:.2f} %"
