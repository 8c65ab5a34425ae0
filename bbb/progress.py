"""The progress of a run on disk: saved while it trains, so that it can be stopped at any instant and resumed."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import torch

from bbb import checkpoint, runs
from bbb.files import write_aside
from bbb.training import Epoch, Training


class Stopped(KeyboardInterrupt):
    """The run was asked to stop; ``saved`` tells whether it can be resumed."""

    saved = False


class Progress:
    """A training whose state is saved: at its start, after each epoch, at times within one, and where it is stopped.

    Args:
        process: the training.
        folder: the run's folder, or None to save nothing.
        about: what was chosen before training, and is needed to resume: ``prior_inflation`` and ``source``.
        minutes: after how many the state is saved within an epoch.
    """

    def __init__(self, process: Training, folder: Path | None, about: Mapping[str, object], minutes: float) -> None:
        self.process, self.folder, self.about, self.minutes = process, folder, about, minutes
        self.history: list[Epoch] = []
        self.saved_at = time.monotonic()

    def restore(self, state: Mapping[str, object]) -> None:
        """Go to where a checkpoint was saved.

        Raises:
            bbb.checkpoint.StateError: the checkpoint is that of another training.
        """
        try:
            self.process.load_state_dict(state)
            self.history = [Epoch(**epoch) for epoch in state["history"]]
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError):
            raise checkpoint.StateError(
                f"{self.folder / runs.CHECKPOINT}: the checkpoint of another training"
            ) from None

    def save(self) -> None:
        """Save the state, and then the log: a line is written for epochs that are safe."""
        if self.folder is not None:
            state = {**self.process.state_dict(), **self.about, "history": [asdict(epoch) for epoch in self.history]}
            checkpoint.save_state(self.folder / runs.CHECKPOINT, state)
            lines = [describe(epoch, self.process.plan.num_epochs) for epoch in self.history]
            write_aside(self.folder / "log.txt", "".join(f"{line}\n" for line in lines).encode())
        self.saved_at = time.monotonic()

    def train(self, on_epoch: Callable[[Epoch], None], on_step: Callable[[int, int], None]) -> list[Epoch]:
        """Train to the end.

        Args:
            on_epoch: called with what each epoch measured, first with those before a resumption.
            on_step: called after each step with the number done and the number in all; may raise :class:`Stopped`.

        Returns:
            What all epochs measured.
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
        except Stopped as stopped:
            self.save()
            stopped.saved = self.folder is not None
            raise
        return self.history


def load(folder: Path | None, device: torch.device) -> dict[str, object]:
    """Read the last checkpoint of a run: the training's state, and what was chosen before it.

    Raises:
        bbb.checkpoint.StateError: there is none, or it is damaged.
    """
    if folder is None:
        raise checkpoint.StateError("resume=True: without files there is nothing to resume from")
    state = checkpoint.load_state(folder / runs.CHECKPOINT, device)
    if not isinstance(state, dict) or not {"history", "prior_inflation", "source"} <= state.keys():
        raise checkpoint.StateError(f"{folder / runs.CHECKPOINT}: not the checkpoint of a run")
    return state


def describe(epoch: Epoch, num_epochs: int) -> str:
    """Put what an epoch measured into one readable line."""
    line = (
        f"epoch {epoch.number:>{len(str(num_epochs))}}/{num_epochs} | train {100 * epoch.train_accuracy:.2f} %, "
        f"NLL {epoch.train_nll:.4f}, KL {epoch.train_kl:.4g}, ELBO {epoch.train_elbo:.4f}"
    )
    if epoch.validation_accuracy is not None:
        line += f" | validation {100 * epoch.validation_accuracy:.2f} %, NLL {epoch.validation_nll:.4f}"
    return f"{line} | {epoch.seconds:.3f} s"
