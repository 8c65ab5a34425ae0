"""The tensors that hold a posterior in a file, and the network that is made for tensors again."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bbb.distributions import (
    Dropout,
    FlowName,
    Gaussian,
    Laplace,
    Point,
    PosteriorName,
    Pruned,
    WeightDistribution,
    num_flow_parameters,
)
from bbb.networks.architecture import Architecture
from bbb.networks.bits import pack, unpack
from bbb.networks.layout import num_weights, units_left
from bbb.networks.network import BayesianNetwork, initial_network

KEPT = "kept"  # the tensor of the bits of a pruned posterior
DTYPES = (torch.float32, torch.float64)


@dataclass(frozen=True)
class Kind:
    """Which posterior a file holds, whatever the network.

    Attributes:
        flow: of its maps; None without.
        num_flows: of the maps on each layer.
        posterior: its name in a configuration.
        dropout: the share that dropout drops.
    """

    flow: FlowName | None
    num_flows: int
    posterior: PosteriorName
    dropout: float


def tensors_of(posterior: WeightDistribution) -> dict[str, Tensor]:
    """List what holds a posterior: its parameters; of a pruned one those of what is left, and a bit for each weight."""
    if isinstance(posterior, Pruned):
        return {**posterior.base.state_dict(), KEPT: pack(posterior.kept)}
    return dict(posterior.state_dict())


def filled(
    architecture: Architecture,
    tensors: Mapping[str, Tensor],
    kind: Kind,
    num_replicas: int = 1,
    is_pruned: bool = False,
) -> BayesianNetwork | None:
    """Make the network whose posterior such tensors hold.

    Args:
        architecture: the network.
        tensors: what :func:`tensors_of` lists.
        kind: of the posterior.
        num_replicas: R.
        is_pruned: whether there is a bit for each weight.

    Returns:
        The network; None if the tensors are not those of such a posterior.
    """
    if is_pruned:
        held = {name: value for name, value in tensors.items() if name != KEPT}
        bits = tensors.get(KEPT, torch.zeros(0, dtype=torch.uint8))
        network = None if kind.num_flows or num_replicas > 1 else _blank_pruned(architecture, bits, held, kind)
    else:
        held, network = dict(tensors), _blank(architecture, tensors, kind, num_replicas)
    if network is None:
        return None
    posterior = network.posterior.base if isinstance(network.posterior, Pruned) else network.posterior
    if {name: value.shape for name, value in posterior.state_dict().items()} != _shapes(held):
        return None
    posterior.load_state_dict(held)
    return network


def _blank(
    architecture: Architecture, tensors: Mapping[str, Tensor], kind: Kind, num_replicas: int
) -> BayesianNetwork | None:
    """Make a network to load tensors into; None if they are too few, since it might exceed the memory, or not its."""
    if num_replicas > 1 and architecture.fixed is not None:
        return None
    layers, flow = architecture.layers, kind.flow or "planar"
    flow_parameters = num_flow_parameters([layer.matrix_shape for layer in layers], flow)
    num_each = 2 if kind.posterior in ("gaussian", "laplace") else 1  # numbers for each weight
    needed = num_replicas * (num_each * num_weights(layers) + kind.num_flows * flow_parameters)
    dtype = _dtype(tensors)
    if sum(value.numel() for value in tensors.values()) < needed or dtype is None:
        return None
    how = kind.num_flows, flow, None, kind.posterior, kind.dropout
    network = initial_network(architecture, 1.0, torch.Generator(), *how).to(dtype)
    return network if num_replicas == 1 else BayesianNetwork.stacked([network] * num_replicas)


def _blank_pruned(
    architecture: Architecture, bits: Tensor, tensors: Mapping[str, Tensor], kind: Kind
) -> BayesianNetwork | None:
    """Make a network to load a pruned posterior into; None if the bits are not one for each weight, or as above."""
    kept, dtype = unpack(bits, num_weights(architecture.layers)), _dtype(tensors)
    if kept is None or dtype is None:
        return None
    mean, log_std = torch.zeros(2, int(kept.sum()))
    base: Gaussian | Point = Gaussian(mean, log_std) if kind.posterior == "gaussian" else Point(mean)
    if kind.posterior == "laplace":
        base = Laplace(mean)
    if kind.posterior == "dropout":
        unit, num_units = units_left(architecture.layers)
        base = Dropout(mean, kind.dropout, unit[kept], num_units)
    return BayesianNetwork(architecture, Pruned(base, kept)).to(dtype)


def _dtype(tensors: Mapping[str, Tensor]) -> torch.dtype | None:
    """Return the one type of all tensors; None if they have several, or one that is not of weights."""
    dtypes = {value.dtype for value in tensors.values()}
    return dtypes.pop() if len(dtypes) == 1 and dtypes <= {*DTYPES} else None


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in tensors.items()}
