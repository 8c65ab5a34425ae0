"""The heads of earlier tasks: kept as they were when a fresh one took their place, and put on again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from bbb.distributions import WeightDistribution, join
from bbb.networks.architecture import Apply, Architecture
from bbb.networks.held import KEPT, Kind, filled, tensors_of
from bbb.networks.layers import Dense, Layer
from bbb.networks.network import BayesianNetwork

HEADS = "heads."  # of the names of their tensors in a file


@dataclass(frozen=True)
class KeptHead:
    """The posterior of a last layer that an earlier task has trained.

    Attributes:
        posterior: over its weights alone.
        task: what a weights file tells of that task, such as its classes.
    """

    posterior: WeightDistribution
    task: Mapping[str, Any]

    def num_outputs(self, architecture: Architecture) -> int:
        """Count its outputs, as a head of the network."""
        return self.posterior.dim // architecture.layers[-1].matrix_shape[1]


@dataclass(frozen=True)
class _Alone(Architecture):
    """A network of one layer, to make its posterior."""

    layer: Layer

    @property
    def layers(self) -> tuple[Layer, ...]:
        return (self.layer,)

    def forward(self, apply: Apply, x: Tensor) -> Tensor:
        return apply(0, x)

    @property
    def num_inputs(self) -> int:
        return self.layer.fan_in

    def __str__(self) -> str:
        return f"a layer of {self.layer.shape[0]} units"


def heads_as_tensors(heads: Sequence[KeptHead]) -> dict[str, Tensor]:
    """List the tensors of heads by the names that they have in a file."""
    held = (tensors_of(head.posterior) for head in heads)
    return {f"{HEADS}{i}.{name}": value for i, tensors in enumerate(held) for name, value in tensors.items()}


def heads_from(
    architecture: Architecture, told: object, tensors: Mapping[str, Tensor], kind: Kind
) -> list[KeptHead] | None:
    """Make the heads that a file holds.

    Args:
        architecture: the network whose heads they were.
        told: what the file tells of each head: its task and ``num_outputs``.
        tensors: those of :func:`heads_as_tensors`, without the first part of their names.
        kind: of the posteriors.

    Returns:
        The heads; None if the tensors are not theirs.
    """
    if not isinstance(told, list):
        return None
    heads, num_used = [], 0
    for i, about in enumerate(told):
        layer = _layer(architecture.layers[-1], about.get("num_outputs") if isinstance(about, dict) else None)
        own = {name.removeprefix(f"{i}."): value for name, value in tensors.items() if name.startswith(f"{i}.")}
        alone = None if layer is None else filled(_Alone(layer), own, kind, is_pruned=KEPT in own)
        if alone is None:
            return None
        num_used += len(own)
        task = {name: value for name, value in about.items() if name != "num_outputs"}
        heads.append(KeptHead(alone.posterior.requires_grad_(False), task))
    return heads if num_used == len(tensors) else None


def with_head(network: BayesianNetwork, head: KeptHead, architecture: Architecture) -> BayesianNetwork:
    """Put an earlier head on the hidden layers of a network.

    Args:
        network: the network; it stays as it is.
        head: the head.
        architecture: the network with as many outputs as that head has.
    """
    hidden, _ = network.split_head()
    headed = BayesianNetwork(architecture, join(hidden, head.posterior), network.normalization)
    if headed.fixed is not None and network.fixed is not None:
        headed.fixed.load_state_dict(network.fixed.state_dict())
    return headed


def _layer(layer: Layer, num_outputs: object) -> Layer | None:
    """Return the head with another number of outputs; None where there is none."""
    if isinstance(num_outputs, bool) or not isinstance(num_outputs, int) or num_outputs < 1:
        return None
    if num_outputs == layer.shape[0]:
        return layer
    return replace(layer, num_out=num_outputs) if isinstance(layer, Dense) else None
