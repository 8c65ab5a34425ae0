"""One run, from its assembly to its result. It needs no Sacred: a notebook can call :func:`run`."""

import copy
import io
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from bbb.distributions import WeightDistribution
from bbb.inference import (
    Epoch,
    ExpectedEntropy,
    GaussianNoise,
    Likelihood,
    Plan,
    Streams,
    Training,
    choose_inflation,
    elbo,
    measure_curvature,
    num_distinct,
    predict,
    predict_with_centre,
    source_error,
)
from bbb.networks import BayesianNetwork, save_weights
from bbb.runs.assembly import Assembly
from bbb.runs.findings import find, write_findings
from bbb.runs.folders import FINDINGS, RESUMABLE, WEIGHTS
from bbb.runs.plotting import training_curves
from bbb.runs.progress import Progress
from bbb.runs.settings import Settings
from bbb.runs.tensorboard import open_board
from bbb.system import ALONE, Group, StoppedError, write_aside


@dataclass(frozen=True, kw_only=True)
class Result:
    """The result of a run; errors and ECE in %, NLL in nats per example, ELBO in nats per training example.

    For numbers in place of classes there are the RMSE, in the units of y, and the coverage: the share of test examples
    inside the central 50 % and 90 % intervals, in %.

    ``seconds`` counts training, validation and testing, over all parts of a run that was resumed. With replicas, the
    test scores are those of the ensemble; ``elbo``, ``kl`` and ``test_error_mean_weights`` are means over replicas; and
    ``replicas`` holds the scores of each. Under ``prior=posterior``, ``prior_inflation`` is the factor used, and
    ``source_error`` is the error of the hidden layers on the source's test set under the source's head. A point has
    neither ``elbo`` nor ``kl``. With dropout the test averages over masks, and the mean weights are weight scaling.
    """

    test_error: float | None = None
    test_rmse: float | None = None
    test_nll: float
    test_brier: float | None = None
    test_ece: float | None = None
    test_coverage_50: float | None = None
    test_coverage_90: float | None = None
    test_error_mean_weights: float | None = None
    test_rmse_mean_weights: float | None = None
    elbo: float | None = None
    kl: float | None = None
    num_epochs: int
    seconds: float
    noise_std: float | None = None
    prior_inflation: float | None = None
    source_error: float | None = None
    replicas: list[dict[str, float]] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the result as a dictionary, without the scores that do not apply."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def run(
    assembly: Assembly,
    folder: Path | None = None,
    state: Mapping[str, Any] | None = None,
    *,
    on_choice: Callable[[int, int], None] = lambda step, num_steps: None,
    on_step: Callable[[int, int], None] = lambda step, num_steps: None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    on_test: Callable[[int, int], None] = lambda num_images, num_all: None,
    should_stop: Callable[[], bool] = lambda: False,
    group: Group = ALONE,
) -> Result | None:
    """Train and evaluate.

    Args:
        assembly: the parts of the run.
        folder: where ``log.txt``, ``weights.safetensors``, ``training.png`` and ``findings.json`` go, and a
            checkpoint, which stays until the result is recorded too (see :meth:`bbb.runs.OpenRun.complete`); None to
            write no files.
        state: the checkpoint from which to go on (see :func:`bbb.runs.load_progress`).
        on_choice: called after each step of choosing ``prior_inflation=auto``, with the number done and in all.
        on_step: the same while training.
        on_epoch: called with the metrics of each epoch; a resumed run starts with those of the earlier epochs.
        on_test: called while testing, with the number of images evaluated, each as often as it is, and in all.
        should_stop: called after each step, and while testing; if it returns True, the state is saved and an exception
            ends the run.
        group: the processes that train together; all call this function; only the first validates, tests and has a
            folder.

    Returns:
        The scores on the test set, which is used only here, once, after training; None in all processes of
        a group but the first.

    Raises:
        bbb.inference.DivergedError: the loss became NaN or infinite.
        bbb.system.StoppedError: ``should_stop`` returned True in any process of the group.
        bbb.system.LostError: another process of the group is gone.
    """

    def stoppable(report: Callable[[int, int], None]) -> Callable[[int, int], None]:
        def after_step(step: int, num_steps: int) -> None:
            report(step, num_steps)
            if group.any(should_stop()):
                raise StoppedError

        return after_step

    settings, is_first = assembly.settings, group.rank == 0
    inflation = state["prior_inflation"] if state else _choose_inflation(assembly, stoppable(on_choice))
    inflation = group.from_first(inflation)
    network, prior = assembly.network_and_prior(inflation)
    task, plan = assembly.task, settings.subset(Plan)
    validation = task.validation if is_first else None
    streams = _streams(assembly)
    likelihood = copy.deepcopy(assembly.likelihood)
    process = Training(network, likelihood, prior, task.train, validation, plan, streams, group)
    chosen = {"prior_inflation": inflation, "source": assembly.record}
    progress = Progress(process, folder, chosen, settings.checkpoint_minutes)
    if state:
        progress.restore(state)
    else:
        progress.save()
    with open_board(settings, folder, len(progress.history)) as board:

        def after_epoch(epoch: Epoch) -> None:
            on_epoch(epoch)
            if board is not None:
                board.epoch(epoch, network)

        history = progress.train(after_epoch, stoppable(on_step))
        if not is_first:
            return None
        if settings.posterior == "laplace":
            draws = assembly.generator("curvature", assembly.device)
            measure_curvature(network, likelihood, prior, task.train, draws)
        count = _Count(_num_evaluated(assembly, network), on_test, should_stop, folder)
        result, predicted = _evaluate(assembly, network, likelihood, prior, history, count)
        if settings.prior == "posterior":
            result = replace(result, prior_inflation=inflation, source_error=_source_error(assembly, network, count))
        if folder is not None:
            _save_result(folder, assembly, network, likelihood, history, result)
            found = find(network, likelihood, predicted.predictive, predicted.aleatoric, task.test, settings.classes)
            write_findings(folder / FINDINGS, found)
        if board is not None:
            board.end(result.as_dict())
    return result


