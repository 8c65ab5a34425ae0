"""One experiment, from settings to result. Needs no Sacred: a notebook can call :func:`run`."""

import io
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from matplotlib.figure import Figure

from bbb import checkpoint, evaluation, figures, machine, progress, runs, training, transfer, uncertainty
from bbb.assembly import Source, Task, create, generator, load_source, load_source_test, load_task, stream_seed
from bbb.files import write_aside
from bbb.network import BayesianMLP
from bbb.parallel import ALONE, Group
from bbb.settings import Settings
from bbb.training import Epoch
from bbb.weights import WeightDistribution


@dataclass(frozen=True)
class Result:
    """What an experiment found; errors and ECE in %, NLL in nats per example, ELBO in nats per training example.

    ``seconds`` counts training, validation and testing, over all parts of a run that was resumed. Of several replicas,
    the test scores are those of their ensemble, ``elbo``, ``kl`` and ``test_error_mean_weights`` are means, and
    ``replicas`` has each one's own. Under
    ``prior=posterior``, ``prior_inflation`` is the factor used, and ``source_error`` what the hidden layers still reach
    on the source's test set under the source's head.
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
    prior_inflation: float | None = None
    source_error: float | None = None
    replicas: list[dict[str, float]] | None = None

    def as_dict(self) -> dict[str, object]:
        """Return the result as a dictionary, without what does not apply."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def check(settings: Settings, root: Path, resumed: Path | None = None) -> None:
    """Find out, before any work starts, whether the things that settings name are there and sound.

    Args:
        settings: the configuration.
        root: the results folder.
        resumed: the folder of the run to resume.

    Raises:
        bbb.errors.InputError: the device, the data, the pretrained weights, the results folder or the checkpoint cannot
            be used; the message says which, and what to do.
    """
    device = machine.find_device(settings.device)
    task = load_task(settings, torch.device("cpu"))
    state = progress.load(resumed, device) if resumed else None
    source = load_source(settings, root, started_with=state["source"] if state else None)
    create(settings, task, source)
    if settings.prior == "posterior":
        load_source_test(settings, source, torch.device("cpu"))
    runs.check_writable(runs.experiment_folder(settings.experiment_name, root))


def run(
    settings: Settings,
    device: torch.device,
    folder: Path | None = None,
    *,
    on_source: Callable[[dict[str, str]], None] = lambda record: None,
    on_choice: Callable[[int, int], None] = lambda step, num_steps: None,
    on_step: Callable[[int, int], None] = lambda step, num_steps: None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    should_stop: Callable[[], bool] = lambda: False,
    root: Path = Path(runs.RESULTS),
    group: Group = ALONE,
) -> Result | None:
    """Train and evaluate.

    Args:
        settings: the configuration.
        device: where to compute.
        folder: where ``log.txt``, ``weights.safetensors`` and ``training.png`` go, and a checkpoint, which stays until
            :func:`bbb.runs.finish` says that the result is safe too; None to leave no files.
        on_source: called with the path and the SHA-256 of the weights that ``pretrained`` names.
        on_choice: called after each step of choosing ``prior_inflation=auto``, with the number done and that of all.
        on_step: the same while training.
        on_epoch: called with what each epoch measured, first with those before a resumption.
        should_stop: asked after each step; where it says so, the state is saved and the run ends by an exception.
        root: the results folder, in which ``pretrained`` is looked up.
        group: the processes that train together; all call this function, and the first alone validates, tests and has a
            folder.

    Returns:
        The scores on the test set, which is used here, once, after training; None but in the first of a group.

    Raises:
        bbb.errors.InputError: as :func:`check`.
        bbb.training.DivergedError: the loss became NaN or infinite.
        bbb.progress.Stopped: ``should_stop`` said so, in any process of the group.
        bbb.parallel.LostError: another process of the group is gone.
    """
    is_first = group.rank == 0
    state = group.from_first(progress.load(folder, device) if settings.resume and is_first else None)
    task = load_task(settings, device)
    source = load_source(settings, root, device, state["source"] if state else None)
    if source is not None:
        on_source(source.record)
    on_choice, on_step = (partial(_tell, report, lambda: group.any(should_stop())) for report in (on_choice, on_step))
    inflation = state["prior_inflation"] if state else _choose_inflation(settings, task, source, on_choice)
    inflation = group.from_first(inflation)
    network, prior = create(settings, task, source, inflation)
    plan = settings.subset(training.Plan)
    validation = task.validation if is_first else None
    process = training.Training(network, prior, task.train, validation, plan, _noises(settings, device), group)
    about = {"prior_inflation": inflation, "source": source.record if source else None}
    kept = progress.Progress(process, folder, about, settings.checkpoint_minutes)
    if state:
        kept.restore(state)
    else:
        kept.save()
    history = kept.train(on_epoch, on_step)
    if not is_first:
        return None
    result = _evaluate(settings, task, network, prior, history)
    if settings.prior == "posterior":
        error = _source_error(settings, source, network, device)
        result = replace(result, prior_inflation=inflation, source_error=error)
    if folder is not None:
        _save_result(folder, settings, source, network, history, result)
    return result


