"""R replicas trained as one model: each is the run that it would be alone."""

import dataclasses

import pytest
import torch

from bbb.distributions import gaussian_prior, scale_mixture_prior
from bbb.inference import Streams, Training, accuracy_and_nll, predict
from bbb.networks import BayesianNetwork, num_weights
from tests.tasks import PLAN, THREE_CLASSES, TOY, network, seeded

MIXTURE = scale_mixture_prior(num_weights(TOY.layers), 0.5, 1.0, 0.1)
VARIANTS = {
    "mixture": {"prior": MIXTURE, "beta_type": "blundell"},
    "Gaussian prior, many draws": {"num_samples": 3},
    "local": {"estimator": "local"},
    "local, many draws, mixture": {"estimator": "local", "num_samples": 2, "prior": MIXTURE},
    "input dropout, fresh noise": {"input_dropout": 0.2, "noise_reuse": 1},
    "sgd": {"optimizer": "sgd", "lr": 0.05},
}


def both(*seeds):
    return BayesianNetwork.stacked([network(seed) for seed in seeds])


def streams(seed):
    return Streams(seeded(seed), seeded(seed + 10), seed)


def training(split, network, streams, prior=None, **changes):
    prior = prior or gaussian_prior(network.posterior.dim, 1.0)
    return Training(network, THREE_CLASSES, prior, split, split, dataclasses.replace(PLAN, **changes), streams)


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_replica_ends_as_the_same_run_alone(variant, toy_split):
    changes = VARIANTS[variant]
    stacked = both(1, 2)
    epochs = list(training(toy_split, stacked, [streams(1), streams(2)], **changes).fit())
    alone = []
    for seed, replica in zip((1, 2), stacked.replicas(), strict=True):
        single = network(seed)
        alone.append(list(training(toy_split, single, streams(seed), **changes).fit()))
        # Batched products round otherwise than single ones do, and Adam magnifies it where a gradient is near zero.
        for name, value in replica.posterior.state_dict().items():
            torch.testing.assert_close(value, single.posterior.state_dict()[name], rtol=1e-3, atol=1e-4)
    for epoch, *singles in zip(epochs, *alone, strict=True):
        for name in ("train_nll", "train_kl", "train_elbo", "train_accuracy"):
            mean = sum(getattr(single, name) for single in singles) / 2
            assert getattr(epoch, name) == pytest.approx(mean, rel=1e-3)


def test_validation_is_that_of_the_ensemble(toy_split):
    stacked = both(1, 2)
    (epoch,) = training(toy_split, stacked, [streams(1), streams(2)], num_epochs=1).fit()
    probabilities = [
        predict(replica, THREE_CLASSES, toy_split.images, 2, streams(seed).validation()).exp()
        for seed, replica in zip((1, 2), stacked.replicas(), strict=True)
    ]
    log_probs = torch.stack(probabilities).mean(0).log()
    expected = accuracy_and_nll(log_probs, toy_split.labels)
    assert (epoch.validation_accuracy, epoch.validation_nll) == pytest.approx(expected, rel=1e-5)


def test_replicas_can_be_stopped_and_resumed(toy_split):
    straight = training(toy_split, both(1, 2), [streams(1), streams(2)])
    list(straight.fit())

    class EnoughError(Exception):
        pass

    def stop(step, num_steps):
        if step == 10:
            raise EnoughError

    stopped = training(toy_split, both(1, 2), [streams(1), streams(2)])
    with pytest.raises(EnoughError):
        list(stopped.fit(stop))
    resumed = training(toy_split, both(3, 4), [streams(5), streams(6)])
    resumed.load_state_dict(stopped.state_dict())
    list(resumed.fit())
    torch.testing.assert_close(
        resumed.network.posterior.state_dict(), straight.network.posterior.state_dict(), rtol=0, atol=0
    )