def save_figure(path: Path, figure: Figure) -> None:
    """Write a figure to a temporary file, then rename it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=120, format="png")
    write_aside(path, buffer.getvalue())


def _choose_inflation(assembly: Assembly, on_step: Callable[[int, int], None]) -> float:
    """Return the inflation of a prior that is a posterior: as configured, or chosen on the training data."""
    settings = assembly.settings
    if settings.prior != "posterior":
        return 1.0
    if settings.prior_inflation != "auto":
        return settings.prior_inflation
    plan, seed = settings.subset(Plan), assembly.stream_seed("inflation")
    create, train = assembly.network_and_prior, assembly.task.train
    return choose_inflation(train, create, assembly.likelihood, plan, seed, on_step)[0]


class _Count:
    """Counts the images that are evaluated after training, and stops there if it is told to.

    Args:
        num_all: how many will be evaluated.
        report: called with the number so far and in all.
        should_stop: asked each time.
        folder: the run's folder, whose checkpoint of the last epoch stays.
    """

    def __init__(
        self, num_all: int, report: Callable[[int, int], None], should_stop: Callable[[], bool], folder: Path | None
    ) -> None:
        self.num, self.num_all = 0, num_all
        self.report, self.should_stop, self.folder = report, should_stop, folder

    def __call__(self, num_images: int) -> None:
        self.num += num_images
        self.report(self.num, self.num_all)
        if self.should_stop():
            raise StoppedError(RESUMABLE) if self.folder is not None else StoppedError


def _num_evaluated(assembly: Assembly, network: BayesianNetwork) -> int:
    """Count the images that testing evaluates, each as often as it does."""
    settings, task, source = assembly.settings, assembly.task, assembly.source
    num = num_distinct(network.posterior, settings.num_test_samples) * len(task.test)
    if network.posterior.has_density:
        num += settings.num_validation_samples * len(task.train)
    num_source = len(source.test) if source is not None and source.test is not None else 0
    return settings.num_replicas * num + settings.num_test_samples * num_source


def _source_error(assembly: Assembly, network: BayesianNetwork, on_images: Callable[[int], None]) -> float | None:
    """Measure the error on the source task; None if the weights file does not name that task."""
    source = assembly.source
    if source is None or source.test is None:
        return None
    draws = assembly.generator("source", assembly.device)
    return source_error(network, source.network, source.test, assembly.settings.num_test_samples, draws, on_images)


@dataclass(frozen=True)
class _Predicted:
    """The posterior predictive of the test set, and for classes the expected entropy of a draw ``(N,)``, in nats."""

    predictive: Tensor
    aleatoric: Tensor | None


def _save_result(
    folder: Path,
    assembly: Assembly,
    network: BayesianNetwork,
    likelihood: Likelihood,
    history: list[Epoch],
    result: Result,
) -> None:
    settings = assembly.settings
    about = {**_about(settings), "source": assembly.record}
    about |= {"score": likelihood.score, "takes_bytes": assembly.task.train.images.dtype == torch.uint8}
    learnt, shape = dict(likelihood.named_parameters()), assembly.task.train.input_shape
    save_weights(folder / WEIGHTS, network, about, learnt, shape, assembly.kept_heads())
    score = f"RMSE {result.test_rmse:.4g}" if result.test_error is None else f"error {result.test_error:.2f} %"
    title = f"{settings.experiment_name}: test {score}, NLL {result.test_nll:.4f}"
    save_figure(folder / "training.png", training_curves(history, title, result.as_dict()))


def _about(settings: Settings) -> dict[str, Any]:
    """Describe the task for a weights file; a union of tasks has no test set of its own to be found again."""
    if settings.union is not None:
        return {"union": list(settings.union)}
    about: dict[str, Any] = {"dataset": settings.dataset, "rotation": settings.rotation}
    about |= {"permutation": settings.permutation} if settings.permutation is not None else {}
    return {**about, "classes": list(settings.classes) if settings.classes is not None else None}


def _streams(assembly: Assembly) -> list[Streams]:
    """Create the random streams of each replica."""
    return [
        Streams(
            order=assembly.generator("order", replica=replica),
            weights=assembly.generator("weights", assembly.device, replica),
            validation_seed=assembly.stream_seed("validation", replica),
        )
        for replica in range(assembly.settings.num_replicas)
    ]


def _evaluate(
    assembly: Assembly,
    network: BayesianNetwork,
    likelihood: Likelihood,
    prior: WeightDistribution,
    history: list[Epoch],
    on_images: Callable[[int], None],
) -> tuple[Result, _Predicted]:
    start = time.perf_counter()
    settings, test = assembly.settings, assembly.task.test
    predictions, replicas, expected = [], [], []
    for number, replica in enumerate(network.replicas()):
        draws = assembly.generator("evaluation", assembly.device, number)
        samples, entropies = settings.num_test_samples, ExpectedEntropy()
        watch = entropies if likelihood.score == "accuracy" else iter
        predictions.append(predict(replica, likelihood, test.images, samples, draws, on_images, watch))
        if watch is entropies:
            expected.append(entropies.mean)
        of_centre = likelihood.scores(
            likelihood.mix([predict_with_centre(replica, likelihood, test.images)]), test.labels
        )
        scores = _prefixed(likelihood.scores(predictions[-1], test.labels))
        main = "error" if "error" in of_centre else "rmse"
        scores[f"test_{main}_mean_weights"] = of_centre[main]
        if replica.posterior.has_density:
            how = assembly.task.train, settings.num_validation_samples, draws, on_images
            scores["elbo"], scores["kl"] = elbo(replica, likelihood, prior, *how)
        replicas.append(scores)
    means = {name: statistics.fmean(scores[name] for scores in replicas) for name in replicas[0]}
    predictive = likelihood.mix_replicas(predictions)
    predicted = _Predicted(predictive, torch.stack(expected).mean(0) if expected else None)
    result = Result(
        **means | _prefixed(likelihood.scores(predictive, test.labels)),
        num_epochs=len(history),
        seconds=sum(epoch.seconds for epoch in history) + time.perf_counter() - start,
        replicas=replicas if len(replicas) > 1 else None,
        noise_std=likelihood.noise_std if isinstance(likelihood, GaussianNoise) else None,
    )
    return result, predicted


def _prefixed(scores: dict[str, float]) -> dict[str, float]:
    return {f"test_{name}": value for name, value in scores.items()}
