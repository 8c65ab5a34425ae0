"""The bandit: rewards and regret against hand-made cases, the agents at their limits, and the study of both."""

import json
import math

import pytest
import torch

from bbb.data import Normalization
from bbb.distributions import Gaussian, Point, gaussian_prior
from bbb.networks import MLP, BayesianNetwork, initial_network
from bbb.studies import BanditStudy
from bbb.studies.bandit import EAT, PASS, Bandit, Contexts, play
from bbb.studies.bandit_agents import Buffer, Learning, NetworkAgent
from bbb.studies.bandit_study import ARMS
from tests.tasks import seeded

MARKED = Contexts(torch.tensor([[1.0], [-1.0]]), torch.tensor([True, False]))  # the sign tells
TRUTH = MLP((3, 2, 1))


class Always:
    """An agent that always does the same, and remembers what it was told."""

    def __init__(self, action):
        self.action, self.told = action, []

    def act(self, context):
        return self.action

    def learn(self, context, action, reward):
        self.told.append((context.item(), action, reward))


class Oracle(Always):
    """An agent that knows the sign."""

    def act(self, context):
        return EAT if context.item() > 0 else PASS


def truth():
    """Weights at which the output is the expected reward: 5 or -15 for eating, 0 for passing.

    The units are relu(x - 1 + a) and relu(-x - 1 + a), with a = 1 for eating: 1 for what is edible or poisonous.
    """
    first = torch.tensor([[1.0, 0.0, 1.0], [-1.0, 0.0, 1.0]])  # of the context, passing and eating
    return torch.cat([first.flatten(), torch.tensor([-1.0, -1.0]), torch.tensor([5.0, -15.0, 0.0])])


def agent(posterior, epsilon=0.0, seed=1, **changes):
    network = BayesianNetwork(TRUTH, posterior, Normalization(scale=1.0))
    return NetworkAgent(network, None, Learning(**{"steps_per_interaction": 0, **changes}), epsilon, seed)


def test_rewards_are_those_of_the_paper():
    bandit = Bandit(MARKED, 1, 4000)
    edible = [t for t in range(4000) if bandit.is_edible[t]]
    poisonous = [t for t in range(4000) if not bandit.is_edible[t]]
    assert {bandit.reward(t, EAT) for t in edible} == {5.0}
    assert {bandit.reward(t, PASS) for t in range(4000)} == {0.0}
    eaten = [bandit.reward(t, EAT) for t in poisonous]
    assert {*eaten} == {5.0, -35.0}
    num = len(poisonous)
    assert abs(sum(eaten) / num + 15.0) < 4 * 20.0 / math.sqrt(num)
    assert abs(num - 2000) < 4 * math.sqrt(1000)
    assert all((bandit.context(t).item() > 0) == bandit.is_edible[t] for t in range(4000))


def test_regret_is_the_oracles_reward_minus_the_agents():
    bandit = Bandit(MARKED, 2, 50)
    eats, passes, oracle = (play(bandit, each) for each in (Always(EAT), Always(PASS), Oracle(EAT)))
    assert passes.regret == [5.0 * edible for edible in bandit.is_edible]
    for regret, edible in zip(eats.regret, bandit.is_edible, strict=True):
        assert regret in ((0.0,) if edible else (-5.0, 35.0))
    assert oracle.regret == [0.0] * 50
    assert not any(oracle.is_mistake)
    assert eats.is_mistake == [not edible for edible in bandit.is_edible]


def test_an_agent_is_told_what_it_did_and_got():
    bandit, always = Bandit(MARKED, 3, 20), Always(EAT)
    play(bandit, always)
    assert always.told == [(bandit.context(t).item(), EAT, bandit.reward(t, EAT)) for t in range(20)]


def test_contexts_and_luck_depend_on_the_seed_alone():
    one, again, other = (Bandit(MARKED, seed, 100) for seed in (5, 5, 6))
    rewards = [[bandit.reward(t, EAT) for t in range(100)] for bandit in (one, again, other)]
    assert rewards[0] == rewards[1] != rewards[2]


@pytest.mark.parametrize(
    "posterior",
    [Point(truth()), Gaussian(truth(), torch.full((11,), -20.0))],
    ids=["greedy with the true means", "samples from a posterior at the truth"],
)
def test_who_knows_the_expected_rewards_has_no_regret(posterior):
    knows = agent(posterior)
    torch.testing.assert_close(knows.expected_rewards(torch.tensor([1.0])), torch.tensor([0.0, 5.0]))
    torch.testing.assert_close(knows.expected_rewards(torch.tensor([-1.0])), torch.tensor([0.0, -15.0]))
    assert play(Bandit(MARKED, 4, 200), knows).regret == [0.0] * 200


def test_actions_are_chosen_on_the_mean_of_fresh_draws():
    """The bias of the output moves both actions alike; its draws have variance std^2 / num_draws."""
    log_std = torch.full((11,), -20.0)
    log_std[-1] = 0.0
    for num_draws in (1, 2, 8):
        samples = agent(Gaussian(truth(), log_std), num_draws=num_draws, noise_reuse=1)
        values = torch.stack([samples.expected_rewards(torch.tensor([1.0])) for _ in range(2000)])
        torch.testing.assert_close(values[:, 1] - values[:, 0], torch.full((2000,), 5.0))
        variance = values[:, 0].var().item()
        assert abs(variance * num_draws - 1.0) < 4 * math.sqrt(2 / 2000)


