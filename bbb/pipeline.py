"""One experiment, from settings to result. Needs no Sacred: a notebook can call :func:`run`."""

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from bbb import checkpoint, data, evaluation, figures, machine, priors, runs, training
from bbb.data import Split
from bbb.network import BayesianMLP
from bbb.settings import Settings
from bbb.training import Epoch
from bbb.weights import WeightDistribution

_STREAMS = ("split", "fraction", "init", "order", "weights", "validation", "evaluation")


@dataclass(frozen=True)
class Task:
    """The data of an experiment, on its device."""

    train: Split
    validation: Split | None
    test: Split


@dataclass(frozen=True)
class Result:
    """What an experiment found; errors and ECE in %, NLL in nats per example, ELBO in nats per training example.

    ``seconds`` counts training, validation and testing, over all parts of a run that was resumed.
    """

    test_error: float
    test_nll: float
    test_brier: float
    test_ece: float
    test_error_mean_weights: float
    elbo: float
    kl: float
    num_epochs: int
    seconds: float

    def as_dict(self) -> dict[str, float]:
        """Return the result as a flat dictionary."""
        return asdict(self)


def check(settings: Settings, root: Path) -> None:
    """Find out, before any work starts, whether the things that settings name are there and sound.

    Args:
        settings: the configuration.
        root: the results folder.

    Raises:
        bbb.errors.InputError: the device, the data, the pretrained weights or the results folder cannot be used; the
            message says which, and what to do.
    """
    machine.find_device(settings.device)
    task = load_task(settings, torch.device("cpu"))
    create_network(settings, task, torch.device("cpu"), root)
    runs.check_writable(runs.experiment_folder(settings.experiment_name, root))


def run(
    settings: Settings,
    device: torch.device,
    folder: Path | None = None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    on_step: Callable[[int, int], None] = lambda step, num_steps: None,
    root: Path = Path(runs.RESULTS),
) -> Result:
    """Train and evaluate.

    Args:
        settings: the configuration.
        device: where to compute.
        folder: where ``log.txt``, ``weights.safetensors`` and ``training.png`` go, and a checkpoint after each epoch
            while it trains; None to leave no files.
        on_epoch: called with what each epoch measured, first with those before a resumption.
        on_step: called after each training step with the number done and the number in all.
        root: the results folder, in which ``pretrained`` is looked up.

    Returns:
        The scores on the test set, which is used here, once, after training.

    Raises:
        bbb.errors.InputError: as :func:`check`.
        bbb.training.DivergedError: the loss became NaN or infinite.
    """
    task = load_task(settings, device)
    network = create_network(settings, task, device, root)
    prior = create_prior(settings, network.posterior.dim, device)
    plan = settings.subset(training.Plan)
    process = training.Training(network, prior, task.train, task.validation, plan, _noise(settings, device))
    history = _resume(process, folder, device) if settings.resume else []
    for epoch in history:
        on_epoch(epoch)
    for epoch in process.fit(on_step):
        history.append(epoch)
        if folder is not None:
            _save_progress(folder, process, history)
        on_epoch(epoch)
    result = _evaluate(settings, task, network, prior, history)
    if folder is not None:
        _save_result(folder, settings, network, history, result)
    return result


def load_task(settings: Settings, device: torch.device) -> Task:
    """Load the data, keep the wanted classes, hold out validation, then keep the wanted share of the training set.

    Raises:
        bbb.data.DataError: the data are not there or damaged, or leave nothing to train on.
    """
    train, test = data.load(settings.dataset, data.data_root(settings.data_dir))
    train, test = (data.select(split, settings.digits) for split in (train, test))
    train, validation = data.hold_out(train, settings.validation_fraction, _generator(settings, "split"))
    train = data.subsample(train, settings.fraction, _generator(settings, "fraction"))
    return Task(train.to(device), validation.to(device) if validation is not None else None, test.to(device))


def create_network(settings: Settings, task: Task, device: torch.device, root: Path) -> BayesianMLP:
    """Create the network, at its random start or at pretrained weights.

    Raises:
        bbb.runs.ResultsError: there are no such pretrained weights.
        bbb.checkpoint.WeightsError: they are damaged, or of another layout than configured.
    """
    sizes = (task.train.images.shape[1], *[settings.num_hidden] * settings.num_layers, len(settings.digits))
    if settings.pretrained is None:
        generator = _generator(settings, "init")
        return BayesianMLP.initial(sizes, settings.init_std, generator, settings.num_flows, settings.flow).to(device)
    path = runs.find_weights(settings.pretrained, root)
    network, about = checkpoint.load_weights(path, device)
    there = _layout(network.sizes, about["num_flows"], about["flow"])
    wanted = _layout(sizes, settings.num_flows, settings.flow)
    if there != wanted:
        raise checkpoint.WeightsError(
            f"pretrained={settings.pretrained!r}: {path} has layers of {there}, the configuration asks for {wanted}; "
            "change num_layers, num_hidden, dataset, digits, num_flows or flow"
        )
    return network


