"""Pruning of networks: kernels lose weights, biases none; and the file of what is left."""

import json

import pytest
import torch
from safetensors import safe_open
from torch import nn

from bbb.data import Normalization
from bbb.networks import (
    BayesianNetwork,
    ModuleArchitecture,
    PruningError,
    WeightsError,
    initial_network,
    kernel_mask,
    lenet,
    load_weights,
    pruned_network,
    save_weights,
)
from bbb.networks.bits import pack, unpack
from tests.networks.test_weights_file import own, own_network, rewritten
from tests.tasks import TOY, network, seeded

SHARES = [0.0, 0.5, 0.95]
NO_BIAS = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.Flatten(), nn.Linear(8, 3))
NETWORKS = {
    "MLP": (lambda: network(1), None),
    "MLP in float64": (lambda: network(1).double(), None),
    "LeNet, standardised": (
        lambda: initial_network(
            lenet((1, 16, 16), 3), 0.1, seeded(2), normalization=Normalization(torch.zeros(256), torch.ones(256))
        ),
        None,
    ),
    "a user's, with deterministic layers": (own_network, own()),
}


def test_kernels_are_told_from_biases():
    layers = ModuleArchitecture(NO_BIAS, (1, 4, 4), 3).layers
    assert kernel_mask(layers).tolist() == [True] * 18 + [True] * 24 + [False] * 3
    assert kernel_mask(TOY.layers).tolist() == [True] * 96 + [False] * 8 + [True] * 24 + [False] * 3


@pytest.mark.parametrize("share", [*SHARES, 0.333])
def test_a_share_of_the_kernels_goes_and_every_bias_stays(share):
    whole = network(1)
    kernels = kernel_mask(TOY.layers)
    kept = pruned_network(whole, share).posterior.kept
    assert int((~kept).sum()) == round(share * int(kernels.sum()))
    assert kept[~kernels].all()  # although all biases have a mean of zero at the start


def test_kernels_of_all_layers_are_ranked_together():
    whole = network(1)
    whole.posterior.mean.data[: 12 * 8] *= 1e-6
    kept = pruned_network(whole, 96 / 120).posterior.kept
    assert not kept[:96].any()
    assert kept[96:].all()


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: network(1, 2), "has normalizing flows"),
        (lambda: BayesianNetwork.stacked([network(1), network(2)]), "holds 2 replicas"),
        (lambda: pruned_network(network(1), 0.5), "is pruned already"),
    ],
    ids=["flows", "replicas", "pruned"],
)
def test_what_cannot_be_pruned_says_so_in_one_line(made, words):
    with pytest.raises(PruningError, match=words) as error:
        pruned_network(made(), 0.5)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_other_shares_are_refused(share):
    with pytest.raises(PruningError, match="must be at least 0 and less than 1"):
        pruned_network(network(1), share)


@pytest.mark.parametrize("num", [1, 7, 8, 9, 16, 131])
def test_bits_survive_the_trip(num):
    kept = torch.rand(num, generator=seeded(num)) < 0.3
    packed = pack(kept)
    assert packed.numel() == -(-num // 8)
    assert torch.equal(unpack(packed, num), kept)
    assert unpack(packed, num + 8) is None
    assert unpack(packed.int(), num) is None
    if num % 8:
        assert unpack(torch.full_like(packed, 255), num) is None  # bits of weights that are not there


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("kind", NETWORKS)
def test_a_pruned_network_survives_the_trip(tmp_path, kind, share):
    made, given = NETWORKS[kind]
    pruned = pruned_network(made(), share)
    save_weights(tmp_path / "w", pruned, {"dataset": "toy"})
    read, about = load_weights(tmp_path / "w", network=given)
    assert about["dataset"] == "toy"
    assert read.posterior.dtype == pruned.posterior.dtype
    assert torch.equal(read.posterior.kept, pruned.posterior.kept)
    ours, theirs = (n.posterior.rsample_and_log_prob(3, seeded(4)) for n in (pruned, read))
    assert torch.equal(ours[0], theirs[0])
    assert torch.equal(ours[1], theirs[1])
    x = torch.rand(2, read.architecture.num_inputs, generator=seeded(5))
    assert torch.equal(read.normalization(x), pruned.normalization(x))


def test_the_file_holds_a_bit_for_each_weight_and_what_is_kept(tmp_path):
    whole = network(1, sizes=(64, 100, 10))
    sizes = {}
    for share in (None, *SHARES):
        save_weights(tmp_path / "w", whole if share is None else pruned_network(whole, share))
        sizes[share] = (tmp_path / "w").stat().st_size
    dim = whole.posterior.dim
    kernels = 64 * 100 + 100 * 10
    for share in SHARES:
        content = dim / 8 + 8 * (dim - round(share * kernels))
        assert content <= sizes[share] <= content + 1000  # the header
    assert sizes[0.95] < sizes[None] / 8
    with safe_open(tmp_path / "w", "pt") as file:
        assert {*file.keys()} == {"kept", "mean", "log_std"}
        assert json.loads(file.metadata()["format"]) == "bbb-weights-4"


@pytest.fixture
def saved(tmp_path):
    save_weights(tmp_path / "w", pruned_network(network(1), 0.5))
    rewritten(tmp_path / "w")
    load_weights(tmp_path / "w")
    return tmp_path / "w"


def test_a_bit_that_was_changed_is_refused(saved):
    with safe_open(saved, "pt") as file:
        packed = file.get_tensor("kept").numpy().tobytes()
    content = saved.read_bytes()
    at = content.index(packed)
    saved.write_bytes(content[:at] + bytes([content[at] ^ 3]) + content[at + 1 :])
    with pytest.raises(WeightsError, match="its checksum is not that of its content"):
        load_weights(saved)


FORGED = {
    "another mask": ({"kept": torch.zeros(17, dtype=torch.uint8)}, {}),
    "a longer mask": ({"kept": torch.full((18,), 255, dtype=torch.uint8)}, {}),
    "a mask of floats": ({"kept": torch.ones(17)}, {}),
    "no mask": ({"kept": None}, {}),
    "fewer means": ({"mean": torch.zeros(7)}, {}),
    "no means": ({"mean": None}, {}),
    "nothing but the mask": ({"mean": None, "log_std": None}, {}),
    "halves": ({"mean": torch.zeros(71).half(), "log_std": torch.zeros(71).half()}, {}),
    "a tensor too many": ({"extra": torch.zeros(71)}, {}),
    "flows": ({}, {"num_flows": 2, "flow": "planar"}),
    "replicas": ({}, {"num_replicas": 2}),
    "more weights than bits": ({}, {"sizes": [10**9, 10**9]}),
    "a whole posterior's name": ({}, {"format": "bbb-weights-2"}),
}


@pytest.mark.parametrize("kind", FORGED)
def test_forged_files_are_refused(saved, kind):
    tensors, metadata = FORGED[kind]
    rewritten(saved, tensors, **metadata)
    with pytest.raises(WeightsError, match="do not have the shape that its layout") as error:
        load_weights(saved)
    assert len(str(error.value).splitlines()) == 1


def test_values_that_are_not_finite_are_refused(saved):
    rewritten(saved, {"mean": torch.full((71,), torch.nan)})
    with pytest.raises(WeightsError, match="not finite"):
        load_weights(saved)
