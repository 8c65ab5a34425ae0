"""Trained networks as prior means: what matches what."""

import pytest
import torch
from safetensors.torch import save_file

from bbb.networks import MLP, WeightsError, load_pretrained
from tests.tasks import seeded


def state(*shapes, seed=1):
    """A state_dict of fully connected layers, by name and shape."""
    noise = seeded(seed)
    parts = {}
    for name, (rows, columns) in shapes:
        parts |= {f"{name}.weight": torch.randn(rows, columns, generator=noise)}
        parts |= {f"{name}.bias": torch.randn(rows, generator=noise)}
    return parts


def flat(tensors, *names):
    return torch.cat([tensors[f"{name}.{part}"].flatten() for name in names for part in ("weight", "bias")])


def test_layers_are_matched_by_name_first(tmp_path):
    tensors = state(("!", (4, 3)), ("0", (4, 3)), ("2", (2, 4)))
    save_file(tensors, tmp_path / "w")
    found = load_pretrained(tmp_path / "w", MLP((3, 4, 2)))
    assert torch.equal(found.mean, flat(tensors, "0", "2"))
    assert found.is_matched.all()
    assert found.report == ("layer 0, 4 x 3: from 0", "layer 2, 2 x 4: from 2", "not used: !")


def test_no_layer_takes_by_its_shape_what_bears_the_name_of_a_later_one(tmp_path):
    tensors = state(("2", (3, 3)), ("x", (3, 3)))
    save_file(tensors, tmp_path / "w")
    found = load_pretrained(tmp_path / "w", MLP((3, 3, 3)))
    assert found.report == ("layer 0, 3 x 3: from x", "layer 2, 3 x 3: from 2")
    assert torch.equal(found.mean, flat(tensors, "x", "2"))


def test_layers_of_other_names_are_taken_by_shape_in_the_order_of_their_numbers(tmp_path):
    """Ten comes after two, although a file holds it before."""
    names = [f"net.{number}" for number in (1, 2, 9, 10, 11)]
    tensors = state(*((name, (3, 3)) for name in names))
    save_file(tensors, tmp_path / "w")
    assert torch.equal(load_pretrained(tmp_path / "w", MLP((3,) * 6)).mean, flat(tensors, *names))


def test_what_matches_nothing_has_the_mean_zero_and_says_so(tmp_path):
    tensors = state(("a", (4, 3)), ("b", (5, 4)))
    tensors |= {"c.weight": torch.ones(2, 4)}  # no bias
    save_file(tensors, tmp_path / "w")
    found = load_pretrained(tmp_path / "w", MLP((3, 4, 2)))
    assert torch.equal(found.mean, torch.cat([flat(tensors, "a"), torch.zeros(10)]))
    assert found.is_matched.tolist() == [True] * 16 + [False] * 10
    report = ("layer 0, 4 x 3: from a", "layer 2, 2 x 4: nothing matches, prior mean 0", "not used: b", "not used: c")
    assert found.report == report


@pytest.mark.parametrize(("keep", "used"), [(None, True), (True, True), (False, False)])
def test_a_head_that_fits_is_taken_unless_it_is_to_be_fresh(tmp_path, keep, used):
    save_file(state(("0", (4, 3)), ("1", (2, 4))), tmp_path / "w")
    assert load_pretrained(tmp_path / "w", MLP((3, 4, 2)), keep).is_matched[-10:].tolist() == [used] * 10


@pytest.mark.parametrize(
    ("tensors", "keep", "message"),
    [
        (state(("0", (4, 4))), None, r"matches no layer of 3-4-2 units; it holds 0 \(4, 4\)"),
        ({"bias": torch.ones(3)}, None, "it holds no weights"),
        (state(("0", (4, 3)), ("1", (3, 4))), True, r"has no weights of shape \(2, 4\) for the head; use head=fresh"),
        ({**state(("0", (4, 3))), "x": torch.tensor([float("nan")])}, None, "holds values that are not finite"),
        (None, None, "is not a safetensors file, or is damaged"),
    ],
    ids=["other shapes", "no weights", "another head", "NaN", "a pickle"],
)
def test_a_file_that_cannot_be_used_is_refused(tmp_path, tensors, keep, message):
    if tensors is None:
        torch.save(state(("0", (4, 3))), tmp_path / "w")
    else:
        save_file(tensors, tmp_path / "w")
    with pytest.raises(WeightsError, match=message) as error:
        load_pretrained(tmp_path / "w", MLP((3, 4, 2)), keep)
    assert "\n" not in str(error.value)
