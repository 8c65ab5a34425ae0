import itertools
import math

import pytest
import torch

from bbb.data import Normalization, Split
from bbb.distributions import gaussian_prior, scale_mixture_prior
from bbb.inference import DivergedError, negative_elbo
from bbb.networks import forward_drawn, num_weights
from bbb.runs import checkpoint
from tests import tasks
from tests.tasks import CPU, PLAN, THREE_CLASSES, TOY, seeded, training, without_time

MIXTURE = scale_mixture_prior(num_weights(TOY.layers), 0.5, 1.0, 0.1)


def train(split, validation=None, on_step=lambda step, num_steps: None, **changes):
    """Train to the end; the network and what its epochs measured."""
    process = training(split, validation, **changes)
    epochs = list(process.fit(on_step))
    return process.network, epochs


VARIANTS = {
    "weights": {},
    "local": {"estimator": "local"},
    "many draws": {"num_samples": 4},
    "local, many draws": {"estimator": "local", "num_samples": 4},
    "input dropout": {"input_dropout": 0.2},
    "fresh noise": {"noise_reuse": 1},
    "bfloat16": {"precision": "bfloat16"},
    "bfloat16, local": {"precision": "bfloat16", "estimator": "local", "num_samples": 2},
    "sgd": {"optimizer": "sgd", "lr": 0.05},
    "cosine": {"lr_schedule": "cosine"},
    "blundell": {"beta_type": "blundell"},
    "soenderby": {"beta_type": "soenderby"},
    "none": {"beta_type": "none"},
    "mixture": {"prior": MIXTURE},
    "planar flows": {"num_flows": 16},
    "matrix planar flows, mixture, many draws": {
        "num_flows": 4,
        "flow": "matrix_planar",
        "num_samples": 3,
        "prior": MIXTURE,
    },
    "mixture, local": {"prior": MIXTURE, "estimator": "local"},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_learns_a_separable_task_and_repeats_exactly(variant, toy_split):
    changes = {"num_epochs": 40, "temperature": 0.1, **VARIANTS[variant]}
    trained, epochs = train(toy_split, toy_split, **changes)
    again, repeated = train(toy_split, toy_split, **changes)
    assert epochs[-1].validation_accuracy == 1.0
    assert epochs[-1].train_nll < 0.5 * epochs[0].train_nll
    assert without_time(epochs) == without_time(repeated)
    for name, value in trained.posterior.state_dict().items():
        assert torch.equal(value, again.posterior.state_dict()[name])


def test_another_seed_is_another_run(toy_split):
    assert not torch.equal(train(toy_split)[0].posterior.mean, train(toy_split, seed=2)[0].posterior.mean)


def test_epochs_are_reported_in_nats_per_example(toy_split):
    trained, (epoch,) = train(toy_split, num_epochs=1, batch_size=64, lr=1e-9)
    kl = trained.posterior.kl_divergence(gaussian_prior(trained.posterior.dim, 1.0)).item()
    assert epoch.train_kl == pytest.approx(kl, rel=1e-5)
    assert epoch.train_elbo == pytest.approx(-epoch.train_nll - kl / 64, rel=1e-5)
    draws, _ = trained.posterior.rsample_and_log_prob(200, seeded(0))
    outputs = forward_drawn(TOY, trained.layers(draws), Normalization()(toy_split.images))
    expected = THREE_CLASSES.nll(outputs, toy_split.labels) / 64
    assert abs(epoch.train_nll - expected.mean().item()) < 5 * expected.std().item()
    assert 0 <= epoch.train_accuracy <= 1
    assert epoch.validation_accuracy is None
    assert epoch.validation_nll is None


def test_validation_does_not_disturb_training(toy_split):
    plain, _ = train(toy_split)
    validated, _ = train(toy_split, toy_split, num_validation_samples=5)
    assert torch.equal(plain.posterior.mean, validated.posterior.mean)


def test_validation_draws_are_the_same_each_epoch(toy_split):
    """A posterior that does not move scores the same, so that differences between epochs are differences of weights."""
    _, epochs = train(toy_split, toy_split, lr=1e-12)
    assert len({epoch.validation_nll for epoch in epochs}) == 1


@pytest.mark.parametrize("batch_size", [10, 64])
def test_the_step_follows_the_gradient_of_the_elbo_per_example(toy_split, batch_size):
    """One SGD step on the first minibatch moves the mean by lr times the gradient of its cost, scaled to an example."""
    changes = {"optimizer": "sgd", "lr": 0.1, "num_epochs": 1, "batch_size": 64, "noise_reuse": 1}
    trained, _ = train(toy_split[slice(0, batch_size)], **changes)
    start = tasks.network(seed=1)
    w, _ = start.posterior.rsample_and_log_prob(1, seeded(2))
    outputs = forward_drawn(TOY, start.layers(w), Normalization()(toy_split.images[:batch_size]))
    nll = THREE_CLASSES.nll(outputs, toy_split.labels[:batch_size])
    kl = start.posterior.kl_divergence(gaussian_prior(start.posterior.dim, 1.0))
    negative_elbo(nll, kl).div(batch_size).backward()
    moved = start.posterior.mean.detach() - 0.1 * start.posterior.mean.grad
    torch.testing.assert_close(trained.posterior.mean.detach(), moved, rtol=1e-5, atol=1e-6)


def test_cosine_schedule_falls_with_every_step_and_ends_at_zero(toy_split):
    """Half a period of the cosine over all 28 steps: seven a pass, two passes an epoch, two epochs."""
    process = training(toy_split, lr_schedule="cosine", num_epochs=2, steps_per_epoch=8)

    def rate():
        return process.optimizer.param_groups[0]["lr"]

    rates = [rate()]
    list(process.fit(lambda step, num_steps: rates.append(rate())))
    expected = [PLAN.lr * (1.0 + math.cos(math.pi * step / 28)) / 2.0 for step in range(29)]
    assert rates == pytest.approx(expected, abs=1e-12)
    assert rates[-1] == pytest.approx(0.0, abs=1e-12)


def test_progress_is_told_after_every_step(toy_split):
    calls = []
    train(toy_split, num_epochs=2, on_step=lambda step, num_steps: calls.append((step, num_steps)))
    assert calls == [(step, 14) for step in range(1, 15)]


def test_epochs_are_yielded_as_they_end(toy_split):
    process = training(toy_split, toy_split)
    epochs = process.fit()
    assert next(epochs).number == 1
    early = process.network.posterior.mean.detach().clone()
    assert next(epochs).number == 2
    assert not torch.equal(early, process.network.posterior.mean)


@pytest.mark.parametrize(
    "changes",
    [{"lr_schedule": "cosine"}, {"optimizer": "sgd"}, {"input_dropout": 0.2}, {"beta_type": "soenderby"}],
    ids=lambda changes: next(iter(changes.values())),
)
@pytest.mark.parametrize("estimator", ["weights", "local"])
def test_stopped_and_resumed_ends_bit_identical_to_never_stopped(toy_split, tmp_path, changes, estimator):
    whole = training(toy_split, toy_split, num_epochs=5, estimator=estimator, **changes)
    expected = list(whole.fit())
    stopped = training(toy_split, toy_split, num_epochs=5, estimator=estimator, **changes)
    first = list(itertools.islice(stopped.fit(), 2))
    checkpoint.save_state(tmp_path / "state", stopped.state_dict())
    resumed = training(toy_split, toy_split, seed=99, num_epochs=5, estimator=estimator, **changes)
    resumed.load_state_dict(checkpoint.load_state(tmp_path / "state", CPU))
    assert without_time(first + list(resumed.fit())) == without_time(expected)
    for name, value in whole.network.posterior.state_dict().items():
        assert torch.equal(value, resumed.network.posterior.state_dict()[name])


@pytest.mark.parametrize("stop_at", [1, 6, 7, 8, 14, 20, 21, 27, 28])
def test_stopped_after_any_step_and_resumed_ends_bit_identical(toy_split, tmp_path, stop_at):
    """Seven steps a pass, two passes an epoch, two epochs."""
    changes = {"num_epochs": 2, "steps_per_epoch": 8, "lr_schedule": "cosine", "beta_type": "blundell"}
    whole = training(toy_split, toy_split, **changes)
    expected = without_time(whole.fit())
    stopped, epochs = training(toy_split, toy_split, **changes), []

    def stop(step, num_steps):
        if step == stop_at:
            checkpoint.save_state(tmp_path / "state", stopped.state_dict())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        epochs.extend(stopped.fit(stop))
    resumed = training(toy_split, toy_split, seed=99, **changes)
    resumed.load_state_dict(checkpoint.load_state(tmp_path / "state", CPU))
    steps = []
    epochs += resumed.fit(lambda step, num_steps: steps.append(step))
    assert steps == list(range(stop_at + 1, 29))
    assert without_time(epochs) == expected
    for name, value in whole.network.posterior.state_dict().items():
        assert torch.equal(value, resumed.network.posterior.state_dict()[name])


def test_divergence_stops_with_a_clear_line(toy_split):
    with pytest.raises(DivergedError, match=r"epoch 1, step [2-5]: the loss is .*smaller lr"):
        train(toy_split, optimizer="sgd", lr=1e30)


def test_an_epoch_makes_as_many_passes_as_its_steps_need(toy_split):
    steps = []
    _, (once, *_) = train(toy_split, num_epochs=1, lr=1e-9)
    _, epochs = train(toy_split, num_epochs=2, steps_per_epoch=15, lr=1e-9, on_step=lambda *step: steps.append(step))
    # 64 images in batches of 10 are 7 steps a pass; 3 passes make at least 15
    assert steps == [(i, 42) for i in range(1, 43)]
    assert len(epochs) == 2
    # at rest, the metrics of an epoch are those of one pass but for the noise of the draws
    assert epochs[0].train_kl == pytest.approx(once.train_kl, rel=1e-4)
    assert epochs[0].train_nll == pytest.approx(once.train_nll, rel=0.5)
    assert 0.0 <= epochs[0].train_accuracy <= 1.0


@pytest.mark.parametrize("prior", ["mixture", "gaussian"])
def test_leaving_out_a_negligible_kl_changes_nothing(prior, toy_split, monkeypatch):
    """64 minibatches: the shares of Blundell's scheme fall to 2^-64. Adam shows a gradient however small it is."""
    prior = MIXTURE if prior == "mixture" else None
    changes = {"beta_type": "blundell", "batch_size": 1, "prior": prior, "num_epochs": 2}
    trained, epochs = train(toy_split, **changes)
    monkeypatch.setattr("bbb.inference.training.NEGLIGIBLE", -1.0)
    complete, expected = train(toy_split, **changes)
    torch.testing.assert_close(trained.posterior.state_dict(), complete.posterior.state_dict(), rtol=1e-4, atol=1e-5)
    assert epochs[-1].train_nll == pytest.approx(expected[-1].train_nll, rel=1e-3)
    assert epochs[-1].train_kl == pytest.approx(expected[-1].train_kl, rel=0.02)  # of other minibatches


def test_the_kl_is_reported_where_it_does_not_count(toy_split):
    _, (epoch,) = train(toy_split, beta_type="none", num_epochs=1, lr=1e-9)
    _, (expected,) = train(toy_split, num_epochs=1, lr=1e-9)
    assert epoch.train_kl == pytest.approx(expected.train_kl, rel=1e-4)


def test_bfloat16_products_follow_the_gradient_of_float32(toy_split):
    """To the three digits that a bfloat16 has."""
    changes = {"optimizer": "sgd", "lr": 0.1, "num_epochs": 1, "batch_size": 64}
    start = tasks.network(seed=1).posterior.mean.detach()
    moves = [
        train(toy_split, precision=name, **changes)[0].posterior.mean.detach() - start
        for name in ("float32", "bfloat16")
    ]
    assert (moves[0] - moves[1]).norm() < 0.02 * moves[0].norm()
    assert not torch.equal(*moves)


def test_accuracy_and_nll_of_an_epoch_are_means_over_draws(toy_split):
    """At rest, four draws a step measure what one draw does, and no accuracy is above 1."""
    (one,) = training(toy_split, num_epochs=1, lr=1e-9).fit()
    (four,) = training(toy_split, num_epochs=1, lr=1e-9, num_samples=4).fit()
    assert four.train_accuracy == pytest.approx(one.train_accuracy, abs=0.2)
    assert four.train_accuracy <= 1.0
    assert four.train_nll == pytest.approx(one.train_nll, rel=0.2)


def test_validation_scores_are_those_of_the_validation_set(toy_split):
    """Labels that are all wrong: a network that learns the training set fails on every one."""
    wrong = Split(toy_split.images, (toy_split.labels + 1) % 3)
    *_, last = training(toy_split, wrong, num_epochs=40, temperature=0.1).fit()
    assert last.train_accuracy > 0.9
    assert last.validation_accuracy < 0.1