@pytest.mark.parametrize("epsilon", [0.01, 0.05, 1.0])
def test_a_share_epsilon_of_the_actions_is_uniform(epsilon):
    num = 4000
    bandit = Bandit(MARKED, 7, num)
    mistakes = sum(play(bandit, agent(Point(truth()), epsilon)).is_mistake)
    share = epsilon / 2
    assert abs(mistakes / num - share) < 4 * math.sqrt(share * (1 - share) / num)


def test_the_buffer_keeps_the_last_interactions():
    buffer = Buffer(4096, 1)
    for i in range(5000):
        buffer.add(torch.tensor([float(i)]), -float(i))
        assert len(buffer) == min(i + 1, 4096)
    x, y = buffer.sample(60_000, seeded(1))
    assert sorted({*x[:, 0].tolist()}) == [float(i) for i in range(904, 5000)]
    assert torch.equal(x[:, 0], -y)


def test_a_buffer_that_fills_gives_only_what_it_holds():
    buffer = Buffer(10, 1)
    for i in (1, 2, 3):
        buffer.add(torch.tensor([float(i)]), 10.0 * i)
    x, y = buffer.sample(500, seeded(1))
    assert {*x[:, 0].tolist()} == {1.0, 2.0, 3.0}
    assert torch.equal(10 * x[:, 0], y)


def test_the_kl_counts_once_in_a_pass_over_the_buffer():
    """The cost per example is NLL + KL / N, with N the interactions in the buffer, and not its capacity."""
    network = initial_network(TRUTH, 0.1, seeded(1), normalization=Normalization(scale=1.0))
    prior = gaussian_prior(network.posterior.dim, 0.7)
    learner = NetworkAgent(network, prior, Learning(capacity=64, batch_size=16, noise_std=2.0), 0.0, 1)
    seen = []
    step = learner._step.gradient
    learner._step.gradient = lambda *args: seen.append(step(*args)) or seen[-1]
    for number in range(1, 100):
        kl = network.posterior.kl_divergence(prior).item()
        learner.learn(torch.tensor([1.0]), EAT, 5.0)
        cost, (nll, _, _) = seen[-1]
        assert cost.item() == pytest.approx(nll.item() / 16 + kl / min(number, 64), rel=1e-4)


def test_without_a_prior_the_likelihood_alone_is_learnt():
    learner = agent(Point(0.9 * truth()), steps_per_interaction=1, lr=0.02)
    play(Bandit(MARKED, 8, 10), learner)  # until the buffer has examples
    edible = torch.tensor([1.0])
    for _ in range(150):
        learner.learn(edible, EAT, 5.0)
    assert learner.expected_rewards(edible)[EAT].item() == pytest.approx(5.0, abs=0.5)


# The study


@pytest.fixture
def tiny(in_tmp, monkeypatch):
    """The study at toy size, with one seed of each agent."""
    monkeypatch.setattr("bbb.studies.bandit_study.SEEDS", (1,))
    return lambda: BanditStudy(fast=True)


def test_the_same_seed_gives_the_same_curve(tiny):
    study = tiny()
    first, again = (study.make("bayes_by_backprop_seed1", lambda: None) for _ in range(2))
    assert first["regret"] == again["regret"]
    assert first["regret"] != study.make("bayes_by_backprop_seed2", lambda: None)["regret"]


def test_a_study_that_is_interrupted_goes_on_and_ends_as_if_it_was_not(tiny, in_tmp, monkeypatch):
    whole = dict(tiny().run())
    shows = tiny().save(whole, in_tmp / "whole")
    for path in tiny().folder.glob("greedy*.json"):
        path.unlink()
    num_steps = 0

    def interrupt():
        nonlocal num_steps
        num_steps += 1
        if num_steps == 150:  # in the second of the three missing parts
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dict(tiny().run(interrupt))
    assert sorted(tiny().kept()) == ["bayes_by_backprop_seed1", "greedy_seed1"]
    num_steps = 1000
    assert tiny().save(dict(tiny().run(interrupt)), in_tmp / "again") == shows
    assert num_steps == 1200
    names = [f"bandit.{kind}" for kind in ("json", "png")]
    assert all((in_tmp / "again" / name).read_bytes() == (in_tmp / "whole" / name).read_bytes() for name in names)


def test_parts_of_another_configuration_or_damaged_ones_are_computed_anew(tiny):
    dict(tiny().run())
    assert len(tiny().kept()) == len(ARMS)
    other = tiny()
    other.num_interactions += 1
    assert other.kept() == {}
    path = tiny().folder / "greedy_seed1.json"
    path.write_text(path.read_text()[:-9])
    assert len(tiny().kept()) == len(ARMS) - 1


def test_the_figure_is_drawn_again_from_its_file_to_the_last_bit(tiny, in_tmp):
    study = tiny()
    study.save(dict(study.run()), in_tmp)
    first = (in_tmp / "bandit.png").read_bytes()
    (in_tmp / "bandit.png").unlink()
    assert study.redraw(in_tmp)
    assert (in_tmp / "bandit.png").read_bytes() == first
    record = json.loads((in_tmp / "bandit.json").read_text())
    record["config"]["num_hidden"] += 1
    (in_tmp / "bandit.json").write_text(json.dumps(record))
    assert not study.redraw(in_tmp)
    (in_tmp / "bandit.json").write_text("[]")
    assert not study.redraw(in_tmp)


def test_digits_from_five_on_are_edible():
    contexts = BanditStudy().contexts
    assert contexts.inputs.shape == (1797, 64)
    assert contexts.is_edible.sum() == 896  # of the embedded digits: 182 + 181 + 179 + 174 + 180
    assert contexts.inputs.max().item() == pytest.approx(255 / 126)