def _layout(sizes: Sequence[int], num_flows: int, flow: str | None) -> str:
    """Put what must agree between weights and a configuration into words."""
    units = f"{'-'.join(map(str, sizes))} units"
    return f"{units} and {num_flows} {flow} flows" if num_flows else units


def create_prior(settings: Settings, dim: int, device: torch.device) -> WeightDistribution:
    """Create the prior over ``dim`` weights that settings ask for."""
    if settings.prior == "gaussian":
        return priors.gaussian(dim, settings.prior_std, device)
    return priors.scale_mixture(dim, settings.prior_pi, settings.prior_std1, settings.prior_std2)


def _resume(process: training.Training, folder: Path | None, device: torch.device) -> list[Epoch]:
    """Take a training to its last checkpoint, and return the epochs measured until then."""
    if folder is None or not (folder / runs.CHECKPOINT).is_file():
        raise runs.ResultsError(f"resume=True: there is no checkpoint in {folder}")
    state = checkpoint.load_state(folder / runs.CHECKPOINT, device)
    process.load_state_dict(state)
    return [Epoch(**epoch) for epoch in state["history"]]


def _save_progress(folder: Path, process: training.Training, history: list[Epoch]) -> None:
    """Save the state first: a log line is written for epochs that are safe."""
    state = {**process.state_dict(), "history": [asdict(epoch) for epoch in history]}
    checkpoint.save_state(folder / runs.CHECKPOINT, state)
    lines = [describe(epoch, process.plan.num_epochs) for epoch in history]
    runs.write_aside(folder / "log.txt", "".join(f"{line}\n" for line in lines).encode())


def _save_result(folder: Path, settings: Settings, network: BayesianMLP, history: list[Epoch], result: Result) -> None:
    about = {"dataset": settings.dataset, "digits": list(settings.digits)}
    checkpoint.save_weights(folder / runs.WEIGHTS, network, about)
    title = f"{settings.experiment_name}: test error {result.test_error:.2f} %, NLL {result.test_nll:.4f}"
    save_figure(folder / "training.png", figures.training_curves(history, title))
    (folder / runs.CHECKPOINT).unlink()


def describe(epoch: Epoch, num_epochs: int) -> str:
    """Put what an epoch measured into one readable line."""
    line = (
        f"epoch {epoch.number:>{len(str(num_epochs))}}/{num_epochs} | train {100 * epoch.train_accuracy:.2f} %, "
        f"NLL {epoch.train_nll:.4f}, KL {epoch.train_kl:.4g}, ELBO {epoch.train_elbo:.4f}"
    )
    if epoch.validation_accuracy is not None:
        line += f" | validation {100 * epoch.validation_accuracy:.2f} %, NLL {epoch.validation_nll:.4f}"
    return f"{line} | {epoch.seconds:.1f} s"


def save_figure(path: Path, figure: Figure) -> None:
    """Write a figure aside and move it into place."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=120, format="png")
    runs.write_aside(path, buffer.getvalue())


def _noise(settings: Settings, device: torch.device) -> training.Noise:
    return training.Noise(
        order=_generator(settings, "order"),
        weights=_generator(settings, "weights", device),
        validation_seed=_seed(settings, "validation"),
    )


def _evaluate(
    settings: Settings, task: Task, network: BayesianMLP, prior: WeightDistribution, history: list[Epoch]
) -> Result:
    start = time.perf_counter()
    generator = _generator(settings, "evaluation", task.test.labels.device)
    log_probs = evaluation.predict(network, task.test.images, settings.num_test_samples, generator)
    scores = evaluation.metrics(log_probs, task.test.labels)
    mean_accuracy, _ = evaluation.accuracy_and_nll(
        evaluation.predict_with_mean(network, task.test.images), task.test.labels
    )
    elbo, kl = evaluation.elbo(network, prior, task.train, settings.num_validation_samples, generator)
    return Result(
        **scores.as_dict("test_"),
        test_error_mean_weights=100.0 * (1.0 - mean_accuracy),
        elbo=elbo,
        kl=kl,
        num_epochs=len(history),
        seconds=sum(epoch.seconds for epoch in history) + time.perf_counter() - start,
    )


def _seed(settings: Settings, stream: str) -> int:
    """Derive the seed of one random stream, independent of the others."""
    return int(np.random.SeedSequence([settings.seed, _STREAMS.index(stream)]).generate_state(1, np.uint64)[0] >> 1)


def _generator(settings: Settings, stream: str, device: torch.device | None = None) -> torch.Generator:
    return torch.Generator(device or torch.device("cpu")).manual_seed(_seed(settings, stream))
