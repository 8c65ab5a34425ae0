import pytest
import torch

from bbb.networks import MLP, forward_drawn, unflatten
from tests.tasks import seeded


@pytest.mark.parametrize("sizes", [(), (5,), (5, 0), (5, -3, 2)])
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match=r"sizes=\(.*\): must be at least two positive numbers, from input to output"):
        MLP(sizes)


def test_a_list_of_sizes_is_as_good_as_a_tuple():
    assert MLP([5, 4, 3]) == MLP((5, 4, 3))
    assert hash(MLP([5, 4, 3])) == hash(MLP((5, 4, 3)))


def test_outputs_are_not_cut_off_at_zero():
    """ReLU units are between layers, not after the last one."""
    mlp = MLP((5, 4, 3))
    w = torch.randn(8, 39, generator=seeded(1))
    assert forward_drawn(mlp, unflatten(w, mlp.layers), torch.ones(2, 5)).min() < 0
