"""R replicas trained as one model: each is the run that it would be alone."""

import dataclasses

import pytest
import torch

from bbb import checkpoint, evaluation, pipeline, priors
from bbb.network import BayesianMLP, num_weights
from bbb.pipeline import run
from bbb.training import Noise, Training
from tests.test_pipeline import settings
from tests.test_training import PLAN

SIZES = (12, 8, 3)
MIXTURE = priors.scale_mixture(num_weights(SIZES), 0.5, 1.0, 0.1)
VARIANTS = {
    "mixture": {"prior": MIXTURE, "beta_type": "blundell"},
    "Gaussian prior, many draws": {"num_samples": 3},
    "local": {"estimator": "local"},
    "local, many draws, mixture": {"estimator": "local", "num_samples": 2, "prior": MIXTURE},
    "input dropout, fresh noise": {"input_dropout": 0.2, "noise_reuse": 1},
    "sgd": {"optimizer": "sgd", "lr": 0.05},
}


def network(seed):
    return BayesianMLP.initial(SIZES, 0.05, torch.Generator().manual_seed(seed))


def noise(seed):
    return Noise(torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed + 10), seed)


def training(split, network, noise, prior=None, **changes):
    prior = prior or priors.gaussian(network.posterior.dim, 1.0)
    return Training(network, prior, split, split, dataclasses.replace(PLAN, **changes), noise)


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_replica_ends_as_the_same_run_alone(variant, toy_split):
    changes = VARIANTS[variant]
    both = BayesianMLP.stacked([network(seed) for seed in (1, 2)])
    epochs = list(training(toy_split, both, [noise(1), noise(2)], **changes).fit())
    alone = []
    for seed, replica in zip((1, 2), both.replicas(), strict=True):
        single = network(seed)
        alone.append(list(training(toy_split, single, noise(seed), **changes).fit()))
        # Batched products round otherwise than single ones do, and Adam magnifies it where a gradient is near zero.
        for name, value in replica.posterior.state_dict().items():
            torch.testing.assert_close(value, single.posterior.state_dict()[name], rtol=1e-3, atol=1e-4)
    for epoch, *singles in zip(epochs, *alone, strict=True):
        for name in ("train_nll", "train_kl", "train_elbo", "train_accuracy"):
            mean = sum(getattr(single, name) for single in singles) / 2
            assert getattr(epoch, name) == pytest.approx(mean, rel=1e-3)


def test_validation_is_that_of_the_ensemble(toy_split):
    both = BayesianMLP.stacked([network(seed) for seed in (1, 2)])
    (epoch,) = training(toy_split, both, [noise(1), noise(2)], num_epochs=1).fit()
    probabilities = [
        evaluation.predict(replica, toy_split.images, 2, noise(seed).validation()).exp()
        for seed, replica in zip((1, 2), both.replicas(), strict=True)
    ]
    log_probs = torch.stack(probabilities).mean(0).log()
    expected = evaluation.accuracy_and_nll(log_probs, toy_split.labels)
    assert (epoch.validation_accuracy, epoch.validation_nll) == pytest.approx(expected, rel=1e-5)


def test_replicas_can_be_stopped_and_resumed(toy_split):
    straight = training(toy_split, BayesianMLP.stacked([network(1), network(2)]), [noise(1), noise(2)])
    list(straight.fit())

    class EnoughError(Exception):
        pass

    def stop(step, num_steps):
        if step == 10:
            raise EnoughError

    stopped = training(toy_split, BayesianMLP.stacked([network(1), network(2)]), [noise(1), noise(2)])
    with pytest.raises(EnoughError):
        list(stopped.fit(stop))
    resumed = training(toy_split, BayesianMLP.stacked([network(3), network(4)]), [noise(5), noise(6)])
    resumed.load_state_dict(stopped.state_dict())
    list(resumed.fit())
    torch.testing.assert_close(
        resumed.network.posterior.state_dict(), straight.network.posterior.state_dict(), rtol=0, atol=0
    )


def test_weights_of_replicas_survive_the_trip(tmp_path):
    both = BayesianMLP.stacked([network(1), network(2)])
    checkpoint.save_weights(tmp_path / "w.safetensors", both)
    loaded, about = checkpoint.load_weights(tmp_path / "w.safetensors")
    assert about["num_replicas"] == loaded.num_replicas == 2
    torch.testing.assert_close(loaded.posterior.state_dict(), both.posterior.state_dict(), rtol=0, atol=0)


def test_a_run_scores_each_replica_and_their_ensemble(tmp_path):
    result = run(settings(num_replicas=3, seed=1, split_seed=1), torch.device("cpu"), tmp_path)
    alone = [run(settings(seed=seed, split_seed=1), torch.device("cpu")) for seed in (1, 2, 3)]
    for replica, single in zip(result.replicas, alone, strict=True):
        for name, value in replica.items():
            assert value == pytest.approx(getattr(single, name), rel=1e-2)
    assert result.test_nll < sum(single.test_nll for single in alone) / 3  # Jensen's inequality
    assert result.elbo == pytest.approx(sum(single.elbo for single in alone) / 3, rel=1e-3)


def test_replicas_are_no_source(tmp_path):
    run(settings(num_replicas=2), torch.device("cpu"), tmp_path)
    with pytest.raises(checkpoint.WeightsError, match="holds 2 replicas; name the weights of a run"):
        pipeline.check(settings(pretrained=str(tmp_path / "weights.safetensors")), tmp_path)


@pytest.mark.parametrize("changes", [{"num_flows": 2}, {"pretrained": "domain_a"}])
def test_what_replicas_cannot_do_is_refused(changes):
    with pytest.raises(ValueError, match="num_replicas=2: replicas start from scratch and have no flows"):
        settings(num_replicas=2, **changes)