def _tell(report: Callable[[int, int], None], should_stop: Callable[[], bool], step: int, num_steps: int) -> None:
    """Report a step that is done, then stop if that is wanted."""
    report(step, num_steps)
    if should_stop():
        raise progress.Stopped


def _choose_inflation(
    settings: Settings, task: Task, source: Source | None, on_step: Callable[[int, int], None]
) -> float:
    """The factor on the variances of a posterior that is the prior: as configured, or chosen on the training data."""
    if settings.prior != "posterior":
        return 1.0
    if settings.prior_inflation != "auto":
        return settings.prior_inflation
    plan, seed = settings.subset(training.Plan), stream_seed(settings, "inflation")
    return transfer.choose_inflation(task.train, partial(create, settings, task, source), plan, seed, on_step)[0]


def _source_error(settings: Settings, source: Source, network: BayesianMLP, device: torch.device) -> float | None:
    """What is left of the source task, where the weights file tells what it was."""
    test = load_source_test(settings, source, device)
    if test is None:
        return None
    draws = generator(settings, "source", device)
    return transfer.source_error(network, source.network, test, settings.num_test_samples, draws)


def _save_result(
    folder: Path,
    settings: Settings,
    source: Source | None,
    network: BayesianMLP,
    history: list[Epoch],
    result: Result,
) -> None:
    about = {"dataset": settings.dataset, "digits": list(settings.digits), "rotation": settings.rotation}
    about["source"] = source.record if source is not None else None
    checkpoint.save_weights(folder / runs.WEIGHTS, network, about)
    title = f"{settings.experiment_name}: test error {result.test_error:.2f} %, NLL {result.test_nll:.4f}"
    save_figure(folder / "training.png", figures.training_curves(history, title))


def save_figure(path: Path, figure: Figure) -> None:
    """Write a figure aside and move it into place."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=120, format="png")
    write_aside(path, buffer.getvalue())


def _noises(settings: Settings, device: torch.device) -> list[training.Noise]:
    """Create the random streams of each replica."""
    return [
        training.Noise(
            order=generator(settings, "order", replica=replica),
            weights=generator(settings, "weights", device, replica),
            validation_seed=stream_seed(settings, "validation", replica),
        )
        for replica in range(settings.num_replicas)
    ]


def _evaluate(
    settings: Settings, task: Task, network: BayesianMLP, prior: WeightDistribution, history: list[Epoch]
) -> Result:
    start = time.perf_counter()
    test, predictions, replicas = task.test, [], []
    for number, replica in enumerate(network.replicas()):
        draws = generator(settings, "evaluation", test.labels.device, number)
        predictions.append(evaluation.predict(replica, test.images, settings.num_test_samples, draws))
        of_mean, _ = evaluation.accuracy_and_nll(evaluation.predict_with_mean(replica, test.images), test.labels)
        elbo, kl = evaluation.elbo(replica, prior, task.train, settings.num_validation_samples, draws)
        scores = evaluation.metrics(predictions[-1], test.labels).as_dict("test_")
        replicas.append({**scores, "test_error_mean_weights": 100.0 * (1.0 - of_mean), "elbo": elbo, "kl": kl})
    means = {name: statistics.fmean(each[name] for each in replicas) for name in replicas[0]}
    return Result(
        **means | evaluation.metrics(uncertainty.mixture(torch.stack(predictions)), test.labels).as_dict("test_"),
        num_epochs=len(history),
        seconds=sum(epoch.seconds for epoch in history) + time.perf_counter() - start,
        replicas=replicas if len(replicas) > 1 else None,
    )
