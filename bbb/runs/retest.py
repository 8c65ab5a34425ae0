"""The test of a finished run once more: its posterior, its test set, and the same draws of the weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bbb import system
from bbb.data import DataError, Split
from bbb.inference import predict
from bbb.networks import BayesianNetwork, WeightsError, read_about
from bbb.runs.folders import find_runs, find_weights
from bbb.runs.posterior import Posterior, load
from bbb.runs.settings import TASK, Settings
from bbb.runs.streams import generator
from bbb.runs.tasks import load_task


@dataclass(frozen=True)
class Retest:
    """A posterior with the test of its run.

    Attributes:
        path: of its weights file.
        about: what the file tells of it.
        posterior: the posterior.
        test: the test set.
        settings: those of its run; of a weights file without a run, the given ones on its task.
        device: where to compute.
    """

    path: Path
    about: dict[str, Any]
    posterior: Posterior
    test: Split
    settings: Settings
    device: torch.device

    def scores(self, network: BayesianNetwork) -> dict[str, float]:
        """Score a network as the run's test scored its own, with the noise of the same draws: error or RMSE, and so on.

        Args:
            network: of one posterior, no replicas.
        """
        return self.posterior.likelihood.scores(self.predictive(network), self.test.labels)

    def predictive(self, network: BayesianNetwork) -> Tensor:
        """Predict the test set as the run's test did, with the noise of the same draws.

        Args:
            network: of one posterior, no replicas.

        Returns:
            The posterior predictive, as :meth:`bbb.inference.Likelihood.mix` gives it.
        """
        draws, number = generator(self.settings, "evaluation", self.device), self.settings.num_test_samples
        return predict(network, self.posterior.likelihood, self.test.images, number, draws)


def open_retest(pretrained: str, config: Mapping[str, Any], on_validation: bool = False) -> Retest:
    """Load a posterior and the test set of its run.

    Args:
        pretrained: an experiment, a run's folder, or a weights file.
        config: a whole configuration. Its ``data_dir``, ``device`` and ``network`` hold; the last names a user's own
            network again. Where the weights have no record of their run beside them, all other keys hold too, but for
            those of the task, which the weights file tells.
        on_validation: take the images that were held out of training in place of the test set.

    Raises:
        bbb.system.InputError: there are no such weights, they are damaged, they tell no data set, or these are missing,
            or nothing was held out.
    """
    path = find_weights(pretrained)
    about, recorded = read_about(path), [run for run in find_runs(path.parent) if run.folder == path.parent]
    if recorded:
        own = recorded[-1].config | {key: config[key] for key in ("device", "data_dir") if config[key] is not None}
    elif isinstance(about.get("dataset"), str):
        own = {**config, "pretrained": None, **{key: about[key] for key in TASK if about.get(key) is not None}}
        own["likelihood"] = "gaussian" if about.get("score") == "rmse" else "categorical"
    else:
        raise WeightsError(
            f"{path}: does not tell what data it was trained on, and no record of a run is beside it; name a run"
        )
    settings = Settings.from_config(own)
    system.set_up(settings.num_threads, settings.precision)
    device = system.find_device(settings.device)
    posterior = load(path, config["network"])
    posterior.network.to(device)
    posterior.likelihood.to(device)
    task = load_task(settings, device)
    if on_validation and task.validation is None:
        raise DataError("validation_fraction=0: nothing was held out of training; test on the test set")
    test = task.validation if on_validation and task.validation is not None else task.test
    num_inputs = posterior.network.architecture.num_inputs
    if test.images.shape[1] != num_inputs:
        raise WeightsError(
            f"{path}: takes inputs of {num_inputs} numbers; {settings.dataset} has {test.images.shape[1]}"
        )
    return Retest(path, about, posterior, test, settings, device)
