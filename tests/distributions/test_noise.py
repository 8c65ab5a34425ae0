import pytest
import torch
from scipy import stats

from bbb.distributions import NoiseTable, Stacked, normal
from bbb.system import Group
from tests.tasks import seeded


def table(num_uses, window=4096, seed=1, group=None):
    return NoiseTable(seeded(seed), num_uses, window, group or Group())


def steps(source, num, shape):
    values = torch.empty(num, *shape)
    for value in values:
        source.begin_step()
        value.copy_(source.normal(shape))
    return values


def test_the_noise_of_a_step_is_standard_normal():
    """Kolmogorov and Smirnov's test of every step; the least of 32 p-values below 1e-4 has a probability of .3 %."""
    p_values = [stats.kstest(noise.numpy(), "norm").pvalue for noise in steps(table(8), 32, (4096,))]
    assert min(p_values) > 1e-4


def test_a_weight_sees_independent_noise_from_step_to_step():
    """Correlations between consecutive steps, over the weights, are 0 within five standard errors."""
    noise = steps(table(16), 32, (4096,))
    correlations = (noise[1:] * noise[:-1]).mean(1)
    assert correlations.abs().max() < 5 / 4096**0.5


def test_a_table_is_drawn_anew_after_its_uses():
    source = table(2, window=64)
    seen, later = ({*steps(source, 2, (64,)).flatten().tolist()} for _ in range(2))
    assert not seen & later


def test_no_two_steps_of_a_table_read_the_same_window():
    """Nor do the processes of a group: 2 of them take 2,000 steps, where random places would coincide 2,000 times."""
    firsts = [steps(table(2000, window=64, group=Group(rank, 2)), 2000, (1,)).flatten().tolist() for rank in range(2)]
    assert len({*firsts[0], *firsts[1]}) == 4000


def test_steps_share_numbers_until_then():
    numbers = steps(table(64), 64, (4096,)).flatten().tolist()
    assert len({*numbers}) < len(numbers) / 3  # 64 windows of 4,096 in a table of 69,632


def test_parts_of_a_step_do_not_overlap():
    source = table(16)
    source.begin_step()
    parts = torch.cat([source.normal((3, 100)).flatten(), source.normal((200,))])
    assert len(set(parts.tolist())) == 500


def test_one_use_is_fresh_noise_from_the_generator():
    source = table(1, window=8)
    expected = torch.empty(3, 5).normal_(generator=seeded(1))
    assert torch.equal(steps(source, 1, (3, 5))[0], expected)


@pytest.mark.parametrize("num_uses", [1, 4])
@pytest.mark.parametrize("num_steps", [0, 3, 4, 6])
def test_a_restored_table_goes_on_with_the_same_noise(num_uses, num_steps):
    source = table(num_uses)
    steps(source, num_steps, (100,))
    state = source.state_dict()
    expected = steps(source, 9, (100,))
    again = table(num_uses, seed=5)
    again.load_state_dict(state)
    assert torch.equal(steps(again, 9, (100,)), expected)


@pytest.mark.parametrize("num_uses", [1, 4])
def test_processes_of_a_group_read_noise_of_their_own_from_the_same_streams(num_uses):
    first, second = (table(num_uses, group=Group(rank, 2)) for rank in range(2))
    assert not torch.equal(steps(first, 3, (100,)), steps(second, 3, (100,)))
    assert torch.equal(first.generator.get_state(), second.generator.get_state())


def test_stacked_noise_is_that_of_each_replica():
    tables = [table(4, seed=seed) for seed in (1, 2)]
    for source in tables:
        source.begin_step()
    both = normal((3, 2, 7), torch.zeros(()), Stacked(tables))
    for r, seed in enumerate((1, 2)):
        assert torch.equal(both[:, r], steps(table(4, seed=seed), 1, (3, 7))[0])


def test_more_than_the_window_is_refused():
    source = table(4, window=32)
    source.begin_step()
    with pytest.raises(ValueError, match=r"shape=\(20, 10\): a step reads more than window=32 numbers"):
        source.normal((20, 10))


def test_noise_has_the_type_that_is_asked_for():
    source = table(4)
    source.begin_step()
    like = torch.zeros((), dtype=torch.float64)
    assert normal((2, 3), like, source).dtype == normal((2, 3), like, source.generator).dtype == torch.float64
