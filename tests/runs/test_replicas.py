"""A run of R replicas: its files, its scores, and what it refuses."""

import numpy as np
import pytest
import torch

from bbb import runs
from bbb.networks import BayesianNetwork, WeightsError, load_weights, save_weights
from bbb.runs import WEIGHTS
from tests.tasks import CPU, network, run, settings


def test_weights_of_replicas_survive_the_trip(tmp_path):
    both = BayesianNetwork.stacked([network(1), network(2)])
    save_weights(tmp_path / "w.safetensors", both)
    loaded, about = load_weights(tmp_path / "w.safetensors")
    assert about["num_replicas"] == loaded.num_replicas == 2
    torch.testing.assert_close(loaded.posterior.state_dict(), both.posterior.state_dict(), rtol=0, atol=0)


def test_a_run_scores_each_replica_and_their_ensemble(tmp_path):
    result = run(tmp_path, num_replicas=3, seed=1, split_seed=1)
    alone = [run(seed=seed, split_seed=1) for seed in (1, 2, 3)]
    for replica, single in zip(result.replicas, alone, strict=True):
        for name, value in replica.items():
            assert value == pytest.approx(getattr(single, name), rel=1e-2)
    assert result.test_nll < sum(single.test_nll for single in alone) / 3  # Jensen's inequality
    assert result.elbo == pytest.approx(sum(single.elbo for single in alone) / 3, rel=1e-3)


def test_replicas_on_numbers_are_scored_each_and_as_one_mixture(tmp_path):
    """With a noise that is given: one that is learnt is shared."""
    noise = np.random.default_rng(1)
    x, error = noise.normal(size=(200, 3)), 0.3 * noise.normal(size=200)
    y = x.sum(1) + error
    np.savez(tmp_path / "numbers.npz", x_train=x[:150], y_train=y[:150], x_test=x[150:], y_test=y[150:])
    changes = {"dataset": str(tmp_path / "numbers.npz"), "likelihood": "gaussian", "noise_std": 0.4, "split_seed": 1}
    result = run(num_replicas=2, seed=1, **changes)
    alone = [run(seed=seed, **changes) for seed in (1, 2)]
    for replica, single in zip(result.replicas, alone, strict=True):
        for name, value in replica.items():
            assert value == pytest.approx(getattr(single, name), rel=1e-2)
    assert result.test_nll < sum(single.test_nll for single in alone) / 2
    assert result.test_rmse < sum(single.test_rmse for single in alone) / 2


def test_replicas_are_no_source(tmp_path):
    run(tmp_path, num_replicas=2)
    with pytest.raises(WeightsError, match="holds 2 replicas; name the weights of a run"):
        runs.assemble(settings(pretrained=str(tmp_path / WEIGHTS)), CPU)


@pytest.mark.parametrize("changes", [{"num_flows": 2}, {"pretrained": "domain_a"}])
def test_what_replicas_cannot_do_is_refused(changes):
    with pytest.raises(ValueError, match="num_replicas=2: replicas start from scratch and have no flows"):
        settings(num_replicas=2, **changes)
